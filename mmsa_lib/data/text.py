"""Transcripts to token ids and to frozen token, word and sentence features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmsa_lib.data.text_models import (
    DEFAULT_TEXT_MODEL,
    load_text_model,
    load_tokenizer,
    resolve_text_model,
    special_tokens,
    text_model_fingerprint,
)
from mmsa_lib.errors import ConfigError

__all__ = [
    "DEFAULT_TEXT_MODEL",
    "load_text_model",
    "load_tokenizer",
    "resolve_text_model",
    "special_tokens",
    "text_model_fingerprint",
    "tokenize",
]


def tokenize(
    transcripts: Sequence[str], model: str = DEFAULT_TEXT_MODEL, max_length: int = 64
) -> tuple[Tensor, Tensor]:
    """Token ids of transcripts, special tokens included; upper and lower case are the tokenizer's business.

    Args:
        transcripts: ``N`` texts; an empty one becomes its special tokens alone.
        model: text model whose vocabulary is used.
        max_length: longest sequence in tokens; what goes beyond is cut, the closing special token is kept.

    Returns:
        ``(ids, valid)``, both ``(N, L)``, int64 and bool, right-padded; ``L`` is the longest sequence.

    Raises:
        ConfigError: ``max_length`` is too small or beyond what the model can take.
        DataError: the model can't be found.
    """
    tokenizer = load_tokenizer(model)
    longest = tokenizer.model_max_length
    if not 3 <= max_length <= longest:
        raise ConfigError(f"max_length must lie between 3 and {longest} tokens for {model}, got {max_length}")
    rows = tokenizer(list(transcripts), truncation=True, max_length=max_length)["input_ids"] if transcripts else []
    lengths = torch.tensor([len(row) for row in rows])
    padding, _ = special_tokens(model)
    ids = torch.full((len(rows), int(lengths.max()) if rows else 0), padding, dtype=torch.int64)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = torch.tensor(values)
    return ids, torch.arange(ids.shape[1]) < lengths.unsqueeze(-1)
