"""What the switches of one method change, and how far other methods are from it, paired over seeds."""

from __future__ import annotations

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.statistics import compare_seeds

SEPARATOR = "; "
"""Between the changed values that name a variant in a table of results."""


COLUMNS = ["n", "unpaired", "reference", "difference", "sd", "low", "high", "p", "p_holm", "verdict"]


def ablation_effects(results: pd.DataFrame, method: str, metric: str = "mae", alpha: float = 0.05) -> pd.DataFrame:
    """Compare each variant of ``method`` with the variant that all others change, on complete test data.

    Args:
        results: tidy rows with the columns of curated results, one data set and fold; other methods are ignored.
        method: id of the method.
        metric: key of the metric.
        alpha: level of the verdict.

    Returns:
        One row per variant, in the order of ``results``: ``switch`` (what differs from the full method), ``n`` (paired
        seeds), ``unpaired``, ``reference`` (mean of the full method), ``difference`` (variant minus full), ``sd``,
        ``low``, ``high`` (95 % t interval), ``p``, ``p_holm`` (corrected over the variants) and ``verdict``: ``worse``
        or ``better`` where ``p_holm`` is below ``alpha``, else ``no effect shown``.

    Raises:
        DataError: no such rows, several data sets, a repeated seed, or no variant that all others change.
    """
    rows = _complete_test(results[results["method"] == method], method, metric)
    reference = _reference(rows["variant"].unique())
    table = paired_effects(rows, "variant", reference, metric, alpha)
    shared = _changes(reference)
    own = [[change for change in variant.split(SEPARATOR) if change not in shared] for variant in table["variant"]]
    return table.assign(switch=[SEPARATOR.join(changes) for changes in own])[["switch", *COLUMNS]]


def baseline_effects(results: pd.DataFrame, method: str, metric: str = "mae", alpha: float = 0.05) -> pd.DataFrame:
    """Compare each other method with ``method``, on complete test data; one variant per method.

    Constant baselines have no seeds and are left out.

    Returns:
        As :func:`ablation_effects`, with ``method`` in place of ``switch`` and differences other minus ``method``.

    Raises:
        DataError: no run of ``method``, several data sets, or several variants of a method.
    """
    runs = _complete_test(results[results["seed"].notna()], method, metric)
    return paired_effects(runs, "method", method, metric, alpha)[["method", *COLUMNS]]


def paired_effects(
    rows: pd.DataFrame, column: str, reference: str, metric: str = "mae", alpha: float = 0.05
) -> pd.DataFrame:
    """Compare each value of ``column`` with ``reference``, paired over seeds.

    Args:
        rows: tidy, the rows of one metric (and of one data set, protocol, …) alone, with ``metric``, ``seed`` and
            ``value``.
        column: what is compared, such as ``variant`` or ``method``.
        reference: its value that the others are compared with.
        metric: key of the metric, for the direction of the verdict.
        alpha: level of the verdict.

    Returns:
        As :func:`ablation_effects`, with ``column`` in place of ``switch``.

    Raises:
        DataError: nothing to compare, a repeated seed, or no row of ``reference``.
    """
    if set(rows[column]) == {reference} and not rows.duplicated("seed").any():
        raise DataError(f"there is nothing to compare with {reference or 'the default'!r}")
    table = compare_seeds(rows, reference, by=["metric"], column=column)
    mean = rows.loc[rows[column] == reference, "value"].mean()
    return table.assign(reference=mean, verdict=verdicts(table, metric, alpha))


def verdicts(table: pd.DataFrame, metric: str, alpha: float = 0.05) -> list[str]:
    """What each line of a comparison says: ``better`` or ``worse``, or ``no effect shown`` unless p is below ``alpha``.

    Args:
        table: with ``difference`` and ``p_holm``, as :func:`~mmsa_lib.evaluation.statistics.compare_seeds` returns it.
        metric: key of the metric, for the direction.
        alpha: level of the verdict.
    """
    rising = describe(metric).higher_is_better
    return [
        "no effect shown" if not p < alpha else "better" if (difference > 0) == rising else "worse"
        for difference, p in zip(table["difference"], table["p_holm"], strict=True)
    ]


def _complete_test(results: pd.DataFrame, method: str, metric: str) -> pd.DataFrame:
    """The rows of one metric on complete test data, checked to be of one data set."""
    rows = results[
        (results["metric"] == metric) & (results["split"] == "test") & (results["protocol"] == "complete")
    ].assign(variant=lambda frame: frame["variant"].fillna(""))
    if not (rows["method"] == method).any():
        raise DataError(f"no test result of {method} with metric {metric!r}")
    for column in ("dataset", "fold"):
        found = sorted(rows[column].unique())
        if len(found) > 1:
            raise DataError(f"results of several {column}s ({', '.join(found)}); choose one")
    return rows


def _reference(variants) -> str:
    """The variant whose changes all others have as well."""
    for variant in variants:
        if all(_changes(variant) <= _changes(other) for other in variants):
            return variant
    raise DataError(f"no variant is the base of all others; there are {', '.join(repr(v) for v in sorted(variants))}")


def _changes(variant: str) -> frozenset[str]:
    return frozenset(part for part in variant.split(SEPARATOR) if part)
