"""Intervals over test items: a bootstrap that resamples whole groups, because segments of one video are dependent.

Every metric of the library is a function of sums over items (errors, products, confusion counts). A resample is a count
of how often each group was drawn, so all resamples are one matrix product of counts and group sums; nothing is looped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmsa_lib.data.task import Task, regression
from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.evaluation.metrics import class_views, pearson, task_values

MetricFunction = Callable[[np.ndarray, np.ndarray], float]
CHUNK = 500


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        estimate: the metric on the data as they are.
        low, high: bounds of the interval.
        level: its coverage, for instance .95.
        groups: how many groups were resampled.
        undefined: resamples in which the metric was NaN (left out of the bounds).
        draws: ``(resamples,)`` the metric in every resample.
    """

    estimate: float
    low: float
    high: float
    level: float
    groups: int
    undefined: int
    draws: np.ndarray


@dataclass(frozen=True)
class Summed:
    """A metric as sums: ``items`` ``(N, k)`` per item, and how ``(R, k)`` sums become ``(R,)`` values."""

    items: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]


def bootstrap_items(
    prediction: Any,
    labels: Any,
    groups: Sequence[Hashable] | None,
    metric: str | MetricFunction,
    resamples: int = 10_000,
    seed: int = 0,
    *,
    task: Task | None = None,
    level: float = 0.95,
) -> Interval:
    """Cluster bootstrap of one metric over test items (evaluation.md, section 5.2).

    Args:
        prediction, labels: as :func:`mmsa_lib.evaluation.metrics.task_metrics` takes them.
        groups: per item the unit that is resampled (video, speaker); ``None`` resamples single items.
        metric: a key of the task's metrics, or a function ``(prediction, labels) -> float`` (a loop: slow).
        resamples: how many; seed: of the draws. Equal seeds and groups give equal resamples.
        task: sentiment in [-3, 3] by default.
        level: coverage of the interval.

    Raises:
        DataError: shapes don't fit or a value is not finite.
        ConfigError: fewer than two groups, or a level outside (0, 1).
        UnknownNameError: the task has no such metric.
    """
    return _interval([prediction], labels, groups, metric, resamples, seed, task or regression(), level)


def bootstrap_difference(
    prediction: Any,
    other: Any,
    labels: Any,
    groups: Sequence[Hashable] | None,
    metric: str | MetricFunction,
    resamples: int = 10_000,
    seed: int = 0,
    *,
    task: Task | None = None,
    level: float = 0.95,
) -> Interval:
    """Paired bootstrap of ``metric(prediction) - metric(other)``: both are scored on the same resampled groups."""
    return _interval([prediction, other], labels, groups, metric, resamples, seed, task or regression(), level)


def _interval(predictions, labels, groups, metric, resamples, seed, task, level) -> Interval:
    check_resampling(resamples, level)
    checked = [task_values(task, prediction, labels) for prediction in predictions]
    member, number = group_members(groups, len(checked[0][1]))
    score = _looped if callable(metric) else _vectorised
    scores = [score(metric, guess, truth, task, member) for guess, truth in checked]
    everything = np.ones((1, number), dtype=np.int64)
    estimate = _combine([score(everything) for score in scores])[0]
    drawn = draw_counts(number, resamples, seed)
    draws = np.concatenate([_combine([score(counts) for score in scores]) for counts in drawn])
    low, high = percentiles(draws, level)
    return Interval(float(estimate), low, high, level, number, int(np.isnan(draws).sum()), draws)


def check_resampling(resamples: int, level: float) -> None:
    """Refuse a level outside (0, 1) and fewer than one resample."""
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(f"a bootstrap needs a level in (0, 1) and resamples >= 1, got {level} and {resamples}")


def group_members(groups: Sequence[Hashable] | None, count: int) -> tuple[np.ndarray, int]:
    """Per item the number of its group, and how many groups there are; ``None`` makes every item a group.

    Raises:
        DataError: not one group per item. ConfigError: a single group.
    """
    names = np.arange(count) if groups is None else np.asarray([str(group) for group in groups])
    if len(names) != count:
        raise DataError(f"{len(names)} groups for {count} items; give one group per item")
    _, member = np.unique(names, return_inverse=True)
    number = int(member.max()) + 1
    if number < 2:
        raise ConfigError("all items belong to one group; a bootstrap over groups needs at least two")
    return member, number


def draw_counts(number: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of ``number`` groups is drawn, ``(CHUNK, number)`` resamples at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, resamples, CHUNK):
        yield generator.multinomial(number, np.full(number, 1 / number), size=min(CHUNK, resamples - start))


def percentiles(draws: np.ndarray, level: float) -> tuple[float, float]:
    """Bounds of the percentile interval over the draws that are defined; NaN without any."""
    defined = draws[~np.isnan(draws)]
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (np.nan, np.nan)
    return float(low), float(high)


def _combine(values: list[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else values[0] - values[1]


def _looped(metric: MetricFunction, guess, truth, task, member) -> Callable[[np.ndarray], np.ndarray]:
    """Score counts of groups by building every resample; for functions that are not known as sums."""
    rows = [np.flatnonzero(member == group) for group in range(member.max() + 1)]

    def score(drawn: np.ndarray) -> np.ndarray:
        chosen = (np.concatenate([np.tile(rows[g], n) for g, n in enumerate(counts) if n]) for counts in drawn)
        return np.array([metric(guess[items], truth[items]) for items in chosen], dtype=np.float64)

    return score


def _vectorised(metric: str, guess, truth, task, member) -> Callable[[np.ndarray], np.ndarray]:
    """Score counts of groups by one matrix product."""
    terms = summed_terms(metric, guess, truth, task)
    sums = [np.stack([np.bincount(member, weights=column) for column in t.items.T], axis=1) for t in terms]

    def score(drawn: np.ndarray) -> np.ndarray:
        return mean_of_terms([t.finish(drawn @ s) for t, s in zip(terms, sums, strict=True)])

    return score


def summed_terms(metric: str, guess: np.ndarray, truth: np.ndarray, task: Task) -> list[Summed]:
    """A metric of ``task`` as sums over items; its value is the mean over the terms.

    Raises:
        UnknownNameError: the task has no such metric.
    """
    terms = {"regression": _terms, "emotions": _emotion_terms, "classes": _class_terms}[task.kind]
    return terms(metric, guess, truth, task)


def mean_of_terms(values: list[np.ndarray]) -> np.ndarray:
    """The value of a metric ``(R,)`` from its terms: their mean as far as they are defined, NaN where none is."""
    stacked = np.stack(values)
    defined = np.isfinite(stacked)
    return _ratio(np.where(defined, stacked, 0).sum(axis=0), defined.sum(axis=0))


def _terms(key: str, guess: np.ndarray, truth: np.ndarray, task: Task) -> list[Summed]:
    """A sentiment metric as sums."""
    if key == "mae":
        return [Summed(np.column_stack([np.ones(len(truth)), np.abs(guess - truth)]), lambda s: s[:, 1] / s[:, 0])]
    if key == "corr":
        return [_correlation(guess, truth)]
    known = ["mae", "corr"]
    for view in class_views(task):
        kept = view.kept(truth)
        pair = view.classes(guess), view.classes(truth)
        if key == view.accuracy:
            return [_accuracy(*pair, kept)]
        if view.f1 and key in (view.f1, f"{view.f1}_macro"):
            return [_f1(*pair, kept, "macro" if key.endswith("_macro") else "weighted")]
        known += [view.accuracy, *([view.f1, f"{view.f1}_macro"] if view.f1 else [])]
    raise unknown_name("metric of this task", key, known)


def _class_terms(key: str, guess: np.ndarray, truth: np.ndarray, task: Task) -> list[Summed]:
    """A metric of one class out of K as sums."""
    everyone, decided, ids = np.ones(len(truth), bool), guess.argmax(axis=1), range(len(task.names))
    averages = {"f1": "weighted", "f1_macro": "macro"}
    if key == "acc":
        return [_accuracy(decided, truth, everyone)]
    if key in averages:
        return [_f1(decided, truth, everyone, averages[key], ids)]
    one = {f"f1_{name}": i for i, name in enumerate(task.names)}
    if key not in one:
        raise unknown_name("metric of this task", key, ["acc", *averages, *one])
    return [_f1(decided == one[key], truth == one[key], everyone, "positive")]


def _emotion_terms(key: str, guess: np.ndarray, truth: np.ndarray, task: Task) -> list[Summed]:
    """An emotion metric as one term per emotion to average (``mean_*``), else as a single term."""
    everyone = np.ones(len(truth), bool)
    decided = (guess[..., 1] > guess[..., 0]).astype(int)
    parts = {
        "acc": lambda g, t: _accuracy(g, t, everyone),
        "f1": lambda g, t: _f1(g, t, everyone, "weighted"),
        "f1_macro": lambda g, t: _f1(g, t, everyone, "macro"),
        "f1_positive": lambda g, t: _f1(g, t, everyone, "positive"),
    }
    all_classes = f"acc{len(task.names)}"
    if key == all_classes:
        return [_accuracy(guess[..., 1].argmax(axis=1), truth.argmax(axis=1), truth.sum(axis=1) == 1)]
    columns = {name: [column] for column, name in enumerate(task.names)} | {"mean": list(range(len(task.names)))}
    for name, chosen in columns.items():
        for part, term in parts.items():
            if key == f"{name}_{part}":
                return [term(decided[:, c], truth[:, c]) for c in chosen]
    raise unknown_name("metric of this task", key, [all_classes, *(f"{n}_{p}" for n in columns for p in parts)])


def _accuracy(guess: np.ndarray, truth: np.ndarray, kept: np.ndarray) -> Summed:
    columns = [kept, kept & (guess == truth)]
    return _where_classes_differ(columns, truth, kept, lambda s: _ratio(s[:, 1], s[:, 0]))


def _correlation(guess: np.ndarray, truth: np.ndarray) -> Summed:
    # Centred and scaled first: the sums of squares then lose no digits.
    constant = np.isnan(pearson(guess, truth))
    x, y = ((v - v.mean()) / (v.std() or 1.0) for v in (guess, truth))

    def finish(s: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = s.T
        spread_x, spread_y = sxx - sx**2 / n, syy - sy**2 / n
        defined = (spread_x > 1e-12 * n) & (spread_y > 1e-12 * n) & (not constant)
        product = np.where(defined, spread_x * spread_y, np.nan)
        return (sxy - sx * sy / n) / np.sqrt(product)

    return Summed(np.column_stack([np.ones(len(x)), x, y, x * x, y * y, x * y]), finish)


def _f1(
    guess: np.ndarray, truth: np.ndarray, kept: np.ndarray, average: str, classes: Sequence[int] = (0, 1)
) -> Summed:
    """F1 from the counts (right, guessed, actual) of each class; ``positive`` is that of class 1."""
    columns = [kept & m for c in classes for m in ((guess == c) & (truth == c), guess == c, truth == c)]

    def finish(s: np.ndarray) -> np.ndarray:
        right, guessed, actual = s[:, 0::3], s[:, 1::3], s[:, 2::3]
        occurs = guessed + actual > 0
        scores = np.divide(2 * right, guessed + actual, out=np.zeros_like(right), where=occurs)
        if average == "positive":
            return scores[:, 1]
        weight = actual if average == "weighted" else occurs
        return _ratio((scores * weight).sum(axis=1), weight.sum(axis=1))

    return _where_classes_differ(columns, truth, kept, finish)


def _where_classes_differ(
    columns: Sequence[np.ndarray], truth: np.ndarray, kept: np.ndarray, finish: Callable[[np.ndarray], np.ndarray]
) -> Summed:
    """A class metric as sums over ``columns``; NaN where the truth that was drawn holds one class, as in metrics.py."""
    counts, own = [kept & (truth == c) for c in np.unique(truth)], len(columns)

    def finish_defined(s: np.ndarray) -> np.ndarray:
        return np.where((s[:, own:] > 0).sum(axis=1) > 1, finish(s[:, :own]), np.nan)

    return Summed(np.column_stack([*columns, *counts]).astype(float), finish_defined)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)
