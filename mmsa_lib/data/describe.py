"""A data set in numbers: what ``mmsa-lib data info`` shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from mmsa_lib.data.fingerprint import fingerprint
from mmsa_lib.data.problems import SPLITS
from mmsa_lib.data.record import DatasetRecord, FeatureSet


def describe(record: DatasetRecord) -> dict[str, Any]:
    """Sizes, classes, lengths, missingness and provenance of ``record``, as plain values that fit into JSON."""
    return {
        "name": record.name,
        "fingerprint": fingerprint(record),
        "samples": len(record),
        "videos": len(set(record.groups)),
        "task": asdict(record.task),
        "folds": {fold: _splits(record, fold) for fold in record.folds},
        "features": {name: _features(features) for name, features in record.features.items()},
        "texts": _texts(record),
        "unimodal_labels": list(record.unimodal_labels),
        "factors": {name: int(values.shape[1]) for name, values in record.factors.items()},
        "defaults": record.defaults,
        "terms": record.terms,
        "citation": record.citation,
        "sources": list(record.sources),
        "repairs": dict(record.repairs),
        "notes": list(record.notes),
    }


def class_counts(record: DatasetRecord, rows: np.ndarray) -> dict[str, int]:
    """Samples among ``rows``: negative, neutral (middle of the range) and positive; per emotion; or per class."""
    labels = record.labels[rows]
    if record.task.kind == "emotions":
        return {name: int(labels[:, column].sum()) for column, name in enumerate(record.task.names)}
    if record.task.kind == "classes":
        return {name: int((labels == i).sum()) for i, name in enumerate(record.task.names)}
    center = record.task.center
    counts = {"negative": labels < center, "neutral": labels == center, "positive": labels > center}
    return {name: int(chosen.sum()) for name, chosen in counts.items()}


def _splits(record: DatasetRecord, fold: str) -> dict[str, dict[str, Any]]:
    found = {}
    for split in SPLITS:
        rows = np.flatnonzero(record.folds[fold] == split)
        absent = {name: int(_absent(features)[rows].sum()) for name, features in record.features.items()}
        found[split] = {
            "samples": len(rows),
            "videos": len({record.groups[row] for row in rows}),
            "classes": class_counts(record, rows),
            "absent": {name: count for name, count in absent.items() if count},
        }
    return found


def _features(features: FeatureSet) -> dict[str, Any]:
    lengths = features.lengths
    return {
        "modality": features.modality,
        "level": features.level,
        "width": features.width,
        "lengths": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())},
        "frames": int(lengths.sum()),
        "missing_frames": int((~features.observed).sum()),
        "absent_samples": int(_absent(features).sum()),
        "label_trained_on": features.label_trained_on,
        "description": features.description,
    }


def _absent(features: FeatureSet) -> np.ndarray:
    """``(N,)`` bool: no frame of the sample is observed."""
    return ~np.logical_or.reduceat(features.observed, features.offsets[:-1])


def _texts(record: DatasetRecord) -> dict[str, Any]:
    return {
        "transcripts": record.transcripts is not None,
        "other_languages": sorted(record.other_transcripts),
        "timed_words": 0 if record.words is None else len(record.words.word),
        "token_ids": "" if record.token_ids is None else record.token_ids.model,
    }
