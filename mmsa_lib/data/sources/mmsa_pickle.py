"""The pickles of MMSA and Self-MM: CMU-MOSI, CMU-MOSEI and CH-SIMS, aligned and unaligned (data.md, section 5.1).

Per split a dict with ``id`` (``video$_$clip``), ``regression_labels``, and any of ``raw_text``, ``text`` ``(N, L, d)``,
``text_bert`` ``(N, 3, L)`` (token ids, mask, segment ids), ``audio`` ``(N, T, d)``, ``vision``, ``audio_lengths``,
``vision_lengths``; CH-SIMS adds ``regression_labels_T``, ``_A``, ``_V``. Which frames are valid:

- text: where the mask of ``text_bert`` says so; without it, the span of the frames that are not zero;
- audio and vision: by their length field; where there is none and the array is as long as the text, they are aligned
  and the text's lengths hold; else the span of the frames that are not zero.

Padding may be on either side. ``annotations`` and ``classification_labels`` are not read: categories follow from the
labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.batch import MODALITIES, Modality
from mmsa_lib.data.record import DatasetRecord, FeatureSet, TokenIds
from mmsa_lib.data.sources.frames import features, joined, placed, present_frames, spanned
from mmsa_lib.data.sources.layouts import SPLIT_NAMES, check_sizes, column, frames_array, splits_of, take, texts
from mmsa_lib.data.sources.official import USER_TERMS, identify, known_set
from mmsa_lib.data.sources.repairs import Repairs, check_ids, sentiment_labels, sentiment_task
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

UNIMODAL = {"text": "T", "audio": "A", "vision": "V"}
_CHINESE = re.compile("[\u4e00-\u9fff]")
_DESCRIPTIONS: dict[Modality, str] = {
    "text": "text features of the file (BERT states in the official files)",
    "audio": "audio features of the file",
    "vision": "vision features of the file",
}


def read(path: Path | str, name: str, *, task: Task | None = None) -> DatasetRecord:
    """Read a pickle in the MMSA layout.

    Args:
        path: the file.
        name: name of the data set from now on.
        task: the regression task; by default [-1, 1] where the labels fit and the file shows signs of CH-SIMS, else
            [-3, 3].

    Returns:
        Feature sets ``text``, ``audio`` and ``vision`` as far as the file has them, one fold ``standard``.

    Raises:
        UnsafePickleError: the pickle asks for anything but plain data.
        DataError: another layout (named), a missing field or split, unequal lengths, a label that is NaN or out of
            range, or an id that occurs twice.
    """
    path = Path(path)
    splits = splits_of(load(path), "mmsa", path)
    repairs = Repairs()
    ids = {split: _ids(splits[split], f"{path} [{split}]") for split in SPLIT_NAMES}
    sizes = tuple(len(ids[split]) for split in SPLIT_NAMES)
    check_sizes(sizes, path)
    parts = [_read_split(splits[split], ids[split], f"{path} [{split}]", repairs) for split in SPLIT_NAMES]
    all_ids, standard = [i for split in SPLIT_NAMES for i in ids[split]], np.repeat(list(SPLIT_NAMES), sizes)
    check_ids(all_ids, standard.tolist(), str(path))

    carried = _fields_of_all(parts, path)
    sets = {m: joined([part[m] for part in parts], f"{path}: {m}") for m in MODALITIES if m in carried}
    transcripts = [t for part in parts for t in part["raw_text"]] if "raw_text" in carried else None
    labels = np.concatenate([part["labels"] for part in parts])
    unimodal = {
        m: np.concatenate([part[f"labels_{m}"] for part in parts]) for m in UNIMODAL if f"labels_{m}" in carried
    }
    known, chinese = known_set(sizes), _is_chinese(transcripts)
    sims = bool(unimodal) or chinese or (known is not None and known.name.startswith("CH-SIMS"))
    chosen, remark = sentiment_task(labels, all_ids, str(path), task=task, sims=sims)
    tokens = None
    if "tokens" in carried:
        tokens = _tokens([part["tokens"] for part in parts], "bert-base-chinese" if chinese else "bert-base-uncased")
    text = "text" if "text" in sets else "tokens" if tokens else "words" if transcripts else None
    if not sets and text is None:
        raise DataError(f"{path}: has none of text, text_bert, raw_text, audio, vision; there is nothing to learn from")
    source, remarks = identify(path, sizes)
    return DatasetRecord(
        name=name,
        task=chosen,
        ids=all_ids,
        groups=[video_of(i) for i in all_ids],
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
        notes=[*remarks, remark, *([f"sizes are those of {known.name}"] if known else [])],
    )


def video_of(name: str) -> str:
    """The video of ``video$_$clip``; an id of another form is a group of its own."""
    return name.rpartition("$_$")[0] or name


def _ids(part: dict[str, Any], where: str) -> list[str]:
    return texts(take(part, "id", where, "mmsa"))


def _read_split(part: dict[str, Any], ids: list[str], where: str, repairs: Repairs) -> dict[str, Any]:
    """The fields of one split that the file has, under the names used in :func:`read`."""
    count = len(ids)
    raw = take(part, "regression_labels", where, "mmsa")
    found: dict[str, Any] = {"labels": sentiment_labels(raw, ids, f"{where} regression_labels", repairs)}
    for modality, letter in UNIMODAL.items():
        key = f"regression_labels_{letter}"
        if key in part:
            found[f"labels_{modality}"] = sentiment_labels(part.pop(key), ids, f"{where} {key}", repairs)
    if "raw_text" in part:
        found["raw_text"] = column(part.pop("raw_text"), count, f"{where} raw_text")
    if "text_bert" in part:
        found["tokens"] = _token_ids(part.pop("text_bert"), ids, f"{where} text_bert")
    lengths = found["tokens"][1].sum(axis=1) if "tokens" in found else None
    steps = found["tokens"][1].shape[1] if "tokens" in found else 0
    for modality in MODALITIES:
        if modality in part:
            array = frames_array(part.pop(modality), count, f"{where} {modality}")
            own = _lengths(part, modality, count, where)
            is_text = modality == "text"
            aligned = lengths is not None and own is None and array.shape[1] == steps
            found[modality] = _features(array, lengths if aligned else own, aligned or is_text, modality, repairs)
            if is_text and lengths is None and array.shape[1] > 1:
                lengths, steps = found["text"].lengths, array.shape[1]  # aligned files without token ids
    return found


def _features(
    array: np.ndarray, lengths: np.ndarray | None, as_text: bool, modality: Modality, repairs: Repairs
) -> FeatureSet:
    """The valid frames of one modality; ``as_text``: one frame per text token."""
    level = "utterance" if array.shape[1] == 1 else "token" if as_text else "frame"
    present = present_frames(array)
    valid = spanned(present, modality, repairs) if lengths is None else placed(present, lengths, modality, repairs)
    return features(array, valid, modality=modality, level=level, repairs=repairs, description=_DESCRIPTIONS[modality])


def _lengths(part: dict[str, Any], modality: Modality, count: int, where: str) -> np.ndarray | None:
    key = f"{modality}_lengths"
    if key not in part:
        return None
    try:
        lengths = np.asarray(part.pop(key)).reshape(-1).astype(np.int64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} {key}: not a list of whole numbers ({error}); mend or remove it") from error
    if len(lengths) != count or (lengths < 0).any():
        raise DataError(
            f"{where} {key}: {len(lengths)} lengths, smallest {lengths.min(initial=0)}, for {count} samples"
        )
    return lengths


def _token_ids(raw: Any, ids: list[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask, ``(N, L)`` each, from ``text_bert`` ``(N, 3, L)`` of any numeric type."""
    array = raw if isinstance(raw, np.ndarray) else np.asarray(raw)
    if array.ndim != 3 or array.shape[1] != 3 or len(array) != len(ids) or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: shape {array.shape} and type {array.dtype}, expected numbers ({len(ids)}, 3, L)")
    tokens, mask = array[:, 0], array[:, 1]
    if not np.isin(mask, (0, 1)).all() or (tokens < 0).any() or (tokens != np.floor(tokens)).any():
        raise DataError(f"{where}: expected token ids, a mask of 0 and 1, and segment ids; the file is damaged")
    order = np.argsort(mask == 0, axis=1, kind="stable")  # valid tokens first, in their order
    tokens, mask = np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1)
    empty = np.flatnonzero(~mask.any(axis=1))
    if len(empty):
        raise DataError(f"{where}: sample {ids[empty[0]]!r} has no valid token, not even [CLS]; remove the sample")
    return np.where(mask == 1, tokens, 0).astype(np.int64), mask == 1


def _tokens(parts: list[tuple[np.ndarray, np.ndarray]], model: str) -> TokenIds:
    """The splits below each other, padded to the longest."""
    longest = max(ids.shape[1] for ids, _ in parts)
    ids, valid = (
        np.concatenate([np.pad(part[i], ((0, 0), (0, longest - part[i].shape[1]))) for part in parts]) for i in (0, 1)
    )
    return TokenIds(ids=ids, valid=valid, model=model)


def _fields_of_all(parts: list[dict[str, Any]], path: Path) -> set[str]:
    """Fields that the splits have; all must have the same ones."""
    for key in sorted(set().union(*parts)):
        lacking = [split for split, part in zip(SPLIT_NAMES, parts, strict=True) if key not in part]
        if lacking:
            field = {"tokens": "text_bert"}.get(key, key)
            raise DataError(f"{path}: field {field!r} is missing in split {lacking[0]} and present in another one")
    return set(parts[0])


def _is_chinese(transcripts: list[str] | None) -> bool:
    """Whether most transcripts hold Chinese characters."""
    if not transcripts:
        return False
    return sum(bool(_CHINESE.search(text)) for text in transcripts) * 2 > len(transcripts)
