"""CMU-MOSI: 2,199 opinion segments of 93 videos, with words and times, and features per segment.

Word-aligned audio and vision sequences are not public in this form; what is: COVAREP-like audio per segment
(``audio73``), activations of label-trained networks per segment (``vision100``, ``textcnn100``), and word times, of
which ``timing`` and ``timing_utterance`` are made. No repository has the whole set: segments, bounds and texts come
from one, labels from the SDK's label file, words with times from the SDK's word file, and per-segment features from the
bc-LSTM files; the segment id joins them. Every merged array must have a known SHA-256, so that a rebuild is the same on
every machine.

``mosi_mfn`` and ``mosi_magbert`` are the word-aligned sequences of two other repositories. They are downloads only:
verified by git blob id, never part of this project. Their extractors used no labels as far as the repositories tell,
but the columns of the MFN files were selected by a rule that is not published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsa_lib.data.hdf5 import read_hdf5
from mmsa_lib.data.record import DatasetRecord, FeatureSet, Modality, Words
from mmsa_lib.data.sources import mfn_folder
from mmsa_lib.data.sources.folds import cross_validation, hold_out
from mmsa_lib.data.sources.official import MOSI_DIGESTS, PUBLIC_SETS
from mmsa_lib.data.sources.reading import original, read_numbers, read_table
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TEST_CV_PARTS, VALID_SHARE = 5, 0.15
SEGMENTS = 2199
LABELS = "CMU_MOSI_Opinion_Labels.csd"
WORDS = "CMU_MOSI_ModifiedTimestampedWords.csd"
TABLES = {"train": "mosi_train.tsv", "valid": "mosi_valid.tsv", "test": "mosi_test.tsv"}
FEATURES: dict[str, tuple[Modality, str, str, int, str]] = {
    "audio73": (
        "audio",
        "audio",
        "",
        73,
        "segment mean of 73 COVAREP-like features (F0, voicing, NAQ, …, MCEP), no labels used",
    ),
    "vision100": (
        "vision",
        "video",
        "bc_lstm:train",
        100,
        "3D-CNN activations of the segment; 32 columns are constant",
    ),
    "textcnn100": ("text", "text", "bc_lstm:train", 100, "text-CNN activations of the segment"),
}
"""Feature set to its modality, the beginning of its files, what its extractor was trained on, its width, what it is."""

_LEAK = (
    "vision100 and textcnn100 are activations of networks trained on the labels of the bc-LSTM training videos; {} of "
    "the {} test segments of the standard fold lie in that part: never use them there"
)
_AGAIN = "fetch the originals again"


def build(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSI from its original files.

    Folds: ``standard`` (1284/229/686), ``bc_lstm`` (the bc-LSTM split, validation = 15 % of its training
    videos, 9 of 62, the first in the hash order of :mod:`.folds`) and ``bc_lstm_test_cv-0`` … ``-4``.
    """
    arrays = merged_arrays(files)
    groups = [video.decode() for video in arrays["video"]]
    words = Words(
        word=np.array([word.decode() for word in arrays["word"]], dtype=object),
        interval=arrays["word_interval"],
        offset=arrays["word_offset"],
    )
    times = np.stack([arrays["start"], arrays["stop"]], axis=1)
    standard, bc_lstm = (arrays[name].astype(str).astype(object) for name in ("split", "split_poria"))
    in_test, leaks = standard == "test", (standard == "test") & (bc_lstm == "train")
    folds = {
        "standard": standard.astype(str),
        "bc_lstm": np.where(hold_out(groups, bc_lstm != "test", VALID_SHARE, "bc_lstm"), "valid", bc_lstm).astype(str),
        **cross_validation(groups, bc_lstm == "test", TEST_CV_PARTS, "bc_lstm_test_cv"),
    }
    leak_free: dict[Modality, str] = {"text": "words", "audio": "audio73"}
    return DatasetRecord(
        name="mosi",
        task=regression((-3, 3)),
        ids=[identifier.decode() for identifier in arrays["id"]],
        groups=groups,
        labels=arrays["label"],
        folds=folds,
        features={
            **{
                name: _per_segment(modality, arrays[name], description, trained_on)
                for name, (modality, _, trained_on, _, description) in FEATURES.items()
            },
            "timing": word_timing(words),
            "timing_utterance": timing_summaries(words, times),
        },
        defaults={fold: leak_free if fold == "standard" else {**leak_free, "vision": "vision100"} for fold in folds},
        transcripts=list(arrays["text"]),
        words=words,
        times=times,
        notes=[_LEAK.format(leaks.sum(), in_test.sum()), *PUBLIC_SETS["mosi"].notes],
    )


def build_mfn(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSI on the standard fold as MFN's HDF5 files (one folder): 20 steps of GloVe 300, COVAREP 5, FACET 20."""
    folders = {original(files, name).parent for name in PUBLIC_SETS["mosi_mfn"].required}
    if len(folders) > 1:
        raise DataError(f"the MFN files lie in {len(folders)} folders; put them into one")
    return mfn_folder.read(folders.pop(), "mosi_mfn")


def merged_arrays(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """The originals of CMU-MOSI merged into arrays, checked against :data:`~.official.MOSI_DIGESTS`.

    Returns:
        ``id``, ``video``, ``split`` (standard fold), ``split_poria`` (bc-LSTM fold) as bytes ``(2199,)``; ``label``,
        ``start``, ``stop`` float32 ``(2199,)``, bounds in seconds; ``text`` ``(2199,)`` str objects; ``word``
        ``(27645,)``, ``word_interval`` ``(27645, 2)`` in seconds from the segment's start, ``word_offset``
        ``(2200,)``; ``audio73`` ``(2199, 73)``, ``vision100`` and ``textcnn100`` ``(2199, 100)``. Rows: train, valid,
        test; inside each by video id and clip number.

    Raises:
        DataError: a file is missing or unreadable, sources disagree, or an array has another digest.
    """
    import pandas as pd

    columns, parts = ["id", "start", "stop", "cid", "vid", "text", "label"], []
    for split, name in TABLES.items():
        part = read_table(original(files, name), columns, separator="\t", quoted=False)
        parts.append(part.sort_values(["vid", "cid"]).assign(split=split))
    segments = pd.concat(parts, ignore_index=True)
    if len(segments) != SEGMENTS:
        raise DataError(f"CMU-MOSI: {len(segments)} segments in the tables, expected {SEGMENTS}; fetch them again")
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
    """Compare merged arrays with :data:`~.official.MOSI_DIGESTS`.

    Raises:
        DataError: names the first array that differs.
    """
    for name, expected in MOSI_DIGESTS.items():
        if (found := digest(arrays[name])) != expected:
            raise DataError(
                f"CMU-MOSI: the merged array {name!r} has SHA-256 {found}, expected {expected}; "
                f"{_AGAIN} and check the versions of numpy, pandas and h5py"
            )


def _labels(path: Path, segments: pd.DataFrame) -> np.ndarray:
    """Labels of the SDK's label file ``(2199,)``: a video's rows belong to its clips in increasing clip number."""
    labels = np.empty(len(segments), dtype="<f4")
    with read_hdf5(path, _AGAIN, verified=True) as file:
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
    """Words whose midpoint lies inside the segment, with times from the segment's start; without pauses (``sp``)."""
    words, intervals, spoken = [], [], {}
    with read_hdf5(path, _AGAIN, verified=True) as file:
        videos = file["CMU_MOSI_ModifiedTimestampedWords/data"]
        for video in segments["vid"].unique():
            token, times = videos[video]["features"][:, 0], videos[video]["intervals"][()]
            spoken[video] = token[token != b"sp"], times[token != b"sp"]
    for video, start, stop in zip(segments["vid"], segments["start"], segments["stop"], strict=True):
        token, times = spoken[video]
        middle = times.mean(axis=1)
        inside = (middle >= start) & (middle < stop)
        words.append(token[inside])
        intervals.append(times[inside] - start)
    return {
        "word": np.concatenate(words).astype("S20"),
        "word_interval": np.concatenate(intervals).astype("<f4"),
        "word_offset": np.cumsum([0, *map(len, words)]).astype("<i4"),
    }


def _bc_lstm_features(files: Mapping[str, Path], ids: pd.Series) -> dict[str, np.ndarray]:
    """The bc-LSTM split and its per-segment features, put into the order of ``ids``."""
    import pandas as pd

    names = read_table(original(files, "transcripts.csv"))[0]
    row_ids = {part: names[read_table(original(files, f"text_{part}.csv"))[0]] for part in ("train", "test")}
    position = pd.Series(np.arange(len(ids)), index=ids)
    where = {part: position.reindex(row_ids[part]) for part in row_ids}
    if any(rows.isna().any() for rows in where.values()) or len(set().union(*row_ids.values())) != len(ids):
        raise DataError("CMU-MOSI: the segments of the bc-LSTM files differ from those of the tables; fetch both again")
    arrays = {"split_poria": np.empty(len(ids), dtype="S5")}
    arrays |= {name: np.empty((len(ids), width), dtype="<f4") for name, (*_, width, _) in FEATURES.items()}
    for part, rows in where.items():
        rows = rows.to_numpy(int)
        arrays["split_poria"][rows] = part.encode()
        for name, (_, kind, *_) in FEATURES.items():
            table = read_numbers(original(files, f"{kind}_{part}0.csv"))
            arrays[name][rows] = table[:, :-1]  # the last column is the binary label
    return arrays


WORD_TIMING = ("duration", "pause_before", "speaking_rate")
TIMING_SUMMARIES = (
    "words",
    "duration",
    "speaking_rate",
    "mean_word_duration",
    "std_word_duration",
    "max_word_duration",
    "mean_pause",
    "max_pause",
)


def word_timing(words: Words) -> FeatureSet:
    """Timing of every word, aligned with the words: level ``word``, columns :data:`WORD_TIMING`.

    The times come from forced alignment, so they carry some prosody although no audio is at hand. No label took part
    in them, hence they leak into no fold.

    * duration: end minus start, in seconds;
    * pause_before: start minus the end of the word before, for the first word minus the start of the segment, in
      seconds; 0 where words overlap or begin before the segment does;
    * speaking_rate: words per second around the word: the word and its neighbours (three words, two at the ends of a
      segment), divided by the time from the first one's start to the last one's end.

    A segment without words keeps one frame that is not observed.

    Raises:
        DataError: a word ends before its neighbour starts, so that there is no time to count words in.
    """
    rows = [_timing(interval) if len(interval) else np.zeros((1, len(WORD_TIMING))) for interval in _intervals(words)]
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    return FeatureSet(
        modality="audio",
        values=np.concatenate(rows).astype(np.float32),
        lengths=lengths,
        observed=np.repeat(np.diff(words.offset) > 0, lengths),
        level="word",
        description="timing of each forced-aligned word: duration (s), pause before it (s), speaking rate (words/s)",
    )


def timing_summaries(words: Words, times: np.ndarray) -> FeatureSet:
    """Eight timing summaries of every segment: level ``utterance``, columns :data:`TIMING_SUMMARIES`.

    Number of words, segment duration (s), words per second of the segment, mean, population standard deviation and
    maximum of the word durations (s), mean and maximum of the pauses before the words (s). A segment without words
    or without duration is not observed.

    Args:
        words: words of ``N`` segments.
        times: ``(N, 2)`` start and stop of each segment, in seconds.
    """
    rows = np.zeros((len(times), len(TIMING_SUMMARIES)))
    seconds = (times[:, 1] - times[:, 0]).astype(np.float64)
    observed = (np.diff(words.offset) > 0) & (seconds > 0)
    for i, interval in enumerate(_intervals(words)):
        if observed[i]:
            duration, pause, _ = _timing(interval).T
            spoken = duration.mean(), duration.std(), duration.max()
            rows[i] = len(interval), seconds[i], len(interval) / seconds[i], *spoken, pause.mean(), pause.max()
    description = "timing summaries of a segment: " + ", ".join(TIMING_SUMMARIES)
    return _per_segment("audio", rows.astype(np.float32), description, observed=observed)


def _intervals(words: Words) -> list[np.ndarray]:
    """Start and end of the words of each segment, ``(n, 2)`` float64."""
    return np.split(words.interval.astype(np.float64), words.offset[1:-1])


def _timing(interval: np.ndarray) -> np.ndarray:
    """Columns :data:`WORD_TIMING` of the words of one segment, ``(n, 2)`` to ``(n, 3)``."""
    start, end = interval.T
    before = np.concatenate([[0.0], end[:-1]])
    pause = np.maximum(start - before, 0.0)
    position = np.arange(len(interval))
    left, right = np.maximum(position - 1, 0), np.minimum(position + 1, len(interval) - 1)
    span = end[right] - start[left]
    if (span <= 0).any():
        raise DataError(f"word times are not increasing: word {int(np.argmin(span))} of a segment takes no time")
    rate = (right - left + 1) / span
    return np.stack([end - start, pause, rate], axis=1)


def _per_segment(
    modality: Modality, values: np.ndarray, description: str, trained_on: str = "", observed: np.ndarray | None = None
) -> FeatureSet:
    """One vector per segment ``(N, d)``, by default all observed."""
    return FeatureSet(
        modality=modality,
        values=values,
        lengths=np.ones(len(values), dtype=np.int64),
        observed=np.ones(len(values), dtype=bool) if observed is None else observed,
        level="utterance",
        label_trained_on=trained_on,
        description=description,
    )
