"""Figures of one training: learning curves, predictions against truth, generated labels over epochs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmsa_lib.figures import palette


def learning_curves(history: pd.DataFrame, best_epoch: int | None = None, unit: str = "") -> Figure:
    """Training and validation loss over epochs, and every weighted loss term below on a log scale.

    Args:
        history: tidy columns ``epoch, split, name, value``; ``loss/total`` and ``loss/<term>`` for split ``train``, the
            selection criterion ``loss/task`` for split ``valid``.
        best_epoch: the epoch that was kept; marked.
        unit: unit of the validation loss, for the axis label.
    """
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    train, valid = history[history["split"] == "train"], history[history["split"] == "valid"]
    total = train[train["name"] == "loss/total"]
    left.plot(total["epoch"], total["value"], color=palette.SPLIT["train"], label="training loss (sum of terms)")
    criterion = valid[valid["name"] == "loss/task"]
    left.plot(
        criterion["epoch"], criterion["value"], color=palette.SPLIT["valid"], marker="o", ms=3, label="validation"
    )
    if best_epoch is not None:
        left.axvline(best_epoch, color=palette.GREY, ls=":", label=f"kept: epoch {best_epoch}")
    left.set(xlabel="epoch", ylabel=f"loss{f' ({unit})' if unit else ''}", title="Loss", ylim=(0, None))
    left.legend()
    terms = [n for n in train["name"].unique() if n.startswith("loss/") and n != "loss/total"]
    for color, style, term in zip(_cycle(len(terms)), _dashes(len(terms)), terms, strict=True):
        rows = train[(train["name"] == term) & (train["value"] > 0)]
        right.plot(rows["epoch"], rows["value"], color=color, ls=style, label=term.removeprefix("loss/"))
    right.set(xlabel="epoch", ylabel="weighted term", title="Terms of the training loss", yscale="log")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
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
    left.set(
        xlim=(limits[0] - 0.2, limits[1] + 0.2),
        ylim=(low, high),
        xlabel=f"true {unit}",
        ylabel=f"predicted {unit}",
        title=f"mean absolute error {error:.3f}, {len(frame)} samples",
    )
    bins = np.linspace(low, high, 25)
    right.hist(frame["label"], bins=bins, color=palette.GREY, alpha=0.55, label="true")
    right.hist(frame["prediction"], bins=bins, histtype="step", lw=1.8, color=palette.BLUE, label="predicted")
    right.set(xlabel=unit, ylabel="samples", title="Do predictions span the range?")
    right.legend()
    return figure


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
    axes[-1].legend(loc="best", fontsize="x-small")
    return figure


def _cycle(count: int) -> list[str]:
    colors = [
        palette.BLUE,
        palette.ORANGE,
        palette.GREEN,
        palette.VERMILLION,
        palette.PURPLE,
        palette.SKY,
        palette.BLACK,
    ]
    return [colors[i % len(colors)] for i in range(count)]


def _dashes(count: int) -> list[str]:
    return [("-", "--", ":")[(i // 7) % 3] for i in range(count)]
