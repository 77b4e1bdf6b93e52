"""Timing features against a slow computation word by word."""

import math

import numpy as np
import pytest

from mmsa_lib.data.record import Words
from mmsa_lib.data.sources.mosi import TIMING_SUMMARIES, WORD_TIMING, timing_summaries, word_timing
from mmsa_lib.errors import DataError


def words_of(*segments: list[tuple[float, float]]) -> Words:
    intervals = [pair for segment in segments for pair in segment]
    offset = np.concatenate([[0], np.cumsum([len(segment) for segment in segments])]).astype(np.int32)
    return Words(
        word=np.array(["w"] * len(intervals), dtype=object),
        interval=np.array(intervals, dtype=np.float32).reshape(-1, 2),
        offset=offset,
    )


def random_segments(seed=0):
    generator = np.random.default_rng(seed)
    segments = []
    for count in (1, 2, 3, 7, 20):
        gaps, durations = generator.uniform(0, 0.5, count), generator.uniform(0.05, 0.9, count)
        starts = np.cumsum(gaps + np.concatenate([[0], durations[:-1]]))
        segments.append([(float(s), float(s + d)) for s, d in zip(starts, durations, strict=True)])
    return segments


def slow(segment, i):
    """Duration, pause and rate of one word, from the definitions."""
    start, end = segment[i]
    pause = start - (segment[i - 1][1] if i > 0 else 0.0)
    window = segment[max(0, i - 1) : i + 2]
    return end - start, max(pause, 0.0), len(window) / (window[-1][1] - window[0][0])


def test_word_timing_is_the_definition():
    segments = random_segments()
    features = word_timing(words_of(*segments))
    expected = [slow(segment, i) for segment in segments for i in range(len(segment))]
    np.testing.assert_allclose(features.values, expected, rtol=1e-4, atol=1e-5)
    assert features.lengths.tolist() == [len(segment) for segment in segments]
    assert features.observed.all()
    assert (features.modality, features.level, features.width) == ("audio", "word", len(WORD_TIMING))


def test_early_first_word_and_overlap_are_no_pause():
    features = word_timing(words_of([(-0.1, 0.4), (0.3, 0.6)]))
    assert features.values[:, 1].tolist() == [0.0, 0.0]


def test_segment_without_words_is_one_unobserved_frame():
    features = word_timing(words_of([(0.0, 0.5)], [], [(0.2, 0.4)]))
    assert features.lengths.tolist() == [1, 1, 1]
    assert features.observed.tolist() == [True, False, True]
    assert not features.values[1].any()


def test_word_without_time_is_refused():
    with pytest.raises(DataError, match="takes no time"):
        word_timing(words_of([(0.5, 0.5)]))


def test_summaries_are_the_definition():
    segments = [*random_segments(), []]
    times = np.array([[10.0, 25.0 + i] for i in range(len(segments))], dtype=np.float32)
    features = timing_summaries(words_of(*segments), times)
    for i, segment in enumerate(segments[:-1]):
        durations = [slow(segment, j)[0] for j in range(len(segment))]
        pauses = [slow(segment, j)[1] for j in range(len(segment))]
        mean = sum(durations) / len(durations)
        sd = math.sqrt(sum((d - mean) ** 2 for d in durations) / len(durations))
        expected = {
            "words": len(segment),
            "duration": 15.0 + i,
            "speaking_rate": len(segment) / (15.0 + i),
            "mean_word_duration": mean,
            "std_word_duration": sd,
            "max_word_duration": max(durations),
            "mean_pause": sum(pauses) / len(pauses),
            "max_pause": max(pauses),
        }
        assert tuple(expected) == TIMING_SUMMARIES
        np.testing.assert_allclose(features.values[i], list(expected.values()), rtol=1e-4, atol=1e-5)
    assert features.observed.tolist() == [True] * 5 + [False]
    assert not features.values[-1].any()


def test_segment_without_duration_is_not_observed():
    features = timing_summaries(words_of([(0.0, 0.5)]), np.array([[3.0, 3.0]], dtype=np.float32))
    assert features.observed.tolist() == [False]
    assert np.isfinite(features.values).all()
