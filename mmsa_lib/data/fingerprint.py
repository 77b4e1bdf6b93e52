"""Fingerprints of a data set: SHA-256 over its content, whatever file it came from.

A fingerprint covers everything that can change a number: task, identifiers, labels, folds, features, texts. It leaves
out the name, the terms, the citation and the notes. Each part has a digest of its own, so that a reader that takes only
some feature sets can still check what it read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from mmsa_lib.data.record import DatasetRecord, FeatureSet

DTYPES = {
    "labels": "<f4",
    "values": "<f4",
    "lengths": "<i8",
    "observed": "|b1",
    "interval": "<f4",
    "offset": "<i4",
    "token_ids": "<i8",
    "token_valid": "|b1",
    "unimodal_labels": "<f4",
    "factors": "<f4",
    "times": "<f4",
}
"""Types in which arrays are stored and fingerprinted, so that a float64 source and its stored copy agree."""

_BLOCK = 2**22  # values that are turned into bytes at once


def fingerprint(record: DatasetRecord) -> str:
    """SHA-256 (64 hexadecimal digits) over the content of ``record``.

    Equal content gives equal fingerprints, independent of compression, byte order and file.
    """
    return combine(digests(record))


def combine(parts: Mapping[str, str]) -> str:
    """The fingerprint of a whole data set from the digests of its parts."""
    return _of_json(dict(parts))


def digests(record: DatasetRecord) -> dict[str, str]:
    """One SHA-256 per part of ``record``, for instance ``labels`` or ``features/audio73``."""
    parts = {
        "task": _of_json(asdict(record.task)),
        "defaults": _of_json(record.defaults),
        "ids": _of_json(list(record.ids)),
        "groups": _of_json(list(record.groups)),
        "labels": _of_arrays(labels=record.labels),
    }
    for name, splits in record.folds.items():
        parts[f"folds/{name}"] = _of_json([str(split) for split in splits])
    for name, features in record.features.items():
        parts[f"features/{name}"] = _of_features(features)
    if record.transcripts is not None:
        parts["transcripts"] = _of_json(list(record.transcripts))
    for language, texts in record.other_transcripts.items():
        parts[f"other_transcripts/{language}"] = _of_json(list(texts))
    if record.words is not None:
        words = [str(word) for word in record.words.word]
        parts["words"] = _of_arrays(words, interval=record.words.interval, offset=record.words.offset)
    if record.token_ids is not None:
        tokens = record.token_ids
        parts["token_ids"] = _of_arrays(tokens.model, token_ids=tokens.ids, token_valid=tokens.valid)
    for modality, values in record.unimodal_labels.items():
        parts[f"unimodal_labels/{modality}"] = _of_arrays(unimodal_labels=values)
    for name, values in record.factors.items():
        parts[f"factors/{name}"] = _of_arrays(factors=values)
    if record.times is not None:
        parts["times"] = _of_arrays(times=record.times)
    return parts


def _of_features(features: FeatureSet) -> str:
    # The description is left out: it changes no number.
    meaning = [features.modality, features.level, features.label_trained_on]
    return _of_arrays(meaning, values=features.values, lengths=features.lengths, observed=features.observed)


def _of_arrays(*more: object, **arrays: np.ndarray) -> str:
    digest = hashlib.sha256(_canonical(more))
    for kind, values in arrays.items():
        shape = np.shape(values) or (1,)
        digest.update(f"{kind}{np.dtype(DTYPES[kind]).str}{shape}".encode())
        step = max(1, _BLOCK // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], step):  # an array may lie in a file and be larger than the memory
            rows = values[start : start + step] if np.ndim(values) else values
            digest.update(np.ascontiguousarray(rows, dtype=DTYPES[kind]).data)
    return digest.hexdigest()


def _of_json(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
