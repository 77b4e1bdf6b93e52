"""Intervals over runs and test items at once: what another seed *and* another test set might have given.

Each resample draws runs (random seeds) and groups of items, both with replacement: whole groups, because segments of
one video are dependent. All runs of a resample are scored on the same items, and so is the reference of a comparison:
what an item does to every run cancels from a difference.

The bootstrap of n runs makes their spread too small by the factor (n-1)/n; with few runs the t interval over seeds is
the one to read for the seeds, this one adds the test items.

Every metric of the library is a function of sums over items (errors, products, counts). A resample is a count of how
often each group was drawn, so all resamples are one matrix product of counts and group sums; nothing is looped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.evaluation.metrics import CLEAN, Average, pearson, questions, task_values

if TYPE_CHECKING:
    from mmsa_lib.data.task import Task

RESAMPLES = 10_000
CHUNK = 500


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
        runs, groups: how many runs and how many groups of items were resampled.
        undefined: resamples in which the metric of a drawn run was NaN. Such a run is left out of the mean of its
            resample, and a resample without a defined run is left out of the bounds.
        draws: ``(resamples,)`` the mean in every resample.
    """

    estimate: float
    low: float
    high: float
    runs: int
    groups: int
    undefined: int
    draws: np.ndarray


Summed = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]
"""A metric as sums: ``(N, k)`` per item, and how ``(R, k)`` sums become ``(R,)`` values."""


def score_resamples(
    predictions: Mapping[Hashable, Any],
    labels: Any,
    groups: Sequence[Hashable] | None,
    metrics: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    task: Task | None = None,
    clean: Any = None,
) -> RunScores:
    """Score runs on resamples of the items.

    Args:
        predictions: name of a run (its seed) to its predictions; all are of the same items.
        labels: of these items, as :func:`mmsa_lib.evaluation.metrics.task_metrics` takes them.
        groups: per item the unit that is resampled (video, speaker); ``None`` resamples single items.
        metrics: keys of the task's metrics.
        resamples: how many; seed: of the draws. Equal seeds and groups give equal resamples of the items.
        task: sentiment in [-3, 3] by default.
        clean: noise-free labels of the items ``(N,)``, for the metrics of
            :func:`~mmsa_lib.evaluation.metrics.noise_free_metrics`.

    Raises:
        DataError: no run, shapes that don't fit or a value that is not finite.
        ConfigError: fewer than two groups or one resample. UnknownNameError: the task has no such metric.
    """
    from mmsa_lib.data.task import regression

    if resamples < 1:
        raise ConfigError(f"a bootstrap needs resamples >= 1, got {resamples}")
    if not predictions:
        raise DataError("there is no run to score; give the predictions of one at least")
    task = task or regression()
    checked = [task_values(task, prediction, labels) for prediction in predictions.values()]
    member, number = _members(groups, len(checked[0][1]))
    truth = None if clean is None else task_values(task, clean, labels)[0]
    terms = [(run, key, _terms(key, *pair, task, truth)) for run, pair in enumerate(checked) for key in metrics]
    sums = [
        np.stack([np.bincount(member, weights=column) for column in items.T], axis=1)
        for _, _, parts in terms
        for items, _ in parts
    ]
    edges = np.cumsum([0, *(part.shape[1] for part in sums)])
    table = np.concatenate(sums, axis=1)
    found = {key: np.empty((len(checked), 1 + resamples)) for key in metrics}

    def score(counts: np.ndarray, start: int) -> None:
        totals, position = counts.astype(np.float64) @ table, 0
        for run, key, parts in terms:
            values = []
            for _, finish in parts:
                values.append(finish(totals[:, edges[position] : edges[position + 1]]))
                position += 1
            found[key][run, start : start + len(counts)] = _mean_of(values)

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
    for side in (scores, other or scores):
        if metric not in side.draws:
            raise unknown_name("scored metric", metric, side.draws)
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
    means = _ratio((weights * np.where(defined, draws, 0)).sum(axis=0), (weights * defined).sum(axis=0))
    estimate = float(_ratio(np.nansum(values, keepdims=True), np.sum(~np.isnan(values), keepdims=True))[0])
    bounded, tail = means[~np.isnan(means)], (1 - level) / 2
    low, high = np.quantile(bounded, [tail, 1 - tail]) if len(bounded) else (np.nan, np.nan)
    undefined = int(((weights > 0) & ~defined).any(axis=0).sum())
    return RunInterval(estimate, float(low), float(high), number, scores.groups, undefined, means)


def _members(groups: Sequence[Hashable] | None, count: int) -> tuple[np.ndarray, int]:
    """Per item the number of its group, and how many groups there are; ``None`` makes every item a group."""
    names = np.arange(count) if groups is None else np.asarray([str(group) for group in groups])
    if len(names) != count:
        raise DataError(f"{len(names)} groups for {count} items; give one group per item")
    _, member = np.unique(names, return_inverse=True)
    number = int(member.max()) + 1
    if number < 2:
        raise ConfigError("all items belong to one group; a bootstrap over groups needs at least two")
    return member, number


@lru_cache(maxsize=2)
def _counts(number: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of ``number`` groups is drawn ``(resamples, number)``: kept, as many runs are scored on it."""
    smallest = np.int16 if number < np.iinfo(np.int16).max else np.int32
    generator, share = np.random.default_rng(seed), np.full(number, 1 / number)
    sizes = [min(CHUNK, resamples - start) for start in range(0, resamples, CHUNK)]
    return np.concatenate([generator.multinomial(number, share, size=size).astype(smallest) for size in sizes])


def _terms(key: str, guess: np.ndarray, truth: np.ndarray, task: Task, clean: np.ndarray | None = None) -> list[Summed]:
    """A metric of ``task`` as sums over items; its value is the mean over the terms.

    Raises:
        UnknownNameError: the task has no such metric.
    """
    terms = {
        one.key: lambda one=one: _classes(one.guess(guess), one.answer(truth), one.kept(truth), one.average)
        for one in questions(task)
    }
    parts = [key]
    if task.kind == "regression":
        for suffix, known in {"": truth, **({} if clean is None else {CLEAN: clean})}.items():
            terms[f"mae{suffix}"] = lambda known=known: _mean_error(guess, known)
            terms[f"corr{suffix}"] = lambda known=known: _correlation(guess, known)
    elif task.kind == "emotions" and key.startswith("mean_"):
        parts = [f"{name}_{key.removeprefix('mean_')}" for name in task.names]
    if not set(parts) <= set(terms):
        raise unknown_name("metric of this task", key, terms)
    return [terms[part]() for part in parts]


def _mean_error(guess: np.ndarray, truth: np.ndarray) -> Summed:
    errors = np.column_stack([np.abs(guess - truth), np.ones(len(truth))])
    return errors, lambda sums: sums[:, 0] / sums[:, 1]


def _correlation(guess: np.ndarray, truth: np.ndarray) -> Summed:
    # Centred and scaled first: the sums of squares then lose no digits.
    constant = np.isnan(pearson(guess, truth))
    x, y = ((v - v.mean()) / (v.std() or 1.0) for v in (guess, truth))

    def finish(sums: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = sums.T
        spread_x, spread_y = sxx - sx**2 / n, syy - sy**2 / n
        defined = (spread_x > 1e-12 * n) & (spread_y > 1e-12 * n) & (not constant)
        return (sxy - sx * sy / n) / np.sqrt(np.where(defined, spread_x * spread_y, np.nan))

    return np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y]), finish


def _classes(guess: np.ndarray, truth: np.ndarray, kept: np.ndarray, average: Average) -> Summed:
    """A class metric from the counts (right, guessed, actual) of each class; NaN where the truth drawn holds one."""
    classes = np.union1d(np.union1d(guess, truth), [1])
    columns = [kept & m for c in classes for m in ((guess == c) & (truth == c), guess == c, truth == c)]

    def finish(sums: np.ndarray) -> np.ndarray:
        right, guessed, actual = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
        if average == "accuracy":
            values = _ratio(right.sum(axis=1), actual.sum(axis=1))
        else:
            occurs = guessed + actual > 0
            scores = np.divide(2 * right, guessed + actual, out=np.zeros_like(right), where=occurs)
            weight = {"weighted": actual, "macro": occurs, "positive": classes == 1}[average]
            weight = np.broadcast_to(weight, scores.shape)
            values = _ratio((scores * weight).sum(axis=1), weight.sum(axis=1))
        return np.where((actual > 0).sum(axis=1) > 1, values, np.nan)

    return np.column_stack(columns).astype(float), finish


def _mean_of(values: list[np.ndarray]) -> np.ndarray:
    """The mean ``(R,)`` of terms as far as they are defined, NaN where none is."""
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    return _ratio(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
