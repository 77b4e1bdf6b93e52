"""The pickles of MAG-BERT: words with one row of vision and audio features each (data.md, section 5.3).

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

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import DatasetRecord, FeatureSet, Modality
from mmsa_lib.data.sources.folds import with_valid
from mmsa_lib.data.sources.frames import frames_of_one, listed
from mmsa_lib.data.sources.labels import read_labels
from mmsa_lib.data.sources.layouts import (
    beside_splits,
    check_sizes,
    distinct_ids,
    entries_of,
    is_missing,
    names_of,
    not_read,
    splits_of,
    texts,
)
from mmsa_lib.data.sources.official import USER_TERMS, identify, known_set
from mmsa_lib.data.sources.repairs import Repairs, check_ids
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

UNKNOWN_WORD = "[UNK]"
"""Stands for an empty word, so that words and feature rows stay aligned."""


def read(
    path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None, cut_valid: float = 0
) -> DatasetRecord:
    """Read a pickle in the MAG-BERT layout.

    Args:
        path: the file.
        name: name of the data set from now on.
        task: by default sentiment in [-3, 3] where the labels can be that.
        label_column: of several numbers per sample the one to take, see :mod:`mmsa_lib.data.sources.labels`.
        cut_valid: share of the training videos that become ``valid``, for a file without such a split.

    Returns:
        Feature sets ``audio`` and ``vision`` at word level, transcripts, one fold ``standard``. A sample without words
        has an empty transcript and one frame that is not observed.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a sample whose words and rows differ in number, a missing or empty split, a
            label that is NaN or out of range, or a segment that occurs twice.
    """
    path = Path(path)
    tree = load(path)
    splits = splits_of(tree, "mag", path, cut_valid)
    sizes = tuple(len(splits[split]) for split in splits)
    check_sizes(sizes, path, splits)
    repairs = Repairs()
    standard = np.repeat(list(splits), sizes)
    samples = {
        split: [_sample(sample, f"{path} [{split}] sample {row}", repairs) for row, sample in enumerate(splits[split])]
        for split in splits
    }
    by_split, renumbered = distinct_ids({split: [sample.segment for sample in of] for split, of in samples.items()})
    ids = [i for split in splits for i in by_split[split]]
    check_ids(ids, standard.tolist(), str(path))
    rows = [sample for of_split in samples.values() for sample in of_split]
    aligned = all(sample.aligned for sample in rows)
    found = [(f"{path} labels", [sample.label for sample in rows], ids)]
    repairs.label_types(found[0][1])
    labels, chosen, remark = read_labels(found, path, repairs, task=task, column=label_column)
    source, remarks = identify(path, sizes)
    known = known_set(sizes)
    groups = list(ids) if renumbered else [video_of(i) for i in ids]
    standard, cut = with_valid(standard, groups, cut_valid, str(path))
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=ids,
        groups=groups,
        labels=labels,
        folds={"standard": standard},
        features={
            "audio": _features([sample.acoustic for sample in rows], ids, "audio", aligned, path, repairs),
            "vision": _features([sample.visual for sample in rows], ids, "vision", aligned, path, repairs),
        },
        defaults={"*": {"text": "words", "audio": "audio", "vision": "vision"}},
        transcripts=[_transcript(sample.words, repairs) for sample in rows],
        terms=USER_TERMS,
        citation=known.citation if known else "",
        sources=[source],
        repairs=repairs.counts,
        notes=[
            *remarks,
            remark,
            *([f"sizes are those of {known.name}"] if known else []),
            *(["one audio and vision row per word of the transcript; the file gives no word times"] if aligned else []),
            *renumbered,
            *cut,
            *not_read([*beside_splits(tree), *dict.fromkeys(name for sample in rows for name in sample.left)]),
        ],
    )


def video_of(segment: str) -> str:
    """The video of a segment called ``video[3]`` or ``video_3``; any other name is a group of its own."""
    match = re.fullmatch(r"(.+?)(?:\[\d+\]|_\d+)", segment)
    return match[1] if match else segment


@dataclass(frozen=True)
class _Sample:
    """One sample: words, vision ``(T, d)`` and audio ``(T, d)`` (a row per word where ``aligned``), label, segment."""

    words: list[str]
    visual: np.ndarray
    acoustic: np.ndarray
    label: Any
    segment: str
    aligned: bool
    left: tuple[str, ...]


def _sample(sample: Any, where: str, repairs: Repairs) -> _Sample:
    """One sample, its parts checked against each other."""
    try:
        first, label, segment = sample
        words, visual, acoustic, *more = first
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: expected ((words, visual, acoustic), label, segment) ({error})") from error
    if len(more) not in (0, 1, 3):
        raise DataError(
            f"{where}: {3 + len(more)} pieces, expected (words, visual, acoustic) or MISA's fourth, the words"
        )
    left = ("numbers of words (their vocabulary is not in the file)",) if more else ()
    left += ("lengths of visual and acoustic (the arrays have them)",) if len(more) == 3 else ()
    words = entries_of(more[0] if more else words, f"{where} words")
    if any(isinstance(word, list | tuple | np.ndarray) for word in words):
        raise DataError(f"{where} words: a word is itself a list; expected a list of texts")
    if words and all(isinstance(word, int | float | np.number) and not is_missing(word) for word in words):
        raise DataError(f"{where} words: numbers of a vocabulary that is not in the file; expected a list of texts")
    words = texts(words, f"{where} words", repairs)
    segment = _segment(segment, f"{where} segment")
    where = f"{where} ({segment!r})"
    visual, acoustic = frames_of_one(visual, f"{where}: visual"), frames_of_one(acoustic, f"{where}: acoustic")
    for name, rows in (("visual", visual), ("acoustic", acoustic)):
        if len(more) < 3 and len(rows) != len(words):
            raise DataError(f"{where}: {len(words)} words and {name} of shape {rows.shape}, expected a row per word")
    return _Sample(words, visual, acoustic, _one(label), segment, len(more) < 3, left)


def _one(label: Any) -> Any:
    """The label of a sample out of whatever it is wrapped in (``[[0.4]]`` is 0.4); several stay together."""
    while isinstance(label, list | tuple | np.ndarray):
        if isinstance(label, np.ndarray) and label.ndim == 0:
            return label[()]
        if len(label) != 1:
            return label
        label = label[0]
    return label


def _segment(value: Any, where: str) -> str:
    parts = value.tolist() if isinstance(value, np.ndarray) else value
    return "_".join(names_of(parts, where)) if isinstance(parts, list | tuple) else names_of([value], where)[0]


def _transcript(words: list[str], repairs: Repairs) -> str:
    """The words joined by blanks; blanks inside a word go, so that each word stays one word."""
    if not any(word.strip() for word in words):
        return ""  # no text at all: missing, not made of unknown words
    joined_words = ["".join(word.split()) for word in words]
    repairs.count("words: blanks inside a word removed", sum(a != b for a, b in zip(words, joined_words, strict=True)))
    repairs.count(f"words: empty, replaced by {UNKNOWN_WORD}", sum(not word for word in joined_words))
    return " ".join(word or UNKNOWN_WORD for word in joined_words)


def _features(
    rows: list[np.ndarray], ids: list[str], modality: Modality, aligned: bool, path: Path, repairs: Repairs
) -> FeatureSet:
    widths = sorted({row.shape[1] for row in rows if row.size})
    level, each = ("word", "word") if aligned else ("frame", "frame")
    description = f"{widths[0] if widths else 0} features per {each}"
    return listed(rows, ids, str(path), modality=modality, level=level, repairs=repairs, description=description)
