"""Tables of results for readers: the same text and the same HTML for the same numbers, wherever they are printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mmsa_lib.errors import DataError, unknown_name
from mmsa_lib.evaluation.bootstrap import RESAMPLES
from mmsa_lib.evaluation.metrics import Metric, metric, shown_first
from mmsa_lib.evaluation.statistics import summarise_seeds
from mmsa_lib.experiments.published import PrintedTable, published_setting, published_tables, read_published
from mmsa_lib.experiments.rendering import Block, Line, Mark, Printable
from mmsa_lib.experiments.results import DECIMALS, UNKNOWN, check_names, check_seeds
from mmsa_lib.experiments.summaries import Source, is_summary, open_source, read_summary, summarise
from mmsa_lib.experiments.table_cells import cell_text, cell_words, ranks, short_text
from mmsa_lib.experiments.variants import (
    DEFAULT,
    own_changes,
    row_label,
    shared_changes,
    swept_parameters,
    values_of,
    with_parameters,
)
from mmsa_lib.files import level_name

INTERVALS = {
    "seeds": ("low", "high", "interval"),
    "items": ("item_low", "item_high", "interval over seeds and test items"),
}
"""Kind of interval to its bounds and to what the title calls it."""


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is, over how many seeds, per metric its text, and its swept parameters."""

    label: str
    seeds: str
    cells: tuple[str, ...]
    constant: bool = False
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class ResultsTable(Printable):
    """Methods down, metrics across: mean, standard deviation and 95 % interval; constants below, published apart.

    The best mean of the methods in each column is bold (``*`` in text) and, of three or more, the second best is
    underlined (``_``). These are only the largest numbers: whether they differ is what the intervals are for.

    Attributes:
        frame: the numbers: method, variant, metric, n, undefined, mean, sd, low, high, constant.
        title: what data and which samples.
        metrics: the columns.
        rows: the lines, ready to print.
        best, second: per column the positions of the best and of the second best rows.
        notes: what must be said below.
        published: numbers of papers, in tables of their own.
        by: swept parameters that have a column each; ``frame`` has them as well.
    """

    frame: pd.DataFrame
    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    best: tuple[frozenset[int], ...]
    second: tuple[frozenset[int], ...]
    notes: tuple[str, ...] = ()
    published: tuple[PrintedTable, ...] = ()
    by: tuple[str, ...] = ()

    @property
    def header(self) -> tuple[str, ...]:
        """Column names with direction and unit."""
        names = [f"{m.label}{' %' if m.percent else ''} {'↑' if m.higher_is_better else '↓'}" for m in self.metrics]
        return ("method", *self.by, "n", *names)

    @property
    def undefined(self) -> tuple[str, ...]:
        """Class metrics that no row defines: the labels of the samples hold one class alone."""
        values = self.frame.groupby("metric")["mean"].count()
        return tuple(m.label for m in self.metrics if m.percent and values.get(m.key, 1) == 0)

    def blocks(self) -> tuple[Block, ...]:
        lines = tuple(
            Line(
                (row.label, *row.parameters, row.seeds, *row.cells),
                (*[Mark.NONE] * (2 + len(self.by)), *self._marks(i)),
                grey=row.constant,
            )
            for i, row in enumerate(self.rows)
        )
        own = Block(self.title, self.header, lines, self.notes)
        return (own, *(block for table in self.published for block in table.blocks()))

    def _marks(self, row: int) -> list[Mark]:
        pairs = zip(self.best, self.second, strict=True)
        return [Mark.BEST if row in best else Mark.SECOND if row in second else Mark.NONE for best, second in pairs]

    def to_csv(self) -> str:
        """The numbers behind the table, one row per line and metric; published ones are not among them."""
        numbers = self.frame.select_dtypes("floating").columns
        rounded = self.frame.assign(**{name: self.frame[name].round(DECIMALS) for name in numbers})
        return rounded.to_csv(index=False, lineterminator="\n")


def results_table(
    source: Path | str | pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    split: str = "test",
    protocol: str = "complete",
    level: float | str = 0.0,
    dataset: str | None = None,
    fold: str | None = None,
    methods: Sequence[str] | None = None,
    intervals: str = "seeds",
    published: bool | pd.DataFrame = False,
    failed: pd.DataFrame | None = None,
    runs: Path | str | None = None,
    resamples: int = RESAMPLES,
    by: Sequence[str] | None = None,
) -> ResultsTable:
    """Mean, standard deviation and 95 % interval for each method and variant, constants below.

    Args:
        source: a folder of runs, a curated table, rows of :func:`mmsa_lib.experiments.results.collect`, or a summary of
            :func:`mmsa_lib.experiments.summaries.summarise` or the file that it was curated in.
        metrics: keys, by default all but the macro averages.
        split, protocol, level: which cell of a run is shown; constants are the same in all of them.
        dataset, fold: which data, needed where ``source`` holds several.
        methods: only these; constants stay.
        intervals: ``"seeds"``: t intervals over seeds; ``"items"``: bootstrap over seeds and test items, from a summary
            that has them or from the folder of runs.
        published: show what papers print for these methods on these data, in tables of their own; rows of
            :func:`~mmsa_lib.experiments.published.read_published` show all that fit among them.
        failed: runs that failed (:func:`~mmsa_lib.experiments.results.failures`), counted beside the finished ones; of
            a folder they are known.
        runs: the folder of the runs behind a table or frame.
        resamples: of the bootstrap.
        by: swept parameters that get a column each; an empty list: all in which the rows differ. By default they stand
            in brackets behind the method.

    Raises:
        DataError: nothing fits, several data sets fit, or a seed occurs twice (runs of different code are mixed).
        UnknownNameError: no such metric, protocol, level, data set or fold; names the nearest.
    """
    if intervals not in INTERVALS:
        raise unknown_name("intervals", intervals, INTERVALS)
    opened = _open(source, runs)
    chosen = _choose(opened.frame, split, protocol, level, dataset, fold)
    known = [key for key in dict.fromkeys(chosen["metric"]) if key]
    keys = list(metrics) if metrics else shown_first(known)
    for key in keys:
        if key not in known:
            raise unknown_name("metric", key, known)
    chosen = chosen[chosen["metric"].isin(keys)]
    failed = opened.failed if failed is None else failed
    if methods is not None:
        check_names(pd.concat([chosen[["method"]], failed[["method"]]]), method=list(methods))
        chosen = chosen[chosen["method"].isin(methods) | _constant(chosen)]
        failed = failed[failed["method"].isin(methods)]
    data = {name: next(value for value in chosen[name] if value != UNKNOWN) for name in ("dataset", "fold")}
    if intervals == "items" and not is_summary(chosen):
        whole = summarise(chosen, runs=opened.folder, items=True, resamples=resamples)
        asked = True if methods is None else whole["method"].isin(methods) | whole["constant"]
        chosen = whole[_of_data(whole, **data) & asked]
    columns = [metric(key) for key in keys]
    title = f"{data['dataset']}, fold {data['fold']}, {split} samples{cell_words(protocol, level)}"
    failed = failed[_of_data(failed, **data)]
    if is_summary(chosen):
        table = summary_table(chosen.reset_index(drop=True), columns, title, intervals=intervals, by=by)
    else:
        table = seed_table(chosen, columns, title, failed=failed, by=by)
    if published is False:
        return table
    rows = read_published() if published is True else published
    own = None if published is not True else set(chosen["method"])
    found = published_tables(rows, data["dataset"], published_setting(protocol, level), own)
    none = () if found else (f"no paper prints numbers of these methods on {data['dataset']} in this setting",)
    return replace(table, published=found, notes=(*table.notes, *none))


def seed_table(
    rows: pd.DataFrame,
    columns: Sequence[Metric],
    data: str,
    *,
    short: bool = False,
    failed: pd.DataFrame | None = None,
    by: Sequence[str] | None = None,
) -> ResultsTable:
    """A table over seeds of any numbers that are described as metrics are.

    Args:
        rows: tidy ``run_id, method, variant, seed, metric, value``; constants have no ``run_id``. ``metric`` holds the
            key of a column.
        columns: what stands in the columns, from left to right.
        data: first words of the title: what data and which samples.
        short: print ``mean ± half of the 95 % interval``, for tables of many columns.
        failed: ``method, variant`` of runs that failed, one row each; counted beside the finished ones.
        by: as in :func:`results_table`.

    Raises:
        DataError: a seed occurs twice (runs of different code are mixed).
    """
    check_seeds(rows)
    summary = summarise_seeds(rows, by=["method", "variant", "metric"], value="value")
    summary["constant"] = summary["method"].isin(rows.loc[rows["run_id"] == "", "method"])
    lost = {} if failed is None else failed.value_counts(["method", "variant"]).to_dict()
    summary["failed"] = [lost.get(key, 0) for key in zip(summary["method"], summary["variant"], strict=True)]
    done = set(zip(summary["method"], summary["variant"], strict=True))
    never = [
        {"method": method, "variant": variant, "metric": m.key, "n": 0, "undefined": 0, "constant": False,
         "failed": count}
        for (method, variant), count in sorted(lost.items()) if (method, variant) not in done for m in columns
    ]  # fmt: skip
    if never:
        summary = pd.concat([summary, pd.DataFrame(never)], ignore_index=True)
    return summary_table(summary, columns, data, short=short, by=by)


def summary_table(
    summary: pd.DataFrame,
    columns: Sequence[Metric],
    data: str,
    *,
    short: bool = False,
    intervals: str = "seeds",
    by: Sequence[str] | None = None,
) -> ResultsTable:
    """A table of numbers that are summarised already.

    Args:
        summary: per method, variant and metric ``n, undefined, failed, mean, sd``, bounds, and ``constant``.
        columns, data, short: as in :func:`seed_table`.
        intervals: ``"seeds"`` or ``"items"``.
        by: as in :func:`results_table`.

    Raises:
        DataError: there are no intervals over test items. UnknownNameError: no row has a parameter of ``by``.
    """
    low, high, words = INTERVALS[intervals]
    notes = _item_notes(summary) if intervals == "items" else ()
    bounds = summary.rename(columns={"low": "_low", "high": "_high"}).rename(columns={low: "low", high: "high"})
    numbers = (bounds if intervals == "items" else summary).set_index(["constant", "method", "variant"])
    groups = sorted(set(numbers.index))
    own = [variant for constant, name, variant in groups if not constant and name != UNKNOWN]
    keys = [] if by is None else swept_parameters(own, by)
    shared = [part for part in shared_changes(own) if part.partition("=")[0] not in keys]
    groups.sort(key=lambda group: (*group[:2], [_place(values_of(group[2]).get(key)) for key in keys], group[2]))
    cell = short_text if short else cell_text
    lines, means = [], []
    for constant, method, variant in groups:
        by_metric = numbers.loc[[(constant, method, variant)]].set_index("metric")
        shown = [by_metric.loc[m.key] if m.key in by_metric.index else None for m in columns]
        means.append([math.nan if constant or s is None else float(s["mean"]) for s in shown])
        cells = tuple(cell(m, s) for m, s in zip(columns, shown, strict=True))
        lost = by_metric["failed"].max()
        seeds = "" if constant else f"{by_metric['n'].max()}{f', {lost} failed' if lost else ''}"
        label = [part for part in own_changes(variant, shared) if part.partition("=")[0] not in keys]
        parameters = tuple("" if constant else values_of(variant).get(key, DEFAULT) for key in keys)
        lines.append(Row(row_label(method, label), seeds, cells, constant, parameters))
    marked = [ranks([line[i] for line in means], m.higher_is_better) for i, m in enumerate(columns)]
    best, second = (tuple(side) for side in zip(*marked, strict=True))
    coverage = f"{100 * summary['coverage'].iloc[0]:g}" if "coverage" in summary else "95"
    form = f"mean ± half of the {coverage} % {words}" if short else f"mean ± sd [{coverage} % {words}]"
    title = f"{data}{', with ' + ', '.join(shared) if shared else ''}: {form}"
    frame = with_parameters(summary, keys)
    return ResultsTable(frame, title, tuple(columns), tuple(lines), best, second, notes, by=tuple(keys))


def _place(value: str | None) -> tuple[int, float, str]:
    """Where a parameter's value stands in a table: the default first, then numbers by size, then texts."""
    if value is None:
        return (0, 0.0, "")
    try:
        return (1, float(value), "")
    except ValueError:
        return (2, 0.0, value)


def _open(source: Path | str | pd.DataFrame, runs: Path | str | None) -> Source:
    """Rows of single runs, or a summary with the failures that it counts."""
    if not isinstance(source, pd.DataFrame) and Path(source).is_file():
        with suppress(DataError):
            source = read_summary(source)
    if isinstance(source, pd.DataFrame) and is_summary(source):
        return Source(source, None, pd.DataFrame(columns=["method", "variant", "dataset", "fold"]))
    return open_source(source, runs)


def _item_notes(summary: pd.DataFrame) -> tuple[str, ...]:
    if "groups" not in summary or summary["groups"].isna().all():
        raise DataError("there are no intervals over test items; make the summary from the folder of the runs")
    counts = " or ".join(str(count) for count in sorted(summary["groups"].dropna().unique()))
    return (f"test items are resampled in {counts} groups (videos, speakers, or single items)",)


def _constant(frame: pd.DataFrame) -> pd.Series:
    return frame["constant"] if is_summary(frame) else frame["run_id"] == ""


def _of_data(frame: pd.DataFrame, dataset: str, fold: str) -> pd.Series:
    """Rows of one data set and fold; what is unknown may belong to it."""
    return frame["dataset"].isin([dataset, UNKNOWN]) & frame["fold"].isin([fold, UNKNOWN])


def _choose(frame, split, protocol, level, dataset, fold) -> pd.DataFrame:
    frame = frame.assign(level=frame["level"].map(level_name))
    level = level_name(level)
    asked = {"dataset": dataset, "fold": fold}
    check_names(frame, **{name: value for name, value in {**asked, "protocol": protocol}.items() if value is not None})
    check_names(frame[frame["protocol"] == protocol], level=level)
    cell = (frame["protocol"] == protocol) & (frame["level"] == level)
    keep = (frame["split"] == split) & (cell | _constant(frame))
    for column, wanted in asked.items():
        if wanted is not None:
            keep &= frame[column].isin([wanted, UNKNOWN])
    chosen = frame[keep]
    if _constant(chosen).all():
        raise DataError(f"no run has {split} results for protocol {protocol}, level {level} on the data asked for")
    for column in ("dataset", "fold"):
        found = sorted(set(chosen[column]) - {UNKNOWN})
        if len(found) > 1:
            raise DataError(
                f"results of several {column}s ({', '.join(found)}); choose one with --{column} ({column}= in Python)"
            )
    return chosen
