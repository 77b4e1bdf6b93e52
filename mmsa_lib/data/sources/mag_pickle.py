"""The pickles of MAG-BERT: words with one row of vision and audio features each (docs/data.md).

Per split (``dev`` is valid) a list of ``((words, visual, acoustic), label, segment)``: ``words`` a list of texts,
``visual`` ``(len, 47)`` (CMU-MOSI) or ``(len, 35)`` (CMU-MOSEI), ``acoustic`` ``(len, 74)``. The pickles of MISA and
MMIM are of the same kind, ``((numbers, visual, acoustic, words), label, segment)`` with numbers of a vocabulary that
is not in the file, which are not read; MMIM may add the lengths of ``visual`` and ``acoustic``, which then are not
aligned with the words.

The words become the transcript, joined by blanks, so that word ``i`` of the transcript belongs to row ``i`` of audio
and vision; text features and tokens are computed from it on loading. The files give no word times, and none are made
up: ``DatasetRecord.words`` stays empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources.columns import (
    entries_of,
    frames_of_one,
    is_missing,
    names_of,
    texts,
)
from mmsa_lib.data.sources.folds import Splitting
from mmsa_lib.data.sources.importing import Source, group_of
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

UNKNOWN_WORD = "[UNK]"
"""Stands for an empty word, so that words and feature rows stay aligned."""

VIDEO_OF = r"(.+?)(?:\[\d+\]|_\d+)"  # of a segment called video[3] or video_3
_NUMBERS = "numbers of words (their vocabulary is not in the file)"
_LENGTHS = "lengths of visual and acoustic (the arrays have them)"


def read(
    path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None, **splitting: Any
) -> DatasetRecord:
    """Read a pickle in the MAG-BERT layout.

    Args:
        task: by default sentiment in [-3, 3] where the labels can be that.
        path, name, label_column, splitting: as in :func:`.mmsa_pickle.read`.

    Returns:
        Feature sets ``audio`` and ``vision`` at word level, transcripts, one fold ``standard``. A sample without words
        has an empty transcript and one frame that is not observed.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a sample whose words and rows differ in number, a missing or empty split, a
            label that is NaN or out of range, or a segment that occurs twice.
    """
    source = Source.of_pickle(path, "mag", Splitting(**splitting), _columns)
    ids = {split: fields.take("id") for split, fields in source.splits.items()}
    source.name_samples(ids, [group_of(VIDEO_OF, i) for names in ids.values() for i in names])
    labels = [label for fields, _ in source.parts() for label in fields.take("labels")]
    columns = {key: [row for f, _ in source.parts() for row in f.take(key)] for key in ("audio", "vision", "raw_text")}
    aligned = not any(_LENGTHS in fields.part for fields in source.splits.values())
    first, level = next(iter(source.splits.values())), "word" if aligned else "frame"
    sets = {m: source.feature_set(first, source.all_ids, m, columns[m], level) for m in ("audio", "vision")}
    if aligned:
        source.notes.append("one audio and vision row per word of the transcript; the file gives no word times")
    read_labels = source.labels(task, label_column, [(f"{path} labels", labels, source.all_ids)])
    return source.record(name, read_labels, sets, transcripts=columns["raw_text"])


def _columns(samples: Any, where: str, repairs: Repairs) -> dict[str, Any]:
    """The fields of a split: lists with one entry per sample; what is not read has a name of its own."""
    rows = [_sample(sample, f"{where} sample {row}", repairs) for row, sample in enumerate(samples)]
    columns = {key: [row[key] for row in rows] for key in ("id", "labels", "raw_text", "vision", "audio")}
    return columns | {key: None for key in (_NUMBERS, _LENGTHS) if any(key in row for row in rows)}


def _sample(sample: Any, where: str, repairs: Repairs) -> dict[str, Any]:
    """One sample by field, its parts checked against each other."""
    try:
        first, label, segment = sample
        words, visual, acoustic, *more = first
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected ((words, visual, acoustic), label, segment) ({error})") from error
    if len(more) not in (0, 1, 3):
        expected = "expected (words, visual, acoustic) or MISA's fourth, the words"
        raise DataError(f"{where}: {3 + len(more)} pieces, {expected}")
    words = entries_of(more[0] if more else words, f"{where} words")
    if any(isinstance(word, list | tuple | np.ndarray) for word in words):
        raise DataError(f"{where} words: a word is itself a list; expected a list of texts")
    if words and all(isinstance(word, int | float | np.number) and not is_missing(word) for word in words):
        raise DataError(f"{where} words: numbers of a vocabulary that is not in the file; expected a list of texts")
    words = texts(words, f"{where} words", repairs)
    parts = segment.tolist() if isinstance(segment, np.ndarray) else segment
    names = names_of(parts if isinstance(parts, list | tuple) else [parts], f"{where} segment")
    where = f"{where} ({'_'.join(names)!r})"
    frames = {
        "vision": frames_of_one(visual, f"{where}: visual"),
        "audio": frames_of_one(acoustic, f"{where}: acoustic"),
    }
    for name, rows in zip(("visual", "acoustic"), frames.values(), strict=True):
        if len(more) < 3 and len(rows) != len(words):
            raise DataError(f"{where}: {len(words)} words and {name} of shape {rows.shape}, expected a row per word")
    if isinstance(label, np.ndarray):
        label = label.tolist()
    while isinstance(label, list | tuple) and len(label) == 1:  # [[0.4]] is 0.4; several numbers stay together
        label = label[0].tolist() if isinstance(label[0], np.ndarray) else label[0]
    left = dict.fromkeys((_NUMBERS, _LENGTHS)[: min(2, (1 + len(more)) // 2)])
    return {"id": "_".join(names), "labels": label, "raw_text": _transcript(words, repairs), **frames, **left}


def _transcript(words: list[str], repairs: Repairs) -> str:
    """The words joined by blanks; blanks inside a word go, so that each word stays one word."""
    if not any(word.strip() for word in words):
        return ""  # no text at all: missing, not made of unknown words
    whole = ["".join(word.split()) for word in words]
    repairs.count("words: blanks inside a word removed", sum(a != b for a, b in zip(words, whole, strict=True)))
    repairs.count(f"words: empty, replaced by {UNKNOWN_WORD}", whole.count(""))
    return " ".join(word or UNKNOWN_WORD for word in whole)
