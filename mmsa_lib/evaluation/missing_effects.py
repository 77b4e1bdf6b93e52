"""What training with missing samples adds to a method, and what a method adds to it (evaluation.md, section 5).

The control is a plain fusion baseline that was trained with the same missing samples. A method that was built for
missing data must beat it, not the same method trained on complete samples.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.ablations import SEPARATOR, verdicts
from mmsa_lib.evaluation.missing_summary import is_constant
from mmsa_lib.evaluation.statistics import compare_seeds

AUGMENTATION = "missing=stochastic"
"""The part of a variant that says that training samples were made incomplete."""

PLAIN, AUGMENTED = "plain", "augmented"
"""How a run was trained: on complete samples, or with missing ones."""

OWN_RECIPE = ("hrlf",)
"""Methods that make their training samples incomplete themselves; they are always ``augmented``."""

CONTROLS = ("early_fusion", "late_fusion")

KEYS = ["method", "changes"]
EFFECTS = ["n", "unpaired", "reference", "difference", "sd", "low", "high", "p", "p_holm", "verdict"]


def with_training(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with two columns more, ``training`` and ``changes``; constants have empty ones.

    Args:
        rows: tidy, with ``dataset, fold, method, variant, seed``. Rows of one data set and fold must be one table: what
            all its runs have in common (the options of the data) is no change.

    Returns:
        ``training`` is ``plain`` or ``augmented``; ``changes`` is what else differs from the method's defaults.
    """
    variants = ["" if pd.isna(text) else str(text) for text in rows["variant"]]
    parts = [[part for part in text.split(SEPARATOR) if part] for text in variants]
    runs = ~is_constant(rows).to_numpy()
    data = list(zip(rows["dataset"], rows["fold"], strict=True))
    shared: dict[tuple, set[str]] = {}
    for own, found, run in zip(data, parts, runs, strict=True):
        if run:
            shared[own] = shared.get(own, set(found)) & set(found)
    training, changes = [], []
    for method, own, found, run in zip(rows["method"], data, parts, runs, strict=True):
        augmented = method in OWN_RECIPE or AUGMENTATION in found
        training.append("" if not run else AUGMENTED if augmented else PLAIN)
        kept = [part for part in found if part != AUGMENTATION and part not in shared[own]] if run else []
        changes.append(SEPARATOR.join(kept))
    return rows.assign(variant=variants, training=training, changes=changes)


def row_name(method: str, changes: str) -> str:
    """How a method is called in pictures: with its changes, if it has any."""
    return f"{method}, {changes}" if changes else method


def augmentation_effects(summaries: pd.DataFrame, metric: str, alpha: float = 0.05) -> pd.DataFrame:
    """Each method trained with missing samples against the same method trained on complete ones, paired over seeds.

    Args:
        summaries: rows of :func:`mmsa_lib.evaluation.missing_summary.run_summaries` of one protocol and one summary;
            the columns of :func:`with_training` are added where they are not there yet.
        metric: key of the metric.
        alpha: level of the verdict.

    Returns:
        One row per data set and method that was trained in both ways: ``dataset``, ``fold``, ``method``, ``changes``,
        ``n``, ``unpaired``, ``reference`` (mean of the plain runs), ``difference`` (augmented minus plain), ``sd``,
        ``low``, ``high``, ``p``, ``p_holm`` (corrected over the methods of a data set) and ``verdict``: ``better`` or
        ``worse`` where ``p_holm`` is below ``alpha``, else ``no effect shown``.

    Raises:
        DataError: no such rows, or several protocols or summaries.
    """
    runs = _runs(summaries, metric)
    both = runs.groupby(["dataset", "fold", *KEYS])["training"].transform("nunique") == 2
    return _by_data(runs[both], lambda part: compare_seeds(part, PLAIN, by=KEYS, column="training"), metric, alpha)


def control_effects(
    summaries: pd.DataFrame, metric: str, control: str = "early_fusion", alpha: float = 0.05
) -> pd.DataFrame:
    """Each method trained with missing samples against ``control`` trained with them as well, paired over seeds.

    Args and raises as :func:`augmentation_effects`; ``control`` must be there. ``reference`` is the mean of the
    control and ``difference`` is method minus control.
    """
    runs = _runs(summaries, metric)
    runs = runs[runs["training"] == AUGMENTED]
    runs = runs.assign(row=[row_name(m, c) for m, c in zip(runs["method"], runs["changes"], strict=True)])
    names = runs.drop_duplicates("row").set_index("row")[KEYS]

    def compare(part: pd.DataFrame) -> pd.DataFrame:
        return compare_seeds(part, control, by=["metric"], column="row").join(names, on="row")

    return _by_data(runs, compare, metric, alpha, reference=control)


def _runs(summaries: pd.DataFrame, metric: str) -> pd.DataFrame:
    runs = summaries[~is_constant(summaries) & (summaries["metric"] == metric)]
    if runs.empty:
        raise DataError(f"no summary of a run with metric {metric!r}")
    for column in ("protocol", "summary"):
        found = list(runs[column].unique())
        if len(found) > 1:
            raise DataError(f"summaries of several kinds in column {column!r} ({', '.join(found)}); choose one")
    return runs if {"training", "changes"} <= set(runs.columns) else with_training(runs)


def _by_data(
    runs: pd.DataFrame, compare: Callable[[pd.DataFrame], pd.DataFrame], metric: str, alpha: float, reference: str = ""
) -> pd.DataFrame:
    """Comparisons inside each data set, corrected inside each of them."""
    tables = []
    for (dataset, fold), part in runs.groupby(["dataset", "fold"], sort=False):
        table = compare(part).assign(dataset=dataset, fold=fold)
        base = part[part["row"] == reference] if reference else part[part["training"] == PLAIN]
        means = base.groupby(KEYS)["value"].mean()
        table["reference"] = [means.iloc[0] if reference else means[key] for key in table[KEYS].itertuples(index=False)]
        tables.append(table.assign(verdict=verdicts(table, metric, alpha)))
    columns = ["dataset", "fold", *KEYS, *EFFECTS]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)
