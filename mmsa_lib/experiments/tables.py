"""Tables of results for readers: means with their intervals, comparisons with their verdicts, what papers print."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from mmsa_lib.errors import DataError, UnknownNameError, unknown_name
from mmsa_lib.evaluation.bootstrap import RESAMPLES
from mmsa_lib.evaluation.levels import COMPLETE, LEVEL_SEPARATOR
from mmsa_lib.evaluation.metrics import Metric, metric, shown_first
from mmsa_lib.evaluation.statistics import BETTER, NO_DIFFERENCE, WORSE
from mmsa_lib.experiments.rendering import Block, Line, Mark, Table
from mmsa_lib.experiments.results import (
    CONFIGURATION,
    DEFAULT,
    UNKNOWN,
    check_names,
    in_words,
    is_constant,
    named,
    parameters,
    shared_values,
    swept,
)
from mmsa_lib.experiments.summaries import (
    CELL,
    COMPARISON_COLUMNS,
    DATA,
    EXERCISED,
    NAMES,
    NOT_EXERCISED,
    REFERENCE,
    Source,
    is_summary,
    open_source,
    read_summary,
    summarise,
)
from mmsa_lib.files import level_name
from mmsa_lib.paths import tables_folder

INTERVALS = {
    "seeds": ("low", "high", "interval"),
    "items": ("item_low", "item_high", "interval over seeds and test items"),
}
"""Kind of interval to its bounds and to what the title calls it."""

SEED_COLUMNS = [*NAMES, "metric", "n", "undefined", "mean", "sd", "low", "high", "constant", "failed"]
ABSENT = "–"


def results_table(
    source: Path | str | pd.DataFrame,
    metrics: Sequence[str] | None = None,
    *,
    split: str = "test",
    protocol: str = COMPLETE,
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
    across_code: bool = False,
) -> Table:
    """Mean, standard deviation and 95 % interval for each method and configuration, constants below.

    The best mean of the methods in each column is bold (``*`` in text) and, of three or more, the second best is
    underlined (``_``). These are only the largest numbers: whether they differ is what the intervals are for.

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
            :func:`read_published` show all that fit among them.
        failed: runs that failed (:func:`~mmsa_lib.experiments.results.failures`), counted beside the finished ones; of
            a folder they are known.
        runs: the folder of the runs behind a table or frame.
        resamples: of the bootstrap.
        by: swept parameters that get a column each; an empty list: all in which the rows differ. By default they stand
            in brackets behind the method.
        across_code: also show runs of different code side by side.

    Raises:
        DataError: nothing fits, several data sets fit, a seed occurs twice, or runs come from different code.
        UnknownNameError: no such metric, protocol, level, data set or fold; names the nearest.
    """
    if intervals not in INTERVALS:
        raise unknown_name("intervals", intervals, INTERVALS)
    opened = _open(source, runs)
    chosen = _cell(opened.frame, split, protocol, level, dataset, fold)
    known = [key for key in dict.fromkeys(chosen["metric"]) if key]
    keys = list(metrics) if metrics else shown_first(known)
    for key in keys:
        if key not in known:
            raise unknown_name("metric", key, known)
    chosen = chosen[chosen["metric"].isin(keys)]
    failed = opened.failed if failed is None else failed
    if methods is not None:
        check_names(pd.concat([chosen[["method"]], failed[["method"]]]), method=list(methods))
        chosen = chosen[chosen["method"].isin(methods) | is_constant(chosen)]
        failed = failed[failed["method"].isin(methods)]
    data = {name: next(value for value in chosen[name] if value != UNKNOWN) for name in DATA}
    for name in DATA:  # what is unknown may belong to it
        failed = failed[failed[name].isin([data[name], UNKNOWN])]
    items = intervals == "items"
    if not is_summary(chosen):
        found = Source(chosen, opened.folder, failed)
        chosen = summarise(found, items=items, resamples=resamples, across_code=across_code)
        chosen = chosen if items else chosen[SEED_COLUMNS]
    title = f"{data['dataset']}, fold {data['fold']}, {split} samples{_cell_words(protocol, level)}"
    table = seed_table(chosen, [metric(key) for key in keys], title, intervals=intervals, by=by)
    if published is False:
        return table
    rows = read_published() if published is True else published
    own = None if published is not True else set(chosen["method"])
    found = published_tables(rows, data["dataset"], published_setting(protocol, level), own)
    none = () if found else (f"no paper prints numbers of these methods on {data['dataset']} in this setting",)
    first = replace(table.blocks[0], notes=(*table.notes, *none))
    return replace(table, blocks=(first, *(block for one in found for block in one.blocks)))


def seed_table(
    rows: pd.DataFrame,
    columns: Sequence[Metric],
    title: str,
    *,
    short: bool = False,
    failed: pd.DataFrame | None = None,
    intervals: str = "seeds",
    by: Sequence[str] | None = None,
) -> Table:
    """A table over seeds of any numbers that are described as metrics are.

    Args:
        rows: tidy, with the columns of results, or of :func:`~mmsa_lib.experiments.summaries.summarise`; ``metric``
            holds the key of a column of the table.
        columns: what stands in the columns, from left to right.
        title: its first words: what data and which samples.
        short: print ``mean ± half of the 95 % interval``, for tables of many columns.
        failed: runs that failed, counted beside the finished ones; a summary has its own.
        intervals: ``"seeds"`` or, of a summary that has them, ``"items"``.
        by: as in :func:`results_table`.

    Raises:
        DataError: a seed occurs twice (runs of different code are mixed), or there are no intervals over test items.
        UnknownNameError: no row has a parameter of ``by``.
    """
    summary = rows
    if not is_summary(rows):
        found = open_source(rows)
        found = found if failed is None else replace(found, failed=failed)
        summary = summarise(found, items=False)[SEED_COLUMNS]
    low, high, words = INTERVALS[intervals]
    notes = ()
    if intervals == "items":
        if "groups" not in summary or summary["groups"].isna().all():
            raise DataError("there are no intervals over test items; make the summary from the folder of the runs")
        counts = " or ".join(str(count) for count in sorted(summary["groups"].dropna().unique()))
        notes = (f"test items are resampled in {counts} groups (videos, speakers, or single items)",)
    keys = [] if by is None else swept(summary, by)
    shared = {key: value for key, value in shared_values(summary).items() if key not in keys}
    frame = parameters(summary, keys)
    numbers = named(frame, leave_out=keys).assign(low=summary[low], high=summary[high])
    lines, means = [], []
    groups = list(numbers.groupby(["constant", *CONFIGURATION], sort=False))
    for (constant, method, *_), own in sorted(groups, key=lambda group: _place(group[1].iloc[0], keys)):
        by_metric, first = own.set_index("metric"), own.iloc[0]
        shown = [by_metric.loc[m.key] if m.key in by_metric.index else None for m in columns]
        means.append([math.nan if constant or s is None else float(s["mean"]) for s in shown])
        lost = own["failed"].max()
        seeds = "" if constant else f"{own['n'].max()}{f', {lost} failed' if lost else ''}"
        values = ["" if constant else first[key] or DEFAULT for key in keys]
        cells = [cell_text(m, s, short) for m, s in zip(columns, shown, strict=True)]
        lines.append(Line((_label(method, first["name"]), *values, seeds, *cells), grey=constant))
    ranked = [_ranks([line[i] for line in means], m.higher_is_better) for i, m in enumerate(columns)]
    plain = [Mark.NONE] * (2 + len(keys))
    lines = [replace(line, marks=(*plain, *(own[i] for own in ranked))) for i, line in enumerate(lines)]
    names = [f"{m.label}{' %' if m.percent else ''} {'↑' if m.higher_is_better else '↓'}" for m in columns]
    coverage = f"{100 * summary['coverage'].iloc[0]:g}" if "coverage" in summary else "95"
    form = f"mean ± half of the {coverage} % {words}" if short else f"mean ± sd [{coverage} % {words}]"
    whole = f"{title}{', with ' + in_words(shared, ', ') if shared else ''}: {form}"
    defined = summary.groupby("metric")["mean"].count()
    undefined = tuple(m.label for m in columns if m.percent and defined.get(m.key, 1) == 0)
    return Table((Block(whole, ("method", *keys, "n", *names), tuple(lines), notes),), frame, undefined)


def comparison_table(frame: pd.DataFrame) -> Table:
    """Comparisons for readers: a block per metric and cell, with a verdict per line and what must be known below.

    Args:
        frame: of :func:`~mmsa_lib.experiments.summaries.compare` or
            :func:`~mmsa_lib.experiments.summaries.read_comparison`.

    Raises:
        DataError: the frame is something else.
    """
    missing = [name for name in COMPARISON_COLUMNS if name not in frame]
    if missing or frame.empty:
        raise DataError(f"this is no comparison: {f'column {missing[0]!r} is missing' if missing else 'it has no row'}")
    parts = frame.groupby([*DATA, *CELL, "metric"], sort=False)
    return Table(tuple(_compared(part.reset_index(drop=True)) for _, part in parts), frame)


def printed_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Numbers of a paper, to be shown apart from ours; ``title`` says where they are printed."""
    block = Block(title, tuple(header), tuple(Line(tuple(row)) for row in rows), printed=True)
    return Table((block,), pd.DataFrame([list(row) for row in rows], columns=list(header)))


# --- Cells and lines ------------------------------------------------------------------------------------------------


def cell_text(described: Metric, numbers: pd.Series | None, short: bool = False) -> str:
    """``mean ± sd [low, high]`` as far as they are defined, or ``mean ± half`` of the interval; a dash without a mean.

    Where the metric is undefined in some runs (the correlation of a constant), the number of the others is added.
    """
    if numbers is None or math.isnan(numbers["mean"]):
        return ABSENT
    factor, digits = (100, 1 if short else 2) if described.percent else (1, 3)
    mean, low, high = (factor * numbers[key] for key in ("mean", "low", "high"))
    spread = high - mean if short else factor * numbers["sd"]
    text = f"{mean:.{digits}f}{'' if math.isnan(spread) else f' ± {spread:.{digits}f}'}"
    text += "" if short or math.isnan(low) else f" [{low:.{digits}f}, {high:.{digits}f}]"
    undefined = numbers["undefined"]
    return f"{text} (n={int(numbers['n'])})" if pd.notna(undefined) and undefined else text


def _ranks(means: list[float], higher: bool) -> list[Mark]:
    """The best mean and the next one marked; no best of a single row, no second of two."""
    defined = [value for value in means if not math.isnan(value)]
    best, second, *_ = [*sorted(set(defined), reverse=higher), math.nan, math.nan]
    marks = {second: Mark.SECOND if len(defined) > 2 else Mark.NONE, best: Mark.BEST if len(defined) > 1 else Mark.NONE}
    return [marks.get(value, Mark.NONE) for value in means]


def _label(method: str, name: str) -> str:
    """The name of a row: the method, with the name of its configuration in brackets."""
    return f"{method} ({name})" if name else method


def _place(row: pd.Series, keys: Sequence[str]) -> tuple:
    """Where a row stands: constants last, methods by name, then by the values of ``keys``."""

    def place(value: str) -> tuple[int, float, str]:
        """The default first, then numbers by size, then texts."""
        with suppress(ValueError):
            return (1, float(value), "") if value else (0, 0.0, "")
        return (2, 0.0, value)

    return (row["constant"], row["method"], [place(row[key]) for key in keys], row["name"])


def _cell_words(protocol: str, level: float | str) -> str:
    """A protocol cell in a title; nothing is said of complete input."""
    return "" if protocol == COMPLETE else f", protocol {protocol} at {level_name(level)}"


def _compared(part: pd.DataFrame) -> Block:
    """The comparisons of one metric in one cell."""
    first, described = part.iloc[0], metric(part["metric"].iloc[0])
    base = part[REFERENCE].set_axis(NAMES, axis=1).assign(run_id=part["reference_runs"])
    both = pd.concat([part[NAMES].assign(run_id=part["runs"]), base], ignore_index=True)
    shared, names = in_words(shared_values(both), ", "), list(named(both)["name"])
    own, against = names[: len(part)], names[len(part) :]
    references = dict.fromkeys(zip(part["reference_method"], against, strict=True))
    one, items = len(references) == 1, part["item_low"].notna().any()
    coverage, unit = f"{100 * (1 - first['alpha']):g} %", " %" if described.percent else ""
    header = [
        "method", *([] if one else ["against"]), "n", f"mean{unit}", f"reference{unit}",
        f"difference{unit} [{coverage} over seeds]", *([f"[{coverage} over seeds and items]"] if items else []), "p",
        "p (Holm)", "Wilcoxon p", "verdict",
    ]  # fmt: skip
    lines = []
    for row, name, other in zip(part.to_dict("records"), own, against, strict=True):
        over_seeds, over_items = (_interval(row[f"{kind}low"], row[f"{kind}high"], described) for kind in ("", "item_"))
        cells = [
            _label(row["method"], name), *([] if one else [other or DEFAULT]), str(row["n"]),
            _number(row["mean"], described), _number(row["reference"], described),
            " ".join(filter(None, [_number(row["difference"], described, "+"), over_seeds])),
            *([over_items or ABSENT] if items else []),
            *(_probability(row[key]) for key in ("p", "p_holm", "wilcoxon")), row["verdict"],
        ]  # fmt: skip
        lines.append(Line(tuple(cells)))
    arrow, who = (
        "↑" if described.higher_is_better else "↓",
        f" against {_label(*next(iter(references)))}" if one else "",
    )
    cell = f"{first['split']} samples{_cell_words(first['protocol'], first['level'])}{', with ' * bool(shared)}{shared}"
    title = f"{first['dataset']}, fold {first['fold']}, {cell}: {described.label} {arrow}{who}"
    return Block(title, tuple(header), tuple(lines), tuple(_comparison_notes(part, [line.cells[0] for line in lines])))


def _comparison_notes(part: pd.DataFrame, labels: list[str]) -> list[str]:
    """Each note once, with the lines that it belongs to unless it belongs to all; then what the verdict means."""
    found: dict[str, list[str]] = {}
    for label, text in zip(labels, part["note"], strict=True):
        for note in filter(None, text.split("; ")):
            found.setdefault(note, []).append(label)
    notes = [note if len(who) == len(labels) else f"{', '.join(who)}: {note}" for note, who in found.items()]
    level = f"{part['alpha'].iloc[0]:g}"
    items = " and the interval over items leaves out 0" if part["item_low"].notna().any() else ""
    idle = f", or {NOT_EXERCISED}: the terms left out pulled less than {100 * EXERCISED:g} % as hard as the task's"
    idle = idle if (part["verdict"] == NOT_EXERCISED).any() else ""
    return [*notes, f"{BETTER} or {WORSE}: p (Holm) is below {level}{items}; else {NO_DIFFERENCE}{idle}"]


def _number(value: float, described: Metric, sign: str = "") -> str:
    if pd.isna(value):
        return ABSENT
    return f"{100 * value:{sign}.2f}" if described.percent else f"{value:{sign}.3f}"


def _interval(low: float, high: float, described: Metric) -> str:
    return "" if pd.isna(low) or pd.isna(high) else f"[{_number(low, described, '+')}, {_number(high, described, '+')}]"


def _probability(p: float) -> str:
    return ABSENT if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


# --- Which rows are shown -------------------------------------------------------------------------------------------


def _open(source: Path | str | pd.DataFrame, runs: Path | str | None) -> Source:
    """Rows of single runs, or a summary with the failures that it counts."""
    if not isinstance(source, pd.DataFrame) and Path(source).is_file():
        with suppress(DataError):
            source = read_summary(source)
    if isinstance(source, pd.DataFrame) and is_summary(source):
        return Source(source, None, pd.DataFrame(columns=[*NAMES, *DATA]))
    return open_source(source, runs)


def _cell(frame, split, protocol, level, dataset, fold) -> pd.DataFrame:
    """The rows of one cell and one data set, and the constants."""
    frame = frame.assign(level=frame["level"].map(level_name))
    level = level_name(level)
    asked = {"dataset": dataset, "fold": fold}
    check_names(frame, **{name: value for name, value in {**asked, "protocol": protocol}.items() if value is not None})
    check_names(frame[frame["protocol"] == protocol], level=level)
    cell = (frame["protocol"] == protocol) & (frame["level"] == level)
    keep = (frame["split"] == split) & (cell | is_constant(frame))
    for column, wanted in asked.items():
        if wanted is not None:
            keep &= frame[column].isin([wanted, UNKNOWN])
    chosen = frame[keep]
    if is_constant(chosen).all():
        raise DataError(f"no run has {split} results for protocol {protocol}, level {level} on the data asked for")
    for column in DATA:
        found = sorted(set(chosen[column]) - {UNKNOWN})
        if len(found) > 1:
            raise DataError(
                f"results of several {column}s ({', '.join(found)}); choose one with --{column} ({column}= in Python)"
            )
    return chosen


# --- What papers print, apart from ours: small, slanted and grey, without a best value ------------------------------

PUBLISHED_COLUMNS = ("method", "paper", "dataset", "setting", "metric", "value", "features", "quoted_from", "note")

NOT_ACCESSIBLE = "not accessible to us"
UNQUOTED = {
    "collaborative_mmcl": f"{NOT_ACCESSIBLE}; withdrawn by its authors",
    "contrastive_mmcl": NOT_ACCESSIBLE,
    "modal_alignment": NOT_ACCESSIBLE,
}
"""Methods whose published numbers could not be verified: none is printed."""

LETTERS = {"text": "l", "audio": "a", "vision": "v"}


def read_published(path: Path | str | None = None) -> pd.DataFrame:
    """The published numbers with their sources; by default ``data/published/published_results.csv`` of the checkout.

    Raises:
        DataError: there is no such file, or it is something else.
        ConfigError: no table is given, and the library is not in a checkout.
    """
    path = path or tables_folder("published") / "published_results.csv"
    try:
        frame = pd.read_csv(path, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read as a table ({' '.join(str(error).split())})") from error
    missing = [name for name in PUBLISHED_COLUMNS if name not in frame]
    if missing:
        raise DataError(f"{path} holds no published numbers: column {missing[0]!r} is missing")
    return frame


def published_setting(protocol: str, level: float | str) -> str | None:
    """How published tables call a protocol cell; ``None`` where no table has it."""
    if protocol == COMPLETE:
        return COMPLETE
    parts = level_name(level).split(LEVEL_SEPARATOR)
    if protocol != "subsets" or not set(parts) <= set(LETTERS):
        return None
    return COMPLETE if len(parts) == len(LETTERS) else f"subset={{{','.join(LETTERS[part] for part in parts)}}}"


def published_tables(
    published: pd.DataFrame, dataset: str, setting: str | None, methods: Collection[str] | None = None
) -> tuple[Table, ...]:
    """What papers print for one data set and setting: one table per source and feature set, and one of what is missing.

    Args:
        published: rows of :func:`read_published`, or some of them.
        dataset: id of the data set.
        setting: as :func:`published_setting` spells it.
        methods: only these; by default all that are there.

    Returns:
        Tables with the columns method, paper and the source's own metrics. Of the methods whose numbers nobody may
        quote, those among ``methods`` are listed last, with the reason in place of numbers.
    """
    chosen = published[(published["dataset"] == dataset) & (published["setting"] == setting)]
    chosen = chosen[~chosen["method"].isin(UNQUOTED)]
    if methods is not None:
        chosen = chosen[chosen["method"].isin(methods)]
    found = [_of_source(*key, part) for key, part in chosen.groupby(["quoted_from", "features"], sort=True)]
    unquoted = [(name, reason) for name, reason in UNQUOTED.items() if methods is None or name in methods]
    if unquoted:
        found.append(printed_table("Published numbers that are not shown", ("method", "remark"), unquoted))
    return tuple(found)


def _of_source(source: str, features: str, part: pd.DataFrame) -> Table:
    headings, metrics = {}, list(dict.fromkeys(part["metric"]))
    for key in metrics:
        headings[key] = key
        with suppress(UnknownNameError):
            headings[key] = f"{metric(key).label}{' %' if metric(key).percent else ''}"
    # A source may have several values for one method: repeated, or for two feature sets.
    texts = [
        f"{value:.4f}".removesuffix("0") if key in ("mae", "corr") else f"{value:.2f}"
        for key, value in zip(part["metric"], part["value"], strict=True)
    ]
    rows = [
        (*who, *(" / ".join(own.loc[own["metric"] == key, "text"]) or ABSENT for key in metrics))
        for who, own in part.assign(text=texts).groupby(["method", "paper"], sort=False)
    ]
    notes = [note for note in dict.fromkeys(part["note"]) if isinstance(note, str) and note]
    title = f"Published: {source}, {part['dataset'].iloc[0]}, {part['setting'].iloc[0]}. Features: {features}. "
    title += f"{'. '.join(note[0].upper() + note[1:] for note in notes)}. " if notes else ""
    title += "Other features and other runs than ours: never compared."
    return printed_table(title, ("method", "paper", *headings.values()), rows)
