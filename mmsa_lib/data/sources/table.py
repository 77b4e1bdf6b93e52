"""Data of one's own: a table of samples, with features in its columns, in ``.npy`` files, or all in an ``.npz``.

Three forms, all described by the same columns:

- a table ``samples.csv`` or ``.tsv`` with features of whole utterances in columns ``text:0``, ``text:1``, ...,
  ``audio:0``, ..., ``vision:0``, ...;
- a folder with ``samples.csv`` (or ``.tsv``) and, per modality, a folder ``text``, ``audio`` or ``vision`` that holds
  ``<id>.npy`` of shape ``(T, d)`` or ``(d,)``; a sample without a file lacks that modality;
- an ``.npz`` archive with one array per column, and ``text_features``, ``audio``, ``vision`` of shape ``(N, T, d)`` or
  ``(N, d)``, padded on either side, optionally with ``text_features_lengths``, ``audio_lengths``, ``vision_lengths``.

Columns:

==================  ==================================================================================================
``id``              unique name of the sample
``split``           ``train``, ``valid`` (or ``dev``, ``val``) or ``test``
``label``           sentiment, or a class (its name or its id); or instead ``label:NAME`` per emotion, 0 or 1
``text``            transcript (optional); text features and tokens are computed from it
``group``           video or speaker that the sample was cut from (optional): statistics resample by it
``label_text`` ...  sentiment of one modality alone (optional): ``label_text``, ``label_audio``, ``label_vision``
==================  ==================================================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmsa_lib.data.batch import MODALITIES, Modality
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.sources.frames import features, frames_of, listed, placed, present_frames, spanned
from mmsa_lib.data.sources.labels import read_labels
from mmsa_lib.data.sources.layouts import SPLIT_NAMES, column, names_of
from mmsa_lib.data.sources.official import USER_TERMS, identify
from mmsa_lib.data.sources.repairs import Repairs, check_ids, sentiment_labels
from mmsa_lib.data.sources.safe_pickle import load_npz
from mmsa_lib.data.task import Task, emotions
from mmsa_lib.errors import DataError

EMOTION_PREFIX = "label:"
_TABLE_ENDINGS = (".csv", ".tsv")
_CANONICAL = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_Columns = dict[str, Any]


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
        DataError: a column is missing, an id repeats, a split is unknown or missing, a label is empty or out of range,
            or features do not fit together; names the file and the sample.
    """
    path, repairs = Path(path), Repairs()
    columns, read_features, source = _open(path)
    ids = names_of(_need(columns, "id", path), f"{path} id")
    count = len(ids)
    standard = _splits(column(_need(columns, "split", path), count, f"{path} split"), ids, path)
    check_ids(ids, standard.tolist(), str(path))
    labels, chosen, unimodal, remark = _labels(columns, ids, path, task, label_column, repairs)
    transcripts = column(columns["text"], count, f"{path} text", repairs) if "text" in columns else None
    sets = {m: found for m in MODALITIES if (found := read_features(m, ids, repairs)) is not None}
    if not sets and transcripts is None:
        raise DataError(f"{path}: there are neither features nor a column 'text'; there is nothing to learn from")
    text = "text" if "text" in sets else "words" if transcripts is not None else None
    sizes = tuple(int((standard == split).sum()) for split in SPLIT_NAMES)
    line, _ = identify(source, sizes)
    groups = column(columns["group"], count, f"{path} group") if "group" in columns else list(ids)
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=ids,
        groups=groups,
        labels=labels,
        folds={"standard": standard},
        features=dict(sets),
        defaults={"*": {**({"text": text} if text else {}), **{m: m for m in sets if m != "text"}}},
        transcripts=transcripts,
        unimodal_labels=unimodal,
        terms=USER_TERMS,
        sources=[line],
        repairs=repairs.counts,
        notes=[remark, *([] if "group" in columns else ["no column 'group': each sample is a group of its own"])],
    )


_ReadFeatures = Callable[[Modality, list[str], Repairs], FeatureSet | None]


def _open(path: Path) -> tuple[_Columns, _ReadFeatures, Path]:
    """The columns, how features are read, and the file that names the source, for any of the three forms."""
    if path.is_dir():
        table = next((path / f"samples{end}" for end in _TABLE_ENDINGS if (path / f"samples{end}").is_file()), None)
        if table is None:
            raise DataError(f"{path}: the folder needs a table samples.csv or samples.tsv with id, split and label")
        columns = _read_columns(table)
        return columns, lambda m, ids, repairs: _per_sample_files(path / m, m, ids, repairs), table
    if path.suffix.lower() == ".npz":
        columns = _read_archive(path)
        return columns, lambda m, ids, repairs: _padded_arrays(columns, m, ids, repairs, path), path
    if path.suffix.lower() not in _TABLE_ENDINGS:
        raise DataError(f"{path}: give a .csv, .tsv or .npz file, or a folder with samples.csv")
    columns = _read_columns(path)
    return columns, lambda m, ids, repairs: _feature_columns(columns, m, ids, repairs, path), path


def _read_columns(path: Path) -> _Columns:
    """The cells of a table as they are written: an id 001 stays 001, a transcript NA stays NA."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row with more cells than the header
            table = pd.read_csv(
                path,
                sep="\t" if path.suffix.lower() == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
            )
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (ValueError, pd.errors.ParserWarning) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a readable table ({reason}); save it as UTF-8 text with a header line") from error
    return {str(name): table[name].fillna("").to_numpy(dtype=object) for name in table.columns}


def _read_archive(path: Path) -> _Columns:
    columns = load_npz(path)
    for name, values in columns.items():
        if not isinstance(values, np.ndarray) or values.ndim == 0:
            raise DataError(f"{path}: {name!r} is a single object; expected arrays with one entry per sample")
    return columns


def _need(columns: _Columns, name: str, path: Path) -> Any:
    if name not in columns:
        raise DataError(f"{path}: column {name!r} is missing, found {', '.join(list(columns)[:12])}")
    return columns[name]


def _splits(raw: list[str], ids: list[str], path: Path) -> np.ndarray:
    known = [_CANONICAL.get(value.strip().lower()) for value in raw]
    for sample, value, split in zip(ids, raw, known, strict=True):
        if split is None:
            raise DataError(f"{path}: split {value!r} of sample {sample!r} is unknown; use train, valid or test")
    for split in SPLIT_NAMES:
        if split not in known:
            raise DataError(f"{path}: no sample has the split {split}; assign some samples, whole videos, to it")
    return np.array(known)


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
    found = [(f"{path} column 'label'", _need(columns, "label", path), ids)]
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


def _feature_columns(
    columns: _Columns, modality: Modality, ids: list[str], repairs: Repairs, path: Path
) -> FeatureSet | None:
    """Features of whole utterances from the columns ``modality:0`` and so on; an empty cell is a NaN."""
    found = [name for name in columns if name.startswith(f"{modality}:")]
    if not found:
        return None
    expected = [f"{modality}:{i}" for i in range(len(found))]
    if set(found) != set(expected):
        raise DataError(f"{path}: column {next(iter(set(expected) - set(found)))!r} is missing; number them from 0")
    values = np.empty((len(ids), 1, len(expected)))
    for i, name in enumerate(expected):
        numbers = pd.to_numeric(pd.Series(columns[name]), errors="coerce").to_numpy(dtype=np.float64)
        for row in np.flatnonzero(np.isnan(numbers)):
            if columns[name][row].strip().lower() not in ("", "nan"):
                cell = f"{columns[name][row]!r} in column {name!r} of sample {ids[row]!r}"
                raise DataError(f"{path}: {cell} is no number; correct it")
        values[:, 0, i] = numbers
    values[np.isnan(values).all(axis=2)] = 0  # an empty row is a missing modality, nothing to repair
    return features(
        values,
        np.ones(values.shape[:2], bool),
        modality=modality,
        level="utterance",
        repairs=repairs,
        description=f"{len(expected)} {modality} columns of the table",
    )


def _per_sample_files(folder: Path, modality: Modality, ids: list[str], repairs: Repairs) -> FeatureSet | None:
    """Frames of each sample from ``<folder>/<id>.npy``."""
    if not folder.is_dir():
        return None
    rows = [_sample_file(folder, i) for i in ids]
    widths = {row.shape[1]: i for i, row in zip(ids, rows, strict=True) if row is not None}
    if len(widths) != 1:
        found = " and ".join(f"{width} (sample {i!r})" for width, i in widths.items()) or "no file of any sample"
        raise DataError(f"{folder}: found {found}; all samples need the same number of features")
    width = next(iter(widths))
    lengths = np.array([0 if row is None else len(row) for row in rows])
    padded = np.zeros((len(ids), max(1, lengths.max()), width), dtype=np.float32)
    for i, row in enumerate(rows):
        if row is not None:
            padded[i, : len(row)] = repairs.finite(row, modality)
    return features(
        padded,
        np.arange(padded.shape[1]) < lengths[:, None],
        modality=modality,
        level="utterance" if lengths.max() == 1 else "frame",
        repairs=repairs,
        description=f"{modality} features, one file per sample",
    )


def _sample_file(folder: Path, name: str) -> np.ndarray | None:
    """``(T, d)`` of one sample, or ``None`` where there is no file."""
    if Path(name).name != name or name in (".", ".."):
        raise DataError(f"{folder}: id {name!r} can't be a file name; rename the sample")
    path = folder / f"{name}.npy"
    if not path.is_file():
        return None
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: no array of numbers ({error}); write it with numpy.save") from error
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise DataError(f"{path}: shape {values.shape} and type {values.dtype}, expected numbers (T, d) or (d,)")
    return values


def _padded_arrays(
    columns: _Columns, modality: Modality, ids: list[str], repairs: Repairs, path: Path
) -> FeatureSet | None:
    """Frames of an array of the archive; ``text_features`` for text, since ``text`` is the transcript."""
    key = "text_features" if modality == "text" else modality
    if key not in columns:
        return None
    array = frames_of(columns[key], ids, f"{path} {key}")
    if isinstance(array, list):
        described = f"array {key!r}, unpadded"
        return listed(
            array, ids, f"{path} {key}", modality=modality, level="frame", repairs=repairs, description=described
        )
    present = present_frames(array)
    if f"{key}_lengths" in columns:
        lengths = np.asarray(columns[f"{key}_lengths"]).reshape(-1)
        if lengths.shape != (len(ids),) or lengths.dtype.kind not in "iu" or (lengths < 0).any():
            raise DataError(f"{path} {key}_lengths: expected {len(ids)} whole numbers, found {lengths.shape}")
        valid = placed(present, lengths, modality, repairs)
    else:
        valid = spanned(present, modality, repairs)
    level = "utterance" if array.shape[1] == 1 else "frame"
    return features(array, valid, modality=modality, level=level, repairs=repairs, description=f"array {key!r}")
