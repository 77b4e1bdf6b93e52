"""Order, display names and colours of methods, data sets and configurations: what tables and figures call them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from zlib import crc32

import pandas as pd

from mmsa_lib.figures import palette

COLORS = {
    "text_only": palette.BLUE,
    "early_fusion": palette.SKY,
    "late_fusion": palette.ORANGE,
    "mult": palette.OLIVE,
    "misa": palette.INDIGO,
    "self_mm": palette.GREEN,
    "modal_alignment": palette.VERMILLION,
    "contrastive_mmcl": palette.PURPLE,
    "collaborative_mmcl": palette.WINE,
    "hrlf": palette.BLACK,
}
METHODS = tuple(COLORS)
"""Baselines first, then the methods of the papers."""

FREE = ("#44AA99", "#AA4499", "#CC6677", "#117733")
"""Colours of methods of somebody else, of Paul Tol's muted palette."""

TIMED = "_timed"
"""What the key of a data set of :data:`DATA` ends with where the timing of words is its sound."""

CALLED = {
    "text_only": "text only", "early_fusion": "early fusion", "late_fusion": "late fusion", "mult": "MulT",
    "misa": "MISA", "self_mm": "Self-MM", "modal_alignment": "modal alignment", "contrastive_mmcl": "contrastive MMCL",
    "collaborative_mmcl": "collaborative MMCL", "hrlf": "HRLF",
}  # fmt: skip
"""Method to what figures call it."""

DATA = {
    "synthetic": "synthetic",
    "synthetic_redundant": "synthetic, redundant",
    "synthetic_private": "synthetic, private",
    "synthetic_synergy": "synthetic, synergy",
    "synthetic_emotions": "synthetic emotions",
    "mosi": "CMU-MOSI",
    "mosi_timed": "CMU-MOSI, word timing",
    "mmmo": "ICT-MMMO",
}
"""Data set, with its inputs and tasks told apart, to what it is called."""

CHOSEN, PRINTED = "chosen_weights", "printed_weights"
"""Labels of ``hrlf``: weights chosen on validation data (notebook 05), and those of the paper."""

TUNED = "tuned"
"""Label of the values that `python -m companion tune` chose; lines of figures leave it out."""

METRICS = {"mae": ("mean absolute error ↓", 1.0), "corr": ("correlation ↑", 1.0)}
"""Metric to its axis label and to the factor that its axis needs."""


def color(method: str) -> str:
    """The colour of a method; one of somebody else's has always the same one of :data:`FREE`."""
    return COLORS.get(method) or FREE[crc32(method.encode()) % len(FREE)]


def readable(label: str) -> str:
    """A label as words: ``no_hal`` is ``no hal``."""
    return {"no_teacher": "no teacher, no frf", "no_teacher_frf": "no teacher, with frf"}.get(
        label, label.replace("_", " ")
    )


def called(line: str) -> str:
    """A line of :func:`line`, or words that start with a method, as figures show them: ``early fusion, length=3``."""
    method = next((name for name in METHODS if line == name or line.startswith((f"{name},", f"{name}\n"))), "")
    return CALLED.get(method, "") + line.removeprefix(method)


def line(method: str, name: str = "") -> str:
    """What a line of a figure is called: a method, and its configuration where it has a name."""
    name = name.removeprefix(TUNED).removeprefix(", ")
    return f"{method}, {readable(name) if method == 'hrlf' else name}" if name else method


def data_of(rows: pd.DataFrame) -> pd.Series:
    """Key of :data:`DATA` for each row."""
    options = rows["data_options"].map(json.loads)
    timed = options.map(lambda own: TIMED if own.get("audio") == "timing" else "")
    return rows["dataset"] + timed + options.map(lambda own: "_emotions" if own.get("task") == "emotions" else "")


def in_order(rows: pd.DataFrame, *by: str, **orders: Iterable[str]) -> pd.DataFrame:
    """``rows`` sorted by the columns ``by`` and numbered anew.

    Methods and data sets (by key or by display name) come in our order, columns of ``orders`` in that of the values
    given; what is not among them comes last.
    """
    ours = [*METHODS, *DATA, *(name for key, name in DATA.items() if name != key)]

    def place(column: pd.Series) -> pd.Series:
        order = ours if column.name in ("method", "data", "dataset") else orders.get(str(column.name))
        if order is None:
            return column
        return column.map({value: position for position, value in enumerate(order)}).fillna(len(ours) + len(column))

    return rows.sort_values(list(by), key=place, kind="stable", ignore_index=True)
