"""What labels of a file are: what can't be sentiment is refused with the option that reads it, in every layout."""

import numpy as np
import pytest
from layout_files import READERS, write_layout

from mmsa_lib.data.sources.labels import MOSEI_COLUMNS, read_labels
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.data.validate import check_record
from mmsa_lib.errors import ConfigError, DataError

IDS = [f"s{i}" for i in range(8)]
SENTIMENT = np.array([-3, -1.8, 0, 0.4, 2, 3, -0.2, 1])
BINARY = np.array([0, 1, 1, 0, 1, 0, 0, 1])
THREE = np.array([0, 1, 2, 2, 1, 0, 0, 1])
SEVEN = np.column_stack([SENTIMENT, np.tile([0, 1 / 3, 0, 3, 0.0, 2], (8, 1)) * (np.arange(8) % 2)[:, None]])
FUNNY, POLAR = emotions(["funny"]), classes(["neg", "neu", "pos"])


def labels_of(values, **options):
    repairs = Repairs()
    labels, task, remark = read_labels([("f labels", values, IDS)], "f", repairs, **options)
    assert labels.dtype == np.float32
    return labels, task, remark, dict(repairs)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (BINARY, r"0 and 1 only.*--emotions NAME.*--classes NAME NAME.*--range"),
        (BINARY.astype(bool), "0 and 1 only"),
        (BINARY[:, None].astype(np.float32), "0 and 1 only"),
        (BINARY.astype(str), "0 and 1 only"),
        (["True", "False"] * 4, "0 and 1 only"),
        (2 * BINARY - 1, r"-1 and 1 only.*--emotions NAME"),
        (THREE, r"whole numbers from 0 to 2, as class ids.*--classes NAME"),
        (THREE + 1, "whole numbers from 1 to 3"),
        (6 * BINARY - 3, "two values only, -3 and 3.*--range"),
        (np.eye(3)[THREE], "3 emotion labels per sample.*--emotions.*--classes"),
        (np.eye(3)[THREE][:, None], "3 emotion labels per sample.*--classes"),
        (np.eye(6)[THREE] + np.eye(6)[5], "6 emotion labels per sample; give as many emotion names"),
        (np.stack([1 - np.eye(3)[THREE], np.eye(3)[THREE]], -1), "3 emotion labels per sample"),
        (SEVEN, r"7 numbers per sample.*--column sentiment.*--emotions happy sad anger surprise disgust fear"),
        (SEVEN[:, None], "7 numbers per sample"),
        (SEVEN[:, :5], r"5 numbers per sample.*--column 0 to 4.*--emotions"),
        (["positive", "negative"] * 4, "words.*'negative', 'positive'.*--classes negative positive"),
        (["1.5"] * 7 + ["good"], "label 'good' of sample 's7' is no number"),
        (SENTIMENT + 1j, "complex"),
        ([None, *SENTIMENT[1:]], "label nan of sample 's0'"),
        ([[1.0], [1.0, 2.0], *[[1.0]] * 6], r"sample 's1' has shape \(2,\)"),
        (SENTIMENT[:-1], "for 8 samples"),
        (np.zeros((8, 2, 3)), "expected one label per sample"),
    ],
)
def test_what_is_no_sentiment_is_refused_with_the_way_out(values, said):
    with pytest.raises(DataError, match=said):
        labels_of(values)


@pytest.mark.parametrize("values", [SENTIMENT, SENTIMENT[:, None], [f"{v}" for v in SENTIMENT], list(SENTIMENT)])
def test_sentiment_is_read_as_before(values):
    labels, task, remark, _ = labels_of(values)
    np.testing.assert_array_equal(labels, SENTIMENT.astype(np.float32))
    assert task == regression()
    assert remark == "label range [-3, 3] inferred; largest |label| is 3"


@pytest.mark.parametrize(
    ("scale", "sims", "expected"), [(1, True, (-1, 1)), (1, False, (-3, 3)), (1.2, True, (-3, 3)), (3, False, (-3, 3))]
)
def test_the_range_is_inferred_from_the_labels_and_other_signs_of_ch_sims(scale, sims, expected):
    assert labels_of(SENTIMENT / 3 * scale, sims=sims)[1] == regression(expected)
    assert labels_of(SENTIMENT / 3, sims=True, task=regression())[1] == regression()
    with pytest.raises(DataError, match=r"label 0.4 of sample 's3' lies outside \[-3, 0\] \(4 such labels\)"):
        labels_of(SENTIMENT, task=regression((-3, 0), metrics="mosi"))


def test_a_typographic_minus_is_a_minus():
    np.testing.assert_array_equal(labels_of([f"{v}".replace("-", "−") for v in SENTIMENT])[0], np.float32(SENTIMENT))


@pytest.mark.parametrize("values", [BINARY, THREE, 2 * BINARY - 1])
def test_a_range_says_that_it_is_sentiment(values):
    labels, task, *_ = labels_of(values, task=regression())
    np.testing.assert_array_equal(labels, values)
    assert task == regression()


@pytest.mark.parametrize(
    ("values", "task", "expected"),
    [
        (BINARY, FUNNY, BINARY[:, None]),
        (BINARY[:, None], FUNNY, BINARY[:, None]),
        (BINARY.astype(bool), FUNNY, BINARY[:, None]),
        (["yes" if b else "No" for b in BINARY], FUNNY, BINARY[:, None]),
        (2 * BINARY - 1, FUNNY, BINARY[:, None]),
        (np.eye(2)[BINARY], FUNNY, BINARY[:, None]),
        (np.eye(2)[BINARY][:, None], FUNNY, BINARY[:, None]),
        (np.eye(5)[THREE], emotions(list("abcde")), np.eye(5)[THREE]),
        (np.stack([1 - np.eye(5)[THREE], np.eye(5)[THREE]], -1), emotions(list("abcde")), np.eye(5)[THREE]),
        (SEVEN, emotions(MOSEI_COLUMNS[1:]), SEVEN[:, 1:] > 0),
        (SEVEN[:, None], emotions(["joy", "sadness", "anger", "surprise", "disgust", "fear"]), SEVEN[:, 1:] > 0),
        (SEVEN, emotions(["fear", "happy"]), SEVEN[:, [6, 1]] > 0),
        (SEVEN[:, 1:], emotions(MOSEI_COLUMNS[1:]), SEVEN[:, 1:] > 0),
        (THREE, POLAR, THREE),
        (THREE + 1, POLAR, THREE),
        (THREE - 1, POLAR, THREE),
        (THREE, classes(["2", "1", "0"]), 2 - THREE),
        (BINARY, classes(["no", "yes"]), BINARY),
        (2 * BINARY - 1, classes(["no", "yes"]), BINARY),
        (np.eye(3)[THREE], POLAR, THREE),
        (np.eye(3)[THREE][:, None], POLAR, THREE),
        ([["Neg", "neu ", b"pos"][i] for i in THREE], POLAR, THREE),
    ],
)
def test_what_was_asked_for_is_read(values, task, expected):
    labels, chosen, remark, _ = labels_of(values, task=task)
    np.testing.assert_array_equal(labels, expected)
    assert chosen == task
    assert "as asked for" in remark


@pytest.mark.parametrize(
    ("values", "task", "said"),
    [
        (SENTIMENT, FUNNY, "label -3 of sample 's0' is neither 0 nor 1, so these are not emotions"),
        (BINARY, emotions(["a", "b"]), "not emotions"),
        (SEVEN, emotions(["happy", "joy"]), "choose emotions of happy, sad"),
        (SEVEN, regression(), "--column sentiment"),
        (SEVEN[:, :3], emotions(["a", "b", "c"]), "label -3 of sample 's0' in 'a' is neither 0 nor 1"),
        (np.eye(3)[THREE], emotions(["a", "b"]), "3 emotion labels"),
        (THREE, classes(["a", "b"]), "label 2 of sample 's2' is none of the 2 class ids 0, 1"),
        (SENTIMENT, POLAR, "none of the 3 class ids"),
        (["neg", "bad"] * 4, POLAR, "label 'bad' of sample 's1' is none of the classes neg, neu, pos"),
        (np.ones((8, 3)), POLAR, "sample 's0' is not one-hot"),
        (["neg", "bad"] * 4, regression(), "words"),
    ],
)
def test_what_does_not_fit_the_task_is_named(values, task, said):
    with pytest.raises(DataError, match=said):
        labels_of(values, task=task)


def test_what_is_changed_is_counted():
    assert labels_of(2 * BINARY - 1, task=FUNNY)[3] == {"labels: -1 read as 0 (no)": 4}
    counts = labels_of(SEVEN, task=emotions(MOSEI_COLUMNS[1:]))[3]
    assert counts == {"labels: intensities of emotions above 0 read as 1 (yes)": 12}


@pytest.mark.parametrize("column", ["0", "sentiment"])
def test_one_of_several_columns(column):
    labels, task, *_ = labels_of(SEVEN[:, None], column=column)
    np.testing.assert_array_equal(labels, SENTIMENT.astype(np.float32))
    assert task == regression()
    with pytest.raises(DataError, match="no label column '7'; choose one of 0 to 6 or sentiment, happy"):
        labels_of(SEVEN, column="7")
    with pytest.raises(DataError, match="leave --column out"):
        labels_of(SENTIMENT, column=column)


@pytest.mark.parametrize(
    ("make", "names", "said"),
    [
        (emotions, ["a", "a"], "'a' is named twice"),
        (emotions, ["a", " A"], "named twice"),
        (emotions, [" "], "is empty"),
        (emotions, ["a\nb"], "not printable"),
        (emotions, ["mean"], "taken by a metric"),
        (emotions, [], "at least one"),
        (classes, ["a"], "two names or more"),
        (classes, ["a", "macro"], "taken by a metric"),
        (classes, ["a", ""], "is empty"),
    ],
)
def test_names_must_name(make, names, said):
    with pytest.raises(ConfigError, match=said):
        make(names)


def test_a_metric_set_must_be_known():
    with pytest.raises(ConfigError, match="metrics='plain'"):
        regression((0, 1))
    assert regression((0, 1), "plain").metrics == "plain"
    with pytest.raises(ConfigError, match="both finite"):
        regression((0, float("inf")))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.linspace(0, 2.9, 10), "no label lies below 0, the middle of"),
        (np.linspace(-2.9, -0.1, 10), "no label lies above 0"),
        (np.linspace(-0.9, 0.9, 10), "no label lies farther than 0.9 from 0, the middle of [-3, 3]"),
        (np.full(10, 0.5), "all labels are 0.5; there is nothing to learn"),
        (np.tile([0.2, 0.8], 5), "take 2 values only"),
        (np.array([-1, 0, 1, 1, 0] * 2), "take 3 values only"),
    ],
)
def test_what_may_be_sentiment_is_imported_with_a_warning(tmp_path, labels, said):
    record = READERS["mult"](write_layout("mult", tmp_path, labels=labels), "mine")
    assert record.task == regression()
    assert any(said in str(p) for p in check_record(record) if p.severity == "warning")
