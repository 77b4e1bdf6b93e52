"""Intervals over runs and items, against loops over the same draws in float64."""

from __future__ import annotations

import numpy as np
import pytest

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.evaluation.bootstrap import bootstrap_difference, bootstrap_items
from mmsa_lib.evaluation.hierarchical import interval_over_runs, score_resamples
from mmsa_lib.evaluation.metrics import task_metrics

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


def test_one_run_is_the_bootstrap_over_items():
    labels, videos, predictions = items(regression())
    first, second = predictions[1111], predictions[1112]
    one = score_resamples({1: first}, labels, videos, ["corr"], resamples=700, seed=5)
    other = score_resamples({1: second}, labels, videos, ["corr"], resamples=700, seed=5)
    assert interval_over_runs(one, "corr").draws == pytest.approx(
        bootstrap_items(first, labels, videos, "corr", resamples=700, seed=5).draws
    )
    assert interval_over_runs(one, "corr", other).draws == pytest.approx(
        bootstrap_difference(first, second, labels, videos, "corr", resamples=700, seed=5).draws
    )


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


def test_what_items_do_to_both_sides_cancels():
    generator = np.random.default_rng(1)
    labels, hard = np.zeros(200), np.abs(generator.normal(1, 0.5, 200))
    own = score_resamples(dict.fromkeys(SEEDS, hard * 0.9), labels, None, ["mae"], resamples=2000)
    reference = score_resamples(dict.fromkeys(SEEDS, hard), labels, None, ["mae"], resamples=2000)
    found = interval_over_runs(own, "mae", reference)
    alone = interval_over_runs(own, "mae")
    assert found.high < 0
    assert found.high - found.low < 0.2 * (alone.high - alone.low)


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


def test_equal_seeds_give_equal_draws():
    labels, videos, predictions = items(regression())
    first, again, other = (
        interval_over_runs(score_resamples(predictions, labels, videos, ["mae"], resamples=60, seed=s), "mae", seed=s)
        for s in (1, 1, 2)
    )
    assert np.array_equal(first.draws, again.draws)
    assert not np.array_equal(first.draws, other.draws)


def test_mistakes_are_named():
    labels, videos, predictions = items(regression())
    scores = score_resamples(predictions, labels, videos, ["mae"], resamples=20)
    with pytest.raises(UnknownNameError, match="did you mean mae"):
        interval_over_runs(scores, "mea")
    with pytest.raises(UnknownNameError, match="metric of this task"):
        score_resamples(predictions, labels, videos, ["acc3"], resamples=20)
    with pytest.raises(ConfigError, match="level"):
        interval_over_runs(scores, "mae", level=1)
    with pytest.raises(ConfigError, match="resamples"):
        score_resamples(predictions, labels, videos, ["mae"], resamples=0)
    with pytest.raises(DataError, match="no run to score"):
        score_resamples({}, labels, videos, ["mae"])
    with pytest.raises(DataError, match="different resamples"):
        interval_over_runs(scores, "mae", score_resamples(predictions, labels, videos, ["mae"], resamples=21))
