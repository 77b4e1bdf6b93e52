"""Pickles, HDF5 and JSON files of one's own in every shape give the same data set as a table does."""

import json
import pickle

import h5py
import numpy as np
import pytest
from layout_files import LABELS, STANDARD, VIDEOS, WORDS, assert_frames, by_split, notes_of, ragged_samples

from mmsa_lib.data.sources.table import read
from mmsa_lib.data.task import classes
from mmsa_lib.errors import DataError

IDS = [f"{video}$_${row}" for row, video in enumerate(VIDEOS)]
TEXTS = [" ".join(words) for words in WORDS]
SEQUENCES = ragged_samples(1, 3, 6)
COLUMNS = {"label": LABELS.tolist(), "text": TEXTS, "audio": SEQUENCES}
SPLIT = {"split": STANDARD.tolist()}


def flat():
    return {"id": IDS} | SPLIT | COLUMNS


def by_sample():
    return {one: {key: values[row] for key, values in (SPLIT | COLUMNS).items()} for row, one in enumerate(IDS)}


def by_field():
    return {key: dict(zip(IDS, values, strict=True)) for key, values in (SPLIT | COLUMNS).items()}


def rows():
    return [{"id": one} | row for one, row in by_sample().items()]


def of_splits():
    parts = {key: by_split(values) for key, values in ({"id": IDS} | COLUMNS).items()}
    return {split: {key: part[split] for key, part in parts.items()} for split in ("train", "valid", "test")}


def samples_of_splits():
    tree = of_splits()
    return {
        split: {one: {key: part[key][row] for key in part if key != "id"} for row, one in enumerate(part["id"])}
        for split, part in tree.items()
    }


SHAPES = [flat, by_sample, by_field, rows, of_splits, samples_of_splits]


def write_hdf5(group, tree):
    for key, value in tree.items():
        if isinstance(value, dict):
            write_hdf5(group.create_group(key), value)
        elif isinstance(value, list) and isinstance(value[0], np.ndarray):
            ragged = group.create_dataset(key, (len(value),), dtype=h5py.vlen_dtype(np.float64))
            for row, frames in enumerate(value):
                ragged[row] = frames[:, 0]
        elif isinstance(value, str | float):
            group.attrs[key] = value
        else:
            group[key] = value


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ending", [".pkl", ".json", ".h5"])
def test_every_shape_of_every_format_is_the_same_set(tmp_path, shape, ending):
    path, tree = tmp_path / f"mine{ending}", shape()
    frames = SEQUENCES
    if ending == ".pkl":
        path.write_bytes(pickle.dumps(tree))
    elif ending == ".json":
        path.write_text(json.dumps(tree, default=np.ndarray.tolist))
    elif shape is rows:
        pytest.skip("HDF5 has no lists of groups")
    else:
        with h5py.File(path, "w") as file:
            write_hdf5(file, tree)
    if ending == ".h5" and shape in (flat, of_splits):  # its arrays of arrays are of one dimension: one frame each
        with pytest.raises(DataError, match="have the widths"):
            read(path, "mine")
        return
    record = read(path, "mine")
    assert record.ids == IDS
    assert record.groups == VIDEOS
    assert record.transcripts == TEXTS
    np.testing.assert_array_equal(record.labels, LABELS.astype(np.float32))
    assert record.folds["standard"].tolist() == STANDARD.tolist()
    assert_frames(record.features["audio"], frames)
    assert notes_of(record, "not read") == []


def test_padded_arrays_of_splits_are_joined_and_samples_without_ids_are_called_by_their_places(tmp_path):
    tree = of_splits()
    for split, steps in (("train", 9), ("valid", 6), ("test", 7)):
        padded = np.zeros((len(tree[split]["id"]), steps, 3))
        for row, frames in enumerate(tree[split]["audio"]):
            padded[row, : len(frames)] = frames
        tree[split]["audio"] = padded
        del tree[split]["id"]
    (tmp_path / "mine.pkl").write_bytes(pickle.dumps(tree))
    record = read(tmp_path / "mine.pkl", "mine")
    assert_frames(record.features["audio"], SEQUENCES)
    assert record.ids[0] == "train_0"
    assert record.ids[-1] == "test_1"
    assert "there are no ids: samples are called by their places" in record.notes


def test_mustard_s_json_and_ur_funny_s_folder(tmp_path):
    samples = {
        f"1_{i}": {"utterance": f"so good {i}", "speaker": f"P{i % 7}", "context": ["a", "b"], "sarcasm": bool(i % 2)}
        for i in range(70)
    }
    (tmp_path / "sarcasm_data.json").write_text(json.dumps(samples))
    options = {"label_column": "sarcasm", "task": classes(["literal", "sarcastic"]), "split": "70/10/20"}
    record = read(tmp_path / "sarcasm_data.json", "mustard", groups="speaker", **options)
    assert record.labels.tolist() == [0, 1] * 35
    assert len(set(record.groups)) == 7
    assert notes_of(record, "not read") == ["not read: context"]

    folder = tmp_path / "ur_funny"
    folder.mkdir()
    part = {
        "data_folds": {"train": list(range(6)), "dev": [6, 7], "test": [8, 9]},
        "humor_label_sdk": {i: i % 2 for i in range(10)},
        "language_sdk": {i: {"punchline_sentence": TEXTS[i], "context_sentences": ["x"]} for i in range(10)},
        "covarep_features_sdk": {
            i: {"punchline_features": SEQUENCES[i].tolist(), "context_features": []} for i in range(10)
        },
    }
    for name, tree in part.items():
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(tree))
    record = read(folder, "humour", task=classes(["serious", "humorous"]))
    assert record.ids == list(map(str, range(10)))
    assert record.labels.tolist() == [0, 1] * 5
    assert record.transcripts == TEXTS
    assert_frames(record.features["audio"], SEQUENCES)
    assert len(record.sources) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"{", "a.json is no JSON"),
        ("a.json", b"[1, 2]", "expected columns or samples by name, found a list of 2 entries"),
        ("a.pkl", pickle.dumps({}), "expected columns or samples by name, found an empty dict"),
        ("a.pkl", pickle.dumps({"train": flat(), "test": {"label": [1.0]}}), "'id' is no column of split test"),
        ("a.pkl", pickle.dumps(flat() | {"text": TEXTS[1:]}), "9 entries for 10 samples"),
        ("a.h5", b"abc", "a.h5 is not an HDF5 file|a.h5"),
    ],
)
def test_what_is_no_data_set_is_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path / name, "mine")
    assert "\n" not in str(caught.value)
