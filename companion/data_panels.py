"""Figures of data sets: labels, lengths, missing parts, one utterance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmsa_lib.figures import palette

SPLITS = ("train", "valid", "test")


def label_histograms(frame: pd.DataFrame) -> Figure:
    """Share of samples per label bin, by split, one panel per data set.

    Args:
        frame: tidy ``dataset, split, step, label, samples``: counts of the labels nearest to each multiple of ``step``.
    """
    names = list(dict.fromkeys(frame["dataset"]))
    figure = Figure(figsize=(2.6 * len(names) + 0.3, 2.8), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        chosen = frame[frame["dataset"] == name]
        step = float(chosen["step"].iloc[0])
        grid = np.arange(chosen["label"].min(), chosen["label"].max() + step / 2, step)
        for split in SPLITS:
            rows = chosen[chosen["split"] == split]
            if rows.empty:
                continue
            counts = np.zeros(len(grid))
            counts[np.rint((rows["label"].to_numpy() - grid[0]) / step).astype(int)] = rows["samples"]
            edges = np.append(grid - step / 2, grid[-1] + step / 2)
            label = f"{split} ({int(counts.sum()):,})"
            axis.stairs(100 * counts / counts.sum(), edges, color=palette.SPLIT[split], lw=1.4, label=label)
        axis.set(title=name, xlabel="sentiment label", ylim=(0, None))
        axis.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.24), handlelength=1.2)
    axes[0].set_ylabel("share of the split (%)")
    return figure


def length_distribution(frame: pd.DataFrame, longest: int = 60) -> Figure:
    """Cumulative share of samples up to each length, one line per data set and split.

    Args:
        frame: tidy ``dataset, split, unit, length, samples``.
        longest: where the axis ends, in words or steps.
    """
    figure = Figure(figsize=(6.6, 3.0), layout="constrained")
    axis = figure.subplots()
    styles = {"train": "-", "valid": ":", "test": "--"}
    colors = (palette.BLUE, palette.ORANGE, palette.GREEN, palette.VERMILLION, palette.PURPLE)
    for color, (name, rows) in zip(colors, frame.groupby("dataset", sort=False), strict=False):
        for split, part in rows.groupby("split", sort=False):
            part = part.sort_values("length")
            share = 100 * part["samples"].cumsum() / part["samples"].sum()
            label = f"{name} ({part['unit'].iloc[0]})" if split == "train" else None
            axis.step(part["length"], share, where="post", color=color, ls=styles[split], label=label)
    axis.set(
        xlabel="words (steps) per sample", ylabel="samples up to this length (%)", ylim=(0, 101), xlim=(0, longest)
    )
    axis.set_title("solid: train, dotted: valid, dashed: test", fontsize="small")
    axis.legend(fontsize="x-small", loc="lower right")
    return figure


def availability(frame: pd.DataFrame) -> Figure:
    """Share of frames that are observed, per data set, split and modality.

    Args:
        frame: tidy ``dataset, split, modality, observed`` with shares in [0, 1].
    """
    wide = frame.pivot_table(index=["dataset", "split"], columns="modality", values="observed", sort=False)
    wide = wide[[m for m in ("text", "audio", "vision") if m in wide]]
    figure = Figure(figsize=(5.6, 0.9 + 0.34 * len(wide)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(wide.to_numpy(dtype=float), vmin=0, vmax=1, cmap=palette.SEQUENTIAL, aspect="auto")
    for i in range(len(wide)):
        for j in range(wide.shape[1]):
            value = wide.iloc[i, j]
            text = "absent" if pd.isna(value) else f"{100 * value:.1f} %"
            axis.text(j, i, text, ha="center", va="center", color="black" if value > 0.6 or pd.isna(value) else "white")
    axis.set_xticks(range(wide.shape[1]), list(wide.columns))
    axis.set_yticks(range(len(wide)), [f"{name}, {split}" for name, split in wide.index])
    axis.tick_params(length=0)
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="observed share of frames")
    return figure


def utterance(
    features: Mapping[str, np.ndarray], observed: Mapping[str, np.ndarray], title: str = "", rows: int = 40
) -> Figure:
    """One utterance as aligned sequences: features over steps, one panel per modality; missing steps hatched.

    Args:
        features: modality to ``(T, d)``, the valid steps only.
        observed: modality to ``(T,)`` bool.
        title: figure title.
        rows: how many features of each modality are drawn, the first ones.
    """
    figure = Figure(figsize=(8.4, 1.5 * len(features) + 0.5), layout="constrained")
    axes = figure.subplots(len(features), 1, squeeze=False)[:, 0]
    for axis, (modality, values) in zip(axes, features.items(), strict=True):
        scale = np.quantile(np.abs(values[observed[modality]]), 0.98) if observed[modality].any() else 1.0
        image = axis.imshow(
            values[:, :rows].T, aspect="auto", cmap=palette.DIVERGING, vmin=-scale, vmax=scale, interpolation="nearest"
        )
        for step in np.flatnonzero(~observed[modality]):
            axis.axvspan(step - 0.5, step + 0.5, facecolor="white", edgecolor=palette.GREY, hatch="///", linewidth=0)
        shown = min(rows, values.shape[1])
        axis.set_ylabel(f"{modality}\n{shown} of {values.shape[1]}\nfeatures")
        axis.set_yticks([])
        axis.set_xticks(range(0, values.shape[0], max(1, values.shape[0] // 10)))
        axis.grid(False)
        figure.colorbar(image, ax=axis, label="value")
    axes[-1].set_xlabel("step (word)")
    if any((~mask).any() for mask in observed.values()):
        patch = Patch(facecolor="white", edgecolor=palette.GREY, hatch="///", label="missing")
        axes[0].legend(handles=[patch], loc="lower right", bbox_to_anchor=(1, 1), fontsize="small")
    if title:
        axes[0].set_title(title, loc="left", parse_math=False)  # identifiers of MMSA's files hold $_$
    return figure


def bayes_errors(frame: pd.DataFrame, metric: str, label: str, reference: Mapping[str, float] | None = None) -> Figure:
    """What the best possible predictor reaches from each subset of modalities.

    Args:
        frame: tidy ``modalities`` (subset name) and the column ``metric``.
        metric: column to draw.
        label: axis label with unit.
        reference: labelled vertical lines (for instance a constant predictor).
    """
    figure = Figure(figsize=(6.2, 0.8 + 0.32 * len(frame)), layout="constrained")
    axis = figure.subplots()
    axis.barh(frame["modalities"], frame[metric], color=palette.SKY)
    for i, value in enumerate(frame[metric]):
        axis.text(value, i, f" {value:.2f}", va="center", fontsize="small")
    for color, (name, value) in zip((palette.GREY, palette.VERMILLION), (reference or {}).items(), strict=False):
        axis.axvline(value, color=color, ls="--", label=name)
    if reference:
        axis.legend(fontsize="small", loc="lower right")
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel=label, title="Best possible prediction from what is available")
    return figure
