"""Metrics: golden vectors of docs/evaluation.md, scikit-learn and a slow computation by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import MMSAError, UnknownNameError
from mmsa_lib.evaluation.metrics import (
    METRICS,
    defined_metrics,
    emotion_metrics,
    f1_score,
    metric,
    prediction_spread,
    sentiment_metrics,
    shown_first,
    task_metrics,
)

MOSI_TRUTH = [-2.6, -1.0, -0.2, 0, 0, 0.4, 1.5, 2.5, 3.0]
MOSI_GUESS = [-3.4, 0.2, -0.5, -0.1, 0, 0.5, 2.5, 1.5, 3.6]
SIMS_TRUTH = [-1, -0.8, -0.6, -0.2, 0, 0, 0.2, 0.6, 0.8, 1]
SIMS_GUESS = [-1.3, -0.6, -0.1, 0.1, -0.05, 0.3, 0.05, 0.75, 0.7, 1.2]


def random_ratings(seed, count=300, step=5):
    generator = np.random.default_rng(seed)
    truth = np.clip(np.round(generator.normal(0, 1.5, count) * step) / step, -3, 3)
    return truth + generator.normal(0, 1.2, count), truth


GOLDEN = {
    "mosi": (
        MOSI_GUESS, MOSI_TRUTH, {"f1_neg_nonneg_macro"},
        {"mae": 0.566667, "corr": 0.927538, "acc2_neg_nonneg": 0.777778, "f1_neg_nonneg": 0.777778,
         "acc2_neg_pos": 0.857143, "f1_neg_pos": 0.850794, "f1_neg_pos_macro": 0.844444, "acc7": 0.888889,
         "acc5": 0.888889},
    ),
    "sims": (
        np.float32(SIMS_GUESS), np.float32(SIMS_TRUTH), {"f1_macro"},
        {"mae": 0.175, "corr": 0.951124, "acc2": 0.8, "f1": 0.8, "acc3": 0.7, "acc5": 0.4},
    ),
}  # fmt: skip


@pytest.mark.parametrize("scale", GOLDEN)
def test_golden_vectors(scale):
    guess, truth, others, expected = GOLDEN[scale]
    found = sentiment_metrics(guess, truth, scale)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert set(found) == {*expected, *others}


def test_weighted_f1_depends_on_the_order_of_its_arguments():
    kept = np.array(MOSI_TRUTH) != 0
    guess, truth = (np.array(v)[kept] > 0 for v in (MOSI_GUESS, MOSI_TRUTH))
    assert f1_score(guess, truth) == pytest.approx(0.850794, abs=1e-6)
    assert f1_score(truth, guess) == pytest.approx(0.863492, abs=1e-6)  # the published hazard


@pytest.mark.parametrize("seed", range(5))
def test_mosi_metrics_agree_with_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.metrics")
    guess, truth = random_ratings(seed)
    found = sentiment_metrics(torch.tensor(guess), torch.tensor(truth))
    nonzero = truth != 0
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(truth, guess))
    assert found["corr"] == pytest.approx(np.corrcoef(truth, guess)[0, 1])
    for key, g, t in (
        ("neg_nonneg", guess >= 0, truth >= 0),
        ("neg_pos", guess[nonzero] > 0, truth[nonzero] > 0),
    ):
        assert found[f"acc2_{key}"] == pytest.approx(sklearn.accuracy_score(t, g))
        assert found[f"f1_{key}"] == pytest.approx(sklearn.f1_score(t, g, average="weighted"))
        assert found[f"f1_{key}_macro"] == pytest.approx(sklearn.f1_score(t, g, average="macro"))
    for key, limit in (("acc5", 2), ("acc7", 3)):
        slow = [
            round(min(max(a, -limit), limit)) == round(min(max(b, -limit), limit))
            for a, b in zip(guess, truth, strict=True)
        ]
        assert found[key] == pytest.approx(sum(slow) / len(slow))  # Python's round is half-to-even as well


@pytest.mark.parametrize("seed", range(3))
def test_sims_metrics_agree_with_a_slow_computation(seed):
    generator = np.random.default_rng(seed)
    truth = np.float32(np.round(generator.uniform(-1, 1, 200) * 5) / 5)
    guess = np.float32(truth + generator.normal(0, 0.5, 200))
    found = sentiment_metrics(guess, truth, "sims")
    g, t = (np.clip(v, np.float32(-1), np.float32(1)) for v in (guess, truth))

    def bins(values, edges):
        found = np.full(len(values), -1)
        for number, (low, high) in enumerate(pairwise(edges)):
            found[(values > np.float32(low)) & (values <= np.float32(high))] = number
        return found

    for key, edges in (
        ("acc2", [-1.01, 0, 1.01]),
        ("acc3", [-1.01, -0.1, 0.1, 1.01]),
        ("acc5", [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01]),
    ):
        assert (bins(t, edges) >= 0).all()
        assert found[key] == pytest.approx((bins(g, edges) == bins(t, edges)).mean())
    assert found["mae"] == pytest.approx(np.abs(g.astype(float) - t).mean())


NAN = math.nan
BY_HAND = {
    "a label on a cut of SIMS falls into the lower bin": (
        "sims", [-0.4, 0.05, -0.9, 0.3, 0.5], [-0.1, 0.1, -0.7, 0.7, 0.5], {"acc5": 1},
    ),
    "and so do predictions": ("sims", [-0.05, 0.3, -0.5, 0.9, 0.5], [-0.1, 0.1, -0.7, 0.7, 0.5], {"acc5": 0.2}),
    "SIMS clips before everything": ("sims", [-2.0, 0.0, 5.0], [-1.0, 0.0, 1.0], {"mae": 0}),
    "MOSI never does": ("mosi", [-2.0, 0.0, 5.0], [-1.0, 0.0, 1.0], {"mae": 5 / 3}),
    "half rounds to even": ("mosi", [2.0, 2.0, 0.0, 0.0], [2.5, 1.5, 0.5, -0.5], {"acc7": 1}),
    "nothing is positive or negative": (
        "mosi", [0.1, -0.2], [0.0, 0.0], {"acc2_neg_pos": NAN, "f1_neg_pos": NAN, "acc2_neg_nonneg": 0.5},
    ),
    "a neutral prediction is not positive": (
        "mosi", [0.0, -0.1], [1.0, -1.0], {"acc2_neg_pos": 0.5, "acc2_neg_nonneg": 1},
    ),
    "nor is it wrong for a negative label": ("mosi", [0.0, 0.1], [-1.0, 1.0], {"acc2_neg_pos": 1}),
    "of MMMO 3 is dropped, 2.5 is 2": (
        "mmmo", [0.2, 3.1, 2.0, 4.4, 6.0], [1.0, 2.5, 3.0, 3.5, 5.0],
        {"acc2": 3 / 4, "acc5": 3 / 5, "mae": 4.3 / 5},
    ),
    "of MMMO 3 is negative": ("mmmo", [3.0, 3.5, 3.5, 1.0], [2.0, 5.0, 3.0, 2.0], {"acc2": 1, "acc5": 0}),
    "MMMO clips classes": ("mmmo", [5.8, 0.2], [5.0, 1.0], {"acc5": 1}),
    "a gradient does no harm": (
        "mosi", torch.ones(2, requires_grad=True) * torch.tensor([1.0, -1.0]), [1.0, -1.0], {"mae": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("scale", "guess", "truth", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_sentiment_by_hand(scale, guess, truth, expected):
    guess, truth = (v if isinstance(v, torch.Tensor) else np.float32(v) for v in (guess, truth))
    found = sentiment_metrics(guess, truth, scale)
    assert {key: found[key] for key in expected} == pytest.approx(expected, nan_ok=True, rel=1e-6)
    assert scale != "mmmo" or set(found) == {"mae", "corr", "acc2", "acc5"}


@pytest.mark.parametrize("value", [0.0, 0.1 + 0.2, -1e-3, 1e6])
def test_a_constant_prediction_has_no_correlation(value):
    assert math.isnan(sentiment_metrics(np.full(9, value), MOSI_TRUTH)["corr"])
    noisy = np.float32(value) + np.zeros(9, np.float32)
    noisy[0] = np.nextafter(noisy[0], np.float32(np.inf))
    assert value == 0 or math.isnan(sentiment_metrics(noisy, MOSI_TRUTH)["corr"])


def test_f1_of_one_sided_data_agrees_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    for guess, truth in ((np.ones(4), np.zeros(4)), (np.ones(4), np.ones(4)), (np.array([0, 1, 1]), np.ones(3))):
        for average in ("weighted", "macro"):
            expected = sklearn.f1_score(truth, guess, average=average, zero_division=0)
            assert f1_score(guess, truth, average) == pytest.approx(expected)


def test_emotions_agree_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(0)
    names = ("neutral", "happy", "sad", "angry")
    answer = generator.integers(4, size=200)
    labels = np.eye(4)[answer]
    labels[:20] = generator.integers(2, size=(20, 4))
    scores = generator.normal(size=(200, 4, 2))
    scores[..., 1] += labels
    found = emotion_metrics(torch.tensor(scores), torch.tensor(labels), names)
    decided = scores.argmax(-1)
    for column, name in enumerate(names):
        t, g = labels[:, column], decided[:, column]
        assert found[f"{name}_acc"] == pytest.approx(sklearn.accuracy_score(t, g))
        assert found[f"{name}_f1"] == pytest.approx(sklearn.f1_score(t, g, average="weighted"))
        assert found[f"{name}_f1_macro"] == pytest.approx(sklearn.f1_score(t, g, average="macro"))
        assert found[f"{name}_f1_positive"] == pytest.approx(sklearn.f1_score(t, g))
    assert found["mean_f1"] == pytest.approx(np.mean([found[f"{n}_f1"] for n in names]))
    single = labels.sum(1) == 1
    assert found["acc4"] == pytest.approx((scores[single, :, 1].argmax(1) == labels[single].argmax(1)).mean())
    assert len(found) == 4 * 4 + 4 + 1


@pytest.mark.parametrize("count", [2, 3, 7])
def test_classes_agree_with_scikit_learn_and_a_slow_computation(count):
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(count)
    names = [f"c{i}" for i in range(count)]
    truth = np.concatenate([np.arange(count), generator.integers(count, size=100)])
    scores = generator.normal(size=(len(truth), count)) + np.eye(count)[truth]
    found = task_metrics(classes(names), torch.tensor(scores), torch.tensor(truth).float())
    guess = [max(range(count), key=lambda i: row[i]) for row in scores.tolist()]
    assert found["acc"] == pytest.approx(sum(g == t for g, t in zip(guess, truth, strict=True)) / len(truth))
    for key, average in (("f1", "weighted"), ("f1_macro", "macro")):
        assert found[key] == pytest.approx(sklearn.f1_score(truth, guess, average=average))
    each = sklearn.f1_score(truth, guess, average=None)
    assert [found[f"f1_{name}"] for name in names] == pytest.approx(list(each))
    assert list(found) == ["acc", "f1", "f1_macro", *(f"f1_{name}" for name in names)]
    assert all(metric(key).key == key and metric(key).percent for key in found)


@pytest.mark.parametrize(
    ("task", "labels", "undefined"),
    [
        (regression(), [0.5, 1.0, 2.0], {"neg_nonneg", "neg_pos"}),
        (regression(), [0.0, 1.0, 2.0], {"neg_nonneg", "neg_pos"}),
        (regression(), [0.0, -1.0, -2.0], {"neg_pos"}),
        (regression(), [1.0, 1.0, 1.0], {"neg_nonneg", "neg_pos", "acc5", "acc7"}),
        (regression((-1, 1)), [0.2, 0.4, 1.0], {"acc2", "f1", "f1_macro", "acc3"}),
        (regression((1, 5)), [3.0, 4.0, 5.0], {"acc2"}),
        (regression((0, 1), "mosi"), [0.0, 1.0, 1.0], {"neg_nonneg", "neg_pos"}),
        (regression((0, 1), "plain"), [0.5, 0.6, 1.0], {"acc2", "f1", "f1_macro"}),
        (regression((0, 1), "plain"), [0.4, 0.6, 1.0], set()),
    ],
)
def test_a_class_metric_of_one_sided_truth_is_undefined_and_never_100_percent(task, labels, undefined):
    found = task_metrics(task, labels, labels)
    for key, value in found.items():
        expected = any(key == name or key.endswith((name, f"{name}_macro")) for name in undefined)
        assert math.isnan(value) == (expected or (key == "corr" and len(set(labels)) == 1)), key
    assert found["mae"] == 0
    assert not math.isnan(sentiment_metrics(labels, labels)["acc2_neg_nonneg"])  # the field's own definition


def test_an_emotion_or_a_class_that_never_occurs_is_undefined_and_left_out_of_means():
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    scores = np.stack([1 - labels, labels], axis=-1)
    found = task_metrics(emotions(["a", "b", "c"]), scores, labels)
    assert {key for key, value in found.items() if math.isnan(value)} == {
        "acc3", *(f"{name}_{part}" for name in "bc" for part in ("acc", "f1", "f1_macro", "f1_positive"))
    }  # fmt: skip
    assert found["mean_acc"] == found["a_acc"] == 1
    assert math.isnan(task_metrics(emotions(["b"]), scores[:, 1:2], labels[:, 1:2])["mean_f1"])
    found = task_metrics(classes(["a", "b", "c"]), np.eye(3)[[0, 1, 1]], [0, 1, 1])
    assert {key for key, value in found.items() if math.isnan(value)} == {"f1_c"}
    assert all(math.isnan(value) for value in task_metrics(classes(["a", "b"]), np.eye(2)[[1, 1]], [1, 1]).values())


def test_two_classes_around_the_middle_of_any_range():
    found = task_metrics(regression((0, 10), "plain"), [1, 6, 7, 5.5, 9], [2, 3, 8, 5, 10])
    assert found["acc2"] == pytest.approx(3 / 4)  # 5 is the middle, dropped
    assert task_metrics(regression((0, 10), "plain"), [5, 6], [3, 8])["acc2"] == 1  # as a prediction it is negative
    assert found["mae"] == pytest.approx((1 + 3 + 1 + 0.5 + 1) / 5)
    assert list(found) == ["mae", "corr", "acc2", "f1", "f1_macro"]


@pytest.mark.parametrize(
    ("positive", "weighted", "macro", "swapped"),
    [
        (595, 0.8059, 0.4645, 0.9290),
        (1084, 0.6544, 0.4314, 0.8627),
        (1103, 0.6487, 0.4300, 0.8600),
        (1708, 0.4741, 0.3826, 0.7651),
    ],
)
def test_never_this_emotion_on_iemocap_counts(positive, weighted, macro, swapped):
    truth = np.arange(4490) < positive
    guess = np.zeros(4490, bool)
    assert f1_score(guess, truth) == pytest.approx(weighted, abs=6e-5)
    assert f1_score(guess, truth, "macro") == pytest.approx(macro, abs=6e-5)
    assert f1_score(truth, guess) == pytest.approx(swapped, abs=6e-5)
    assert f1_score(guess, truth, "positive") == f1_score(guess, guess, "positive") == 0


def test_task_metrics_dispatches():
    guess, truth = random_ratings(1)
    assert task_metrics(regression(), guess, truth) == sentiment_metrics(guess, truth, "mosi")
    assert set(task_metrics(regression((-1, 1)), guess / 3, truth / 3)) >= {"acc2", "acc3"}
    assert set(task_metrics(regression((1, 5)), guess + 3, truth + 3)) == {"mae", "corr", "acc2", "acc5"}
    assert "happy_f1" in task_metrics(emotions(["happy"]), np.zeros((3, 1, 2)), np.ones((3, 1)))


HALF = np.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
"""A clear no for the first sample, a tie for the second: the same decision."""


@pytest.mark.parametrize(
    ("names", "scores", "labels", "expected"),
    [
        (["a"], [[[0.5, 0.5]]], [[0]], {"a_acc": 1}),
        (["a", "b"], np.zeros((2, 2, 2)), [[0, 1], [0, 1]], {"a_acc": 1, "b_acc": 0}),
        (["a", "b"], HALF, [[0, 1], [1, 0]], {"a_acc": 0.5, "acc2": 0.5}),
    ],
)
def test_a_tie_of_logits_means_no(names, scores, labels, expected):
    found = emotion_metrics(scores, labels, names)
    assert {key: found[key] for key in expected} == expected
    assert ("acc1" in found) is False
    assert prediction_spread(scores, emotions(names))["one_class"]


@pytest.mark.parametrize(
    ("function", "arguments", "word"),
    [
        (sentiment_metrics, ([1.0, NAN], [1.0, 1.0]), "predictions of sample 1"),
        (sentiment_metrics, ([1.0, 2.0], [math.inf, 1.0]), "labels of sample 0"),
        (sentiment_metrics, ([1.0, 2.0], [1.0]), "shape"),
        (sentiment_metrics, ([[1.0], [2.0]], [1.0, 2.0]), "shape"),
        (sentiment_metrics, ([[1.0], [2.0]], [[1.0], [2.0]]), "shape"),
        (sentiment_metrics, ([], []), "no sample"),
        (sentiment_metrics, ([1.0], [1.0], "mosei"), "unknown scale"),
        (emotion_metrics, (np.zeros((3, 2)), np.zeros((3, 2)), "ab"), r"\(N, 2, 2\)"),
        (emotion_metrics, (np.zeros((2, 1, 2)), [[0], [2]], "a"), r"sample 1 are \[2"),
        (emotion_metrics, (np.zeros((2, 2, 2)), [[0, 1], [0, 2]], "ab"), r"sample 1 are \[0.*2"),
        (emotion_metrics, ([[[0, 0]], [[0, NAN]]], [[0], [1]], "a"), "scores of sample 1 are not finite"),
        (task_metrics, (classes("ab"), np.zeros((3, 3)), np.zeros(3)), r"\(N, 2\) and \(N,\)"),
        (task_metrics, (classes("ab"), np.zeros((2, 2)), [0, 2]), "sample 1 is 2"),
    ],
)
def test_bad_input_is_named(function, arguments, word):
    with pytest.raises(MMSAError, match=word):
        function(*arguments)


def test_undefined_metrics_of_emotions_by_hand():
    def undefined(names, labels):
        found = task_metrics(emotions(names), np.stack([1 - np.array(labels), labels], axis=-1), labels)
        return {key for key, value in found.items() if math.isnan(value)}

    parts = ("acc", "f1", "f1_macro", "f1_positive")
    assert undefined(["a", "b", "c"], [[0, 1, 0], [0, 0, 1], [1, 1, 0]]) == set()
    assert undefined(["a"], [[0], [1]]) == set()
    assert undefined(["a", "b"], [[1, 0], [1, 0], [1, 1], [0, 0]]) == {"acc2"}
    assert undefined(["a", "b"], [[1, 0], [0, 0]]) == {*(f"b_{part}" for part in parts), "acc2"}
    assert undefined(["a"], [[1]]) == {f"{who}_{part}" for who in ("a", "mean") for part in parts}


def test_means_are_over_the_emotions_that_are_defined():
    values = {"a_acc": 0.5, "b_acc": 0.7, "c_acc": 1.0}
    values |= {f"{name}_{part}": 0.0 for name in "abc" for part in ("f1", "f1_macro", "f1_positive")}
    found = defined_metrics(emotions(["a", "b", "c"]), values, [[0, 1, 0], [1, 0, 0]])
    assert found["mean_acc"] == pytest.approx(0.6)


def test_every_metric_is_described():
    assert all(known.description for known in METRICS.values())
    assert {key for key, known in METRICS.items() if not known.higher_is_better} == {"mae", "mae_clean"}
    assert {key for key, known in METRICS.items() if not known.percent} == {"mae", "corr", "mae_clean", "corr_clean"}
    found = [emotion_metrics(np.zeros((3, 2, 2)), np.eye(3, 2), ("happy", "very_sad")), ["f1_happy", "acc4"]]
    found += [sentiment_metrics(*random_ratings(2), scale) for scale in ("mosi", "sims", "mmmo")]
    for key in (key for keys in found for key in keys):
        assert metric(key).key == key
        assert key in METRICS or (metric(key).higher_is_better and metric(key).percent)
    assert metric("very_sad_f1_macro").label == "Very_sad macro F1"
    assert (metric("acc4").label, metric("acc7").mmsa) == ("Acc-4", "Mult_acc_7")
    with pytest.raises(UnknownNameError, match="did you mean"):
        metric("acc2_neg_po")


def test_macro_averages_are_shown_of_classes_only():
    assert shown_first(["mae", "acc2", "f1", "f1_macro"]) == ["mae", "acc2", "f1"]
    assert shown_first(["acc", "f1", "f1_macro"]) == ["acc", "f1", "f1_macro"]
    assert shown_first(["acc", "a_f1_macro"]) == ["acc"]


@pytest.mark.parametrize(("steps", "constant"), [(4, True), (4.5, False)])
def test_four_steps_of_float32_are_still_a_constant(steps, constant):
    found = sentiment_metrics([1.0, 1 - steps * 2.0**-23], [1.0, -1.0])
    assert math.isnan(found["corr"]) == constant


class TestSpread:
    def test_a_constant_has_none(self):
        assert prediction_spread(torch.full((50,), 0.3), regression()) == {"sd": 0, "entropy": 0, "one_class": True}

    def test_standard_deviation_and_entropy_of_seven_classes(self):
        values = np.array([-3.0, -3, 0, 0.2, 1, 2.4, 9, 3])  # classes -3 -3 0 0 1 2 3 3
        found = prediction_spread(values, regression())
        assert found["sd"] == pytest.approx(math.sqrt(sum((v - values.mean()) ** 2 for v in values) / 8))
        assert found["entropy"] == pytest.approx(3 * 0.25 * 2 + 2 * 0.125 * 3)
        assert found["one_class"] is False

    def test_emotions(self):
        logits = torch.zeros(4, 2, 2)
        logits[:2, 0, 1] = 100.0  # half of the samples are surely happy, nobody is decidedly sad
        found = prediction_spread(logits, emotions(["happy", "sad"]))
        assert found["entropy"] == pytest.approx(1)
        assert found["sd"] == pytest.approx((0.25 + 0) / 2)
        assert prediction_spread(torch.zeros(4, 2, 2), emotions(["happy", "sad"]))["one_class"] is True

    @pytest.mark.parametrize(
        ("task", "same", "different"),
        [
            (regression(), [0.1, 0.5, 0.0], [0.1, -0.5]),
            (regression((-1, 1)), [0.0, -0.5], [0.1, 0.0]),
            (regression((1, 5)), [3.5, 4.0], [3.0, 4.0]),
            (classes(["a", "b", "c"]), np.eye(3)[[1, 1]], np.eye(3)[[1, 2]]),
            (emotions(["a", "b"]), [[[0, 1], [1, 0]]] * 2, [[[0, 1], [1, 0]], [[0, 1], [1, 2]]]),
        ],
    )
    def test_one_class_for_all_samples(self, task, same, different):
        assert prediction_spread(same, task)["one_class"] is True
        assert prediction_spread(different, task)["one_class"] is False
