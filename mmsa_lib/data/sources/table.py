"""Data of one's own: a table of samples, with features in its columns, in ``.npy`` files, or all in an ``.npz``.

Three forms, all described by the same columns:

- a table ``samples.csv`` or ``.tsv`` with features of whole utterances in columns ``text:0``, ``text:1``, ...,
  ``audio:0``, ..., ``vision:0``, ... (also ``audio_0`` or ``audio.0``);
- a folder with ``samples.csv`` (or ``.tsv``) and, per modality, a folder ``text``, ``audio`` or ``vision`` that holds
  ``<id>.npy`` of shape ``(T, d)`` or ``(d,)``; a sample without a file lacks that modality (``mmsa-lib extract``
  writes such folders);
- an ``.npz`` archive with one array per column, and ``text_features``, ``audio``, ``vision`` of shape ``(N, T, d)`` or
  ``(N, d)``, padded on either side, optionally with ``text_features_lengths``, ``audio_lengths``, ``vision_lengths``;
  or arrays of objects with one ``(T, d)`` array per sample.

A frame that is NaN as a whole is missing.

Columns:

==================  ==================================================================================================
``id``              unique name of the sample; or ``video_id`` and ``clip_id`` (CH-SIMS), read as ``video$_$clip``
``split``           ``train``, ``valid`` (or ``dev``, ``val``) or ``test``; also called ``mode``
``label``           sentiment, or a class (its name or its id); or instead ``label:NAME`` per emotion, 0 or 1
``text``            transcript (optional); text features and tokens are computed from it
``group``           video or speaker that the sample was cut from (optional): statistics resample by it
``label_text`` ...  sentiment of one modality alone (optional): ``label_text``, ``label_audio``, ``label_vision``
==================  ==================================================================================================

Other names that people use are read too (``own_forms.NAMES`` and ``layouts.FIELDS``): ``visual``, ``acoustic``,
``label_T``, ... A column, array, file or folder that is not read is named in a note.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Modality
from mmsa_lib.data.sources.columns import entries_of, features_of, has_values, names_of, texts
from mmsa_lib.data.sources.folds import Splitting
from mmsa_lib.data.sources.importing import Source, group_of
from mmsa_lib.data.sources.layouts import CUT_VALID, DOUBT, SPLIT_NAMES, SPLIT_OF, spelling
from mmsa_lib.data.sources.mmsa_pickle import VIDEO_OF
from mmsa_lib.data.sources.own_forms import EMOTION_PREFIX, FEATURE, Table, open_table
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import Task, emotions
from mmsa_lib.errors import DataError, unknown_name

_MINUS = dict.fromkeys(map(ord, "\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d"), "-")
_NUMBER = re.compile(r"[+-]?\d*([.,])?\d+(?:[eE][+-]?\d+)?")


class _Placed(str):
    """An id with its line, for messages."""

    line: str

    def __new__(cls, name: str, line: str) -> _Placed:
        placed = super().__new__(cls, name)
        placed.line = line
        return placed


def read(
    path: Path | str,
    name: str,
    *,
    task: Task | None = None,
    label_column: str | None = None,
    labels: Path | str | None = None,
    **splitting: Any,
) -> DatasetRecord:
    """Read a table of one's own, in one of the forms that the module describes.

    Args:
        path: a ``.csv`` or ``.tsv`` file, an ``.npz`` file, or a folder.
        task: by default the emotions of the ``label:NAME`` columns, in their order; else sentiment in [-1, 1] where
            there are unimodal labels and all labels lie there, else in [-3, 3], where the labels can be that.
        label_column: the column that is the label, or of an array ``label`` of several numbers per sample which one.
        labels: the table of a folder, where it is not called as :data:`~.own_forms.TABLES` are.
        name, splitting: as in :func:`.mmsa_pickle.read`.

    Returns:
        Feature sets ``text``, ``audio``, ``vision`` as far as they are given, one fold ``standard``. A sample whose
        features are all absent or zero counts as missing in that modality.

    Raises:
        UnsafePickleError: an ``.npz`` carries code.
        FileProblems: a cell is empty, an id repeats, a split is unknown, a label is out of range, a file is damaged, or
            features do not fit together; names every file, line and sample.
        DataError: a column is missing, or the table can't be read.
        UnknownNameError: there is no column ``label_column``.
    """
    notes: list[str] = []
    table, read_frames = open_table(Path(path), notes, labels and Path(labels))
    source = Source(path, {"": table}, splitting=Splitting(**splitting), own_table=True, problems=table.problems)
    if label_column in table.part:
        key = next((key for key, called in table.called.items() if called == label_column), "labels")
        if not key.startswith("label"):
            raise DataError(
                f"{path}: column {label_column!r} is read as {key}; name another one, with labels (--column)"
            )
        table.called.pop(key, None)
        table.called["labels"], label_column = label_column, None
    elif label_column is not None and isinstance(table.part.get(table.called.get("labels", ""), []), list):
        raise unknown_name(f"column of {path}", label_column, table.part)
    lacking = ["id"] if "clip" not in table else []
    lacking += ["split"] if not source.splitting.split else []
    lacking += ["labels"] if not any(key.startswith(EMOTION_PREFIX) for key in table.called) else []
    table.problems += [table.lacks(key) for key in lacking if key not in table]
    table.problems.refuse(path)
    ids, groups = ids_of(table, notes, source.splitting.groups)
    source.name_samples({"": ids}, groups, _splits(table, ids, source.splitting))
    plain_numbers(table, source.repairs)
    emotion_labels = _emotion_labels(table, task)
    unimodal = {} if emotion_labels else source.unimodal()
    placed = [_Placed(one, table.line(row)) for row, one in enumerate(ids)]
    if emotion_labels:
        values, asked = emotion_labels
        numbers, chosen, _ = source.labels(asked, label_column, [(table.where, values, placed)])
        read_labels = numbers, chosen, f"{chosen.kind} {', '.join(chosen.names)}: from the columns of these names"
    else:
        values, where = table.need("labels", ids), table.place("labels")
        if isinstance(values, list):  # empty cells are told already
            placed = [one for one, cell in zip(placed, values, strict=True) if cell.strip()]
            values = [cell for cell in values if cell.strip()]
        read_labels = source.labels(task, label_column, [(where, values, placed)], sims=bool(unimodal))
    transcripts = transcripts_of(source, table, notes)
    sets: dict[Modality, FeatureSet] = {}
    for m in MODALITIES:
        with table.problems.gather():
            if (found := read_frames(m, ids)) is not None:
                sets[m] = features_of(ids=ids, modality=m, repairs=source.repairs, nan_is_missing=True, **found)
    source.notes += notes
    return source.record(name, read_labels, sets, files=table.files, transcripts=transcripts, unimodal=unimodal)


def ids_of(table: Table, notes: list[str], asked: str) -> tuple[list[str], list[str]]:
    """Ids, and the group of each sample: its id where none is given. ``asked`` is the column that holds groups."""
    path, groups, key, where = table.where, None, "", ""
    if "group" in table:
        key, where = table.called["group"], table.place("group")
        groups = table.take("group")
    if "id" in table or "clip" not in table:
        ids = table.need_names("id")
    else:
        ids, clip = table.need_names("clip"), table.called["clip"]
        if groups is not None:
            videos = names_of(groups, where)
            notes.append(f"ids are made of {key} and {clip}")
            form = "dia{}_utt{}" if spelling(key) == "dialogue_id" else "{}$_${}"  # as MELD calls its clips
            ids = [form.format(video, one) for video, one in zip(videos, ids, strict=True)]
    if asked and spelling(asked) != spelling(key):
        key = next((name for name in table.names if spelling(name) == spelling(asked)), "")
        if not key:
            raise DataError(f"{path}: no column {asked!r} for --groups; found {', '.join(table.names[:12])}")
        groups, where = table.part.get(key, ids), f"{path} {key}"
        if key not in table.called.values():
            table.part.pop(key, None)
    given = entries_of(groups, where, len(ids)) if groups is not None else [""] * len(ids)
    found = iter(names_of([name for name in given if has_values(name)], where if groups is not None else path))
    empty = sum(not has_values(name) for name in given)
    named = [next(found) if has_values(name) else own for name, own in zip(given, ids, strict=True)]
    if empty == len(given):
        named = [group_of(VIDEO_OF, own) for own in ids]
        notes.append(
            "no column 'group': groups are the videos in ids video$_$clip"
            if named != ids
            else "no column 'group': each sample is a group of its own"
        )
    elif empty:
        notes.append(f"{DOUBT}group: {empty} cells are empty; these samples are groups of their own")
    if table.row_splits and len(set(ids)) < len(ids):  # numbered anew in each file, as the groups are then
        notes.append("ids begin again in each split: read as <split>_<id>, and groups likewise")
        ids, named = ([f"{s}_{one}" for s, one in zip(table.row_splits, x, strict=True)] for x in (ids, named))
    return ids, named


def _splits(table: Table, ids: list[str], splitting: Splitting) -> np.ndarray:
    """``(N,)`` splits; empty where there are none and others will be cut."""
    cells = table.part.get(table.called.get("split", ""))
    if splitting.split and not has_values(cells):
        if "split" in table:
            table.take("split")
        return np.full(len(ids), "", dtype="<U5")
    raw = texts(table.need("split", ids), f"{table.where} split", count=len(ids))
    known = [SPLIT_OF.get(value.strip().lower()) for value in raw]
    for row, (sample, value, split) in enumerate(zip(ids, raw, known, strict=True)):
        if split is None and value.strip():
            said = f"split {value!r} of sample {sample!r} is unknown; use train, valid or test"
            table.problems.append(f"{table.where}: {table.line(row)}: {said}")
    for split in SPLIT_NAMES if not splitting.split else ():
        if split not in known and not (split == "valid" and splitting.cut_valid):
            hint = f", or {CUT_VALID}" if split == "valid" else ""
            said = f"no sample has the split {split}; assign some samples, whole videos, to it{hint}"
            table.problems.append(f"{table.where}: {said}")
    return np.array([split or "" for split in known])


def transcripts_of(source: Source, table: Table, notes: list[str]) -> list[str] | None:
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


def plain_numbers(table: Table, repairs: Repairs) -> None:
    """Turn typographic minus signs, and decimal commas that can't be anything else, into plain ones.

    Raises:
        DataError: some numbers have a comma and others a point, or a comma may separate thousands; names the lines.
    """
    found: dict[str, list[tuple[str, int]]] = {"": [], ",": [], ".": []}
    plain: dict[str, list[str]] = {}
    numeric = {
        name: cells
        for key, name in table.called.items()
        if (key.startswith("label") or FEATURE.fullmatch(key)) and isinstance(cells := table.part[name], list)
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


def _emotion_labels(table: Table, task: Task | None) -> tuple[np.ndarray, Task] | None:
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
