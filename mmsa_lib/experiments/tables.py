"""Tables of results for readers: the same text and the same HTML for the same numbers, wherever they are printed."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mmsa_lib.data.masks import level_name
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import Metric, metric
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.files import VARIANT_SEPARATOR

BEST, CONSTANT_STYLE = "font-weight:bold", "color:#767676"


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is, over how many seeds, and per metric its text."""

    label: str
    seeds: str
    cells: tuple[str, ...]
    constant: bool = False


@dataclass(frozen=True, eq=False)
class ResultsTable:
    """Methods down, metrics across: mean, standard deviation and 95 % t-interval over seeds; constants below.

    The best mean of the methods in each column is bold (``*`` in text). It is only the largest number: whether it
    differs from the next one is what the intervals are for.

    Attributes:
        frame: the numbers: method, variant, metric, n, undefined, mean, sd, low, high, constant.
        title: what data and which samples.
        metrics: the columns.
        rows: the lines, ready to print.
        best: per column the positions of the best rows.
    """

    frame: pd.DataFrame
    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    best: tuple[frozenset[int], ...]

    @property
    def header(self) -> tuple[str, ...]:
        """Column names with direction and unit."""
        names = [f"{m.label}{' %' if m.percent else ''} {'↑' if m.higher_is_better else '↓'}" for m in self.metrics]
        return ("method", "n", *names)

    def __repr__(self) -> str:
        lines = [self.header]
        for position, row in enumerate(self.rows):
            marked = [f"*{cell}" if position in self.best[i] else cell for i, cell in enumerate(row.cells)]
            lines.append((row.label, row.seeds, *marked))
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        texts = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        rule = "-" * sum([*widths, 2 * (len(widths) - 1)])
        return "\n".join([self.title, texts[0], rule, *texts[1:]])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.header)
        body = "".join(self._html_row(position, row) for position, row in enumerate(self.rows))
        caption = f"<caption>{html.escape(self.title)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _html_row(self, position: int, row: Row) -> str:
        style = f' style="{CONSTANT_STYLE}"' if row.constant else ""
        cells = "".join(
            f'<td style="{BEST}">{html.escape(cell)}</td>'
            if position in self.best[i]
            else f"<td>{html.escape(cell)}</td>"
            for i, cell in enumerate(row.cells)
        )
        return f"<tr{style}><td>{html.escape(row.label)}</td><td>{row.seeds}</td>{cells}</tr>"


def results_table(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    split: str = "test",
    protocol: str = "complete",
    level: float | str = 0.0,
    dataset: str | None = None,
    fold: str | None = None,
) -> ResultsTable:
    """Mean, standard deviation and 95 % t-interval over seeds for each method and variant, constants below.

    Args:
        frame: rows of :func:`mmsa_lib.experiments.results.collect` or of a curated table.
        metrics: keys, by default all but the macro averages.
        split, protocol, level: which cell of a run is shown; constants are the same in all of them.
        dataset, fold: which data, needed where ``frame`` holds several.

    Raises:
        DataError: nothing fits, several data sets fit, or a seed occurs twice (runs of different code are mixed).
    """
    chosen = _choose(frame, split, protocol, level, dataset, fold)
    keys = list(metrics) if metrics else [key for key in dict.fromkeys(chosen["metric"]) if not key.endswith("_macro")]
    absent = [key for key in keys if key not in set(chosen["metric"])]
    if absent:
        raise DataError(f"no run has metric {absent[0]!r}; there are {', '.join(dict.fromkeys(chosen['metric']))}")
    chosen = chosen[chosen["metric"].isin(keys)]
    data = f"{chosen['dataset'].iloc[0]}, fold {chosen['fold'].iloc[0]}, {split} samples{_cell_words(protocol, level)}"
    return seed_table(chosen, [metric(key) for key in keys], data)


def seed_table(
    rows: pd.DataFrame, columns: Sequence[Metric], data: str, *, short: bool = False, failed: pd.DataFrame | None = None
) -> ResultsTable:
    """A table over seeds of any numbers that are described as metrics are.

    Args:
        rows: tidy ``run_id, method, variant, seed, metric, value``; constants have no ``run_id``. ``metric`` holds the
            key of a column.
        columns: what stands in the columns, from left to right.
        data: first words of the title: what data and which samples.
        short: print ``mean ± half of the 95 % interval``, for tables of many columns.
        failed: ``method, variant`` of runs that failed, one row each; counted beside the finished ones.

    Raises:
        DataError: a seed occurs twice (runs of different code are mixed).
    """
    _refuse_repeated_seeds(rows)
    summary = summarise_seeds(rows, by=["method", "variant", "metric"], value="value")
    summary["constant"] = summary["method"].isin(rows.loc[rows["run_id"] == "", "method"])
    failures = {} if failed is None else failed.value_counts(["method", "variant"]).to_dict()
    groups = dict(iter(_groups(summary)))
    groups |= {(False, *key): summary.iloc[:0] for key in failures if (False, *key) not in groups}
    shared = _shared_changes([variant for constant, _, variant in groups if not constant])
    cell, form = (_short_cell, "mean ± half of the 95 % interval") if short else (_cell, "mean ± sd [95 % interval]")
    lines, means = [], []
    for constant, method, variant in sorted(groups):
        by_metric = groups[constant, method, variant].set_index("metric")
        shown = [by_metric.loc[m.key] if m.key in by_metric.index else None for m in columns]
        means.append([math.nan if constant or s is None else float(s["mean"]) for s in shown])
        cells = tuple(cell(m, s) for m, s in zip(columns, shown, strict=True))
        own = [part for part in _changes(variant) if part not in shared]
        label = f"{method} ({', '.join(own)})" if own else method
        lost = failures.get((method, variant), 0)
        seeds = f"{by_metric['n'].max() if len(by_metric) else 0}{f', {lost} failed' if lost else ''}"
        lines.append(Row(label, "" if constant else seeds, cells, constant))
    best = tuple(_best([line[i] for line in means], m.higher_is_better) for i, m in enumerate(columns))
    title = f"{data}{', with ' + ', '.join(shared) if shared else ''}: {form}"
    return ResultsTable(summary, title, tuple(columns), tuple(lines), best)


def _cell_words(protocol: str, level: float | str) -> str:
    return "" if protocol == "complete" else f", protocol {protocol} at {level_name(level)}"


def _changes(variant: str) -> list[str]:
    return variant.split(VARIANT_SEPARATOR) if variant else []


def _shared_changes(variants: Sequence[str]) -> list[str]:
    """What all methods of a table have in common; said once, in the title."""
    changes = [_changes(variant) for variant in variants]
    return [part for part in changes[0] if all(part in other for other in changes)]


def _choose(frame, split, protocol, level, dataset, fold) -> pd.DataFrame:
    level = level_name(level)
    cell = (frame["protocol"] == protocol) & (frame["level"].map(level_name) == level)
    keep = (frame["split"] == split) & (cell | (frame["run_id"] == ""))
    for column, wanted in (("dataset", dataset), ("fold", fold)):
        if wanted is not None:
            keep &= frame[column] == wanted
    chosen = frame[keep]
    if not (chosen["run_id"] != "").any():
        raise DataError(f"no run has {split} results for protocol {protocol}, level {level} on the data asked for")
    for column in ("dataset", "fold"):
        found = sorted(chosen[column].unique())
        if len(found) > 1:
            raise DataError(f"results of several {column}s ({', '.join(found)}); choose one by {column}= or --{column}")
    return chosen


def _refuse_repeated_seeds(chosen: pd.DataFrame) -> None:
    runs = chosen[chosen["run_id"] != ""]
    repeated = runs[runs.duplicated(["method", "variant", "seed", "metric"], keep=False)]
    if len(repeated):
        first = repeated.iloc[0]
        ids = ", ".join(sorted(repeated.loc[repeated["seed"] == first["seed"], "run_id"].unique()))
        raise DataError(
            f"{first['method']} has several runs with seed {first['seed']} ({ids}); leave the older ones out"
        )


def _groups(summary: pd.DataFrame):
    """Methods in the order of their names, then constants."""
    keys = ["constant", "method", "variant"]
    return summary.sort_values(keys, kind="stable").groupby(keys, sort=True)


def _cell(described: Metric, numbers: pd.Series | None) -> str:
    """``mean ± sd [low, high]``; the mean alone with one seed, a dash where it is undefined in every run.

    Where it is undefined in some runs (the correlation of a constant), the number of the others is added.
    """
    if numbers is None or math.isnan(numbers["mean"]):
        return "–"
    factor, digits = (100, 2) if described.percent else (1, 3)
    texts = {key: f"{factor * numbers[key]:.{digits}f}" for key in ("mean", "sd", "low", "high")}
    count = f" (n={numbers['n']})" if numbers["undefined"] else ""
    if math.isnan(numbers["sd"]):
        return texts["mean"] + count
    return f"{texts['mean']} ± {texts['sd']} [{texts['low']}, {texts['high']}]{count}"


def _short_cell(described: Metric, numbers: pd.Series | None) -> str:
    """``mean ± half``; half the width of the 95 % interval."""
    if numbers is None or math.isnan(numbers["mean"]):
        return "–"
    factor, digits = (100, 1) if described.percent else (1, 3)
    mean, half = factor * numbers["mean"], factor * (numbers["high"] - numbers["mean"])
    count = f" (n={numbers['n']})" if numbers["undefined"] else ""
    return f"{mean:.{digits}f}{count}" if math.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}{count}"


def _best(means: list[float], higher: bool) -> frozenset[int]:
    """Positions of the best mean; none where there is only one row to compare."""
    known = [value for value in means if not math.isnan(value)]
    if len(known) < 2:
        return frozenset()
    target = max(known) if higher else min(known)
    return frozenset(position for position, value in enumerate(means) if value == target)
