"""Figures of the missing-modality benchmark: curves per method, summaries, paired effects, spread of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmsa_lib.figures import palette

TRAINING = {"plain": palette.ORANGE, "augmented": palette.BLUE}
TRAINING_LABEL = {"plain": "trained on complete samples", "augmented": "trained with missing samples"}
TRAINING_MARKER = {"plain": "s", "augmented": "o"}

VERDICT = {"worse": palette.VERMILLION, "better": palette.GREEN, "no effect shown": palette.GREY}

OTHER = "#B5B5B5"
"""Methods of a paper that are not named apart."""


def method_curves(
    frame: pd.DataFrame,
    label: str,
    factor: float = 1.0,
    *,
    floor: tuple[str, float] | None = None,
    control: str = "",
    title: str = "",
    columns: int = 3,
) -> Figure:
    """A metric against the share of frames missing, one panel per method, plain and augmented training in each.

    Args:
        frame: tidy ``name, training, level, mean, low, high``: mean and 95 % interval over seeds.
        label: of the metric, with its unit and direction.
        factor: applied to all values (100 for per cent).
        floor: name and value of what a constant scores at every rate.
        control: name of the method whose augmented curve stands in every other panel, dotted.
        title: figure title.
        columns: panels side by side.
    """
    names = list(dict.fromkeys(frame["name"]))
    figure, axes = _panels(len(names), min(columns, len(names)), width=2.05, height=1.35)
    reference = _curve(frame, control, "augmented")
    for axis, name in zip(axes, names, strict=True):
        if floor:
            axis.axhline(factor * floor[1], color=palette.GREY, ls="--", lw=1.1, zorder=1)
        if name != control and len(reference):
            axis.plot(reference["rate"], factor * reference["mean"], color=palette.BLACK, ls=":", lw=1.3, zorder=2)
        for training, color in TRAINING.items():
            part = _curve(frame, name, training)
            if part.empty:
                continue
            axis.fill_between(
                part["rate"], factor * part["low"], factor * part["high"], color=color, alpha=0.22, lw=0
            )  # fmt: skip
            axis.plot(
                part["rate"], factor * part["mean"], color=color, marker=TRAINING_MARKER[training], ms=2.8, lw=1.4
            )
        axis.set_title(name, fontsize="small")
    _outer_labels(axes, columns, "share of frames missing", label)
    handles = [_line(TRAINING[t], TRAINING_LABEL[t], marker=TRAINING_MARKER[t]) for t in TRAINING]
    if len(reference):
        handles.append(Line2D([], [], color=palette.BLACK, ls=":", lw=1.3, label=f"{control}, with missing samples"))
    if floor:
        handles.append(Line2D([], [], color=palette.GREY, ls="--", lw=1.1, label=floor[0]))
    _legend(figure, handles, 2)
    if title:
        figure.suptitle(title)
    return figure


def overview_curves(
    frame: pd.DataFrame,
    label: str,
    factor: float = 1.0,
    floors: Mapping[str, float] | None = None,
    *,
    xlabel: str = "share of frames missing",
) -> Figure:
    """All methods in one panel per data set (down) and training (across); means over seeds, without bands.

    Args:
        frame: tidy ``dataset, method, name, training, level, mean``.
        label: of the metric, with its unit and direction.
        factor: applied to all values (100 for per cent).
        floors: data set to what a constant scores.
        xlabel: what the levels are.
    """
    figure, panels, handles = _by_training(frame, "mean", label, factor, xlabel)
    for (dataset, _), axis in panels.items():
        if floors:
            axis.axhline(factor * floors[dataset], color=palette.GREY, ls="--", lw=1.2, zorder=1)
    if floors:
        handles.append(Line2D([], [], color=palette.GREY, ls="--", lw=1.2, label="best constant"))
    _legend(figure, handles, 3)
    return figure


def summary_grid(
    frame: pd.DataFrame, label: str, factor: float = 1.0, floors: Mapping[str, float] | None = None
) -> Figure:
    """Summaries down, data sets across; per method its plain and augmented runs with mean and 95 % interval.

    Args:
        frame: tidy ``dataset, summary, name, training, n, mean, low, high``, the summaries with readable names. Fewer
            runs than the others have are written beside the interval.
        label: of the metric, with its unit and direction.
        factor: applied to all values (100 for per cent).
        floors: data set to what a constant scores.
    """
    names = list(dict.fromkeys(frame["name"]))
    figure, panels = _summary_panels(frame, names, label, width=2.35, height=0.45 + 0.2 * len(names))
    for axis, dataset, part in panels:
        if floors:
            axis.axvline(factor * floors[dataset], color=palette.GREY, ls="--", lw=1.2, zorder=1)
        for row in part.itertuples():
            height = names.index(row.name) + (0.15 if row.training == "augmented" else -0.15)
            color = TRAINING[row.training]
            axis.plot([factor * row.low, factor * row.high], [height, height], color=color, lw=1.5)
            axis.plot(factor * row.mean, height, marker=TRAINING_MARKER[row.training], ms=3.6, color=color, ls="")
            _count(axis, row.n, frame["n"].max(), factor * row.low, height)
    handles = [_line(TRAINING[t], TRAINING_LABEL[t], marker=TRAINING_MARKER[t]) for t in TRAINING]
    if floors:
        handles.append(Line2D([], [], color=palette.GREY, ls="--", lw=1.2, label="best constant"))
    _legend(figure, handles, 3)
    return figure


def effect_panels(
    effects: pd.DataFrame, label: str, factor: float = 1.0, *, higher_is_better: bool = False, title: str = ""
) -> Figure:
    """Paired differences with 95 % intervals, filled and coloured where a difference is shown; kinds down, data across.

    Args:
        effects: columns ``dataset, summary, name, n, difference, low, high, verdict``, as
            :mod:`mmsa_lib.evaluation.missing_effects` returns them, with readable names.
        label: what is subtracted from what.
        factor: applied to all values (100 for per cent).
        higher_is_better: direction of the metric.
        title: figure title.
    """
    names = list(dict.fromkeys(effects["name"]))
    figure, panels = _summary_panels(effects, names, label, width=2.05, height=0.4 + 0.15 * len(names))
    for axis, _, part in panels:
        axis.axvline(0, color=palette.BLACK, lw=0.9)
        for row in part.itertuples():
            color, height = VERDICT[row.verdict], names.index(row.name)
            fill = "white" if row.verdict == "no effect shown" else color
            axis.plot([factor * row.low, factor * row.high], [height, height], color=color, lw=1.5)
            axis.plot(factor * row.difference, height, marker="o", ms=5, color=color, mfc=fill, ls="")
            _count(axis, row.n, effects["n"].max(), factor * row.low, height)
    sides = ("worse", "better") if higher_is_better else ("better", "worse")
    handles = [
        Line2D([], [], marker="o", ls="", color=VERDICT["better"], label=f"better ({'←→'[sides.index('better')]})"),
        Line2D([], [], marker="o", ls="", color=VERDICT["worse"], label=f"worse ({'←→'[sides.index('worse')]})"),
        Line2D([], [], marker="o", ls="", color=palette.GREY, mfc="white", label="no effect shown"),
    ]
    _legend(figure, handles, 3)
    if title:
        figure.suptitle(title)
    return figure


def spread_curves(frame: pd.DataFrame, label: str = "sd of the predictions") -> Figure:
    """How far predictions of a model differ between samples, against the share of frames missing.

    A white mark: every run answers with one class for all samples. Data sets down, training across.

    Args:
        frame: tidy ``dataset, method, name, training, level, sd, one_class``: means over seeds (``one_class`` is then
            the share of the runs).
        label: of the ordinate.
    """
    figure, panels, handles = _by_training(frame, "sd", label)
    styles = _styles(frame)
    for (dataset, training), axis in panels.items():
        constant = frame[(frame["dataset"] == dataset) & (frame["training"] == training) & (frame["one_class"] == 1)]
        for row in constant.itertuples():
            style = {**styles[row.name], "ls": "", "mfc": "white", "ms": 4.5, "zorder": 4}
            axis.plot(float(row.level), row.sd, **style)
        axis.set_ylim(bottom=0)
    handles.append(
        Line2D([], [], marker="o", mfc="white", color=palette.GREY, ls="", label="one class for all samples")
    )
    _legend(figure, handles, 3)
    return figure


def printed_against_constant(frame: pd.DataFrame, floors: Mapping[str, float], highlight: str, label: str) -> Figure:
    """Cells of a paper's table beside what a constant answer scores, one panel per column group.

    Args:
        frame: tidy ``group, setting, method, value, floor``; settings in their order.
        floors: further constants per group, name to value, such as other averagings; thin lines.
        highlight: the method whose cells are coloured.
        label: of the ordinate.
    """
    groups, settings = list(dict.fromkeys(frame["group"])), list(dict.fromkeys(frame["setting"]))
    figure, axes = _panels(len(groups), min(4, len(groups)), width=2.1, height=2.5, sharey=True)
    for axis, group in zip(axes, groups, strict=True):
        part = frame[frame["group"] == group]
        places = part["setting"].map(settings.index)
        mine = part["method"] == highlight
        axis.scatter(places[~mine], part.loc[~mine, "value"], s=13, color=OTHER, linewidths=0)
        axis.scatter(places[mine], part.loc[mine, "value"], s=24, color=palette.BLUE, linewidths=0, zorder=3)
        axis.axhline(part["floor"].iloc[0], color=palette.VERMILLION, lw=1.5)
        if group in floors:
            axis.axhline(floors[group], color=palette.VERMILLION, lw=1, ls=":")
        axis.set_title(group)
        axis.set_xticks(range(len(settings)), settings, rotation=60, fontsize="x-small")
    axes[0].set_ylabel(label)
    handles = [
        Line2D([], [], marker="o", ls="", color=palette.BLUE, label=f"{highlight}, printed"),
        Line2D([], [], marker="o", ls="", color=OTHER, label="other methods, printed"),
        Line2D([], [], color=palette.VERMILLION, lw=1.5, label="“never this emotion”, weighted F1"),
    ]
    if floors:
        handles.append(Line2D([], [], color=palette.VERMILLION, lw=1, ls=":", label="the same, macro F1"))
    _legend(figure, handles, 2)
    return figure


def _by_training(
    frame: pd.DataFrame, value: str, label: str, factor: float = 1.0, xlabel: str = "share of frames missing"
):
    """Data sets down, trainings across, one line per method: the figure, its axes by both, and the handles."""
    datasets = list(dict.fromkeys(frame["dataset"]))
    figure, axes = _panels(2 * len(datasets), 2, width=3.3, height=1.9, sharey="row")
    panels = dict(zip(((d, t) for d in datasets for t in TRAINING), axes, strict=True))
    styles = _styles(frame)
    for (dataset, training), axis in panels.items():
        part = frame[frame["dataset"] == dataset]
        for name, style in styles.items():
            line = _curve(part, name, training)
            if len(line):
                axis.plot(line["rate"], factor * line[value], ms=2.6, lw=1.2, **style)
        axis.set_title(f"{dataset}, {TRAINING_LABEL[training]}", fontsize="small")
    _outer_labels(axes, 2, xlabel, label)
    return figure, panels, [Line2D([], [], lw=1.2, ms=4, label=name, **style) for name, style in styles.items()]


def _summary_panels(frame: pd.DataFrame, names: list[str], label: str, width: float, height: float):
    """A figure with summaries down and data sets across, and per panel its axis, its data set and its rows."""
    datasets, summaries = list(dict.fromkeys(frame["dataset"])), list(dict.fromkeys(frame["summary"]))
    figure, axes = _panels(
        len(datasets) * len(summaries), len(datasets), width=width, height=height, margin=1.4, sharex="col"
    )
    panels = []
    for place, (summary, dataset) in enumerate((s, d) for s in summaries for d in datasets):
        axis = axes[place]
        _names(axis, names, shown=place % len(datasets) == 0)
        axis.set_title(f"{dataset}: {summary}" if place < len(datasets) else summary, fontsize="small")
        if place >= len(datasets) * (len(summaries) - 1):
            axis.set_xlabel(label)
        panels.append((axis, dataset, frame[(frame["dataset"] == dataset) & (frame["summary"] == summary)]))
    return figure, panels


def _panels(count: int, columns: int, width: float, height: float, margin: float = 0.4, **shared):
    """A figure and ``count`` axes in lines of ``columns``; all have one scale where nothing else is asked for."""
    lines = -(-count // columns)
    figure = Figure(figsize=(width * columns + margin, (height + 0.3) * lines + 0.9), layout="constrained")
    shared = {"sharex": True, "sharey": True, **shared} if "sharex" not in shared else shared
    axes = figure.subplots(lines, columns, squeeze=False, **shared).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _outer_labels(axes: Sequence, columns: int, xlabel: str, ylabel: str) -> None:
    for place, axis in enumerate(axes):
        axis.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        if place + columns >= len(axes):
            axis.set_xlabel(xlabel)
            axis.tick_params(labelbottom=True)
        if place % columns == 0:
            axis.set_ylabel(ylabel)


def _names(axis, names: Sequence[str], shown: bool) -> None:
    axis.set_yticks(range(len(names)), names if shown else [""] * len(names))
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)


def _count(axis, runs: int, most: int, left: float, height: float) -> None:
    """Say at the left of an interval where a mean is over fewer runs than the others."""
    if runs < most:
        axis.annotate(
            f"n={runs}", (left, height), xytext=(-4, 0), textcoords="offset points", ha="right", va="center",
            fontsize="x-small", color=palette.GREY, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip


def _curve(frame: pd.DataFrame, name: str, training: str) -> pd.DataFrame:
    part = frame[(frame["name"] == name) & (frame["training"] == training)]
    return part.assign(rate=part["level"].astype(float)).sort_values("rate")


def _styles(frame: pd.DataFrame) -> dict[str, dict]:
    """Colour by method, one marker each; further variants of a method are dashed."""
    pairs = frame.drop_duplicates("name")[["method", "name"]]
    variant = pairs.groupby("method").cumcount()
    markers = "osD^vP*Xd<>"
    return {
        name: {"color": palette.method_color(method), "ls": "-" if not later else "--", "marker": markers[place]}
        for place, (method, name, later) in enumerate(zip(pairs["method"], pairs["name"], variant, strict=True))
    }


def _line(color: str, label: str, **kind) -> Line2D:
    return Line2D([], [], color=color, ms=4, lw=1.4, label=label, **kind)


def _legend(figure: Figure, handles: Sequence[Line2D], columns: int) -> None:
    figure.legend(handles=list(handles), loc="outside lower center", ncols=min(columns, len(handles)), fontsize="small")
