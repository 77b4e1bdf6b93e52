"""CH-SIMS and CH-SIMS v2 without audio and vision: transcripts in two languages, multimodal labels, official split.

Labels are the multimodal ones; the unimodal labels of CH-SIMS are only in the official files (``import mmsa``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources.reading import original, read_table
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

FILES = ("label.npz", "transcription-engchi-polish.csv")
SIZES = {
    "sims_text": {"train": 1368, "valid": 456, "test": 457},
    "simsv2_text": {"train": 2722, "valid": 647, "test": 1034},
}

TERMS = (
    "The readme of zeroQiaoba/MERTools names Apache 2.0 and restricts use to non-commercial purposes. No terms of the "
    "data set's owner were found (thuiar/ch-sims-v2 issue 12)."
)
_CITATION_SIMS = (
    "Yu, Xu, Meng, Zhu, Ma, Wu, Zou, Yang: CH-SIMS: a Chinese multimodal sentiment analysis dataset with fine-grained "
    "annotation of modality. ACL 2020."
)
_CITATION_V2 = (
    "Liu, Yuan, Mao, Liang, Yang, Qiu, Cheng, Li, Xu, Gao: Make acoustic and visual cues matter: CH-SIMS v2.0 dataset "
    "and AV-Mixup consistent module. ICMI 2022."
)
CITATIONS = {"sims_text": _CITATION_SIMS, "simsv2_text": f"{_CITATION_V2} {_CITATION_SIMS}"}
NOTES = [
    "transcripts are the English translations (the default text model reads English); the Chinese originals are kept "
    "as other_transcripts['chinese']; both may have been edited by MERBench",
    "the labels are the multimodal ones; unimodal labels are not public here",
]

_CORPUS = {"train": "train_corpus", "valid": "val_corpus", "test": "test_corpus"}


def build(files: Mapping[str, Path]) -> DatasetRecord:
    """CH-SIMS text (2,281 clips, 1368/456/457) from its original files; see :func:`build_v2` for version 2.

    Args:
        files: file name to path, for every name in :data:`FILES`.

    Raises:
        DataError: a file is missing or unreadable, sizes are wrong, or labels and transcripts name other clips.
    """
    return _build("sims_text", files)


def build_v2(files: Mapping[str, Path]) -> DatasetRecord:
    """CH-SIMS v2 text (4,403 supervised clips, 2722/647/1034); arguments and errors as for :func:`build`."""
    return _build("simsv2_text", files)


def _build(name: str, files: Mapping[str, Path]) -> DatasetRecord:
    labels = _labels(original(files, "label.npz"), SIZES[name])
    ids = list(labels)
    english, chinese = _transcripts(original(files, "transcription-engchi-polish.csv"), ids)
    splits = np.array([split for split, _ in labels.values()])
    groups = [identifier.rsplit("_", 1)[0] for identifier in ids]
    return DatasetRecord(
        name=name,
        task=regression((-1, 1)),
        ids=ids,
        groups=groups,
        labels=np.array([value for _, value in labels.values()], dtype=np.float32),
        folds={"standard": splits},
        defaults={"*": {"text": "words"}},
        transcripts=english,
        other_transcripts={"chinese": chinese},
        terms=TERMS,
        citation=CITATIONS[name],
        notes=[*NOTES, _overlap(groups, splits)],
    )


def _labels(path: Path, sizes: Mapping[str, int]) -> dict[str, tuple[str, float]]:
    """Clip id to split and label: train, valid, test; inside each by id."""
    from mmsa_lib.data.sources import safe_pickle

    corpora = safe_pickle.load_npz(path)
    labels: dict[str, tuple[str, float]] = {}
    for split, key in _CORPUS.items():
        corpus = _dictionary(path, corpora, key)
        if len(corpus) != sizes[split]:
            raise DataError(f"{path}: {key} has {len(corpus)} clips, expected {sizes[split]}; fetch the original again")
        for identifier in sorted(corpus):
            if identifier in labels:
                raise DataError(f"{path}: clip {identifier} is in two splits; fetch the original again")
            labels[identifier] = split, float(corpus[identifier]["val"])
    return labels


def _dictionary(path: Path, corpora: Mapping[str, object], key: str) -> dict:
    """Member ``key`` of the npz file, a dictionary."""
    corpus = corpora.get(key)
    if not isinstance(corpus, dict):
        raise DataError(f"{path}: {key} is missing or no dictionary; fetch the original again")
    return corpus


def _transcripts(path: Path, ids: list[str]) -> tuple[list[str], list[str]]:
    """English and Chinese transcripts in the order of ``ids``."""
    table = read_table(path, ["name", "chinese", "english"]).set_index("name")
    alone = table.index.symmetric_difference(ids)
    if len(alone) or not table.index.is_unique:
        raise DataError(f"{path}: transcripts and labels name different clips; fetch both originals again")
    table = table.reindex(ids)
    return table["english"].to_list(), table["chinese"].to_list()


def _overlap(groups: list[str], splits: np.ndarray) -> str:
    """How many source videos have clips in both training and test."""
    both = {g for g, s in zip(groups, splits, strict=True) if s == "train"} & {
        g for g, s in zip(groups, splits, strict=True) if s == "test"
    }
    return f"the official split is not video-disjoint: {len(both)} source videos have clips in both train and test"
