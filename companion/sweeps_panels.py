"""Figures of sweeps: results with two kinds of interval, paired differences, and how hyper-parameters matter."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from mmsa_lib.figures import palette

VERDICT_COLORS = {"better": palette.GREEN, "worse": palette.VERMILLION}
SEED_NOTE, ITEM_NOTE = "over seeds", "over seeds and test items"


def result_panels(summary: pd.DataFrame, floors: pd.DataFrame, label: str, factor: float = 1.0) -> Figure:
    """Means with their 95 % intervals, one panel per data set; a dashed line is the best constant.

    Args:
        summary: columns ``data`` (panel), ``name`` (line), ``method``, ``n``, ``mean``, ``low``, ``high`` (over seeds),
            ``item_low``, ``item_high`` (over seeds and test items; may be empty).
        floors: columns ``data``, ``value``.
        label: of the horizontal axes, with the direction of the metric.
        factor: multiplies the numbers (100 for per cent).
    """
    panels = list(dict.fromkeys(summary["data"]))
    figure, axes = _stacked(panels, [int((summary["data"] == panel).sum()) for panel in panels])
    for axis, panel in zip(axes, panels, strict=True):
        rows = summary[summary["data"] == panel]
        for place, row in enumerate(rows.itertuples()):
            color = palette.method_color(row.method)
            _intervals(axis, place, row, factor, color)
            axis.plot(factor * row.mean, place, "o", ms=5.5, color=color, zorder=3)
        floor = floors.loc[floors["data"] == panel, "value"]
        for value in floor:
            axis.axvline(factor * value, color=palette.GREY, ls="--", lw=1.2, zorder=1)
        _lines(axis, [f"{name}  (n={n})" for name, n in zip(rows["name"], rows["n"], strict=True)])
        axis.set(title=panel, xlabel=label)
    _legend(figure, constant=bool(len(floors)))
    return figure


def difference_panels(comparison: pd.DataFrame, label: str, columns: int = 1) -> Figure:
    """Paired differences with their intervals, one panel per value of ``panel``; coloured where one is shown.

    Args:
        comparison: columns ``panel``, ``name``, ``n``, ``difference``, ``low``, ``high``, ``item_low``, ``item_high``,
            ``verdict``; lower is better.
        label: what is subtracted from what.
        columns: how many panels stand side by side.
    """
    panels = list(dict.fromkeys(comparison["panel"]))
    counts = [int((comparison["panel"] == panel).sum()) for panel in panels]
    figure, axes = _stacked(panels, counts, columns)
    for axis, panel in zip(axes, panels, strict=True):
        rows = comparison[comparison["panel"] == panel]
        axis.axvline(0, color=palette.BLACK, lw=1)
        for place, row in enumerate(rows.itertuples()):
            color = VERDICT_COLORS.get(row.verdict, palette.GREY)
            _intervals(axis, place, row, 1.0, color)
            fill = color if row.verdict in VERDICT_COLORS else "white"
            axis.plot(row.difference, place, "o", ms=6, color=color, mfc=fill, zorder=3)
        _lines(axis, [f"{name}  (n={n})" for name, n in zip(rows["name"], rows["n"], strict=True)])
        axis.set(title=panel, xlabel=f"← better      {label}      worse →")
    marks = [
        Line2D([], [], marker="o", ls="", color=color, label=f"{word} (Holm)") for word, color in VERDICT_COLORS.items()
    ]
    marks.append(Line2D([], [], marker="o", ls="", color=palette.GREY, mfc="white", label="no difference shown"))
    _legend(figure, marks)
    return figure


def sensitivity_panels(values: pd.DataFrame, label: str, columns: int = 3) -> Figure:
    """A metric against one hyper-parameter per panel, mean and 95 % interval over seeds, on validation and test data.

    Args:
        values: columns ``panel``, ``value`` (of the hyper-parameter), ``split``, ``mean``, ``low``, ``high``,
            ``default`` (whether it is the default).
        label: of the vertical axes.
        columns: how many panels stand side by side.
    """
    panels = list(dict.fromkeys(values["panel"]))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.7 * lines + 0.4), layout="constrained")
    axes = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis, panel in zip(axes[: len(panels)], panels, strict=True):
        rows = values[values["panel"] == panel]
        levels = sorted(rows["value"].unique())
        places = {value: place for place, value in enumerate(levels)}
        for split, part in rows.groupby("split", sort=True):
            part = part.sort_values("value")
            x = [places[value] + (-0.06 if split == "test" else 0.06) for value in part["value"]]
            errors = [part["mean"] - part["low"], part["high"] - part["mean"]]
            axis.errorbar(x, part["mean"], yerr=errors, marker="o", ms=4, lw=1.4, capsize=2, color=palette.SPLIT[split])
        for value in rows.loc[rows["default"], "value"].unique():
            axis.axvline(places[value], color=palette.GREY, lw=6, alpha=0.25, zorder=0)
        axis.set_xticks(range(len(levels)), [f"{value:g}" for value in levels])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(title=panel, ylabel=label)
        axis.grid(axis="x", visible=False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    marks = [Line2D([], [], color=palette.SPLIT[name], marker="o", ms=4, label=name) for name in ("valid", "test")]
    marks.append(Line2D([], [], color=palette.GREY, lw=6, alpha=0.25, label="default"))
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _stacked(panels: Sequence[str], counts: Sequence[int], columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Panels as high as their number of lines, below each other or in columns."""
    lines = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    heights = [max(counts[i] for i in line) + 2.2 for line in lines]
    width = 7.2 if columns == 1 else 5.6 * columns
    figure = Figure(figsize=(width, 0.27 * sum(heights) + 0.7), layout="constrained")
    grid = figure.subplots(len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    axes = list(grid.flat)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure, axes[: len(panels)]


def _intervals(axis: Axes, place: int, row, factor: float, color: str) -> None:
    """A thin line for seeds and test items, a thick one for seeds alone."""
    if pd.notna(row.item_low):
        axis.plot([factor * row.item_low, factor * row.item_high], [place, place], color=color, lw=1.0, zorder=2)
    if pd.notna(row.low):
        ends = [factor * row.low, factor * row.high]
        axis.plot(ends, [place, place], color=color, lw=3.2, alpha=0.55, solid_capstyle="butt", zorder=2)


def _lines(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def _legend(figure: Figure, marks: Sequence[Line2D] = (), *, constant: bool = False) -> None:
    handles = [
        *marks,
        Line2D([], [], color=palette.BLACK, lw=3.2, alpha=0.55, label=f"95 % {SEED_NOTE}"),
        Line2D([], [], color=palette.BLACK, lw=1.0, label=f"95 % {ITEM_NOTE}"),
    ]
    if constant:
        handles.append(
            Line2D([], [], color=palette.GREY, ls="--", lw=1.2, label="best constant of the training labels")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
