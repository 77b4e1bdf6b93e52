"""Folders of HDF5 files as the MFN repository has them (data.md, sections 4.1 and 5.4).

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
from pathlib import Path

import h5py
import numpy as np

from mmsa_lib.data.formats import MFN_FOLDER, kind_of, unread
from mmsa_lib.data.hdf5 import look_at_all, read_array, read_hdf5
from mmsa_lib.data.record import MODALITIES, DatasetRecord, Modality
from mmsa_lib.data.sources.frames import features, joined, present_frames, spanned
from mmsa_lib.data.sources.labels import read_labels
from mmsa_lib.data.sources.layouts import SPLIT_NAMES, check_sizes, field_of, not_read
from mmsa_lib.data.sources.official import USER_TERMS, identify, known_set
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import Task, regression
from mmsa_lib.errors import DataError

JOINT_WIDTHS: dict[Modality, int] = {"text": 300, "audio": 5, "vision": 20}
"""Columns of ``X_S.h5``, in this order: GloVe, selected COVAREP and FACET features."""

APART_FILES: dict[Modality, str] = {"text": "text_{}_emb.h5", "audio": "audio_{}.h5", "vision": "video_{}.h5"}
_CANONICAL = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_Arrays = dict[Modality, np.ndarray]


def read(folder: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None) -> DatasetRecord:
    """Read a folder in the MFN layout.

    Args:
        folder: where the files lie.
        name: name of the data set from now on.
        task: by default sentiment in [1, 5] where the labels lie there, exceed 3 and are not all whole (ICT-MMMO), else
            in [-3, 3] where they can be that.
        label_column: of several numbers per sample the one to take, see :mod:`mmsa_lib.data.sources.labels`.

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as they are there, one fold ``standard``.

    Raises:
        DataError: a file is missing, unreadable or of another shape, a label is NaN or out of range, or a split is
            empty; names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        kind = kind_of(folder)
        found = f" (it seems to be {kind})" if kind else ""
        raise DataError(f"{folder} is not a folder{found}; give the folder that holds X_train.h5 or audio_train.h5")
    repairs = Repairs()
    left: list[str] = []
    files = _files(folder, left)
    look_at_all(files.values())
    keys = ("X",) if any(key == "X" for key, _ in files) else MODALITIES
    arrays = _read_joint(files, left) if keys == ("X",) else _read_apart(files, folder, left)
    raw = {split: _one_array(files.get(("y", split), folder / f"y_{split}.h5"), left) for split in SPLIT_NAMES}
    sizes = tuple(len(raw[split]) for split in SPLIT_NAMES)
    check_sizes(sizes, folder)
    names = {split: [f"{split}_{row}" for row in range(len(raw[split]))] for split in SPLIT_NAMES}
    ids = [i for split in SPLIT_NAMES for i in names[split]]
    found = [(str(files["y", split]), raw[split], names[split]) for split in SPLIT_NAMES]
    labels, chosen, remark = read_labels(found, folder, repairs, task=task, column=label_column, infer=_one_to_five)
    wanted = [*((key, split) for split in SPLIT_NAMES for key in keys), *(("y", split) for split in SPLIT_NAMES)]
    identified = [identify(files[one], sizes) for one in wanted if one in files]
    left += [path.name for one, path in files.items() if one not in wanted]
    known = known_set(sizes)
    sets = _features(arrays, sizes, folder, repairs)
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=ids,
        groups=list(ids),
        labels=labels,
        folds={"standard": np.repeat(list(SPLIT_NAMES), sizes)},
        features=dict(sets),
        defaults={"*": {m: m for m in sets}},
        terms=USER_TERMS,
        citation=known.citation if known else "",
        sources=[line for line, _ in identified],
        repairs=repairs.counts,
        notes=[
            *[remark for _, remarks in identified for remark in remarks],
            remark if task else f"label range [{chosen.range[0]:g}, {chosen.range[1]:g}] inferred from the labels",
            *([f"sizes are those of {known.name}"] if known else []),
            "the files name no samples: ids are <split>_<row>, and statistics can't resample by video",
            *(f"split {split} has no {m}, which counts as missing there" for split, m in _absent(arrays)),
            *not_read(left),
        ],
    )


def _one_to_five(labels: np.ndarray) -> Task | None:
    whole = (labels == np.round(labels)).all()
    return regression((1, 5)) if labels.min() >= 1 and 3 < labels.max() <= 5 and not whole else None


def _files(folder: Path, left: list[str]) -> dict[tuple[str, str], Path]:
    """Key (``X``, ``y`` or a modality) and split to the file that is called so; other names go to ``left``."""
    files: dict[tuple[str, str], Path] = {}
    for name in unread(os.listdir(folder)):
        parts = re.fullmatch(r"(.+?)_([a-z]+)(?:_emb)?\.(?:h5|hdf5)", name)
        key, split = ("", "") if parts is None else (_key(parts[1]), _CANONICAL.get(parts[2], ""))
        if not key or not split:
            left.append(name)
        elif (key, split) in files:
            raise DataError(f"{folder}: has both {files[key, split].name} and {name} for {key}; keep one of them")
        else:
            files[key, split] = folder / name
    return files


def _key(name: str) -> str:
    field = field_of(name) or ""
    return name if name in ("X", "y") else "y" if field == "labels" else field if field in MODALITIES else ""


def _read_joint(files: dict[tuple[str, str], Path], left: list[str]) -> dict[str, _Arrays]:
    """Arrays per split, cut out of the joint ones."""
    folder, total, arrays = next(iter(files.values())).parent, sum(JOINT_WIDTHS.values()), {}
    for split in SPLIT_NAMES:
        path = files.get(("X", split), folder / f"X_{split}.h5")
        values = _frames(path, left)
        if values.shape[2] != total:
            raise DataError(f"{path}: {values.shape[2]} columns, expected {total} (text 300, audio 5, vision 20)")
        cuts = np.cumsum(list(JOINT_WIDTHS.values()))[:-1]
        arrays[split] = dict(zip(JOINT_WIDTHS, np.split(values, cuts, axis=2), strict=True))
    return arrays


def _read_apart(files: dict[tuple[str, str], Path], folder: Path, left: list[str]) -> dict[str, _Arrays]:
    """Arrays per split as far as there are files."""
    arrays: dict[str, _Arrays] = {}
    for split in SPLIT_NAMES:
        arrays[split] = {m: _frames(files[m, split], left) for m in MODALITIES if (m, split) in files}
        if not arrays[split]:
            kind = kind_of(folder)
            raise DataError(
                f"{folder}: no file for split {split}; expected X_{split}.h5, or some of "
                f"{', '.join(pattern.format(split) for pattern in APART_FILES.values())}"
                f"{f'; it seems to be {kind}' if kind != MFN_FOLDER else ''}"
            )
    return arrays


def _absent(arrays: dict[str, _Arrays]) -> list[tuple[str, Modality]]:
    """The splits without a modality that another split has."""
    there = {m for of_split in arrays.values() for m in of_split}
    return [(split, m) for split, of_split in arrays.items() for m in MODALITIES if m in there - of_split.keys()]


def _features(arrays: dict[str, _Arrays], sizes: tuple[int, ...], folder: Path, repairs: Repairs):
    """Feature sets of all splits; a split that lacks a modality gets zero frames, which are not observed."""
    widths = {m: of_split[m].shape[2] for of_split in arrays.values() for m in MODALITIES if m in of_split}
    parts: dict[Modality, list] = {m: [] for m in MODALITIES if m in widths}
    for (split, of_split), size in zip(arrays.items(), sizes, strict=True):
        shapes = {(len(values), values.shape[1]) for values in of_split.values()}
        if len(shapes) > 1 or next(iter(shapes))[0] != size:
            found = ", ".join(f"{m} {values.shape}" for m, values in of_split.items())
            raise DataError(f"{folder} [{split}]: {size} labels and {found}; expected equal samples and steps")
        valid = _valid_steps(of_split, repairs)
        for modality, done in parts.items():
            values = of_split.get(modality, np.zeros((*valid.shape, widths[modality]), dtype=np.float32))
            done.append(
                features(
                    values,
                    valid,
                    modality=modality,
                    level="word",
                    repairs=repairs,
                    zero_is_missing=True,
                    description=f"{widths[modality]} {modality} features, word-aligned",
                )
            )
    return {m: joined(done, f"{folder}: {m}") for m, done in parts.items()}


def _valid_steps(arrays: _Arrays, repairs: Repairs) -> np.ndarray:
    """The valid span of each sample, ``(N, T)`` bool; see the module's text."""
    deciding = [m for m in ("text", "audio") if m in arrays] if "text" in arrays else list(arrays)
    return spanned(np.logical_or.reduce([present_frames(arrays[m]) for m in deciding]), "all modalities", repairs)


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
