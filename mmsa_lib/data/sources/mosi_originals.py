"""CMU-MOSI put together from files of public repositories, array by array.

No repository has the whole set. Segments, bounds and texts come from one, labels from the SDK's label file, words
with times from the SDK's word file, and per-segment features from the bc-LSTM files; the segment id joins them.
Every merged array must have a known SHA-256, so that a rebuild is the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from mmsa_lib.data.hdf5 import read_hdf5
from mmsa_lib.data.sources.reading import original, read_numbers, read_table
from mmsa_lib.errors import DataError

SEGMENTS = 2199
LABELS = "CMU_MOSI_Opinion_Labels.csd"
WORDS = "CMU_MOSI_ModifiedTimestampedWords.csd"
TABLES = {"train": "mosi_train.tsv", "valid": "mosi_valid.tsv", "test": "mosi_test.tsv"}
FEATURES = {"audio73": ("audio", 73), "vision100": ("video", 100), "textcnn100": ("text", 100)}
"""Feature set to the file name's beginning and the number of features."""

FILES = (
    *TABLES.values(),
    LABELS,
    WORDS,
    "transcripts.csv",
    *(f"text_{split}.csv" for split in ("train", "test")),
    *(f"{kind}_{split}0.csv" for kind, _ in FEATURES.values() for split in ("train", "test")),
)

DIGESTS = {
    "id": "fc478ebbcf3b9c4c5fb6ff2e0645818898b904c95b3b0fee0852a592085dd21b",
    "video": "86961023998d269bd5045c72faaaea04ae8240a3126bed3f8aa34b744a4fc3d9",
    "split": "97dd5e47072746d0be95ad14b99bda7da90d5529e795a560625726cb24b5dac2",
    "split_poria": "dda08e1db7210c61d67fade7266180ff0d4cec4f9243bf33ffd561bc47d725fe",
    "label": "972eccdda1e518c04f871eb56dcdb86b9eaf0e37f018771cb3cfa4988dafb213",
    "start": "1df4d766da07ee809cc32371e4efd5700dd7f8644ae119d2c0a99896f4a7d770",
    "stop": "936d144b21071d451c22b043280483fbf28d50410c8d1b4700a83de1a53dd47b",
    "text": "22d8bc71e8ab1659d236c32707b795fbd6f319e704e9d1410e71d714bb61b5fb",
    "word": "b1fb74d013759be4517568c69bf11f8fc9e88317603c76632272fef4da98b3e6",
    "word_interval": "dae257577d942da09001ce36d1c9a78199cfe6d95810f6b5d7d3540fd873c5a5",
    "word_offset": "74370031f9eb21acdf62d13b04061c3c00742cc77335205985993c637e89729b",
    "audio73": "c0795a50a387d84d3a6645ce70bd69db9ba35b4a9e328d8bcaa1b00fea2f9501",
    "vision100": "8ab5909cb2c153e20a095c6e4acafc90920ab832b3f455868d2039fd327791eb",
    "textcnn100": "87dc42ae138e141da15ebea172b80958abe197a5689c1db136b737c45cd291bc",
}
"""SHA-256 of each merged array: its bytes, little-endian, C order; of ``text``: the texts joined by newlines."""


def merged_arrays(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """Merge the originals of CMU-MOSI into arrays, checked against :data:`DIGESTS`.

    Args:
        files: file name to path, for every name in :data:`FILES`.

    Returns:
        ``id``, ``video``, ``split`` (standard fold), ``split_poria`` (bc-LSTM fold) as bytes ``(2199,)``; ``label``,
        ``start``, ``stop`` float32 ``(2199,)``, bounds in seconds; ``text`` ``(2199,)`` str objects; ``word``
        ``(27645,)``, ``word_interval`` ``(27645, 2)`` in seconds from the segment's start, ``word_offset``
        ``(2200,)``; ``audio73`` ``(2199, 73)``, ``vision100`` and ``textcnn100`` ``(2199, 100)``. Rows: train, valid,
        test; inside each by video id and clip number.

    Raises:
        DataError: a file is missing or unreadable, sources disagree, or an array has another digest.
    """
    segments = _segments(files)
    arrays: dict[str, np.ndarray] = {
        "id": segments["id"].to_numpy("S20"),
        "video": segments["vid"].to_numpy("S16"),
        "split": segments["split"].to_numpy("S5"),
        "label": _labels(original(files, LABELS), segments),
        "start": segments["start"].to_numpy("<f4"),
        "stop": segments["stop"].to_numpy("<f4"),
        "text": segments["text"].to_numpy(object),
        **_words(original(files, WORDS), segments),
        **_bc_lstm_features(files, segments["id"]),
    }
    check_digests(arrays)
    return arrays


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes (C order); str objects are joined by newlines as UTF-8."""
    if array.dtype == object:
        return hashlib.sha256("\n".join(array).encode("utf-8")).hexdigest()
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def check_digests(arrays: Mapping[str, np.ndarray]) -> None:
    """Compare merged arrays with :data:`DIGESTS`.

    Raises:
        DataError: names the first array that differs.
    """
    for name, expected in DIGESTS.items():
        found = digest(arrays[name])
        if found != expected:
            raise DataError(
                f"CMU-MOSI: the merged array {name!r} has SHA-256 {found}, expected {expected}; "
                "fetch the originals again and check the versions of numpy, pandas and h5py"
            )


def _segments(files: Mapping[str, Path]) -> pd.DataFrame:
    """All segments in their final order, with the standard split."""
    columns = ["id", "start", "stop", "cid", "vid", "text", "label"]
    parts = []
    for split, name in TABLES.items():
        part = read_table(original(files, name), columns, separator="\t", quoted=False)
        parts.append(part.sort_values(["vid", "cid"]).assign(split=split))
    segments = pd.concat(parts, ignore_index=True)
    if len(segments) != SEGMENTS:
        raise DataError(f"CMU-MOSI: {len(segments)} segments in the tables, expected {SEGMENTS}; fetch them again")
    return segments


def _labels(path: Path, segments: pd.DataFrame) -> np.ndarray:
    """Labels of the SDK's label file ``(2199,)``: a video's rows belong to its clips in increasing clip number."""
    labels = np.empty(len(segments), dtype="<f4")
    with read_hdf5(path, "fetch the original again", verified=True) as file:
        videos = file["Opinion Segment Labels/data"]
        for video, rows in segments.groupby("vid", sort=False).indices.items():
            in_file = videos[video]["features"][:, 0]
            if len(in_file) != len(rows):
                raise DataError(f"{path}: video {video} has {len(in_file)} labels for {len(rows)} segments")
            labels[rows] = in_file
    difference = np.abs(labels - segments["label"].to_numpy(float))
    worst = int(difference.argmax())
    if difference[worst] > 1e-4:
        raise DataError(f"{path}: the label of {segments['id'][worst]} differs from the table; fetch both again")
    return labels


def _words(path: Path, segments: pd.DataFrame) -> dict[str, np.ndarray]:
    """Words whose midpoint lies inside the segment, with times from the segment's start; pauses are left out."""
    words, intervals, counts = [], [], []
    with read_hdf5(path, "fetch the original again", verified=True) as file:
        videos = file["CMU_MOSI_ModifiedTimestampedWords/data"]
        spoken = {video: _spoken(videos[video]) for video in segments["vid"].unique()}
    for video, start, stop in zip(segments["vid"], segments["start"], segments["stop"], strict=True):
        token, times = spoken[video]
        middle = times.mean(axis=1)
        inside = (middle >= start) & (middle < stop)
        words.append(token[inside])
        intervals.append(times[inside] - start)
        counts.append(int(inside.sum()))
    return {
        "word": np.concatenate(words).astype("S20"),
        "word_interval": np.concatenate(intervals).astype("<f4"),
        "word_offset": np.concatenate([[0], np.cumsum(counts)]).astype("<i4"),
    }


def _spoken(video: h5py.Group) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``(n,)`` and times ``(n, 2)`` of a video without its pauses (``sp``)."""
    token, times = video["features"][:, 0], video["intervals"][()]
    keep = token != b"sp"
    return token[keep], times[keep]


def _bc_lstm_features(files: Mapping[str, Path], ids: pd.Series) -> dict[str, np.ndarray]:
    """The bc-LSTM split and its per-segment features, put into the order of ``ids``."""
    names = read_table(original(files, "transcripts.csv"))[0]
    row_ids = {part: names[read_table(original(files, f"text_{part}.csv"))[0]] for part in ("train", "test")}
    position = pd.Series(np.arange(len(ids)), index=ids)
    where = {part: position.reindex(row_ids[part]) for part in row_ids}
    if any(rows.isna().any() for rows in where.values()) or len(set().union(*row_ids.values())) != len(ids):
        raise DataError("CMU-MOSI: the segments of the bc-LSTM files differ from those of the tables; fetch both again")
    rows = {part: where[part].to_numpy(int) for part in where}

    split = np.empty(len(ids), dtype="S5")
    for part, part_rows in rows.items():
        split[part_rows] = part.encode()
    arrays = {"split_poria": split}
    for name, (kind, width) in FEATURES.items():
        arrays[name] = np.empty((len(ids), width), dtype="<f4")
        for part, part_rows in rows.items():
            table = read_numbers(original(files, f"{kind}_{part}0.csv"))
            arrays[name][part_rows] = table[:, :-1]  # the last column is the binary label
    return arrays
