"""The pickles of MulT: IEMOCAP emotions, CMU-MOSI and CMU-MOSEI sentiment (docs/data.md).

Per split a dict with ``text``, ``audio``, ``vision`` ``(N, T, d)``, ``labels``, and perhaps ``id``. The ``labels`` of
IEMOCAP are ``(N, 4, 2)``, one pair per emotion whose larger entry says no or yes; sentiment labels are ``(N, 1, 1)`` or
flatter. The files have no lengths and pad with zeros, mostly on the left. Where all modalities are equally long the
file is aligned: a sample's valid frames run from the first to the last step that is not zero in *some* modality, so
that its modalities stay aligned. Otherwise each modality has its own span.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import MODALITIES, DatasetRecord
from mmsa_lib.data.sources.columns import (
    entries_of,
    frames_of,
    names_of,
    present_frames,
    texts,
    valid_frames,
)
from mmsa_lib.data.sources.folds import Splitting
from mmsa_lib.data.sources.importing import Sets, Source, group_of
from mmsa_lib.data.sources.layouts import Fields
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

IEMOCAP_EMOTIONS = ("neutral", "happy", "sad", "angry")
"""Order of the labels in ``iemocap_data.pkl`` (docs/evaluation.md)."""


def read(
    path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None, **splitting: Any
) -> DatasetRecord:
    """Read a pickle in the MulT layout.

    Args:
        task: by default the four emotions of IEMOCAP where there are four one-hot labels per sample, and sentiment in
            [-3, 3] where there is one number that can be that.
        path, name, label_column, splitting: as in :func:`.mmsa_pickle.read`.

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as the file has them, one fold ``standard``. Without
        ``id`` samples are called ``<split>_<row>``, and each is a group of its own.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a missing field or split, unequal lengths, labels that are neither emotions
            nor sentiment, or an id that occurs twice.
    """
    source = Source.of_pickle(path, "mult", Splitting(**splitting))
    labels = {split: (_labels(fields, source), fields.place("labels")) for split, fields in source.splits.items()}
    unnamed = [split for split, fields in source.splits.items() if "id" not in fields]
    if 0 < len(unnamed) < len(labels):
        raise DataError(f"{source.path}: field 'id' is missing in split {unnamed[0]} and present in another one")
    named = {}
    for split, fields in source.splits.items():
        count = len(entries_of(*labels[split]))
        named[split] = sample_names(
            fields.take("id") if count and not unnamed else None, count, split, fields.place("id")
        )
    groups = [group for _, of_split, _ in named.values() for group in of_split]
    source.name_samples({split: ids for split, (ids, _, _) in named.items()}, groups)
    parts = [(place, values, source.ids[split]) for split, (values, place) in labels.items()]
    read_labels = source.labels(task, label_column, parts, pairs_of=IEMOCAP_EMOTIONS)
    times = [of_split for _, _, of_split in named.values()]
    sets = source.features(lambda fields, ids: _read_split(fields, ids, source))
    return source.record(
        name, read_labels, sets, times=None if any(t is None for t in times) else np.concatenate(times)
    )


def _labels(fields: Fields, source: Source) -> Any:
    """The labels of one split; ``None`` per sample where none are there and none are needed."""
    frames = next((fields.part[fields.called[m]] for m in MODALITIES if m in fields), None)
    if not source.splitting.unlabelled or "labels" in fields or frames is None:
        return fields.take("labels")
    return [None] * len(frames)


def sample_names(raw: Any, count: int, split: str, where: str) -> tuple[list[str], list[str], np.ndarray | None]:
    """Ids, groups and times of the samples of one split.

    Args:
        raw: ``None``; one name per sample; or ``(N, 3)`` of video, start and stop in seconds, as the sentiment files
            have it. A name ``Ses01F_impro01_F000`` (IEMOCAP) belongs to the group ``Ses01F_impro01``.
    """
    if raw is None:
        ids = [f"{split}_{row}" for row in range(count)]
        return ids, ids, None
    rows = entries_of(raw, where, count)
    sizes = [np.shape(row) if isinstance(row, list | tuple | np.ndarray) else () for row in rows]
    if count and all(size == (3,) for size in sizes):
        return _segments(rows, where)
    ids = names_of([row[0] if size[:1] == (1,) else row for row, size in zip(rows, sizes, strict=True)], where)
    return ids, [group_of(r"(?s)(Ses.*)_[FM]\d+", i) for i in ids], None


def _segments(rows: list[Any], where: str) -> tuple[list[str], list[str], np.ndarray]:
    videos, starts, stops = (texts([row[k] for row in rows], where) for k in range(3))
    try:
        times = np.array([[float(start), float(stop)] for start, stop in zip(starts, stops, strict=True)], np.float32)
    except ValueError as error:
        raise DataError(f"{where}: expected video, start and stop ({error}); the file is damaged") from error
    if not np.isfinite(times).all():
        raise DataError(f"{where}: a start or stop time is not finite; the file is damaged")
    return [f"{v}[{a}:{b}]" for v, a, b in zip(videos, starts, stops, strict=True)], videos, times


def _read_split(fields: Fields, ids: list[str], source: Source) -> Sets:
    """The feature sets that one split has; samples that come unpadded have their own lengths."""
    frames = {m: frames_of(fields.take(m), ids, fields.place(m)) for m in MODALITIES if m in fields}
    present = {m: present_frames(array) for m, array in frames.items() if isinstance(array, np.ndarray)}
    aligned = len(present) > 1 and len({mask.shape for mask in present.values()}) == 1
    together = np.logical_or.reduce(list(present.values())) if aligned else None
    found: Sets = {}
    for modality in list(frames):
        array, mask = frames.pop(modality), present.get(modality)  # the array can go once its frames are copied
        word = modality == "text" or (aligned and mask is not None)
        level = "utterance" if mask is not None and mask.shape[1] == 1 else "word" if word else "frame"
        if mask is not None:
            mask = valid_frames(together if aligned else mask, None, modality, source.repairs)
        found[modality] = source.feature_set(fields, ids, modality, array, level, valid=mask)
    return found
