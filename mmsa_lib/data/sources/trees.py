"""Pickles, HDF5 and JSON files of one's own, and the folder of UR-FUNNY, as one column per field.

A file may hold columns ``{"id": [...], "audio": [...]}``, one entry per sample ``{"s1": {"audio": ...}}`` (or a list of
such), one per sample in each field ``{"audio": {"s1": ...}}``, or any of these per split. Nothing else is known of it,
so that names tell what is what, as in a table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmsa_lib.data.hdf5 import read_array, read_hdf5, read_objects, scalars
from mmsa_lib.data.sources.columns import as_name, describe
from mmsa_lib.data.sources.layouts import SPLIT_NAMES, field_of
from mmsa_lib.data.sources.reading import text_of
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.errors import DataError

ENDINGS = (".pkl", ".pickle", ".p", ".json", ".jsonl", ".h5", ".hdf5", ".hdf")
UR_FUNNY = {
    "label": "humor_label_sdk.pkl",
    "text": "language_sdk.pkl",
    "audio": "covarep_features_sdk.pkl",
    "vision": "openface_features_sdk.pkl",
}
"""Files of UR-FUNNY beside ``data_folds.pkl``: each maps ids to a label, or to a dict with the punchline's part."""

_STORE = "is a data set of mmsa_lib already; use it by its path, or 'mmsa-lib data check' it"


def read_tree(path: Path) -> Any:
    """What a file holds, as dicts, lists and arrays.

    Raises:
        DataError: it can't be read, or holds no plain data.
    """
    if path.is_dir():
        parts = {key: load(path / name) for key, name in UR_FUNNY.items() if (path / name).is_file()}
        parts = {k: {i: _punchline(x) for i, x in part.items()} for k, part in parts.items()}
        folds = load(path / "data_folds.pkl")
        return {s: {key: {i: part.get(i) for i in ids} for key, part in parts.items()} for s, ids in folds.items()}
    if path.suffix.lower() in (".json", ".jsonl"):
        text, is_lines = text_of(path)[0], path.suffix.lower() == ".jsonl"
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()] if is_lines else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path} is no JSON ({' '.join(str(error).split())[:100]}); save it again") from error
    if path.suffix.lower() in (".h5", ".hdf5", ".hdf"):
        with read_hdf5(path, "write it again with h5py") as file:
            if "fingerprint" in file.attrs:
                raise DataError(f"{path} {_STORE}")
            return _group(file)
    return load(path)


def _punchline(entry: Any) -> Any:
    """What UR-FUNNY says of a punchline; its context is left out."""
    if not isinstance(entry, Mapping):
        return entry
    return next((value for key, value in entry.items() if key in ("punchline_features", "punchline_sentence")), None)


def _group(group: h5py.Group) -> dict[str, Any]:
    found: dict[str, Any] = scalars(group.attrs, group.attrs)
    for name, node in group.items():
        if isinstance(node, h5py.Group):
            found[name] = _group(node)
        elif node.ndim == 1 and node.dtype.hasobject:
            found[name] = read_objects(node)
        else:
            found[name] = node.asstr()[()] if h5py.check_string_dtype(node.dtype) else read_array(node)
    return found


def columns_of(tree: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Columns by name, an array each, and the split of each row; the splits are empty where the file has none.

    Raises:
        DataError: there are no columns, or the splits have other ones.
    """
    named = {as_name(key).lower(): part for key, part in tree.items()} if isinstance(tree, Mapping) else {}
    parts = {split: named[name] for split, names in SPLIT_NAMES.items() for name in names if name in named}
    if not parts:
        return {name: _joined([values]) for name, values in _columns(tree, path).items()}, []
    columns = {split: part for split, tree in parts.items() if len(part := _columns(tree, path))}
    sizes = {split: len(next((x for x in part.values() if _is_column(x)), ())) for split, part in columns.items()}
    names = dict.fromkeys(name for part in columns.values() for name in part)
    for name in names:
        lacking = [split for split, part in columns.items() if not _is_column(part.get(name))]
        if lacking:
            raise DataError(f"{path}: {name!r} is no column of split {lacking[0]}; give all splits the same columns")
    joined = {name: _joined([part[name] for part in columns.values()]) for name in names}
    return joined, [split for split, size in sizes.items() for _ in range(size)]


def _columns(tree: Any, path: Path) -> dict[str, Any]:
    """Columns of one part: of columns, of samples, or of fields that map ids to values."""
    named = {as_name(key): value for key, value in tree.items()} if isinstance(tree, Mapping) else {}
    rows = list(named.values()) if named else list(tree) if isinstance(tree, list | tuple) else []
    if not rows or (not named and not all(isinstance(row, Mapping) for row in rows)):
        raise DataError(f"{path}: expected columns or samples by name, found {describe(tree)}")
    if not all(isinstance(row, Mapping) for row in rows):
        return named
    rows = [{as_name(key): value for key, value in row.items()} for row in rows]
    if any(map(field_of, named)):
        known = list(dict.fromkeys(name for row in rows for name in row))
        return {"id": known} | {name: [row.get(i) for i in known] for name, row in zip(named, rows, strict=True)}
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return columns if "id" in columns or not named else {"id": list(named)} | columns


def _is_column(values: Any) -> bool:
    return isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0)


def _joined(parts: Sequence[Any]) -> Any:
    """One column of several; padded arrays are padded to one length, and all else becomes one entry per sample."""
    if len(parts) == 1 and (not _is_column(parts[0]) or isinstance(parts[0], np.ndarray)):
        return parts[0]
    arrays = [part for part in parts if isinstance(part, np.ndarray) and part.dtype != object]
    if len(arrays) == len(parts) and len({part.ndim for part in parts}) == 1:
        longest = [max(sizes) for sizes in zip(*(part.shape[1:2] for part in parts), strict=True)]
        padded = [np.pad(part, [(0, 0), *((0, n - part.shape[1]) for n in longest), *[(0, 0)] * (part.ndim - 2)])
                  if part.ndim == 3 else part for part in parts]  # fmt: skip
        if len({part.shape[1:] for part in padded}) == 1:
            return np.concatenate(padded)
    entries = [entry for part in parts for entry in part]
    if all(isinstance(entry, bool | int | float | np.number) for entry in entries):
        return np.array(entries)
    column = np.empty(len(entries), dtype=object)
    for row, entry in enumerate(entries):
        column[row] = entry
    return column
