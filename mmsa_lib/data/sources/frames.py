"""From padded arrays to :class:`~mmsa_lib.data.record.FeatureSet`: which frames are an utterance, which are padding.

The published files pad with zeros, some on the left and some on the right, a few on either side in one file. A frame is
*present* when any of its numbers is not zero (NaN and infinities count as present). Zero frames between present ones
are part of the utterance, valid and observed, because a file does not tell a silent frame from a missing one. A sample
whose frames are all zero counts as missing: its frames are valid and not observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmsa_lib.data.record import FeatureSet, Level, Modality
from mmsa_lib.data.sources.layouts import describe, is_missing
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.errors import DataError

LEFT = "{}: samples padded on the left, shifted"
"""What is counted where the padding of a field is moved to the right."""


def frames_of(values: Any, ids: Sequence[str], where: str) -> np.ndarray | list[np.ndarray]:
    """The frames of a field: padded ``(N, T, d)``, or one ``(T_i, d)`` per sample where they are unequally long.

    ``(N, d)`` becomes one frame per sample. A sample that is ``None`` or empty in a list has no frames, ``(0, 0)``.

    Args:
        values: an array, or a list with an array or a list of frames per sample.
        ids: ``(N,)``, to name a sample that is wrong.
        where: file and field, begins every message.

    Raises:
        DataError: no numbers, or another number of samples.
    """
    is_array = isinstance(values, np.ndarray) and values.ndim > 0
    if not is_array and not isinstance(values, list | tuple):
        raise DataError(f"{where}: found {describe(values)}, expected an array (N, T, d) or a list of arrays (T, d)")
    if not is_array or values.dtype == object:
        _check_rows(len(values), len(ids), where)
        rows = [frames_of_one(value, f"{where}: sample {name!r}") for name, value in zip(ids, values, strict=True)]
        if len({row.shape for row in rows}) > 1:
            return rows
        values = np.stack(rows)
    array = values[:, None, :] if values.ndim == 2 else values
    if array.ndim != 3 or array.shape[1] == 0 or array.shape[2] == 0 or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: shape {array.shape} and type {array.dtype}, expected numbers of shape (N, T, d)")
    _check_rows(len(array), len(ids), where)
    return array


def _check_rows(found: int, count: int, where: str) -> None:
    if found != count:
        raise DataError(f"{where}: {found} rows for {count} samples; the file is damaged or mixed up")


def frames_of_one(value: Any, where: str) -> np.ndarray:
    """``(T, d)`` real numbers; ``(0, 0)`` for nothing."""
    if is_missing(value):
        return np.zeros((0, 0))
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except ValueError as error:
        raise DataError(f"{where} has frames of unequal width; give an array (T, d)") from error
    if array.size == 0:
        return np.zeros((0, 0))
    if array.dtype == object and all(is_missing(x) or isinstance(x, int | float | np.number) for x in array.flat):
        array = np.array([np.nan if is_missing(x) else x for x in array.flat]).reshape(array.shape)
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf":
        hint = "; transcripts belong into a field raw_text" if isinstance(value, str | bytes) else ""
        raise DataError(f"{where} is {describe(value)}, expected numbers (T, d) or (d,){hint}")
    return array[None] if array.ndim == 1 else array


def listed(
    rows: Sequence[np.ndarray],
    ids: Sequence[str],
    where: str,
    *,
    modality: Modality,
    level: Level,
    repairs: Repairs,
    description: str = "",
) -> FeatureSet:
    """The feature set of samples that are not padded; one without frames, or all zero, counts as missing.

    Args:
        rows: ``(T_i, d)`` per sample.
        ids: ``(N,)``, to name samples of unequal width.
        where: file and field, begins the message.

    Raises:
        DataError: the samples differ in width, or none has frames; names one of each width.
    """
    widths = {row.shape[1]: name for name, row in zip(ids, rows, strict=True) if row.size}
    if len(widths) != 1:
        found = " and ".join(f"{width} (sample {name!r})" for width, name in widths.items()) or "none"
        raise DataError(f"{where}: {modality} features have the widths {found}; all samples must have the same")
    empty = np.zeros((1, next(iter(widths))), dtype=np.result_type(*{row.dtype for row in rows if row.size}))
    lengths = np.array([len(row) if row.size else 1 for row in rows], dtype=np.int64)
    values = repairs.finite(np.concatenate([row if row.size else empty for row in rows]), modality)
    seen = np.logical_or.reduceat(values.any(axis=1), np.cumsum(lengths) - lengths)
    repairs.count(f"{modality}: samples without frames, missing", sum(not row.size for row in rows))
    return FeatureSet(modality, values, lengths, np.repeat(seen, lengths), level, description=description)


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
