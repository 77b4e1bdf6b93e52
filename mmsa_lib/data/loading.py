"""From a name to three splits of tensors."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsa_lib.data.assembling import Contents
from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.data.choose import COMPUTED_TEXT, SPLITS, choose_features, choose_fold, leaks
from mmsa_lib.data.fingerprint import fingerprint
from mmsa_lib.data.hdf5 import available_memory
from mmsa_lib.data.padding import (
    Tokens,
    check_one_frame_per_word,
    load_tokens,
    timed_transcripts_of,
    transcripts_of,
)
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.registry import SYNTHETIC, store_path
from mmsa_lib.data.scaling import fit_scaling, rows_in_memory
from mmsa_lib.data.store import list_features, read_header, read_spans, read_store
from mmsa_lib.data.text import DEFAULT_TEXT_MODEL, sentence_features, text_model_fingerprint, word_features
from mmsa_lib.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_SCALED: tuple[Modality, ...] = ("audio", "vision")
_MEMORY_SHARE = 0.5  # of the memory that is free, for padded features; training needs room too


def load(
    name: str | Path,
    fold: str = "standard",
    *,
    text: str | None = "default",
    audio: str | None = "default",
    vision: str | None = "default",
    text_model: str = DEFAULT_TEXT_MODEL,
    max_length: int = 64,
    standardise: bool = True,
    allow_leak: bool = False,
    part: int = 0,
    folder: Path | str | None = None,
    in_memory: bool | None = None,
    **generator: Any,
) -> dict[str, Utterances]:
    """Load a data set as right-padded tensors.

    Args:
        name: ``synthetic``, a data set that was built or imported, or the path of a store (``.h5``).
        fold: name of a fold; A, B, C stand for MOSI's ``standard``, ``bc_lstm``, ``bc_lstm_test_cv``.
        text: a feature-set name; ``"words"`` or ``"sentence"`` for frozen features computed from the transcripts;
            ``"timed_words"`` for the same from the words that have times, frame by frame aligned with word timings;
            ``"tokens"`` for token ids (features of width 0, for a trainable encoder); ``None`` to leave text out;
            ``"default"`` for what the data set names for this fold.
        audio, vision: a feature-set name, ``None`` or ``"default"``.
        text_model: transformers model for computed text and tokens.
        max_length: longest transcript in tokens, for computed text and tokens.
        standardise: give each column of audio and vision mean 0 and deviation 1 over the observed training frames, in
            float32. Columns that are constant in training are centred only; missing frames stay 0.
        allow_leak: load features whose extractor was trained on labels of test samples, for a demonstration.
        part: which part of a cross-validation fold is the test split.
        folder: where stores are, instead of the default folder.
        in_memory: ``False`` reads stored features batch by batch from disk; ``None`` does so where they would take more
            than half of the free memory. The batches are the same. Computed text and generated data are always in
            memory.
        **generator: options of :func:`mmsa_lib.data.sources.synthetic.build`, for ``synthetic``.

    Returns:
        Splits ``train``, ``valid`` and ``test``.

    Raises:
        UnknownNameError: the data set, the fold, a feature set or an option is unknown.
        ConfigError: an option is out of range.
        DataError: the store is missing or damaged, transcripts are missing, or test labels would leak.
    """
    source = _open(name, folder, generator)
    fold = choose_fold(source.record, fold, part)
    chosen = choose_features(source.record, fold, {"text": text, "audio": audio, "vision": vision}, source.layouts)
    stored = {m: n for m, n in chosen.items() if m != "text" or n not in COMPUTED_TEXT}
    if "text" not in chosen or "text" in stored:
        for option, value, default in (("text_model", text_model, DEFAULT_TEXT_MODEL), ("max_length", max_length, 64)):
            if value != default:
                kind = f"text is {chosen['text']!r}, which is stored" if "text" in chosen else "text is left out"
                log.warning(f"{option}={value!r} has no effect: {kind}; computed are {', '.join(COMPUTED_TEXT)}")
    notes = leaks(source.record, fold, {n: source.layouts[n] for n in stored.values()}, allow_leak)
    for note in notes:
        log.warning(note)

    splits = {split: np.flatnonzero(source.record.folds[fold] == split) for split in SPLITS}
    streamed = source.path is not None and not _fits(source, stored, splits, in_memory)
    sets = {m: source.layouts[n] for m, n in stored.items()} if streamed else source.read(stored)
    scaling = {}
    for modality in _SCALED if standardise else ():
        if modality in sets:
            read = partial(read_spans, source.path, stored[modality]) if streamed else rows_in_memory(sets[modality])
            scaling[modality] = fit_scaling(sets[modality], splits["train"], read)
    tokens, text_origin = None, []
    if "text" in chosen and "text" not in stored:
        sets["text"], tokens, text_origin = _compute_text(source.record, chosen["text"], text_model, max_length)
    contents = Contents(
        record=source.record,
        fold=fold,
        chosen=chosen,
        sets=sets,
        scaling=scaling,
        tokens=tokens,
        store=source.path if streamed else None,
        streamed=tuple(stored) if streamed else (),
        text_model=text_model if text_origin else "",
        notes=tuple(notes),
        origin=[source.fingerprint, fold, chosen, sorted(scaling), text_origin],
    )
    return {split: contents.utterances(split, rows) for split, rows in splits.items()}


def summary(data: Mapping[str, Utterances]) -> pd.DataFrame:
    """One row per split and modality: samples, groups (videos), feature set, frames, width, share of missing frames."""
    import pandas as pd

    rows = []
    for split, part in data.items():
        for modality in part.modalities:
            valid, observed = part.data.valid[modality], part.data.observed[modality]
            lengths = valid.sum(-1)
            rows.append(
                {
                    "split": split,
                    "samples": len(part),
                    "groups": len(set(part.groups)),
                    "modality": modality,
                    "features": part.feature_names.get(modality, ""),
                    "median_frames": int(lengths.median()),
                    "longest": int(lengths.max()),
                    "width": part.dims[modality],
                    "missing_frames": 1 - float(observed.sum() / valid.sum()),
                    "absent_samples": int((~observed.any(-1)).sum()),
                }
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Source:
    """A data set before anything of it is chosen; ``record`` has no features, ``layouts`` has them without values."""

    record: DatasetRecord
    layouts: dict[str, FeatureSet]
    fingerprint: str
    path: Path | None = None

    def read(self, names: Mapping[Modality, str]) -> dict[Modality, FeatureSet]:
        """The chosen feature sets with their values."""
        sets = self.layouts if self.path is None else read_store(self.path, set(names.values())).features
        return {modality: sets[name] for modality, name in names.items()}


def _open(name: str | Path, folder: Path | str | None, options: Mapping[str, Any]) -> _Source:
    if str(name) == SYNTHETIC:
        _check_options(options, _generator_options())
        return _synthetic(**{key: _hashable(key, value) for key, value in options.items()})
    _check_options(options, ())
    path = store_path(str(name), Path(folder) if folder is not None else None)
    header = read_header(path)
    record = replace(read_store(path, ()), defaults=header["defaults"])
    return _Source(record, list_features(path), header["fingerprint"], path)


@lru_cache(maxsize=4)
def _synthetic(**options: Any) -> _Source:
    from mmsa_lib.data.sources import synthetic

    record = synthetic.build(**options)
    return _Source(replace(record, features={}), record.features, fingerprint(record))


def _generator_options() -> list[str]:
    from mmsa_lib.data.sources import synthetic

    return [field.name for field in fields(synthetic.Settings)]


def _check_options(options: Mapping[str, Any], more: Iterable[str]) -> None:
    known = [p.name for p in inspect.signature(load).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for option in options:
        if option not in more:
            raise unknown_name("option of load", option, {*known, *more} - {"name"})


def _hashable(key: str, value: Any) -> Any:
    value = tuple(value) if isinstance(value, list) else value
    if not isinstance(value, int | float | str | tuple):
        raise ConfigError(f"option {key} of the synthetic data must be a number, a text or a list, got {value!r}")
    return value


def _fits(
    source: _Source, names: Mapping[Modality, str], splits: Mapping[str, np.ndarray], in_memory: bool | None
) -> bool:
    """Whether the padded features shall be kept in memory."""
    if in_memory is not None:
        return in_memory
    needed = 0
    for name in names.values():
        layout = source.layouts[name]
        needed += sum(
            4 * len(rows) * int(layout.lengths[rows].max(initial=0)) * layout.width for rows in splits.values()
        )
    free = available_memory()
    return free is None or needed <= _MEMORY_SHARE * free


def _compute_text(
    record: DatasetRecord, kind: str, model: str, max_length: int
) -> tuple[FeatureSet, Tokens | None, list[Any]]:
    """Text from the transcripts, token ids where they are asked for, and what decides about both."""
    if kind == "tokens":
        tokens = load_tokens(record, model, max_length)
        return tokens.frames, tokens, [model, max_length, tokens.unknown]
    if kind == "timed_words":
        features = word_features(timed_transcripts_of(record), model, max_length)
        check_one_frame_per_word(features, record, max_length)
        return features, None, [text_model_fingerprint(model), max_length]
    compute = word_features if kind == "words" else sentence_features
    texts = transcripts_of(record)
    return compute(texts, model, max_length), None, [text_model_fingerprint(model), max_length]
