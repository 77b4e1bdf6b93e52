"""The pickles of MulT: IEMOCAP emotions, CMU-MOSI and CMU-MOSEI sentiment (data.md, section 5.2).

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

from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Modality
from mmsa_lib.data.sources.folds import with_valid
from mmsa_lib.data.sources.frames import features, frames_of, joined, listed, present_frames, spanned
from mmsa_lib.data.sources.labels import read_labels
from mmsa_lib.data.sources.layouts import (
    Fields,
    check_sizes,
    distinct_ids,
    entries_of,
    names_of,
    open_splits,
    remarks_on,
    texts,
)
from mmsa_lib.data.sources.official import USER_TERMS, identify, known_set
from mmsa_lib.data.sources.repairs import Repairs, check_ids
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

IEMOCAP_EMOTIONS = ("neutral", "happy", "sad", "angry")
"""Order of the labels in ``iemocap_data.pkl`` (evaluation.md, section 1.3)."""


def read(
    path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None, cut_valid: float = 0
) -> DatasetRecord:
    """Read a pickle in the MulT layout.

    Args:
        path: the file.
        name: name of the data set from now on.
        task: by default the four emotions of IEMOCAP where there are four one-hot labels per sample, and sentiment in
            [-3, 3] where there is one number that can be that.
        label_column: of several numbers per sample the one to take, see :mod:`mmsa_lib.data.sources.labels`.
        cut_valid: share of the training videos that become ``valid``, for a file without such a split.

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as the file has them, one fold ``standard``. Without
        ``id`` samples are called ``<split>_<row>``, and each is a group of its own.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a missing field or split, unequal lengths, labels that are neither emotions
            nor sentiment, or an id that occurs twice.
    """
    path = Path(path)
    splits, beside = open_splits(load(path), "mult", path, cut_valid)
    repairs = Repairs()
    raw_labels = {split: splits[split].take("labels") for split in splits}
    sizes = tuple(len(entries_of(raw_labels[split], splits[split].place("labels"))) for split in splits)
    check_sizes(sizes, path, splits)
    for values in raw_labels.values():
        repairs.label_types(values)
    unnamed = [split for split, fields in splits.items() if "id" not in fields]
    if 0 < len(unnamed) < len(splits):
        raise DataError(f"{path}: field 'id' is missing in split {unnamed[0]} and present in another one")
    named = {split: _names(splits[split], size, split) for split, size in zip(splits, sizes, strict=True)}
    own, renumbered = distinct_ids({split: named[split][0] for split in splits})
    ids, groups = ([i for split in splits for i in named[split][k]] for k in (0, 1))
    if renumbered:
        ids = groups = [i for split in splits for i in own[split]]
    standard = np.repeat(list(splits), sizes)
    check_ids(ids, standard.tolist(), str(path))
    found = [(f"{path} [{split}] labels", raw_labels[split], own[split]) for split in splits]
    labels, chosen, remark = read_labels(
        found, path, repairs, task=task, column=label_column, pairs_of=IEMOCAP_EMOTIONS
    )
    parts = [_read_split(splits[split], own[split], repairs) for split in splits]
    carried = [m for m in MODALITIES if any(m in part for part in parts)]
    for split, part in zip(splits, parts, strict=True):
        lacking = [m for m in carried if m not in part]
        if lacking or not carried:
            raise DataError(f"{path} [{split}]: field {(lacking or ['text'])[0]!r} is missing, found no array for it")
    source, remarks = identify(path, sizes)
    known = known_set(sizes)
    times = [named[split][2] for split in splits]
    standard, cut = with_valid(standard, groups, cut_valid, str(path))
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=ids,
        groups=groups,
        labels=labels,
        folds={"standard": standard},
        features={m: joined([part[m] for part in parts], f"{path}: {m}") for m in carried},
        defaults={"*": {m: m for m in carried}},
        times=None if any(t is None for t in times) else np.concatenate(times),
        terms=USER_TERMS,
        citation=known.citation if known else "",
        sources=[source],
        repairs=repairs.counts,
        notes=[
            *remarks,
            remark,
            *([f"sizes are those of {known.name}"] if known else []),
            *renumbered,
            *cut,
            *remarks_on(splits.values(), beside),
        ],
    )


def sample_names(raw: Any, count: int, split: str, where: str) -> tuple[list[str], list[str], np.ndarray | None]:
    """Ids, groups and times of the samples of one split.

    Args:
        raw: ``None``; one name per sample; or ``(N, 3)`` of video, start and stop in seconds, as the sentiment files
            have it. A name ``dialogue_F000`` (IEMOCAP) belongs to the group ``dialogue``.
    """
    if raw is None:
        ids = [f"{split}_{row}" for row in range(count)]
        return ids, list(ids), None
    rows = entries_of(raw, where)
    triples = [isinstance(row, list | tuple | np.ndarray) and np.shape(row) == (3,) for row in rows]
    if len(rows) != count:
        raise DataError(f"{where}: {len(rows)} entries for {count} samples; the file is damaged or mixed up")
    if count and all(triples):
        return _segments(rows, where)
    ids = names_of([row[0] if _is_alone(row) else row for row in rows], where)
    return ids, [_dialogue(i) for i in ids], None


def _is_alone(row: Any) -> bool:
    return isinstance(row, list | tuple | np.ndarray) and len(row) == 1


def _names(fields: Fields, count: int, split: str) -> tuple[list[str], list[str], np.ndarray | None]:
    return sample_names(fields.take("id") if "id" in fields else None, count, split, fields.place("id"))


def _segments(rows: list[Any], where: str) -> tuple[list[str], list[str], np.ndarray]:
    videos, starts, stops = (texts([row[k] for row in rows], where) for k in range(3))
    try:
        times = np.array([[float(start), float(stop)] for start, stop in zip(starts, stops, strict=True)], np.float32)
    except ValueError as error:
        raise DataError(f"{where}: expected video, start and stop ({error}); the file is damaged") from error
    if not np.isfinite(times).all():
        raise DataError(f"{where}: a start or stop time is not finite; the file is damaged")
    return [f"{v}[{a}:{b}]" for v, a, b in zip(videos, starts, stops, strict=True)], videos, times


def _dialogue(name: str) -> str:
    """``Ses01F_impro01`` of ``Ses01F_impro01_F000``; any other name is its own group."""
    head, _, turn = name.rpartition("_")
    return head if head.startswith("Ses") and turn[:1] in ("F", "M") and turn[1:].isdigit() else name


def _read_split(fields: Fields, ids: list[str], repairs: Repairs) -> dict[Modality, FeatureSet]:
    """The feature sets that one split has; samples that come unpadded have their own lengths."""
    read = {m: frames_of(fields.take(m), ids, fields.place(m)) for m in MODALITIES if m in fields}
    arrays = {m: frames for m, frames in read.items() if isinstance(frames, np.ndarray)}
    present = {m: present_frames(array) for m, array in arrays.items()}
    steps = {m: array.shape[1] for m, array in arrays.items()}
    aligned = len(arrays) > 1 and len(set(steps.values())) == 1
    found: dict[Modality, FeatureSet] = {}
    for modality in list(read):
        frames, described = read.pop(modality), f"{modality} features of the file"
        if modality not in arrays:
            level = "word" if modality == "text" else "frame"
            found[modality] = listed(
                frames,
                ids,
                fields.place(modality),
                modality=modality,
                level=level,
                repairs=repairs,
                description=described,
            )
            continue
        deciding = np.logical_or.reduce(list(present.values())) if aligned else present[modality]
        valid = spanned(deciding, modality, repairs)
        level = "utterance" if steps[modality] == 1 else "word" if aligned or modality == "text" else "frame"
        found[modality] = features(
            arrays.pop(modality), valid, modality=modality, level=level, repairs=repairs, description=described
        )
    return found
