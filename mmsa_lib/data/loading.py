"""From a name to three splits of tensors."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import BERT_UNKNOWN, Batch, Utterances
from mmsa_lib.data.hdf5 import available_memory
from mmsa_lib.data.record import (
    COMPUTED_TEXT,
    MODALITIES,
    SPLITS,
    DatasetRecord,
    FeatureSet,
    Modality,
    fingerprint,
)
from mmsa_lib.data.registry import GENERATED, generate, is_generated, source_options, store_path
from mmsa_lib.data.scaling import Preparation, Scaling, fit_scaling
from mmsa_lib.data.store import open_store
from mmsa_lib.data.stream import Stored, StreamedUtterances, placeholder
from mmsa_lib.data.text import DEFAULT_TEXT_MODEL, Tokens, compute_text
from mmsa_lib.data.validate import is_sound, refuse_problems
from mmsa_lib.errors import ConfigError, DataError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

FOLD_ALIASES = {"A": "standard", "B": "bc_lstm", "C": "bc_lstm_test_cv"}
"""Letters of docs/data.md."""

_SCALED: tuple[Modality, ...] = ("audio", "vision")
_MEMORY_SHARE = 0.5  # of the memory that is free, for padded features; training needs room too
_KEPT = 2**28  # bytes of generated features that are kept for the next load


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
    labelled: int | None = None,
    labelled_seed: int = 0,
    folder: Path | str | None = None,
    in_memory: bool | None = None,
    **generator: Any,
) -> dict[str, Utterances]:
    """Load a data set as right-padded tensors.

    Args:
        name: ``synthetic`` or another data set that is generated, one that was built or imported, or the path of a
            store (``.h5``).
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
        labelled: how many training samples keep their label, by default all. The labels of the others become NaN and
            ``data.labelled`` says which they are; standardisation still uses all samples.
        labelled_seed: of the choice of these samples; with a larger number the same ones are among them.
        folder: where stores are, instead of the default folder.
        in_memory: ``False`` reads stored features batch by batch from disk; ``None`` does so where they would take more
            than half of the free memory. The batches are the same. Computed text and generated data are always in
            memory.
        **generator: options of :func:`mmsa_lib.data.sources.synthetic.build`, for generated data, or of a source in
            :data:`mmsa_lib.data.registry.SOURCES`.

    Returns:
        Splits ``train``, ``valid`` and ``test``.

    Raises:
        UnknownNameError: the data set, the fold, a feature set or an option is unknown.
        ConfigError: an option is out of range.
        DataError: the store is missing or damaged, transcripts are missing, or test labels would leak.
    """
    with _open(name, folder, generator) as source:
        record = source.record
        fold = _choose_fold(record, fold, part)
        chosen = _choose_features(record, fold, {"text": text, "audio": audio, "vision": vision})
        sets = {m: record.features[n] for m, n in chosen.items() if m != "text" or n not in COMPUTED_TEXT}
        if "text" not in chosen or "text" in sets:
            _say_without_effect(chosen.get("text"), text_model, max_length)
        kept = _labelled(record, fold, labelled, labelled_seed)
        notes = _leaks(record, fold, {chosen[m]: features for m, features in sets.items()}, allow_leak)
        for note in notes:
            log.warning(note)
        if kept is not None:
            notes.append(f"{labelled} of {len(kept)} training samples have a label (labelled_seed={labelled_seed})")
        splits = {split: np.flatnonzero(record.folds[fold] == split) for split in SPLITS}
        streamed = source.path is not None and not _fits(sets, splits, in_memory)
        scaling = {m: fit_scaling(sets[m], splits["train"]) for m in _SCALED if standardise and m in sets}
        padded = {}
        for modality, features in sets.items() if not streamed else ():
            padded[modality] = pad_splits(features, splits, scaling.get(modality), source)
            if not source.kept:
                features.values = np.broadcast_to(np.float32("nan"), features.values.shape)
    stored = {m: chosen[m] for m in sets} if streamed else {}
    tokens, text_origin = None, []
    if "text" in chosen and "text" not in sets:
        sets["text"], tokens, text_origin = compute_text(record, chosen["text"], text_model, max_length)
        padded["text"] = pad_splits(sets["text"], splits)
    origin = [source.fingerprint, fold, chosen, sorted(scaling), text_origin]
    origin += [] if kept is None else [["labelled", np.flatnonzero(kept).tolist()]]
    computed = (text_model, "" if tokens else text_origin[0], max_length) if text_origin else ("", "", 0)
    preparation = Preparation(dict(chosen), scaling, *computed)
    found = {}
    for split, rows in splits.items():
        features = {m: padded[m][split] if m in padded else placeholder(*_padded_shape(sets[m], rows)) for m in chosen}
        found[split] = Utterances(
            data=_unlabelled(batch_of(record, rows, sets, features, tokens), kept if split == "train" else None),
            task=record.task,
            name=record.name,
            fold=fold,
            split=split,
            groups=tuple(record.groups[row] for row in rows),
            feature_names=dict(chosen),
            factors={name: _tensor(values, rows) for name, values in record.factors.items()},
            transcripts=tuple(record.transcripts[row] for row in rows) if record.transcripts is not None else (),
            fingerprint=hashlib.sha256(json.dumps([*origin, split], sort_keys=True).encode()).hexdigest(),
            text_model=text_model if text_origin else "",
            notes=tuple(notes),
            preparation=preparation,
        )
        if stored:
            parts = {
                m: Stored(name, torch.from_numpy(sets[m].offsets[rows]), sets[m].width, scaling.get(m))
                for m, name in stored.items()
            }
            found[split] = StreamedUtterances(**vars(found[split]), store=source.path, stored=parts)
    return found


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
    """A data set before anything of it is chosen; the values of a store's features are read slice by slice."""

    record: DatasetRecord
    fingerprint: str
    path: Path | None = None
    kept: bool = True  # for the next load; else its values are given up as soon as they are copied


@contextmanager
def _open(name: str | Path, folder: Path | str | None, options: Mapping[str, Any]) -> Iterator[_Source]:
    if is_generated(str(name)):
        yield _generate(str(name), options)
        return
    _check_options(options)
    path = store_path(str(name), Path(folder) if folder is not None else None)
    with open_store(path) as store:
        refuse_problems(store.record, str(path), values=False)
        yield _Source(store.record, store.header["fingerprint"], path)


_generated: dict[str, _Source] = {}  # by their options; notebooks load the same data set again and again


def _generate(name: str, options: Mapping[str, Any]) -> _Source:
    if name not in GENERATED:  # made each time: what its code depends on may have changed
        known = source_options(name)
        _check_options(options, [*known, *(options if "**" in known else ())])
        record = generate(name, **options)
        return _Source(record, fingerprint(record))
    from mmsa_lib.data.sources import synthetic

    _check_options(options, synthetic.Settings.__dataclass_fields__)
    for option, value in options.items():
        if not isinstance(value, int | float | str | tuple | list):
            raise ConfigError(
                f"option {option} of the synthetic data must be a number, a text or a list, got {value!r}"
            )
    key = json.dumps([name, options], sort_keys=True)
    if key not in _generated:
        record = generate(name, **{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
        source = _Source(record, fingerprint(record))
        if sum(features.values.nbytes for features in record.features.values()) > _KEPT:
            return replace(source, kept=False)
        while len(_generated) >= 4:
            del _generated[next(iter(_generated))]
        _generated[key] = source
    return _generated[key]


def _check_options(options: Mapping[str, Any], more: Iterable[str] = ()) -> None:
    known = [p.name for p in inspect.signature(load).parameters.values() if p.kind is not p.VAR_KEYWORD]
    for option in options:
        if option not in more:
            raise unknown_name("option of load", option, {*known, *more} - {"name"})


def _fits(sets: Mapping[Modality, FeatureSet], splits: Mapping[str, np.ndarray], in_memory: bool | None) -> bool:
    """Whether the padded features shall be kept in memory.

    Raises:
        MemoryError: they shall, and there is not enough of it.
    """
    free, stored = available_memory(), sum(4 * len(x.observed) * x.width for x in sets.values())
    if in_memory and free is not None and stored > free:
        raise MemoryError(f"its features take {stored / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    if in_memory is not None:
        return in_memory
    shapes = [_padded_shape(features, rows) for features in sets.values() for rows in splits.values()]
    return free is None or sum(4 * n * steps * width for n, steps, width in shapes) <= _MEMORY_SHARE * free


def _say_without_effect(text: str | None, text_model: str, max_length: int) -> None:
    for option, value, default in (("text_model", text_model, DEFAULT_TEXT_MODEL), ("max_length", max_length, 64)):
        if value != default:
            kind = f"text is {text!r}, which is stored" if text else "text is left out"
            log.warning(f"{option}={value!r} has no effect: {kind}; computed are {', '.join(COMPUTED_TEXT)}")


# Choices


def _choose_fold(record: DatasetRecord, fold: str, part: int) -> str:
    """The name under which the record holds ``fold``; ``bc_lstm_test_cv`` has parts 0 to 4."""
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


def _choose_features(record: DatasetRecord, fold: str, asked: Mapping[Modality, str | None]) -> dict[Modality, str]:
    """Feature-set name of each modality that is loaded, in the fixed order."""
    base = fold.rpartition("-")[0]
    defaults = record.defaults.get("*", {}) | record.defaults.get(base, {}) | record.defaults.get(fold, {})
    chosen: dict[Modality, str] = {}
    for modality in MODALITIES:
        name = asked[modality]
        name = defaults.get(modality) if name == "default" else name
        if name is None:
            continue
        known = [other for other, features in record.features.items() if features.modality == modality]
        known += COMPUTED_TEXT if modality == "text" else ()
        if not known:
            raise DataError(
                f"{record.name} has no {modality} features, got {modality}={name!r}; leave it out with "
                f"{modality}=None (--set data.{modality}=null)"
            )
        if name not in known:
            raise unknown_name(f"{modality} features of {record.name}", name, known)
        chosen[modality] = name
    if not chosen:
        raise DataError(f"nothing of {record.name} is left to load; name a feature set for text, audio or vision")
    return chosen


def _labelled(record: DatasetRecord, fold: str, number: int | None, seed: int) -> np.ndarray | None:
    """``(n,)`` bool, the training samples that keep their label; ``None`` where all do."""
    if number is None and seed == 0:
        return None
    size = int((record.folds[fold] == "train").sum())
    if number is None:
        raise ConfigError(f"labelled_seed={seed!r} draws the samples of labelled; give labelled too, or leave it out")
    for name, value in (("labelled", number), ("labelled_seed", seed)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{name}={value!r} is no whole number; give one, or leave {name} out")
    if not 1 <= number <= size:
        raise ConfigError(
            f"labelled={number}: {record.name} has {size} training samples in fold {fold}; give 1 to {size}"
        )
    if seed < 0:
        raise ConfigError(f"labelled_seed={seed} is below 0; give 0 or more")
    kept = np.zeros(size, bool)
    kept[np.random.default_rng([seed, size]).permutation(size)[:number]] = True
    return kept


def _unlabelled(batch: Batch, kept: np.ndarray | None) -> Batch:
    """``batch`` without the labels of the samples that are not ``kept``."""
    if kept is None:
        return batch
    known = torch.from_numpy(kept)

    def hidden(labels: Tensor) -> Tensor:
        labels[~known] = float("nan")  # of this load alone: rows of a record are copied
        return labels

    own = {m: hidden(labels) for m, labels in batch.unimodal_labels.items()}
    return replace(batch, labels=hidden(batch.labels), unimodal_labels=own, labelled=known)


def _leaks(record: DatasetRecord, fold: str, features: dict[str, FeatureSet], allow: bool) -> list[str]:
    """Refuse features whose extractor saw the labels of test samples; report those that saw validation samples.

    An extractor that was trained on ``<fold>:train`` counts as having seen the validation samples of that fold as well:
    they were cut from its training part, or steered its training.
    """
    remarks = []
    splits = record.folds[fold]
    for name, feature_set in features.items():
        if not feature_set.label_trained_on:
            continue
        trained_fold, _, trained = feature_set.label_trained_on.partition(":")
        seen = np.isin(record.folds[trained_fold], ("train", "valid") if trained == "train" else (trained,))
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


# Tensors


def batch_of(
    record: DatasetRecord,
    rows: np.ndarray,
    sets: Mapping[Modality, FeatureSet],
    features: Mapping[Modality, Tensor],
    tokens: Tokens | None,
) -> Batch:
    """The samples at ``rows``, with their padded ``features``."""
    masks = {m: _masks(sets[m], rows) for m in features}
    valid = {m: valid for m, (valid, _) in masks.items()}
    return Batch(
        features=dict(features),
        valid=valid,
        observed={m: observed for m, (_, observed) in masks.items()},
        labels=_tensor(record.labels, rows),
        index=torch.arange(len(rows)),
        ids=tuple(record.ids[row] for row in rows),
        tokens=None if tokens is None else tokens.ids[rows, : valid["text"].shape[1]],
        unknown_token=BERT_UNKNOWN if tokens is None else tokens.unknown,
        unimodal_labels={m: _tensor(values, rows) for m, values in record.unimodal_labels.items()},
    )


def _tensor(values: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values[rows], dtype=np.float32))


def _padded_shape(features: FeatureSet, rows: np.ndarray) -> tuple[int, int, int]:
    return len(rows), int(features.lengths[rows].max(initial=1)), features.width


def _masks(features: FeatureSet, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """``valid`` and ``observed`` of samples ``rows``, both ``(n, T)`` bool; ``T`` is the longest of them."""
    lengths = features.lengths[rows]
    valid = np.arange(lengths.max(initial=1)) < lengths[:, None]
    observed = np.zeros_like(valid)
    within = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
    observed[valid] = features.observed[np.repeat(features.offsets[rows], lengths) + within]
    return torch.from_numpy(valid), torch.from_numpy(observed)


def _zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros that take memory only where something is written: most of a padded array is padding."""
    size = 4 * math.prod(shape)
    if size < 2**22 or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, np.float32)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_NOHUGEPAGE)  # numpy asks for pages of 2 MiB, each of which holds some frame
    return np.frombuffer(pages, np.float32).reshape(shape)


def pad_splits(
    features: FeatureSet,
    splits: Mapping[str, np.ndarray],
    scaling: Scaling | None = None,
    source: _Source | None = None,
) -> dict[str, Tensor]:
    """Frames of the samples of each split, ``(n, T, d)`` float32, zeros at padding and at missing frames.

    The values are read once, from front to back, some samples at a time, so that little more than the result is held.
    Where one is unsound, ``source`` is named.
    """
    padded = {split: _zeros(_padded_shape(features, rows)) for split, rows in splits.items()}
    target = {sample: padded[split][row] for split, rows in splits.items() for row, sample in enumerate(rows.tolist())}
    offsets = features.offsets.tolist()
    for samples, values in features.blocks():
        start = offsets[samples.start]
        observed = features.observed[start : start + len(values)]
        if source and not is_sound(values, observed):
            refuse_problems(source.record, str(source.path or source.record.name))
        values = values if scaling is None else scaling.apply(values, observed)
        for sample in range(samples.start, samples.stop):
            if sample in target:
                frames = values[offsets[sample] - start : offsets[sample + 1] - start]
                target[sample][: len(frames)] = frames
    return {split: torch.from_numpy(whole) for split, whole in padded.items()}
