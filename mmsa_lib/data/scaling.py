"""How features of a data set become what a method reads: columns of mean 0 and deviation 1, text in vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mmsa_lib.data.record import FeatureSet, Modality

_SAMPLES_PER_READ = 256


@dataclass(frozen=True)
class Preparation:
    """What was done to the samples that a method was trained on, and has to be done to any other.

    Attributes:
        features: per modality the name of its feature set, which may be one of
            :data:`mmsa_lib.data.record.COMPUTED_TEXT`.
        scaling: per modality its scaling, where there is one.
        text_model, max_length: of computed text, else empty and 0.
        text_fingerprint: of the text model that computed frozen text; empty for tokens and stored text.
        aligned: all modalities have equally many frames in every sample.
    """

    features: dict[Modality, str]
    scaling: dict[Modality, Scaling] = field(default_factory=dict)
    text_model: str = ""
    text_fingerprint: str = ""
    max_length: int = 0
    aligned: bool = False


@dataclass(frozen=True)
class Scaling:
    """``(x - mean) / scale`` per column; ``mean`` and ``scale`` are ``(d,)`` float32."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, values: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Scaled frames ``(..., d)`` float32; frames that are not ``observed`` ``(...)`` stay zero."""
        scaled = values - self.mean
        scaled /= self.scale
        scaled[~observed] = 0
        return scaled


def fit_scaling(features: FeatureSet, samples: np.ndarray) -> Scaling:
    """Mean and standard deviation (divided by the count) of each column over the observed frames of some samples.

    A column that is constant there gets scale 1 and becomes exactly zero, not infinite. Sums are in float64 and run
    over the frames twice, which stays exact where the mean is large against the deviation (COVAREP's F0).

    Args:
        features: the frames; their values may lie in a file, which gives the same bits.
        samples: positions of the training samples, in ascending order.
    """
    width = features.width
    count, total = 0, np.zeros(width)
    for frames in _observed(features, samples):
        count += len(frames)
        total += frames.sum(axis=0, dtype=np.float64)
    if count == 0:
        return Scaling(np.zeros(width, np.float32), np.ones(width, np.float32))
    mean = total / count
    squares = np.zeros(width)
    for frames in _observed(features, samples):
        squares += ((frames - mean) ** 2).sum(axis=0)
    # Sums of equal float32 values are exact in float64: a constant column has a deviation of exactly 0.
    scale = np.sqrt(squares / count).astype(np.float32)
    scale[scale == 0] = 1
    return Scaling(mean.astype(np.float32), scale)


def _observed(features: FeatureSet, samples: np.ndarray) -> Iterator[np.ndarray]:
    """The observed frames of ``samples``, many samples at a time; neighbours in one read."""
    offsets = features.offsets
    for first in range(0, len(samples), _SAMPLES_PER_READ):
        chosen = samples[first : first + _SAMPLES_PER_READ]
        runs = np.split(chosen, np.flatnonzero(np.diff(chosen) != 1) + 1)
        spans = [slice(int(offsets[run[0]]), int(offsets[run[-1] + 1])) for run in runs]
        observed = np.concatenate([features.observed[span] for span in spans])
        values = [features.values[span] for span in spans]
        values = values[0] if len(values) == 1 else np.concatenate(values)
        yield values if observed.all() else values[observed]
