"""Figures of covariance alignment: the matrices, the noise floor of the loss, its size along training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmsa_lib.figures import palette


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
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="samples per covariance (B)",
        ylabel="covariance loss",
        title="Noise floor",
    )
    sizes = sorted(measured["batch_size"].unique())
    axis.set_xticks(sizes, [str(s) for s in sizes])
    axis.minorticks_off()
    axis.legend(fontsize="small")
    return figure


def loss_sizes(frame: pd.DataFrame) -> Figure:
    """Raw and weighted covariance loss over epochs for several weights, beside the task loss.

    Args:
        frame: tidy ``weight, epoch, name, value`` with names ``raw covariance``, ``weighted covariance`` and ``task``.
    """
    weights = sorted(frame["weight"].unique())
    figure = Figure(figsize=(8.4, 3.0), layout="constrained")
    axes = figure.subplots(1, 3, sharex=True)
    colors = [palette.BLACK, palette.BLUE, palette.GREEN, palette.ORANGE, palette.VERMILLION]
    for axis, name in zip(axes, ("raw covariance", "weighted covariance", "task"), strict=True):
        for color, weight in zip(colors, weights, strict=False):
            rows = frame[(frame["weight"] == weight) & (frame["name"] == name) & (frame["value"] > 0)]
            if len(rows):
                axis.plot(rows["epoch"], rows["value"], color=color, label=f"{weight:g}")
        axis.set(title=name, xlabel="epoch", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("training loss")
    figure.legend(*axes[0].get_legend_handles_labels(), title="weight λ", loc="outside right center")
    return figure
