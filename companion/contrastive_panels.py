"""Figures of contrastive learning: which pairs are formed, where words are routed, how the space changes, the price."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mmsa_lib.figures import palette

ROLES = {
    0: ("not compared", "#F2F2F2"),
    1: ("denominator (pushed apart)", palette.ORANGE),
    2: ("numerator (pulled together)", palette.BLUE),
    3: ("both", palette.SKY),
    4: ("denominator of a term of its own", palette.YELLOW),
}
"""Meaning and colour of the codes of a pair mask: ``2 * numerator + denominator``, and 4 for an extra term."""

LABEL_STEPS = 3
"""Words that the name of a mark is wide, about."""

CATEGORY = {"negative": palette.VERMILLION, "neutral": palette.GREY, "positive": palette.BLUE}

COLORS = (palette.BLUE, palette.VERMILLION, palette.GREEN, palette.PURPLE, palette.ORANGE, palette.SKY)


def pair_masks(panels: Mapping[str, np.ndarray], labels: Sequence[str], blocks: int = 0, columns: int = 2) -> Figure:
    """Pair masks as matrices: rows are anchors, columns what they are compared with.

    Args:
        panels: title to an ``(N, N)`` matrix of the codes in :data:`ROLES`.
        labels: of the N rows and columns.
        blocks: a line after each so many rows and columns (samples per modality); 0 for none.
        columns: panels side by side.
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    side = 1.1 + 0.14 * len(labels)
    figure = Figure(figsize=(side * columns + 0.5, side * lines + 0.8), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    norm = BoundaryNorm(np.arange(len(ROLES) + 1) - 0.5, len(ROLES))
    for position, (axis, (title, codes)) in enumerate(zip(axes, panels.items(), strict=False)):
        axis.imshow(codes, cmap=ListedColormap([color for _, color in ROLES.values()]), norm=norm)
        # All panels have the same rows and columns: labels stand at the left and below only.
        at_left, lowest = position % columns == 0, position + columns >= len(panels)
        axis.set_xticks(range(len(labels)), labels if lowest else [""] * len(labels), rotation=90, fontsize="x-small")
        axis.set_yticks(range(len(labels)), labels if at_left else [""] * len(labels), fontsize="x-small")
        axis.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
        axis.tick_params(which="both", length=0)
        axis.grid(False)
        axis.grid(which="minor", color="white", lw=0.8)
        for edge in range(blocks, len(labels), blocks) if blocks else ():
            axis.axhline(edge - 0.5, color=palette.BLACK, lw=1)
            axis.axvline(edge - 0.5, color=palette.BLACK, lw=1)
        axis.set_title(title)
        axis.set_ylabel("anchor" if at_left else "")
    for axis in axes[len(panels) :]:
        axis.remove()
    used = sorted({int(code) for codes in panels.values() for code in np.unique(codes)})
    patches = [Patch(color=ROLES[code][1], label=ROLES[code][0]) for code in used]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(3, len(patches)), fontsize="small")
    return figure


def routing_coefficients(
    coupling: Mapping[str, np.ndarray], marks: Mapping[str, Mapping[str, int]] | None = None, words: Sequence[str] = ()
) -> Figure:
    """Coupling coefficients of one utterance, words across and capsules down, one panel per modality.

    Args:
        coupling: modality to ``(T, K)``, the valid steps only; each step sums to 1.
        marks: modality to named steps, drawn as triangles above the panel.
        words: labels of the steps, where they are words.
    """
    figure = Figure(figsize=(7.6, 1.6 * len(coupling) + 0.5), layout="constrained")
    axes = figure.subplots(len(coupling), 1, squeeze=False)[:, 0]
    top = max(values.max() for values in coupling.values())
    for axis, (modality, values) in zip(axes, coupling.items(), strict=True):
        image = axis.imshow(values.T, aspect="auto", cmap=palette.SEQUENTIAL, vmin=0, vmax=top, interpolation="nearest")
        axis.set(ylabel=f"{modality}\ncapsule")
        axis.set_yticks(range(values.shape[1]), [str(k + 1) if k % 2 == 0 else "" for k in range(values.shape[1])])
        steps = len(values)
        if words:
            axis.set_xticks(range(steps), words[:steps], rotation=60, ha="right", fontsize="x-small")
        else:
            axis.set_xticks(range(0, steps, max(1, steps // 10)))
        axis.grid(False)
        _mark_steps(axis, (marks or {}).get(modality, {}))
    axes[-1].set_xlabel("word" if words else "step (word)")
    figure.colorbar(image, ax=list(axes), label="coupling coefficient", shrink=0.9)
    return figure


def _mark_steps(axis, steps: Mapping[str, int]) -> None:
    """Triangles above the panel; names of one step share a label, and labels close together stand at two heights."""
    by_step: dict[int, list[str]] = {}
    for name, step in steps.items():
        by_step.setdefault(int(step), []).append(name)
    previous, raised = -math.inf, False
    for step in sorted(by_step):
        raised = not raised and step - previous < LABEL_STEPS
        gap = "\n" if raised else ""
        text = f"{', '.join(by_step[step])}{gap}\n▼"
        axis.annotate(
            text, (step, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize="x-small",
            linespacing=0.9,
        )  # fmt: skip
        previous = step


def modulation_weights(curves: pd.DataFrame, price: pd.DataFrame) -> Figure:
    """Weight of a positive pair against its cosine, and what the exponent buys and costs.

    Args:
        curves: tidy ``formula, cosine, weight``.
        price: tidy ``denominator, gamma, seed, measure, cosine``: cosines after a training.
    """
    kinds = list(dict.fromkeys(price["denominator"]))
    figure = Figure(figsize=(3.3 + 2.4 * len(kinds), 3.3), layout="constrained")
    left, *rest = figure.subplots(1, 1 + len(kinds), width_ratios=(1.25, *[1] * len(kinds)))
    for color, dash, (formula, rows) in zip(COLORS, _dashes(), curves.groupby("formula", sort=False), strict=False):
        left.plot(rows["cosine"], rows["weight"], color=color, ls=dash, label=formula)
    left.axhline(0, color=palette.BLACK, lw=0.6)
    left.set(
        xlabel="cosine of the positive pair", ylabel="weight ω (mean 1)", title="hard pairs left, easy pairs right"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize="small")
    measures = list(dict.fromkeys(price["measure"]))
    for axis, kind in zip(rest, kinds, strict=True):
        rows = price[price["denominator"] == kind]
        for color, marker, measure in zip(COLORS, "o^s", measures, strict=False):
            part = rows[rows["measure"] == measure]
            mean = part.groupby("gamma")["cosine"].mean()
            axis.scatter(part["gamma"], part["cosine"], s=10, color=color, alpha=0.4, linewidths=0)
            axis.plot(mean.index, mean, color=color, marker=marker, label=measure)
        axis.set(
            xlabel="exponent γ", title=f"denominator: {kind}", ylim=(min(-0.05, price["cosine"].min() - 0.05), 1.05)
        )
        axis.set_xticks(sorted(rows["gamma"].unique()))
    rest[0].set_ylabel("cosine after training")
    figure.legend(*rest[0].get_legend_handles_labels(), loc="outside lower right", fontsize="small")
    return figure


def contrastive_terms(history: pd.DataFrame, references: Mapping[str, float]) -> Figure:
    """The raw contrastive terms over epochs, each beside the value that needs no learning.

    Args:
        history: tidy ``run, epoch, name, value`` with names such as ``cmc`` and ``smc``.
        references: name of a term to its value where all vectors coincide.
    """
    names = list(dict.fromkeys(history["name"]))
    figure = Figure(figsize=(3.6 * len(names) + 0.6, 3.0), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for color, dash, (run, rows) in zip(COLORS, _dashes(), history.groupby("run", sort=False), strict=False):
            part = rows[rows["name"] == name]
            axis.plot(part["epoch"], part["value"], color=color, ls=dash, label=run)
        if name in references:
            axis.axhline(references[name], color=palette.GREY, ls=":", label="all vectors equal")
        axis.set(title=name.upper(), xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("raw training loss")
    axes[0].legend(fontsize="small")
    return figure


def cosine_traces(frame: pd.DataFrame) -> Figure:
    """Mean cosines of pairs over epochs, one panel per modality; one colour per run, dashed for pairs to be separated.

    Args:
        frame: tidy ``run, epoch, modality, pairs, cosine``; the first value of ``pairs`` is drawn solid.
    """
    modalities, kinds = list(dict.fromkeys(frame["modality"])), list(dict.fromkeys(frame["pairs"]))
    figure = Figure(figsize=(2.4 * len(modalities) + 0.8, 3.0), layout="constrained")
    axes = figure.subplots(1, len(modalities), squeeze=False, sharey=True)[0]
    runs = list(dict.fromkeys(frame["run"]))
    for axis, modality in zip(axes, modalities, strict=True):
        for color, run in zip(COLORS, runs, strict=False):
            for dash, kind in zip(("-", ":"), kinds, strict=False):
                rows = frame[(frame["run"] == run) & (frame["modality"] == modality) & (frame["pairs"] == kind)]
                axis.plot(rows["epoch"], rows["cosine"], color=color, ls=dash, label=f"{run}, {kind}")
        axis.set(title=modality, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes[0].set_ylabel("mean cosine")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds), fontsize="small")
    return figure


def embedding_maps(frame: pd.DataFrame, colors: Mapping[str, str]) -> Figure:
    """Scatter plots of two principal components, rows and columns as the table says, coloured by group.

    Args:
        frame: tidy ``row, column, x, y, group, share``; ``share`` is the part of the variance on the two axes.
        colors: group to colour, in the order of the legend.
    """
    rows, columns = list(dict.fromkeys(frame["row"])), list(dict.fromkeys(frame["column"]))
    figure = Figure(figsize=(2.2 * len(columns) + 0.4, 2.1 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, column in zip(line, columns, strict=True):
            part = frame[(frame["row"] == row) & (frame["column"] == column)]
            shades = part["group"].map(colors)
            # Without blended edges and overlaps the picture takes a third of the space.
            axis.scatter(part["x"], part["y"], s=6, c=shades, linewidths=0, antialiased=False)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"{column}, {100 * part['share'].iloc[0]:.0f} % of variance", fontsize="small")
        line[0].set_ylabel(row)
    handles = [
        Line2D([], [], marker="o", ls="", ms=5, color=color, label=group)
        for group, color in colors.items()
        if (frame["group"] == group).any()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def difference_forest(
    effects: pd.DataFrame, name: str, label: str, higher_is_better: bool = False, title: str = ""
) -> Figure:
    """Paired differences with their 95 % intervals; filled and coloured where a difference is shown.

    Args:
        effects: columns ``n, difference, low, high, verdict`` and ``name``, as
            :mod:`mmsa_lib.evaluation.ablations` returns them.
        name: column that names the lines.
        label: what is subtracted from what, for the axis.
        higher_is_better: direction of the metric.
        title: figure title.
    """
    figure = Figure(figsize=(6.8, 1.2 + 0.27 * len(effects)), layout="constrained")
    axis = figure.subplots()
    axis.axvline(0, color=palette.BLACK, lw=1)
    colors = {"worse": palette.VERMILLION, "better": palette.GREEN}
    for place, (_, row) in enumerate(effects.iterrows()):
        color = colors.get(row["verdict"], palette.GREY)
        fill = color if row["verdict"] in colors else "white"
        axis.plot([row["low"], row["high"]], [place, place], color=color, lw=1.6, solid_capstyle="butt")
        axis.plot(row["difference"], place, marker="o", ms=6, color=color, mfc=fill, ls="")
    axis.set_yticks(range(len(effects)), [f"{row[name]}  (n={row['n']})" for _, row in effects.iterrows()])
    axis.set_ylim(len(effects) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    left, right = ("worse", "better") if higher_is_better else ("better", "worse")
    axis.set_xlabel(f"← {left}        {label}        {right} →")
    if title:
        axis.set_title(title)
    return figure


def _dashes() -> list[str]:
    return ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), "-"]
