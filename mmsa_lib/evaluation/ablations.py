"""What the switches of one method change, paired over seeds."""

from __future__ import annotations

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.statistics import compare_seeds

SEPARATOR = "; "
"""Between the changed values that name a variant in a table of results."""


def ablation_effects(results: pd.DataFrame, method: str, metric: str = "mae", alpha: float = 0.05) -> pd.DataFrame:
    """Compare each variant of ``method`` with the variant that all others change, on complete test data.

    Args:
        results: tidy rows with the columns of curated results, one data set and fold; other methods are ignored.
        method: id of the method.
        metric: key of the metric.
        alpha: level of the verdict.

    Returns:
        One row per variant, in the order of ``results``: ``switch`` (what differs from the full method), ``n`` (paired
        seeds), ``unpaired``, ``full`` (mean of the full method over its seeds), ``difference`` (variant minus full),
        ``sd``, ``low``, ``high`` (95 % t interval), ``p``, ``p_holm`` (corrected over the variants) and ``verdict``:
        ``worse`` or ``better`` where ``p_holm`` is below ``alpha``, else ``no effect shown``.

    Raises:
        DataError: no such rows, several data sets, a repeated seed, or no variant that all others change.
    """
    rows = results[
        (results["method"] == method)
        & (results["metric"] == metric)
        & (results["split"] == "test")
        & (results["protocol"] == "complete")
    ].assign(variant=lambda frame: frame["variant"].fillna(""))
    if rows.empty:
        raise DataError(f"no test result of {method} with metric {metric!r}")
    for column in ("dataset", "fold"):
        if len(rows[column].unique()) > 1:
            raise DataError(f"results of several {column}s ({', '.join(sorted(rows[column].unique()))}); choose one")
    reference = _reference(rows["variant"].unique())
    table = compare_seeds(rows, reference, by=["metric"], column="variant")
    if table.empty:
        raise DataError(f"{method} has one variant only, {reference or 'the default'!r}; nothing to compare")
    shared = _changes(reference)
    switches = [SEPARATOR.join(c for c in variant.split(SEPARATOR) if c not in shared) for variant in table["variant"]]
    rising = describe(metric).higher_is_better
    verdicts = [
        "no effect shown" if not p < alpha else "better" if (d > 0) == rising else "worse"
        for d, p in zip(table["difference"], table["p_holm"], strict=True)
    ]
    table = table.assign(switch=switches, full=rows.loc[rows["variant"] == reference, "value"].mean(), verdict=verdicts)
    columns = ["switch", "n", "unpaired", "full", "difference", "sd", "low", "high", "p", "p_holm", "verdict"]
    return table[columns]


def _reference(variants) -> str:
    """The variant whose changes all others have as well."""
    for variant in variants:
        if all(_changes(variant) <= _changes(other) for other in variants):
            return variant
    raise DataError(f"no variant is the base of all others; there are {', '.join(repr(v) for v in sorted(variants))}")


def _changes(variant: str) -> frozenset[str]:
    return frozenset(part for part in variant.split(SEPARATOR) if part)
