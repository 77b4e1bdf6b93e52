"""The pickles of MAG-BERT: words with one row of vision and audio features each (data.md, section 5.3).

Per split (``dev`` is valid) a list of ``((words, visual, acoustic), label, segment)``: ``words`` a list of texts,
``visual`` ``(len, 47)`` (CMU-MOSI) or ``(len, 35)`` (CMU-MOSEI), ``acoustic`` ``(len, 74)``.

The words become the transcript, joined by blanks, so that word ``i`` of the transcript belongs to row ``i`` of audio
and vision; text features and tokens are computed from it on loading. The files give no word times, and none are made
up: ``DatasetRecord.words`` stays empty.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.sources.frames import features
from mmsa_lib.data.sources.layouts import SPLIT_NAMES, check_sizes, splits_of, texts
from mmsa_lib.data.sources.official import USER_TERMS, identify, known_set
from mmsa_lib.data.sources.repairs import Repairs, check_ids, sentiment_labels, sentiment_task
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

UNKNOWN_WORD = "[UNK]"
"""Stands for an empty word, so that words and feature rows stay aligned."""


def read(path: Path | str, name: str, *, task: Task | None = None) -> DatasetRecord:
    """Read a pickle in the MAG-BERT layout.

    Args:
        path: the file.
        name: name of the data set from now on.
        task: the regression task, by default sentiment in [-3, 3].

    Returns:
        Feature sets ``audio`` and ``vision`` at word level, transcripts, one fold ``standard``. A sample without words
        has an empty transcript and one frame that is not observed.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a sample whose words and rows differ in number, a missing or empty split, a
            label that is NaN or out of range, or a segment that occurs twice.
    """
    path = Path(path)
    splits = splits_of(load(path), "mag", path)
    sizes = tuple(len(splits[split]) for split in SPLIT_NAMES)
    check_sizes(sizes, path)
    repairs = Repairs()
    standard = np.repeat(list(SPLIT_NAMES), sizes)
    samples = [
        _sample(sample, f"{path} [{split}] sample {row}")
        for split in SPLIT_NAMES
        for row, sample in enumerate(splits[split])
    ]
    ids = [segment for _, _, _, _, segment in samples]
    check_ids(ids, standard.tolist(), str(path))
    labels = sentiment_labels([label for _, _, _, label, _ in samples], ids, f"{path} labels", repairs)
    chosen, remark = sentiment_task(labels, ids, str(path), task=task)
    source, remarks = identify(path, sizes)
    known = known_set(sizes)
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=ids,
        groups=[video_of(i) for i in ids],
        labels=labels,
        folds={"standard": standard},
        features={
            "audio": _word_features([acoustic for _, _, acoustic, _, _ in samples], ids, "audio", path, repairs),
            "vision": _word_features([visual for _, visual, _, _, _ in samples], ids, "vision", path, repairs),
        },
        defaults={"*": {"text": "words", "audio": "audio", "vision": "vision"}},
        transcripts=[_transcript(words, repairs) for words, _, _, _, _ in samples],
        terms=USER_TERMS,
        citation=known.citation if known else "",
        sources=[source],
        repairs=repairs.counts,
        notes=[
            *remarks,
            remark,
            *([f"sizes are those of {known.name}"] if known else []),
            "one audio and vision row per word of the transcript; the file gives no word times",
        ],
    )


def video_of(segment: str) -> str:
    """The video of a segment called ``video[3]`` or ``video_3``; any other name is a group of its own."""
    match = re.fullmatch(r"(.+?)(?:\[\d+\]|_\d+)", segment)
    return match[1] if match else segment


def _sample(sample: Any, where: str) -> tuple[list[str], np.ndarray, np.ndarray, float, str]:
    """Words, vision ``(len, d)``, audio ``(len, d)``, label and segment of one sample, checked against each other."""
    try:
        (words, visual, acoustic), label, segment = sample
        words = texts(words)
        visual, acoustic = np.asarray(visual), np.asarray(acoustic)
        label = float(np.asarray(label, dtype=np.float64).reshape(()))
        segment = "_".join(texts(segment)) if isinstance(segment, list | tuple | np.ndarray) else texts([segment])[0]
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected ((words, visual, acoustic), label, segment) ({error})") from error
    for field, rows in (("visual", visual), ("acoustic", acoustic)):
        if len(words) == 0 and rows.size == 0:
            continue
        if rows.ndim != 2 or len(rows) != len(words):
            raise DataError(
                f"{where} ({segment!r}): {len(words)} words and {field} of shape {rows.shape}, expected a row per word"
            )
    return words, visual, acoustic, label, segment


def _transcript(words: list[str], repairs: Repairs) -> str:
    """The words joined by blanks; blanks inside a word go, so that each word stays one word."""
    joined_words = ["".join(word.split()) for word in words]
    repairs.count("words: blanks inside a word removed", sum(a != b for a, b in zip(words, joined_words, strict=True)))
    repairs.count(f"words: empty, replaced by {UNKNOWN_WORD}", sum(not word for word in joined_words))
    return " ".join(word or UNKNOWN_WORD for word in joined_words)


def _word_features(
    rows: list[np.ndarray], ids: list[str], modality: Modality, path: Path, repairs: Repairs
) -> FeatureSet:
    """Rows of all samples, one after the other; samples without words get one frame that is not observed."""
    widths = {row.shape[1]: i for i, row in zip(ids, rows, strict=True) if row.size}
    if len(widths) != 1:
        found = " and ".join(f"{width} (sample {i!r})" for width, i in widths.items()) or "none"
        raise DataError(f"{path}: {modality} features have the widths {found}; all samples must have the same")
    width = next(iter(widths))
    longest = max(len(row) for row in rows)
    padded = np.zeros((len(rows), longest, width), dtype=np.result_type(*{row.dtype for row in rows if row.size}))
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row if row.size else 0
    valid = np.arange(longest) < np.array([len(row) for row in rows])[:, None]
    return features(
        padded, valid, modality=modality, level="word", repairs=repairs, description=f"{width} features per word"
    )
