"""Statistics over runs: mean, spread and interval over random seeds, and paired comparisons (evaluation.md, 5.2).

Intervals over test items are in :mod:`mmsa_lib.evaluation.bootstrap` and can be imported from here as well; those over
seeds and test items at once are in :mod:`mmsa_lib.evaluation.hierarchical`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.bootstrap import Interval, bootstrap_difference, bootstrap_items

__all__ = [
    "Interval", "bootstrap_difference", "bootstrap_items", "compare_seeds", "holm", "signed_rank", "signed_rank_floor",
    "signed_rank_pairs", "summarise_seeds",
]  # fmt: skip

SAME = 12
"""Digits after the point to which two differences count as equal in a test of ranks; beyond is rounding of floats."""


def summarise_seeds(
    frame: pd.DataFrame, by: Sequence[str] | str, value: str = "value", seed: str = "seed", level: float = 0.95
) -> pd.DataFrame:
    """Mean, standard deviation and t interval of ``value`` over random seeds.

    Args:
        frame: tidy, one row per run and metric.
        by: columns that tell the groups apart (method, data set, protocol, level, metric, ...).
        value: column of the values.
        seed: column of the random seed; not needed in ``frame``, but where it is, each seed may occur once per group.
        level: coverage of the interval for the mean.

    Returns:
        The columns of ``by``, then ``n`` (values that are defined), ``undefined`` (NaN values, such as the correlation
        of a constant), ``mean``, ``sd`` (n-1 in the denominator), ``low`` and ``high``. With one value, ``sd`` and the
        interval are NaN: one run says nothing about the spread.

    Raises:
        DataError: a column is missing, or a seed occurs twice in a group (a column is missing in ``by``).
    """
    by = _columns(by)
    _require(frame, [*by, value])
    _require_unique(frame, by, seed)
    rows = []
    for key, group in frame.groupby(by, sort=False, dropna=False, observed=True):
        values = group[value].to_numpy(dtype=np.float64, na_value=np.nan)
        defined = values[~np.isnan(values)]
        rows.append(
            {**dict(zip(by, key, strict=True)), **_mean_row(defined, level), "undefined": len(values) - len(defined)}
        )
    return pd.DataFrame(rows, columns=[*by, "n", "undefined", "mean", "sd", "low", "high"])


def compare_seeds(
    frame: pd.DataFrame,
    reference: str,
    by: Sequence[str] | str = ("metric",),
    value: str = "value",
    column: str = "method",
    seed: str = "seed",
    level: float = 0.95,
) -> pd.DataFrame:
    """Compare every method with ``reference`` by a paired t-test over runs that share their seed.

    Args:
        frame: tidy, one row per run and metric.
        reference: the value of ``column`` that the others are compared with.
        by: columns within which to compare (metric, data set, protocol, ...).

    Returns:
        The columns of ``by``, ``column``, ``n`` (pairs), ``unpaired`` (runs without a partner, or undefined),
        ``difference`` (method minus reference), ``sd``, ``low``, ``high``, ``p`` (two-sided t-test), ``wilcoxon``
        (exact two-sided p of the signed-rank test) and ``p_holm``, ``p`` corrected for all comparisons in the table.
        With fewer than two pairs the last six are NaN.

    Raises:
        DataError: a column is missing, a seed occurs twice, or there is no run of ``reference``.
    """
    by = _columns(by)
    _require(frame, [*by, column, seed, value])
    _require_unique(frame, [*by, column], seed)
    if not (frame[column] == reference).any():
        raise DataError(f"no row has {column}={reference!r}; the reference must be in the table")
    rows = []
    for key, group in frame.groupby(by, sort=False, dropna=False, observed=True):
        wide = group.pivot(index=seed, columns=column, values=value)  # noqa: PD010 (must not average)
        for method in (m for m in group[column].unique() if m != reference):
            pairs = wide.reindex(columns=[method, reference]).astype(float)
            difference = (pairs[method] - pairs[reference]).dropna().to_numpy()
            rows.append(
                {
                    **dict(zip(by, key, strict=True)),
                    column: method,
                    **_mean_row(difference, level),
                    "unpaired": len(pairs) - len(difference),
                    "p": _paired_p(difference),
                    "wilcoxon": signed_rank(difference) if len(difference) > 1 else float("nan"),
                }
            )
    table = pd.DataFrame(rows, columns=[*by, column, "n", "unpaired", "mean", "sd", "low", "high", "p", "wilcoxon"])
    table["p_holm"] = holm(table["p"].to_numpy(dtype=float))
    return table.rename(columns={"mean": "difference"})


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction of ``p``; NaN stays NaN and does not count as a comparison."""
    p = np.asarray(p, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    stepped = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return corrected


def signed_rank(difference: Sequence[float] | np.ndarray) -> float:
    """Exact two-sided p of Wilcoxon's signed-rank test: equal sizes share their mean rank, zeros are left out.

    Every combination of signs counts, so ties cost no exactness. NaN without a difference; 1 where all are 0.
    """
    values = np.round(np.asarray(difference, dtype=np.float64), SAME)
    if not len(values):
        return float("nan")
    values = values[values != 0]
    doubled = np.round(2 * stats.rankdata(np.abs(values))).astype(int)  # mean ranks are halves at most
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
        ways /= 2
    positive = doubled[values > 0].sum()
    return float(min(1, 2 * min(ways[: positive + 1].sum(), ways[positive:].sum())))


def signed_rank_floor(n: int) -> float:
    """The smallest p that :func:`signed_rank` can reach with ``n`` pairs: all differences have one sign."""
    return min(1.0, 2.0 ** (1 - n))


def signed_rank_pairs(alpha: float) -> int:
    """How many pairs it takes until :func:`signed_rank` can fall to ``alpha`` or below."""
    return max(1, int(np.ceil(1 - np.log2(alpha))))


def _mean_row(values: np.ndarray, level: float) -> dict[str, float]:
    n = len(values)
    mean = float(values.mean()) if n else float("nan")
    if n < 2:
        return {"n": n, "mean": mean, "sd": float("nan"), "low": float("nan"), "high": float("nan")}
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * sd / np.sqrt(n)
    return {"n": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def _paired_p(difference: np.ndarray) -> float:
    """Two-sided p of a one-sample t-test of the differences against 0."""
    n = len(difference)
    if n < 2:
        return float("nan")
    error = difference.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return 1.0 if difference[0] == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference.mean()) / error, n - 1))


def _columns(by: Sequence[str] | str) -> list[str]:
    if not by:
        raise DataError("`by` names no column; name what tells the groups apart, for instance method and metric")
    return [by] if isinstance(by, str) else list(by)


def _require(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise DataError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")


def _require_unique(frame: pd.DataFrame, by: Sequence[str], seed: str) -> None:
    if seed not in frame.columns:
        return
    double = frame.duplicated([*by, seed])
    if double.any():
        row = frame.loc[double].iloc[0]
        where = ", ".join(f"{c}={row[c]}" for c in [*by, seed])
        raise DataError(f"several rows for {where}; name in `by` the column that tells them apart")
