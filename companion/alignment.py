"""Notebook 04: generated labels, covariance matrices, the noise floor of their loss, its size along training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from companion import names
from mmsa_lib.evaluation.statistics import compare_seeds
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import curves


def compared(errors: pd.DataFrame, against: str) -> str:
    """What each weight of the covariance loss changes, paired over seeds, in words.

    Args:
        errors: tidy ``weight`` (a name), ``metric``, ``seed``, ``value``.
        against: the weight that the others are compared with.
    """
    effects = compare_seeds(errors, against, column="weight")
    shown = effects[effects["verdict"] != "no difference shown"]
    verdicts = ", ".join(f"{row.weight} is {row.verdict} ({row.difference:+.3f})" for row in shown.itertuples())
    return (
        f"Against {against} the error of the other {len(effects)} weights changes by "
        f"{effects['difference'].min():+.3f} to {effects['difference'].max():+.3f}, paired over {effects['n'].max()} "
        f"seeds (95 % intervals between {effects['low'].min():+.3f} and {effects['high'].max():+.3f}): "
        + (f"{verdicts}. " if verdicts else "no difference beyond seed noise. ")
    )


def generated_labels(frame: pd.DataFrame, samples: pd.DataFrame) -> Figure:
    """How generated unimodal labels leave the human label over epochs.

    Args:
        frame: tidy ``epoch, modality, quantile, value``: quantiles .1, .5, .9 of ``|generated - human|`` over samples.
        samples: tidy ``epoch, modality, sample, label, human`` for a few samples.
    """
    chosen = list(dict.fromkeys(samples["sample"]))
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    axes = figure.subplots(1, 1 + len(chosen), width_ratios=(1.5, *[1] * len(chosen)))
    for modality, rows in frame.groupby("modality", sort=False):
        wide = rows.pivot_table(index="epoch", columns="quantile", values="value")
        color = palette.MODALITY[modality]
        axes[0].plot(wide.index, wide[0.5], color=color, label=f"{modality} (median)")
        axes[0].fill_between(wide.index, wide[0.1], wide[0.9], color=color, alpha=0.15, linewidth=0)
    axes[0].set(xlabel="epoch", ylabel="|generated − human label|", title="All training samples, 10–90 %")
    axes[0].legend()
    low, high = samples["label"].min() - 0.3, samples["label"].max() + 0.3
    for axis, name in zip(axes[1:], chosen, strict=True):
        rows = samples[samples["sample"] == name]
        axis.axhline(rows["human"].iloc[0], color=palette.BLACK, lw=1, ls="--", label="human label")
        for modality, line in rows.groupby("modality", sort=False):
            axis.plot(line["epoch"], line["label"], color=palette.MODALITY[modality], label=modality)
        axis.set(xlabel="epoch", ylim=(low, high))
        axis.set_title(f"sample {name}", parse_math=False)  # identifiers of MMSA's files hold $_$
    axes[1].set_ylabel("label")
    for axis in axes:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes[-1].legend(loc="best")
    return figure


def covariance_pairs(matrices: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Covariance matrices side by side, one row per training, one column per modality and their difference last.

    Args:
        matrices: row title to two named ``(d, d)`` matrices, for instance
            ``{"lambda = 0": {"audio": Ca, "vision": Cv}, …}``.
    """
    rows = list(matrices)
    figure = Figure(figsize=(8.2, 2.6 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 3, squeeze=False)
    for line, title in zip(axes, rows, strict=True):
        (first, a), (second, b) = matrices[title].items()
        scale = max(np.abs(a).max(), np.abs(b).max()) or 1.0
        panels = {f"{first}": a, f"{second}": b, f"{first} − {second}": a - b}
        for axis, (name, matrix) in zip(line, panels.items(), strict=True):
            image = axis.imshow(matrix, cmap=palette.DIVERGING, vmin=-scale, vmax=scale, interpolation="nearest")
            axis.set(xticks=[], yticks=[], title=name)
        line[0].set_ylabel(title)
        figure.colorbar(image, ax=list(line), shrink=0.85, label="covariance")
    return figure


def noise_floor(measured: pd.DataFrame, formula: pd.DataFrame, signal: Mapping[str, float]) -> Figure:
    """The covariance loss of two batches from the *same* distribution, against batch size.

    Args:
        measured: columns ``batch_size, draw, loss``: Monte-Carlo draws.
        formula: columns ``batch_size, loss``: the expected value.
        signal: labelled horizontal lines: values of the loss that do mean something.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    grouped = measured.groupby("batch_size")["loss"]
    low, middle, high = grouped.quantile(0.05), grouped.mean(), grouped.quantile(0.95)
    axis.fill_between(middle.index, low, high, color=palette.BLUE, alpha=0.2, linewidth=0, label="90 % of draws")
    axis.plot(middle.index, middle, color=palette.BLUE, marker="o", ls="", label="mean of draws, no difference at all")
    axis.plot(formula["batch_size"], formula["loss"], color=palette.BLACK, lw=1, label="formula")
    for color, (label, value) in zip((palette.VERMILLION, palette.GREEN, palette.PURPLE), signal.items(), strict=False):
        axis.axhline(value, color=color, ls="--", label=label)
    axis.set(xscale="log", yscale="log", title="Noise floor")
    axis.set(xlabel="samples per covariance (B)", ylabel="covariance loss")
    sizes = sorted(measured["batch_size"].unique())
    axis.set_xticks(sizes, [str(s) for s in sizes])
    axis.minorticks_off()
    axis.legend()
    return figure


def loss_sizes(frame: pd.DataFrame) -> Figure:
    """Raw and weighted covariance loss over epochs for several weights, beside the task loss.

    Args:
        frame: tidy ``weight, epoch, name, value`` with names ``raw covariance``, ``weighted covariance`` and ``task``.
    """
    shown = frame[frame["value"] > 0].rename(columns={"name": "panel", "epoch": "x"})
    shown = shown.assign(line="λ = " + shown["weight"].map("{:g}".format))
    colors = (palette.BLACK, palette.BLUE, palette.GREEN, palette.ORANGE, palette.VERMILLION)
    lines = [f"λ = {weight:g}" for weight in sorted(frame["weight"].unique())]
    styles = {name: {"color": color} for name, color in zip(lines, colors, strict=False)}
    ordered = names.in_order(shown, "panel", panel=["raw covariance", "weighted covariance", "task"])
    return curves(ordered, styles, "epoch", "training loss", log=True, integer=True, sharey=False, width=2.8)
