"""A clip and what was extracted from it: face, sound, words and descriptors on one axis of time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmsa_lib.figures import palette

_LONGEST = 20.0  # seconds: words of a longer clip can't be read any more


def clip_figure(
    sound: np.ndarray | None = None, rate: int = 16_000, *, audio: pd.DataFrame | None = None,
    vision: pd.DataFrame | None = None, words: pd.DataFrame | None = None, frame: np.ndarray | None = None,
    points: np.ndarray | None = None, title: str = "", start: float = 0.0, end: float | None = None,
    lines: Sequence[str] = ("Loudness_sma3", "F0semitoneFrom27.5Hz_sma3nz"), most: int = 8,
) -> Figure:  # fmt: skip
    """A picture of one clip; what is not given has no panel.

    Args:
        sound: ``(n,)`` mono samples, ``rate`` per second.
        audio: descriptors, one column each; vision: blendshapes or the like. Their index is the time in seconds.
        words: columns ``word``, ``start``, ``end`` in seconds.
        frame: ``(height, width, 3)`` uint8; points: ``(n, 2)`` pixels of the face in it.
        title: of the figure.
        start, end: the part that is drawn; by default the first 20 s.
        lines: columns of ``audio``, a panel each; 0 is a gap where their name ends in ``nz`` (there is no voice).
        most: columns of ``vision`` that are drawn: those that change most.
    """
    times = [0.0 if sound is None else len(sound) / rate]
    times += [0.0 if table is None or table.empty else float(table.index[-1]) for table in (audio, vision)]
    times += [0.0 if words is None or words.empty else float(words["end"].max())]
    end = min(max(times) if end is None else end, start + _LONGEST)
    chosen = [name for name in lines if audio is not None and name in audio]
    panels = [*["sound"] * (sound is not None or words is not None), *chosen, *["vision"] * (vision is not None)]
    drawn = Figure(figsize=(10, 1.2 + 1.25 * max(2, len(panels))), layout="constrained")
    picture, traces = drawn.subfigures(1, 2, width_ratios=(1, 2.2)) if frame is not None else (None, drawn)
    if picture is not None:
        axis = picture.subplots()
        axis.imshow(frame)
        if points is not None:
            axis.plot(*points.T, ".", ms=1.2, color=palette.YELLOW)
        axis.axis("off")
        axis.set_title("no face" if points is None else "landmarks")
    if panels:
        heights = [1.4 if panel in ("sound", "vision") else 0.8 for panel in panels]
        axes = traces.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False).ravel()
        for axis, panel in zip(axes, panels, strict=True):
            if panel == "sound":
                _sound(axis, sound, rate, words, start, end)
            elif panel == "vision":
                _heat(axis, vision.loc[start:end], most, start, end)
            else:
                values = audio[panel].where(audio[panel] != 0) if panel.endswith("nz") else audio[panel]
                axis.plot(values.index, values, color=palette.MODALITY["audio"], lw=1)
                axis.set_ylabel(panel.partition("_")[0].replace("semitoneFrom27.5Hz", "\n(semitones)"))
        axes[-1].set(xlabel="time in the clip (s)", xlim=(start, end))
    drawn.suptitle(title)
    return drawn


def _sound(axis, sound, rate, words, start, end) -> None:
    """The waveform, and the words above it between their times."""
    if sound is not None:
        part = sound[int(start * rate) : int(end * rate)]
        step = max(1, len(part) // 2000)  # as many pieces as a picture can show
        pieces = part[: len(part) // step * step].reshape(-1, step)
        at = start + np.arange(len(pieces)) * step / rate
        axis.fill_between(at, pieces.min(axis=1), pieces.max(axis=1), color=palette.MODALITY["audio"], lw=0.4)
    top = 1.0 if sound is None or not len(sound) else max(1e-3, float(np.abs(sound).max()))
    axis.set(ylim=(-1.1 * top, 2.6 * top), ylabel="sound", yticks=[])
    axis.grid(visible=False)
    for word in () if words is None else words.itertuples():
        if start <= word.start and word.end <= end:
            axis.axvspan(word.start, word.end, color=palette.MODALITY["text"], alpha=0.12, lw=0)
            axis.axvline(word.start, color=palette.MODALITY["text"], lw=0.6, alpha=0.5)
            middle = (word.start + word.end) / 2
            axis.text(middle, 1.2 * top, word.word, rotation=90, ha="center", va="bottom", fontsize=7, clip_on=True)


def _heat(axis, table, most, start, end) -> None:
    """The columns that change most, one line each, between 0 and their largest value."""
    names = table.std().sort_values(ascending=False).index[:most]
    step = float(np.median(np.diff(table.index))) if len(table) > 1 else end - start
    shown = table[names]
    shown = shown.reindex(np.arange(table.index[0], table.index[-1] + step / 2, step), method="nearest", tolerance=step)
    extent = (shown.index[0] - step / 2, shown.index[-1] + step / 2, len(names) - 0.5, -0.5)
    axis.imshow(shown.T, aspect="auto", extent=extent, cmap=palette.SEQUENTIAL, interpolation="nearest")
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.grid(visible=False)
