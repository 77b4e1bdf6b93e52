"""Every metric against a computation in plain Python, on any labels: edges of the classes, ties, one-sided sets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsa_lib.data.task import classes, emotions
from mmsa_lib.evaluation.metrics import sentiment_metrics, task_metrics

EDGES = {
    "mosi": [-3, -2.5, -1.5, -0.5, -0.0, 0, 0.5, 1.5, 2.5, 3],
    "sims": [-1, -0.7, -0.1, -0.0, 0, 0.1, 0.7, 1],
    "mmmo": [1, 1.5, 2.5, 3, 3.5, 4.5, 5],
}
"""Where classes meet, with the ends of each range."""


def rated(scale):
    """Predictions, which may leave the range, and labels, which may not: often on an edge, seldom near one."""
    low, high = EDGES[scale][0], EDGES[scale][-1]
    edge = st.sampled_from(EDGES[scale]).map(float)
    label, guess = (
        st.one_of(edge, st.floats(low, high, width=32)),
        st.one_of(edge, st.floats(low - 2, high + 2, width=32)),
    )
    return st.lists(st.tuples(guess, label), min_size=1, max_size=25).map(lambda pairs: tuple(zip(*pairs, strict=True)))


def bound(value, low, high):
    return min(max(value, low), high)


def f1(guess, truth, average):
    """F1 from counts of single samples, class by class."""
    scores, weights = [], []
    for one in sorted({*guess, *truth}):
        right = sum(g == t == one for g, t in zip(guess, truth, strict=True))
        said, there = sum(g == one for g in guess), sum(t == one for t in truth)
        precision, recall = (right / said if said else 0), (right / there if there else 0)
        scores.append(2 * precision * recall / (precision + recall) if right else 0.0)
        weights.append(there)
    if average == "macro":
        return sum(scores) / len(scores)
    return sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights)


def share(guess, truth):
    return sum(g == t for g, t in zip(guess, truth, strict=True)) / len(truth)


def cut(value, cuts):
    """Number of the cuts below ``value``: a value on a cut belongs below it."""
    return sum(value > np.float32(one) for one in cuts)


def slow(scale, guess, truth):
    """All metrics of ``scale`` as docs/evaluation.md says them."""
    if scale == "sims":
        guess, truth = ([bound(np.float32(v), np.float32(-1), np.float32(1)) for v in vs] for vs in (guess, truth))
        found = {f"acc{n}": share([cut(g, cuts) for g in guess], [cut(t, cuts) for t in truth])
                 for n, cuts in ((2, [0]), (3, [-0.1, 0.1]), (5, [-0.7, -0.1, 0.1, 0.7]))}  # fmt: skip
        two = [cut(g, [0]) for g in guess], [cut(t, [0]) for t in truth]
        return found | {"f1": f1(*two, "weighted"), "f1_macro": f1(*two, "macro")}
    if scale == "mmmo":
        kept = [(g > 3, t > 3) for g, t in zip(guess, truth, strict=True) if t != 3]
        five = [[round(bound(v, 1, 5)) for v in vs] for vs in (guess, truth)]
        return {"acc5": share(*five)} | ({"acc2": share(*zip(*kept, strict=True))} if kept else {})
    found = {f"acc{2 * n + 1}": share(*([round(bound(v, -n, n)) for v in vs] for vs in (guess, truth))) for n in (2, 3)}
    kept = [(g > 0, t > 0) for g, t in zip(guess, truth, strict=True) if t != 0]
    for name, two in {
        "neg_nonneg": ([g >= 0 for g in guess], [t >= 0 for t in truth]),
        "neg_pos": tuple(zip(*kept, strict=True)),
    }.items():
        if two:
            found |= {f"acc2_{name}": share(*two), f"f1_{name}": f1(*two, "weighted")}
            found |= {f"f1_{name}_macro": f1(*two, "macro")}
    return found


@pytest.mark.parametrize("scale", EDGES)
@given(st.data())
def test_sentiment_metrics_are_the_slow_ones_within_their_bounds(scale, data):
    guess, truth = data.draw(rated(scale))
    found = sentiment_metrics(guess, truth, scale)
    expected = slow(scale, guess, truth)
    defined = {key: value for key, value in found.items() if key not in ("mae", "corr") and not math.isnan(value)}
    assert defined == pytest.approx(expected)
    assert all(0 <= value <= 1 for value in defined.values())
    seen = [[bound(v, -1, 1) for v in vs] if scale == "sims" else vs for vs in (guess, truth)]
    assert found["mae"] == pytest.approx(sum(abs(g - t) for g, t in zip(*seen, strict=True)) / len(truth), abs=1e-6)
    assert math.isnan(found["corr"]) or -1 - 1e-9 <= found["corr"] <= 1 + 1e-9


@pytest.mark.parametrize("scale", EDGES)
@given(st.data())
def test_order_says_nothing_and_the_truth_is_perfect(scale, data):
    guess, truth = data.draw(rated(scale))
    order = data.draw(st.permutations(range(len(truth))))
    found, turned = (sentiment_metrics([guess[i] for i in rows], [truth[i] for i in rows], scale)
                     for rows in (range(len(truth)), order))  # fmt: skip
    assert turned == pytest.approx(found, nan_ok=True)
    perfect = sentiment_metrics(truth, truth, scale)
    assert perfect.pop("mae") == 0
    assert all(math.isnan(value) or value == pytest.approx(1) for value in perfect.values())


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=25), st.floats(0.1, 10))
def test_correlation_does_not_see_scale_or_place_and_sees_direction(pairs, factor):
    guess, truth = (np.round(np.array(v), 3) for v in zip(*pairs, strict=True))
    corr = sentiment_metrics(guess, truth, "plain")["corr"]
    moved = sentiment_metrics(guess * factor + 1, truth, "plain")["corr"]
    turned = sentiment_metrics(-guess, truth, "plain")["corr"]
    if not math.isnan(corr) and np.ptp(guess) > 0.1:
        assert (moved, turned) == pytest.approx((corr, -corr), abs=1e-6)


def choices(count):
    logit = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-5, 5, width=32))
    return st.lists(st.tuples(st.lists(logit, min_size=count, max_size=count), st.integers(0, count - 1)),
                    min_size=1, max_size=20)  # fmt: skip


@given(choices(3))
def test_class_metrics_are_the_slow_ones(rows):
    scores, truth = [row for row, _ in rows], [answer for _, answer in rows]
    guess = [row.index(max(row)) for row in scores]
    found = task_metrics(classes(["a", "b", "c"]), np.array(scores), truth)
    defined = {key: value for key, value in found.items() if not math.isnan(value)}
    if len(set(truth)) == 1:
        assert defined == {}
        return
    expected = {"acc": share(guess, truth), "f1": f1(guess, truth, "weighted"), "f1_macro": f1(guess, truth, "macro")}
    for i, name in enumerate("abc"):
        right = sum(g == t == i for g, t in zip(guess, truth, strict=True))
        expected |= {f"f1_{name}": 2 * right / (guess.count(i) + truth.count(i))} if i in truth else {}
    assert defined == pytest.approx(expected)


@given(st.lists(st.lists(st.tuples(st.floats(-4, 4, width=32), st.floats(-4, 4, width=32), st.integers(0, 1)),
                         min_size=2, max_size=2), min_size=1, max_size=15))  # fmt: skip
def test_emotion_metrics_are_the_slow_ones(rows):
    scores = np.array([[[no, yes] for no, yes, _ in row] for row in rows])
    truth = [[answer for *_, answer in row] for row in rows]
    found = task_metrics(emotions(["joy", "fear"]), scores, truth)
    for k, name in enumerate(["joy", "fear"]):
        guess, answers = [int(row[k][1] > row[k][0]) for row in rows], [row[k] for row in truth]
        values = [found[f"{name}_{part}"] for part in ("acc", "f1", "f1_macro")]
        if len(set(answers)) == 1:
            assert all(math.isnan(value) for value in values)
        else:
            slowly = [share(guess, answers), f1(guess, answers, "weighted"), f1(guess, answers, "macro")]
            assert values == pytest.approx(slowly)
    single = [(row, t) for row, t in zip(rows, truth, strict=True) if sum(t) == 1]
    if len({t.index(1) for _, t in single}) == 2:
        assert found["acc2"] == pytest.approx(share([int(row[1][1] > row[0][1]) for row, _ in single],
                                                    [t.index(1) for _, t in single]))  # fmt: skip
