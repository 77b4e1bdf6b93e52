"""Statistics over runs: mean, spread and interval over random seeds, and paired comparisons.

They follow docs/evaluation.md, Statistics. Intervals over seeds and test items are in
:mod:`mmsa_lib.evaluation.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from scipy import special

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe

SAME = 12
"""Digits after the point to which two differences count as equal in a test of ranks; beyond is rounding of floats."""

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
PAIRS_NEEDED = 2
"""A t-test needs the spread of the differences."""


def summarise_seeds(
    frame: pd.DataFrame, by: Sequence[str] | str, value: str = "value", level: float = 0.95
) -> pd.DataFrame:
    """Mean, standard deviation and t interval of ``value`` over random seeds.

    Args:
        frame: tidy, one row per run and metric; where it has a column ``seed``, each seed may occur once per group.
        by: columns that tell the groups apart (method, data set, protocol, level, metric, ...).
        value: column of the values.
        level: coverage of the interval for the mean.

    Returns:
        The columns of ``by``, then ``n`` (values that are defined), ``undefined`` (NaN values, such as the correlation
        of a constant), ``mean``, ``sd`` (n-1 in the denominator), ``low`` and ``high``. With one value, ``sd`` and the
        interval are NaN: one run says nothing about the spread.

    Raises:
        DataError: a column is missing, or a seed occurs twice in a group (a column is missing in ``by``).
    """
    by = _columns(by)
    _check(frame, [*by, value], [*by, "seed"])
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
    reference: Hashable,
    by: Sequence[str] | str = ("metric",),
    column: str = "method",
    alpha: float = 0.05,
    family: Sequence[str] = (),
) -> pd.DataFrame:
    """Compare every value of ``column`` with ``reference`` by a paired t-test over runs that share their seed.

    Args:
        frame: tidy, one row per run and metric, with the ``metric`` whose direction decides about verdicts.
        reference: the value of ``column`` that the others are compared with.
        by: columns within which to compare (metric, data set, protocol, ...).
        alpha: level of the verdicts; intervals cover 1 - alpha.
        family: columns of ``by``; comparisons that agree in them are corrected together, by default all of the table.

    Returns:
        The columns of ``by``, ``column``, ``n`` (pairs), ``unpaired`` (runs without a partner, or undefined), ``mean``
        and ``reference`` over the pairs, ``difference`` (method minus reference), ``sd``, ``low``, ``high``, ``p``
        (two-sided t-test), ``p_holm`` (corrected), ``wilcoxon`` (two-sided p of the signed-rank test) and ``verdict``
        (:func:`verdict`). With fewer than two pairs ``sd`` … ``wilcoxon`` are NaN.

    Raises:
        DataError: a column is missing, a seed occurs twice, there is no run of ``reference`` or nothing beside it.
    """
    by = _columns(by)
    _check(frame, [*by, column, "seed", "value", "metric"], [*by, column, "seed"])
    if not (frame[column] == reference).any():
        raise DataError(f"no row has {column}={reference!r}; the reference must be in the table")
    rows = []
    for key, group in frame.groupby(by, sort=False, dropna=False, observed=True):
        series = {name: part.set_index("seed")["value"] for name, part in group.groupby(column, sort=False)}
        base = series.pop(reference, pd.Series(dtype=float))
        known = {**dict(zip(by, key, strict=True)), "metric": group["metric"].iloc[0]}
        rows += [{**known, column: name, **compare_pairs(own, base, alpha)} for name, own in series.items()]
    if not rows:
        raise DataError(f"there is nothing to compare with {reference!r}")
    table = judged(pd.DataFrame(rows), alpha, family)
    numbers = ["n", "unpaired", "mean", "reference", "difference", "sd", "low", "high", "p", "p_holm", "wilcoxon"]
    return table[[*by, column, *numbers, "verdict"]]


def compare_pairs(values: pd.Series, reference: pd.Series, alpha: float = 0.05) -> dict[str, float]:
    """The numbers of one comparison, of ``values`` and ``reference`` by their seeds: see :func:`compare_seeds`."""
    pairs = pd.concat([values, reference], axis=1).astype(float)
    own, other = pairs.dropna().to_numpy().T
    difference = own - other
    numbers, n = _mean_row(difference, 1 - alpha), len(difference)
    tested, error = n >= PAIRS_NEEDED, numbers["sd"] / np.sqrt(n or 1)
    if error == 0:
        paired = 1.0 if difference[0] == 0 else 0.0
    else:  # two-sided p of a one-sample t-test of the differences against 0; NaN without a spread
        paired = float(2 * special.stdtr(n - 1, -abs(numbers["mean"]) / error))
    return {
        **numbers,
        "unpaired": len(pairs) - n,
        "mean": _mean(own),
        "reference": _mean(other),
        "difference": numbers["mean"],
        "p": paired,
        "wilcoxon": signed_rank(difference) if tested else float("nan"),
        "wilcoxon_floor": signed_rank_floor(np.count_nonzero(np.round(difference, SAME))) if tested else float("nan"),
    }


def judged(table: pd.DataFrame, alpha: float = 0.05, family: Sequence[str] = ()) -> pd.DataFrame:
    """``table`` of comparisons with ``p_holm``, corrected inside each ``family`` of rows, and their ``verdict``.

    Args:
        table: columns ``metric``, ``n``, ``difference``, ``p``, and ``item_low``, ``item_high`` where items are drawn.
    """
    tested = table["p"].to_numpy(dtype=float)
    corrected = np.empty(len(table))
    families = table.groupby(list(family), sort=False).indices.values() if len(family) else [slice(None)]
    for rows in families:
        corrected[rows] = holm(tested[rows])
    table = table.assign(p_holm=corrected)
    return table.assign(verdict=[verdict(row, alpha) for row in table.to_dict("records")])


def verdict(row: dict, alpha: float = 0.05) -> str:
    """``better`` or ``worse`` where ``p_holm`` is below ``alpha`` and the item interval leaves out 0, else why not.

    Args:
        row: ``metric``, ``n``, ``difference``, ``p_holm``; also ``item_low`` and ``item_high``, the interval over seeds
            and test items: where there is none it can't object.
    """
    if row["n"] < PAIRS_NEEDED:
        return f"too few seeds ({row['n']}, {PAIRS_NEEDED} needed)"
    low, high = row.get("item_low", np.nan), row.get("item_high", np.nan)
    if not row["p_holm"] < alpha or not (np.isnan(low) or low > 0 or high < 0):
        return NO_DIFFERENCE
    return BETTER if (row["difference"] > 0) == describe(row["metric"]).higher_is_better else WORSE


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

    Every combination of signs counts, so ties cost no exactness; SciPy's permutations are as exact for few pairs, but
    take seconds from 15 on. NaN without a difference; 1 where all are 0.
    """
    values = np.round(np.asarray(difference, dtype=np.float64), SAME)
    if not len(values):
        return float("nan")
    values = values[values != 0]
    doubled = np.round(2 * pd.Series(np.abs(values)).rank().to_numpy()).astype(int)  # mean ranks are halves at most
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


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _mean_row(values: np.ndarray, level: float) -> dict[str, float]:
    n, mean = len(values), _mean(values)
    if n < 2:
        return {"n": n, "mean": mean, "sd": float("nan"), "low": float("nan"), "high": float("nan")}
    sd = float(values.std(ddof=1))
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * sd / np.sqrt(n)  # stats.t, without its second of import
    return {"n": n, "mean": mean, "sd": sd, "low": mean - half, "high": mean + half}


def _columns(by: Sequence[str] | str) -> list[str]:
    if not by:
        raise DataError("`by` names no column; name what tells the groups apart, for instance method and metric")
    return [by] if isinstance(by, str) else list(by)


def _check(frame: pd.DataFrame, needed: Sequence[str], once: Sequence[str]) -> None:
    """Refuse a frame without the ``needed`` columns, or with several rows that agree in the columns ``once``."""
    missing = [c for c in needed if c not in frame.columns]
    if missing:
        raise DataError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    double = frame.duplicated(once) if once[-1] in frame.columns else pd.Series(data=False, index=frame.index)
    if double.any():
        row = frame.loc[double].iloc[0]
        where = ", ".join(f"{c}={row[c]}" for c in once)
        raise DataError(f"several rows for {where}; name in `by` the column that tells them apart")
