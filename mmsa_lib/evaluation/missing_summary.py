"""From the cells of many runs to the numbers of a missing-modality benchmark (evaluation.md, section 5).

Frames: the area under the curve over rates, raw and divided by its range. Subsets: the mean over the incomplete ones,
and complete input. Rate: the mean over missing rates. First per run, then over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.protocols import COMPLETE, LEVEL_SEPARATOR, auilc
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.files import level_name

RUN = ["dataset", "fold", "method", "variant", "seed"]
GROUP = ["dataset", "fold", "method", "variant"]

HEADLINE = ("auilc_normalised", "average", "mean")
"""The one number of each protocol that is on the scale of its metric."""


def is_constant(results: pd.DataFrame) -> pd.Series:
    """Which rows belong to constant baselines: they have no run and no seed."""
    return results["seed"].isna()


def run_summaries(results: pd.DataFrame, protocols: Sequence[str] | None = None, upto: float = 0.9) -> pd.DataFrame:
    """The numbers of each run, and of the constant baselines, which no mask changes.

    Args:
        results: rows of :func:`mmsa_lib.experiments.results.collect` or of a curated table; test rows count.
        protocols: which, by default all that occur except ``complete`` and single-level ones.
        upto: highest rate of an area; rate 1 hides everything and says nothing of a method but its constant.

    Returns:
        Tidy: dataset, fold, method, variant, seed, protocol, summary, metric, value. ``summary`` is ``auilc`` and
        ``auilc_normalised`` for protocols over frame rates, ``average`` (of incomplete subsets) and ``complete`` for
        subsets, ``mean`` for modality rates. A number is NaN where the metric is undefined at some level (the
        correlation of a constant prediction).

    Raises:
        DataError: no such rows, a cell occurs twice (runs of different code are mixed), or a run lacks a level.
    """
    test = results[results["split"] == "test"].assign(
        variant=lambda frame: _texts(frame["variant"]), level=lambda frame: frame["level"].map(level_name)
    )
    runs = test[~is_constant(test)]
    wanted = list(protocols) if protocols else [p for p in runs["protocol"].unique() if p != COMPLETE]
    rows: list[dict] = []
    for protocol in wanted:
        chosen = runs[runs["protocol"] == protocol]
        if chosen.empty:
            raise DataError(f"no test results under protocol {protocol!r}; test runs with --protocols {protocol}")
        if protocols or len(set(chosen["level"])) > 1:
            rows.extend(_protocol_rows(protocol, chosen, test[is_constant(test)], upto))
    return pd.DataFrame(rows, columns=[*RUN, "protocol", "summary", "metric", "value"]).astype({"seed": "Int64"})


def over_seeds(summaries: pd.DataFrame) -> pd.DataFrame:
    """Mean, standard deviation and 95 % t interval over seeds of :func:`run_summaries`.

    Returns:
        Columns dataset, fold, method, variant, protocol, summary, metric, n, undefined, mean, sd, low, high; a constant
        has its value as the mean and no interval.
    """
    return summarise_seeds(summaries, by=[*GROUP, "protocol", "summary", "metric"])


def level_means(results: pd.DataFrame, protocol: str, metric: str) -> pd.DataFrame:
    """Mean and 95 % t interval over seeds at each level of a protocol: what curves and heat maps are drawn from.

    Returns:
        Columns dataset, fold, method, variant, level, n, undefined, mean, sd, low, high; levels are text.

    Raises:
        DataError: no such rows.
    """
    keep = (results["split"] == "test") & (results["protocol"] == protocol) & (results["metric"] == metric)
    chosen = results[keep & ~is_constant(results)]
    if chosen.empty:
        raise DataError(f"no test result of {metric!r} under protocol {protocol!r}")
    chosen = chosen.assign(variant=_texts(chosen["variant"]), level=chosen["level"].map(level_name))
    return summarise_seeds(chosen, by=[*GROUP, "level"])


def floors(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """What the constants that were fitted to training labels score, in every cell: dataset, fold, baseline, value.

    The oracle of the test labels is no baseline and left out, and so is what is undefined.
    """
    keep = is_constant(results) & (results["metric"] == metric) & results["method"].str.startswith("constant_")
    chosen = results[keep].dropna(subset=["value"]).rename(columns={"method": "baseline"})
    return chosen[["dataset", "fold", "baseline", "value"]].drop_duplicates(ignore_index=True)


def _protocol_rows(protocol: str, runs: pd.DataFrame, constants: pd.DataFrame, upto: float) -> Iterator[dict]:
    for (dataset, fold), part in runs.groupby(["dataset", "fold"], sort=False):
        levels = _levels(part, upto)
        for key, cells in part.groupby([*RUN, "metric"], sort=False):
            values = cells.set_index("level")["value"]
            own = dict(zip([*RUN, "metric"], key, strict=True))
            _check(values, levels, protocol, own)
            for name, value in _summaries(protocol, levels, [values[level] for level in levels]).items():
                yield {**own, "protocol": protocol, "summary": name, "value": value}
        here = constants[(constants["dataset"] == dataset) & (constants["fold"] == fold)]
        fixed = {"dataset": dataset, "fold": fold, "variant": "", "seed": pd.NA, "protocol": protocol}
        for _, row in here[here["metric"].isin(part["metric"])].drop_duplicates(["method", "metric"]).iterrows():
            for name, value in _summaries(protocol, levels, [row["value"]] * len(levels)).items():
                yield {**fixed, "method": row["method"], "metric": row["metric"], "summary": name, "value": value}


def _levels(part: pd.DataFrame, upto: float) -> list[str]:
    """The levels that count, ordered: rates up to ``upto``, or subsets from small to large."""
    found = list(part["level"].unique())
    if all(_is_rate(level) for level in found):
        return sorted((level for level in found if float(level) <= upto), key=float)
    return sorted(found, key=lambda level: (level.count(LEVEL_SEPARATOR), found.index(level)))


def _summaries(protocol: str, levels: list[str], values: list[float]) -> dict[str, float]:
    if protocol == "rate":
        return {"mean": sum(values) / len(values)}
    if all(_is_rate(level) for level in levels):
        rates = [float(level) for level in levels]
        return {"auilc": auilc(rates, values), "auilc_normalised": auilc(rates, values, normalised=True)}
    *incomplete, complete = values
    average = sum(incomplete) / len(incomplete) if incomplete else math.nan
    return {"average": average, "complete": complete}


def _check(values: pd.Series, levels: list[str], protocol: str, run: dict) -> None:
    who = f"{run['method']}, seed {run['seed']}, {run['dataset']}"
    if values.index.has_duplicates:
        raise DataError(f"{who} has several results under protocol {protocol}; leave the older runs out")
    lacking = [level for level in levels if level not in values.index]
    if lacking:
        raise DataError(f"{who} has no result under protocol {protocol} at {lacking[0]}; repeat the run")


def _texts(column: pd.Series) -> pd.Series:
    """Texts, with an empty one for what is absent; a column of empty cells reads as numbers."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _is_rate(level: str) -> bool:
    return level.replace(".", "", 1).isdigit()
