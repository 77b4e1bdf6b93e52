"""Figures of hierarchical representation learning: collapse, weights, translations, agreement, parts, switches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mmsa_lib.figures import palette

SCALES = {1: palette.BLUE, 2: palette.ORANGE, 3: palette.GREEN}
LINES = (palette.VERMILLION, palette.BLUE, palette.GREEN, palette.PURPLE)
PARTS = {
    "sentiment": ("Q, sentiment-relevant", palette.BLUE, "o", -0.15),
    "specific": ("U, specific", palette.ORANGE, "s", 0.15),
}
"""Title, colour and marker of a part, and its place above or below the middle of its line."""

GUARD = 0.01
"""Share of the spread at the start under which a run counts as failed."""

SHORT = {
    "lambda_frf=": "FRF ",
    "lambda_hmi=": "HMI ",
    "lambda_hal=": "HAL ",
    "lambda_kl=": "KL ",
    "frf_warmup=": "warm-up ",
}


def weights_grid(frame: pd.DataFrame, label: str = "validation MAE ↓") -> Figure:
    """Each run of a grid over weights as a dot, one line per setting, one panel per data set, beside the constant.

    Args:
        frame: tidy ``dataset, weights, chosen, seed, stochastic_mae, complete_mae, constant, error``. Failed runs have
            an error and no number; they are crosses at the constant.
        label: of the axis.
    """
    sets, settings = list(dict.fromkeys(frame["dataset"])), list(dict.fromkeys(frame["weights"]))
    figure = Figure(figsize=(2.5 * len(sets) + 2.2, 1.5 + 0.36 * len(settings)), layout="constrained")
    axes = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    for axis, name in zip(axes, sets, strict=True):
        for place, setting in enumerate(settings):
            rows = frame[(frame["dataset"] == name) & (frame["weights"] == setting)]
            bad = rows["error"].notna() & (rows["error"] != "")
            for column, offset, style in (
                ("complete_mae", 0.17, {"mfc": "white", "color": palette.SKY}),
                ("stochastic_mae", -0.17, {"color": palette.BLUE}),
            ):
                values = rows.loc[~bad, column]
                axis.plot(values, [place + offset] * len(values), marker="o", ms=4.5, ls="", **style)
                axis.plot(values.mean(), place + offset, marker="|", ms=11, mew=1.8, color=style["color"], ls="")
            axis.plot(
                rows.loc[bad, "constant"], [place] * int(bad.sum()), marker="X", ms=7, color=palette.VERMILLION, ls=""
            )
        axis.axvline(frame.loc[frame["dataset"] == name, "constant"].iloc[0], color=palette.GREY, ls="--", zorder=1)
        axis.set(title=name, xlabel=label)
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(settings)), [short(setting) for setting in settings])
    axes[0].set_ylim(len(settings) - 0.5, -0.5)
    chosen = set(frame.loc[frame["chosen"], "weights"])
    for text, setting in zip(axes[0].get_yticklabels(), settings, strict=True):
        text.set_fontweight("bold" if setting in chosen else "normal")
    handles = [
        Line2D([], [], marker="o", ls="", color=palette.BLUE, label="incomplete validation (selects the epoch)"),
        Line2D([], [], marker="o", ls="", mfc="white", color=palette.SKY, label="complete validation"),
        Line2D([], [], marker="X", ls="", ms=7, color=palette.VERMILLION, label="run failed: states collapsed"),
        Line2D([], [], ls="--", color=palette.GREY, label="constant"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def collapse_curves(panels: Mapping[str, pd.DataFrame], xlabels: Mapping[str, str]) -> Figure:
    """Spread of Z over samples, relative to its start, on a log axis; the guard's limit is dotted.

    Args:
        panels: title to tidy ``line, run, x, share``: one colour per ``line``, in their order, one curve per ``run``.
            A curve that ends before the last one of its panel belongs to a run that failed; a cross marks its end.
        xlabels: title to the name of x.
    """
    figure = Figure(figsize=(2.75 * len(panels) + 0.4, 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    lines = list(dict.fromkeys(name for frame in panels.values() for name in frame["line"]))
    failed = False
    for axis, (title, frame) in zip(axes, panels.items(), strict=True):
        for (line, _), rows in frame.groupby(["line", "run"], sort=False):
            color = LINES[lines.index(line) % len(LINES)]
            axis.plot(rows["x"], rows["share"], color=color, lw=1.5, alpha=0.8)
            if rows["x"].max() < frame["x"].max():
                end, failed = rows.iloc[-1], True
                axis.plot(end["x"], end["share"], marker="X", ms=7, color=color, ls="")
        axis.axhline(GUARD, color=palette.GREY, ls=":")
        axis.set(title=title, xlabel=xlabels[title], yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes[0].set_ylabel("spread of Z / its start")
    handles = [Line2D([], [], color=LINES[i % len(LINES)], label=name) for i, name in enumerate(lines)]
    handles.append(Line2D([], [], color=palette.GREY, ls=":", label="limit of the guard"))
    if failed:
        handles.append(Line2D([], [], marker="X", ls="", ms=7, color=palette.BLACK, label="failed after this epoch"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize="small")
    return figure


def pair_matrices(panels: Mapping[str, pd.DataFrame], columns: int = 3) -> Figure:
    """Numbers of ordered pairs of modalities as matrices: the source of Q down, the target (of U) across.

    Args:
        panels: title to ``source, target, value``. Colours go from 0 to 1; what lies outside is printed as it is.
        columns: panels side by side.
    """
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.55 * columns + 0.7, 2.35 * lines + 0.2), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for position, (axis, (title, frame)) in enumerate(zip(axes, panels.items(), strict=False)):
        wide = frame.pivot_table(index="source", columns="target", values="value", sort=False, dropna=False)
        image = axis.imshow(wide.to_numpy(), cmap=palette.SEQUENTIAL, vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            text = "–" if np.isnan(value) else f"{value:.2f}"
            axis.text(column, row, text, ha="center", va="center", color="white" if value < 0.6 else "black")
        at_left, lowest = position % columns == 0, position + columns >= len(panels)
        axis.set_xticks([], [])
        axis.set_yticks([], [])
        if lowest:
            axis.set_xticks(range(wide.shape[1]), wide.columns)
        if at_left:
            axis.set_yticks(range(wide.shape[0]), wide.index)
        axis.set_ylabel("Q from" if at_left else "")
        axis.set_xlabel("U from, and target" if lowest else "")
        axis.set_title(title, fontsize="medium")
        axis.tick_params(length=0)
        axis.grid(False)
    for axis in axes[len(panels) :]:
        axis.remove()
    figure.colorbar(image, ax=list(axes[: len(panels)]), shrink=0.7, aspect=25)
    return figure


def agreement_curves(frame: pd.DataFrame, measures: Mapping[str, str]) -> Figure:
    """How alike student and teacher become over epochs: a colour per scale, a dash per input of the student.

    Args:
        frame: tidy ``epoch, input, scale, measure, value``; ``cka_shuffled`` is drawn beside ``cka`` as chance.
        measures: measure to panel title, in order.
    """
    figure = Figure(figsize=(2.9 * len(measures) + 0.4, 3.2), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    inputs = list(dict.fromkeys(frame["input"]))
    dashes = dict(zip(inputs, ("-", "--", ":"), strict=False))
    for axis, (measure, title) in zip(axes, measures.items(), strict=True):
        rows = frame[frame["measure"] == measure]
        for (kind, scale), line in rows.groupby(["input", "scale"], sort=False):
            axis.plot(line["epoch"], line["value"], color=SCALES[scale], ls=dashes[kind])
        if measure == "cka":
            chance = frame[frame["measure"] == "cka_shuffled"].groupby("epoch")["value"].mean()
            axis.plot(chance.index, chance, color=palette.GREY, ls="-.", lw=1.2)
        axis.set(title=title, xlabel="epoch of the student")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    handles = [Line2D([], [], color=color, label=f"$E_{scale}$") for scale, color in SCALES.items()]
    handles += [Line2D([], [], color=palette.BLACK, ls=dash, label=f"{kind} input") for kind, dash in dashes.items()]
    if "cka" in measures:
        handles.append(Line2D([], [], color=palette.GREY, ls="-.", label="CKA of shuffled samples"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def agreement_lines(frame: pd.DataFrame, label: str, names: Sequence[str] = ()) -> Figure:
    """Agreement with the teacher before and after training, one line per switch, one panel per scale, dots are seeds.

    Args:
        frame: tidy ``switch, seed, when, scale, value`` with ``when`` ``before``, ``after`` and ``shuffled``.
        label: of the axis.
        names: switches in order, all by default.
    """
    names = list(names) or list(dict.fromkeys(frame["switch"]))
    scales = sorted(frame["scale"].unique())
    figure = Figure(figsize=(2.4 * len(scales) + 1.7, 1.4 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(scales), squeeze=False, sharey=True)[0]
    marks = {
        "shuffled": {"marker": "|", "ms": 9, "mew": 1.6, "color": palette.GREY},
        "before": {"marker": "o", "ms": 4.5, "mfc": "white", "color": palette.BLACK},
        "after": {"marker": "o", "ms": 4.5, "color": palette.BLUE},
    }
    for axis, scale in zip(axes, scales, strict=True):
        for place, name in enumerate(names):
            rows = frame[(frame["scale"] == scale) & (frame["switch"] == name)]
            for when, style in marks.items():
                values = rows.loc[rows["when"] == when, "value"]
                axis.plot(values, [place] * len(values), ls="", alpha=0.8, **style)
        axis.set(title=f"$E_{scale}$", xlabel=label, xlim=(-0.03, 1.03))
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    titles = {"before": "before training", "after": "after training", "shuffled": "after, samples shuffled"}
    handles = [Line2D([], [], ls="", label=title, **marks[when]) for when, title in titles.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize="small")
    return figure


def part_probes(frame: pd.DataFrame) -> Figure:
    """What can be read from Q and from U: one panel per network and input, one line per factor and modality.

    Args:
        frame: tidy ``panel, modality, part, factor, r2``; several rows of one mark (seeds) are dots, the mean is large.
            Values below 0 are drawn as 0.
    """
    panels = list(dict.fromkeys(frame["panel"]))
    lines = list(dict.fromkeys(zip(frame["factor"], frame["modality"], strict=True)))
    lines = sorted(lines, key=lambda line: list(dict.fromkeys(frame["factor"])).index(line[0]))
    figure = Figure(figsize=(2.35 * len(panels) + 1.6, 1.2 + 0.24 * len(lines)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for place, (factor, modality) in enumerate(lines):
            rows = frame[(frame["panel"] == panel) & (frame["factor"] == factor) & (frame["modality"] == modality)]
            middle = {}
            for part, (_, color, marker, offset) in PARTS.items():
                values = rows.loc[rows["part"] == part, "r2"].clip(lower=0)
                middle[place + offset] = values.mean()
                if len(values) > 1:
                    axis.scatter(values, [place + offset] * len(values), s=6, color=color, alpha=0.5, linewidths=0)
                axis.plot(values.mean(), place + offset, marker=marker, ms=5, color=color, ls="", zorder=3)
            axis.plot(list(middle.values()), list(middle), color=palette.GREY, lw=1, zorder=1)
        axis.set(title=panel, xlabel="R², out of sample", xlim=(-0.03, 1.0))
        axis.grid(axis="y", visible=False)
        for place in range(1, len(lines)):
            if lines[place][0] != lines[place - 1][0]:
                axis.axhline(place - 0.5, color=palette.GREY, lw=0.6)
    axes[0].set_yticks(range(len(lines)), [f"{factor}, {modality}" for factor, modality in lines])
    axes[0].set_ylim(len(lines) - 0.5, -0.5)
    handles = [
        Line2D([], [], marker=marker, ls="", color=color, label=title) for title, color, marker, _ in PARTS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small")
    return figure


def effect_panels(effects: pd.DataFrame, label: str, title: str = "") -> Figure:
    """Paired differences with 95 % intervals, several measures side by side; coloured where a difference is shown.

    Args:
        effects: tidy ``panel, switch, n, difference, low, high, verdict``; lower is better in all panels.
        label: what is subtracted from what.
        title: figure title.
    """
    panels, names = list(dict.fromkeys(effects["panel"])), list(dict.fromkeys(effects["switch"]))
    figure = Figure(figsize=(2.5 * len(panels) + 1.8, 1.5 + 0.28 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    colors = {"worse": palette.VERMILLION, "better": palette.GREEN}
    for axis, panel in zip(axes, panels, strict=True):
        axis.axvline(0, color=palette.BLACK, lw=1)
        for _, row in effects[effects["panel"] == panel].iterrows():
            place, color = names.index(row["switch"]), colors.get(row["verdict"], palette.GREY)
            axis.plot([row["low"], row["high"]], [place, place], color=color, lw=1.6, solid_capstyle="butt")
            fill = color if row["verdict"] in colors else "white"
            axis.plot(row["difference"], place, marker="o", ms=6, color=color, mfc=fill, ls="")
        axis.set(title=panel, xlabel=f"← better   {label}   worse →")
        axis.xaxis.label.set_size("small")
        axis.grid(axis="y", visible=False)
    counts = effects.groupby("switch")["n"].min()
    axes[0].set_yticks(range(len(names)), [f"{name}  (n={counts[name]})" for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    if title:
        figure.suptitle(title)
    return figure


def short(weights: str) -> str:
    """Weights as a label, for instance ``"FRF 0.1, HAL 0.1"``."""
    for name, label in SHORT.items():
        weights = weights.replace(name, label)
    return weights.replace("; ", ", ")
