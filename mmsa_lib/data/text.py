"""Transcripts to token ids, and to frozen word and sentence features that are computed once and cached."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmsa_lib.data.record import FeatureSet, Level
from mmsa_lib.data.text_cache import cache_key, cached_features
from mmsa_lib.data.text_models import (
    DEFAULT_TEXT_MODEL,
    load_text_model,
    load_tokenizer,
    longest_input,
    resolve_text_model,
    special_tokens,
    text_model_fingerprint,
)
from mmsa_lib.errors import ConfigError
from mmsa_lib.threads import cpu_threads

__all__ = [
    "DEFAULT_TEXT_MODEL",
    "load_text_model",
    "load_tokenizer",
    "longest_input",
    "resolve_text_model",
    "sentence_features",
    "special_tokens",
    "text_model_fingerprint",
    "tokenize",
    "word_features",
    "words_of",
]

log = logging.getLogger(__name__)

_BATCH = 64  # transcripts per forward pass (the recipe of data.md, section 6)
_WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")


def words_of(transcript: str) -> list[tuple[int, int]]:
    """Start and end of each word in characters: what stands between blanks, and each Chinese character by itself.

    >>> words_of("it's 很好")
    [(0, 4), (5, 6), (6, 7)]
    """
    return [match.span() for match in _WORD.finditer(transcript)]


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
    return _pad(_encode(transcripts, model, max_length)["input_ids"], special_tokens(model)[0])


def word_features(transcripts: Sequence[str], model: str = DEFAULT_TEXT_MODEL, max_length: int = 64) -> FeatureSet:
    """Frozen contextual word vectors: token states of the encoder, averaged over the sub-words of each word.

    Recipe of data.md, section 2.5. The transcript is encoded as a whole, so each word is seen in its context. Words
    that ``max_length`` cuts off are counted in a warning; of a word that is cut in the middle the tokens that are left
    count. A word that the tokenizer drops (control characters) gives no frame.

    Args:
        transcripts: ``N`` texts. One without any word gets a single zero frame that is not observed.
        model: text model.
        max_length: longest sequence in tokens, special tokens included.

    Returns:
        Level ``word``; one float32 row per word, words of all samples one after the other.

    Raises:
        ConfigError: ``max_length`` is out of range.
        DataError: the model can't be found or loaded.
    """
    return _cached("word", transcripts, model, max_length)


def sentence_features(transcripts: Sequence[str], model: str = DEFAULT_TEXT_MODEL, max_length: int = 64) -> FeatureSet:
    """Frozen sentence vectors: the mean over all token states, special tokens included (MiniLM's own pooling).

    Arguments and errors as in :func:`word_features`. Level ``utterance``: one float32 row per sample; zero and not
    observed where the transcript has no word.
    """
    return _cached("utterance", transcripts, model, max_length)


def _cached(level: Level, transcripts: Sequence[str], model: str, max_length: int) -> FeatureSet:
    key = cache_key(
        transcripts,
        model=text_model_fingerprint(model),
        level=level,
        max_length=max_length,
        code=_code_fingerprint(),
    )
    return cached_features(key, lambda: _compute(level, transcripts, model, max_length))


@cache
def _code_fingerprint() -> str:
    """Hash of this file: features computed by other code are not reused."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _compute(level: Level, transcripts: Sequence[str], model: str, max_length: int) -> FeatureSet:
    encoded = _encode(transcripts, model, max_length)
    words = [_word_of_token(text, spans) for text, spans in zip(transcripts, encoded["offset_mapping"], strict=True)]
    pool = _mean_per_word if level == "word" else _mean_of_all
    encoder = load_text_model(model)
    rows = _run(encoder, encoded["input_ids"], words, special_tokens(model)[0], pool)
    empty = np.zeros((1, encoder.config.hidden_size), dtype=np.float32)
    lengths = np.array([max(1, len(row)) for row in rows], dtype=np.int64)
    cut = _count_cut(transcripts, words, max_length) if level == "word" else ""
    if cut:
        log.warning("%s", cut)
    return FeatureSet(
        modality="text",
        values=np.concatenate([row if len(row) else empty for row in rows] or [empty[:0]]),
        lengths=lengths,
        observed=np.repeat(np.array([len(row) > 0 for row in rows], dtype=bool), lengths),
        level=level,
        description=f"{model}, frozen, mean over the tokens of each {'word' if level == 'word' else 'transcript'}"
        + (f"; {cut}" if cut else ""),
    )


def _encode(transcripts: Sequence[str], model: str, max_length: int) -> dict[str, list]:
    """Token ids and character spans of each transcript, not padded."""
    tokenizer = load_tokenizer(model)
    longest = longest_input(model)
    if not 3 <= max_length <= longest:
        raise ConfigError(f"max_length must lie between 3 and {longest} tokens for {model}, got {max_length}")
    if not transcripts:
        return {"input_ids": [], "offset_mapping": []}
    return dict(tokenizer(list(transcripts), truncation=True, max_length=max_length, return_offsets_mapping=True))


def _pad(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Rows of different length as ``(N, L)`` int64, and the mask of what is not padding."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    padded = torch.full((len(rows), max(map(len, rows), default=0)), fill, dtype=torch.int64)
    for position, row in enumerate(rows):
        padded[position, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return padded, torch.arange(padded.shape[1]) < lengths.unsqueeze(-1)


def _word_of_token(transcript: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """For each token the position of the word that its last character lies in; -1 for special tokens and blanks."""
    word_at = {place: number for number, (start, end) in enumerate(words_of(transcript)) for place in range(start, end)}
    return [word_at.get(end - 1, -1) if end > start else -1 for start, end in spans]


def _run(
    encoder: nn.Module,
    tokens: Sequence[Sequence[int]],
    words: Sequence[Sequence[int]],
    padding: int,
    pool: Callable[[Tensor, Tensor], Tensor],
) -> list[np.ndarray]:
    """Pooled states of each transcript; texts of similar length share a forward pass, so little is spent on padding."""
    from tqdm.auto import tqdm

    order = sorted(range(len(tokens)), key=lambda sample: len(tokens[sample]))
    rows: list[np.ndarray] = [np.empty(0)] * len(tokens)
    hidden = not sys.stderr.isatty()
    bar = tqdm(total=len(tokens), desc="text features", disable=hidden, file=sys.stderr)
    with cpu_threads(1), torch.inference_mode(), bar:  # another number of threads gives other last bits
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            ids, valid = _pad([tokens[sample] for sample in chosen], padding)
            states = encoder(input_ids=ids, attention_mask=valid.long()).last_hidden_state
            for sample, state in zip(chosen, states, strict=True):
                rows[sample] = pool(state[: len(words[sample])], torch.tensor(words[sample])).numpy()
            bar.update(len(chosen))
    return rows


def _mean_per_word(states: Tensor, words: Tensor) -> Tensor:
    """``(L, d)`` token states and ``(L,)`` word numbers to one mean per word that has tokens, in order."""
    present, position = words[words >= 0].unique(return_inverse=True)
    sums = torch.zeros(len(present), states.shape[1]).index_add_(0, position, states[words >= 0])
    return sums / position.bincount(minlength=len(present)).unsqueeze(-1)


def _mean_of_all(states: Tensor, words: Tensor) -> Tensor:
    """``(L, d)`` token states to their mean ``(1, d)``; nothing where the text has no word."""
    return states.mean(0, keepdim=True) if (words >= 0).any() else states[:0]


def _count_cut(transcripts: Sequence[str], words: Sequence[Sequence[int]], max_length: int) -> str:
    """How many words lie behind the last token that was kept, in words; empty if none."""
    full = [(text, seen) for text, seen in zip(transcripts, words, strict=True) if len(seen) == max_length]
    cut = [len(words_of(text)) - 1 - max(seen, default=-1) for text, seen in full]
    samples = sum(count > 0 for count in cut)
    return (
        f"{sum(cut)} words of {samples} transcripts lie beyond max_length={max_length} and are cut" if samples else ""
    )
