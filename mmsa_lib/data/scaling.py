"""Standardisation of audio and vision by the training split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmsa_lib.data.record import FeatureSet

_SAMPLES_PER_READ = 256

Reader = Callable[[Sequence[tuple[int, int]]], Iterable[np.ndarray]]
"""Gives the frames ``start:stop`` of a feature set, ``(stop - start, d)``, for each of some pairs of numbers."""


@dataclass(frozen=True)
class Scaling:
    """``(x - mean) / scale`` per column; ``mean`` and ``scale`` are ``(d,)`` float32."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, values: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Scaled frames ``(n, d)`` float32; frames that are not ``observed`` ``(n,)`` stay zero."""
        return np.where(observed[:, None], (values - self.mean) / self.scale, np.float32(0))


def rows_in_memory(features: FeatureSet) -> Reader:
    """A reader for a feature set whose values are in memory."""
    return lambda spans: (features.values[start:stop] for start, stop in spans)


def fit_scaling(features: FeatureSet, samples: np.ndarray, read: Reader) -> Scaling:
    """Mean and standard deviation (divided by the count) of each column over the observed frames of some samples.

    A column that is constant there gets scale 1 and becomes exactly zero, not infinite. Sums are in float64 and run
    over the frames twice, which stays exact where the mean is large against the deviation (COVAREP's F0).

    Args:
        features: lengths and observed frames; values are taken from ``read``.
        samples: positions of the training samples.
        read: where the values come from; memory and disk give the same bits.
    """
    width = features.width
    count, total = 0, np.zeros(width)
    for frames in _observed(features, samples, read):
        count += len(frames)
        total += frames.sum(axis=0, dtype=np.float64)
    if count == 0:
        return Scaling(np.zeros(width, np.float32), np.ones(width, np.float32))
    mean = total / count
    squares = np.zeros(width)
    for frames in _observed(features, samples, read):
        squares += ((frames - mean) ** 2).sum(axis=0)
    # Sums of equal float32 values are exact in float64: a constant column has a deviation of exactly 0.
    scale = np.sqrt(squares / count).astype(np.float32)
    scale[scale == 0] = 1
    return Scaling(mean.astype(np.float32), scale)


def _observed(features: FeatureSet, samples: np.ndarray, read: Reader) -> Iterator[np.ndarray]:
    """The observed frames of ``samples``, many samples at a time."""
    offsets = features.offsets
    for first in range(0, len(samples), _SAMPLES_PER_READ):
        spans = [(int(offsets[i]), int(offsets[i + 1])) for i in samples[first : first + _SAMPLES_PER_READ]]
        observed = np.concatenate([features.observed[start:stop] for start, stop in spans])
        yield np.concatenate(list(read(spans)))[observed]
