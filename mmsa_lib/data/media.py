"""Sound and pictures of a video or audio file, decoded by PyAV (FFmpeg)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.formats import is_dangling, kind_of
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.paths import project_root

RATE = 16_000
"""Samples per second of the sound that is analysed, whatever the file has: descriptors of two files then compare."""

SUFFIXES = frozenset(
    f".{kind}"
    for kind in re.findall(r"\w+", "mp4 m4v mov mkv webm avi mpg mpeg wmv flv 3gp ts wav flac mp3 m4a aac ogg opus wma")
)
"""Endings that are taken from a folder; a file that is named may have any."""

_EXACT = {"mov", "matroska", "wav", "flac"}  # formats that say truly how long they are
_ENDLESS = 2**31 - 2**17  # what a WAV announces that was written before its length was known, or more
_SILENT = 1e-4  # of full scale: -80 dB


@dataclass(frozen=True)
class Sound:
    """Mono sound: ``samples`` ``(n,)`` float32 at :data:`RATE`, the first at the start of the clip."""

    samples: np.ndarray

    @property
    def silent(self) -> bool:
        """Whether nothing is to be heard."""
        return not self.samples.size or float(np.abs(self.samples).max()) < _SILENT


def need(*packages: str) -> None:
    """Do nothing where all ``packages`` can be imported.

    Raises:
        ConfigError: one is missing; says how to install all that extraction needs.
    """
    if lacking := [name for name in packages if find_spec(name) is None]:
        what = "-e '.[extract]'" if project_root() else "'mmsa-lib[extract]'"
        raise ConfigError(f"extraction needs {', '.join(lacking)}, not installed here; run: pip install {what}")


def length(path: Path) -> float:
    """Seconds that a file announces; 0 where it does not say.

    Raises:
        DataError: no such file, or nothing in it that can be decoded; says what it seems to be.
    """
    with _opened(path) as container:
        if not container.streams.audio and _picture(container) is None:
            raise DataError(f"{path} holds neither sound nor pictures; give a video or an audio file")
        return (container.duration or 0) / 1e6


def decode_sound(path: Path) -> Sound | None:
    """The first sound track of a file; ``None`` where it has none.

    Raises:
        DataError: the file is damaged; says where.
    """
    av = import_module("av")
    parts: list[np.ndarray] = []
    with _opened(path) as container:
        if not container.streams.audio:
            return None
        resampler, start = av.AudioResampler(format="flt", layout="mono", rate=RATE), None
        for frame in _frames(container, container.streams.audio[0], path):
            if start is None:
                start = max(0.0, (frame.time or 0.0) - (container.start_time or 0) / 1e6)
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
        parts += [part.to_ndarray()[0] for part in resampler.resample(None)] if parts else []
    ahead = np.zeros(round((start or 0.0) * RATE), np.float32)
    return Sound(np.nan_to_num(np.concatenate([ahead, *parts])))


def decode_pictures(path: Path, fps: float) -> Iterator[tuple[float, np.ndarray | None]]:
    """Each picture's time in seconds, and ``(height, width, 3)`` uint8 for up to ``fps`` of them a second, upright.

    Nothing where the file has no pictures; the cover of a piece of music is none.

    Raises:
        DataError: as :func:`decode_sound`.
    """
    with _opened(path) as container:
        stream = _picture(container)
        if stream is None:
            return
        stream.thread_type = "AUTO"
        due = 0.0
        for frame in _frames(container, stream, path):
            time = max(0.0, (frame.time or 0.0) - (container.start_time or 0) / 1e6)
            picture = None
            if time + 1e-6 >= due:
                due = (np.floor(time * fps + 1e-6) + 1) / fps
                turns = (frame.rotation or 0) // 90 % 4  # how a telephone was held
                picture = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            yield time, picture


def check_whole(path: Path, seconds: float) -> None:
    """Do nothing where ``seconds``, all that could be decoded, are what the file announces.

    Raises:
        DataError: a part is missing, or there is nothing.
    """
    with _opened(path) as container:
        announced = (container.duration or 0) / 1e6
        exact = bool(_EXACT & set(container.format.name.split(",")))
    with path.open("rb") as file:
        is_riff, size = file.read(4) == b"RIFF", int.from_bytes(file.read(4), "little") + 8
    if is_riff and path.stat().st_size < 0.95 * size and size < _ENDLESS:  # the decoder takes what is there for all
        raise DataError(f"{path} is cut off: {path.stat().st_size} of {size} bytes are there; copy it again")
    if seconds <= 0:
        raise DataError(f"{path} has a length of zero; record or copy it again")
    if exact and seconds < 0.95 * announced - 0.5:
        raise DataError(f"{path} is cut off: {seconds:.1f} of {announced:.1f} s can be decoded; copy it again")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    need("av")
    av = import_module("av")
    if not path.is_file():
        what = (
            kind_of(path) if is_dangling(path) else "is a folder" if path.is_dir() else "no such file; check the path"
        )
        raise DataError(f"{path}: {what}")
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        kind = kind_of(path)
        said = f"it seems to be {kind}" if kind else "damaged, cut off, or of another kind"
        raise DataError(f"{path}: no video or sound that can be decoded ({said}); copy or convert it") from error
    with container:
        yield container


def _picture(container: Any) -> Any:
    """The first stream of moving pictures; ``None`` without one."""
    cover = import_module("av").stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover and s.codec_context), None)


def _frames(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    av, time = import_module("av"), 0.0
    try:
        for frame in container.decode(stream):
            time = frame.time or time
            yield frame
    except (av.error.FFmpegError, OSError) as error:
        said = " ".join(str(error.strerror or error).split())
        raise DataError(f"{path} is damaged at {time:.1f} s ({said}); copy it again") from error
