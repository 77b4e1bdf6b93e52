"""A whole data set in memory, as sources build it and as the store writes it: ragged arrays, no padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.task import Task

Level = Literal["word", "frame", "token", "utterance"]


@dataclass
class FeatureSet:
    """Features of one modality, all samples concatenated along time.

    Attributes:
        modality: text, audio or vision.
        values: ``(sum of lengths, d)`` float32, zeros where a frame is missing.
        lengths: ``(N,)`` int64, valid frames per sample, at least 1 each (a wholly absent modality keeps one frame that
            is not observed).
        observed: ``(sum of lengths,)`` bool, False at missing frames.
        level: what one frame is.
        label_trained_on: empty, or ``"<fold>:<split>"`` where the extractor was trained on the labels of that split;
            such features leak into every fold whose evaluation samples lie in it.
        description: what the numbers are and where they come from.
    """

    modality: Modality
    values: np.ndarray
    lengths: np.ndarray
    observed: np.ndarray
    level: Level
    label_trained_on: str = ""
    description: str = ""

    @property
    def width(self) -> int:
        """Number of features per frame."""
        return int(self.values.shape[1])

    @property
    def offsets(self) -> np.ndarray:
        """``(N+1,)`` int64: sample ``i`` holds rows ``offsets[i]:offsets[i+1]``."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)


@dataclass
class Words:
    """Words with times, all samples concatenated: sample ``i`` holds words ``offset[i]:offset[i+1]``.

    Attributes:
        word: ``(W,)`` str objects.
        interval: ``(W, 2)`` float32, start and end in seconds from the start of the segment.
        offset: ``(N+1,)`` int32.
    """

    word: np.ndarray
    interval: np.ndarray
    offset: np.ndarray


@dataclass
class TokenIds:
    """Ready-made token ids of an official file, right-padded: ``ids`` and ``valid`` are ``(N, L)``."""

    ids: np.ndarray
    valid: np.ndarray
    model: str


@dataclass
class DatasetRecord:
    """Everything that is known about a data set.

    Attributes:
        name: name under which it is stored and loaded.
        task: what is predicted.
        ids: ``(N,)`` unique identifiers; groups: ``(N,)`` video of each sample.
        labels: ``(N,)`` or ``(N, K)`` float32.
        folds: fold name to ``(N,)`` str array of ``train``, ``valid``, ``test`` or ``""`` (not in this fold).
        features: feature-set name to :class:`FeatureSet`; may be empty for text-only sets.
        defaults: fold name (or ``"*"``) to the feature-set name per modality that is loaded when none is asked for;
            for text, ``"words"``, ``"tokens"`` or ``"sentence"`` mean "computed from the transcripts", and
            ``"timed_words"`` "computed from ``words``".
        transcripts: ``(N,)`` texts, or ``None``; further languages go to ``other_transcripts``.
        words: word sequences with times, or ``None``.
        token_ids: ready-made token ids, or ``None``.
        unimodal_labels: per modality ``(N,)`` float32 (CH-SIMS).
        factors: planted factors ``(N, k)`` of a synthetic set.
        times: ``(N, 2)`` float32 start and stop of each segment in the video, in seconds, or ``None``.
        terms: what is known about the terms of use; citation: what to cite.
        sources: one line per original file: where it came from and its SHA-256.
        repairs: what was repaired on reading, with counts (for instance ``"audio: -inf set to 0"``).
        notes: facts that a user should see in ``data info``.
    """

    name: str
    task: Task
    ids: list[str]
    groups: list[str]
    labels: np.ndarray
    folds: dict[str, np.ndarray]
    features: dict[str, FeatureSet] = field(default_factory=dict)
    defaults: dict[str, dict[Modality, str]] = field(default_factory=dict)
    transcripts: list[str] | None = None
    other_transcripts: dict[str, list[str]] = field(default_factory=dict)
    words: Words | None = None
    token_ids: TokenIds | None = None
    unimodal_labels: dict[Modality, np.ndarray] = field(default_factory=dict)
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    times: np.ndarray | None = None
    terms: str = ""
    citation: str = ""
    sources: list[str] = field(default_factory=list)
    repairs: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


def ragged(
    padded: np.ndarray,
    valid: np.ndarray,
    *,
    modality: Modality,
    level: Level,
    observed: np.ndarray | None = None,
    label_trained_on: str = "",
    description: str = "",
) -> FeatureSet:
    """Turn a padded array into a :class:`FeatureSet`, whichever side the padding is on.

    Args:
        padded: ``(N, T, d)``.
        valid: ``(N, T)`` bool; the valid frames of a sample are kept in order. A sample with no valid frame gets one
            frame that is not observed.
        observed: ``(N, T)`` bool, by default all valid frames.
    """
    valid = valid.copy()
    observed = valid.copy() if observed is None else observed & valid
    empty = ~valid.any(axis=1)
    valid[empty, 0] = True
    observed[empty] = False
    values = np.where(observed[..., None], padded, 0).astype(np.float32)[valid]
    return FeatureSet(
        modality=modality,
        values=np.ascontiguousarray(values),
        lengths=valid.sum(axis=1).astype(np.int64),
        observed=observed[valid],
        level=level,
        label_trained_on=label_trained_on,
        description=description,
    )
