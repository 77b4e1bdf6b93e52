"""A wrong file is answered with the layout that it has and the command that reads it."""

import numpy as np
import pytest
from layout_files import write

from mmsa_lib.data.sources import mag_pickle, mmsa_pickle, mult_pickle
from mmsa_lib.data.sources.layouts import describe, frames_array, recognise, texts
from mmsa_lib.errors import DataError

READERS = {"mmsa": mmsa_pickle.read, "mult": mult_pickle.read, "mag": mag_pickle.read}
SPLITS = ("train", "valid", "test")
TREES = {
    "mmsa": {s: {"id": ["a"], "regression_labels": [1.0], "raw_text": ["x"]} for s in SPLITS},
    "mult": {s: {"text": np.ones((1, 2, 3)), "labels": np.ones((1, 1, 1))} for s in SPLITS},
    "mag": {s: [((["x"], np.ones((1, 2)), np.ones((1, 3))), 1.0, "a")] for s in ("train", "dev", "test")},
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


def test_describe_stays_short():
    assert len(describe({str(i): {str(j): 0 for j in range(100)} for i in range(100)})) < 120


def test_texts_come_from_anything():
    assert texts(np.array([b"a", b"b"])) == ["a", "b"]
    assert texts(np.array([["a"], ["b"]])) == ["a", "b"]
    assert texts(["é", np.str_("b"), "我".encode(), 3]) == ["é", "b", "我", "3"]


def test_frames_array():
    assert frames_array([[1.0, 2], [3, 4]], 2, "f").shape == (2, 1, 2)
    assert frames_array(np.array([[[1]], [[2]]], dtype=object), 2, "f").dtype == np.float64
    for wrong in (np.ones(3), np.ones((3, 0, 2)), np.ones((2, 1, 1)), [[1], [2, 3], [4]], np.array([["a"]] * 3)):
        with pytest.raises(DataError, match="f: "):
            frames_array(wrong, 3, "f")
