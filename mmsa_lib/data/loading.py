"""From a name to three splits of tensors."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import BERT_UNKNOWN, MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.hdf5 import available_memory
from mmsa_lib.data.record import COMPUTED_TEXT, SPLITS, DatasetRecord, FeatureSet, fingerprint
from mmsa_lib.data.registry import SYNTHETIC, store_path
from mmsa_lib.data.store import list_features, read_header, read_spans, read_store
from mmsa_lib.data.stream import FrameFile, StreamedUtterances, placeholder
from mmsa_lib.data.text import (
    DEFAULT_TEXT_MODEL,
    sentence_features,
    special_tokens,
    text_model_fingerprint,
    tokenize,
    word_features,
    words_of,
)
from mmsa_lib.errors import ConfigError, DataError, unknown_name

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


FOLD_ALIASES = {"A": "standard", "B": "bc_lstm", "C": "bc_lstm_test_cv"}
"""Letters of data.md, section 2.4."""


def choose_fold(record: DatasetRecord, fold: str, part: int = 0) -> str:
    """The name under which the record holds ``fold``.

    Args:
        record: a data set.
        fold: its name, or A, B, C for MOSI's folds.
        part: which part of a cross-validation is the test split; ``bc_lstm_test_cv`` has parts 0 to 4.

    Raises:
        UnknownNameError: there is no such fold.
        ConfigError: the part doesn't exist, or the fold has none.
    """
    asked = FOLD_ALIASES.get(fold, fold)
    if asked in record.folds:
        if part:
            raise ConfigError(f"fold {asked!r} of {record.name} has no parts; leave part at 0, got {part}")
        return asked
    parts = sorted(name for name in record.folds if name.rpartition("-")[0] == asked)
    if not parts:
        known = {name.rpartition("-")[0] if name.rpartition("-")[2].isdigit() else name for name in record.folds}
        raise unknown_name(f"fold of {record.name}", fold, known)
    if f"{asked}-{part}" not in parts:
        raise ConfigError(f"fold {asked!r} of {record.name} has parts 0 to {len(parts) - 1}, got part={part}")
    return f"{asked}-{part}"


def choose_features(
    record: DatasetRecord, fold: str, asked: Mapping[Modality, str | None], available: Mapping[str, FeatureSet]
) -> dict[Modality, str]:
    """Feature-set name of each modality that is loaded, in the fixed order.

    Args:
        record: a data set.
        fold: name of the fold in the record.
        asked: per modality a feature-set name, ``"words"``, ``"tokens"``, ``"sentence"`` or ``"timed_words"`` (text),
            ``"default"``, or ``None`` to leave the modality out.
        available: the feature sets of the data set.

    Raises:
        UnknownNameError: there is no such feature set for the modality.
        DataError: text is to be computed and there are no transcripts, or nothing is left to load.
    """
    base = fold.rpartition("-")[0]
    defaults = record.defaults.get("*", {}) | record.defaults.get(base, {}) | record.defaults.get(fold, {})
    chosen: dict[Modality, str] = {}
    for modality in MODALITIES:
        name = asked[modality]
        name = defaults.get(modality) if name == "default" else name
        if name is None:
            continue
        known = [other for other, features in available.items() if features.modality == modality]
        known += COMPUTED_TEXT if modality == "text" else ()
        if name not in known:
            raise _unknown_features(record, modality, name, known)
        chosen[modality] = name
    if not chosen:
        raise DataError(f"nothing of {record.name} is left to load; name a feature set for text, audio or vision")
    return chosen


def leaks(record: DatasetRecord, fold: str, features: dict[str, FeatureSet], allow: bool) -> list[str]:
    """Refuse features whose extractor saw the labels of test samples; report those that saw validation samples.

    An extractor that was trained on ``<fold>:train`` counts as having seen the validation samples of that fold as well:
    they were cut from its training part, or steered its training.

    Args:
        record: a data set.
        fold: name of the fold that is loaded.
        features: the feature sets that are loaded.
        allow: load in spite of a leak, for a demonstration.

    Returns:
        One remark per contaminated feature set.

    Raises:
        DataError: a test sample was seen and ``allow`` is False.
    """
    remarks = []
    splits = record.folds[fold]
    for name, feature_set in features.items():
        seen = _seen_by_extractor(record, feature_set)
        counts = {split: (int((seen & (splits == split)).sum()), int((splits == split).sum())) for split in SPLITS}
        of = {split: f"{hit} of {total}" for split, (hit, total) in counts.items()}
        where = f"{name} of {record.name} comes from a network trained on the labels of {feature_set.label_trained_on}"
        if counts["test"][0]:
            what = f"{where}: it has seen {of['test']} test samples of fold {fold}, so test scores would be inflated"
            if not allow:
                raise DataError(f"{what}; choose other features, or allow_leak=True (--set) for a demonstration")
            remarks.append(f"LEAK: {what}")
        elif counts["valid"][0]:
            remarks.append(
                f"{where}: it has seen {of['train']} training and {of['valid']} validation samples of fold {fold}, but "
                "no test sample; a model over-trusts it, and validation scores are too good"
            )
    return remarks


def _seen_by_extractor(record: DatasetRecord, features: FeatureSet) -> np.ndarray:
    """``(N,)`` bool: samples whose labels the extractor of ``features`` may have been fitted to."""
    if not features.label_trained_on:
        return np.zeros(len(record), dtype=bool)
    fold, _, split = features.label_trained_on.partition(":")
    if fold not in record.folds:
        raise DataError(f"{record.name}: features trained on {features.label_trained_on!r}, but there is no such fold")
    return np.isin(record.folds[fold], ("train", "valid") if split == "train" else (split,))


def _unknown_features(record: DatasetRecord, modality: Modality, name: str, known: list[str]) -> Exception:
    if not known:
        return DataError(
            f"{record.name} has no {modality} features, got {modality}={name!r}; leave it out with "
            f"{modality}=None (--set data.{modality}=null)"
        )
    return unknown_name(f"{modality} features of {record.name}", name, known)


@dataclass(frozen=True)
class Contents:
    """Everything that was chosen, for all samples of a data set.

    Attributes:
        record: identifiers, labels, texts and factors; its features are not used.
        fold: name of the fold in the record.
        chosen: feature-set name per modality.
        sets: the feature sets; those of ``streamed`` modalities come without values.
        scaling: standardisation per modality, where there is one.
        tokens: token ids, or ``None``.
        store: file of the streamed modalities.
        streamed: modalities whose frames stay on disk.
        text_model: name of the transformers model behind the text, or ``""``.
        notes: remarks that go with every split.
        origin: whatever decides about the numbers, as JSON can hold it; the fingerprint covers it.
    """

    record: DatasetRecord
    fold: str
    chosen: dict[Modality, str]
    sets: dict[Modality, FeatureSet]
    scaling: dict[Modality, Scaling]
    tokens: Tokens | None
    store: Path | None
    streamed: tuple[Modality, ...]
    text_model: str
    notes: tuple[str, ...]
    origin: list[Any]

    def utterances(self, split: str, rows: np.ndarray) -> Utterances:
        """The samples at ``rows`` as a split."""
        record = self.record
        common = {
            "data": self._batch(rows),
            "task": record.task,
            "name": record.name,
            "fold": self.fold,
            "split": split,
            "groups": tuple(record.groups[row] for row in rows),
            "feature_names": dict(self.chosen),
            "factors": {name: _tensor(values, rows) for name, values in record.factors.items()},
            "transcripts": tuple(record.transcripts[row] for row in rows) if record.transcripts is not None else (),
            "fingerprint": hashlib.sha256(json.dumps([*self.origin, split], sort_keys=True).encode()).hexdigest(),
            "text_model": self.text_model,
            "notes": self.notes,
        }
        if not self.streamed:
            return Utterances(**common)
        return StreamedUtterances(**common, files={m: self._file(m, rows) for m in self.streamed})

    def _batch(self, rows: np.ndarray) -> Batch:
        both = {m: masks(features, rows) for m, features in self.sets.items()}
        ordered = [m for m in MODALITIES if m in self.sets]
        record, tokens = self.record, self.tokens
        return Batch(
            features={m: self._features(m, rows) for m in ordered},
            valid={m: both[m][0] for m in ordered},
            observed={m: both[m][1] for m in ordered},
            labels=_tensor(record.labels, rows),
            index=torch.arange(len(rows)),
            ids=tuple(record.ids[row] for row in rows),
            tokens=None if tokens is None else tokens.ids[rows, : both["text"][0].shape[1]],
            unknown_token=BERT_UNKNOWN if tokens is None else tokens.unknown,
            unimodal_labels={m: _tensor(values, rows) for m, values in record.unimodal_labels.items()},
        )

    def _features(self, modality: Modality, rows: np.ndarray) -> Tensor:
        features = self.sets[modality]
        if modality in self.streamed:
            return placeholder(len(rows), int(features.lengths[rows].max(initial=1)), features.width)
        return pad(features, rows, self.scaling.get(modality))

    def _file(self, modality: Modality, rows: np.ndarray) -> FrameFile:
        features = self.sets[modality]
        starts = torch.from_numpy(features.offsets[rows])
        return FrameFile(self.store, self.chosen[modality], starts, features.width, self.scaling.get(modality))


def _tensor(values: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values[rows], dtype=np.float32))


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


_SAMPLES_PER_READ = 256

Reader = Callable[[Sequence[tuple[int, int]]], Iterable[np.ndarray]]
"""Gives the frames ``start:stop`` of a feature set, ``(stop - start, d)``, for each of some pairs of numbers."""


@dataclass(frozen=True)
class Scaling:
    """``(x - mean) / scale`` per column; ``mean`` and ``scale`` are ``(d,)`` float32."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, values: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Scaled frames ``(n, d)`` float32; frames that are not ``observed`` ``(n,)`` stay zero."""
        return np.where(observed[:, None], (values - self.mean) / self.scale, np.float32(0))


def rows_in_memory(features: FeatureSet) -> Reader:
    """A reader for a feature set whose values are in memory."""
    return lambda spans: (features.values[start:stop] for start, stop in spans)


def fit_scaling(features: FeatureSet, samples: np.ndarray, read: Reader) -> Scaling:
    """Mean and standard deviation (divided by the count) of each column over the observed frames of some samples.

    A column that is constant there gets scale 1 and becomes exactly zero, not infinite. Sums are in float64 and run
    over the frames twice, which stays exact where the mean is large against the deviation (COVAREP's F0).

    Args:
        features: lengths and observed frames; values are taken from ``read``.
        samples: positions of the training samples.
        read: where the values come from; memory and disk give the same bits.
    """
    width = features.width
    count, total = 0, np.zeros(width)
    for frames in _observed(features, samples, read):
        count += len(frames)
        total += frames.sum(axis=0, dtype=np.float64)
    if count == 0:
        return Scaling(np.zeros(width, np.float32), np.ones(width, np.float32))
    mean = total / count
    squares = np.zeros(width)
    for frames in _observed(features, samples, read):
        squares += ((frames - mean) ** 2).sum(axis=0)
    # Sums of equal float32 values are exact in float64: a constant column has a deviation of exactly 0.
    scale = np.sqrt(squares / count).astype(np.float32)
    scale[scale == 0] = 1
    return Scaling(mean.astype(np.float32), scale)


def _observed(features: FeatureSet, samples: np.ndarray, read: Reader) -> Iterator[np.ndarray]:
    """The observed frames of ``samples``, many samples at a time."""
    offsets = features.offsets
    for first in range(0, len(samples), _SAMPLES_PER_READ):
        spans = [(int(offsets[i]), int(offsets[i + 1])) for i in samples[first : first + _SAMPLES_PER_READ]]
        observed = np.concatenate([features.observed[start:stop] for start, stop in spans])
        yield np.concatenate(list(read(spans)))[observed]
