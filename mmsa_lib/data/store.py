"""The one HDF5 layout of a data set; it is written and read here only.

Layout (N samples; ragged arrays are concatenated over samples)::

    attributes      format, version, library (release that wrote it), name, task, defaults, terms, citation, sources,
                    repairs, notes, digests (one SHA-256 per part), fingerprint; JSON where they are not text
    ids, groups     (N,) text             labels   (N,) or (N, K) float32
    folds/<fold>    (N,) text: train, valid, test or empty
    features/<set>/ values (rows, d) float32, lengths (N,) int64, observed (rows,) bool;
                    attributes modality, level, label_trained_on, description
    transcripts, other_transcripts/<language>    (N,) text
    words/          word (W,) text, interval (W, 2) float32 seconds, offset (N+1,) int32
    token_ids/      ids (N, L) int64, valid (N, L) bool; attribute model
    unimodal_labels/<modality> (N,) float32      factors/<name> (N, k) float32      times (N, 2) float32 seconds

Feature sets, folds and the other named parts are stored under percent-encoded names, so that any name is allowed.
Numbers lie in the file as they are, so that the frames of a sample are one read; earlier releases compressed them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

import h5py
import numpy as np
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

import mmsa_lib
from mmsa_lib.data.formats import kind_of
from mmsa_lib.data.hdf5 import (
    add_array,
    add_texts,
    identity,
    is_sealed,
    read_array,
    read_hdf5,
    read_texts,
    scalars,
    write_hdf5,
)
from mmsa_lib.data.record import (
    DTYPES,
    DatasetRecord,
    FeatureSet,
    Level,
    Modality,
    TokenIds,
    Words,
    combine,
    contents,
    digests,
)
from mmsa_lib.data.task import Task
from mmsa_lib.data.validate import Problem, check_record, refuse_problems
from mmsa_lib.errors import DataError, unknown_name

FORMAT = "mmsa_lib data set"
VERSION = 1
REMEDY = "build or import the data set again"
_JSON_FIELDS = ("task", "defaults", "sources", "repairs", "notes", "digests")
_compared: set[tuple] = set()  # files without a checksum whose data were compared with their digests


@contextmanager
def open_store(path: Path | str, *, compare: bool = True) -> Iterator[Store]:
    """The store at ``path``, open for reading until the block ends.

    The checksum of a file covers all of it. Of a file without one (of an earlier release, or changed since), all parts
    are compared with their digests, once per process.

    Args:
        compare: refuse a file whose parts are not those that were written.

    Raises:
        DataError: the file is missing, foreign, damaged, newer than this library, or was changed; the message names
            file, part and remedy. So does whatever goes wrong while its arrays are read.
    """
    with read_hdf5(path, REMEDY) as file:
        store = Store(file, path)
        if compare and not is_sealed(Path(path)) and (key := identity(Path(path))) not in _compared:
            refuse_problems(store.record, str(path))  # says more than that something changed
            if changed := store.changed(store.record):
                raise DataError(f"{path}: {', '.join(changed)} changed since the store was written; {REMEDY}")
            _compared.add(key)
        yield store


def read_store(path: Path | str, features: Collection[str] | None = None) -> DatasetRecord:
    """Read a store back.

    Args:
        path: the file.
        features: names of the feature sets to read, by default all; ``()`` for none. Defaults that name a feature set
            which is not read are left out.

    Raises:
        DataError: as :func:`open_store`, or it holds what would break training; the message names file, field, sample
            and remedy.
        UnknownNameError: there is no such feature set.
    """
    with open_store(path) as store:
        record = store.read(features)
        refuse_problems(record, str(path))
    return record


def read_header(path: Path | str) -> dict[str, Any]:
    """The attributes of a store, without its arrays: name, task, terms, citation, sources, fingerprint, ...

    Raises:
        DataError: as :func:`open_store`.
    """
    with open_store(path) as store:
        return store.header


def check_store(path: Path | str) -> list[Problem]:
    """All errors and warnings of a store.

    Raises:
        DataError: the file is not a store, is truncated or can't be read at all.
    """
    with open_store(path, compare=False) as store:
        record = store.read()
    problems = check_record(record)
    try:
        changed = store.changed(record)
    except (TypeError, ValueError):  # text where numbers belong has no digest; it is among the problems of the record
        changed = []
    if changed:
        what = f"{', '.join(changed)} changed since the store was written"
        problems.insert(0, Problem("error", "fingerprint", what, "build or import the data set again"))
    return problems


class Frames:
    """The values of a stored feature set: ``(rows, d)`` float32, read slice by slice while the store is open."""

    ndim = 2

    def __init__(self, node: h5py.Dataset) -> None:
        if node.ndim != 2:
            raise ValueError(f"{node.name} has shape {node.shape}, expected (frames, width)")
        self._node, self.shape, self.dtype = node, node.shape, node.dtype
        # None of an array in chunks; preadv is missing on Windows.
        plain = node.dtype == np.dtype("<f4") and hasattr(os, "preadv")
        self._place = node.id.get_offset() if plain else None
        self._handle = node.file.id.get_vfd_handle() if plain else -1

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        if self._place is None:
            return self._node[start:stop]
        values = np.empty((max(0, stop - start), self.shape[1]), np.float32)
        self.read_into(start, values)
        return values

    def read(self) -> np.ndarray:
        """All values, if they fit in memory."""
        return read_array(self._node)

    def read_into(self, start: int, values: np.ndarray) -> None:
        """Fill ``values`` ``(n, d)`` float32 with the rows from ``start`` on.

        Raises:
            OSError: the file was cut while it is open.
        """
        if self._place is None:
            values[:] = self._node[start : start + len(values)]
            return
        # Past the HDF5 library, whose calls cost more than the frames of a sample.
        left = values.reshape(-1).view(np.uint8)
        place = self._place + start * values.shape[1] * values.itemsize
        while len(left):
            count = os.preadv(self._handle, [left], place)
            if not count:
                raise OSError(f"{self._node.name} ends before its row {start + len(values)}")
            left, place = left[count:], place + count


class Store:
    """An open store.

    Attributes:
        path: the file.
        header: its attributes, checked: name, task, terms, citation, sources, digests, fingerprint, ...
    """

    def __init__(self, file: h5py.File, path: Path | str) -> None:
        self._file, self.path, self.header = file, path, _header(file, path)

    def frames(self, name: str) -> Frames:
        """The values of the feature set ``name``."""
        return Frames(self._file[f"features/{_encode(name)}/values"])

    @cached_property
    def record(self) -> DatasetRecord:
        """The data set; the values of its features are read slice by slice, while the store is open."""
        file, header = self._file, self.header
        return DatasetRecord(
            name=header["name"],
            task=Task(**{k: tuple(v) if isinstance(v, list) else v for k, v in header["task"].items()}),
            ids=read_texts(file["ids"]),
            groups=read_texts(file["groups"]),
            labels=read_array(file["labels"]),
            folds={name: np.array(read_texts(node), dtype=str) for name, node in self._children("folds")},
            features={name: _read_features(node) for name, node in self._children("features")},
            transcripts=read_texts(file["transcripts"]) if "transcripts" in file else None,
            other_transcripts={name: read_texts(node) for name, node in self._children("other_transcripts")},
            words=_read_words(file["words"]) if "words" in file else None,
            token_ids=_read_tokens(file["token_ids"]) if "token_ids" in file else None,
            unimodal_labels={name: read_array(node) for name, node in self._children("unimodal_labels")},
            factors={name: read_array(node) for name, node in self._children("factors")},
            times=read_array(file["times"]) if "times" in file else None,
            **{key: header[key] for key in ("defaults", "terms", "citation", "sources", "repairs", "notes")},
        )

    def read(self, names: Collection[str] | None = None) -> DatasetRecord:
        """The data set with some of its feature sets in memory, by default all; without the others.

        Raises:
            UnknownNameError: there is no such feature set.
        """
        stored, defaults = self.record.features, self.record.defaults
        for name in names or ():
            if name not in stored:
                raise unknown_name(f"feature set of {self.path}", name, stored)
        wanted = {name: features for name, features in stored.items() if names is None or name in names}
        kept = {
            fold: {m: name for m, name in chosen.items() if name in wanted or name not in stored}
            for fold, chosen in defaults.items()
        }
        features = {name: replace(features, values=features.values.read()) for name, features in wanted.items()}
        return replace(self.record, features=features, defaults=kept)

    def changed(self, record: DatasetRecord) -> list[str]:
        """The parts of ``record`` whose digest is not the one that was written into this store."""
        stored, found = self.header["digests"], digests(record)
        return sorted(name for name in {*stored, *found} if stored.get(name) != found.get(name))

    def _children(self, name: str) -> list[tuple[str, Any]]:
        return [(unquote(child), node) for child, node in self._file.get(name, {}).items()]


# Writing


def write_store(record: DatasetRecord, path: Path | str) -> str:
    """Write ``record`` to ``path``, atomically; equal records give equal bytes with the same library versions.

    Returns:
        The fingerprint of the record.

    Raises:
        DataError: the record has an error that would break training, the folder can't be written or the disk is full.
            Nothing is left behind.
    """
    refuse_problems(record, str(path))
    parts = digests(record)
    header = {key: getattr(record, key) for key in ("name", "defaults", "terms", "citation")}
    header |= {"format": FORMAT, "version": VERSION, "library": mmsa_lib.__version__, "task": asdict(record.task)}
    header |= {"sources": list(record.sources), "repairs": dict(record.repairs), "notes": list(record.notes)}
    header |= {"digests": parts, "fingerprint": combine(parts)}

    def fill(file: h5py.File) -> None:
        for key, value in header.items():
            file.attrs[key] = json.dumps(value, ensure_ascii=False) if key in _JSON_FIELDS else value
        for part, member, kind, values in contents(record):
            first, *more = part.split("/", 1)
            *parents, name = [first, *map(_encode, more), *filter(None, [member])]
            group = file
            for parent in parents:  # members keep their order
                group = group[parent] if parent in group else group.create_group(parent, track_order=True)
            if kind == "text":
                add_texts(group, name, [str(value) for value in values])
            else:
                add_array(group, name, np.asarray(values, dtype=DTYPES[kind]))
        for name, features in record.features.items():
            for key in _FeatureAttributes.model_fields:
                file[f"features/{_encode(name)}"].attrs[key] = getattr(features, key)
        if record.token_ids is not None:
            file["token_ids"].attrs["model"] = record.token_ids.model

    write_hdf5(path, fill)
    return combine(parts)


def _encode(name: str) -> str:
    return quote(name, safe=" ") if name.strip(".") else name.replace(".", "%2E")


# Reading


_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Header(BaseModel, strict=True):
    """What the attributes of a store must hold; others may be there."""

    format: Literal["mmsa_lib data set"]
    version: Annotated[int, Field(ge=1)]
    library: str
    name: str
    task: Annotated[dict, AfterValidator(TypeAdapter(Task).validate_python)]  # not strict: lists become tuples
    defaults: dict[str, dict[Modality, str]]
    terms: str
    citation: str
    sources: list[str]
    repairs: dict[str, int]
    notes: list[str]
    digests: dict[str, _Digest]
    fingerprint: _Digest


class _FeatureAttributes(BaseModel, strict=True):
    """The attributes of a feature set."""

    modality: str
    level: Level
    label_trained_on: str
    description: str


def _header(file: h5py.File, path: Path | str) -> dict[str, Any]:
    """The attributes of a store, checked: their fields and types, and the fingerprint against the digests."""
    attributes = scalars(file.attrs, _Header.model_fields)
    if not isinstance(attributes.get("format"), str) or attributes["format"] != FORMAT:
        raise DataError(f"{path} is HDF5, but not a data set of mmsa_lib: it seems to be {kind_of(path)}")
    version = attributes.get("version")
    if isinstance(version, int) and version > VERSION:
        written = f"layout {version}, by mmsa_lib {attributes.get('library')}"
        raise DataError(f"{path} was written by a newer release ({written}); upgrade mmsa_lib or {REMEDY}")
    try:
        header = {k: json.loads(v) if k in _JSON_FIELDS else v for k, v in attributes.items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is damaged (its attributes can't be read: {error}); {REMEDY}") from error
    _check_fields(_Header, header, f"{path} is damaged (header")
    if combine(header["digests"]) != header["fingerprint"]:
        raise DataError(f"{path}: the header's fingerprint is not that of its digests; {REMEDY}")
    return header


def _check_fields(model: type[BaseModel], fields: Mapping[str, Any], where: str) -> None:
    """Raise :class:`DataError` with the first of ``fields`` that is missing or of the wrong type."""
    try:
        model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise DataError(f"{where} field {field}: {' '.join(first['msg'].split())}); {REMEDY}") from error


def _read_features(group: h5py.Group) -> FeatureSet:
    attributes = scalars(group.attrs, _FeatureAttributes.model_fields)
    _check_fields(_FeatureAttributes, attributes, f"{group.file.filename} is damaged ({group.name}")
    lengths, observed = read_array(group["lengths"]), read_array(group["observed"])
    return FeatureSet(values=Frames(group["values"]), lengths=lengths, observed=observed, **attributes)


def _read_words(group: h5py.Group) -> Words:
    words = np.array(read_texts(group["word"]), dtype=object)
    return Words(words, read_array(group["interval"]), read_array(group["offset"]))


def _read_tokens(group: h5py.Group) -> TokenIds:
    model = scalars(group.attrs, ["model"]).get("model")
    if not isinstance(model, str):
        raise TypeError(f"{group.name} has no text as attribute model")
    return TokenIds(read_array(group["ids"]), read_array(group["valid"]), model)
