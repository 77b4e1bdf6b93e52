"""Which method or value comes first: how stable that is over seeds, and what choosing on validation data gives."""

from __future__ import annotations

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe


def first_places(rows: pd.DataFrame, column: str, metric: str = "mae") -> pd.DataFrame:
    """How often each value of ``column`` is the best of a seed, and how often it is expected by chance.

    Args:
        rows: tidy, of one metric, data set and protocol cell, with ``column``, ``seed`` and ``value``.
        column: what is ranked, such as ``method``.
        metric: key of the metric, for its direction.

    Returns:
        Index ``column``, best mean first: ``mean``, ``first`` (seeds in which it is best, ties count for each),
        ``seeds`` and ``worst_rank`` (1 is best).

    Raises:
        DataError: a value lacks a seed that another one has, so ranks could not be compared.
    """
    wide = rows.pivot(index="seed", columns=column, values="value").astype(float)  # noqa: PD010 (must not average)
    if wide.isna().any(axis=None):
        lacking = wide.columns[wide.isna().any()][0]
        raise DataError(f"{lacking} has no defined value for a seed that others have; ranks can't be compared")
    ranks = wide.rank(axis=1, method="min", ascending=not describe(metric).higher_is_better)
    table = pd.DataFrame(
        {"mean": wide.mean(), "first": (ranks == 1).sum(), "seeds": len(wide), "worst_rank": ranks.max().astype(int)}
    )
    return table.sort_values("mean", ascending=not describe(metric).higher_is_better, kind="stable")


def chosen_on_validation(points: pd.DataFrame, default: str = "default") -> pd.DataFrame:
    """For each hyper-parameter the value that validation data choose, and what that gives on test data.

    Args:
        points: columns ``panel``, ``value``, ``split`` (``valid`` and ``test``), ``mean`` (lower is better) and
            ``default``, a mark of the default value.
        default: name of that column.

    Returns:
        Index ``panel``: ``default``, ``chosen`` (lowest validation mean), ``test_default``, ``test_chosen``,
        ``test_best`` (the oracle that has seen test labels) and ``range`` (of test means over all values).

    Raises:
        DataError: a panel has no default value, or a value lacks a split.
    """
    rows = {}
    for panel, part in points.groupby("panel", sort=False):
        wide = part.pivot(index="value", columns="split", values="mean").astype(float)  # noqa: PD010
        if not {"valid", "test"} <= set(wide) or wide[["valid", "test"]].isna().any(axis=None):
            raise DataError(f"{panel!r}: each value needs a validation and a test result")
        marked = part.loc[part[default].astype(bool), "value"].unique()
        if len(marked) != 1:
            raise DataError(f"{panel!r}: exactly one value must be the default, found {len(marked)}")
        chosen = wide["valid"].idxmin()
        rows[panel] = {
            "default": marked[0], "chosen": chosen, "test_default": wide.loc[marked[0], "test"],
            "test_chosen": wide.loc[chosen, "test"], "test_best": wide["test"].min(),
            "range": wide["test"].max() - wide["test"].min(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("panel")
