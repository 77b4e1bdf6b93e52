"""ICT-MMMO: 340 film-review videos, three modalities aligned by word in 20 steps; the training part lacks text.

Frames follow three rules. A sample's valid span runs from the first to the last step at which text or audio (where
text is absent: audio or vision) is not zero, so that all modalities of a sample share it. It is shifted to start at 0,
because the originals pad on either side. A step inside the span whose vector is all zero in one modality is missing
there (a face that was not found, a word without a vector): valid, but not observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmsa_lib.data.record import MODALITIES, DatasetRecord, Modality, ragged
from mmsa_lib.data.sources.folds import cross_validation
from mmsa_lib.data.sources.reading import original, read_dataset
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

SIZES = {"train": 220, "valid": 40, "test": 80}
STEPS = 20
WIDTHS: dict[Modality, int] = {"text": 300, "audio": 74, "vision": 36}
TRAINING_TEXT = "text_train_emb.h5"
COMPLETE_CV_PARTS = 5

_FILE: dict[Modality, str] = {"text": "text_{}_emb.h5", "audio": "audio_{}.h5", "vision": "video_{}.h5"}
FILES = tuple(
    name
    for split in SIZES
    for name in (*(_FILE[m].format(split) for m in MODALITIES), f"y_{split}.h5")
    if name != TRAINING_TEXT
)

TERMS = "Files of pliang279/MFN: MIT. No terms of the data set's owner were found."
CITATION = (
    "Zadeh, Liang, Mazumder, Poria, Cambria, Morency: Memory fusion network for multi-view sequential learning. AAAI "
    "2018 (the files). Wöllmer, Weninger, Knaup, Schuller, Sun, Sagae, Morency: YouTube movie reviews: sentiment "
    "analysis in an audio-visual context. IEEE Intelligent Systems 28(3), 2013 (the videos)."
)
NOTES = [
    "the repository does not name the extractors; by their widths text is GloVe, audio COVAREP, vision FACET",
    "audio reaches ±255: standardise it with training statistics",
    "the originals name no video, so ids are <split>_<row>; each sample is one video",
    "fold complete_cv-<k>: 5-fold over the 120 videos that have all three modalities",
]
_ABSENT_NOTE = (
    f"training text is absent: {TRAINING_TEXT} was not at hand; download it by "
    "mmsa_lib.data.sources.fetch_originals('mmmo', optional=True) and build again"
)
_DESCRIPTIONS: dict[Modality, str] = {
    "text": "300-d word vectors, word-aligned",
    "audio": "74 acoustic features, word-aligned",
    "vision": "36 facial features, word-aligned",
}


def build(files: Mapping[str, Path]) -> DatasetRecord:
    """ICT-MMMO from its original files.

    Args:
        files: file name to path for every name in :data:`FILES`; with :data:`TRAINING_TEXT` the training part gets its
            text, without it training text is one unobserved frame per valid step.

    Raises:
        DataError: a file is missing, unreadable, or has another shape than the known one.
    """
    parts = {split: _read_split(files, split) for split in SIZES}
    valid = np.concatenate([valid_steps(parts[split]) for split in SIZES])
    features = {}
    for modality, width in WIDTHS.items():
        values = np.concatenate([_or_zeros(parts[split], modality, split) for split in SIZES])
        features[f"{modality}{width}"] = ragged(
            values,
            valid,
            modality=modality,
            level="word",
            observed=_nonzero(values),
            description=_DESCRIPTIONS[modality],
        )
    ids = [f"{split}_{row}" for split, size in SIZES.items() for row in range(size)]
    standard = np.repeat(list(SIZES), list(SIZES.values()))
    text_missing = TRAINING_TEXT not in files
    absent = [_ABSENT_NOTE] if text_missing else []
    return DatasetRecord(
        name="mmmo",
        task=regression((1, 5)),
        ids=ids,
        groups=list(ids),
        labels=np.concatenate([_read_labels(files, split) for split in SIZES]),
        folds={"standard": standard, **cross_validation(ids, standard != "train", COMPLETE_CV_PARTS, "complete_cv")},
        features=features,
        defaults={"*": {modality: f"{modality}{width}" for modality, width in WIDTHS.items()}},
        terms=TERMS,
        citation=CITATION,
        notes=[*NOTES, *absent],
    )


def valid_steps(arrays: Mapping[Modality, np.ndarray]) -> np.ndarray:
    """The valid span of each sample, ``(N, T)`` bool: contiguous, first to last step that is not all zero.

    Args:
        arrays: per modality ``(N, T, d)``. Text and audio decide together; where there is no text, audio and vision.
    """
    deciding = ("text", "audio") if "text" in arrays else ("audio", "vision")
    present = np.logical_or.reduce([_nonzero(arrays[modality]) for modality in deciding])
    from_first = np.logical_or.accumulate(present, axis=1)
    to_last = np.logical_or.accumulate(present[:, ::-1], axis=1)[:, ::-1]
    return from_first & to_last


def _nonzero(values: np.ndarray) -> np.ndarray:
    """``(N, T, d)`` to ``(N, T)``: steps that are not all zero."""
    return (values != 0).any(axis=-1)


def _read_split(files: Mapping[str, Path], split: str) -> dict[Modality, np.ndarray]:
    """The modalities of one split, each ``(N, 20, d)``; training text only if it was given."""
    arrays: dict[Modality, np.ndarray] = {}
    for modality, width in WIDTHS.items():
        name = _FILE[modality].format(split)
        if name == TRAINING_TEXT and name not in files:
            continue
        arrays[modality] = _read(original(files, name), (SIZES[split], STEPS, width))
    return arrays


def _read_labels(files: Mapping[str, Path], split: str) -> np.ndarray:
    return _read(original(files, f"y_{split}.h5"), (SIZES[split],)).astype(np.float32)


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    values = read_dataset(path, "d1")
    if values.shape != shape:
        raise DataError(f"{path}: array 'd1' has shape {values.shape}, expected {shape}; fetch the original again")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: array 'd1' holds NaN or infinity; fetch the original again")
    return values


def _or_zeros(arrays: Mapping[Modality, np.ndarray], modality: Modality, split: str) -> np.ndarray:
    """A modality of a split, or zeros where it is absent (all its frames count as missing then)."""
    return arrays.get(modality, np.zeros((SIZES[split], STEPS, WIDTHS[modality])))
