"""Data of one's own: a table of samples, with features in its columns, in ``.npy`` files, or all in an ``.npz``.

Three forms, all described by the same columns:

- a table ``samples.csv`` or ``.tsv`` with features of whole utterances in columns ``text:0``, ``text:1``, ...,
  ``audio:0``, ..., ``vision:0``, ... (also ``audio_0`` or ``audio.0``);
- a folder with ``samples.csv`` (or ``.tsv``) and, per modality, a folder ``text``, ``audio`` or ``vision`` that holds
  ``<id>.npy`` of shape ``(T, d)`` or ``(d,)``; a sample without a file lacks that modality;
- an ``.npz`` archive with one array per column, and ``text_features``, ``audio``, ``vision`` of shape ``(N, T, d)`` or
  ``(N, d)``, padded on either side, optionally with ``text_features_lengths``, ``audio_lengths``, ``vision_lengths``;
  or arrays of objects with one ``(T, d)`` array per sample.

Columns:

==================  ==================================================================================================
``id``              unique name of the sample; or ``video_id`` and ``clip_id`` (CH-SIMS), read as ``video$_$clip``
``split``           ``train``, ``valid`` (or ``dev``, ``val``) or ``test``; also called ``mode``
``label``           sentiment, or a class (its name or its id); or instead ``label:NAME`` per emotion, 0 or 1
``text``            transcript (optional); text features and tokens are computed from it
``group``           video or speaker that the sample was cut from (optional): statistics resample by it
``label_text`` ...  sentiment of one modality alone (optional): ``label_text``, ``label_audio``, ``label_vision``
==================  ==================================================================================================

Other names that people use are read too (:data:`NAMES` and ``layouts.FIELDS``): ``visual``, ``acoustic``, ``label_T``,
... A column, array, file or folder that is not read is named in a note.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.formats import ARCHIVE, NPY, is_dangling, kind_of, unread
from mmsa_lib.data.record import MODALITIES, DatasetRecord, Modality
from mmsa_lib.data.sources.columns import (
    Repairs,
    describe,
    entries_of,
    features_of,
    frames_of,
    has_values,
    lengths_of,
    names_of,
    texts,
)
from mmsa_lib.data.sources.importing import Source
from mmsa_lib.data.sources.layouts import DOUBT, MODALITY_NAMES, SPLIT_NAMES, SPLIT_OF, Fields, field_of, spelling
from mmsa_lib.data.sources.reading import read_cells
from mmsa_lib.data.sources.safe_pickle import load_npz, read_npy_header
from mmsa_lib.data.task import Task, emotions
from mmsa_lib.errors import DataError

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
    "say in each row whether it is train, valid or test (files of one split each: put their rows together, with a "
    "column split); "
)
_OWN = {
    "labels": "label",
    "raw_text": "text",
    "text": "text_features",
    **{f"labels_{m}": f"label_{m}" for m in MODALITIES},
}
"""Keys of columns that this form of data calls by another name."""

_KEYS = {name: key for key, names in NAMES.items() for name in names}
_TABLE_ENDINGS = (".csv", ".tsv")
_MODALITIES: dict[str, Modality] = {name: m for m, names in MODALITY_NAMES.items() for name in names}
_FEATURE = re.compile(rf"({'|'.join(_MODALITIES)})(?:_features?|_feats?)?[:_. ]?(\d+)", re.IGNORECASE)
_MINUS = dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"), "-")
_NUMBER = re.compile(r"[+-]?\d*([.,])?\d+(?:[eE][+-]?\d+)?")
_Read = Callable[[Modality, list[str]], dict[str, Any] | None]
"""A modality and the ids to what :func:`.columns.features_of` needs of a file; ``None`` where there is nothing."""


class _Table(Fields):
    """An opened table: its columns by key, and ``line``, which names the place of a row in the file ("line 3")."""

    def __init__(
        self, columns: dict[str, Any], path: Path, line: Callable[[int], str], key_of: Callable[[str, Any], str | None]
    ):
        super().__init__(columns, str(path), key_of=key_of, own=_OWN)
        self.line, self.names = line, list(columns)

    def need(self, key: str, ids: list[str] | None = None) -> Any:
        """Take the column ``key``, which must have no empty cell.

        Raises:
            DataError: there is none, or a cell is empty; names its row.
        """
        if key not in self:
            remedy = _NO_SPLIT if key == "split" else ""
            found = f"found {', '.join(self.names[:12])}; {remedy}{FORM}"
            raise DataError(f"{self.where}: column {_OWN.get(key, key)!r} is missing, {found}")
        name, values = self.called[key], self.take(key)
        for row, value in enumerate(values if isinstance(values, list) else ()):
            if not value.strip():
                sample = f" of sample {ids[row]!r}" if ids else ""
                raise DataError(f"{self.where}: {self.line(row)}: an empty {name}{sample}; fill the cell")
        return values


def read(path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None) -> DatasetRecord:
    """Read a table of one's own, in one of the three forms that the module describes.

    Args:
        path: a ``.csv`` or ``.tsv`` file, an ``.npz`` file, or a folder.
        task: by default the emotions of the ``label:NAME`` columns, in their order; else sentiment in [-1, 1] where
            there are unimodal labels and all labels lie there, else in [-3, 3], where the labels can be that.
        name, label_column: as in :func:`.mmsa_pickle.read`; for an array ``label`` of several numbers per sample.

    Returns:
        Feature sets ``text``, ``audio``, ``vision`` as far as they are given, one fold ``standard``. A sample whose
        features are all absent or zero counts as missing in that modality.

    Raises:
        UnsafePickleError: an ``.npz`` carries code.
        DataError: a column is missing, a row is short, a cell is empty, an id repeats, a split is unknown or missing, a
            label is out of range, a file is damaged, or features do not fit together; names the file and the sample.
    """
    notes: list[str] = []
    table, read_frames = _open(Path(path), notes)
    source = Source(path, {"": table}, own_table=True)
    ids, groups = _ids(table, notes)
    standard = _splits(table, texts(table.need("split", ids), f"{table.where} split", count=len(ids)), ids)
    source.name_samples({"": ids}, groups, standard)
    _plain_numbers(table, source.repairs)
    emotion_labels = _emotion_labels(table, task)
    unimodal = {} if emotion_labels else source.unimodal()
    if emotion_labels:
        values, asked = emotion_labels
        labels, chosen, _ = source.labels(asked, label_column, [(table.where, values, ids)])
        read_labels = labels, chosen, f"{chosen.kind} {', '.join(chosen.names)}: from the columns of these names"
    else:
        values = table.need("labels", ids)
        parts = [(table.place("labels"), values, ids)]
        read_labels = source.labels(task, label_column, parts, sims=bool(unimodal))
    transcripts = _transcripts(source, table, notes)
    frames = {m: found for m in MODALITIES if (found := read_frames(m, ids)) is not None}
    sets = {m: features_of(ids=ids, modality=m, repairs=source.repairs, **found) for m, found in frames.items()}
    source.notes += notes
    return source.record(name, read_labels, sets, files=[Path(table.where)], transcripts=transcripts, unimodal=unimodal)


def _open(path: Path, notes: list[str]) -> tuple[_Table, _Read]:
    """The columns, and how features are read, for any of the three forms."""
    kind = kind_of(path)
    if path.is_dir():
        return _open_folder(path, notes)
    if path.suffix.lower() == ".npz":
        if kind and kind != ARCHIVE:
            raise DataError(f"{path} is not an .npz archive: it seems to be {kind}")
        table = _Table(load_npz(path), path, lambda row: f"row {row}", _array_key)
        for name in table.called.values():
            if not isinstance(values := table.part[name], np.ndarray) or values.ndim == 0:
                what = f"{name!r} is a single object ({describe(values)})"
                raise DataError(f"{path}: {what}; expected arrays with one entry per sample")
        return table, partial(_array_frames, table)
    if path.suffix.lower() not in _TABLE_ENDINGS:
        found = f"; it seems to be {kind}" if kind else ""
        raise DataError(f"{path}: give a .csv, .tsv or .npz file, or a folder with samples.csv{found}")
    table = _open_cells(path, notes)
    return table, partial(_column_frames, table)


def _open_cells(path: Path, notes: list[str]) -> _Table:
    """The cells of a table as they are written: an id 001 stays 001, a transcript NA stays NA."""
    cells = read_cells(path)
    notes += cells.remarks
    return _Table(cells.columns, path, lambda row: f"line {cells.lines[row]}", _cell_key)


def _open_folder(folder: Path, notes: list[str]) -> tuple[_Table, _Read]:
    """The table of a folder, and its folders of arrays by modality."""
    listing = set(os.listdir(folder))
    found = next((f"samples{end}" for end in _TABLE_ENDINGS if f"samples{end}" in listing), None)
    if found is None:
        needed = "the folder needs a table samples.csv or samples.tsv with id, split and label"
        raise DataError(f"{folder}: {needed}; it seems to be {kind_of(folder)}")
    table = _open_cells(folder / found, notes)
    for key in [key for key in table.called if _FEATURE.fullmatch(key)]:  # features lie in files here
        del table.called[key]
    folders = _modality_folders(folder, listing)
    notes += [f"folder {name!r} read as {m}" for m, name in folders.items() if name != m]
    table.left_out += unread(listing - {found, *folders.values()})

    def read_frames(modality: Modality, ids: list[str]) -> dict[str, Any] | None:
        if modality not in folders:
            return None
        where = folder / folders[modality]
        rows, strange = _per_sample_files(where, ids)
        table.left_out += [f"{where.name}/{name} (no sample of that id)" for name in strange]
        if any(map(len, rows)):
            described = f"{modality} features, one file per sample"
            return {"frames": rows, "where": str(where), "level": "frame", "description": described}
        if strange:
            lacking = f"no file is called after a sample, as {ids[0]}.npy would be"
            raise DataError(f"{where}: {lacking}, found {', '.join(strange[:3])}; rename the files")
        table.left_out.append(f"{where.name} (an empty folder)")
        return None

    return table, read_frames


def _modality_folders(folder: Path, listing: Iterable[str]) -> dict[Modality, str]:
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


def _plain_key(name: str) -> str | None:
    """The key of what is no feature."""
    if name.startswith(EMOTION_PREFIX):
        return name
    field = field_of(name) or ""
    known = field in ("id", "labels", "raw_text") or field.startswith("labels_")
    return _KEYS.get(spelling(name)) or (field if known else None)


def _cell_key(name: str, _: Any) -> str | None:
    """The key of a column of cells."""
    feature = None if name.startswith(EMOTION_PREFIX) else _FEATURE.fullmatch(name)
    return f"{feature[1].lower()}:{int(feature[2])}" if feature else _plain_key(name)


def _array_key(name: str, values: Any) -> str | None:
    """The key of an array of an archive: an array that is called text may hold transcripts or features."""
    field, is_array = field_of(name), isinstance(values, np.ndarray)
    if spelling(name) in NAMES["raw_text"]:
        entry = values.flat[0] if is_array and values.dtype == object and values.size else None
        numbers = is_array and (values.dtype.kind in "biuf" or isinstance(entry, np.ndarray))
        return "text" if numbers else "raw_text"
    return field if field in MODALITIES or str(field).endswith("_lengths") else _plain_key(name)


def _ids(table: _Table, notes: list[str]) -> tuple[list[str], list[str]]:
    """Ids, and the group of each sample: its id where none is given."""
    path, groups = table.where, None
    if "group" in table:
        key, where = table.called["group"], table.place("group")
        groups = table.take("group")
    if "id" in table or "clip" not in table:
        ids = names_of(table.need("id"), f"{path} id")
    else:
        clip = table.called["clip"]
        ids = names_of(table.need("clip"), f"{path} {clip}")
        if groups is not None:
            videos = names_of(groups, where)
            notes.append(f"ids are {key}$_${clip}")
            ids = [f"{video}$_${one}" for video, one in zip(videos, ids, strict=True)]
    given = entries_of(groups, where, len(ids)) if groups is not None else [""] * len(ids)
    found = iter(names_of([name for name in given if has_values(name)], where if groups is not None else path))
    empty = sum(not has_values(name) for name in given)
    if empty == len(given):
        notes.append("no column 'group': each sample is a group of its own")
    elif empty:
        notes.append(f"{DOUBT}group: {empty} cells are empty; these samples are groups of their own")
    return ids, [next(found) if has_values(name) else own for name, own in zip(given, ids, strict=True)]


def _splits(table: _Table, raw: list[str], ids: list[str]) -> np.ndarray:
    known = [SPLIT_OF.get(value.strip().lower()) for value in raw]
    for row, (sample, value, split) in enumerate(zip(ids, raw, known, strict=True)):
        if split is None:
            said = f"split {value!r} of sample {sample!r} is unknown; use train, valid or test"
            raise DataError(f"{table.where}: {table.line(row)}: {said}")
    for split in SPLIT_NAMES:
        if split not in known:
            raise DataError(f"{table.where}: no sample has the split {split}; assign some samples, whole videos, to it")
    return np.array(known)


def _transcripts(source: Source, table: _Table, notes: list[str]) -> list[str] | None:
    """The transcripts; ``None`` where there is none at all. Cells that pandas writes for a missing text are empty."""
    name = table.called.get("raw_text", "")
    found = source.transcripts() or []
    missing = [text.strip() in ("nan", "NaN", "<NA>") for text in found]
    source.repairs.count(f"{name}: cells that say nan, left empty", sum(missing))
    found = ["" if is_nan else text for text, is_nan in zip(found, missing, strict=True)]
    words = sum(text.strip() in ("None", "NULL", "null", "N/A", "#N/A") for text in found)
    if words:
        notes.append(f"{DOUBT}{words} transcripts are 'None' or the like; empty the cells if they are missing")
    if any(text.strip() for text in found):
        return found
    if found:
        table.leave_out("raw_text", "no values")
    return None


def _plain_numbers(table: _Table, repairs: Repairs) -> None:
    """Turn typographic minus signs, and decimal commas that can't be anything else, into plain ones.

    Raises:
        DataError: some numbers have a comma and others a point, or a comma may separate thousands; names the lines.
    """
    found: dict[str, list[tuple[str, int]]] = {"": [], ",": [], ".": []}
    plain: dict[str, list[str]] = {}
    numeric = {
        name: cells
        for key, name in table.called.items()
        if (key.startswith("label") or _FEATURE.fullmatch(key)) and isinstance(cells := table.part[name], list)
    }
    if all(text.isascii() and "," not in text for text in map("".join, numeric.values())):
        return  # tables may have thousands of columns
    for name, cells in numeric.items():
        plain[name] = list(cells)
        for row, cell in enumerate(cells):
            number = cell.strip().translate(_MINUS)
            if match := _NUMBER.fullmatch(number):
                found[match[1] or ""].append((cell, row))
                repairs.count("typographic minus signs read as minus", int(number != cell.strip()))
                plain[name][row] = number.replace(",", ".")
    if found[","]:
        cell, row = found[","][0]
        where = f"{table.where}: {table.line(row)}: {cell!r}"
        if found["."]:
            other, row = found["."][0]
            said = f"{where} has a comma, and {other!r} in {table.line(row)} a point"
            raise DataError(f"{said}; write all numbers with a point")
        if all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell.strip().translate(_MINUS)) for cell, _ in found[","]):
            raise DataError(f"{where} may be a decimal or thousands; write numbers with a point")
        repairs.count("decimal commas read as points", len(found[","]))
    table.part |= plain


def _emotion_labels(table: _Table, task: Task | None) -> tuple[np.ndarray, Task] | None:
    """``(N, K)`` cells of the columns ``label:NAME`` and their task; ``None`` where there are none."""
    names = [key.removeprefix(EMOTION_PREFIX) for key in table.called if key.startswith(EMOTION_PREFIX)]
    if not names:
        return None
    path = table.where
    if "labels" in table:
        kept = f"{table.called['labels']!r} and '{EMOTION_PREFIX}{names[0]}'"
        raise DataError(f"{path}: has both {kept}; keep sentiment or emotions")
    if task is not None and (task.kind == "regression" or {*task.names} != {*names}):
        raise DataError(f"{path}: has labels for {', '.join(names)}, which is not the task that was asked for")
    asked = task or emotions(names)
    columns = [np.asarray(table.take(EMOTION_PREFIX + name), object) for name in asked.names]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        raise DataError(f"{path}: the columns {EMOTION_PREFIX}... must have one number per sample")
    cells = np.stack(columns, axis=1)
    intense = [str(cell).strip() not in ("0", "1", "0.0", "1.0", "True", "False", "") for cell in cells.flat]
    if task is None and any(intense):
        first = cells.flat[intense.index(True)]
        raise DataError(
            f"{path}: emotion labels such as {str(first)[:40]!r} are not 0 or 1; correct them, or read intensities "
            f"above 0 as yes with --emotions {' '.join(names)}"
        )
    return cells, asked


def _column_frames(table: _Table, modality: Modality, ids: list[str]) -> dict[str, Any] | None:
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
    values[np.isnan(values).all(axis=2)] = 0  # an empty row is a missing modality, nothing to repair
    described = f"{len(run)} {modality} columns of the table"
    return {"frames": values, "where": table.where, "level": "utterance", "description": described}


def _cell_numbers(table: _Table, key: str, ids: list[str]) -> np.ndarray:
    """``(N,)`` float64 of a column of cells; NaN where one is empty."""
    numbers = np.full(len(ids), np.nan)
    for row, cell in enumerate(table.take(key)):
        try:
            numbers[row] = float(cell.replace("_", "no number")) if cell.strip() else np.nan
        except ValueError:
            where = f"{table.line(row)}: {cell!r} in column {table.called[key]!r} of sample {ids[row]!r}"
            raise DataError(f"{table.where}: {where} is no number; correct it") from None
    return numbers


def _array_frames(table: _Table, modality: Modality, ids: list[str]) -> dict[str, Any] | None:
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


def _per_sample_files(folder: Path, ids: list[str]) -> tuple[list[np.ndarray], list[str]]:
    """Frames of each sample from ``<folder>/<id>.npy``, ``(0, 0)`` without one; and the names that are no sample's."""
    for name in ids:
        if Path(name).name != name or name in (".", "..") or "\\" in name:
            raise DataError(f"{folder}: id {name!r} can't be a file name; rename the sample")
    listing = set(os.listdir(folder))  # the exact names: a file system may take a.npy for A.npy
    files = [f"{name}.npy" for name in ids]
    rows = [_sample_file(folder / file) if file in listing else np.zeros((0, 0)) for file in files]
    return rows, unread(listing - set(files))


def _sample_file(path: Path) -> np.ndarray:
    """``(T, d)`` of one sample, from an ``.npy`` file that holds exactly what its header announces."""
    if not path.is_file():
        kind = kind_of(path) if is_dangling(path) or path.is_dir() else "no plain file"
        raise DataError(f"{path} must be an array of its sample, and seems to be {kind}; restore or delete it")
    try:
        with path.open("rb") as file:
            shape, _, dtype = read_npy_header(file)
            announced, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
            if dtype.hasobject or announced != there:
                found = f"it announces {announced} bytes of data and holds {there}"
                raise ValueError("it holds pickled objects" if dtype.hasobject else found)
            file.seek(0)
            values = np.load(file, allow_pickle=False)
    except Exception as error:  # numpy parses the header as Python, which fails in any way
        kind = kind_of(path)
        reason = " ".join(str(error).split())[:120] if kind in ("", NPY) else f"it seems to be {kind}"
        raise DataError(
            f"{path}: no array of numbers ({reason}); write it with numpy.save, or copy it again"
        ) from error
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise DataError(f"{path}: shape {values.shape} and type {values.dtype}, expected numbers (T, d) or (d,)")
    return values
