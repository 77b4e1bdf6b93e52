"""Intervals over runs and test items at once: what another seed *and* another test set might have given.

Each resample draws runs (random seeds) and groups of items, both with replacement. All runs of a resample are scored on
the same items, and so is the reference of a comparison: what an item does to every run cancels from a difference.

The bootstrap of n runs makes their spread too small by the factor (n-1)/n; with few runs the t interval over seeds is
the one to read for the seeds, this one adds the test items.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mmsa_lib.data.task import Task, regression
from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.evaluation.bootstrap import (
    CHUNK,
    check_resampling,
    draw_counts,
    group_members,
    mean_of_terms,
    percentiles,
    summed_terms,
    task_values,
)

RESAMPLES = 10_000


@dataclass(frozen=True)
class RunScores:
    """Metrics of some runs on a test set and on resamples of it, the same resamples for all runs.

    Attributes:
        runs: a name per run, usually its seed.
        groups: how many groups of items were resampled.
        values: metric to ``(runs,)`` on the items as they are.
        draws: metric to ``(runs, resamples)``.
    """

    runs: tuple[Hashable, ...]
    groups: int
    values: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]


@dataclass(frozen=True)
class RunInterval:
    """A percentile interval over runs and items.

    Attributes:
        estimate: mean over the runs in which the metric is defined.
        low, high: bounds of the interval.
        level: its coverage.
        runs, groups: how many runs and how many groups of items were resampled.
        undefined: resamples in which the metric of a drawn run was NaN. Such a run is left out of the mean of its
            resample, and a resample without a defined run is left out of the bounds.
        draws: ``(resamples,)`` the mean in every resample.
    """

    estimate: float
    low: float
    high: float
    level: float
    runs: int
    groups: int
    undefined: int
    draws: np.ndarray


def score_resamples(
    predictions: Mapping[Hashable, Any],
    labels: Any,
    groups: Sequence[Hashable] | None,
    metrics: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    task: Task | None = None,
) -> RunScores:
    """Score runs on resamples of the items.

    Args:
        predictions: name of a run (its seed) to its predictions; all are of the same items.
        labels: of these items, as :func:`mmsa_lib.evaluation.metrics.task_metrics` takes them.
        groups: per item the unit that is resampled (video, speaker); ``None`` resamples single items.
        metrics: keys of the task's metrics.
        resamples: how many; seed: of the draws. Equal seeds and groups give equal resamples of the items, the same as
            in :func:`mmsa_lib.evaluation.bootstrap.bootstrap_items`.
        task: sentiment in [-3, 3] by default.

    Raises:
        DataError: no run, shapes that don't fit or a value that is not finite.
        ConfigError: fewer than two groups or one resample. UnknownNameError: the task has no such metric.
    """
    check_resampling(resamples, 0.5)
    if not predictions:
        raise DataError("there is no run to score; give the predictions of one at least")
    task = task or regression()
    checked = [task_values(task, prediction, labels) for prediction in predictions.values()]
    member, number = group_members(groups, len(checked[0][1]))
    terms = [(run, key, summed_terms(key, *pair, task)) for run, pair in enumerate(checked) for key in metrics]
    sums = [
        np.stack([np.bincount(member, weights=column) for column in term.items.T], axis=1)
        for _, _, parts in terms
        for term in parts
    ]
    edges = np.cumsum([0, *(part.shape[1] for part in sums)])
    table = np.concatenate(sums, axis=1)
    found = {key: np.empty((len(checked), 1 + resamples)) for key in metrics}

    def score(counts: np.ndarray, start: int) -> None:
        totals, position = counts.astype(np.float64) @ table, 0
        for run, key, parts in terms:
            values = []
            for term in parts:
                values.append(term.finish(totals[:, edges[position] : edges[position + 1]]))
                position += 1
            found[key][run, start : start + len(counts)] = mean_of_terms(values)

    score(np.ones((1, number)), 0)
    drawn = _counts(number, resamples, seed)
    for start in range(0, resamples, CHUNK):
        score(drawn[start : start + CHUNK], 1 + start)
    return RunScores(
        tuple(predictions), number, {k: v[:, 0] for k, v in found.items()}, {k: v[:, 1:] for k, v in found.items()}
    )


def interval_over_runs(
    scores: RunScores, metric: str, other: RunScores | None = None, *, level: float = 0.95, seed: int = 0
) -> RunInterval:
    """The interval of the mean over runs, or of the mean difference to ``other``, paired by run and by item.

    Args:
        scores: of the runs.
        metric: one of the metrics that were scored.
        other: scores of the reference on the same resamples; runs with the same name are a pair, others are left out.
        level: coverage of the interval.
        seed: of the draws of runs.

    Raises:
        DataError: no run of ``other`` has a partner, or the resamples differ in number. ConfigError: a bad level.
        UnknownNameError: this metric was not scored.
    """
    if not 0 < level < 1:
        raise ConfigError(f"an interval needs a level in (0, 1), got {level}")
    if metric not in scores.draws:
        raise unknown_name("scored metric", metric, scores.draws)
    values, draws = scores.values[metric], scores.draws[metric]
    if other is not None:
        if (other.groups, other.draws[metric].shape[1]) != (scores.groups, draws.shape[1]):
            raise DataError("the two sides of a comparison were scored on different resamples; score them alike")
        paired = [(i, other.runs.index(run)) for i, run in enumerate(scores.runs) if run in other.runs]
        if not paired:
            raise DataError("no run has a partner with the same seed; give pairs of runs")
        own, partner = (list(side) for side in zip(*paired, strict=True))
        values = values[own] - other.values[metric][partner]
        draws = draws[own] - other.draws[metric][partner]
    number, resamples = draws.shape
    # The item draws must not repeat in the draws of runs: these have a stream of their own.
    weights = np.random.default_rng([seed, number]).multinomial(number, np.full(number, 1 / number), size=resamples).T
    defined = ~np.isnan(draws)
    means = _mean((weights * np.where(defined, draws, 0)).sum(axis=0), (weights * defined).sum(axis=0))
    estimate = float(_mean(np.nansum(values, keepdims=True), np.sum(~np.isnan(values), keepdims=True))[0])
    low, high = percentiles(means, level)
    undefined = int(((weights > 0) & ~defined).any(axis=0).sum())
    return RunInterval(estimate, low, high, level, number, scores.groups, undefined, means)


def _mean(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


@lru_cache(maxsize=2)
def _counts(number: int, resamples: int, seed: int) -> np.ndarray:
    """All draws at once, small: many runs are scored on the same ones."""
    smallest = np.int16 if number < np.iinfo(np.int16).max else np.int32
    return np.concatenate([counts.astype(smallest) for counts in draw_counts(number, resamples, seed)])
