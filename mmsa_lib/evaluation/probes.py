"""Linear probes: how much of each factor can be read off a representation, out of sample.

A claim such as "the shared part holds what the modalities share, and no speaker" is a table: one row per representation
and factor. The R² of a ridge regression says what a *linear* reader finds; it does not say that a low value means the
information is absent.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmsa_lib.errors import ConfigError, DataError

STRENGTHS = np.logspace(-2, 5, 15)
"""Ridge strengths to choose from, for standardised columns."""

INNER_FOLDS = 4


def probe(
    representations: Mapping[str, Any],
    factors: Mapping[str, Any],
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Regress every factor on every representation with cross-validated ridge regression.

    In each fold the columns are standardised on the training part, the strength is chosen there by an inner
    cross-validation for each column of a factor, and R² is taken on the held-out part against the mean of the
    **training** part: 0 is what a constant achieves, and worse than that is negative.

    Args:
        representations: name to ``(N, d)`` tensor or array, such as :attr:`Output.representations`.
        factors: name to ``(N,)`` or ``(N, k)``; the R² of a vector factor is that of all columns together, each scaled
            to unit variance.
        groups: per sample the unit that must not be split (speaker, video); inner and outer folds respect it.
        folds: number of outer folds.
        seed: of the assignment to folds and of the shuffled control.

    Returns:
        Columns ``representation``, ``factor``, ``r2`` (mean over folds), ``sd`` (over folds, n-1), ``control_r2`` (the
        same with the factor's rows shuffled among the samples; about 0, or the procedure is broken), ``width`` (of the
        representation) and ``folds``.

    Raises:
        DataError: shapes don't fit, a value is not finite, or a factor is constant; names it.
        ConfigError: fewer groups than folds, or fewer than two folds.
    """
    inputs = {name: _matrix(f"representation {name!r}", values) for name, values in representations.items()}
    targets = {name: _matrix(f"factor {name!r}", values) for name, values in factors.items()}
    if not inputs or not targets:
        raise DataError("a probe needs at least one representation and one factor")
    count = len(next(iter(targets.values())))
    for name, values in (*inputs.items(), *targets.items()):
        if len(values) != count:
            raise DataError(f"{name!r} has {len(values)} samples, the first factor has {count}")
    for name, values in targets.items():
        if (np.ptp(values, axis=0) == 0).any():
            raise DataError(f"factor {name!r} is constant; leave it out of the probe")
    outer = assign_folds(count if groups is None else groups, folds, seed)
    inner = [_inner_folds(groups, outer != fold, seed + 1 + fold) for fold in range(folds)]
    shuffled = np.random.default_rng([seed, 1]).permutation(count)
    stacked = np.concatenate([*targets.values(), *(values[shuffled] for values in targets.values())], axis=1)
    stacked = (stacked - stacked.mean(axis=0)) / stacked.std(axis=0)
    ends = np.cumsum([values.shape[1] for values in targets.values()])
    rows = []
    for representation, values in inputs.items():
        errors, totals = _held_out_errors(values, stacked, outer, inner)
        for position, factor in enumerate(targets):
            own = slice(ends[position] - targets[factor].shape[1], ends[position])
            control = slice(own.start + ends[-1], own.stop + ends[-1])
            scores = 1 - errors[:, own].sum(axis=1) / totals[:, own].sum(axis=1)
            null = 1 - errors[:, control].sum(axis=1) / totals[:, control].sum(axis=1)
            rows.append(
                {
                    "representation": representation,
                    "factor": factor,
                    "r2": float(scores.mean()),
                    "sd": float(scores.std(ddof=1)),
                    "control_r2": float(null.mean()),
                    "width": values.shape[1],
                    "folds": folds,
                }
            )
    return pd.DataFrame(rows)


def assign_folds(groups: int | Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """Fold number of each sample; whole groups stay together and folds get about equally many samples.

    Args:
        groups: group of each sample, or the number of samples where each is its own group.
    """
    names = np.arange(groups) if isinstance(groups, (int, np.integer)) else np.asarray([str(g) for g in groups])
    _, member, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if folds < 2 or len(sizes) < folds:
        raise ConfigError(f"cannot make {folds} folds of {len(sizes)} groups; ask for 2 to {len(sizes)} folds")
    order = np.random.default_rng([seed, 0]).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group, load = np.empty(len(sizes), int), np.zeros(folds)
    for group in order:  # largest first, each to the emptiest fold
        fold_of_group[group] = load.argmin()
        load[fold_of_group[group]] += sizes[group]
    return fold_of_group[member]


def _inner_folds(groups: Sequence[Hashable] | None, train: np.ndarray, seed: int) -> np.ndarray:
    chosen = int(train.sum()) if groups is None else [g for g, inside in zip(groups, train, strict=True) if inside]
    units = chosen if isinstance(chosen, int) else len(set(chosen))
    return assign_folds(chosen, min(INNER_FOLDS, units), seed)


def _held_out_errors(
    x: np.ndarray, y: np.ndarray, outer: np.ndarray, inner: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of the ridge and of the training mean, ``(folds, columns of y)``, summed over held-out samples."""
    errors, totals = [], []
    for fold, inner_folds in enumerate(inner):
        train, held_out = outer != fold, outer == fold
        best = _best_strength(x[train], y[train], inner_folds)
        by_strength = _ridge_path(x[train], y[train], x[held_out])
        prediction = by_strength[best, :, np.arange(y.shape[1])].T
        errors.append(((y[held_out] - prediction) ** 2).sum(axis=0))
        totals.append(((y[held_out] - y[train].mean(axis=0)) ** 2).sum(axis=0))
    return np.array(errors), np.array(totals)


def _best_strength(x: np.ndarray, y: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Index into :data:`STRENGTHS` with the smallest inner error, for each column of ``y``."""
    error = np.zeros((len(STRENGTHS), y.shape[1]))
    for fold in range(folds.max() + 1):
        train, held_out = folds != fold, folds == fold
        error += ((_ridge_path(x[train], y[train], x[held_out]) - y[held_out]) ** 2).sum(axis=1)
    return error.argmin(axis=0)


def _ridge_path(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ridge predictions for ``new`` at every strength, ``(strengths, samples, columns of y)``.

    One eigendecomposition of the ``(d, d)`` scatter matrix of the standardised columns serves all strengths.
    """
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-9 * np.abs(mean), scale, np.inf)  # a constant column carries nothing
    x, new, centre = (x - mean) / scale, (new - mean) / scale, y.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x)
    projected = vectors.T @ (x.T @ (y - centre))
    shrunk = projected / (np.maximum(values, 0)[:, None] + STRENGTHS[:, None, None])
    return (new @ vectors) @ shrunk + centre


def _matrix(what: str, values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().to("cpu").double().numpy()
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size:
        raise DataError(f"{what} has shape {array.shape}; a probe needs (N,) or (N, d), pool sequences first")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise DataError(f"{what} is not finite at sample {row}")
    return array
