"""Ragged arrays to right-padded tensors, and tokens as a feature set of width 0."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import BERT_UNKNOWN
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.scaling import Scaling
from mmsa_lib.data.text import special_tokens, tokenize, words_of
from mmsa_lib.errors import DataError


def masks(features: FeatureSet, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """``valid`` and ``observed`` of samples ``rows``, both ``(n, T)`` bool; ``T`` is the longest of them."""
    lengths = features.lengths[rows]
    valid = np.arange(lengths.max(initial=1)) < lengths[:, None]
    observed = np.zeros_like(valid)
    observed[valid] = features.observed[_frames_of(features, rows)]
    return torch.from_numpy(valid), torch.from_numpy(observed)


def pad(features: FeatureSet, rows: np.ndarray, scaling: Scaling | None = None) -> Tensor:
    """Frames of samples ``rows``, ``(n, T, d)`` float32, zeros at padding and at missing frames."""
    frames = _frames_of(features, rows)
    values = features.values[frames]
    lengths = features.lengths[rows]
    valid = np.arange(lengths.max(initial=1)) < lengths[:, None]
    padded = np.zeros((*valid.shape, features.width), dtype=np.float32)
    padded[valid] = values if scaling is None else scaling.apply(values, features.observed[frames])
    return torch.from_numpy(padded)


def _frames_of(features: FeatureSet, rows: np.ndarray) -> np.ndarray:
    """Rows of ``values`` that samples ``rows`` hold, one sample after the other."""
    lengths = features.lengths[rows]
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    return np.repeat(features.offsets[rows], lengths) + within


@dataclass(frozen=True)
class Tokens:
    """Token ids of a whole data set.

    Attributes:
        ids: ``(N, L)`` int64.
        frames: lengths and observed tokens, as a feature set of width 0.
        unknown: id that stands for a missing token.
    """

    ids: Tensor
    frames: FeatureSet
    unknown: int


def load_tokens(record: DatasetRecord, model: str, max_length: int) -> Tokens:
    """The ready-made token ids of ``record`` if they are those of ``model``, else its transcripts in tokens.

    A sample without words has its special tokens, and they are not observed.

    Raises:
        DataError: there is nothing to tokenise, or the model can't be found.
    """
    ready = record.token_ids
    if ready is not None and ready.model in (model, Path(model).name):  # by its name, or in a folder of that name
        ids, valid = _shorten(torch.as_tensor(ready.ids).long(), torch.as_tensor(ready.valid).bool(), max_length)
        spoken = (valid.sum(-1) > 2).numpy()  # more than the opening and the closing token
        # The official files hold ids of BERT vocabularies, so that their unknown token is known without the model.
        unknown = BERT_UNKNOWN if model.startswith("bert-") else special_tokens(model)[1]
    else:
        texts = transcripts_of(record)
        ids, valid = tokenize(texts, model, max_length)
        spoken = np.array([bool(words_of(text)) for text in texts])
        unknown = special_tokens(model)[1]
    valid[:, 0] = True
    lengths = valid.sum(-1).numpy()
    frames = FeatureSet(
        modality="text",
        values=np.zeros((int(lengths.sum()), 0), dtype=np.float32),
        lengths=lengths,
        observed=np.repeat(spoken, lengths),
        level="token",
    )
    return Tokens(ids, frames, unknown)


def transcripts_of(record: DatasetRecord) -> list[str]:
    """The transcripts of a data set.

    Raises:
        DataError: it has none.
    """
    if record.transcripts is None:
        if record.token_ids is not None:
            model = record.token_ids.model
            raise DataError(
                f"{record.name} has no transcripts to compute text from, only token ids of {model}; train an encoder "
                f"on them with --set text_encoder=bert text_model={model} (offline: text_model=FOLDER/{model})"
            )
        raise DataError(f"{record.name} has no transcripts to compute text from; choose stored text features")
    return record.transcripts


def timed_transcripts_of(record: DatasetRecord) -> list[str]:
    """The words with times of each sample, joined by blanks: what was heard, word by word as the timing features.

    Raises:
        DataError: the data set has no words with times.
    """
    if record.words is None:
        raise DataError(f"{record.name} has no words with times; choose text='words' or stored text features")
    spelled, ends = ["".join(str(word).split()) for word in record.words.word], record.words.offset
    return [" ".join(spelled[first:last]) for first, last in pairwise(ends)]


def check_one_frame_per_word(features: FeatureSet, record: DatasetRecord, max_length: int) -> None:
    """Refuse text features that are not word by word those of ``record.words``.

    Raises:
        DataError: a sample has more or fewer frames than words; names it.
    """
    expected = np.diff(record.words.offset).clip(min=1)
    wrong = np.flatnonzero(features.lengths != expected)
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{len(wrong)} samples of {record.name} lose words with max_length={max_length} (first "
            f"{record.ids[row]!r}: {int(expected[row])} words, {int(features.lengths[row])} frames), so text would not "
            "be aligned with the timing; raise max_length"
        )


def _shorten(ids: Tensor, valid: Tensor, max_length: int) -> tuple[Tensor, Tensor]:
    """Cut right-padded ids ``(N, L)`` to ``max_length``; the closing token is kept."""
    lengths = valid.sum(-1)
    long = (lengths > max_length).nonzero().squeeze(-1)
    ids = ids.clone()
    if len(long):
        ids[long, max_length - 1] = ids[long, lengths[long] - 1]
    return ids[:, :max_length], valid[:, :max_length].clone()
