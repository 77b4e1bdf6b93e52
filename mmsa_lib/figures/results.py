"""Figures of results over seeds."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmsa_lib.figures import palette


def method_intervals(
    frame: pd.DataFrame, metrics: dict[str, tuple[str, float]], floors: pd.DataFrame | None = None
) -> Figure:
    """Each run as a dot, mean and 95 % interval over seeds as a bar, one panel per metric.

    Args:
        frame: tidy ``method, variant, seed, metric, value``.
        metrics: metric key to (axis label, factor), for instance ``{"acc7": ("Acc-7 (%)", 100)}``.
        floors: tidy ``baseline, metric, value``: vertical lines for what needs no method (constants, ridge).
    """
    rows = list(dict.fromkeys(zip(frame["method"], frame["variant"], strict=True)))
    figure = Figure(figsize=(2.9 * len(metrics) + 1.6, 1.3 + 0.36 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    styles = {}
    for axis, (metric, (label, factor)) in zip(axes, metrics.items(), strict=True):
        for i, (method, variant) in enumerate(rows):
            chosen = frame[(frame["method"] == method) & (frame["variant"] == variant) & (frame["metric"] == metric)]
            values = factor * chosen["value"]
            color = palette.method_color(method)
            axis.scatter(values, [i] * len(values), s=14, color=color, alpha=0.6, linewidths=0, zorder=3)
            half = _interval_half(values)
            axis.errorbar(values.mean(), i, xerr=half, fmt="|", ms=12, color=color, capsize=3, lw=1.5, zorder=2)
        if floors is not None:
            here = floors[floors["metric"] == metric]
            for dash, (_, floor) in zip(("--", ":", "-.", (0, (1, 3))), here.iterrows(), strict=False):
                axis.axvline(factor * floor["value"], color=palette.GREY, ls=dash, lw=1.2, zorder=1)
                styles[floor["baseline"]] = dash
        axis.set(xlabel=label)
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), [f"{method}, {variant}" if variant else method for method, variant in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    if styles:
        handles = [Line2D([], [], color=palette.GREY, ls=dash, label=name) for name, dash in styles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def _interval_half(values: pd.Series) -> float:
    """Half the 95 % t-interval of a mean; 0 with one value, where no interval exists."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else 0.0
