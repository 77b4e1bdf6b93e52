"""The forms that data of one's own comes in: each is opened as one table, with a way to read features.

A table has cells of text, an archive arrays; the features of a folder lie in files, one per sample
(:mod:`.sample_files`). Which column is which is told by its name (:data:`NAMES`, ``layouts.FIELDS``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.formats import ARCHIVE, COMPUTATIONAL_SEQUENCE, kind_of, unread
from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.data.sources import trees
from mmsa_lib.data.sources.columns import describe, frames_of, has_values, is_number, lengths_of, names_of
from mmsa_lib.data.sources.layouts import DOUBT, MODALITY_NAMES, SPLIT_NAMES, SPLIT_OF, Fields, field_of, spelling
from mmsa_lib.data.sources.reading import read_cells
from mmsa_lib.data.sources.safe_pickle import load_npz
from mmsa_lib.data.sources.sample_files import joint_files, modality_folders, per_sample_files
from mmsa_lib.errors import DataError, Problems

EMOTION_PREFIX = "label:"
NAMES = {
    "split": ("split", "splits", "mode", "partition", "subset"),
    "group": ("group", "groups", "video_id", "video_ids", "vid", "dialogue_id"),
    "clip": ("clip_id", "clip_ids", "clip", "cid", "utterance_id"),
    "labels": ("label", "labels", "sentiment"),
    "raw_text": ("text", "texts", "utterance", "utterances", "sentence", "sentences"),
}
"""Names of a table's columns beside those of ``layouts.FIELDS`` (small letters, words joined by ``_``)."""

FORM = (
    "a table has the columns id (or video_id and clip_id), split (train, valid or test), label, and text or features "
    "(audio:0, audio:1, ...); see 'mmsa-lib data import --help'"
)
_NO_SPLIT = (
    "say in each row whether it is train, valid or test, or have whole videos or speakers cut by "
    "--split 70/10/20 --groups COLUMN (files of one split each: put them into one folder as train.csv, valid.csv and "
    "test.csv); "
)
_OWN = {
    "labels": "label",
    "raw_text": "text",
    "text": "text_features",
    **{f"labels_{m}": f"label_{m}" for m in MODALITIES},
}
"""Keys of columns that this form of data calls by another name."""

KEYS = {name: key for key, names in NAMES.items() for name in names}
"""Each of :data:`NAMES` to its key."""

TABLES = ("samples", "labels", "label")
"""What the table of a folder may be called, without its ending; if there is but one table, that one is taken."""

_TABLE_ENDINGS = (".csv", ".tsv")
_BESIDE = ("extract.json", "words")  # of `mmsa-lib extract`, for the user
_MODALITIES: dict[str, Modality] = {name: m for m, names in MODALITY_NAMES.items() for name in names}
FEATURE = re.compile(rf"({'|'.join(_MODALITIES)})(?:_features?|_feats?)?[:_. ]?(\d+)", re.IGNORECASE)
Reader = Callable[[Modality, list[str]], dict[str, Any] | None]
"""A modality and the ids to what :func:`.columns.features_of` needs of a file; ``None`` where there is nothing."""


class Table(Fields):
    """An opened table.

    Attributes:
        line: names the place of a row in the file ("line 3").
        names: of all columns.
        problems: what is wrong in the file, to be told together.
        files: that it was read from.
        row_splits: the split of each row, of tables of one split each; else empty.
        placed: there are no ids; those of the table are places of rows.
    """

    def __init__(
        self, columns: dict[str, Any], path: Path, line: Callable[[int], str], key_of: Callable[[str, Any], str | None]
    ):
        super().__init__(columns, str(path), key_of=key_of, own=_OWN)
        self.line, self.names, self.problems = line, list(columns), Problems()
        self.files, self.row_splits, self.placed = [path], [], False

    def need(self, key: str, ids: list[str] | None = None) -> Any:
        """Take the column ``key``, which must have no empty cell.

        Raises:
            DataError: there is none, or a cell is empty; names its row.
        """
        if key not in self:
            raise DataError(self.lacks(key))
        name, values = self.called[key], self.take(key)
        for row, value in enumerate(values if isinstance(values, list) else ()):
            if not value.strip():
                sample = f" of sample {ids[row]!r}" if ids and ids[row].strip() else ""
                self.problems.append(f"{self.where}: {self.line(row)}: an empty {name}{sample}; fill the cell")
        return values

    def lacks(self, key: str) -> str:
        """What to say where the column ``key`` is missing."""
        way = {"split": _NO_SPLIT, "labels": "name the one that is it (--column C); "}.get(key, "")
        found = f"found {', '.join(self.names[:12])}; {way}{FORM}"
        return f"{self.where}: column {_OWN.get(key, key)!r} is missing, {found}"

    def need_names(self, key: str) -> list[str]:
        """The ids of a column; where one is missing, which is remembered, its place."""
        cells = self.need(key)
        if isinstance(cells, list):
            cells = [cell.strip() or f"({self.line(row)})" for row, cell in enumerate(cells)]
        return names_of(cells, self.place(key))


def open_table(path: Path, notes: list[str], labels: Path | None) -> tuple[Table, Reader]:
    """The columns, and how features are read, for any of the forms."""
    kind = kind_of(path)
    if path.is_dir():
        return _open_tree(path, notes) if (path / "data_folds.pkl").is_file() else _open_folder(path, notes, labels)
    if path.suffix.lower() == ".npz":
        if kind and kind != ARCHIVE:
            raise DataError(f"{path} is not an .npz archive: it seems to be {kind}")
        return _open_arrays(load_npz(path), path)
    if path.suffix.lower() in trees.ENDINGS:
        if kind == COMPUTATIONAL_SEQUENCE:
            raise DataError(f"{path} is {kind}")
        return _open_tree(path, notes)
    if path.suffix.lower() not in _TABLE_ENDINGS:
        found = f"; it seems to be {kind}" if kind else ""
        raise DataError(f"{path}: give a .csv, .tsv, .npz, .pkl, .h5 or .json file or a folder with samples.csv{found}")
    table = _open_cells(path, notes)
    return table, partial(column_frames, table)


def _open_arrays(arrays: dict[str, Any], path: Path) -> tuple[Table, Reader]:
    """A table of arrays."""
    table = Table(arrays, path, lambda row: f"row {row}", array_key)
    for name in table.called.values():
        if not isinstance(values := table.part[name], np.ndarray) or values.ndim == 0:
            what = f"{name!r} is a single object ({describe(values)})"
            raise DataError(f"{path}: {what}; expected arrays with one entry per sample")
    return table, partial(_array_frames, table)


def _open_tree(path: Path, notes: list[str]) -> tuple[Table, Reader]:
    """A pickle, an HDF5 or a JSON file, or the folder of UR-FUNNY; without ids, samples are called by their places."""
    columns, of_row = trees.columns_of(trees.read_tree(path), path)
    if of_row:
        columns["split"] = np.array(of_row)
    placed = not {"id", "clip"} & {array_key(name, values) for name, values in columns.items()}
    if placed:
        size = max((len(values) for values in columns.values() if np.ndim(values)), default=0)
        begin = {split: of_row.index(split) for split in {*of_row}}
        columns["id"] = np.array([row - begin.get(of_row[row], 0) if of_row else row for row in range(size)])
        notes.append("there are no ids: samples are called by their places")
    table, read_frames = _open_arrays(columns, path)
    table.row_splits, table.placed = of_row, placed
    table.files = [file for file in sorted(path.glob("*.pkl")) if path.is_dir()] or [path]
    return table, read_frames


def _open_cells(path: Path, notes: list[str]) -> Table:
    """The cells of a table as they are written: an id 001 stays 001, a transcript NA stays NA."""
    cells = read_cells(path)
    notes += cells.remarks
    return Table(cells.columns, path, lambda row: f"line {cells.lines[row]}", cell_key)


def _open_folder(folder: Path, notes: list[str], labels: Path | None) -> tuple[Table, Reader]:
    """The table of a folder, or one per split, and its folders of arrays by modality."""
    listing = set(os.listdir(folder))
    tables = [name for name in sorted(listing) if name.lower().endswith(_TABLE_ENDINGS)]
    known = [name for base in TABLES for name in tables if name[:-4].lower() == base]
    parts = {} if known or labels else _one_per_split(tables)
    if not parts and labels is None and not known and len(tables) != 1:
        found = f"found {', '.join(tables[:5])}; name the table (--labels FILE)" if tables else ""
        what = "the folder needs a table samples.csv or samples.tsv with id (split and label are for learning)"
        raise DataError(f"{folder}: {what}; {found or f'it seems to be {kind_of(folder)}'}")
    if parts:
        table, used = _open_parts(folder, parts, notes), [*parts.values()]
    else:
        path = labels or folder / (known or tables)[0]
        path = path if path.exists() else folder / path.name
        table, used = _open_cells(path, notes), [path.name]
        notes += [f"labels are those of {path.name}"] if path.name[:-4] != TABLES[0] else []
    folders = modality_folders(folder, listing)
    notes += [f"folder {name!r} read as {m}" for m, name in folders.items() if name != m]
    beside = unread(listing - {*used, *folders.values(), *_BESIDE})
    table.left_out += [name for name in beside if name.partition(".")[0].upper() != "README"]
    if not folders:
        return table, _joint_reader(folder, table)
    for key in [key for key in table.called if FEATURE.fullmatch(key)]:  # features lie in files here
        del table.called[key]

    def read_frames(modality: Modality, ids: list[str]) -> dict[str, Any] | None:
        if modality not in folders:
            return None
        where = folder / folders[modality]
        known_problems = len(table.problems)
        rows, strange, left = per_sample_files(where, ids, table.problems)
        table.left_out += [f"{where.name}/{name} (no sample of that id)" for name in strange]
        table.left_out += [f"{where.name}: column {name}" for name in left]
        lacking = [one for one, frames in zip(ids, rows, strict=True) if not frames.size]
        if lacking and any(map(len, rows)):
            missing = f"{len(lacking)} of {len(ids)} samples have no file in {where.name}, the first is {lacking[0]!r}"
            notes.append(DOUBT + missing)
        if any(map(len, rows)):
            described = f"{modality} features, one file per sample"
            about = {"where": str(where), "level": "frame", "description": described}
            return {"frames": rows, **about}
        if len(table.problems) > known_problems:
            return None
        if strange:
            lacking = f"no file is called after a sample, as {ids[0]}.npy would be"
            raise DataError(f"{where}: {lacking}, found {', '.join(strange[:3])}; rename the files")
        table.left_out.append(f"{where.name} (an empty folder)")
        return None

    return table, read_frames


def _joint_reader(folder: Path, table: Table) -> Reader:
    """Reads features from one file per sample with all its modalities, in the folder or one below; else the columns."""
    joint: dict[Modality, list[np.ndarray]] = {}
    places = [folder, *(folder / name for name in table.left_out if (folder / name).is_dir())]

    def read_frames(modality: Modality, ids: list[str]) -> dict[str, Any] | None:
        if modality == MODALITIES[0]:
            used, found = joint_files(places, ids, table.problems)
            joint.update(found)
            table.left_out = [name for name in table.left_out if folder / name not in used]
        if modality not in joint:
            return column_frames(table, modality, ids)
        described = f"{modality} features, one file per sample"
        return {"frames": joint[modality], "where": str(folder), "level": "frame", "description": described}

    return read_frames


def _one_per_split(tables: Sequence[str]) -> dict[str, str]:
    """Split to the table that is called after it (``dev_sent_emo.csv``), where there is one for two splits or more."""
    found: dict[str, list[str]] = {}
    for name in tables:
        words = [SPLIT_OF[word] for word in re.split(r"[_\W]+", name[:-4].lower()) if word in SPLIT_OF]
        for split in set(words) if len(set(words)) == 1 else ():
            found.setdefault(split, []).append(name)
    is_one_each = len(found) > 1 and all(len(names) == 1 for names in found.values())
    return {split: found[split][0] for split in SPLIT_NAMES if split in found} if is_one_each else {}


def _open_parts(folder: Path, parts: Mapping[str, str], notes: list[str]) -> Table:
    """Tables of one split each as one table, with a column ``split``."""
    cells = {split: read_cells(folder / name) for split, name in parts.items()}
    first, *others = parts
    for split in others:
        odd = sorted(cells[first].columns.keys() ^ cells[split].columns.keys())
        if odd:
            what = f"column {odd[0]!r} is in one of {parts[first]} and {parts[split]} only"
            raise DataError(f"{folder}: {what}; give both the same columns")
    columns = {name: [cell for part in cells.values() for cell in part.columns[name]] for name in cells[first].columns}
    lines = [f"line {line} of {parts[split]}" for split, part in cells.items() for line in part.lines]
    of_row = [split for split, part in cells.items() for _ in part.lines]
    if any(_plain_key(name) == "split" for name in columns):
        raise DataError(f"{folder}: the tables of one split each have a column of splits too; remove it")
    notes += [remark for part in cells.values() for remark in part.remarks]
    notes.append("splits are " + ", ".join(f"{split} {name}" for split, name in parts.items()))
    table = Table(columns | {"split": of_row}, folder, lines.__getitem__, cell_key)
    table.files, table.row_splits = [folder / name for name in parts.values()], of_row
    return table


def _plain_key(name: str) -> str | None:
    """The key of what is no feature."""
    if name.startswith(EMOTION_PREFIX):
        return name
    field = field_of(name) or ""
    known = field in ("id", "labels", "raw_text") or field.startswith("labels_")
    return KEYS.get(spelling(name)) or (field if known else None)


def cell_key(name: str, _: Any) -> str | None:
    """The key of a column of cells."""
    feature = None if name.startswith(EMOTION_PREFIX) else FEATURE.fullmatch(name)
    return f"{feature[1].lower()}:{int(feature[2])}" if feature else _plain_key(name)


def array_key(name: str, values: Any) -> str | None:
    """The key of an array of an archive: an array that is called text may hold transcripts or features."""
    field, is_array = field_of(name), isinstance(values, np.ndarray)
    if spelling(name) in NAMES["raw_text"]:
        entry = next(filter(has_values, values.flat), None) if is_array and values.dtype == object else None
        entry = entry[0] if isinstance(entry, list) and entry else entry
        numbers = is_array and (values.dtype.kind in "biuf" or isinstance(entry, np.ndarray | list | float))
        return "text" if numbers else "raw_text"
    return field if field in MODALITIES or str(field).endswith("_lengths") else _plain_key(name)


def column_frames(table: Table, modality: Modality, ids: list[str]) -> dict[str, Any] | None:
    """Features of whole utterances from the columns ``audio:0`` and so on; an empty cell is a NaN."""
    runs: dict[str, dict[int, str]] = {}
    for key in table.called:
        prefix, _, index = key.partition(":")
        if _MODALITIES.get(prefix) == modality and index.isdecimal():
            runs.setdefault(prefix, {})[int(index)] = key
    if not runs:
        return None
    run = runs[modality if modality in runs else next(iter(runs))]
    gap = next((i for i in range(len(run)) if i not in run), None)
    if gap is not None:
        name = re.sub(r"\d+$", str(gap), table.called[next(iter(run.values()))])
        raise DataError(f"{table.where}: column {name!r} is missing; number them from 0, or restore it")
    values = np.stack([_cell_numbers(table, run[i], ids) for i in range(len(run))], axis=1)[:, None]
    described = f"{len(run)} {modality} columns of the table"
    return {"frames": values, "where": table.where, "level": "utterance", "description": described}


def _cell_numbers(table: Table, key: str, ids: list[str]) -> np.ndarray:
    """``(N,)`` float64 of a column of cells; NaN where one is empty."""
    numbers = np.full(len(ids), np.nan)
    for row, cell in enumerate(table.take(key)):
        if is_number(cell) or not cell.strip():
            numbers[row] = float(cell) if cell.strip() else np.nan
        else:
            where = f"{table.line(row)}: {cell!r} in column {table.called[key]!r} of sample {ids[row]!r}"
            table.problems.append(f"{table.where}: {where} is no number; correct it")
    return numbers


def _array_frames(table: Table, modality: Modality, ids: list[str]) -> dict[str, Any] | None:
    """Frames of an array of the archive, with its lengths."""
    if modality not in table:
        return None
    name, where, key = table.called[modality], table.place(modality), f"{modality}_lengths"
    values = table.take(modality)
    if not has_values(values):
        table.leave_out(modality, "no value")
        return None
    lengths = lengths_of(table.take(key), len(ids), table.place(key)) if key in table else None
    found = {"frames": frames_of(values, ids, where), "where": where, "level": "frame", "lengths": lengths}
    return found | {"description": f"array {name!r}"}
