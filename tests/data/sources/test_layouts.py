"""A wrong file is answered with the layout that it has and the command that reads it."""

import pickle

import numpy as np
import pytest
from layout_files import READERS as ALL_READERS
from layout_files import write

from mmsa_lib.data.sources.importing import distinct_ids
from mmsa_lib.data.sources.layouts import (
    FIELDS,
    Fields,
    field_of,
    not_read,
    recognise,
)
from mmsa_lib.errors import DataError

READERS = {name: ALL_READERS[name] for name in ("mmsa", "mult", "mag")}
SPLITS = ("train", "valid", "test")
TREES = {
    "mmsa": {s: {"id": [s], "regression_labels": [i / 2], "raw_text": ["x"]} for i, s in enumerate(SPLITS)},
    "mult": {s: {"text": np.ones((1, 2, 3)), "labels": np.full((1, 1, 1), i)} for i, s in enumerate(SPLITS)},
    "mag": {
        s: [((["x"], np.ones((1, 2)), np.ones((1, 3))), float(i), s)] for i, s in enumerate(("train", "dev", "test"))
    },
}


@pytest.mark.parametrize("found", TREES)
@pytest.mark.parametrize("expected", READERS)
def test_a_known_layout_fed_to_another_reader(tmp_path, found, expected):
    assert recognise(TREES[found]) == found
    if found == expected:
        return
    path = write(tmp_path, TREES[found])
    with pytest.raises(DataError, match=f"use: mmsa-lib data import {found} ") as caught:
        READERS[expected](path, "mine")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("expected", READERS)
@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([1, 2, 3], "found a list of 3 entries"),
        (np.zeros((2, 3)), r"found an array of shape \(2, 3\)"),
        ({"data": 1, "labels": 2}, "found a dict with the keys data, labels"),
        ({}, "found an empty dict"),
        ({s: {"text": 1, "audio": 2} for s in SPLITS}, "of dicts with text, audio"),
        ({s: [] for s in SPLITS}, "found a dict with the keys train, valid, test"),
        ("text", "found a single str"),
    ],
)
def test_an_unknown_layout_is_described(tmp_path, expected, tree, said):
    with pytest.raises(DataError, match=said):
        READERS[expected](write(tmp_path, tree), "mine")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("lost", ["train", "valid", "test"])
def test_a_missing_split_is_named(tmp_path, name, lost):
    split = "dev" if name == "mag" and lost == "valid" else lost
    tree = {key: part for key, part in TREES[name].items() if key != split}
    with pytest.raises(DataError, match=f"split {lost} is missing"):
        READERS[name](write(tmp_path, tree), "mine")


def test_no_name_means_two_fields():
    names = [name for names in FIELDS.values() for name in names]
    assert len(names) == len(set(names))


NAMES = {
    "vision": ("Visual", "video", "FACET"),
    "audio": ("acoustic", "COVAREP", "audio-features", b"audio"),
    **{"text": ("glove",), "labels_text": ("label_T",), "labels_vision": ("regression_labels_V",)},
    **{"labels_audio": ("label_audio",), "audio_lengths": ("acoustic_lengths",), "raw_text": ("transcript",)},
    None: ("annotations", 7),
}


@pytest.mark.parametrize("field", NAMES)
def test_the_names_that_people_use(field):
    assert {field_of(name) for name in NAMES[field]} == {field}


def test_two_names_for_one_split_and_keys_that_read_alike_are_refused(tmp_path):
    tree = {**TREES["mult"], "dev": TREES["mult"]["test"]}
    with pytest.raises(DataError, match="has both 'valid' and 'dev' for valid"):
        READERS["mult"](write(tmp_path, tree), "mine")
    with pytest.raises(DataError, match="f: has two keys 'id'"):
        Fields({"id": 1, b"id": 2}, "f")


def test_what_is_left_is_named_in_one_line():
    assert not_read([]) == []
    names = ["annotations", "x", "x", *(f"f{i}" for i in range(900)), "g1", "g2", "two\nlines"]
    assert not_read(names) == [
        "not read: x, f0 to f899 (900), g1, g2, two lines, annotations (categories follow from the labels; --classes "
        "reads them)"
    ]


def test_numbers_that_begin_again_in_each_split_get_its_name():
    ids = {"train": ["0", "2", "1"], "valid": ["0"], "test": ["1", "0"]}
    named, remarks = distinct_ids(ids)
    assert named == {"train": ["train_0", "train_2", "train_1"], "valid": ["valid_0"], "test": ["test_1", "test_0"]}
    assert "begin at 0 in each split" in remarks[0]
    for kept in ({**ids, "test": ["1", "2"]}, {**ids, "test": ["a", "0"]}, {**ids, "train": ["0", "5"]}):
        assert distinct_ids(kept) == (kept, [])


def _whole_tree(name):
    return {split: pickle.loads(pickle.dumps(part)) for split, part in TREES[name].items()}


@pytest.mark.parametrize("name", READERS)
def test_two_splits_that_are_one_are_named(tmp_path, name):
    valid = "dev" if name == "mag" else "valid"
    tree = _whole_tree(name)
    tree["train"] = pickle.loads(pickle.dumps(tree[valid]))
    with pytest.raises(DataError, match="splits train and valid hold the same samples"):
        READERS[name](write(tmp_path, tree), "mine")  # equal, and not one object
    tree = _whole_tree(name)
    tree["test"] = tree[valid]
    with pytest.raises(DataError, match="hold the same samples"):
        READERS[name](write(tmp_path, tree), "mine")


def test_a_split_alone_and_a_single_sample_are_told_the_way_out(tmp_path):
    for part, reader in ((TREES["mag"]["dev"] * 2, READERS["mag"]), ({"labels": np.ones(3)}, READERS["mult"])):
        with pytest.raises(DataError, match=r"one split alone.*put the three into one file: pickle.dump"):
            reader(write(tmp_path, part), "mine")
    single = {"audio": np.ones((4, 3)), "vision": np.ones((5, 2)), "text": np.ones((6, 7)), "raw_text": "good"}
    with pytest.raises(DataError, match=r"a single sample .*run_single of MMSA-FET.*run_dataset"):
        READERS["mmsa"](write(tmp_path, single), "mine")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("empty", [None, "list", "gone"])
def test_valid_can_be_cut_from_train_where_a_file_has_none(tmp_path, name, empty):
    tree = _whole_tree(name)
    valid = tree.pop("dev" if name == "mag" else "valid")
    if name == "mag":
        tree["train"], tree["test"] = tree["train"] + valid, tree["test"]
    else:
        tree["train"] = {key: np.concatenate([values, valid[key]]) for key, values in tree["train"].items()}
    if empty != "gone":
        tree["valid"] = None if empty is None else [] if name == "mag" else {key: [] for key in tree["train"]}
    with pytest.raises(DataError, match=r"valid .*--cut-valid 0\.1"):
        READERS[name](write(tmp_path, tree), "mine")
    record = READERS[name](write(tmp_path, tree), "mine", cut_valid=0.5)
    assert sorted(record.folds["standard"]) == ["test", "train", "valid"]
    assert any("the file has no split valid: cut 1 samples" in note for note in record.notes)
    with pytest.raises(DataError, match="has a split valid already"):
        READERS[name](write(tmp_path, _whole_tree(name)), "mine", cut_valid=0.5)
