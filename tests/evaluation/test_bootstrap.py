"""Intervals over runs and items, against loops over the same draws in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.evaluation.bootstrap import interval_over_runs, score_resamples
from mmsa_lib.evaluation.metrics import noise_free_metrics, task_metrics

TASKS = [
    regression(),
    regression((-1, 1)),
    regression((1, 5)),
    emotions(["a", "b"]),
    classes(["a", "b", "c"]),
    regression((0, 1), "plain"),
]
RESAMPLES, SEEDS = 30, (1111, 1112, 1113)


def items(task, count=60, seed=0):
    """Labels, videos, and the predictions of three runs."""
    generator = np.random.default_rng(seed)
    videos = [f"v{i // 5}" for i in range(count)]
    if task.kind == "emotions":
        labels = np.eye(2)[generator.integers(2, size=count)]
        return labels, videos, {s: generator.normal(size=(count, 2, 2)) for s in SEEDS}
    if task.kind == "classes":  # so few of the last class that some resamples lack it
        labels = np.where(np.arange(count) < 3, 2, generator.integers(2, size=count))
        return labels, videos, {s: generator.normal(size=(count, 3)) for s in SEEDS}
    labels = np.round(generator.uniform(*task.range, count) * 5) / 5
    labels[:6] = task.center
    return labels, videos, {s: labels + generator.normal(0, task.bound / 2, count) for s in SEEDS}


def drawn(groups, runs, resamples, seed):
    """The counts that the library draws, by the same generators: items, then runs."""
    item_counts = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    run_counts = np.random.default_rng([seed, runs]).multinomial(runs, np.full(runs, 1 / runs), size=resamples)
    return item_counts, run_counts


def slow(task, key, predictions, labels, videos, seed, other=None):
    """Each resample built and scored item by item, run by run."""
    units, names = np.unique(videos), np.array(videos)
    counts, weights = drawn(len(units), len(predictions), RESAMPLES, seed)
    draws = []
    for count, weight in zip(counts, weights, strict=True):
        rows = np.concatenate([np.tile(np.flatnonzero(names == u), n) for u, n in zip(units, count, strict=True)])
        values = []
        for run, times in zip(predictions, weight, strict=True):
            value = task_metrics(task, predictions[run][rows], labels[rows])[key]
            if other is not None:
                value -= task_metrics(task, other[run][rows], labels[rows])[key]
            values += [value] * times
        defined = [value for value in values if not np.isnan(value)]
        draws.append(np.mean(defined) if defined else np.nan)
    return np.array(draws)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.metrics)
def test_every_metric_agrees_with_a_loop(task):
    labels, videos, predictions = items(task)
    _, _, other = items(task, seed=9)
    keys = list(task_metrics(task, predictions[1111], labels))
    own = score_resamples(predictions, labels, videos, keys, resamples=RESAMPLES, seed=3, task=task)
    theirs = score_resamples(other, labels, videos, keys, resamples=RESAMPLES, seed=3, task=task)
    for key in keys:
        found = interval_over_runs(own, key, seed=3)
        wanted = slow(task, key, predictions, labels, videos, 3)
        assert found.draws == pytest.approx(wanted, nan_ok=True), key
        assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(wanted, [0.025, 0.975])), nan_ok=True)
        plain = [task_metrics(task, predictions[s], labels)[key] for s in SEEDS]
        assert found.estimate == pytest.approx(np.mean(plain))
        paired = interval_over_runs(own, key, theirs, seed=3)
        assert paired.draws == pytest.approx(slow(task, key, predictions, labels, videos, 3, other), nan_ok=True), key


def test_noise_free_metrics_are_those_against_the_planted_sentiment():
    labels, videos, predictions = items(regression())
    planted = labels + np.random.default_rng(4).normal(0, 0.3, len(labels))
    options = {"groups": videos, "resamples": RESAMPLES, "seed": 3}
    found = score_resamples(predictions, labels, metrics=["mae_clean", "corr_clean"], clean=planted, **options)
    wanted = score_resamples(predictions, planted, metrics=["mae", "corr"], **options)
    for key in ("mae", "corr"):
        own, other = interval_over_runs(found, f"{key}_clean"), interval_over_runs(wanted, key)
        assert own.draws == pytest.approx(other.draws)
        assert own.estimate == pytest.approx(other.estimate)
        plain = [noise_free_metrics(regression(), predictions[s], planted)[f"{key}_clean"] for s in SEEDS]
        assert own.estimate == pytest.approx(np.mean(plain))
    with pytest.raises(UnknownNameError, match="mae_clean"):
        score_resamples(predictions, labels, metrics=["mae_clean"], **options)


def over_items(guess, labels, groups, key, resamples=40, *, seed=0, task=None):
    """The interval of one run: over test items alone."""
    with np.errstate(invalid="raise"):
        scores = score_resamples({1: guess}, labels, groups, [key], resamples=resamples, seed=seed, task=task)
    return interval_over_runs(scores, key, seed=seed)


FEW = [
    *((task, *(values[[0, 1, 7, 9]] for values in (items(task, 12)[2][1111], items(task, 12)[0]))) for task in TASKS),
    (TASKS[4], np.eye(3)[[0, 1, 1, 0]], np.array([0, 1, 0, 0])),
    (TASKS[4], np.eye(3)[[0, 1, 2, 1]], np.array([0, 1, 0, 1])),
    (TASKS[4], np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 2])),
    (TASKS[3], np.stack([np.zeros((4, 2)), np.eye(2)[[0, 0, 0, 0]] * [1, 0]], axis=-1), np.eye(2)[[0, 1, 0, 1]]),
    (TASKS[3], np.random.default_rng(0).normal(size=(4, 2, 2)), np.array([[1, 0], [0, 0], [1, 0], [0, 1]])),
]


@pytest.mark.parametrize(("task", "guess", "labels"), FEW)
def test_every_metric_of_few_items_agrees_with_a_loop(task, guess, labels):
    """Most resamples lack a class, many hold one alone; a tie of logits means no."""
    counts = np.random.default_rng(7).multinomial(4, np.full(4, 1 / 4), size=40)
    for key, whole in task_metrics(task, guess, labels).items():
        found = over_items(guess, labels, list("abcd"), key, seed=7, task=task)
        assert found.estimate == pytest.approx(whole, nan_ok=True), key
        for draw, count in zip(found.draws, counts, strict=True):
            rows = np.repeat(np.arange(4), count)
            assert draw == pytest.approx(task_metrics(task, guess[rows], labels[rows])[key], nan_ok=True), key


@pytest.mark.parametrize(("scale", "shift"), [(1e-7, 0), (1, 1e4)])
def test_the_correlation_of_any_scale_loses_no_digits(scale, shift):
    labels, videos, predictions = items(regression())
    guess = predictions[1111]
    plain, moved = (over_items(g, labels, videos, "corr") for g in (guess, guess * scale + shift))
    assert moved.draws == pytest.approx(plain.draws, rel=1e-10)


def test_interval_of_a_mean_agrees_with_theory():
    guess = torch.tensor(np.abs(np.random.default_rng(1).normal(1, 0.3, 400)))
    scores = score_resamples({1: guess}, np.zeros(400), None, ["mae"], resamples=4000)
    found, narrow = (interval_over_runs(scores, "mae", level=level) for level in (0.95, 0.5))
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(guess.std()) / 20, rel=0.08)
    assert (found.groups, len(found.draws)) == (400, 4000)
    assert narrow.high < found.high


def test_undefined_resamples_are_counted():
    labels, guess = np.array([1.0, 1.0, 1.0, -1.0]), np.array([0.5, 0.7, 0.2, -0.4])
    found = over_items(guess, labels, list("aabc"), "corr", 500)
    last = np.random.default_rng(0).multinomial(3, np.full(3, 1 / 3), size=500)[:, 2]
    assert np.isnan(found.draws).tolist() == ((last == 0) | (last == 3)).tolist()
    assert found.undefined == int(np.isnan(found.draws).sum()) > 0
    assert np.isfinite([found.low, found.high]).all()


def test_undefined_runs_are_left_out_and_counted():
    labels, videos, predictions = items(regression())
    predictions[1112] = np.full(60, 0.3)
    scores = score_resamples(predictions, labels, videos, ["corr", "mae"], resamples=RESAMPLES, seed=1)
    found = interval_over_runs(scores, "corr", seed=1)
    assert found.draws == pytest.approx(slow(regression(), "corr", predictions, labels, videos, 1), nan_ok=True)
    _, weights = drawn(12, 3, RESAMPLES, 1)
    assert found.undefined == int((weights[:, 1] > 0).sum()) > 0
    only = int((weights[:, 1] == 3).sum())
    assert int(np.isnan(found.draws).sum()) == only
    assert found.estimate == pytest.approx(np.nanmean(scores.values["corr"]))
    assert interval_over_runs(scores, "mae").undefined == 0
    alone = interval_over_runs(score_resamples({1: np.ones(60)}, labels, videos, ["corr"], resamples=20), "corr")
    assert alone.undefined == 20
    assert np.isnan([alone.estimate, alone.low, alone.high]).all()


def test_the_spread_over_runs_and_over_items_both_count():
    generator = np.random.default_rng(0)
    labels = np.zeros(300)
    error = np.abs(generator.normal(1, 0.3, 300))
    alike = dict.fromkeys(range(5), error)
    differ = {seed: error + offset for seed, offset in enumerate(np.linspace(0, 0.5, 5))}
    widths = []
    for runs in (alike, differ):
        found = interval_over_runs(score_resamples(runs, labels, None, ["mae"], resamples=4000), "mae")
        widths.append(found.high - found.low)
        assert (found.runs, found.groups) == (5, 300)
    over_items = 2 * 1.96 * error.std() / np.sqrt(300)
    over_runs = 2 * 1.96 * np.linspace(0, 0.5, 5).std() / np.sqrt(5)
    assert widths[0] == pytest.approx(over_items, rel=0.08)
    assert widths[1] == pytest.approx(np.hypot(over_items, over_runs), rel=0.08)


def test_pairs_share_their_seed_and_others_are_left_out():
    labels, videos, predictions = items(regression())
    own = score_resamples(predictions, labels, videos, ["mae"], resamples=50)
    partner = {1113: predictions[1111], 1112: predictions[1112], 7: predictions[1113]}
    found = interval_over_runs(own, "mae", score_resamples(partner, labels, videos, ["mae"], resamples=50))
    mae = {seed: np.abs(predictions[seed] - labels).mean() for seed in SEEDS}
    assert found.runs == 2
    assert found.estimate == pytest.approx((mae[1113] - mae[1111]) / 2)
    with pytest.raises(DataError, match="no run has a partner"):
        interval_over_runs(own, "mae", score_resamples({7: labels}, labels, videos, ["mae"], resamples=50))


def test_two_groups_and_one_resample_are_enough():
    found = over_items([1.0, 2.0], [0.0, 0.0], None, "mae", 1)
    assert (found.groups, len(found.draws)) == (2, 1)


def test_ten_thousand_resamples_of_which_the_first_are_those_of_fewer():
    labels, videos, predictions = items(regression())
    whole = score_resamples(predictions, labels, videos, ["mae"]).draws["mae"]
    assert whole.shape == (3, 10_000)
    assert np.array_equal(
        score_resamples(predictions, labels, videos, ["mae"], resamples=50).draws["mae"], whole[:, :50]
    )


def test_mistakes_are_named():
    labels, videos, predictions = items(regression())
    scores = score_resamples(predictions, labels, videos, ["mae"], resamples=20)
    with pytest.raises(UnknownNameError, match="did you mean mae"):
        interval_over_runs(scores, "mea")
    other = score_resamples(predictions, labels, videos, ["corr"], resamples=20)
    with pytest.raises(UnknownNameError, match="'mae'"):
        interval_over_runs(scores, "mae", other)
    for key, near in (("acc3", "metric of this task"), ("f1_neg_po", "did you mean f1_neg_pos")):
        with pytest.raises(UnknownNameError, match=near):
            score_resamples(predictions, labels, videos, [key], resamples=20)
    with pytest.raises(UnknownNameError, match="metric of this task"):
        score_resamples({1: np.zeros((4, 2, 2))}, np.eye(2)[[0, 1, 0, 1]], None, ["c_f1"], task=TASKS[3])
    with pytest.raises(DataError, match="59 groups for 60"):
        score_resamples(predictions, labels, videos[1:], ["mae"])
    with pytest.raises(ConfigError, match="one group"):
        score_resamples(predictions, labels, ["v"] * 60, ["mae"])
    with pytest.raises(DataError, match="not finite"):
        score_resamples({1: labels * np.nan}, labels, videos, ["mae"])
    for level in (0.0, 1.0, 95):
        with pytest.raises(ConfigError, match="level"):
            interval_over_runs(scores, "mae", level=level)
    with pytest.raises(ConfigError, match="resamples"):
        score_resamples(predictions, labels, videos, ["mae"], resamples=0)
    with pytest.raises(DataError, match="no run to score"):
        score_resamples({}, labels, videos, ["mae"])
    with pytest.raises(DataError, match="different resamples"):
        interval_over_runs(scores, "mae", score_resamples(predictions, labels, videos, ["mae"], resamples=21))
