"""Comparisons for readers: one table per metric and cell, with a verdict per line and what must be known below."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import Metric, metric
from mmsa_lib.experiments.comparisons import BETTER, COMPARISON_COLUMNS, NO_DIFFERENCE, NUMBERS, WORSE
from mmsa_lib.experiments.rendering import Block, Line, Printable
from mmsa_lib.experiments.results import DECIMALS
from mmsa_lib.experiments.table_cells import cell_words
from mmsa_lib.experiments.variants import DEFAULT, own_changes, row_label, shared_changes

ABSENT = "–"


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonTable(Printable):
    """What :func:`~mmsa_lib.experiments.comparisons.compare` found, ready to print.

    Attributes:
        frame: the numbers, with the columns of :data:`~mmsa_lib.experiments.comparisons.COMPARISON_COLUMNS`.
    """

    frame: pd.DataFrame

    def blocks(self) -> tuple[Block, ...]:
        keys = ["dataset", "fold", "protocol", "level", "split", "metric"]
        return tuple(_block(part) for _, part in self.frame.groupby(keys, sort=False))

    def to_csv(self) -> str:
        """The numbers, one row per comparison."""
        rounded = self.frame.assign(**{name: self.frame[name].round(DECIMALS) for name in NUMBERS})
        return rounded.to_csv(index=False, lineterminator="\n")


def comparison_table(frame: pd.DataFrame) -> ComparisonTable:
    """A comparison as a table that prints itself.

    Args:
        frame: of :func:`~mmsa_lib.experiments.comparisons.compare` or
            :func:`~mmsa_lib.experiments.comparisons.read_comparison`.

    Raises:
        DataError: the frame is something else.
    """
    missing = [name for name in COMPARISON_COLUMNS if name not in frame]
    if missing or frame.empty:
        raise DataError(f"this is no comparison: {f'column {missing[0]!r} is missing' if missing else 'it has no row'}")
    return ComparisonTable(frame)


def _block(part: pd.DataFrame) -> Block:
    """The comparisons of one metric in one cell."""
    first = part.iloc[0]
    described = metric(first["metric"])
    shared = shared_changes(sorted({*part["variant"], *_runs_only(part)}))
    references = list(dict.fromkeys(zip(part["reference_method"], part["reference_variant"], strict=True)))
    one, items = len(references) == 1, part["item_low"].notna().any()
    coverage = f"{100 * (1 - first['alpha']):g} %"
    unit = " %" if described.percent else ""
    header = [
        "method", *([] if one else ["against"]), "n", f"mean{unit}", f"reference{unit}",
        f"difference{unit} [{coverage} over seeds]", *([f"[{coverage} over seeds and items]"] if items else []), "p",
        "p (Holm)", "Wilcoxon p", "verdict",
    ]  # fmt: skip
    lines = []
    for row in part.to_dict("records"):
        against = ", ".join(own_changes(row["reference_variant"], shared)) or DEFAULT
        cells = [
            row_label(row["method"], own_changes(row["variant"], shared)), *([] if one else [against]), str(row["n"]),
            _number(row["mean"], described), _number(row["reference"], described),
            f"{_number(row['difference'], described, '+')}{_interval(row['low'], row['high'], described, ' ')}",
            *([_interval(row["item_low"], row["item_high"], described) or ABSENT] if items else []),
            _probability(row["p"]), _probability(row["p_holm"]), _probability(row["wilcoxon"]), row["verdict"],
        ]  # fmt: skip
        lines.append(Line(tuple(cells)))
    arrow = "↑" if described.higher_is_better else "↓"
    who = f" against {row_label(references[0][0], own_changes(references[0][1], shared))}" if one else ""
    common = f", with {', '.join(shared)}" if shared else ""
    cell = f"{first['split']} samples{cell_words(first['protocol'], first['level'])}{common}"
    title = f"{first['dataset']}, fold {first['fold']}, {cell}: {described.label} {arrow}{who}"
    return Block(title, tuple(header), tuple(lines), tuple(_notes(part, [line.cells[0] for line in lines])))


def _runs_only(part: pd.DataFrame) -> Iterable[str]:
    """Variants of references that are runs; a constant shares nothing."""
    return part.loc[part["reference_runs"] != "", "reference_variant"]


def _notes(part: pd.DataFrame, labels: list[str]) -> list[str]:
    """Each note once, with the lines that it belongs to unless it belongs to all; then what the verdict means."""
    found: dict[str, list[str]] = {}
    for label, text in zip(labels, part["note"], strict=True):
        for note in filter(None, text.split("; ")):
            found.setdefault(note, []).append(label)
    notes = [note if len(who) == len(labels) else f"{', '.join(who)}: {note}" for note, who in found.items()]
    level = f"{part['alpha'].iloc[0]:g}"
    items = " and the interval over items leaves out 0" if part["item_low"].notna().any() else ""
    return [*notes, f"{BETTER} or {WORSE}: p (Holm) is below {level}{items}; else {NO_DIFFERENCE}"]


def _number(value: float, described: Metric, sign: str = "") -> str:
    if pd.isna(value):
        return ABSENT
    return f"{100 * value:{sign}.2f}" if described.percent else f"{value:{sign}.3f}"


def _interval(low: float, high: float, described: Metric, before: str = "") -> str:
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"{before}[{_number(low, described, '+')}, {_number(high, described, '+')}]"


def _probability(p: float) -> str:
    if pd.isna(p):
        return ABSENT
    return "<0.001" if p < 0.001 else f"{p:.3f}"
