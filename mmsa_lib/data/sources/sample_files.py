"""One file per sample: ``audio/<id>.npy``, ``.npz``, ``.csv`` or ``.tsv``, with the frames ``(T, d)`` of one modality.

A table has a row per frame and a column per feature, with or without a header. Columns that number or time the frames
(openSMILE, OpenFace: :data:`BOOKKEEPING`) are no features and are left out.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmsa_lib.data.formats import NPY, is_dangling, kind_of, unread
from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.data.sources.columns import describe, frames_of_one, has_values, is_number
from mmsa_lib.data.sources.layouts import Fields, field_of, spelling
from mmsa_lib.data.sources.reading import text_of
from mmsa_lib.data.sources.safe_pickle import load, load_npz, read_npy_header
from mmsa_lib.errors import DataError, Problems

ENDINGS = (".npy", ".npz", ".csv", ".tsv")
VIDEO_MARK = "$_$"
"""Between video and clip in an id; such files may also lie as ``audio/<video>/<clip>.npy``."""

BOOKKEEPING = {"frame", "frametime", "frameindex", "frame_id", "face_id", "timestamp", "time", "confidence", "success",
               "name", "start", "end", "file"}  # fmt: skip
"""Columns of openSMILE's and OpenFace's tables that are no features."""


def modality_folders(folder: Path, listing: Iterable[str]) -> dict[Modality, str]:
    """The name of the folder of each modality; the own name of a modality comes before the others.

    Raises:
        DataError: something else has such a name, or two folders have.
    """
    names = {name: None for name in sorted(listing) if field_of(name) in MODALITIES}
    folders = {m: name for m, name in Fields(names, str(folder), own={}).called.items() if m in MODALITIES}
    for name in folders.values():
        if not (folder / name).is_dir():
            kind = kind_of(folder / name) or "another file"
            raise DataError(f"{folder / name} must be a folder of .npy files, and seems to be {kind}")
    return folders


def per_sample_files(folder: Path, ids: list[str], problems: Problems) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Frames of each sample from ``<folder>/<id>.npy`` and the like.

    Args:
        problems: gets what is wrong with each file; its sample then has no frames.

    Returns:
        ``(T, d)`` per sample, ``(0, 0)`` without a file; the names that are no sample's; columns that are no features.

    Raises:
        DataError: an id can't be the name of a file.
    """
    for name in ids:
        if Path(name).name != name or name in (".", "..") or "\\" in name:
            remedy = "rename the sample (video$_$clip is read from video/clip.npy)"
            raise DataError(f"{folder}: id {name!r} can't be a file name; {remedy}")
    listing = set(os.listdir(folder))  # the exact names: a file system may take a.npy for A.npy
    for video in {name.partition(VIDEO_MARK)[0] for name in ids if VIDEO_MARK in name} & listing:
        inside = os.listdir(folder / video) if (folder / video).is_dir() else []
        listing = (listing - {video}) | {f"{video}/{name}" for name in inside}
    rows, used, header, left = [], set(), None, []
    for name in ids:
        stems = (name, name.replace(VIDEO_MARK, "/", 1))
        files = list(dict.fromkeys(stem + end for stem in stems for end in ENDINGS if stem + end in listing))
        used.update(files[:1])
        rows.append(np.zeros((0, 0)))
        with problems.gather():
            if not files:
                continue
            path = folder / files[0]
            if not path.is_file():
                kind = kind_of(path) if is_dangling(path) or path.is_dir() else "no plain file"
                raise DataError(f"{path} must be an array of its sample, and seems to be {kind}; restore or delete it")
            if path.suffix in (".csv", ".tsv"):
                rows[-1], columns, left = _table(path)
                header = header or (path, columns)
                if columns != header[1]:
                    raise DataError(f"{path}: other columns than in {header[0].name}; give all samples the same ones")
            else:
                rows[-1] = _frames(path, _archive(path) if path.suffix == ".npz" else _array(path))
    return rows, unread(listing - used), left


def joint_files(
    places: Sequence[Path], ids: list[str], problems: Problems
) -> tuple[set[Path], dict[Modality, list[np.ndarray]]]:
    """Files ``<id>.npz`` or ``<id>.pkl`` that hold all modalities of a sample, as MMSA-FET's ``run_single`` writes.

    Args:
        places: folders that they may lie in.
        problems: gets what is wrong with each file.

    Returns:
        The files and folders that were read; per modality the frames of each sample, ``(0, 0)`` where it has none.
    """
    rows: dict[Modality, list[np.ndarray]] = {m: [np.zeros((0, 0))] * len(ids) for m in MODALITIES}
    used: set[Path] = set()
    for row, name in enumerate(ids):
        ends = (".npz", ".pkl", ".pickle") if Path(name).name == name else ()  # an id must not leave the folder
        named = (place / f"{name}{end}" for place in places for end in ends)
        path = next((path for path in named if path.is_file()), None)
        if path is None:
            continue
        used |= {path, path.parent}
        with problems.gather():
            parts = load_npz(path) if path.suffix == ".npz" else load(path)
            if not isinstance(parts, Mapping):
                raise DataError(f"{path}: expected arrays by modality, found {describe(parts)}; save a dict of them")
            for key, value in parts.items():
                if (modality := field_of(key)) in rows and not isinstance(value, str | bytes):
                    rows[modality][row] = frames_of_one(value, f"{path}: {key}")
    return used, {m: found for m, found in rows.items() if any(map(len, found))}


def _frames(path: Path, values: np.ndarray) -> np.ndarray:
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise DataError(f"{path}: shape {values.shape} and type {values.dtype}, expected numbers (T, d) or (d,)")
    return values


def _array(path: Path) -> np.ndarray:
    """What an ``.npy`` file holds, which must be exactly what its header announces."""
    try:
        with path.open("rb") as file:
            shape, _, dtype = read_npy_header(file)
            announced, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
            if dtype.hasobject or announced != there:
                found = f"it announces {announced} bytes of data and holds {there}"
                raise ValueError("it holds pickled objects" if dtype.hasobject else found)
            file.seek(0)
            return np.load(file, allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, which fails in any way
        kind = kind_of(path)
        reason = " ".join(str(error).split())[:120] if kind in ("", NPY) else f"it seems to be {kind}"
        raise DataError(
            f"{path}: no array of numbers ({reason}); write it with numpy.save, or copy it again"
        ) from error


def _archive(path: Path) -> np.ndarray:
    """The array of an ``.npz`` file: its only one, or the one that is called as its folder or ``features``."""
    arrays = {name: values for name, values in load_npz(path).items() if isinstance(values, np.ndarray)}
    wanted = [name for name in arrays if len(arrays) == 1 or field_of(name) == field_of(path.parent.name)]
    wanted += [name for name in ("features", "data") if name in arrays and not wanted]
    if len(wanted) != 1:
        found = ", ".join(arrays) or "none"
        raise DataError(f"{path}: which array are the features? found {found}; keep one, or call it 'features'")
    return arrays[wanted[0]]


def _table(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """``(T, d)`` of a table of frames, the names of its features, and those of columns that are none."""
    text, marks = text_of(path)[0], "\t;," if path.suffix == ".tsv" else ";,\t"
    mark = next((mark for mark in marks if mark in text.partition("\n")[0]), ",")
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {lines.line_num}: {error}; write plain numbers") from error
    names = [cell.strip() for cell in rows[0][1]] if rows else []
    has_header = not all(is_number(cell) or not cell for cell in names)
    rows = rows[1:] if has_header else rows
    kept = [i for i, name in enumerate(names) if not has_header or spelling(name) not in BOOKKEEPING]
    if not rows or not kept:
        raise DataError(f"{path}: there is no row of numbers; write a row per frame and a column per feature")
    values = np.full((len(rows), len(kept)), np.nan)
    for t, (line, row) in enumerate(rows):
        if len(row) != len(names):
            raise DataError(f"{path}: line {line} has {len(row)} cells, and the first one {len(names)}; complete it")
        for k, i in enumerate(kept):
            cell = row[i].strip()
            if has_values(cell) and not is_number(cell):
                where = f"line {line}, column {names[i] if has_header else i + 1}"
                raise DataError(f"{path}: {where}: {cell!r} is no number; correct it")
            values[t, k] = float(cell) if cell else np.nan
    columns = [names[i] for i in kept] if has_header else [str(len(kept))]
    return values, columns, [name for i, name in enumerate(names) if i not in kept]
