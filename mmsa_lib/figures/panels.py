"""Figures from tidy tables, one of each kind: dots with intervals, forest plot, curves, heat map, scatter, learning
curves. What a picture shows (which rows, in which order, under which names) its caller decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmsa_lib.figures import palette

Style = Mapping[str, Any]
"""What matplotlib's ``plot`` takes; ``offset`` moves a mark off the middle of its line, ``label`` names it below."""

SEEDS: Style = {"lw": 5, "alpha": 0.35}
ITEMS: Style = {"lw": 1, "marker": "|", "ms": 6, "mew": 1}
"""The two kinds of intervals: a pale bar, and a thin line with ends."""

VERDICTS: dict[str, Style] = {
    "better": {"color": palette.GREEN, "label": "better"},
    "worse": {"color": palette.VERMILLION, "label": "worse"},
    "no difference shown": {"color": palette.GREY, "mfc": "white", "label": "no difference shown"},
    "exploratory": {"color": palette.GREY, "mfc": "white", "marker": "D", "ms": 4, "label": "exploratory, no verdict"},
}


def grid(
    count: int, columns: int, width: float, height: float | Sequence[float], *, margin: float = 0.5, foot: float = 0.6,
    **shared: Any,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """A figure and ``count`` axes in lines of ``columns``.

    Args:
        width, height: of a panel in inches; a line of panels is as high as its highest one.
        margin, foot: room at the left and below.
        **shared: ``sharex`` and ``sharey`` of ``Figure.subplots``.
    """
    columns = min(columns, count)
    each = [height] * count if isinstance(height, int | float) else list(height)
    heights = [max(each[start : start + columns]) for start in range(0, count, columns)]
    figure = Figure(figsize=(width * columns + margin, sum(heights) + foot), layout="constrained")
    axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights, **shared).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, list(axes[:count])


def legend(figure: Figure, styles: Mapping[str, Style], columns: int = 3) -> None:
    """Name the styles that have a ``label``, or else by their keys, below the panels."""
    handles = [
        Line2D([], [], **{"label": name, **{key: value for key, value in style.items() if key != "offset"}})
        for name, style in styles.items()
    ]
    if handles:
        inches = 0.5 + 0.068 * max(len(str(handle.get_label())) for handle in handles)  # of an entry, about
        fitting = max(1, int(figure.get_size_inches()[0] / inches))
        figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles), fitting))


def dots(
    frame: pd.DataFrame, marks: Mapping[str, Style], label: str | Mapping[str, str], *, columns: int = 0,
    shared: bool = True, floors: pd.DataFrame | None = None, title: str = "", width: float = 2.6, line: float = 0.3,
    zero: bool = False, sharex: bool | str = False, lines: Sequence[str] = (), panels: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Values on named lines, with the intervals that they have, in one panel or several.

    Args:
        frame: tidy ``name`` (the line), ``mark``, ``value`` and, as far as there are any, ``panel``, ``low`` and
            ``high`` (a thick interval: over seeds), ``item_low`` and ``item_high`` (a thin one: over seeds and test
            items) and ``n``, the number of runs, which is written beside a value that has fewer than the others.
        marks: mark to its style; those with a ``label`` stand in the legend.
        label: of the horizontal axes, one for all or one per panel.
        columns: panels side by side, all by default.
        shared: all panels have the same lines; otherwise each has its own, and is as high as they need.
        floors: ``baseline``, ``value`` and, for one panel only, ``panel``: grey lines for what needs no method.
        title: of the figure.
        width, line: of a panel and of a line, in inches.
        zero: draw a line at 0.
        sharex: of the panels.
        lines, panels: their order, by default that of the rows.
    """
    frame = frame if "panel" in frame else frame.assign(panel="")
    panels = list(panels if len(panels) else dict.fromkeys(frame["panel"]))
    every = list(lines if len(lines) else dict.fromkeys(frame["name"]))
    names = {p: every if shared else list(dict.fromkeys(frame.loc[frame["panel"] == p, "name"])) for p in panels}
    heights = [0.75 + line * len(names[panel]) for panel in panels]
    columns = columns or len(panels)
    figure, axes = grid(len(panels), columns, width, heights, margin=1.8, sharey=shared, sharex=sharex)
    most = frame["n"].max() if "n" in frame else 0
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        part = frame[frame["panel"] == panel]
        if zero:
            axis.axvline(0, color=palette.BLACK, lw=1)
        for (name, mark), rows in part.groupby(["name", "mark"], sort=False):
            style = {"marker": "o", "ms": 5, "ls": "", "zorder": 3, **marks[mark]}
            height = names[panel].index(name) + style.pop("offset", 0)
            style.pop("label", None)
            for row in rows.to_dict("records"):
                _intervals(axis, height, row, style["color"])
                if 0 < row.get("n", 0) < most:
                    _write_count(axis, height, row)
            axis.plot(rows["value"], [height] * len(rows), **style)
        lowest = (not shared and sharex is not True) or place + columns >= len(panels)
        axis.set(title=panel, xlabel=(label if isinstance(label, str) else label[panel]) if lowest else "")
        axis.grid(axis="y", visible=False)
        axis.set_yticks(range(len(names[panel])), names[panel])
        axis.set_ylim(len(names[panel]) - 0.4, -0.6)
    used = {mark: style for mark, style in marks.items() if "label" in style and (frame["mark"] == mark).any()}
    shown = {mark: {"marker": "o", "ls": "", **style} for mark, style in used.items()}
    if "item_low" in frame and frame["item_low"].notna().any():
        shown["seeds"] = {"color": palette.BLACK, **SEEDS, "label": "95 % over seeds"}
        shown["items"] = {"color": palette.BLACK, **ITEMS, "label": "95 % over seeds and test items"}
    legend(figure, shown | _floors(axes, panels, floors, "axvline"))
    if title:
        figure.suptitle(title)
    return figure


def forest(effects: pd.DataFrame, label: str, *, higher_is_better: bool = False, **layout: Any) -> Figure:
    """Forest plot of paired differences with 95 % intervals; filled and coloured where a difference is shown.

    Args:
        effects: rows of a comparison (``n, difference, low, high, verdict`` and, where known, ``item_low, item_high``)
            with ``name`` and, for several panels, ``panel``.
        label: what is subtracted from what.
        higher_is_better: direction of the metric.
        **layout: of :func:`dots`.
    """
    shown = effects["verdict"].where(effects["verdict"].isin(VERDICTS), "no difference shown")
    left, right = ("worse", "better") if higher_is_better else ("better", "worse")
    drawn = effects.assign(value=effects["difference"], mark=shown)
    narrow = layout.get("shared", True) and "panel" in effects
    words = f"{label}\n← {left}    {right} →" if narrow else f"← {left}    {label}    {right} →"
    return dots(drawn, VERDICTS, words, zero=True, **layout)


def curves(
    frame: pd.DataFrame, styles: Mapping[str, Style], xlabel: str | Mapping[str, str], ylabel: str, *, columns: int = 3,
    floors: pd.DataFrame | None = None, title: str = "", width: float = 2.6, height: float = 2.1,
    sharey: bool | str = True, log: bool = False, integer: bool = False,
) -> Figure:  # fmt: skip
    """Curves with the bands that they have, in one panel or several.

    Args:
        frame: tidy ``line``, ``x``, ``value`` and, as far as there are any, ``panel``, ``low`` and ``high`` (a band),
            and ``unit``, such as a run: each has a curve of its own.
        styles: line to its style, in the order of the legend; lines that no row has are left out.
        xlabel, ylabel: of the axes; the former one for all or one per panel.
        columns: panels side by side.
        floors: as for :func:`dots`, drawn across.
        title: of the figure.
        width, height: of a panel in inches.
        sharey: of ``Figure.subplots``.
        log: draw on a log scale.
        integer: ticks at whole numbers only, as for epochs.
    """
    frame = frame if "panel" in frame else frame.assign(panel="")
    panels = list(dict.fromkeys(frame["panel"]))
    figure, axes = grid(len(panels), columns, width, height, foot=0.9, sharey=sharey)
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        for name, style in styles.items():
            rows = frame[(frame["panel"] == panel) & (frame["line"] == name)]
            style = {key: value for key, value in style.items() if key != "label"}
            for _, part in rows.groupby("unit", sort=False) if "unit" in frame else [("", rows)]:
                part = part.sort_values("x", kind="stable")
                if "low" in part and part["low"].notna().any():
                    axis.fill_between(part["x"], part["low"], part["high"], color=style["color"], alpha=0.2, lw=0)
                axis.plot(part["x"], part["value"], **style)
        alone = isinstance(xlabel, Mapping) or place + columns >= len(panels)
        axis.set(title=panel, xlabel=(xlabel if isinstance(xlabel, str) else xlabel[panel]) if alone else "")
        axis.set_ylabel(ylabel if place % columns == 0 else "")
        if log:
            axis.set_yscale("log")
        if integer:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    used = {name: style for name, style in styles.items() if (frame["line"] == name).any()}
    legend(figure, used | _floors(axes, panels, floors, "axhline"))
    if title:
        figure.suptitle(title)
    return figure


def heatmap(
    panels: Mapping[str, pd.DataFrame], label: str = "", *, limits: tuple[float, float] | None = (0, 1),
    columns: int = 3, text: Callable[[float], str] = "{:.2f}".format,
    emphasis: Callable[[float], bool] = lambda value: False, xlabel: str = "", ylabel: str = "",
    cell: tuple[float, float] = (0.8, 0.34), margin: float = 2.2, cmap: str = palette.SEQUENTIAL,
) -> Figure:  # fmt: skip
    """Tables as colours with their numbers in the fields; a dash where there is none.

    Args:
        panels: title to a table of numbers, all with the same rows and columns, whose names are written once.
        label: of the colour bar.
        limits: of the colours; what lies outside is printed as it is. ``None``: from the smallest to the largest value.
        columns: panels side by side.
        text: how a number is written.
        emphasis: which numbers stand in italics.
        xlabel, ylabel: of the outer axes.
        cell: width and height of a field in inches.
        margin: room at the left, in inches.
        cmap: the colours; ``palette.DIVERGING`` where 0 lies between the limits.
    """
    first = next(iter(panels.values()))
    columns, (lines, across) = min(columns, len(panels)), first.shape
    figure, axes = grid(
        len(panels), columns, cell[0] * across + 0.2, cell[1] * lines + 0.3, margin=margin, foot=0.8, sharex=True,
        sharey=True,
    )  # fmt: skip
    low, high = limits or (None, None)
    for place, (axis, (title, table)) in enumerate(zip(axes, panels.items(), strict=True)):
        values = table.to_numpy(dtype=float)
        image = axis.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            dark = sum(image.cmap(image.norm(value))[:3]) < 1.5 and not np.isnan(value)
            style = {"color": "white" if dark else "black", "style": "italic" if emphasis(value) else "normal"}
            shown = "–" if np.isnan(value) else text(value)
            axis.text(column, row, shown, ha="center", va="center", **style)
        axis.set_xticks(range(across), [str(name) for name in first.columns])
        axis.set_yticks(range(lines), [str(name) for name in first.index])
        axis.set_title(title)
        lowest = place + columns >= len(panels)
        axis.set(xlabel=xlabel if lowest else "", ylabel="" if place % columns else ylabel)
        axis.tick_params(length=0, labelbottom=lowest)
        axis.grid(False)
        axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=label)
    return figure


def learning_curves(history: pd.DataFrame, best_epoch: int | None = None, unit: str = "") -> Figure:
    """Training and validation loss over epochs, and beside them every weighted loss term on a log scale.

    Args:
        history: tidy columns ``epoch, split, name, value``; ``loss/total`` and ``loss/<term>`` for split ``train``, the
            selection criterion ``loss/task`` for split ``valid``.
        best_epoch: the epoch that was kept; marked.
        unit: unit of the validation loss, for the axis label.
    """
    figure, (left, right) = grid(2, 2, 4.2, 3.2, margin=0, foot=0)
    train, valid = history[history["split"] == "train"], history[history["split"] == "valid"]
    total, criterion = train[train["name"] == "loss/total"], valid[valid["name"] == "loss/task"]
    left.plot(total["epoch"], total["value"], color=palette.SPLIT["train"], label="training loss (sum of terms)")
    style = {"color": palette.SPLIT["valid"], "marker": "o", "ms": 3}
    left.plot(criterion["epoch"], criterion["value"], label="validation", **style)
    if best_epoch is not None:
        left.axvline(best_epoch, color=palette.GREY, ls=":", label=f"kept: epoch {best_epoch}")
    left.set(xlabel="epoch", ylabel=f"loss{f' ({unit})' if unit else ''}", title="Loss", ylim=(0, None))
    terms = [name for name in train["name"].unique() if name.startswith("loss/") and name != "loss/total"]
    for place, term in enumerate(terms):
        rows = train[(train["name"] == term) & (train["value"] > 0)]
        color, dash = palette.CYCLE[place % len(palette.CYCLE)], ("-", "--", ":")[place // len(palette.CYCLE) % 3]
        right.plot(rows["epoch"], rows["value"], color=color, ls=dash, label=term.removeprefix("loss/"))
    right.set(xlabel="epoch", ylabel="weighted term", title="Terms of the training loss", yscale="log")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()
    return figure


def predicted_against_true(frame: pd.DataFrame, limits: tuple[float, float], unit: str = "sentiment") -> Figure:
    """Scatter of predictions over labels, with the diagonal and the distribution of both.

    Args:
        frame: columns ``label`` and ``prediction``.
        limits: label range of the task.
        unit: what is measured, for the axis labels.
    """
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    low = min(limits[0], float(frame["prediction"].min())) - 0.2
    high = max(limits[1], float(frame["prediction"].max())) + 0.2
    left.plot([low, high], [low, high], color=palette.GREY, lw=1, zorder=1)
    left.scatter(frame["label"], frame["prediction"], s=9, alpha=0.45, color=palette.BLUE, linewidths=0, zorder=2)
    error = (frame["prediction"] - frame["label"]).abs().mean()
    left.set(xlim=(limits[0] - 0.2, limits[1] + 0.2), ylim=(low, high), xlabel=f"true {unit}")
    left.set(ylabel=f"predicted {unit}", title=f"mean absolute error {error:.3f}, {len(frame)} samples")
    bins = np.linspace(low, high, 25)
    right.hist(frame["label"], bins=bins, color=palette.GREY, alpha=0.55, label="true")
    right.hist(frame["prediction"], bins=bins, histtype="step", lw=1.8, color=palette.BLUE, label="predicted")
    right.set(xlabel=unit, ylabel="samples", title="Do predictions span the range?")
    right.legend()
    return figure


def _intervals(axis: Axes, place: float, row: Mapping[str, Any], color: str) -> None:
    """A pale bar for the interval over seeds, a thin line with ends for that over seeds and test items."""
    both = pd.notna(row.get("item_low"))
    if both:
        axis.plot([row["item_low"], row["item_high"]], [place, place], color=color, zorder=2, **ITEMS)
    if pd.notna(row.get("low")):
        style = SEEDS if both else {"lw": 1.6}
        axis.plot([row["low"], row["high"]], [place, place], color=color, solid_capstyle="butt", zorder=2, **style)


def _write_count(axis: Axes, place: float, row: Mapping[str, Any]) -> None:
    """Say at the right of the panel that a value is over fewer runs than the others."""
    axis.annotate(
        f"n={row['n']:g}", (1, place), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
        ha="left", va="center", color=palette.GREY,
    )  # fmt: skip


def _floors(axes: Sequence[Axes], panels: Sequence[str], floors: pd.DataFrame | None, kind: str) -> dict[str, Style]:
    """Draw what needs no method in its panels; baseline to its style, for the legend."""
    if floors is None:
        return {}
    dashes = zip(dict.fromkeys(floors["baseline"]), ("--", ":", "-.", (0, (1, 3))), strict=False)
    styles = {name: {"color": palette.GREY, "ls": dash, "lw": 1.2} for name, dash in dashes}
    for axis, panel in zip(axes, panels, strict=True):
        here = floors[floors["panel"] == panel] if "panel" in floors else floors
        for row in here.itertuples():
            getattr(axis, kind)(row.value, zorder=1, **styles[row.baseline])
    return styles
