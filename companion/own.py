"""Notebook 10: a terminal inside the page, cartoon films to extract from, and what modalities say as a picture."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmsa_lib.cli import main
from mmsa_lib.data.record import MODALITIES
from mmsa_lib.errors import ConfigError
from mmsa_lib.figures import palette
from mmsa_lib.figures.panels import legend

EXTRA = ("av", "opensmile", "mediapipe")


class Terminal:
    """Runs commands of ``mmsa-lib`` in a folder of its own, where this process also keeps its data sets from now on.

    Attributes:
        folder: the working folder.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder).resolve()
        os.environ["MMSA_LIB_DATA"] = str(self.folder / "data")
        os.chdir(self.folder)

    def __call__(self, command: str, most: int = 99) -> None:
        """Run ``command`` and print it with what it says, paths from the folder on; at most ``most`` lines of it.

        Raises:
            ConfigError: it is no command of ``mmsa-lib``.
        """
        program, *words = shlex.split(command)
        if program != "mmsa-lib":
            raise ConfigError(f"this terminal knows mmsa-lib only, not {program!r}; type it into a real one")
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([place for word in words for place in self._found(word)])
        lines = said.getvalue().replace(f"{self.folder}{os.sep}", "").splitlines()
        if len(lines) > most:
            lines = [*lines[: most // 2], f"… {len(lines) - most} lines …", *lines[len(lines) - (most - most // 2) :]]
        print("\n".join([f"$ {command}", *lines, *([f"(exit code {code})"] if code else [])]))

    def _found(self, word: str) -> list[str]:
        """The files and folders that a word with a star stands for, as in a shell."""
        if "*" not in word:
            return [word]
        found = sorted(path for path in self.folder.glob(word) if not path.name.startswith("."))
        return [str(path.relative_to(self.folder)) for path in found]


def missing_extra() -> str:
    """What of the extra ``extract`` is not installed, in words; empty where all is there."""
    return ", ".join(package for package in EXTRA if find_spec(package) is None)


def face(feeling: float, moment: float, hue: float, size: int = 256) -> np.ndarray:
    """A drawn face that smiles as much as ``feeling`` says (-2 to 2) and speaks; ``(size, size, 3)`` uint8."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (size, size), "#90a0b0")
    pen = ImageDraw.Draw(picture)

    def oval(x: float, y: float, wide: float, high: float, colour: str) -> None:
        box = [(x - wide + 1) / 2, (1 - y - high) / 2, (x + wide + 1) / 2, (1 - y + high) / 2]
        pen.ellipse([size * side for side in box], fill=colour)

    oval(0, 0, 0.55, 0.75, f"hsl({round(20 + 10 * hue)}, 55%, {round(62 + 14 * hue)}%)")
    oval(0, 0.62, 0.56, 0.3, f"hsl(25, 45%, {round(15 + 30 * hue)}%)")
    for x in (-0.24, 0.24):
        oval(x, 0.15, 0.13, 0.06, "white")
        oval(x, 0.15, 0.05, 0.055, "#304050")
        pen.line([((x + d + 1) * size / 2, 0.35 * size) for d in (-0.15, 0.15)], fill="#503010", width=5)
    pen.line([(0.5 * size, 0.45 * size), (0.47 * size, 0.575 * size), (0.52 * size, 0.585 * size)], "#b08060", width=4)
    x = np.linspace(-1, 1, 25)
    upper = -0.42 + 0.06 * feeling * x**2
    lower = upper - (0.05 + 0.06 * abs(np.sin(9 * moment))) * (1 - x**4)
    around = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
    pen.polygon([((0.25 * a + 1) * size / 2, (1 - b) * size / 2) for a, b in around], fill="#b04040")
    return np.asarray(picture)


def film(path: Path, sound: np.ndarray, rate: int, feeling: float, hue: float = 0.5, fps: int = 10) -> None:
    """Write a video of a drawn face with ``sound``, ``(n,)`` float32 at ``rate``."""
    import av

    with av.open(str(path), "w") as file:
        pictures, voice = file.add_stream("mpeg4", rate=fps), file.add_stream("aac", rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt, voice.layout = 256, 256, "yuv420p", "mono"
        for number in range(int(len(sound) / rate * fps)):
            drawn = face(feeling, number / fps, hue)
            file.mux(pictures.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
        heard = av.AudioFrame.from_ndarray(sound[None], format="flt", layout="mono")
        heard.sample_rate = rate
        for packets in (pictures.encode(), voice.encode(heard), voice.encode()):
            file.mux(packets)


def sound_and_features(sound: np.ndarray, rate: int, features: np.ndarray, names: Sequence[str]) -> Figure:
    """A sound wave, and below it its features, one panel each, on one axis of time."""
    drawn = Figure(figsize=(7.5, 1.2 + 1.1 * len(names)), layout="constrained")
    axes = drawn.subplots(1 + len(names), 1, sharex=True)
    axes[0].plot(np.arange(len(sound)) / rate, sound, color=palette.GREY, lw=0.5)
    axes[0].set_ylabel("sound")
    times = (np.arange(len(features)) + 0.5) * len(sound) / rate / len(features)
    for axis, name, values in zip(axes[1:], names, features.T, strict=True):
        axis.plot(times, values, color=palette.MODALITY["audio"], marker=".")
        axis.set_ylabel(name)
    axes[-1].set_xlabel("seconds")
    drawn.align_ylabels()
    drawn.set_label(f"A sound wave, and below it {' and '.join(names)} over time")
    return drawn


def contributions(answers: pd.DataFrame) -> Figure:
    """Predictions with their intervals, and where each would be without a modality; as ``predict`` gives them."""
    read = [m for m in MODALITIES if answers[f"without_{m}"].notna().any()]
    drawn = Figure(figsize=(7.5, 1.4 + 0.5 * len(answers)), layout="constrained")
    axis, places = drawn.subplots(), np.arange(len(answers))
    axis.hlines(places, answers["low"], answers["high"], color=palette.GREY, lw=7, alpha=0.4)
    axis.plot(answers["prediction"], places, "o", color=palette.BLACK, ms=7, zorder=4)
    styles = {"prediction": {"color": palette.BLACK, "marker": "o", "ls": ""}}
    for number, modality in enumerate(read):
        looks = {"color": palette.MODALITY[modality], "marker": "<>^"[number], "ls": "", "ms": 8}
        axis.plot(answers[f"without_{modality}"], places, zorder=3, **looks)
        styles[f"without {modality}"] = looks
    styles["interval"] = {"color": palette.GREY, "lw": 7, "alpha": 0.4}
    axis.axvline(0, color=palette.BLACK, lw=0.8)
    axis.set_yticks(places, answers["id"])
    axis.set_ylim(len(answers) - 0.5, -0.5)
    axis.set_xlabel("score, from negative to positive")
    axis.grid(axis="y", visible=False)
    legend(drawn, styles, columns=5)
    told = "; ".join(f"{row.id}: {row.prediction:.1f}" for row in answers.itertuples())
    drawn.set_label(f"Predictions with intervals and without each modality: {told}")
    return drawn
