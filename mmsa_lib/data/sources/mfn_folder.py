"""Folders of HDF5 files as the MFN repository has them (docs/data.md).

Two arrangements, one array per file, ``S`` standing for train, valid and test:

- joint: ``X_S.h5`` ``(N, T, 325)``, the columns of text (300), audio (5) and vision (20) side by side, and ``y_S.h5``;
- apart: ``text_S_emb.h5``, ``audio_S.h5``, ``video_S.h5`` ``(N, T, d)`` and ``y_S.h5``; the names of
  ``layouts.MODALITY_NAMES`` are read as well. A modality may lack whole splits (the training text of ICT-MMMO); its
  frames are valid and not observed there, and a note says so.

All modalities are aligned by word. A sample's valid frames run from the first to the last step that is not zero in text
or audio (vision too, where a split has no text), so that padding on either side goes. A step inside in which one
modality is all zero is missing there: a face that was not found, a word without a vector. The files name no samples, so
ids are ``<split>_<row>`` and each sample is a group of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from mmsa_lib.data.formats import MFN_FOLDER, kind_of, unread
from mmsa_lib.data.hdf5 import look_at_all, read_array, read_hdf5
from mmsa_lib.data.record import MODALITIES, DatasetRecord, Modality
from mmsa_lib.data.sources.columns import features_of, present_frames, valid_frames
from mmsa_lib.data.sources.folds import Splitting
from mmsa_lib.data.sources.importing import Sets, Source
from mmsa_lib.data.sources.layouts import SPLIT_NAMES, SPLIT_OF, Fields, field_of
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import Task, regression
from mmsa_lib.errors import DataError

JOINT_WIDTHS: dict[Modality, int] = {"text": 300, "audio": 5, "vision": 20}
"""Columns of ``X_S.h5``, in this order: GloVe, selected COVAREP and FACET features."""

APART_FILES: dict[Modality, str] = {"text": "text_{}_emb.h5", "audio": "audio_{}.h5", "vision": "video_{}.h5"}
_Files = dict[tuple[str, str], Path]


def read(
    folder: Path | str,
    name: str,
    *,
    task: Task | None = None,
    label_column: str | None = None,
    unlabelled: bool = False,
) -> DatasetRecord:
    """Read a folder in the MFN layout.

    Args:
        task: by default sentiment in [1, 5] where the labels lie there, exceed 3 and are not all whole (ICT-MMMO), else
            in [-3, 3] where they can be that.
        folder, name, label_column: as in :func:`.mmsa_pickle.read`.
        unlabelled: the samples are to be predicted: labels and splits may be missing.

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as they are there, one fold ``standard``.

    Raises:
        DataError: a file is missing, unreadable or of another shape, a label is NaN or out of range, or a split is
            empty; names the file.
    """
    folder, left = Path(folder), []
    if not folder.is_dir():
        kind = kind_of(folder)
        found = f" (it seems to be {kind})" if kind else ""
        raise DataError(f"{folder} is not a folder{found}; give the folder that holds X_train.h5 or audio_train.h5")
    files = _files(folder, left)
    look_at_all(files.values())
    keys = ("X",) if any(key == "X" for key, _ in files) else MODALITIES
    splits = [s for s in SPLIT_NAMES if not unlabelled or any(split == s for _, split in files)]
    arrays = {split: _arrays(files, folder, split, keys, left) for split in splits}
    labels = {
        split: [None] * len(next(iter(arrays[split].values())))
        if unlabelled and ("y", split) not in files
        else _one_array(files.get(("y", split), folder / f"y_{split}.h5"), left)
        for split in splits
    }
    parts_of = {split: Fields(arrays[split], f"{folder} [{split}]") for split in splits}
    source = Source(folder, parts_of, left, Splitting(unlabelled=unlabelled))
    source.name_samples({s: [f"{s}_{row}" for row in range(len(values))] for s, values in labels.items()})
    parts = [(str(files.get(("y", split), folder)), labels[split], source.ids[split]) for split in splits]
    read_labels = source.labels(task, label_column, parts, infer=_one_to_five)
    widths = {m: arrays[split][m].shape[2] for split in splits for m in MODALITIES if m in arrays[split]}
    source.notes.append("the files name no samples: ids are <split>_<row>, and statistics can't resample by video")
    for split in splits:
        absent = [m for m in MODALITIES if m in widths and m not in arrays[split]]
        source.notes += [f"split {split} has no {m}, which counts as missing there" for m in absent]
    wanted = [*((key, split) for split in SPLIT_NAMES for key in keys), *(("y", split) for split in SPLIT_NAMES)]
    source.beside += [path.name for one, path in files.items() if one not in wanted]

    def read_split(fields: Fields, ids: list[str]) -> Sets:
        there = {m: fields.take(m) for m in MODALITIES if m in fields}
        return word_aligned(there, ids, widths, source.repairs, fields.where)

    sets = source.features(read_split)
    return source.record(name, read_labels, sets, files=[files[one] for one in wanted if one in files])


def _one_to_five(labels: np.ndarray) -> Task | None:
    whole = (labels == np.round(labels)).all()
    return regression((1, 5)) if labels.min() >= 1 and 3 < labels.max() <= 5 and not whole else None


def _files(folder: Path, left: list[str]) -> _Files:
    """Key (``X``, ``y`` or a modality) and split to the file that is called so; other names go to ``left``."""
    files: _Files = {}
    for name in unread(os.listdir(folder)):
        stem, split = re.fullmatch(r"(?:(.+?)_([a-z]+)(?:_emb)?\.(?:h5|hdf5))?.*", name, re.DOTALL).groups()
        split, field = SPLIT_OF.get(split), field_of(stem)
        key = stem if stem in ("X", "y") else "y" if field == "labels" else field if field in MODALITIES else None
        if not key or not split:
            left.append(name)
        elif (key, split) in files:
            raise DataError(f"{folder}: has both {files[key, split].name} and {name} for {key}; keep one of them")
        else:
            files[key, split] = folder / name
    return files


def _arrays(
    files: _Files, folder: Path, split: str, keys: tuple[str, ...], left: list[str]
) -> dict[Modality, np.ndarray]:
    """The arrays of a split: cut out of the joint one, or apart as far as there are files."""
    if keys != ("X",):
        arrays = {m: _frames(files[m, split], left) for m in MODALITIES if (m, split) in files}
        if arrays:
            return arrays
        kind, some = kind_of(folder), ", ".join(pattern.format(split) for pattern in APART_FILES.values())
        seems = f"; it seems to be {kind}" if kind != MFN_FOLDER else ""
        raise DataError(f"{folder}: no file for split {split}; expected X_{split}.h5, or some of {some}{seems}")
    path, total = files.get(("X", split), folder / f"X_{split}.h5"), sum(JOINT_WIDTHS.values())
    values = _frames(path, left)
    if values.shape[2] != total:
        raise DataError(f"{path}: {values.shape[2]} columns, expected {total} (text 300, audio 5, vision 20)")
    cuts = np.cumsum(list(JOINT_WIDTHS.values()))[:-1]
    return dict(zip(JOINT_WIDTHS, np.split(values, cuts, axis=2), strict=True))


def word_aligned(
    arrays: Mapping[Modality, np.ndarray],
    ids: Sequence[str],
    widths: Mapping[Modality, int],
    repairs: Repairs,
    where: str,
) -> Sets:
    """The feature sets of a split, in the order of ``widths``; a modality that it lacks gets frames not observed.

    Args:
        arrays: per modality ``(N, T, d)``, padded on either side.
        ids: ``(N,)``, to name samples that are wrong.
        widths: per modality ``d``.

    Raises:
        DataError: the arrays differ in samples or steps; begins with ``where``.
    """
    shapes = {values.shape[:2] for values in arrays.values()}
    if len(shapes) > 1 or next(iter(shapes))[0] != len(ids):
        found = ", ".join(f"{m} {values.shape}" for m, values in arrays.items())
        raise DataError(f"{where}: {len(ids)} labels and {found}; expected equal samples and steps")
    deciding = [m for m in ("text", "audio") if m in arrays] if "text" in arrays else list(arrays)
    present = np.logical_or.reduce([present_frames(arrays[m]) for m in deciding])
    valid = valid_frames(present, None, "all modalities", repairs)
    return {
        m: features_of(
            arrays.get(m, np.zeros((*valid.shape, width), dtype=np.float32)),
            ids,
            where,
            modality=m,
            level="word",
            repairs=repairs,
            valid=valid,
            zero_is_missing=True,
            description=f"{width} {m} features, word-aligned",
        )
        for m, width in widths.items()
    }


def _frames(path: Path, left: list[str]) -> np.ndarray:
    values = _one_array(path, left)
    if values.ndim != 3 or 0 in values.shape[1:] or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: shape {values.shape} and type {values.dtype}, expected numbers of shape (N, T, d)")
    return values


def _one_array(path: Path, left: list[str]) -> np.ndarray:
    """The only array of an HDF5 file, whatever its key (``data``, ``d1``); what lies beside it goes to ``left``."""
    if not path.is_file():
        kind = kind_of(path)
        reason = f"must be an HDF5 file, and seems to be {kind}" if kind else "is missing"
        raise DataError(f"{path} {reason}; put it beside the other files")
    with read_hdf5(path, "download it again", verified=True) as file:  # attributes, where damage hangs, are not read
        keys = [key for key in file if isinstance(file[key], h5py.Dataset)]
        if len(keys) != 1:
            raise DataError(f"{path}: expected one array, found {', '.join(keys) or 'none'}")
        left += [f"{path.name}/{key}" for key in file if key != keys[0]]
        values = read_array(file[keys[0]])
    if not isinstance(values, np.ndarray) or values.ndim == 0:
        raise DataError(f"{path}: {keys[0]!r} is no array of samples; download it again")
    return values
