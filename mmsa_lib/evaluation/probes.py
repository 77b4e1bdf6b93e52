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


def probe(
    representations: Mapping[str, Any],
    factors: Mapping[str, Any],
    groups: Sequence[Hashable] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Regress every factor on every representation with cross-validated ridge regression.

    In each fold the columns are standardised on the training part, the strength is chosen there for each column of a
    factor by generalised cross-validation, and R² is taken on the held-out part against the mean of the **training**
    part: 0 is what a constant achieves, and worse than that is negative.

    Args:
        representations: name to ``(N, d)`` tensor or array, such as :attr:`Output.representations`.
        factors: name to ``(N,)`` or ``(N, k)``; the R² of a vector factor is that of all columns together, each scaled
            to unit variance.
        groups: per sample the unit that must not be split (speaker, video); folds get about equally many samples.
        folds: number of folds.
        seed: of the assignment to folds and of the shuffled control.

    Returns:
        Columns ``representation``, ``factor``, ``r2`` (mean over folds), ``sd`` (over folds, n-1), ``control_r2`` (the
        same with the factor's rows shuffled among the samples; about 0, or the procedure is broken), ``width`` (of the
        representation) and ``folds``.

    Raises:
        DataError: shapes don't fit, a value is not finite, or a factor is constant; names it.
        ConfigError: fewer groups than folds, or fewer than two folds.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

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
    _, member = np.unique([str(group) for group in (range(count) if groups is None else groups)], return_inverse=True)
    number = int(member.max()) + 1
    if folds < 2 or number < folds:
        raise ConfigError(f"cannot make {folds} folds of {number} groups; ask for 2 to {number} folds")
    order = np.random.default_rng([seed, 0]).permutation(number)
    splits = list(GroupKFold(folds).split(member, groups=order[member]))
    shuffled = np.random.default_rng([seed, 1]).permutation(count)
    columns = [*targets.values(), *(values[shuffled] for values in targets.values())]
    starts = np.cumsum([0, *(values.shape[1] for values in columns)])[:-1]
    wanted = StandardScaler().fit_transform(np.concatenate(columns, axis=1))
    totals = [((wanted[test] - wanted[train].mean(axis=0)) ** 2).sum(axis=0) for train, test in splits]
    model = make_pipeline(StandardScaler(), RidgeCV(STRENGTHS, alpha_per_target=True))
    rows = []
    for representation, values in inputs.items():
        squared = (wanted - cross_val_predict(model, values, wanted, cv=splits)) ** 2
        errors = [squared[test].sum(axis=0) for _, test in splits]
        r2 = 1 - np.add.reduceat(errors, starts, axis=1) / np.add.reduceat(totals, starts, axis=1)  # (folds, factors)
        for factor, own, control in zip(targets, r2.T, r2.T[len(targets) :], strict=False):
            numbers = {"r2": own.mean(), "sd": own.std(ddof=1), "control_r2": control.mean()}
            known = {"representation": representation, "factor": factor}
            rows.append({**known, **numbers, "width": values.shape[1], "folds": folds})
    return pd.DataFrame(rows)


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
