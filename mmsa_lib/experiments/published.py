"""Numbers that papers print, apart from ours: tables of their own, small, slanted and grey, without a best value."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmsa_lib.errors import DataError, UnknownNameError
from mmsa_lib.evaluation.metrics import metric
from mmsa_lib.evaluation.protocols import COMPLETE, LEVEL_SEPARATOR
from mmsa_lib.experiments.rendering import Block, Line, Printable
from mmsa_lib.files import level_name
from mmsa_lib.paths import tables_folder

COLUMNS = ("method", "paper", "dataset", "setting", "metric", "value", "features", "quoted_from", "note")

NOT_ACCESSIBLE = "not accessible to us"
UNQUOTED = {
    "collaborative_mmcl": f"{NOT_ACCESSIBLE}; withdrawn by its authors",
    "contrastive_mmcl": NOT_ACCESSIBLE,
    "modal_alignment": NOT_ACCESSIBLE,
}
"""Methods whose published numbers could not be verified (README of the specification, section 3): none is printed."""

LETTERS = {"text": "l", "audio": "a", "vision": "v"}


@dataclass(frozen=True, repr=False)
class PrintedTable(Printable):
    """Numbers of a paper, to be shown apart from ours.

    Attributes:
        title: where they are printed, and why they are never compared.
        header: column names.
        rows: the lines, as text.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def blocks(self) -> tuple[Block, ...]:
        return (Block(self.title, self.header, tuple(Line(row) for row in self.rows), printed=True),)

    def to_csv(self) -> str:
        """Header and lines, as printed."""
        return pd.DataFrame(self.rows, columns=list(self.header)).to_csv(index=False, lineterminator="\n")


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
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise DataError(f"{path} holds no published numbers: column {missing[0]!r} is missing")
    return frame


def published_setting(protocol: str, level: float | str) -> str | None:
    """How published tables call a protocol cell; ``None`` where no table has it."""
    if protocol == COMPLETE:
        return "complete"
    if protocol != "subsets":
        return None
    parts = level_name(level).split(LEVEL_SEPARATOR)
    if not set(parts) <= set(LETTERS):
        return None
    return "complete" if len(parts) == len(LETTERS) else f"subset={{{','.join(LETTERS[part] for part in parts)}}}"


def published_tables(
    published: pd.DataFrame, dataset: str, setting: str | None, methods: Collection[str] | None = None
) -> tuple[PrintedTable, ...]:
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
    found = [_source_table(*key, part) for key, part in chosen.groupby(["quoted_from", "features"], sort=True)]
    unquoted = [name for name in UNQUOTED if methods is None or name in methods]
    if unquoted:
        rows = tuple((name, UNQUOTED[name]) for name in unquoted)
        found.append(PrintedTable("Published numbers that are not shown", ("method", "remark"), rows))
    return tuple(found)


def _source_table(source: str, features: str, part: pd.DataFrame) -> PrintedTable:
    metrics = list(dict.fromkeys(part["metric"]))
    rows = [
        (method, paper, *(" / ".join(_values(own, key)) or "–" for key in metrics))
        for (method, paper), own in part.groupby(["method", "paper"], sort=False)
    ]
    notes = [note for note in dict.fromkeys(part["note"]) if isinstance(note, str) and note]
    title = f"Published: {source}, {part['dataset'].iloc[0]}, {part['setting'].iloc[0]}. Features: {features}. "
    title += f"{'. '.join(note[0].upper() + note[1:] for note in notes)}. " if notes else ""
    return PrintedTable(
        title + "Other features and other runs than ours: never compared.",
        ("method", "paper", *(_heading(key) for key in metrics)),
        tuple(rows),
    )


def _values(rows: pd.DataFrame, key: str) -> Iterator[str]:
    """The printed values; a source may have several for one method (repeated, or for two feature sets)."""
    for value in rows.loc[rows["metric"] == key, "value"]:
        yield f"{value:.4f}".removesuffix("0") if key in ("mae", "corr") else f"{value:.2f}"


def _heading(key: str) -> str:
    try:
        described = metric(key)
    except UnknownNameError:
        return key
    return f"{described.label}{' %' if described.percent else ''}"
