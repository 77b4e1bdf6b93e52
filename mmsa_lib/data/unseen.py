"""Samples that a method has not seen, made into what it was trained on: its scaling, its text model, its widths."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch.linalg import vector_norm

from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.data.loading import batch_of, pad_splits
from mmsa_lib.data.record import COMPUTED_TEXT, DatasetRecord, FeatureSet
from mmsa_lib.data.scaling import Preparation, Scaling
from mmsa_lib.data.stream import StreamedUtterances
from mmsa_lib.data.task import Task
from mmsa_lib.data.text import compute_text, text_model_fingerprint
from mmsa_lib.data.validate import is_sound, refuse_problems
from mmsa_lib.errors import DataError

log = logging.getLogger(__name__)

FAR_MEAN, FAR_RMS = 10, 30
"""Mean of absolute scaled values, and their root mean square, from which a sample is far from the training samples.

The mean square of the training frames is 1 (less with constant columns). So at most one of them in 100 has a mean of
10, and one in 900 a root mean square of 30, however they are distributed (Markov's inequality). The first tells other
units or another extractor, the second a single column that ran away. Samples of the public sets that no training saw
reach 6.1 and 22.4 (CMU-MOSI, whose sound has such columns), generated ones 1.7 and 2.1.
"""


def prepare(record: DatasetRecord, how: Preparation, dims: Mapping[Modality, int], task: Task) -> Utterances:
    """The samples of ``record`` for a method of these ``dims``; labels are left out and never needed.

    A modality that a sample lacks gets frames that are not observed: one, or as many as another modality has where the
    method was trained on aligned frames.

    Args:
        record: samples, whatever their labels and folds; begins messages by its name.
        how: what was done to the training samples.
        dims: feature width of each modality that the method reads.
        task: what it predicts.

    Raises:
        DataError: features are of another width or not finite, a sample has nothing that the method reads, or the text
            model is not that of the training.
    """
    rows, sets, tokens = np.arange(len(record)), {}, None
    for modality, width in dims.items():
        sets[modality] = _stored(record, modality, how.features.get(modality, ""), width)
        if sets[modality] is None and how.features.get(modality) in COMPUTED_TEXT:
            sets[modality], tokens = _computed(record, how)
        elif sets[modality] is None:
            if modality == "text" and record.transcripts:
                log.warning(f"{record.name}: the method reads text features {width} wide, not texts; text is missing")
            absent = np.zeros((len(record), width), np.float32)
            sets[modality] = FeatureSet(
                modality, absent, np.ones(len(rows), np.int64), np.zeros(len(rows), bool), "frame"
            )
    features = {m: pad_splits(found, {"": rows}, how.scaling.get(m))[""] for m, found in sets.items()}
    unlabelled = replace(record, labels=np.full(len(rows), np.nan, np.float32), unimodal_labels={})
    data = Utterances(
        batch_of(unlabelled, rows, sets, features, tokens), task, record.name, groups=tuple(record.groups),
        feature_names={m: how.features.get(m, "") for m in dims}, transcripts=tuple(record.transcripts or ()),
        text_model=how.text_model, preparation=how,
    )  # fmt: skip
    refuse_nothing(data, "; give one of them, or another run")
    return _as_long_as_others(data) if how.aligned and tokens is None else data


def _stored(record: DatasetRecord, modality: Modality, name: str, width: int) -> FeatureSet | None:
    """The features of a modality that fit; ``None`` where they are absent, or computed from texts that are there."""
    texts = record.transcripts is not None or record.token_ids is not None
    if name == "tokens" or (name in COMPUTED_TEXT and texts):
        return None
    found = {key: features for key, features in record.features.items() if features.modality == modality}
    fitting = {key: features for key, features in found.items() if features.width == width}
    usual = record.defaults.get("*", {}).get(modality)
    chosen = next((key for key in (name, usual, *fitting) if key in fitting), None)
    if chosen is None and found:
        widths = " and ".join(str(features.width) for features in found.values())
        raise DataError(
            f"{record.name}: {modality} features are {widths} wide (first sample {record.ids[0]!r}), and the run reads "
            f"{width}; give features of the extractor that the run was trained on"
        )
    if chosen is not None and not is_sound(fitting[chosen].values[:], fitting[chosen].observed):
        refuse_problems(record, record.name)
    return fitting.get(chosen)


def _computed(record: DatasetRecord, how: Preparation) -> tuple:
    """Text features, and token ids where the method reads these, by the text model of the training."""
    kind = how.features["text"]
    if how.text_fingerprint and text_model_fingerprint(how.text_model) != how.text_fingerprint:
        raise DataError(
            f"text model {how.text_model!r} on this machine is not the one that the run was trained with; install the "
            "version that its environment.json names"
        )
    if record.transcripts is None and record.token_ids is None:
        record = replace(record, transcripts=[""] * len(record))
    if kind == "timed_words" and record.words is None:
        log.warning(f"{record.name}: words have no times; all words of the texts are read")
        kind = "words"
    features, tokens, _ = compute_text(record, kind, how.text_model, how.max_length)
    return features, tokens


def refuse_nothing(data: Utterances, remedy: str = "") -> None:
    """Raise where a sample has no observed frame in any modality; names it."""
    seen = torch.stack([data.data.observed[m].any(-1) for m in data.modalities]).any(0)
    if not seen.all():
        first = data.ids[int((~seen).nonzero()[0])]
        some = " or ".join(data.modalities)
        raise DataError(
            f"{data.name}: sample {first!r} has no {some} to predict from ({int((~seen).sum())} of {len(data)} "
            f"samples; an empty text counts as none){remedy}"
        )


def _as_long_as_others(data: Utterances) -> Utterances:
    """The same with as many frames in a modality that a sample lacks as in the first one that it has."""
    batch, count = data.data, torch.zeros(len(data), dtype=torch.int64)
    for modality in data.modalities:
        here = batch.observed[modality].any(-1)
        count = torch.where((count == 0) & here, data.lengths(modality), count)
    features, valid, observed = dict(batch.features), dict(batch.valid), dict(batch.observed)
    for modality in data.modalities:
        lacking = ~batch.observed[modality].any(-1)
        more = max(0, int(count[lacking].max()) - valid[modality].shape[1]) if lacking.any() else 0
        features[modality] = torch.nn.functional.pad(features[modality], (0, 0, 0, more))
        observed[modality] = torch.nn.functional.pad(observed[modality], (0, more))
        own = torch.nn.functional.pad(valid[modality], (0, more))
        filled = torch.arange(own.shape[1]) < count[:, None]
        valid[modality] = torch.where(lacking[:, None], filled, own)
    return replace(data, data=replace(batch, features=features, valid=valid, observed=observed))


def switched_off(data: Utterances, modalities: Collection[Modality], aligned: bool) -> Utterances:
    """``data`` as if its samples had none of ``modalities``: frames that are not observed, as many as :func:`prepare`
    gives to a sample that lacks them."""
    batch = data.data
    hidden = data.hide({m: torch.zeros_like(batch.valid[m]) for m in modalities})
    if aligned:
        return hidden
    valid, tokens = dict(batch.valid), hidden.data.tokens
    for modality in modalities:
        had, of_tokens = batch.observed[modality].any(-1, keepdim=True), modality == "text" and tokens is not None
        kept = 2 if of_tokens else 1  # an opening and a closing token are what an empty text has
        if of_tokens:
            closing = tokens.gather(1, data.lengths("text")[:, None] - 1)
            tokens = torch.where(had & (torch.arange(tokens.shape[1]) == 1), closing, tokens)
        valid[modality] = valid[modality] & ~(had & (torch.arange(valid[modality].shape[1]) >= kept))
    return replace(hidden, data=replace(hidden.data, valid=valid, tokens=tokens))


def rescaled(data: Utterances, how: Preparation) -> Utterances:
    """Loaded ``data`` with the scaling of a run in place of its own.

    Raises:
        DataError: its text was computed in another way.
    """
    own = data.preparation or Preparation({})
    text = data.feature_names.get("text")
    if "text" in how.features and text in COMPUTED_TEXT:
        asked = (how.features["text"], how.text_model, how.max_length)
        found = (text, data.text_model, own.max_length or how.max_length)
        if asked != found:
            raise DataError(f"text of {data.name} is {found}, and the run reads {asked}; load it with these options")
    features, stored = dict(data.data.features), dict(getattr(data, "stored", {}))
    for modality in data.modalities:
        was, now = own.scaling.get(modality), how.scaling.get(modality)
        if _same(was, now):
            continue
        if modality in stored:
            stored[modality] = replace(stored[modality], scaling=now)
            continue
        values, observed = features[modality].numpy(), data.data.observed[modality].numpy()
        if was is not None:
            values = (values * was.scale + was.mean) * observed[..., None]
        features[modality] = torch.from_numpy(values if now is None else now.apply(values, observed))
    changed = {"data": replace(data.data, features=features), "preparation": how}
    return replace(data, **changed, **({"stored": stored} if isinstance(data, StreamedUtterances) else {}))


def _same(one: Scaling | None, other: Scaling | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one.mean, other.mean) and np.array_equal(one.scale, other.scale)


def far_off(data: Utterances, modalities: Collection[Modality]) -> dict[Modality, np.ndarray]:
    """Per modality that is scaled, root mean square ``(N,)`` of the scaled values of samples that are far; 0 of others.

    It is a distance from the mean of the training frames in their standard deviations. Frames that are missing, or zero
    before scaling (silence, no face), do not count.
    """
    found = {m: np.zeros(len(data)) for m in data.modalities if m in modalities and m in data.preparation.scaling}
    for batch in data.batches(64) if found else ():
        for modality, away in found.items():
            scaling, values = data.preparation.scaling[modality], batch.features[modality]
            zero = torch.from_numpy(-scaling.mean / scaling.scale)
            counted = batch.observed[modality] & ~torch.isclose(values, zero, rtol=1e-3, atol=1e-3).all(-1)
            mean = vector_norm(values, 1, dim=-1).double() / len(zero)
            square = vector_norm(values, 2, dim=-1).double().square() / len(zero)
            count = counted.sum(-1).clamp(min=1)
            mean, square = (torch.where(counted, x, 0).sum(-1) / count for x in (mean, square))
            far = (mean >= FAR_MEAN) | (square.sqrt() >= FAR_RMS)
            away[batch.index.numpy()] = torch.where(far, square.sqrt(), 0).numpy()
    return found
