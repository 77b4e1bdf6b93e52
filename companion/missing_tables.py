"""Tables of the missing-modality benchmark: one line per method, one column per summary or per subset of modalities."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import metric as describe
from mmsa_lib.evaluation.missing_effects import AUGMENTATION, AUGMENTED, OWN_RECIPE, with_training
from mmsa_lib.evaluation.missing_summary import is_constant, run_summaries
from mmsa_lib.experiments.files import VARIANT_SEPARATOR
from mmsa_lib.experiments.published import PrintedTable
from mmsa_lib.experiments.tables import ResultsTable, seed_table

SUMMARIES = {
    ("frames", "auilc"): "AUILC",
    ("frames", "auilc_normalised"): "AUILC / range",
    ("subsets", "average"): "Avg.",
    ("subsets", "complete"): "complete",
    ("rate", "mean"): "mean over MR",
}
"""Protocol and summary to the column of :func:`benchmark_table`."""

SUBSETS = {
    "{l}": "text", "{a}": "audio", "{v}": "vision", "{l,a}": "text+audio", "{l,v}": "text+vision",
    "{a,v}": "audio+vision", "{l,a,v}": "text+audio+vision",
}  # fmt: skip
"""The headings of HRLF's Tables 1 to 3: what is available."""

AVERAGE = "Avg."
PAPER_ORDER = ("{l}", "{a}", "{v}", "{l,a}", "{l,v}", "{a,v}", AVERAGE, "{l,a,v}")
PUBLISHED_SETTING = {**{heading: f"subset={heading}" for heading in SUBSETS}, AVERAGE: "subset_avg6"}
PUBLISHED_SETTING["{l,a,v}"] = "complete"

ORACLES = "oracle_"


def benchmark_table(results: pd.DataFrame, metric: str, failed: pd.DataFrame | None = None) -> ResultsTable:
    """Every protocol in one number, for one metric: area over frame rates, mean over subsets, mean over missing rates.

    Args:
        results: curated rows of one data set and fold, constants included.
        metric: key of the metric.
        failed: rows of ``missing_runs.csv`` for runs of the same data that failed; counted beside the finished ones.

    Returns:
        A table with the columns of :data:`SUMMARIES`; the area of a metric in per cent is in per cent as well.

    Raises:
        DataError: no such rows, or several data sets.
    """
    own, failed, data = _prepare(results, metric, failed)
    found = run_summaries(own)
    column = [SUMMARIES.get(key) for key in zip(found["protocol"], found["summary"], strict=True)]
    rows = _rows(found.assign(metric=column).dropna(subset=["metric"]))
    described = describe(metric)
    columns = [replace(described, key=n, label=n) for n in SUMMARIES.values() if n in column]
    return seed_table(rows, columns, f"{data}, {described.label}", short=True, failed=failed)


def subset_table(results: pd.DataFrame, metric: str, failed: pd.DataFrame | None = None) -> ResultsTable:
    """What is left with each subset of modalities, in the layout of HRLF's Table 1, for one metric.

    Args, returns and raises as :func:`benchmark_table`; columns are those of :data:`PAPER_ORDER` that the data have.
    ``Avg.`` is the mean over the incomplete subsets, complete input stands apart at the right.
    """
    own, failed, data = _prepare(results, metric, failed)
    cells = own[(own["protocol"] == "subsets") & ~is_constant(own)]
    if cells.empty:
        raise DataError("no result under protocol 'subsets'; test runs with --protocols subsets")
    heading = {level: name for name, level in SUBSETS.items()}
    levels = sorted(cells["level"].unique(), key=lambda level: PAPER_ORDER.index(heading[level]))
    names = [*(heading[level] for level in levels[:-1]), AVERAGE, heading[levels[-1]]]
    averages = run_summaries(own, ["subsets"])
    averages = averages[averages["summary"] == "average"].assign(metric=AVERAGE)
    constants = own[is_constant(own)]
    repeated = pd.concat([constants.assign(metric=heading[level]) for level in levels])
    rows = _rows(pd.concat([cells.assign(metric=cells["level"].map(heading)), repeated, averages], ignore_index=True))
    described = describe(metric)
    columns = [replace(described, key=name, label=name) for name in names]
    return seed_table(rows, columns, f"{data}, {described.label} by what is available", short=True, failed=failed)


def printed_subsets(published: pd.DataFrame, source: str, dataset: str, metrics: dict[str, str]) -> PrintedTable:
    """The subset table of a paper, as printed, with its features and notes in the title.

    Args:
        published: rows of ``data/published/published_results.csv``.
        source: ``quoted_from``, such as ``HRLF Table 1``.
        dataset: id of the data set.
        metrics: metric of the published rows to its name; several stand in one cell, divided by strokes.

    Raises:
        DataError: nothing is quoted from there.
    """
    chosen = published[(published["quoted_from"] == source) & (published["dataset"] == dataset)]
    chosen = chosen[chosen["metric"].isin(metrics)]
    if chosen.empty:
        raise DataError(f"no published value on {dataset} is quoted from {source!r}")
    settings = {name: text for name, text in PUBLISHED_SETTING.items() if text in set(chosen["setting"])}
    by_cell = chosen.set_index(["method", "setting", "metric"])["value"]
    digits = 2 if len(metrics) == 1 else 1
    rows = [
        (method, *("/".join(f"{by_cell[method, text, m]:.{digits}f}" for m in metrics) for text in _ordered(settings)))
        for method in dict.fromkeys(chosen["method"])
    ]
    features = "; ".join(dict.fromkeys(chosen["features"]))
    title = (
        f"{source}, {dataset}, {'/'.join(metrics.values())} in %, as printed in the paper. Features: {features}. "
        "Other features and other runs than ours: never compared."
    )
    return PrintedTable(title, ("method", *_ordered(settings, headings=True)), tuple(rows))


def printed_metrics(published: pd.DataFrame, source: str, dataset: str) -> PrintedTable:
    """A table of a paper with methods down and metrics across, for one data set and one setting, as printed.

    Args and raises as :func:`printed_subsets`; several settings in one table are an error.
    """
    chosen = published[(published["quoted_from"] == source) & (published["dataset"] == dataset)]
    if chosen.empty:
        raise DataError(f"no published value on {dataset} is quoted from {source!r}")
    settings = list(chosen["setting"].unique())
    if len(settings) > 1:
        raise DataError(f"{source} has several settings on {dataset} ({', '.join(settings)}); choose one")
    by_cell = chosen.drop_duplicates(["method", "metric"]).set_index(["method", "metric"])["value"]
    metrics = list(chosen["metric"].unique())
    rows = [
        (method, *(f"{by_cell[method, m]:g}" if (method, m) in by_cell.index else "–" for m in metrics))
        for method in chosen["method"].unique()
    ]
    features = "; ".join(dict.fromkeys(chosen["features"]))
    title = (
        f"{source}, {dataset}, {settings[0]}, as printed in the paper. Features: {features}. Never compared with ours."
    )
    return PrintedTable(title, ("method", *metrics), tuple(rows))


def _ordered(settings: dict[str, str], headings: bool = False) -> list[str]:
    return [name if headings else settings[name] for name in PAPER_ORDER if name in settings]


def _prepare(results: pd.DataFrame, metric: str, failed: pd.DataFrame | None):
    """Rows of the metric and failed runs, both with short variants, and what the title says of the data."""
    own = results[(results["split"] == "test") & (results["metric"] == metric)]
    own = own[~own["method"].str.startswith(ORACLES)]
    runs = own[~is_constant(own)]
    if runs.empty:
        raise DataError(f"no run has test results of {metric!r}")
    for column in ("dataset", "fold"):
        found = sorted(own[column].unique())
        if len(found) > 1:
            raise DataError(f"results of several {column}s ({', '.join(found)}); choose one")
    both = with_training(own if failed is None else pd.concat([own, failed], ignore_index=True))
    shared = set.intersection(*(set(v.split(VARIANT_SEPARATOR)) - {"", AUGMENTATION} for v in runs["variant"].unique()))
    words = ["", *sorted(shared)]
    data = f"{own['dataset'].iloc[0]}, fold {own['fold'].iloc[0]}, test samples{', '.join(words)}"
    both = both.assign(variant=_short_variant(both))
    return both.iloc[: len(own)], None if failed is None else both.iloc[len(own) :], data


def _short_variant(rows: pd.DataFrame) -> pd.Series:
    """How a run was trained and what it changes, without the options of the data, which all runs share."""
    marked = (rows["training"] == AUGMENTED) & ~rows["method"].isin(OWN_RECIPE)
    texts = [
        VARIANT_SEPARATOR.join(part for part in (AUGMENTATION if mark else "", changes) if part)
        for mark, changes in zip(marked, rows["changes"], strict=True)
    ]
    return pd.Series(texts, index=rows.index, dtype=object)


def _rows(found: pd.DataFrame) -> pd.DataFrame:
    """As :func:`seed_table` reads them: constants have no run."""
    run_id = is_constant(found).map({True: "", False: "run"})
    return found.assign(run_id=run_id)[["run_id", "method", "variant", "seed", "metric", "value"]]
