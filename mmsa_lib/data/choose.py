"""Which samples and which feature sets a request means, and whether it would leak labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmsa_lib.data.batch import MODALITIES, Modality
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.errors import ConfigError, DataError, unknown_name

FOLD_ALIASES = {"A": "standard", "B": "bc_lstm", "C": "bc_lstm_test_cv"}
"""Letters of data.md, section 2.4."""

SPLITS = ("train", "valid", "test")

COMPUTED_TEXT = ("words", "tokens", "sentence", "timed_words")
"""Text that is computed with a transformers model: from the transcripts, or from the words that have times."""


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
