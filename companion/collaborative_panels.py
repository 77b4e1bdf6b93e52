"""Figures of collaborative learning: decoupling weights, rewards, what the policies see and learn, oracle selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmsa_lib.figures import palette

QUANTITIES = {"similarity": "similarity C", "common": "common weights", "specific": "specific weights"}

LABEL_WORDS = 3
"""Words that the name of a mark is wide, about."""

VARIANT = {"reference": palette.VERMILLION, "corrected": palette.BLUE}
"""Colours of the two variants; other runs follow in :data:`OTHERS`."""

OTHERS = (palette.GREEN, palette.PURPLE, palette.ORANGE, palette.SKY, palette.BLACK)


def weight_matrices(frame: pd.DataFrame, words: Sequence[str], modality: str = "text") -> Figure:
    """Similarity and weights of one utterance, one row of panels per variant; each column has one colour scale.

    Args:
        frame: tidy ``variant, modality, quantity, row, column, value`` with quantities ``similarity``, ``common`` and
            ``specific``.
        words: labels of the positions.
        modality: whose matrices are drawn.
    """
    variants = list(dict.fromkeys(frame["variant"]))
    side = 0.9 + 0.165 * len(words)
    figure = Figure(figsize=(3 * side + 1.2, side * len(variants) + 0.9), layout="constrained")
    axes = figure.subplots(len(variants), len(QUANTITIES), squeeze=False)
    chosen = frame[frame["modality"] == modality]
    for column, (quantity, title) in enumerate(QUANTITIES.items()):
        part = chosen[chosen["quantity"] == quantity]
        top = part["value"].abs().max() if quantity == "similarity" else part["value"].max()
        scale = (
            {"cmap": palette.DIVERGING, "vmin": -top, "vmax": top}
            if quantity == "similarity"
            else {"cmap": palette.SEQUENTIAL, "vmin": 0, "vmax": top}
        )
        for axis, variant in zip(axes[:, column], variants, strict=True):
            rows = part[part["variant"] == variant]
            matrix = rows.pivot_table(index="row", columns="column", values="value").to_numpy()
            image = axis.imshow(matrix, **scale)
            lowest, at_left = variant == variants[-1], column == 0
            axis.set_xticks(range(len(words)), words if lowest else [], rotation=90, fontsize="x-small")
            axis.set_yticks(range(len(words)), words if at_left else [], fontsize="x-small")
            if not lowest:
                axis.set_xticks([])
            axis.tick_params(length=0)
            axis.grid(False)
            axis.set_title(title if variant == variants[0] else "")
            axis.set_ylabel(variant if at_left else "", fontweight="bold")
        figure.colorbar(image, ax=list(axes[:, column]), location="bottom", shrink=0.8, aspect=16)
    return figure


def distance_from_uniform(frame: pd.DataFrame) -> Figure:
    """How far the entropy of the weights is from uniform: 1 - H / log T on a log axis, with the bound of the variant.

    Args:
        frame: tidy ``group, part, run, entropy, bound``: one dot per row, one line per group and part, in their order;
            a mark at the largest distance that the parameters could reach.
    """
    lines = list(dict.fromkeys(zip(frame["group"], frame["part"], strict=True)))
    figure = Figure(figsize=(7.4, 1.3 + 0.33 * len(lines)), layout="constrained")
    axis = figure.subplots()
    for place, (group, part) in enumerate(lines):
        rows = frame[(frame["group"] == group) & (frame["part"] == part)]
        color = _variant_color(group)
        axis.scatter(1 - rows["entropy"], [place] * len(rows), s=16, color=color, alpha=0.7, linewidths=0, zorder=3)
        bound = 1 - rows["bound"].min()
        axis.plot(bound, place, marker="|", ms=14, mew=2.5, color=palette.BLACK, ls="")
        axis.plot([(1 - rows["entropy"]).min(), bound], [place, place], color=palette.GREY, lw=0.8, zorder=1)
    axis.set_xscale("log")
    axis.set_yticks(range(len(lines)), [f"{group}, {part}" for group, part in lines])
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("1 − entropy / log T        (left: a plain mean; right: a choice)")
    handles = [
        Line2D([], [], marker="o", ls="", color=palette.GREY, label="trained runs, per modality"),
        Line2D([], [], marker="|", ms=12, mew=2.5, ls="", color=palette.BLACK, label="bound for all parameters"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def word_gates(
    frame: pd.DataFrame,
    words: Sequence[str] = (),
    missing: Mapping[str, Sequence[int]] | None = None,
    marks: Mapping[str, Mapping[str, int]] | None = None,
) -> Figure:
    """Gates over the words of one utterance, one panel per modality, one line per variant.

    Args:
        frame: tidy ``variant, modality, row, value``, the valid positions.
        words: labels of the positions, where they are words.
        missing: modality to positions that were not observed; shaded.
        marks: modality to named positions; dotted lines.
    """
    modalities, variants = list(dict.fromkeys(frame["modality"])), list(dict.fromkeys(frame["variant"]))
    figure = Figure(figsize=(7.4, 1.45 * len(modalities) + 0.9), layout="constrained")
    axes = figure.subplots(len(modalities), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axis, modality in zip(axes, modalities, strict=True):
        for position in (missing or {}).get(modality, ()):
            axis.axvspan(position - 0.5, position + 0.5, color=palette.GREY, alpha=0.25, lw=0)
        _mark_words(axis, (marks or {}).get(modality, {}))
        for variant in variants:
            rows = frame[(frame["modality"] == modality) & (frame["variant"] == variant)].sort_values("row")
            axis.plot(rows["row"], rows["value"], marker="o", ms=3.5, color=_variant_color(variant), label=variant)
        axis.set(ylabel=f"{modality}\ngate")
    steps = int(frame["row"].max()) + 1
    if words:
        axes[-1].set_xticks(range(steps), words[:steps], rotation=60, ha="right", fontsize="x-small")
    else:
        axes[-1].set_xlabel("word")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, _ = axes[0].get_legend_handles_labels()
    if missing and any(len(positions) for positions in missing.values()):
        handles.append(Line2D([], [], color=palette.GREY, alpha=0.35, lw=7, label="missing word"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def _mark_words(axis, marks: Mapping[str, int]) -> None:
    """Dotted lines with names above; names close together stand at two heights."""
    previous, raised = -np.inf, False
    for name, position in sorted(marks.items(), key=lambda mark: mark[1]):
        axis.axvline(position, color=palette.GREY, ls=":", lw=1.2)
        raised = not raised and position - previous < LABEL_WORDS
        text = name + "\n" * raised
        axis.annotate(
            text, (position, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize="x-small"
        )
        previous = position


def reward_index(dependence: Mapping[str, np.ndarray], scatter: pd.DataFrame) -> Figure:
    """Whose prediction each reward reads, and the wrong reward against the intended one.

    Args:
        dependence: title to ``(B, B)``: the gradient of reward i (row) with respect to the prediction for sample j.
        scatter: columns ``model`` (one panel each), ``intended`` and ``computed``.
    """
    models = list(dict.fromkeys(scatter["model"]))
    columns = len(dependence) + len(models)
    figure = Figure(figsize=(2.55 * columns + 0.3, 2.9), layout="constrained")
    axes = figure.subplots(1, columns)
    for axis, (title, matrix) in zip(axes, dependence.items(), strict=False):
        axis.imshow(matrix > 0, cmap="Greys", vmin=0, vmax=1.4, aspect="equal")
        axis.set(title=title, xlabel="prediction of sample", ylabel="reward of sample")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.grid(False)
    low, high = scatter[["intended", "computed"]].min().min(), scatter[["intended", "computed"]].max().max()
    for axis, model in zip(axes[len(dependence) :], models, strict=True):
        rows = scatter[scatter["model"] == model]
        axis.plot([low, high], [low, high], color=palette.GREY, lw=1)
        axis.scatter(rows["intended"], rows["computed"], s=8, alpha=0.5, color=palette.VERMILLION, linewidths=0)
        correlation = rows["intended"].corr(rows["computed"])
        axis.set(title=f"{model}\ncorrelation {correlation:+.2f}", xlabel="intended reward", ylabel="as indexed")
        axis.set_box_aspect(1)
    return figure


def states_in_training(frame: pd.DataFrame) -> Figure:
    """Length of a state and mean gate of a sample in training against evaluation, with the same weights.

    Args:
        frame: tidy ``variant``, ``norm_evaluation``, ``norm_training``, ``gate_evaluation``, ``gate_training``.
    """
    figure = Figure(figsize=(6.8, 3.3), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (name, label) in zip(axes, (("norm", "length of the state"), ("gate", "mean gate")), strict=True):
        columns = [f"{name}_evaluation", f"{name}_training"]
        low, high = frame[columns].min().min(), frame[columns].max().max()
        axis.plot([low, high], [low, high], color=palette.GREY, lw=1)
        for variant, rows in frame.groupby("variant", sort=False):
            axis.scatter(
                rows[columns[0]], rows[columns[1]], s=7, alpha=0.45, linewidths=0, color=_variant_color(variant),
                label=variant,
            )  # fmt: skip
        axis.set(xlabel=f"{label}, evaluation", ylabel=f"{label}, training")
    handles = [
        Line2D([], [], marker="o", ls="", color=_variant_color(v), label=v) for v in dict.fromkeys(frame["variant"])
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


CURVES = {
    "raw/critic": "critic: |Q − target|",
    "raw/actor": "actor: −Q",
    "policy/reward": "reward",
    "policy/gate": "mean gate",
}


def policy_curves(history: pd.DataFrame) -> Figure:
    """What actor and critic learn over epochs; thin lines are seeds, where there are several.

    Args:
        history: tidy ``variant, seed, epoch, name, value`` with the names of :data:`CURVES`.
    """
    names = [name for name in CURVES if (history["name"] == name).any()]
    figure = Figure(figsize=(7.4, 2.1 * ((len(names) + 1) // 2) + 0.6), layout="constrained")
    axes = figure.subplots((len(names) + 1) // 2, 2, squeeze=False).ravel()
    variants = list(dict.fromkeys(history["variant"]))
    for axis, name in zip(axes, names, strict=False):
        for position, variant in enumerate(variants):
            rows = history[(history["name"] == name) & (history["variant"] == variant)]
            color = _variant_color(variant, position)
            for _, line in rows.groupby("seed"):
                axis.plot(line["epoch"], line["value"], color=color, lw=1.4, alpha=0.7)
        axis.set(title=CURVES[name], xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in axes[len(names) :]:
        axis.remove()
    handles = [Line2D([], [], color=_variant_color(v, i), label=v) for i, v in enumerate(variants)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def oracle_dumbbells(frame: pd.DataFrame, metrics: Mapping[str, str]) -> Figure:
    """Each run's test value at the epoch that validation chose, and the best over all epochs.

    Args:
        frame: tidy ``group, seed, metric, value, oracle``; groups are lines, seeds stand close together in them.
        metrics: metric key to axis label, one panel each.
    """
    groups = list(dict.fromkeys(frame["group"]))
    figure = Figure(figsize=(2.4 * len(metrics) + 1.7, 1.2 + 0.55 * len(groups)), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, (metric, label) in zip(axes, metrics.items(), strict=True):
        for line, group in enumerate(groups):
            rows = frame[(frame["group"] == group) & (frame["metric"] == metric)].sort_values("seed")
            for offset, (_, row) in zip(np.linspace(-0.28, 0.28, max(2, len(rows))), rows.iterrows(), strict=False):
                place = line + offset
                axis.plot([row["value"], row["oracle"]], [place, place], color=palette.GREY, lw=1, zorder=1)
                axis.plot(row["value"], place, marker="o", ms=4, color=palette.BLUE, ls="", zorder=3)
                axis.plot(
                    row["oracle"], place, marker="o", ms=4, mfc="white", color=palette.VERMILLION, ls="", zorder=2
                )
        axis.set(xlabel=label)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker="o", ls="", color=palette.BLUE, label="epoch chosen on validation data"),
        Line2D([], [], marker="o", ls="", mfc="white", color=palette.VERMILLION, label="best epoch on the test data"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _variant_color(name: str, position: int = 0) -> str:
    """The colour of the variant that the name ends in, else one of the others."""
    for variant, color in VARIANT.items():
        if name.endswith(variant):
            return color
    return OTHERS[position % len(OTHERS)]
