"""From padded arrays to :class:`~mmsa_lib.data.record.FeatureSet`: which frames are an utterance, which are padding.

The published files pad with zeros, some on the left and some on the right, a few on either side in one file. A frame is
*present* when any of its numbers is not zero (NaN and infinities count as present). Zero frames between present ones
are part of the utterance, valid and observed, because a file does not tell a silent frame from a missing one. A sample
whose frames are all zero counts as missing: its frames are valid and not observed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.record import FeatureSet, Level
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.errors import DataError

LEFT = "{}: samples padded on the left, shifted"
"""What is counted where the padding of a field is moved to the right."""


def present_frames(padded: np.ndarray) -> np.ndarray:
    """``(N, T)`` bool: frames of ``padded`` ``(N, T, d)`` that are not all zero."""
    return (padded != 0).any(axis=-1)


def span(present: np.ndarray) -> np.ndarray:
    """``(N, T)`` bool: from the first to the last present frame of each sample, whichever side the padding is on."""
    after_first = np.logical_or.accumulate(present, axis=1)
    before_last = np.logical_or.accumulate(present[:, ::-1], axis=1)[:, ::-1]
    return after_first & before_last


def placed(present: np.ndarray, lengths: np.ndarray, field: str, repairs: Repairs) -> np.ndarray:
    """The valid frames of samples whose lengths are known, for padding on either side.

    Where all samples fit into their first ``length`` frames the padding is on the right, else where all fit into their
    last ones it is on the left. (A sample alone may fit both ways: aligned files have zero frames for [CLS] and [SEP].)
    A file that mixes the sides is decided sample by sample, the right first; a sample that fits neither way has a wrong
    length, and the span of its present frames counts. All but padding on the right is counted in ``repairs``.

    Args:
        present: ``(N, T)`` bool.
        lengths: ``(N,)`` frames per sample; more than ``T`` means that the array was cut at ``T``.
        field: what the lengths belong to, for the report.

    Returns:
        ``(N, T)`` bool.
    """
    steps = present.shape[1]
    position = np.arange(steps)
    length = np.minimum(lengths, steps)[:, None]
    first, last = position < length, position >= steps - length
    fits_first = ~(present & ~first).any(axis=1)
    fits_last = ~(present & ~last).any(axis=1)
    on_left = fits_last if fits_last.all() and not fits_first.all() else fits_last & ~fits_first
    wrong = ~fits_first & ~fits_last
    valid = np.where(on_left[:, None], last, np.where(wrong[:, None], span(present), first))
    repairs.count(f"{field}: samples longer than the array, cut", int((lengths > steps).sum()))
    repairs.count(LEFT.format(field), int((on_left & (length[:, 0] < steps)).sum()))
    repairs.count(f"{field}: samples whose length contradicts the data", int(wrong.sum()))
    return valid


def spanned(present: np.ndarray, field: str, repairs: Repairs) -> np.ndarray:
    """:func:`span`, counting in ``repairs`` the samples that begin with padding."""
    valid = span(present)
    repairs.count(LEFT.format(field), int((valid.any(axis=1) & ~valid[:, 0]).sum()))
    return valid


def features(
    padded: np.ndarray,
    valid: np.ndarray,
    *,
    modality: Modality,
    level: Level,
    repairs: Repairs,
    zero_is_missing: bool = False,
    description: str = "",
) -> FeatureSet:
    """The valid frames of a padded array, repaired, one sample after the other.

    Only the valid frames are copied, so that the largest published files fit into the memory that holds them.

    Args:
        padded: ``(N, T, d)``, any real type.
        valid: ``(N, T)`` bool; a sample without any valid frame gets one that is not observed.
        repairs: counts what is not finite in a valid frame and becomes 0.
        zero_is_missing: a zero frame is not observed (files in which zeros are known to mean a face that was not
            found). Otherwise only samples that are zero as a whole are not observed.
    """
    valid = valid.copy()
    valid[~valid.any(axis=1), 0] = True
    lengths = valid.sum(axis=1).astype(np.int64)
    values = repairs.finite(padded[valid], modality)
    present = values.any(axis=1)
    starts = np.cumsum(lengths) - lengths
    sample_present = np.repeat(np.logical_or.reduceat(present, starts), lengths)
    return FeatureSet(
        modality=modality,
        values=values,
        lengths=lengths,
        observed=present if zero_is_missing else sample_present,
        level=level,
        description=description,
    )


def joined(parts: Sequence[FeatureSet], where: str) -> FeatureSet:
    """The feature sets of several splits as one.

    Raises:
        DataError: the splits have features of different width; ``where`` begins the message.
    """
    widths = sorted({part.width for part in parts})
    if len(widths) > 1:
        raise DataError(f"{where}: the splits have {' and '.join(map(str, widths))} features; they must have the same")
    first = parts[0]
    return FeatureSet(
        modality=first.modality,
        values=np.concatenate([part.values for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        observed=np.concatenate([part.observed for part in parts]),
        level=first.level,
        description=first.description,
    )
