"""The pickles of MMSA and Self-MM: CMU-MOSI, CMU-MOSEI and CH-SIMS, aligned and unaligned (data.md, section 5.1).

Per split a dict with ``id`` (``video$_$clip``), ``regression_labels``, and any of ``raw_text``, ``text`` ``(N, L, d)``,
``text_bert`` ``(N, 3, L)`` (token ids, mask, segment ids), ``audio`` ``(N, T, d)``, ``vision``, ``audio_lengths``,
``vision_lengths``; CH-SIMS adds ``regression_labels_T``, ``_A``, ``_V``. Which frames are valid:

- text: where the mask of ``text_bert`` says so; without it, the span of the frames that are not zero;
- audio and vision: by their length field; where there is none and the array is as long as the text, they are aligned
  and the text's lengths hold; else the span of the frames that are not zero.

Fields are also found by other names (``visual``, ``label_T``, ...: :data:`~mmsa_lib.data.sources.layouts.FIELDS`),
frames may come unpadded, as a list of ``(T, d)``, and ``text_bert`` as ``(N, L, 3)``. Padding may be on either side.
``classification_labels`` and ``annotations`` are read only where classes are asked for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Modality, TokenIds
from mmsa_lib.data.sources.folds import with_valid
from mmsa_lib.data.sources.frames import features, frames_of, joined, listed, placed, present_frames, spanned
from mmsa_lib.data.sources.labels import Part, read_labels
from mmsa_lib.data.sources.layouts import (
    Fields,
    check_sizes,
    column,
    describe,
    distinct_ids,
    entries_of,
    has_values,
    is_missing,
    names_of,
    open_splits,
    remarks_on,
)
from mmsa_lib.data.sources.official import USER_TERMS, identify, known_set
from mmsa_lib.data.sources.repairs import Repairs, check_ids
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

CLASS_FIELDS = ("classification_labels", "annotations")
VOCABULARY = {"bert-base-uncased": 30_522, "bert-base-chinese": 21_128}
"""Token ids of the models whose ids the official files hold."""

_CHINESE = re.compile("[\u4e00-\u9fff]")
_DESCRIPTIONS: dict[Modality, str] = {
    "text": "text features of the file (BERT states in the official files)",
    "audio": "audio features of the file",
    "vision": "vision features of the file",
}


class _Unusable(Exception):
    """A field that the file can do without is not what it should be."""


def read(
    path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None, cut_valid: float = 0
) -> DatasetRecord:
    """Read a pickle in the MMSA layout.

    Args:
        path: the file.
        name: name of the data set from now on.
        task: by default sentiment in [-1, 1] where the labels fit and the file shows signs of CH-SIMS, else in [-3, 3]
            where they can be that. Classes are read from ``classification_labels`` or ``annotations``, if the file has
            them.
        label_column: of several numbers per sample the one to take, see :mod:`mmsa_lib.data.sources.labels`.
        cut_valid: share of the training videos that become ``valid``, for a file without such a split.

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as the file has them, one fold ``standard``.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a missing field or split, unequal lengths, a label that is NaN or out of
            range, or an id that occurs twice.
    """
    path = Path(path)
    splits, beside = open_splits(load(path), "mmsa", path, cut_valid)
    repairs = Repairs()
    raw_ids = {split: names_of(splits[split].take("id"), splits[split].place("id")) for split in splits}
    sizes = tuple(len(raw_ids[split]) for split in splits)
    check_sizes(sizes, path, splits)
    ids, renumbered = distinct_ids(raw_ids)
    all_ids, standard = [i for split in splits for i in ids[split]], np.repeat(list(splits), sizes)
    check_ids(all_ids, standard.tolist(), str(path))
    raw_labels = [_labels(splits[split], ids[split], task) for split in splits]
    for _, values, _ in raw_labels if task is None or task.kind != "classes" else ():
        repairs.label_types(values)
    transcripts = _transcripts(splits, ids, repairs)
    unimodal = _unimodal(splits, ids, repairs)
    known = known_set(sizes)
    chinese = _is_chinese(transcripts) if transcripts else known is not None and known.name.startswith("CH-SIMS")
    model = "bert-base-chinese" if chinese else "bert-base-uncased"
    token_parts = _all_token_ids(splits, ids, transcripts is not None, model, repairs)
    for m in MODALITIES:
        _name_lost_lengths(splits, m)
    parts = [_read_split(splits[split], ids[split], token_parts.get(split), repairs) for split in splits]
    carried = _fields_of_all(parts, list(splits), path)
    sets = {m: joined([part[m] for part in parts], f"{path}: {m}") for m in MODALITIES if m in carried}
    sims = bool(unimodal) or chinese or (known is not None and known.name.startswith("CH-SIMS"))
    labels, chosen, remark = read_labels(raw_labels, path, repairs, task=task, column=label_column, sims=sims)
    tokens = _tokens(list(token_parts.values()), model) if token_parts else None
    text = "text" if "text" in sets else "tokens" if tokens else "words" if transcripts else None
    if not sets and text is None:
        raise DataError(f"{path}: has none of text, text_bert, raw_text, audio, vision; there is nothing to learn from")
    source, remarks = identify(path, sizes)
    groups = list(all_ids) if renumbered else [video_of(i) for i in all_ids]
    standard, cut = with_valid(standard, groups, cut_valid, str(path))
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=all_ids,
        groups=groups,
        labels=labels,
        folds={"standard": standard},
        features=dict(sets),
        defaults={"*": {**({"text": text} if text else {}), **{m: m for m in sets if m != "text"}}},
        transcripts=transcripts,
        token_ids=tokens,
        unimodal_labels=unimodal,
        terms=USER_TERMS,
        citation=known.citation if known else "",
        sources=[source],
        repairs=repairs.counts,
        notes=[
            *remarks,
            remark,
            *([f"sizes are those of {known.name}"] if known else []),
            *renumbered,
            *cut,
            *remarks_on(splits.values(), beside),
        ],
    )


def video_of(name: str) -> str:
    """The video of ``video$_$clip``; an id of another form is a group of its own."""
    return name.rpartition("$_$")[0] or name


def _labels(fields: Fields, ids: list[str], task: Task | None) -> Part:
    """The labels of one split that go with ``task``, as the file holds them."""
    others = [key for key in CLASS_FIELDS if key in fields.part]
    if others and task is not None and task.kind == "classes":
        return f"{fields.where} {others[0]}", fields.part.pop(others[0]), ids
    if others and "labels" not in fields:
        raise DataError(
            f"{fields.where}: field 'regression_labels' is missing; to read {others[0]} name the classes (--classes "
            "NAME ...)"
        )
    return fields.place("labels"), fields.take("labels"), ids


def _transcripts(splits: dict[str, Fields], ids: dict[str, list[str]], repairs: Repairs) -> list[str] | None:
    """The transcripts of all splits; ``None`` where the file has none at all."""
    if not any("raw_text" in fields for fields in splits.values()):
        return None
    found: list[str] = []
    for split, fields in splits.items():
        count, values = len(ids[split]), fields.take("raw_text")
        found += column([None] * count if is_missing(values) else values, count, fields.place("raw_text"), repairs)
    if any(text.strip() for text in found):
        return found
    splits["train"].leave_out("raw_text", "no values")
    return None


def _unimodal(splits: dict[str, Fields], ids: dict[str, list[str]], repairs: Repairs) -> dict[Modality, np.ndarray]:
    """Labels of single modalities where all samples have them; others are left out, and the reason is kept."""
    complete: dict[Modality, np.ndarray] = {}
    for modality in MODALITIES:
        key = f"labels_{modality}"
        there = {split: fields for split, fields in splits.items() if key in fields}
        if not there:
            continue
        raw = {split: (fields.take(key), fields.place(key)) for split, fields in there.items()}
        first = next(iter(there.values()))
        try:
            found = {split: _numbers(values, ids[split], place, repairs) for split, (values, place) in raw.items()}
        except _Unusable as error:
            first.leave_out(key, str(error))
            continue
        given, count = sum(int(np.isfinite(values).sum()) for values in found.values()), sum(map(len, ids.values()))
        if given == count:
            with np.errstate(over="ignore"):  # such a label is out of range, which will be said
                complete[modality] = np.concatenate(list(found.values())).astype(np.float32)
        else:
            first.leave_out(key, f"{f'only {given}' if given else 'none'} of {count} samples have a value")
    return complete


def _numbers(values: Any, ids: list[str], where: str, repairs: Repairs) -> np.ndarray:
    """``(N,)`` float64, NaN where a value is missing; ``_Unusable`` says what is no number."""
    if is_missing(values):
        return np.full(len(ids), np.nan)
    entries = [entry.tolist() if isinstance(entry, np.ndarray) else entry for entry in entries_of(values, where)]
    if len(entries) != len(ids):
        raise DataError(f"{where}: {len(entries)} entries for {len(ids)} samples; the file is damaged or mixed up")
    found = []
    for entry, name in zip(entries, ids, strict=True):
        entry = entry[0] if isinstance(entry, list | tuple) and len(entry) == 1 else entry
        try:
            found.append(float(entry) if has_values(entry) else np.nan)
        except (TypeError, ValueError, OverflowError):
            raise _Unusable(f"{describe(entry)} of sample {name!r} is no number") from None
        repairs.count("unimodal labels: text, read as numbers", int(isinstance(entry, str) and has_values(entry)))
    return np.array(found)


def _all_token_ids(
    splits: dict[str, Fields], ids: dict[str, list[str]], has_text: bool, model: str, repairs: Repairs
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Token ids and masks of the splits; where there is other text, unusable ones are left out, with the reason."""
    there = {split: fields for split, fields in splits.items() if "text_bert" in fields}
    if not there:
        return {}
    needed = not has_text and not all("text" in fields for fields in splits.values())
    raw = {split: (fields.take("text_bert"), fields.place("text_bert")) for split, fields in there.items()}
    lacking = [split for split in splits if split not in there]
    try:
        if lacking:
            raise _Unusable(f"missing in split {lacking[0]}")
        return {split: _token_ids(values, ids[split], place, model, repairs) for split, (values, place) in raw.items()}
    except _Unusable as error:
        first = next(iter(there.values()))
        if needed:
            raise DataError(f"{first.place('text_bert')}: {error}") from None
        first.leave_out("text_bert", str(error))
        return {}


def _read_split(
    fields: Fields, ids: list[str], tokens: tuple[np.ndarray, np.ndarray] | None, repairs: Repairs
) -> dict[Modality, FeatureSet]:
    """The feature sets that one split has."""
    found: dict[Modality, FeatureSet] = {}
    lengths = tokens[1].sum(axis=1) if tokens else None
    steps = tokens[1].shape[1] if tokens else 0
    for modality in MODALITIES:
        if modality not in fields:
            continue
        place, is_text = fields.place(modality), modality == "text"
        frames = frames_of(fields.take(modality), ids, place)
        own = _lengths(fields, modality, len(ids))
        if isinstance(frames, list):
            found[modality] = _unpadded(frames, ids, own, place, modality, repairs)
            continue
        aligned = lengths is not None and own is None and frames.shape[1] == steps
        found[modality] = _features(frames, lengths if aligned else own, aligned or is_text, modality, repairs)
        if is_text and lengths is None and frames.shape[1] > 1:
            lengths, steps = found["text"].lengths, frames.shape[1]  # aligned files without token ids
    return found


def _unpadded(
    rows: list[np.ndarray], ids: list[str], lengths: np.ndarray | None, place: str, modality: Modality, repairs: Repairs
) -> FeatureSet:
    """Samples that come at their own lengths; what the file says about the lengths is only compared."""
    if lengths is not None:
        wrong = int((lengths != [len(row) for row in rows]).sum())
        repairs.count(f"{modality}: samples whose length contradicts the data", wrong)
    level = "token" if modality == "text" else "frame"
    description = _DESCRIPTIONS[modality]
    return listed(rows, ids, place, modality=modality, level=level, repairs=repairs, description=description)


def _features(
    array: np.ndarray, lengths: np.ndarray | None, as_text: bool, modality: Modality, repairs: Repairs
) -> FeatureSet:
    """The valid frames of one modality; ``as_text``: one frame per text token."""
    level = "utterance" if array.shape[1] == 1 else "token" if as_text else "frame"
    present = present_frames(array)
    valid = spanned(present, modality, repairs) if lengths is None else placed(present, lengths, modality, repairs)
    return features(array, valid, modality=modality, level=level, repairs=repairs, description=_DESCRIPTIONS[modality])


def _name_lost_lengths(splits: dict[str, Fields], modality: Modality) -> None:
    key = f"{modality}_lengths"
    lacking = [split for split, fields in splits.items() if key not in fields and modality in fields]
    if 0 < len(lacking) < len(splits):
        reason = f"missing in {' and '.join(lacking)}, where the frames that are not zero count"
        splits[lacking[0]].leave_out(key, reason)


def _lengths(fields: Fields, modality: Modality, count: int) -> np.ndarray | None:
    key = f"{modality}_lengths"
    if key not in fields:
        return None
    place, values = fields.place(key), fields.take(key)
    if not has_values(values):
        fields.leave_out(key, "no values")
        return None
    entries = entries_of(values, place)
    try:
        numbers = np.asarray(entries).reshape(-1)
    except ValueError as error:
        raise DataError(f"{place}: expected one whole number per sample; mend or remove the field") from error
    if len(numbers) != count:
        raise DataError(f"{place}: {len(numbers)} lengths for {count} samples; the file is damaged or mixed up")
    is_real = numbers.dtype.kind in "iuf" and np.isfinite(numbers).all()
    if not is_real or (numbers < 0).any() or (numbers != np.floor(numbers)).any():
        raise DataError(f"{place}: expected one whole number from 0 up per sample; mend or remove the field")
    return np.minimum(numbers, np.iinfo(np.int32).max).astype(np.int64)


def _token_ids(raw: Any, ids: list[str], place: str, model: str, repairs: Repairs) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask, ``(N, L)`` each, from ``text_bert`` of any numeric type; ``_Unusable`` says what is wrong.

    ``(N, 3, L)`` holds ids, mask and segments in rows; ``(N, L, 3)``, as older releases of MMSA-FET write it, in
    columns. Which of the two an array is, is seen from its shape, or where ``L`` is 3 from the mask being 0 and 1.
    """
    if is_missing(raw):
        raise _Unusable("no values")
    try:
        array = raw if isinstance(raw, np.ndarray) else np.asarray(raw)
    except ValueError:
        raise _Unusable("unequal lengths, expected numbers (N, 3, L)") from None
    if array.ndim != 3 or array.dtype.kind not in "biuf" or 3 not in array.shape[1:]:
        raise _Unusable(f"shape {array.shape} and type {array.dtype}, expected numbers ({len(ids)}, 3, L)")
    if len(array) != len(ids):
        raise DataError(f"{place}: {len(array)} rows for {len(ids)} samples; the file is damaged or mixed up")
    in_rows = array.shape[1] == 3 and (array.shape[2] != 3 or _is_masked(array))
    if not in_rows:
        array = array.transpose(0, 2, 1)
        repairs.count("text_bert: samples (L, 3), read as (3, L)", len(ids))
    if not _is_masked(array):
        raise _Unusable("expected token ids, a mask of 0 and 1, and segment ids; the file is damaged")
    tokens, mask = array[:, 0], array[:, 1]
    if tokens.max(initial=0) >= VOCABULARY[model]:
        largest = f"token id {tokens.max():g} is none of the {VOCABULARY[model]} of {model}"
        raise _Unusable(f"{largest}; ids of other models can't be used")
    order = np.argsort(mask == 0, axis=1, kind="stable")  # valid tokens first, in their order
    tokens, mask = np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1)
    if not mask.any():
        raise _Unusable("no sample has a valid token")
    repairs.count("text_bert: samples without a valid token, text missing", int((~mask.any(axis=1)).sum()))
    return np.where(mask == 1, tokens, 0).astype(np.int64), mask == 1


def _is_masked(array: np.ndarray) -> bool:
    """Whether ``(N, 3, L)`` holds whole numbers from 0 up, and a mask of 0 and 1 in its second row."""
    tokens, mask = array[:, 0], array[:, 1]
    return bool(np.isin(mask, (0, 1)).all() and (tokens >= 0).all() and (tokens == np.floor(tokens)).all())


def _tokens(parts: list[tuple[np.ndarray, np.ndarray]], model: str) -> TokenIds:
    """The splits below each other, padded to the longest."""
    longest = max(ids.shape[1] for ids, _ in parts)
    ids, valid = (
        np.concatenate([np.pad(part[i], ((0, 0), (0, longest - part[i].shape[1]))) for part in parts]) for i in (0, 1)
    )
    return TokenIds(ids=ids, valid=valid, model=model)


def _fields_of_all(parts: list[dict[Modality, FeatureSet]], splits: list[str], path: Path) -> set[Modality]:
    """Modalities that the splits have; all must have the same ones."""
    for key in sorted(set().union(*parts)):
        lacking = [split for split, part in zip(splits, parts, strict=True) if key not in part]
        if lacking:
            raise DataError(f"{path}: field {key!r} is missing in split {lacking[0]} and present in another one")
    return set(parts[0])


def _is_chinese(transcripts: list[str] | None) -> bool:
    """Whether most transcripts hold Chinese characters."""
    if not transcripts:
        return False
    return sum(bool(_CHINESE.search(text)) for text in transcripts) * 2 > len(transcripts)
