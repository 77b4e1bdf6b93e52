"""Samples to be predicted, without labels and splits: in files of any form that is imported, in stores, in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa_lib.data.formats import MFN_FOLDER, NPY, PICKLE, kind_of
from mmsa_lib.data.hdf5 import read_hdf5, scalars
from mmsa_lib.data.record import MODALITIES, DatasetRecord, Modality
from mmsa_lib.data.registry import GENERATED, store_path, stored
from mmsa_lib.data.sources import mag_pickle, mfn_folder, mmsa_pickle, mult_pickle, sample_files, trees
from mmsa_lib.data.sources.columns import (
    as_name,
    entries_of,
    features_of,
    frames_of_one,
    is_missing,
)
from mmsa_lib.data.sources.importing import Source, shown_labels
from mmsa_lib.data.sources.layouts import (
    DOUBT,
    NOT_READ,
    SPLIT_OF,
    OtherLayout,
    field_of,
    recognise,
    remarks_on,
    spelling,
)
from mmsa_lib.data.sources.own_forms import KEYS, Reader, Table, array_key, cell_key, column_frames, open_table
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.sources.table import ids_of, plain_numbers, transcripts_of
from mmsa_lib.data.store import FORMAT, REMEDY, open_store
from mmsa_lib.data.task import regression
from mmsa_lib.errors import ConfigError, DataError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
FIELDS = ("id", "text", "raw_text", "audio", "vision", "group", "label")
"""Of a sample in memory."""

_ENDINGS = (*trees.ENDINGS, *sample_files.ENDINGS, ".txt")


def sources_of(inputs: Any) -> list[Any]:
    """What is read one after the other: paths, tables, splits in memory, lists of samples (each a mapping).

    Raises:
        DataError: there is nothing in ``inputs``, or something that is no sample.
    """
    if isinstance(inputs, str) and not _is_place(inputs) and " " in inputs.strip():
        inputs = [{"text": inputs}]
    if isinstance(inputs, Mapping):
        inputs = [inputs]
    if not isinstance(inputs, list | tuple):
        return [inputs]
    if not inputs:
        raise DataError("there is no sample to predict; give a file, or {'text': 'a sentence'}")
    if all(isinstance(one, Mapping | str) and not (isinstance(one, str) and _is_place(one)) for one in inputs):
        return [[{"text": one} if isinstance(one, str) else one for one in inputs]]
    return [source for one in inputs for source in sources_of(one)]


def _is_place(text: str) -> bool:
    """Whether a text names a file, a folder or a data set, or looks like it, rather than being a sentence."""
    try:
        there = Path(text).exists()
    except (OSError, ValueError):
        there = False
    return there or text.lower().endswith(_ENDINGS) or text in GENERATED or text in stored()


@contextmanager
def open_samples(source: Any, before: str = "") -> Iterator[DatasetRecord]:
    """The samples of one of :func:`sources_of`; features of a store are read while it is open.

    Samples without ids are called by their row, with ``before`` in front.

    Yields:
        All samples of it; ``labels`` are numbers or texts as they are written, or ``None``.

    Raises:
        DataError: nothing can be read from it; names file, field and sample.
    """
    if not isinstance(source, str | Path):
        yield _read_table(source, "input", before)
        return
    path = Path(source)
    if str(source) in stored() or _is_store(path):
        with open_store(store_path(str(source))) as store:
            yield store.record
    elif str(source) in GENERATED:
        raise ConfigError(f"{source} is generated; give one of its splits, load({str(source)!r})['test'] (--dataset)")
    elif not path.exists():
        shown = f"no file, folder or data set {str(source)!r}"
        raise DataError(f"{shown}; check the path (a sentence like that is given as {{'text': ...}}, with --text)")
    else:
        yield _of_path(path, before)


def _is_store(path: Path) -> bool:
    if path.suffix.lower() not in (".h5", ".hdf5") or not path.is_file():
        return False
    with read_hdf5(path, REMEDY) as file:
        return scalars(file.attrs, ["format"]).get("format") == FORMAT


def _of_path(path: Path, before: str) -> DatasetRecord:
    kind = kind_of(path)
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} can't be read as UTF-8 text ({error}); save it as UTF-8") from error
        rows = [{"id": f"{before}{row}", "text": line} for row, line in enumerate(lines, 1) if line.strip()]
        return _read_table(rows, str(path), before)
    if kind == NPY:
        raise DataError(
            f"{path} is an array that does not say of what; put it into audio/ID.npy beside a samples.csv with a "
            "column id, or give it in Python as {'audio': array}"
        )
    if kind == PICKLE:
        return _read_pickle(path, before)
    if kind == MFN_FOLDER or (path.is_dir() and any(file.suffix == ".h5" for file in path.iterdir())):
        return mfn_folder.read(path, str(path), unlabelled=True)
    return _read_table(path, str(path), before)


def _read_pickle(path: Path, before: str) -> DatasetRecord:
    """A pickle in a published layout, whole or a split of it; samples as dicts, such as MMSA-FET writes of one; or any
    that :mod:`.trees` reads."""
    tree = load(path)
    alone = not (isinstance(tree, Mapping) and SPLIT_OF.keys() & {as_name(key).lower() for key in tree})
    if alone and isinstance(tree, list | tuple) and tree and all(isinstance(one, Mapping) for one in tree):
        return _read_table(list(tree), str(path), before)
    part = tree if alone else next(value for key, value in tree.items() if as_name(key).lower() in SPLIT_OF)
    fields = {field_of(key): value for key, value in part.items()} if isinstance(part, Mapping) else {}
    shapes = [np.ndim(value) for key, value in fields.items() if key in MODALITIES and isinstance(value, np.ndarray)]
    if alone and shapes and max(shapes) < 3 and not isinstance(fields.get("id"), list | tuple | np.ndarray):
        return _read_table([{key: value for key, value in tree.items() if field_of(key) in FIELDS}], str(path), before)
    layout = recognise({"test": tree} if alone else tree)
    if (layout is None and (alone or not shapes)) or (alone and layout != "mag"):
        return _read_table(path, str(path), before)
    reader = {"mmsa": mmsa_pickle, "mag": mag_pickle}.get(layout or ("mmsa" if "id" in fields else "mult"), mult_pickle)
    try:
        record = reader.read(path, str(path), unlabelled=True)
    except OtherLayout:
        return _read_table(path, str(path), before)
    for note in record.notes:
        if note.startswith(DOUBT):
            log.warning("%s: %s", path, note.removeprefix(DOUBT))
    return record


def _read_table(given: Path | pd.DataFrame | list[Mapping[str, Any]], name: str, before: str) -> DatasetRecord:
    """A file or folder in one of the three forms of :mod:`.table`, a table of pandas, or samples in memory."""
    notes: list[str] = []
    if isinstance(given, Path):
        table, read_frames = open_table(given, notes, None)
    elif isinstance(given, list):
        table, read_frames = _of_memory(given, name)
    elif hasattr(given, "columns"):
        cells = {str(column): ["" if is_missing(x) else str(x) for x in given[column]] for column in given}
        table = Table(cells, Path(name), lambda row: f"row {row}", cell_key)
        read_frames = partial(column_frames, table)
    else:
        raise DataError(f"{type(given).__name__} holds no samples; give a path, a table, or {{'text': 'a sentence'}}")
    count = max(
        (len(values) for values in table.part.values() if np.ndim(values) or isinstance(values, list)), default=0
    )
    if not count:
        raise DataError(f"{table.where}: there is no sample; give one")
    source, groups = Source(table.where, {"": table}, own_table=True, problems=table.problems), None
    ids = [f"{before}{row}" for row in range(1, count + 1)]
    if table.placed:
        table.part["id"] = [f"{before}{place}" for place in table.part["id"]]
    if "id" in table or "clip" in table:
        ids, groups = ids_of(table, notes, "")
    source.name_samples({"": ids}, groups, np.full(count, "test"))
    plain_numbers(table, source.repairs)
    labels = shown_labels(entries_of(table.take("labels"), "label")) if "labels" in table else None
    transcripts = transcripts_of(source, table, notes)
    sets = {}
    for modality in MODALITIES:
        if (found := read_frames(modality, ids)) is None:
            continue
        sets[modality] = features_of(ids=ids, modality=modality, repairs=source.repairs, nan_is_missing=True, **found)
        for sample in source.repairs.not_finite.get(modality, ()):
            said = f"{modality} of sample {sample!r} holds a value that is not finite (or an empty cell)"
            raise DataError(f"{found['where']}: {said}; correct it, or leave the modality out")
    table.problems.refuse(table.where)
    table.part = {
        n: x for n, x in table.part.items() if not (table.called.get("split") == n or n.lower().startswith("label"))
    }
    for note in [*notes, *remarks_on([table])]:
        if note.startswith((DOUBT, NOT_READ)) and not isinstance(given, list):
            log.warning("%s: %s", table.where, note.removeprefix(DOUBT))
    usual = {m: m for m in sets}
    return DatasetRecord(
        table.where, regression(), ids, source.groups, labels, {}, sets, {"*": usual}, transcripts=transcripts
    )


def _of_memory(samples: list[Mapping[str, Any]], name: str) -> tuple[Table, Reader]:
    """The fields of samples in memory as columns, and how their frames are read."""
    columns: dict[str, list] = {key: [] for key in ("id", "labels", "group", "raw_text", *MODALITIES)}
    for row, sample in enumerate(samples, 1):
        fields = dict.fromkeys(columns)
        for field, value in sample.items():
            key = field_of(field) or KEYS.get(spelling(str(field)))
            if key in ("text", "raw_text"):
                words = isinstance(value, list | tuple) and all(isinstance(word, str) for word in value)
                value = " ".join(value) if words else value
                key = "raw_text" if isinstance(value, str) or is_missing(value) else "text"
            if key not in fields:
                raise unknown_name(f"field of sample {row}", field, FIELDS)
            if fields[key] is not None:
                raise DataError(f"{name}: sample {row} has two fields for {key}; keep one")
            fields[key] = value
        for key, value in fields.items():
            columns[key].append(value)
    frames = {m: columns.pop(m) for m in MODALITIES}
    given = {"raw_text": np.full(len(samples), None, object)}  # arrays, as of an archive: cells would be all text
    for key, column in columns.items():
        if any(x is not None for x in column):
            given[key] = np.fromiter(column, object, len(column))

    def read_frames(modality: Modality, ids: list[str]) -> dict[str, Any] | None:
        if all(value is None for value in frames[modality]):
            return None
        rows = []
        for sample, value in zip(ids, frames[modality], strict=True):
            where = f"{name}: {modality} of sample {sample!r}"
            rows.append(frames_of_one(value, where))
            if value is not None and not rows[-1].size:
                raise DataError(f"{where} has no frames; leave it out where it is missing")
        return {"frames": rows, "where": name, "level": "frame", "description": f"{modality} features in memory"}

    return Table(given, Path(name), lambda row: f"sample {row + 1}", array_key), read_frames
