"""The pickles of MMSA and Self-MM: CMU-MOSI, CMU-MOSEI and CH-SIMS, aligned and unaligned (docs/data.md).

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

from mmsa_lib.data.record import MODALITIES, DatasetRecord, TokenIds
from mmsa_lib.data.sources.columns import (
    MIXED_UP,
    Unusable,
    frames_of,
    has_values,
    is_missing,
    lengths_of,
    names_of,
)
from mmsa_lib.data.sources.folds import Splitting
from mmsa_lib.data.sources.importing import Sets, Source, group_of
from mmsa_lib.data.sources.labels import Part
from mmsa_lib.data.sources.layouts import CATEGORIES, LAYOUTS, Fields, OtherLayout
from mmsa_lib.data.sources.official import known_set
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

VIDEO_OF = r"(?s)(.+)\$_\$.*"
VOCABULARY = {"bert-base-uncased": 30_522, "bert-base-chinese": 21_128}
"""Token ids of the models whose ids the official files hold."""

_CHINESE = re.compile("[\u4e00-\u9fff]")
_Tokens = tuple[np.ndarray, np.ndarray]


def read(
    path: Path | str, name: str, *, task: Task | None = None, label_column: str | None = None, **splitting: Any
) -> DatasetRecord:
    """Read a pickle in the MMSA layout.

    Args:
        path: the file.
        name: name of the data set from now on.
        task: by default sentiment in [-1, 1] where the labels fit and the file shows signs of CH-SIMS, else in [-3, 3]
            where they can be that. Classes are read from ``classification_labels`` or ``annotations``, if the file has
            them.
        label_column: of several numbers per sample the one to take, see :mod:`mmsa_lib.data.sources.labels`.
        splitting: fields of :class:`~mmsa_lib.data.sources.folds.Splitting`, where the file's splits are not taken.

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as the file has them, one fold ``standard``.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a missing field or split, unequal lengths, a label that is NaN or out of
            range, or an id that occurs twice.
    """
    source = Source.of_pickle(path, "mmsa", Splitting(**splitting))
    if not any("id" in fields for fields in source.splits.values()):
        found = ", ".join(next(iter(source.splits.values())).part)
        raise OtherLayout(f"{path}: field 'id' is missing, found {found}; {LAYOUTS['mmsa'].name} has it", "table")
    ids = {split: names_of(fields.take("id"), fields.place("id")) for split, fields in source.splits.items()}
    source.name_samples(ids, [group_of(VIDEO_OF, i) for names in ids.values() for i in names])
    labels = [_labels(fields, ids, task, source.splitting.unlabelled) for fields, ids in source.parts()]
    transcripts, unimodal = source.transcripts(), source.unimodal()
    known = known_set(tuple(map(len, ids.values())))
    sims = known is not None and known.name.startswith("CH-SIMS")
    chinese = sum(bool(_CHINESE.search(text)) for text in transcripts) * 2 > len(transcripts) if transcripts else sims
    model = "bert-base-chinese" if chinese else "bert-base-uncased"
    tokens = _tokens(source, transcripts is not None, model)
    sets = source.features(lambda fields, ids: _read_split(fields, ids, tokens.get(fields.where), source))
    return source.record(
        name,
        source.labels(task, label_column, labels, sims=bool(unimodal) or chinese or sims),
        sets,
        transcripts=transcripts,
        tokens=_joined_tokens(list(tokens.values()), model) if tokens else None,
        unimodal=unimodal,
    )


def _labels(fields: Fields, ids: list[str], task: Task | None, unlabelled: bool) -> Part:
    """The labels of one split that go with ``task``, as the file holds them; nothing where none are needed."""
    if unlabelled and "labels" not in fields:
        return fields.where, None, ids
    others = [key for key in CATEGORIES if key in fields.part]
    if others and task is not None and task.kind == "classes":
        return f"{fields.where} {others[0]}", fields.part.pop(others[0]), ids
    if others and "labels" not in fields:
        missing = f"field 'regression_labels' is missing; to read {others[0]} name the classes (--classes NAME ...)"
        raise DataError(f"{fields.where}: {missing}")
    return fields.place("labels"), fields.take("labels"), ids


def _read_split(fields: Fields, ids: list[str], tokens: _Tokens | None, source: Source) -> Sets:
    """The feature sets that one split has."""
    found: Sets = {}
    lengths = tokens[1].sum(axis=1) if tokens else None
    steps = tokens[1].shape[1] if tokens else 0
    for modality in MODALITIES:
        key, place = f"{modality}_lengths", fields.place(modality)
        lacking = [split for split, other in source.splits.items() if key not in other and modality in other]
        if 0 < len(lacking) < len(source.splits) and source.splits[lacking[0]] is fields:
            fields.leave_out(key, f"missing in {' and '.join(lacking)}, where the frames that are not zero count")
        if modality not in fields:
            continue
        frames = frames_of(fields.take(modality), ids, place)
        given = fields.take(key) if key in fields else None
        own = lengths_of(given, len(ids), fields.place(key)) if has_values(given) else None
        if own is None and key in fields:
            fields.leave_out(key, "no values")
        aligned = isinstance(frames, np.ndarray) and lengths is not None and own is None and frames.shape[1] == steps
        level = "token" if aligned or modality == "text" else "frame"
        chosen = lengths if aligned else own
        found[modality] = source.feature_set(fields, ids, modality, frames, level, lengths=chosen)
        if modality == "text" and lengths is None and isinstance(frames, np.ndarray) and frames.shape[1] > 1:
            lengths, steps = found["text"].lengths, frames.shape[1]  # aligned files without token ids
    return found


def _tokens(source: Source, has_text: bool, model: str) -> dict[str, _Tokens]:
    """Token ids and masks of each place; where there is other text, unusable ones are left out, with the reason."""
    there = [(fields, ids) for fields, ids in source.parts() if "text_bert" in fields]
    lacking = [split for split, fields in source.splits.items() if "text_bert" not in fields]
    raw = [(fields.where, fields.take("text_bert"), ids, fields.place("text_bert")) for fields, ids in there]
    try:
        if lacking and there:
            raise Unusable(f"missing in split {lacking[0]}")
        return {where: _token_ids(values, ids, place, model, source.repairs) for where, values, ids, place in raw}
    except Unusable as error:
        if not has_text and not all("text" in fields for fields in source.splits.values()):
            raise DataError(f"{raw[0][-1]}: {error}") from None
        there[0][0].leave_out("text_bert", str(error))
        return {}


def _token_ids(raw: Any, ids: list[str], place: str, model: str, repairs: Repairs) -> _Tokens:
    """Token ids and mask, ``(N, L)`` each, from ``text_bert`` of any numeric type; ``Unusable`` says what is wrong.

    ``(N, 3, L)`` holds ids, mask and segments in rows; ``(N, L, 3)``, as older releases of MMSA-FET write it, in
    columns. Which of the two an array is, is seen from its shape, or where ``L`` is 3 from the mask being 0 and 1.
    """
    if is_missing(raw):
        raise Unusable("no values")
    try:
        array = raw if isinstance(raw, np.ndarray) else np.asarray(raw)
    except ValueError:
        raise Unusable("unequal lengths, expected numbers (N, 3, L)") from None
    if array.ndim != 3 or array.dtype.kind not in "biuf" or 3 not in array.shape[1:]:
        raise Unusable(f"shape {array.shape} and type {array.dtype}, expected numbers ({len(ids)}, 3, L)")
    if len(array) != len(ids):
        raise DataError(f"{place}: {len(array)} rows for {len(ids)} samples; {MIXED_UP}")
    if array.shape[1] != 3 or (array.shape[2] == 3 and not _is_masked(array)):
        array = array.transpose(0, 2, 1)
        repairs.count("text_bert: samples (L, 3), read as (3, L)", len(ids))
    if not _is_masked(array):
        raise Unusable("expected token ids, a mask of 0 and 1, and segment ids; the file is damaged")
    tokens, mask = array[:, 0], array[:, 1]
    if tokens.max(initial=0) >= VOCABULARY[model]:
        largest = f"token id {tokens.max():g} is none of the {VOCABULARY[model]} of {model}"
        raise Unusable(f"{largest}; ids of other models can't be used")
    if not mask.any():
        raise Unusable("no sample has a valid token")
    order = np.argsort(mask == 0, axis=1, kind="stable")  # valid tokens first, in their order
    tokens, mask = np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1)
    repairs.count("text_bert: samples without a valid token, text missing", (~mask.any(axis=1)).sum())
    return np.where(mask == 1, tokens, 0).astype(np.int64), mask == 1


def _is_masked(array: np.ndarray) -> bool:
    """Whether ``(N, 3, L)`` holds whole numbers from 0 up, and a mask of 0 and 1 in its second row."""
    tokens, mask = array[:, 0], array[:, 1]
    return bool(np.isin(mask, (0, 1)).all() and (tokens >= 0).all() and (tokens == np.floor(tokens)).all())


def _joined_tokens(parts: list[_Tokens], model: str) -> TokenIds:
    """The splits below each other, padded to the longest."""
    longest = max(ids.shape[1] for ids, _ in parts)
    ids, valid = (
        np.concatenate([np.pad(part[i], ((0, 0), (0, longest - part[i].shape[1]))) for part in parts]) for i in (0, 1)
    )
    return TokenIds(ids=ids, valid=valid, model=model)
