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
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

import h5py
import numpy as np
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

import mmsa_lib
from mmsa_lib.data.batch import Modality
from mmsa_lib.data.formats import kind_of
from mmsa_lib.data.hdf5 import (
    add_array,
    add_texts,
    available_memory,
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
    TokenIds,
    Words,
    combine,
    digests,
    fingerprint,
)
from mmsa_lib.data.task import Task
from mmsa_lib.data.validate import Problem, check_record, refuse_problems
from mmsa_lib.errors import DataError, unknown_name

__all__ = [
    "FORMAT",
    "VERSION",
    "changed_parts",
    "check_store",
    "fingerprint",
    "list_features",
    "read_header",
    "read_spans",
    "read_store",
    "write_store",
]

FORMAT = "mmsa_lib data set"
VERSION = 1
REMEDY = "build or import the data set again"
_JSON_FIELDS = ("task", "defaults", "sources", "repairs", "notes", "digests")
_compared: set[tuple] = set()  # files without a checksum whose data were compared with their digests


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
    write_hdf5(path, lambda file: _write(file, record, parts))
    return combine(parts)


def read_store(path: Path | str, features: Collection[str] | None = None, *, validate: bool = True) -> DatasetRecord:
    """Read a store back.

    Args:
        path: the file.
        features: names of the feature sets to read, by default all; ``()`` for none. Defaults that name a feature set
            which is not read are left out.
        validate: refuse what would break training and what changed since it was written.

    Raises:
        DataError: the file is missing, foreign, truncated, newer than this library, or holds what would break training;
            the message names file, field, sample and remedy.
        UnknownNameError: there is no such feature set.
    """
    with read_hdf5(path, REMEDY) as file:
        header = _header(file, path)
        record = _read(file, header, path, features)
        if validate:
            refuse_problems(record, str(path))
            _refuse_changed(path, _changed(header, record, partial=features is not None))
            if features is not None:
                _compare_all(file, header, path)
    return record


def read_header(path: Path | str) -> dict[str, Any]:
    """The attributes of a store, without its arrays: name, task, terms, citation, sources, fingerprint, ...

    Raises:
        DataError: as :func:`read_store`.
    """
    with read_hdf5(path, REMEDY) as file:
        header = _header(file, path)
        _compare_all(file, header, path)
    return header


def list_features(path: Path | str) -> dict[str, FeatureSet]:
    """Every feature set of a store without its values.

    Returns:
        Feature-set name to its modality, level, lengths, observed frames and remarks. ``values`` has the right shape
        and takes no memory; each of its entries is NaN.

    Raises:
        DataError: as :func:`read_store`.
    """
    with read_hdf5(path, REMEDY) as file:
        _header(file, path)
        return {name: _read_features(group, _shape_only) for name, group in _children(file, "features")}


def read_spans(path: Path | str, feature_set: str, spans: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Several runs of rows of a feature set, for batches of sets that don't fit in memory; the file is opened once.

    Args:
        spans: first row and row behind the last one, in ascending order for the fewest disk reads.

    Returns:
        ``(rows, d)`` float32 per span. Values are not checked against the store's digests, which cover whole sets.

    Raises:
        DataError: as :func:`read_store`.
        UnknownNameError: there is no such feature set.
    """
    with read_hdf5(path, REMEDY) as file:
        group = file["features"]
        if _encode(feature_set) not in group:
            raise unknown_name("feature set", feature_set, map(unquote, group))
        values = group[_encode(feature_set)]["values"]
        return [values[start:stop] for start, stop in spans]


def changed_parts(path: Path | str, record: DatasetRecord) -> list[str]:
    """The parts of ``record`` whose digest differs from the one that was written into the store at ``path``."""
    with read_hdf5(path, REMEDY) as file:
        header = _header(file, path)
    try:
        return _changed(header, record)
    except (TypeError, ValueError):  # text where numbers belong has no digest; it is among the problems of the record
        return []


def check_store(path: Path | str) -> list[Problem]:
    """All errors and warnings of a store.

    Raises:
        DataError: the file is not a store, is truncated or can't be read at all.
    """
    record = read_store(path, validate=False)
    problems, changed = check_record(record), changed_parts(path, record)
    if changed:
        what = f"{', '.join(changed)} changed since the store was written"
        problems.insert(0, Problem("error", "fingerprint", what, "build or import the data set again"))
    return problems


# Writing


def _write(file: h5py.File, record: DatasetRecord, parts: Mapping[str, str]) -> None:
    header = {
        "format": FORMAT,
        "version": VERSION,
        "library": mmsa_lib.__version__,
        "name": record.name,
        "task": asdict(record.task),
        "defaults": record.defaults,
        "terms": record.terms,
        "citation": record.citation,
        "sources": list(record.sources),
        "repairs": dict(record.repairs),
        "notes": list(record.notes),
        "digests": dict(parts),
        "fingerprint": combine(parts),
    }
    for key, value in header.items():
        file.attrs[key] = json.dumps(value, ensure_ascii=False) if key in _JSON_FIELDS else value
    add_texts(file, "ids", record.ids)
    add_texts(file, "groups", record.groups)
    _add(file, "labels", "labels", record.labels)
    for name, splits in record.folds.items():
        add_texts(_group(file, "folds"), _encode(name), [str(split) for split in splits])
    for name, features in record.features.items():
        _write_features(_group(file, "features").create_group(_encode(name)), features)
    _write_texts(file, record)
    for modality, values in record.unimodal_labels.items():
        _add(_group(file, "unimodal_labels"), _encode(modality), "unimodal_labels", values)
    for name, values in record.factors.items():
        _add(_group(file, "factors"), _encode(name), "factors", values)
    if record.times is not None:
        _add(file, "times", "times", record.times)


def _write_features(group: h5py.Group, features: FeatureSet) -> None:
    for key in ("modality", "level", "label_trained_on", "description"):
        group.attrs[key] = getattr(features, key)
    for key in ("values", "lengths", "observed"):
        _add(group, key, key, getattr(features, key))


def _write_texts(file: h5py.File, record: DatasetRecord) -> None:
    if record.transcripts is not None:
        add_texts(file, "transcripts", record.transcripts)
    for language, texts in record.other_transcripts.items():
        add_texts(_group(file, "other_transcripts"), _encode(language), texts)
    if record.words is not None:
        group = file.create_group("words")
        add_texts(group, "word", [str(word) for word in record.words.word])
        _add(group, "interval", "interval", record.words.interval)
        _add(group, "offset", "offset", record.words.offset)
    if record.token_ids is not None:
        group = file.create_group("token_ids")
        group.attrs["model"] = record.token_ids.model
        _add(group, "ids", "token_ids", record.token_ids.ids)
        _add(group, "valid", "token_valid", record.token_ids.valid)


def _group(file: h5py.File, name: str) -> h5py.Group:
    """The group ``name``, created where needed; its members keep their order."""
    return file[name] if name in file else file.create_group(name, track_order=True)


def _add(group: h5py.Group, name: str, kind: str, values: np.ndarray) -> None:
    add_array(group, name, np.asarray(values, dtype=DTYPES[kind]))


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
    check_fields(_Header, header, f"{path} is damaged (header", REMEDY)
    if combine(header["digests"]) != header["fingerprint"]:
        raise DataError(f"{path}: the header's fingerprint is not that of its digests; {REMEDY}")
    return header


def check_fields(model: type[BaseModel], fields: Mapping[str, Any], where: str, remedy: str) -> None:
    """Raise :class:`DataError` with the first of ``fields`` that is missing or of the wrong type."""
    try:
        model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise DataError(f"{where} field {field}: {' '.join(first['msg'].split())}); {remedy}") from error


def _read(
    file: h5py.File,
    header: Mapping[str, Any],
    path: Path | str,
    wanted: Collection[str] | None,
    read_values: Callable[[h5py.Dataset], Any] = read_array,
) -> DatasetRecord:
    stored = dict(_children(file, "features"))
    for name in wanted or ():
        if name not in stored:
            raise unknown_name(f"feature set of {path}", name, stored)
    features = {name: _read_features(stored[name], read_values) for name in stored if wanted is None or name in wanted}
    return DatasetRecord(
        name=header["name"],
        task=_task(header["task"]),
        ids=read_texts(file["ids"]),
        groups=read_texts(file["groups"]),
        labels=read_array(file["labels"]),
        folds={name: np.array(read_texts(node), dtype=str) for name, node in _children(file, "folds")},
        features=features,
        defaults=_defaults(header["defaults"], left_out=set(stored) - set(features)),
        transcripts=read_texts(file["transcripts"]) if "transcripts" in file else None,
        other_transcripts={name: read_texts(node) for name, node in _children(file, "other_transcripts")},
        words=_read_words(file["words"]) if "words" in file else None,
        token_ids=_read_tokens(file["token_ids"]) if "token_ids" in file else None,
        unimodal_labels={name: read_array(node) for name, node in _children(file, "unimodal_labels")},
        factors={name: read_array(node) for name, node in _children(file, "factors")},
        times=read_array(file["times"]) if "times" in file else None,
        **{key: header[key] for key in ("terms", "citation", "sources", "repairs", "notes")},
    )


def _children(file: h5py.File, name: str) -> list[tuple[str, h5py.Dataset]]:
    return [(unquote(child), node) for child, node in file.get(name, {}).items()]


def _defaults(defaults: dict[str, dict], left_out: Collection[str]) -> dict[str, dict]:
    return {fold: {m: name for m, name in chosen.items() if name not in left_out} for fold, chosen in defaults.items()}


def _task(fields: dict[str, Any]) -> Task:
    return Task(**{**fields, "range": tuple(fields["range"]), "names": tuple(fields["names"])})


def _read_features(group: h5py.Group, read_values: Callable[[h5py.Dataset], Any] = read_array) -> FeatureSet:
    attributes = scalars(group.attrs, _FeatureAttributes.model_fields)
    check_fields(_FeatureAttributes, attributes, f"{group.file.filename} is damaged ({group.name}", REMEDY)
    lengths, observed = read_array(group["lengths"]), read_array(group["observed"])
    return FeatureSet(values=read_values(group["values"]), lengths=lengths, observed=observed, **attributes)


def _shape_only(values: h5py.Dataset) -> np.ndarray:
    if values.ndim != 2:
        raise ValueError(f"{values.name} has shape {values.shape}, expected (frames, width)")
    return np.broadcast_to(np.float32("nan"), values.shape)


def _in_file(values: h5py.Dataset) -> h5py.Dataset:
    return values


def _read_words(group: h5py.Group) -> Words:
    words = np.array(read_texts(group["word"]), dtype=object)
    return Words(words, read_array(group["interval"]), read_array(group["offset"]))


def _read_tokens(group: h5py.Group) -> TokenIds:
    model = scalars(group.attrs, ["model"]).get("model")
    if not isinstance(model, str):
        raise TypeError(f"{group.name} has no text as attribute model")
    return TokenIds(read_array(group["ids"]), read_array(group["valid"]), model)


def _compare_all(file: h5py.File, header: Mapping[str, Any], path: Path | str) -> None:
    """Compare all digests with the data, unless the checksum of the whole file says that nothing changed."""
    if is_sealed(Path(path)) or identity(Path(path)) in _compared:
        return
    needed, free = sum(group["values"].nbytes for _, group in _children(file, "features")), available_memory()
    if free is None or 3 * needed < free:
        record = _read(file, header, path, None)
        refuse_problems(record, str(path))  # says more than that something changed
    else:
        record = _read(file, header, path, None, _in_file)
    _refuse_changed(path, _changed(header, record))
    _compared.add(identity(Path(path)))


def _refuse_changed(path: Path | str, changed: list[str]) -> None:
    if changed:
        raise DataError(f"{path}: {', '.join(changed)} changed since the store was written; {REMEDY}")


def _changed(header: Mapping[str, Any], record: DatasetRecord, partial: bool = False) -> list[str]:
    stored, found = header["digests"], digests(record)
    names = {*stored, *found}
    if partial:  # feature sets were left out on purpose, and with them the defaults that name them
        names = {name for name in names if name in found or not name.startswith("features/")} - {"defaults"}
    return sorted(name for name in names if stored.get(name) != found.get(name))


def _encode(name: str) -> str:
    return quote(name, safe=" ") if name.strip(".") else name.replace(".", "%2E")
