"""Text features on disk: one HDF5 file per (transcripts, model, level, length, code); safe to delete."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from mmsa_lib.data.hdf5 import add_array, read_hdf5, write_hdf5
from mmsa_lib.data.record import FeatureSet
from mmsa_lib.errors import DataError
from mmsa_lib.paths import cache_folder

log = logging.getLogger(__name__)

_ARRAYS = ("values", "lengths", "observed")


def cache_key(transcripts: Sequence[str], **settings: str | int) -> str:
    """SHA-256 over the transcripts and everything else that decides what their features are."""
    content = json.dumps([list(transcripts), settings], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def cached_features(key: str, compute: Callable[[], FeatureSet]) -> FeatureSet:
    """The text features stored under ``key``; computed and stored where there are none or the file is damaged.

    A cache that can't be written costs time, not results: the reason is logged and the computed features are returned.
    """
    path = cache_folder() / "text" / f"{key}.h5"
    if path.is_file():
        try:
            return _read(path)
        except DataError as error:
            log.warning("%s; computing the text features again", error)
    features = compute()
    try:
        write_hdf5(path, lambda file: _fill(file, features))
    except DataError as error:
        log.warning("text features are not cached: %s", error)
    return features


def _fill(file: h5py.File, features: FeatureSet) -> None:
    for name in _ARRAYS:
        add_array(file, name, getattr(features, name))
    file.attrs.update(level=features.level, description=features.description, digest=_digest(features))


def _read(path: Path) -> FeatureSet:
    with read_hdf5(path, "delete it") as file:
        values, lengths, observed = (file[name][:] for name in _ARRAYS)
        level, description = str(file.attrs["level"]), str(file.attrs["description"])
        digest = str(file.attrs["digest"])
    features = FeatureSet("text", values, lengths, observed, level, description=description)
    if _digest(features) != digest:
        raise DataError(f"{path} is damaged (its digest differs)")
    return features


def _digest(features: FeatureSet) -> str:
    total = hashlib.sha256(f"{features.level}{features.values.shape}".encode())
    for name in _ARRAYS:
        total.update(np.ascontiguousarray(getattr(features, name)).data)
    return total.hexdigest()
