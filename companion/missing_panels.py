"""Figures of missing modalities: what is hidden, how methods degrade, and what is left of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mmsa_lib.figures import palette

PADDING_COLOR, MISSING_COLOR = "white", "#D9D9D9"

SUBSET_LETTERS = {"text": "T", "audio": "A", "vision": "V"}

DASHES = ("-", "--", ":", "-.")
"""One per variant of a method, in the order of the table."""


def missing_patterns(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], samples: Sequence[str] = ()
) -> Figure:
    """What masks leave of a few utterances: samples down, steps across, one row of panels per protocol cell.

    Args:
        panels: title (such as ``A: frames, rate 0.5``) to modality to ``(valid, observed)``, each ``(n, T_m)`` bool, of
            the same n samples.
        samples: their names.
    """
    modalities = list(next(iter(panels.values())))
    longest = {m: max(int(cell[m][0].sum(-1).max()) for cell in panels.values()) for m in modalities}
    count = len(next(iter(panels.values()))[modalities[0]][0])
    figure = Figure(figsize=(8.2, 0.9 + len(panels) * (0.2 + 0.14 * count)), layout="constrained")
    widths = [max(longest[m], 0.12 * max(longest.values())) for m in modalities]
    axes = figure.subplots(len(panels), len(modalities), squeeze=False, width_ratios=widths)
    for place, (line, (title, cell)) in enumerate(zip(axes, panels.items(), strict=True), start=1):
        lowest = place == len(panels)
        for axis, modality in zip(line, modalities, strict=True):
            valid, observed = (np.asarray(values, dtype=int)[:, : longest[modality]] for values in cell[modality])
            colors = ListedColormap([PADDING_COLOR, MISSING_COLOR, palette.MODALITY[modality]])
            axis.pcolormesh(valid + (valid & observed), cmap=colors, vmin=0, vmax=2, edgecolors="white", lw=0.4)
            axis.set(ylim=(count, 0), yticks=[])
            axis.set_xticks([longest[modality]] if lowest and longest[modality] > 1 else [])
            axis.spines[["left", "bottom"]].set_visible(False)
            axis.tick_params(length=0)
            axis.grid(False)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center")
        if samples:
            line[-1].set_yticks(np.arange(count) + 0.5, samples, fontsize="x-small")
            line[-1].yaxis.tick_right()
    for modality, top, bottom in zip(modalities, axes[0], axes[-1], strict=True):
        top.set_title(modality, color=_readable(palette.MODALITY[modality]))
        bottom.set_xlabel("step" if longest[modality] > 1 else "utterance")
    handles = [Patch(color=palette.MODALITY[m], label=f"{m} observed") for m in modalities]
    handles += [Patch(color=MISSING_COLOR, label="missing"), Patch(fc="white", ec=palette.GREY, label="padding")]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def degradation_curves(
    frame: pd.DataFrame,
    label: str,
    factor: float = 1.0,
    floors: pd.DataFrame | None = None,
    *,
    xlabel: str = "share of frames missing",
    columns: int = 3,
) -> Figure:
    """A metric against a missing rate with 95 % bands over seeds, one panel per data set.

    One colour per method; a second variant (trained without missing samples, for instance) is dashed.

    Args:
        frame: tidy ``dataset, method, variant, level, mean, low, high``, as
            :func:`mmsa_lib.evaluation.missing_summary.level_means` returns it.
        label: of the metric, with its unit and direction.
        factor: applied to all values (100 for per cent).
        floors: tidy ``dataset, baseline, value``: what constants score at every rate.
        xlabel: what the levels are.
        columns: panels side by side.
    """
    names = list(dict.fromkeys(frame["dataset"]))
    variants = list(dict.fromkeys(frame["variant"]))
    rows = list(dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)))
    across = min(columns, len(names), 3)
    figure, axes = _grid(len(names), columns, width=3.1, height=2.7, foot=0.3 + 0.2 * -(-(len(rows) + 1) // across))
    for axis, name in zip(axes, names, strict=True):
        for method, variant in rows:
            part = frame[(frame["dataset"] == name) & (frame["method"] == method) & (frame["variant"] == variant)]
            part = part.assign(rate=part["level"].astype(float)).sort_values("rate")
            color, dash = palette.method_color(method), DASHES[variants.index(variant) % len(DASHES)]
            band = part.dropna(subset=["low", "high"])
            axis.fill_between(band["rate"], factor * band["low"], factor * band["high"], color=color, alpha=0.15, lw=0)
            axis.plot(part["rate"], factor * part["mean"], color=color, ls=dash, marker="o", ms=2.5)
        _draw_floors(axis.axhline, floors, name, factor)
        axis.set(title=name, xlabel=xlabel)
    for axis in axes[:: min(columns, len(names))]:
        axis.set_ylabel(label)
    handles = [
        Line2D([], [], color=palette.method_color(method), ls=DASHES[variants.index(variant) % len(DASHES)],
               label=_row_name(method, variant))
        for method, variant in rows
    ]  # fmt: skip
    handles += _floor_handles(floors)
    figure.legend(handles=handles, loc="outside lower center", ncols=across, fontsize="small")
    return figure


def summary_intervals(
    frame: pd.DataFrame, label: str, factor: float = 1.0, floors: pd.DataFrame | None = None, *, columns: int = 3
) -> Figure:
    """One summary per method (an area, an average) as a point with its 95 % interval and each run as a dot.

    Args:
        frame: tidy ``dataset, method, variant, seed, value``, one row per run, as
            :func:`mmsa_lib.evaluation.missing_summary.run_summaries` returns it for one protocol, summary and metric.
        label: of the number, with its unit and direction.
        factor: applied to all values (100 for per cent).
        floors: tidy ``dataset, baseline, value``.
        columns: panels side by side, one per data set.
    """
    from mmsa_lib.evaluation.statistics import summarise_seeds

    names = list(dict.fromkeys(frame["dataset"]))
    rows = list(dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)))
    figure, axes = _grid(
        len(names), columns, width=2.9, height=0.9 + 0.26 * len(rows), foot=0.4, margin=1.7, sharey=True
    )
    means = summarise_seeds(frame, by=["dataset", "method", "variant"])
    for axis, name in zip(axes, names, strict=True):
        for place, (method, variant) in enumerate(rows):
            color = palette.method_color(method)
            runs, mean = (
                part[(part["dataset"] == name) & (part["method"] == method) & (part["variant"] == variant)]
                for part in (frame, means)
            )
            axis.scatter(factor * runs["value"], [place] * len(runs), s=11, color=color, alpha=0.5, linewidths=0)
            axis.hlines([place] * len(mean), factor * mean["low"], factor * mean["high"], color=color, lw=1.6)
            axis.plot(factor * mean["mean"], [place] * len(mean), marker="|", ms=12, mew=1.6, color=color, ls="")
        _draw_floors(axis.axvline, floors, name, factor)
        axis.set(title=name, xlabel=label)
        axis.grid(axis="y", visible=False)
    for axis in axes[:: min(columns, len(names))]:
        axis.set_yticks(range(len(rows)), [_row_name(*row) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
    handles = _floor_handles(floors)
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def subset_heatmap(
    frame: pd.DataFrame,
    label: str,
    factor: float = 1.0,
    floor: float | None = None,
    *,
    higher_is_better: bool = True,
    title: str = "",
) -> Figure:
    """Methods down, available modalities across, the mean over seeds in each field; worse than the constant in italics.

    Args:
        frame: tidy ``method, variant, level, mean`` of one data set; levels such as ``text+audio``.
        label: of the metric, with its unit and direction.
        factor: applied to all values (100 for per cent).
        floor: what a constant scores whatever is available; the last row.
        higher_is_better: direction of the metric; good is always dark.
        title: figure title.
    """
    levels = sorted(dict.fromkeys(frame["level"]), key=_size_and_order)
    rows = list(dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)))
    values = factor * np.array(
        [
            [_one(frame[(frame["method"] == m) & (frame["variant"] == v) & (frame["level"] == lv)]) for lv in levels]
            for m, v in rows
        ]
    )
    names = [_row_name(*row) for row in rows]
    constant = None if floor is None else factor * floor
    if constant is not None:
        values, names = np.vstack([values, np.full(len(levels), constant)]), [*names, "constant"]
    figure = Figure(figsize=(2.6 + 0.72 * len(levels), 1.15 + 0.32 * len(names)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(values, cmap=palette.SEQUENTIAL + ("_r" if higher_is_better else ""), aspect="auto")
    for (line, column), value in np.ndenumerate(values):
        below = constant is not None and (value < constant if higher_is_better else value > constant)
        dark = sum(image.cmap(image.norm(value))[:3]) < 1.5
        text = "–" if np.isnan(value) else f"{value:.1f}" if factor != 1 else f"{value:.2f}"
        axis.text(
            column, line, text, ha="center", va="center", fontsize="small", color="white" if dark else "black",
            style="italic" if below else "normal",
        )  # fmt: skip
    letters = ["+".join(SUBSET_LETTERS.get(part, part) for part in level.split("+")) for level in levels]
    axis.set_xticks(range(len(levels)), letters)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("available modalities: " + ", ".join(f"{v} {k}" for k, v in _letters(levels).items()))
    axis.tick_params(length=0)
    axis.grid(False)
    axis.spines[:].set_visible(False)
    if title:
        axis.set_title(title)
    figure.colorbar(image, ax=axis, label=label)
    return figure


def _grid(count: int, columns: int, width: float, height: float, foot: float, margin: float = 0.5, **shared):
    """A figure and ``count`` axes in lines of ``columns``; ``foot`` and ``margin`` leave room below and at the left."""
    columns = min(columns, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(max(4.2, width * columns + margin), height * lines + foot), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, **shared).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _draw_floors(line, floors: pd.DataFrame | None, dataset: str, factor: float) -> None:
    """Grey lines across the panel of ``dataset``."""
    if floors is None:
        return
    for dash, baseline in zip(DASHES[::-1], dict.fromkeys(floors["baseline"]), strict=False):
        for value in floors.loc[(floors["dataset"] == dataset) & (floors["baseline"] == baseline), "value"]:
            line(factor * value, color=palette.GREY, ls=dash, lw=1.2, zorder=1)


def _floor_handles(floors: pd.DataFrame | None) -> list[Line2D]:
    names = [] if floors is None else dict.fromkeys(floors["baseline"])
    pairs = zip(DASHES[::-1], names, strict=False)
    return [Line2D([], [], color=palette.GREY, ls=dash, lw=1.2, label=name) for dash, name in pairs]


def _row_name(method: str, variant: str) -> str:
    return f"{method}, {variant}" if variant else method


def _one(rows: pd.DataFrame) -> float:
    return float(rows["mean"].iloc[0]) if len(rows) else float("nan")


def _size_and_order(level: str) -> tuple[int, list[int]]:
    """Small subsets first, and text before audio before vision."""
    order, parts = list(SUBSET_LETTERS), level.split("+")
    return len(parts), [order.index(part) if part in order else len(order) for part in parts]


def _letters(levels: Sequence[str]) -> dict[str, str]:
    found = dict.fromkeys(part for level in levels for part in level.split("+"))
    return {part: SUBSET_LETTERS[part] for part in SUBSET_LETTERS if part in found}


def _readable(color: str) -> tuple[float, ...]:
    """A darker shade for text."""
    return tuple(0.75 * part for part in to_rgb(color))
