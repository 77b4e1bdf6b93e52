"""A whole data set in memory, as sources build it and as the store writes it: ragged arrays, no padding.

Its fingerprint is a SHA-256 over its content, whatever file it came from. It covers everything that can change a
number: task, identifiers, labels, folds, features, texts. It leaves out the name, the terms, the citation and the
notes. Each part has a digest of its own.

Nothing here needs torch, so that a data set can be listed and described without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, Literal

import numpy as np

from mmsa_lib.data.task import Task

Modality = Literal["text", "audio", "vision"]
MODALITIES: tuple[Modality, ...] = ("text", "audio", "vision")

BLOCK = 2**18  # values that are looked at at once: few enough to stay in a processor's cache

Level = Literal["word", "frame", "token", "utterance"]

SPLITS = ("train", "valid", "test")

COMPUTED_TEXT = ("words", "tokens", "sentence", "timed_words")
"""Text that is computed with a transformers model: from the transcripts, or from the words that have times."""


@dataclass
class FeatureSet:
    """Features of one modality, all samples concatenated along time.

    Attributes:
        modality: text, audio or vision.
        values: ``(sum of lengths, d)`` float32, zeros where a frame is missing.
        lengths: ``(N,)`` int64, valid frames per sample, at least 1 each (a wholly absent modality keeps one frame that
            is not observed).
        observed: ``(sum of lengths,)`` bool, False at missing frames.
        level: what one frame is.
        label_trained_on: empty, or ``"<fold>:<split>"`` where the extractor was trained on the labels of that split;
            such features leak into every fold whose evaluation samples lie in it.
        description: what the numbers are and where they come from.
    """

    modality: Modality
    values: np.ndarray
    lengths: np.ndarray
    observed: np.ndarray
    level: Level
    label_trained_on: str = ""
    description: str = ""

    @property
    def width(self) -> int:
        """Number of features per frame."""
        return int(self.values.shape[1])

    @property
    def offsets(self) -> np.ndarray:
        """``(N+1,)`` int64: sample ``i`` holds rows ``offsets[i]:offsets[i+1]``."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    def any_frame(self, flags: np.ndarray) -> np.ndarray:
        """``(N,)`` bool: whether any frame of a sample is flagged in ``flags`` ``(sum of lengths,)``."""
        return np.logical_or.reduceat(np.asarray(flags, bool), self.offsets[:-1])

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Samples and values of one run of samples after the other; all values may be more than fit in memory."""
        offsets, step = self.offsets, max(1, BLOCK // max(1, self.width))
        edges = np.searchsorted(offsets, np.arange(0, offsets[-1] + step, step)).clip(max=len(self.lengths))
        for first, last in pairwise(np.unique(edges).tolist()):
            yield slice(first, last), self.values[offsets[first] : offsets[last]]


@dataclass
class Words:
    """Words with times, all samples concatenated: sample ``i`` holds words ``offset[i]:offset[i+1]``.

    Attributes:
        word: ``(W,)`` str objects.
        interval: ``(W, 2)`` float32, start and end in seconds from the start of the segment.
        offset: ``(N+1,)`` int32.
    """

    word: np.ndarray
    interval: np.ndarray
    offset: np.ndarray


@dataclass
class TokenIds:
    """Ready-made token ids of an official file, right-padded: ``ids`` and ``valid`` are ``(N, L)``."""

    ids: np.ndarray
    valid: np.ndarray
    model: str


@dataclass
class DatasetRecord:
    """Everything that is known about a data set.

    Attributes:
        name: name under which it is stored and loaded.
        task: what is predicted.
        ids: ``(N,)`` unique identifiers; groups: ``(N,)`` video of each sample.
        labels: ``(N,)`` or ``(N, K)`` float32.
        folds: fold name to ``(N,)`` str array of ``train``, ``valid``, ``test`` or ``""`` (not in this fold).
        features: feature-set name to :class:`FeatureSet`; may be empty for text-only sets.
        defaults: fold name (or ``"*"``) to the feature-set name per modality that is loaded when none is asked for;
            for text, ``"words"``, ``"tokens"`` or ``"sentence"`` mean "computed from the transcripts", and
            ``"timed_words"`` "computed from ``words``".
        transcripts: ``(N,)`` texts, or ``None``; further languages go to ``other_transcripts``.
        words: word sequences with times, or ``None``.
        token_ids: ready-made token ids, or ``None``.
        unimodal_labels: per modality ``(N,)`` float32 (CH-SIMS).
        factors: planted factors ``(N, k)`` of a synthetic set.
        times: ``(N, 2)`` float32 start and stop of each segment in the video, in seconds, or ``None``.
        terms: what is known about the terms of use; citation: what to cite.
        sources: one line per original file: where it came from and its SHA-256.
        repairs: what was repaired on reading, with counts (for instance ``"audio: -inf set to 0"``).
        notes: facts that a user should see in ``data info``.
    """

    name: str
    task: Task
    ids: list[str]
    groups: list[str]
    labels: np.ndarray
    folds: dict[str, np.ndarray]
    features: dict[str, FeatureSet] = field(default_factory=dict)
    defaults: dict[str, dict[Modality, str]] = field(default_factory=dict)
    transcripts: list[str] | None = None
    other_transcripts: dict[str, list[str]] = field(default_factory=dict)
    words: Words | None = None
    token_ids: TokenIds | None = None
    unimodal_labels: dict[Modality, np.ndarray] = field(default_factory=dict)
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray | None = None
    terms: str = ""
    citation: str = ""
    sources: list[str] = field(default_factory=list)
    repairs: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


DTYPES = {
    "labels": "<f4",
    "values": "<f4",
    "lengths": "<i8",
    "observed": "|b1",
    "interval": "<f4",
    "offset": "<i4",
    "token_ids": "<i8",
    "token_valid": "|b1",
    "unimodal_labels": "<f4",
    "factors": "<f4",
    "times": "<f4",
}
"""Types in which arrays are stored and fingerprinted, so that a float64 source and its stored copy agree."""


def fingerprint(record: DatasetRecord) -> str:
    """SHA-256 (64 hexadecimal digits) over the content of ``record``.

    Equal content gives equal fingerprints, independent of compression, byte order and file.
    """
    return combine(digests(record))


def combine(parts: Mapping[str, str]) -> str:
    """The fingerprint of a whole data set from the digests of its parts."""
    return _digest(dict(parts))


def contents(record: DatasetRecord) -> Iterator[tuple[str, str, str, Any]]:
    """Part, member, type (of :data:`DTYPES`, or text) and values of all texts and arrays of ``record``."""
    yield from (("ids", "", "text", record.ids), ("groups", "", "text", record.groups))
    yield "labels", "", "labels", record.labels
    for name, splits in record.folds.items():
        yield f"folds/{name}", "", "text", splits
    for name, features in record.features.items():
        for kind in ("values", "lengths", "observed"):
            yield f"features/{name}", kind, kind, getattr(features, kind)
    if record.transcripts is not None:
        yield "transcripts", "", "text", record.transcripts
    for language, texts in record.other_transcripts.items():
        yield f"other_transcripts/{language}", "", "text", texts
    if record.words is not None:
        yield "words", "word", "text", record.words.word
        yield "words", "interval", "interval", record.words.interval
        yield "words", "offset", "offset", record.words.offset
    if record.token_ids is not None:
        yield "token_ids", "ids", "token_ids", record.token_ids.ids
        yield "token_ids", "valid", "token_valid", record.token_ids.valid
    for modality, values in record.unimodal_labels.items():
        yield f"unimodal_labels/{modality}", "", "unimodal_labels", values
    for name, values in record.factors.items():
        yield f"factors/{name}", "", "factors", values
    if record.times is not None:
        yield "times", "", "times", record.times


def digests(record: DatasetRecord) -> dict[str, str]:
    """One SHA-256 per part of ``record``, for instance ``labels`` or ``features/audio73``."""
    # Words, meaning of features (their description changes no number) and model stand before the arrays.
    heads: dict[str, list] = {}
    for name, f in record.features.items():
        heads[f"features/{name}"] = [[f.modality, f.level, f.label_trained_on]]
    heads |= {"token_ids": [record.token_ids.model]} if record.token_ids is not None else {}
    parts = {"task": _digest(asdict(record.task)), "defaults": _digest(record.defaults)}
    for part, members in groupby(contents(record), itemgetter(0)):
        head, arrays = heads.get(part, []), {}
        for _, member, kind, values in members:
            if kind == "text":
                texts = [str(value) for value in values]
                head = [texts] if member else texts
            else:
                arrays[kind] = values
        parts[part] = _digest(head, **arrays)
    return parts


def _digest(head: object, **arrays: np.ndarray) -> str:
    canonical = json.dumps(head, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("utf-8"))
    for kind, values in arrays.items():
        shape = np.shape(values) or (1,)
        digest.update(f"{kind}{np.dtype(DTYPES[kind]).str}{shape}".encode())
        step = max(1, BLOCK // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], step):  # an array may lie in a file and be larger than the memory
            rows = values[start : start + step] if np.ndim(values) else values
            digest.update(np.ascontiguousarray(rows, dtype=DTYPES[kind]).data)
    return digest.hexdigest()


def describe(record: DatasetRecord) -> dict[str, Any]:
    """Sizes, classes, lengths, missingness and provenance of ``record``, as plain values that fit into JSON."""
    return {
        "name": record.name,
        "fingerprint": fingerprint(record),
        "samples": len(record),
        "videos": len(set(record.groups)),
        "task": asdict(record.task),
        "folds": {fold: _splits(record, fold) for fold in record.folds},
        "features": {name: _features(features) for name, features in record.features.items()},
        "texts": {
            "transcripts": record.transcripts is not None,
            "other_languages": sorted(record.other_transcripts),
            "timed_words": 0 if record.words is None else len(record.words.word),
            "token_ids": "" if record.token_ids is None else record.token_ids.model,
        },
        "unimodal_labels": list(record.unimodal_labels),
        "factors": {name: int(values.shape[1]) for name, values in record.factors.items()},
        "defaults": record.defaults,
        "terms": record.terms,
        "citation": record.citation,
        "sources": list(record.sources),
        "repairs": dict(record.repairs),
        "notes": list(record.notes),
    }


def class_counts(record: DatasetRecord, rows: np.ndarray) -> dict[str, int]:
    """Samples among ``rows``: negative, neutral (middle of the range) and positive; per emotion; or per class."""
    labels = record.labels[rows]
    if record.task.kind == "emotions":
        return {name: int(labels[:, column].sum()) for column, name in enumerate(record.task.names)}
    if record.task.kind == "classes":
        return {name: int((labels == i).sum()) for i, name in enumerate(record.task.names)}
    center = record.task.center
    counts = {"negative": labels < center, "neutral": labels == center, "positive": labels > center}
    return {name: int(chosen.sum()) for name, chosen in counts.items()}


def _splits(record: DatasetRecord, fold: str) -> dict[str, dict[str, Any]]:
    found = {}
    for split in SPLITS:
        rows = np.flatnonzero(record.folds[fold] == split)
        absent = {name: int((~f.any_frame(f.observed))[rows].sum()) for name, f in record.features.items()}
        found[split] = {
            "samples": len(rows),
            "videos": len({record.groups[row] for row in rows}),
            "classes": class_counts(record, rows),
            "absent": {name: count for name, count in absent.items() if count},
        }
    return found


def _features(features: FeatureSet) -> dict[str, Any]:
    lengths = features.lengths
    return {
        "modality": features.modality,
        "level": features.level,
        "width": features.width,
        "lengths": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "frames": int(lengths.sum()),
        "missing_frames": int((~features.observed).sum()),
        "absent_samples": int((~features.any_frame(features.observed)).sum()),
        "label_trained_on": features.label_trained_on,
        "description": features.description,
    }
