"""One column of a file, with one entry per sample: texts, names, numbers or frames, read out of whatever it came as.

Everything that is changed on the way is counted (:mod:`mmsa_lib.data.sources.repairs`); what is not what it should be
is refused in one line that begins with file and field and names the row or the sample.

The published files pad frames with zeros, some on the left and some on the right, a few on either side in one file. A
frame is *present* when any of its numbers is not zero (NaN and infinities count as present). Zero frames between
present ones are part of the utterance, valid and observed, because a file does not tell a silent frame from a missing
one. A sample whose frames are all zero counts as missing: its frames are valid and not observed.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsa_lib.data.record import FeatureSet, Level, Modality
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.errors import DataError, FileProblems

MIXED_UP = "the file is damaged or mixed up"
CONTRADICTS = "{}: samples whose length contradicts the data"


class Unusable(Exception):
    """A field that the file can do without is not what it should be; the message says why."""


# ---- any column ----------------------------------------------------------------------------------------------------


def as_name(key: Any) -> str:
    """A key of a dict as text: bytes are read as text, and anything else is printed."""
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


def describe(tree: Any) -> str:
    """What a loaded pickle holds, in a few words."""
    if isinstance(tree, Mapping):
        first = next(iter(tree.values()), None)
        names, inner = (
            ", ".join(as_name(key)[:40] for key in list(part)[:8]) if isinstance(part, Mapping) else ""
            for part in (tree, first)
        )
        inner = f" of dicts with {inner}" if isinstance(first, Mapping) else ""
        return f"a dict with the keys {names}{inner}" if names else "an empty dict"
    if isinstance(tree, np.ndarray):
        return f"an array of shape {tree.shape} and type {tree.dtype}"
    if isinstance(tree, list | tuple):
        return f"a {type(tree).__name__} of {len(tree)} entries"
    return f"a single {type(tree).__name__}"


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, NaT, pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and math.isnan(value)


def has_values(values: Any) -> bool:
    """Whether a field holds anything but nothing: None, NaN, empty texts, empty lists."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufc":
        return bool(values.size) and not bool((values != values).all())
    if isinstance(values, np.ndarray | list | tuple):
        return any(map(has_values, values.flat if isinstance(values, np.ndarray) else values))
    return bool(values.strip()) if isinstance(values, str | bytes) else not is_missing(values)


def entries_of(values: Any, where: str, count: int | None = None) -> list[Any]:
    """The entries of a column, ``(N,)`` or ``(N, 1)``; of a wider array its rows.

    Raises:
        DataError: no column, or not ``count`` entries.
    """
    if isinstance(values, np.ndarray) and values.ndim > 0:
        found = values.reshape(-1).tolist() if values.size == len(values) else list(values)
    elif isinstance(values, list | tuple):
        found = list(values)
    else:
        raise DataError(f"{where}: expected a list or an array with one entry per sample, found {describe(values)}")
    if count is not None and len(found) != count:
        raise DataError(f"{where}: {len(found)} entries for {count} samples; {MIXED_UP}")
    return found


# ---- texts and names -----------------------------------------------------------------------------------------------


def texts(values: Any, where: str, repairs: Repairs | None = None, count: int | None = None) -> list[str]:
    """A column of texts: a list or an array of str, bytes, lists of words or numbers.

    What is missing (None, NaN) becomes an empty text. Bytes are UTF-8, else Western European (cp1252) where that is
    plausible. A list of words is joined by blanks; a number is printed. All but plain text and UTF-8 is counted.

    Args:
        values: the column.
        where: file and field, begins every message.
        repairs: counts, under the field's name (the last word of ``where``), what was not plain text.
        count: number of samples, where it is known.

    Raises:
        DataError: no column, another number of entries, or an entry that is no text; names the row.
    """
    name, repairs = where.rpartition(" ")[2], Repairs() if repairs is None else repairs
    entries = entries_of(values, where, count)
    return [_text(value, name, f"{where}: row {row}", repairs) for row, value in enumerate(entries)]


def _text(value: Any, name: str, where: str, repairs: Repairs) -> str:
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        repairs.count(f"{name}: missing, left empty", 1)
        return ""
    if isinstance(value, bytes | bytearray):
        return _decoded(bytes(value), name, where, repairs)
    if isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isreal(value):
        repairs.count(f"{name}: number, read as text", 1)
        return str(value)
    if isinstance(value, list | tuple | np.ndarray):
        words = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
        if all(isinstance(word, str | bytes) or is_missing(word) for word in words):
            joined = " ".join(filter(None, [_text(word, f"{name} (words)", where, repairs) for word in words]))
            repairs.count(f"{name}: list of words, joined by blanks" if joined else f"{name}: missing, left empty", 1)
            return joined
    raise DataError(f"{where} is {describe(value)}, which is no text; give one text per sample")


def _decoded(raw: bytes, name: str, where: str, repairs: Repairs) -> str:
    """UTF-8, else cp1252 where each special character stands alone; two together may be half of a Chinese text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        if re.search(rb"[\x80-\xff]{2}", raw):
            raise UnicodeError("not UTF-8")
        text = raw.decode("cp1252")
    except UnicodeError as error:
        raise DataError(f"{where} holds bytes that are not UTF-8 ({raw[:20]!r}); decode them before saving") from error
    repairs.count(f"{name}: bytes that are not UTF-8, read as cp1252", 1)
    return text


def names_of(values: Any, where: str) -> list[str]:
    """A column of ids: text, bytes in UTF-8 or whole numbers.

    Raises:
        DataError: an id is missing, empty or nothing of these; names the row.
    """
    return [_name(value, f"{where}: row {row}") for row, value in enumerate(entries_of(values, where))]


def _name(value: Any, where: str) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        value = _decoded(value, "", where, Repairs())
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where} has an empty id ({value!r}); give every sample an id")
    if not isinstance(value, str):
        raise DataError(f"{where}: the id is {describe(value)}; give every sample a text or a whole number")
    return str(value)


def check_ids(ids: Sequence[str], splits: Sequence[str], where: str) -> None:
    """Raise FileProblems where ids are empty or occur twice, naming each id and its splits."""
    first: dict[str, str] = {}
    found = []
    for name, split in zip(ids, splits, strict=True):
        if not name:
            found.append(f"{where}: a sample of split {split} has an empty id; give every sample an id")
        elif name in first:
            places = f" (splits {first[name]} and {split})" if split else ""
            found.append(
                f"{where}: id {name!r} occurs twice{places}; ids must be unique, remove or rename one of the two"
            )
        first.setdefault(name, split)
    if found:
        raise FileProblems(found, where)


# ---- numbers -------------------------------------------------------------------------------------------------------


def is_number(text: str) -> bool:
    """Whether a cell holds a number, also NaN or infinity."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def numbers_of(values: Any, ids: Sequence[str], where: str) -> tuple[np.ndarray, int]:
    """``(N,)`` float64, NaN where a value is missing, and how many were text.

    Raises:
        Unusable: an entry is no number; names the sample.
        DataError: no column, or another number of entries.
    """
    found, of_text = np.full(len(ids), np.nan), 0
    entries = [None] * len(ids) if is_missing(values) else entries_of(values, where, len(ids))
    for row, entry in enumerate(entries):
        entry = entry.tolist() if isinstance(entry, np.ndarray) else entry
        entry = entry[0] if isinstance(entry, list | tuple) and len(entry) == 1 else entry
        try:
            found[row] = float(entry) if has_values(entry) else np.nan
        except (TypeError, ValueError, OverflowError):
            raise Unusable(f"{describe(entry)} of sample {ids[row]!r} is no number") from None
        of_text += isinstance(entry, str) and has_values(entry)
    return found, of_text


def lengths_of(values: Any, count: int, where: str) -> np.ndarray:
    """``(N,)`` int64 numbers of frames.

    Raises:
        DataError: another number of entries, or one that is no whole number from 0 up.
    """
    wrong = DataError(f"{where}: expected one whole number from 0 up per sample; mend or remove the field")
    try:
        numbers = np.asarray(entries_of(values, where)).reshape(-1)
    except ValueError as error:
        raise wrong from error
    if len(numbers) != count:
        raise DataError(f"{where}: {len(numbers)} lengths for {count} samples; {MIXED_UP}")
    is_real = numbers.dtype.kind in "iuf" and np.isfinite(numbers).all()
    if not is_real or (numbers < 0).any() or (numbers != np.floor(numbers)).any():
        raise wrong
    return np.minimum(numbers, np.iinfo(np.int32).max).astype(np.int64)


# ---- frames --------------------------------------------------------------------------------------------------------


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
    as_list = not is_array or values.dtype == object
    array = np.zeros((len(values), 1, 1)) if as_list else values[:, None, :] if values.ndim == 2 else values
    if array.ndim != 3 or array.shape[1] == 0 or array.shape[2] == 0 or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: shape {array.shape} and type {array.dtype}, expected numbers of shape (N, T, d)")
    if len(array) != len(ids):
        raise DataError(f"{where}: {len(array)} rows for {len(ids)} samples; {MIXED_UP}")
    if not as_list:
        return array
    rows = [frames_of_one(value, f"{where}: sample {name!r}") for name, value in zip(ids, values, strict=True)]
    return rows if len({row.shape for row in rows}) > 1 else frames_of(np.stack(rows), ids, where)


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


def present_frames(padded: np.ndarray) -> np.ndarray:
    """``(N, T)`` bool: frames of ``padded`` ``(N, T, d)`` that are not all zero."""
    return (padded != 0).any(axis=-1)


def span(present: np.ndarray) -> np.ndarray:
    """``(N, T)`` bool: from the first to the last present frame of each sample, whichever side the padding is on."""
    after_first = np.logical_or.accumulate(present, axis=1)
    before_last = np.logical_or.accumulate(present[:, ::-1], axis=1)[:, ::-1]
    return after_first & before_last


def valid_frames(present: np.ndarray, lengths: np.ndarray | None, field: str, repairs: Repairs) -> np.ndarray:
    """The valid frames of each sample, for padding on either side; all but padding on the right is counted.

    Without lengths it is the span of the present frames. Where all samples fit into their first ``length`` frames the
    padding is on the right, else where all fit into their last ones it is on the left. (A sample alone may fit both
    ways: aligned files have zero frames for [CLS] and [SEP].) A file that mixes the sides is decided sample by sample,
    the right first; a sample that fits neither way has a wrong length, and the span of its present frames counts.

    Args:
        present: ``(N, T)`` bool.
        lengths: ``(N,)`` frames per sample, if they are known; more than ``T`` means that the array was cut at ``T``.
        field: what the lengths belong to, for the report.

    Returns:
        ``(N, T)`` bool.
    """
    shifted = f"{field}: samples padded on the left, shifted"
    if lengths is None:
        valid = span(present)
        repairs.count(shifted, (valid.any(axis=1) & ~valid[:, 0]).sum())
        return valid
    steps = present.shape[1]
    position = np.arange(steps)
    length = np.minimum(lengths, steps)[:, None]
    first, last = position < length, position >= steps - length
    fits_first = ~(present & ~first).any(axis=1)
    fits_last = ~(present & ~last).any(axis=1)
    on_left = fits_last if fits_last.all() and not fits_first.all() else fits_last & ~fits_first
    wrong = ~fits_first & ~fits_last
    repairs.count(f"{field}: samples longer than the array, cut", (lengths > steps).sum())
    repairs.count(shifted, (on_left & (length[:, 0] < steps)).sum())
    repairs.count(CONTRADICTS.format(field), wrong.sum())
    return np.where(on_left[:, None], last, np.where(wrong[:, None], span(present), first))


def features_of(
    frames: np.ndarray | list[np.ndarray],
    ids: Sequence[str],
    where: str,
    *,
    modality: Modality,
    level: Level,
    repairs: Repairs,
    description: str,
    lengths: np.ndarray | None = None,
    valid: np.ndarray | None = None,
    zero_is_missing: bool = False,
    nan_is_missing: bool = False,
) -> FeatureSet:
    """The feature set of what :func:`frames_of` gave: the valid frames, repaired, one sample after the other.

    A sample without frames gets one that is not observed. Only the valid frames are copied, so that the largest
    published files fit into the memory that holds them.

    Args:
        ids: ``(N,)``, to name samples that are wrong.
        where: file and field, begins the message.
        level: what one frame is; a single frame per sample that is no word makes it ``utterance``.
        repairs: counts what is not finite in a valid frame and becomes 0.
        lengths: ``(N,)`` frames per sample as the file says; for frames that are not padded they are only compared.
        valid: ``(N, T)`` bool, by default from the frames that are not zero and ``lengths``.
        zero_is_missing: a zero frame is not observed (files in which zeros are known to mean a face that was not
            found). Otherwise only samples that are zero as a whole are not observed.
        nan_is_missing: a frame that is NaN as a whole is not observed (:mod:`mmsa_lib.data.extract` writes such where
            there is no face).

    Raises:
        DataError: the samples differ in width, or none has frames; names one of each width.
    """
    if isinstance(frames, np.ndarray):
        longest = frames.shape[1]
        valid = valid_frames(present_frames(frames), lengths, modality, repairs) if valid is None else valid.copy()
        valid[~valid.any(axis=1), 0] = True
        counts, rows = valid.sum(axis=1).astype(np.int64), frames[valid]
    else:
        longest = max(map(len, frames))
        widths = {row.shape[1]: name for name, row in zip(ids, frames, strict=True) if row.size}
        if len(widths) != 1:
            some = [f"{width} (sample {name!r})" for width, name in list(widths.items())[:3]] or ["none"]
            some += [f"{len(widths) - 3} more"] if len(widths) > 3 else []
            said = f"{where}: {modality} features have the widths {' and '.join(some)}; all samples must have the same"
            remedy = "extract it as the others"
            if len(widths) > 1 and len({len(row) for row in frames if row.size}) == 1:
                remedy = f"all have {longest} rows, so that they may be (d, T): turn them into (T, d)"
                said += f" ({remedy})"
            usual = Counter(row.shape[1] for row in frames if row.size).most_common(1)
            odd = [(name, len(row[0])) for name, row in zip(ids, frames, strict=True) if row.size and usual]
            odd = [f"{where}: sample {name!r} has {width} {modality} features per frame, and most have {usual[0][0]}; "
                   f"{remedy}" for name, width in odd if width != usual[0][0]]  # fmt: skip
            raise FileProblems(odd or [said], where, said, len(odd))
        if lengths is not None:
            repairs.count(CONTRADICTS.format(modality), (lengths != [len(row) for row in frames]).sum())
        empty = np.zeros((1, next(iter(widths))), dtype=np.result_type(*{row.dtype for row in frames if row.size}))
        counts = np.array([len(row) if row.size else 1 for row in frames], dtype=np.int64)
        rows = np.concatenate([row if row.size else empty for row in frames])
        repairs.count(f"{modality}: samples without frames, missing", sum(not row.size for row in frames))
    missing = np.isnan(rows).all(axis=1) if nan_is_missing else np.zeros(len(rows), bool)
    repairs.count(f"{modality}: frames that are NaN as a whole, missing", missing.sum())
    starts = np.cumsum(counts) - counts
    values = repairs.finite(np.where(missing[:, None], 0, rows) if missing.any() else rows, modality, ids, starts)
    observed = values.any(axis=1)
    if not zero_is_missing:
        observed = np.repeat(np.logical_or.reduceat(observed, starts), counts)
    observed &= ~missing
    level = "utterance" if longest == 1 and level != "word" else level
    return FeatureSet(modality, values, counts, observed, level, description=description)


def joined(parts: Sequence[FeatureSet], where: str) -> FeatureSet:
    """The feature sets of several splits as one.

    Raises:
        DataError: the splits have features of different width; ``where`` begins the message.
    """
    widths = sorted({part.width for part in parts})
    if len(widths) > 1:
        raise DataError(f"{where}: the splits have {' and '.join(map(str, widths))} features; they must have the same")
    arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "lengths", "observed"))
    return FeatureSet(parts[0].modality, *arrays, parts[0].level, description=parts[0].description)
