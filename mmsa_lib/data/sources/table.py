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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.formats import ARCHIVE, NPY, is_dangling, kind_of, unread
from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Modality
from mmsa_lib.data.sources.frames import features, frames_of, listed, placed, present_frames, spanned
from mmsa_lib.data.sources.labels import read_labels
from mmsa_lib.data.sources.layouts import (
    DOUBT,
    MODALITY_NAMES,
    SPLIT_NAMES,
    column,
    describe,
    entries_of,
    field_of,
    has_values,
    names_of,
    not_read,
    spelling,
)
from mmsa_lib.data.sources.official import USER_TERMS, identify
from mmsa_lib.data.sources.reading import read_cells
from mmsa_lib.data.sources.repairs import Repairs, check_ids, sentiment_labels
from mmsa_lib.data.sources.safe_pickle import load_npz
from mmsa_lib.data.task import Task, emotions
from mmsa_lib.errors import DataError

EMOTION_PREFIX = "label:"
NAMES = {
    "split": ("split", "splits", "mode", "partition", "subset"),
    "group": ("group", "groups", "video_id", "video_ids", "vid", "dialogue_id"),
    "clip": ("clip_id", "clip_ids", "clip", "cid", "utterance_id"),
    "label": ("label", "labels", "sentiment"),
    "text": ("text", "texts", "utterance", "utterances", "sentence", "sentences"),
}
"""Names of a table's columns beside those of ``layouts.FIELDS`` (small letters, words joined by ``_``)."""

FORM = (
    "a table has the columns id (or video_id and clip_id), split (train, valid or test), label, and text or features "
    "(audio:0, audio:1, ...); see 'mmsa-lib data import --help'"
)
_OTHER_KEYS = {"id": "id", "labels": "label", "raw_text": "text"} | {f"labels_{m}": f"label_{m}" for m in MODALITIES}
_KEYS = {name: key for key, names in NAMES.items() for name in names}
_TABLE_ENDINGS = (".csv", ".tsv")
_CANONICAL = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_MODALITIES: dict[str, Modality] = {name: m for m, names in MODALITY_NAMES.items() for name in names}
_FEATURE = re.compile(rf"({'|'.join(_MODALITIES)})(?:_features?|_feats?)?[:_. ]?(\d+)", re.IGNORECASE)
_MINUS = dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"), "-")
_NUMBER = re.compile(r"[+-]?\d*([.,])?\d+(?:[eE][+-]?\d+)?")
_Columns = dict[str, Any]


@dataclass
class _Table:
    """An opened table: its columns under the names of the module's text, and how its features are read.

    Attributes:
        path: the table or archive, begins every message.
        columns: all that has one entry per sample, by its key.
        place: row to its place in the file, for instance "line 3".
        remarks: what a user should know of how it was read.
        left: names of what is not read.
        called: key to the name in the file.
    """

    path: Path
    columns: _Columns
    place: Callable[[int], str]
    remarks: list[str]
    left: list[str] = field(default_factory=list)
    called: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = list(self.columns)

    def name_columns(self, key_of: Callable[[str, Any], str | None]) -> None:
        """Put the columns under their keys; the own name of a key comes before the other names of it."""
        columns, self.columns = self.columns, {}
        for name, values in columns.items():
            key = key_of(name, values)
            if key is None or (key in columns and key != name and key_of(key, columns[key]) == key):
                self.left.append(name)
                continue
            if key in self.called:
                raise DataError(f"{self.path}: has both {self.called[key]!r} and {name!r} for {key}; keep one of them")
            self.columns[key], self.called[key] = values, name
        renamed = [f"{name!r} read as {key}" for key, name in self.called.items() if key != name and key != "clip"]
        self.remarks += renamed

    def need(self, key: str, ids: list[str] | None = None) -> Any:
        """The column ``key``, without empty cells.

        Raises:
            DataError: there is none, or a cell is empty; names its row.
        """
        if key not in self.columns:
            found = ", ".join(self.names[:12])
            remedy = _NO_SPLIT if key == "split" else ""
            raise DataError(f"{self.path}: column {key!r} is missing, found {found}; {remedy}{FORM}")
        values = self.columns[key]
        for row, value in enumerate(values if isinstance(values, list) else ()):
            if not value.strip():
                sample = f" of sample {ids[row]!r}" if ids else ""
                raise DataError(f"{self.path}: {self.place(row)}: an empty {self.called[key]}{sample}; fill the cell")
        return values


_NO_SPLIT = (
    "say in each row whether it is train, valid or test (files of one split each: put their rows together, with a "
    "column split); "
)


def read(path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None) -> DatasetRecord:
    """Read a table of one's own, in one of the three forms that the module describes.

    Args:
        path: a ``.csv`` or ``.tsv`` file, an ``.npz`` file, or a folder.
        name: name of the data set from now on.
        task: by default the emotions of the ``label:NAME`` columns, in their order; else sentiment in [-1, 1] where
            there are unimodal labels and all labels lie there, else in [-3, 3], where the labels can be that.
        label_column: of an array ``label`` with several numbers per sample the one to take, see
            :mod:`mmsa_lib.data.sources.labels`.

    Returns:
        Feature sets ``text``, ``audio``, ``vision`` as far as they are given, one fold ``standard``. A sample whose
        features are all absent or zero counts as missing in that modality.

    Raises:
        UnsafePickleError: an ``.npz`` carries code.
        DataError: a column is missing, a row is short, a cell is empty, an id repeats, a split is unknown or missing, a
            label is out of range, a file is damaged, or features do not fit together; names the file and the sample.
    """
    path, repairs = Path(path), Repairs()
    table, read_features = _open(path, repairs)
    columns = table.columns
    ids, groups = _ids(table)
    count = len(ids)
    standard = _splits(table, column(table.need("split", ids), count, f"{table.path} split"), ids)
    check_ids(ids, standard.tolist(), str(path))
    if not any(key.startswith(EMOTION_PREFIX) for key in columns):
        table.need("label", ids)
    gaps = _unimodal_gaps(table)
    complete = {key: values for key, values in columns.items() if key not in gaps}
    labels, chosen, unimodal, remark = _labels(complete, ids, path, task, label_column, repairs)
    transcripts = _transcripts(table, count, repairs) if "text" in columns else None
    sets = {m: found for m in MODALITIES if (found := read_features(m, ids, repairs)) is not None}
    if not sets and transcripts is None:
        raise DataError(f"{path}: there are neither features nor a column 'text'; there is nothing to learn from")
    text = "text" if "text" in sets else "words" if transcripts is not None else None
    sizes = tuple(int((standard == split).sum()) for split in SPLIT_NAMES)
    line, _ = identify(table.path, sizes)
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=ids,
        groups=[group or own for group, own in zip(groups, ids, strict=True)],
        labels=labels,
        folds={"standard": standard},
        features=dict(sets),
        defaults={"*": {**({"text": text} if text else {}), **{m: m for m in sets if m != "text"}}},
        transcripts=transcripts,
        unimodal_labels=unimodal,
        terms=USER_TERMS,
        sources=[line],
        repairs=repairs.counts,
        notes=[remark, *_remarks_on_groups(groups), *table.remarks, *not_read(table.left)],
    )


_ReadFeatures = Callable[[Modality, list[str], Repairs], FeatureSet | None]


def _open(path: Path, repairs: Repairs) -> tuple[_Table, _ReadFeatures]:
    """The columns, and how features are read, for any of the three forms."""
    if path.is_dir():
        return _open_folder(path, repairs)
    if path.suffix.lower() == ".npz":
        return _open_archive(path)
    if path.suffix.lower() not in _TABLE_ENDINGS:
        kind = kind_of(path)
        found = f"; it seems to be {kind}" if kind else ""
        raise DataError(f"{path}: give a .csv, .tsv or .npz file, or a folder with samples.csv{found}")
    table = _open_cells(path, repairs)
    return table, lambda m, ids, repairs: _feature_columns(table, m, ids, repairs)


def _open_cells(path: Path, repairs: Repairs) -> _Table:
    """The cells of a table as they are written: an id 001 stays 001, a transcript NA stays NA."""
    cells = read_cells(path)
    table = _Table(path, cells.columns, lambda row: f"line {cells.lines[row]}", cells.remarks)
    table.name_columns(_cell_key)
    _plain_numbers(table, repairs)
    return table


def _cell_key(name: str, _: Any) -> str | None:
    """The key of a column of cells."""
    if name.startswith(EMOTION_PREFIX):
        return name
    if feature := _FEATURE.fullmatch(name):
        return f"{feature[1].lower()}:{int(feature[2])}"
    return _plain_key(name)


def _open_archive(path: Path) -> tuple[_Table, _ReadFeatures]:
    kind = kind_of(path)
    if kind and kind != ARCHIVE:
        raise DataError(f"{path} is not an .npz archive: it seems to be {kind}")
    table = _Table(path, load_npz(path), lambda row: f"row {row}", [])
    table.name_columns(_array_key)
    for key, values in table.columns.items():
        if not isinstance(values, np.ndarray) or values.ndim == 0:
            raise DataError(
                f"{path}: {table.called[key]!r} is a single object ({describe(values)}); expected arrays with one "
                "entry per sample"
            )
    return table, lambda m, ids, repairs: _padded_arrays(table, m, ids, repairs)


def _array_key(name: str, values: Any) -> str | None:
    """The key of an array of an archive: an array that is called text may hold transcripts or features."""
    known, is_array = spelling(name), isinstance(values, np.ndarray)
    key = field_of(known)
    if name.startswith(EMOTION_PREFIX):
        return name
    if known in NAMES["text"]:
        entry = values.flat[0] if is_array and values.dtype == object and values.size else None
        numbers = is_array and (values.dtype.kind in "biuf" or isinstance(entry, np.ndarray))
        return "text_features" if numbers else "text"
    if key in MODALITIES or key in [f"{m}_lengths" for m in MODALITIES]:
        return key.replace("text", "text_features")
    return _plain_key(name)


def _plain_key(name: str) -> str | None:
    """The key of what is no feature."""
    known = spelling(name)
    return _KEYS.get(known) or _OTHER_KEYS.get(field_of(known) or "")


def _open_folder(folder: Path, repairs: Repairs) -> tuple[_Table, _ReadFeatures]:
    """The table of a folder, and its folders of arrays by modality."""
    listing = set(os.listdir(folder))
    found = next((f"samples{end}" for end in _TABLE_ENDINGS if f"samples{end}" in listing), None)
    if found is None:
        raise DataError(
            f"{folder}: the folder needs a table samples.csv or samples.tsv with id, split and label; it seems to be "
            f"{kind_of(folder)}"
        )
    table = _open_cells(folder / found, repairs)
    folders = _modality_folders(folder, listing)
    table.remarks += [f"folder {name!r} read as {m}" for m, name in folders.items() if name != m]
    for key, name in list(table.called.items()):
        if _FEATURE.fullmatch(key):  # features lie in files here
            del table.called[key], table.columns[key]
            table.left.append(name)
    table.left += unread(listing - {found, *folders.values()})

    def read_features(modality: Modality, ids: list[str], repairs: Repairs) -> FeatureSet | None:
        if modality not in folders:
            return None
        rows, strange = _per_sample_files(folder / folders[modality], ids)
        table.left.extend(f"{folders[modality]}/{name} (no sample of that id)" for name in strange)
        if not any(map(len, rows)):
            if not strange:
                table.left.append(f"{folders[modality]} (an empty folder)")
                return None
            raise DataError(
                f"{folder / folders[modality]}: no file is called after a sample, as {ids[0]}.npy would be, found "
                f"{', '.join(strange[:3])}; rename the files"
            )
        where, described = str(folder / folders[modality]), f"{modality} features, one file per sample"
        level = "utterance" if max(map(len, rows)) == 1 else "frame"
        return listed(rows, ids, where, modality=modality, level=level, repairs=repairs, description=described)

    return table, read_features


def _modality_folders(folder: Path, listing: Iterable[str]) -> dict[Modality, str]:
    """The name of the folder of each modality; the own name of a modality comes before the others.

    Raises:
        DataError: something else has such a name, or two folders have.
    """
    folders: dict[Modality, str] = {}
    for modality in MODALITIES:
        names = sorted(name for name in listing if field_of(name) == modality)
        names = [modality] if modality in names else names
        if len(names) > 1:
            raise DataError(f"{folder}: has both {names[0]} and {names[1]} for {modality}; keep one of them")
        if names and not (folder / names[0]).is_dir():
            kind = kind_of(folder / names[0]) or "another file"
            raise DataError(f"{folder / names[0]} must be a folder of .npy files, and seems to be {kind}")
        folders |= {modality: names[0]} if names else {}
    return folders


def _ids(table: _Table) -> tuple[list[str], list[str]]:
    """Ids, and the group of each sample: empty where it is not given."""
    columns, path = table.columns, table.path
    has_clips = "clip" in columns and "group" in columns
    if "id" not in columns and "clip" in columns:
        clips = names_of(table.need("clip"), f"{path} {table.called['clip']}")
        if has_clips:
            videos = names_of(table.need("group"), f"{path} {table.called['group']}")
            table.remarks.append(f"ids are {table.called['group']}$_${table.called['clip']}")
            clips = [f"{video}$_${clip}" for video, clip in zip(videos, clips, strict=True)]
        ids = clips
    else:
        ids = names_of(table.need("id"), f"{path} id")
        if "clip" in columns:
            table.left.append(table.called["clip"])
    if "group" not in columns:
        return ids, [""] * len(ids)
    where = f"{path} {table.called['group']}"
    groups = [name if has_values(name) else "" for name in entries_of(columns["group"], where)]
    if len(groups) != len(ids):
        raise DataError(f"{where}: {len(groups)} entries for {len(ids)} samples; the file is damaged or mixed up")
    given = iter(names_of([name for name in groups if has_values(name)], where))
    return ids, [next(given) if has_values(name) else "" for name in groups]


def _remarks_on_groups(groups: list[str]) -> list[str]:
    empty = groups.count("")
    if empty == len(groups):
        return ["no column 'group': each sample is a group of its own"]
    return [f"{DOUBT}group: {empty} cells are empty; these samples are groups of their own"] if empty else []


def _splits(table: _Table, raw: list[str], ids: list[str]) -> np.ndarray:
    known = [_CANONICAL.get(value.strip().lower()) for value in raw]
    for row, (sample, value, split) in enumerate(zip(ids, raw, known, strict=True)):
        if split is None:
            where = f"{table.path}: {table.place(row)}"
            raise DataError(f"{where}: split {value!r} of sample {sample!r} is unknown; use train, valid or test")
    for split in SPLIT_NAMES:
        if split not in known:
            raise DataError(f"{table.path}: no sample has the split {split}; assign some samples, whole videos, to it")
    return np.array(known)


def _transcripts(table: _Table, count: int, repairs: Repairs) -> list[str] | None:
    """The transcripts; ``None`` where there is none at all. Cells that pandas writes for a missing text are empty."""
    texts = column(table.columns["text"], count, f"{table.path} text", repairs)
    missing = [text.strip() in ("nan", "NaN", "<NA>") for text in texts]
    repairs.count("text: cells that say nan, left empty", sum(missing))
    texts = ["" if is_nan else text for text, is_nan in zip(texts, missing, strict=True)]
    words = sum(text.strip() in ("None", "NULL", "null", "N/A", "#N/A") for text in texts)
    if words:
        table.remarks.append(f"{DOUBT}{words} transcripts are 'None' or the like; empty the cells if they are missing")
    if any(text.strip() for text in texts):
        return texts
    table.left.append(f"{table.called['text']} (every cell is empty)")
    return None


def _unimodal_gaps(table: _Table) -> set[str]:
    """The optional columns of unimodal labels in which a cell is empty; they are not read."""
    gaps = set()
    for key in (f"label_{m}" for m in MODALITIES):
        values = table.columns.get(key)
        if values is None:
            continue
        absent = [value is None or str(value).strip().lower() in ("", "nan") for value in np.ravel(values).tolist()]
        if any(absent):
            gaps.add(key)
            table.left.append(f"{table.called[key]} (no value for {sum(absent)} of {len(absent)} samples)")
    return gaps


def _plain_numbers(table: _Table, repairs: Repairs) -> None:
    """Turn typographic minus signs, and decimal commas that can't be anything else, into plain ones.

    Raises:
        DataError: some numbers have a comma and others a point, or a comma may separate thousands; names the lines.
    """
    found: dict[str, list[tuple[str, int]]] = {"": [], ",": [], ".": []}
    plain: dict[str, list[str]] = {}
    numeric = {key: v for key, v in table.columns.items() if key.startswith("label") or _FEATURE.fullmatch(key)}
    if all(text.isascii() and "," not in text for text in map("".join, numeric.values())):
        return  # tables may have thousands of columns
    for key, cells in numeric.items():
        plain[key] = list(cells)
        for row, cell in enumerate(cells):
            number = cell.strip().translate(_MINUS)
            if match := _NUMBER.fullmatch(number):
                found[match[1] or ""].append((cell, row))
                repairs.count("typographic minus signs read as minus", int(number != cell.strip()))
                plain[key][row] = number.replace(",", ".")
    if found[","]:
        cell, row = found[","][0]
        where = f"{table.path}: {table.place(row)}: {cell!r}"
        if found["."]:
            other, place = found["."][0]
            raise DataError(
                f"{where} has a comma, and {other!r} in {table.place(place)} a point; write all numbers with a point"
            )
        if all(re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell.strip().translate(_MINUS)) for cell, _ in found[","]):
            raise DataError(f"{where} may be a decimal or thousands; write numbers with a point")
        repairs.count("decimal commas read as points", len(found[","]))
    table.columns |= plain


def _labels(
    columns: _Columns, ids: list[str], path: Path, task: Task | None, label_column: str | None, repairs: Repairs
) -> tuple[np.ndarray, Task, dict[Modality, np.ndarray], str]:
    """Labels, the task, unimodal labels, and a remark on the task."""
    names = [name.removeprefix(EMOTION_PREFIX) for name in columns if name.startswith(EMOTION_PREFIX)]
    if names and "label" in columns:
        raise DataError(f"{path}: has both 'label' and '{EMOTION_PREFIX}{names[0]}'; keep sentiment or emotions")
    if names:
        if task is not None and (task.kind == "regression" or {*task.names} != {*names}):
            raise DataError(f"{path}: has labels for {', '.join(names)}, which is not the task that was asked for")
        asked = task or emotions(names)
        values = [
            _numbers(columns[EMOTION_PREFIX + name], ids, path, EMOTION_PREFIX + name, Repairs())
            for name in asked.names
        ]
        stacked = np.stack(values, axis=1)
        wrong = ~np.isin(stacked, (0, 1)).all(axis=1)
        if task is None and wrong.any():
            raise DataError(
                f"{path}: emotion labels of sample {ids[int(wrong.argmax())]!r} are not 0 or 1; correct them, or read "
                f"intensities above 0 as yes with --emotions {' '.join(names)}"
            )
        labels, asked, _ = read_labels([(str(path), stacked, ids)], path, repairs, task=asked, column=label_column)
        return labels, asked, {}, f"{asked.kind} {', '.join(asked.names)}: from the columns of these names"
    found = [(f"{path} column 'label'", columns["label"], ids)]
    unimodal: dict[Modality, np.ndarray] = {
        m: _numbers(columns[f"label_{m}"], ids, path, f"label_{m}", repairs)
        for m in MODALITIES
        if f"label_{m}" in columns
    }
    labels, asked, remark = read_labels(found, path, repairs, task=task, column=label_column, sims=bool(unimodal))
    return labels, asked, unimodal, remark


def _numbers(raw: Any, ids: list[str], path: Path, name: str, repairs: Repairs) -> np.ndarray:
    """A column of labels; empty cells are refused with the sample's name, as NaN is."""
    return sentiment_labels(raw, ids, f"{path} column {name!r}", repairs)


def _feature_columns(table: _Table, modality: Modality, ids: list[str], repairs: Repairs) -> FeatureSet | None:
    """Features of whole utterances from the columns ``audio:0`` and so on; an empty cell is a NaN."""
    runs: dict[str, dict[int, str]] = {}
    for key in table.columns:
        prefix, _, index = key.partition(":")
        if _MODALITIES.get(prefix) == modality and index.isdecimal():
            runs.setdefault(prefix, {})[int(index)] = key
    if not runs:
        return None
    prefix = modality if modality in runs else next(iter(runs))
    table.left += [table.called[key] for other, run in runs.items() if other != prefix for key in run.values()]
    run = runs[prefix]
    gap = next((i for i in range(len(run)) if i not in run), None)
    if gap is not None:
        name = re.sub(r"\d+$", str(gap), table.called[next(iter(run.values()))])
        raise DataError(f"{table.path}: column {name!r} is missing; number them from 0, or restore it")
    values = np.empty((len(ids), 1, len(run)))
    for i in range(len(run)):
        values[:, 0, i] = _cell_numbers(table, run[i], ids)
    values[np.isnan(values).all(axis=2)] = 0  # an empty row is a missing modality, nothing to repair
    return features(
        values,
        np.ones(values.shape[:2], bool),
        modality=modality,
        level="utterance",
        repairs=repairs,
        description=f"{len(run)} {modality} columns of the table",
    )


def _cell_numbers(table: _Table, key: str, ids: list[str]) -> np.ndarray:
    """``(N,)`` float64 of a column of cells; NaN where one is empty."""
    numbers = np.full(len(ids), np.nan)
    for row, cell in enumerate(table.columns[key]):
        try:
            numbers[row] = float(cell.replace("_", "no number")) if cell.strip() else np.nan
        except ValueError:
            where = f"{table.place(row)}: {cell!r} in column {table.called[key]!r} of sample {ids[row]!r}"
            raise DataError(f"{table.path}: {where} is no number; correct it") from None
    return numbers


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
    """``(T, d)`` of one sample."""
    if not path.is_file():
        kind = kind_of(path) if is_dangling(path) or path.is_dir() else "no plain file"
        raise DataError(f"{path} must be an array of its sample, and seems to be {kind}; restore or delete it")
    try:
        values = _load_npy(path)
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


def _load_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file that holds exactly what its header announces."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
        announced, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if announced != there:
            raise ValueError(f"it announces {announced} bytes of data and holds {there}")
        file.seek(0)
        return np.load(file, allow_pickle=False)


def _padded_arrays(table: _Table, modality: Modality, ids: list[str], repairs: Repairs) -> FeatureSet | None:
    """Frames of an array of the archive; ``text_features`` for text, since ``text`` is the transcript."""
    key = "text_features" if modality == "text" else modality
    columns = table.columns
    if key not in columns or not has_values(columns[key]):
        table.left += [f"{table.called[key]} (no value)"] if key in columns else []
        table.left += [table.called[f"{key}_lengths"]] if f"{key}_lengths" in columns else []
        return None
    where = f"{table.path} {table.called[key]}"
    array, lengths = frames_of(columns[key], ids, where), None
    if f"{key}_lengths" in columns:
        lengths = np.asarray(columns[f"{key}_lengths"]).reshape(-1)
        if lengths.shape != (len(ids),) or lengths.dtype.kind not in "iu" or (lengths < 0).any():
            where = f"{table.path} {table.called[f'{key}_lengths']}"
            raise DataError(f"{where}: expected {len(ids)} whole numbers, found {lengths.shape} of {lengths.dtype}")
    described = f"array {table.called[key]!r}"
    if isinstance(array, list):
        wrong = 0 if lengths is None else int((lengths != [len(row) for row in array]).sum())
        repairs.count(f"{modality}: samples whose length contradicts the data", wrong)
        return listed(array, ids, where, modality=modality, level="frame", repairs=repairs, description=described)
    present = present_frames(array)
    valid = spanned(present, modality, repairs) if lengths is None else placed(present, lengths, modality, repairs)
    level = "utterance" if array.shape[1] == 1 else "frame"
    return features(array, valid, modality=modality, level=level, repairs=repairs, description=described)
