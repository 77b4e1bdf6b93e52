"""Acoustic timing from words with times: how long, how far apart and how fast somebody speaks.

The times come from forced alignment, so they carry some prosody although no audio is at hand. No label took part in
them, hence they leak into no fold.
"""

from __future__ import annotations

import numpy as np

from mmsa_lib.data.record import FeatureSet, Words
from mmsa_lib.errors import DataError

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

    * duration: end minus start, in seconds;
    * pause_before: start minus the end of the word before, for the first word minus the start of the segment, in
      seconds; 0 where words overlap or begin before the segment does;
    * speaking_rate: words per second around the word: the word and its neighbours (three words, two at the ends of a
      segment), divided by the time from the first one's start to the last one's end.

    A segment without words keeps one frame that is not observed.

    Raises:
        DataError: a word ends before its neighbour starts, so that there is no time to count words in.
    """
    values, observed, lengths = [], [], []
    for first, last in zip(words.offset[:-1], words.offset[1:], strict=True):
        interval = words.interval[first:last].astype(np.float64)
        rows = _timing(interval) if len(interval) else np.zeros((1, len(WORD_TIMING)))
        values.append(rows)
        lengths.append(len(rows))
        observed.append(np.full(len(rows), len(interval) > 0))
    return FeatureSet(
        modality="audio",
        values=np.concatenate(values).astype(np.float32),
        lengths=np.array(lengths, dtype=np.int64),
        observed=np.concatenate(observed),
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
    observed = np.zeros(len(times), dtype=bool)
    seconds = (times[:, 1] - times[:, 0]).astype(np.float64)
    for i, (first, last) in enumerate(zip(words.offset[:-1], words.offset[1:], strict=True)):
        if last == first or seconds[i] <= 0:
            continue
        duration, pause, _ = _timing(words.interval[first:last].astype(np.float64)).T
        count = last - first
        spoken = duration.mean(), duration.std(), duration.max()
        rows[i] = count, seconds[i], count / seconds[i], *spoken, pause.mean(), pause.max()
        observed[i] = True
    return FeatureSet(
        modality="audio",
        values=rows.astype(np.float32),
        lengths=np.ones(len(times), dtype=np.int64),
        observed=observed,
        level="utterance",
        description="timing summaries of a segment: " + ", ".join(TIMING_SUMMARIES),
    )


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
