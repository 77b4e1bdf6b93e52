"""Repairs are counted, and what can't be repaired is refused with the sample's name."""

import numpy as np
import pytest

from mmsa_lib.data.sources.repairs import Repairs, check_ids, sentiment_labels, sentiment_task
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import DataError


def test_every_value_that_is_not_finite_becomes_zero_and_is_counted():
    repairs = Repairs()
    values = np.array([[-np.inf, -np.inf, np.inf], [np.nan, 1e300, 1.5]])
    assert repairs.finite(values, "audio").tolist() == [[0, 0, 0], [0, 0, 1.5]]
    assert repairs.counts == {
        "audio: float64 stored as float32": 6,
        "audio: -inf set to 0": 2,
        "audio: +inf set to 0": 1,
        "audio: NaN set to 0": 1,
        "audio: too large for float32, set to 0": 1,
    }


def test_nothing_is_counted_where_nothing_is_repaired():
    repairs = Repairs()
    values = np.array([1.5, -2], dtype=np.float32)
    assert repairs.finite(values, "audio").tolist() == [1.5, -2]
    assert repairs.counts == {}


def test_texts_are_no_features():
    with pytest.raises(DataError, match="audio: expected numbers"):
        Repairs().finite(np.array(["a"]), "audio")


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 1)])
def test_labels_of_any_shape(shape):
    repairs = Repairs()
    labels = sentiment_labels(np.array([1.0, -0.4, 3]).reshape(shape), ["a", "b", "c"], "f", repairs)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(labels, np.float32([1.0, -0.4, 3]))
    assert bool(repairs.counts) == (len(shape) > 1)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ([1.0, np.nan, 2], "sample 'b' is nan"),
        ([1.0, 2, np.inf], "sample 'c' is inf"),
        ([1.0, 2], "for 3 samples"),
        (np.ones((3, 2)), "for 3 samples"),
        (np.ones((1, 3)), "for 3 samples"),
        (np.ones((3, 4, 2)), "for 3 samples"),
        (["good", "bad", "fair"], "expected one number per sample"),
        ([None, 1, 2], "sample 'a' is nan"),
    ],
)
def test_labels_that_are_none_are_refused(raw, said):
    with pytest.raises(DataError, match=said):
        sentiment_labels(raw, ["a", "b", "c"], "f", Repairs())


def test_ids_must_be_unique_and_not_empty():
    check_ids(["a", "b"], ["train", "test"], "f")
    with pytest.raises(DataError, match=r"f: id 'a' occurs twice \(splits train and test\)"):
        check_ids(["a", "b", "a"], ["train", "valid", "test"], "f")
    with pytest.raises(DataError, match="empty id"):
        check_ids(["a", ""], ["train", "valid"], "f")


@pytest.mark.parametrize(
    ("labels", "sims", "expected"),
    [
        ([-1, 0.4], True, (-1, 1)),
        ([-1, 0.4], False, (-3, 3)),
        ([-1.2, 0.4], True, (-3, 3)),
        ([-3, 3], False, (-3, 3)),
    ],
)
def test_the_range_is_inferred(labels, sims, expected):
    task, remark = sentiment_task(np.array(labels), ["a", "b"], "f", sims=sims)
    assert task == regression(expected)
    assert "inferred" in remark


def test_the_task_asked_for_wins():
    labels, ids = np.array([-0.5, 0.4]), ["a", "b"]
    assert sentiment_task(labels, ids, "f", task=regression((-3, 3)), sims=True)[0] == regression((-3, 3))
    with pytest.raises(DataError, match="not emotions"):
        sentiment_task(labels, ids, "f", task=emotions(["happy"]))
    with pytest.raises(DataError, match=r"label 0\.4 of sample 'b' lies outside"):
        sentiment_task(labels, ids, "f", task=regression((-3, 0), metrics="mosi"))
    with pytest.raises(DataError, match="label 5 of sample 'b' lies outside"):
        sentiment_task(np.array([1.0, 5]), ids, "f")
