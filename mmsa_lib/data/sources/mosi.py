"""CMU-MOSI: 2,199 opinion segments of 93 videos, with words and times, and features per segment.

Word-aligned audio and vision sequences are not public in this form; what is: COVAREP-like audio per segment
(``audio73``), activations of label-trained networks per segment (``vision100``, ``textcnn100``), and word times.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.record import DatasetRecord, FeatureSet, Words
from mmsa_lib.data.sources.folds import cross_validation, hold_out
from mmsa_lib.data.sources.mosi_originals import FILES, merged_arrays
from mmsa_lib.data.task import regression
from mmsa_lib.data.timing import timing_summaries, word_timing

__all__ = ["CITATION", "FILES", "OWNER_TERMS", "TERMS", "build", "merged_arrays"]

TEST_CV_PARTS = 5
VALID_SHARE = 0.15

OWNER_TERMS = (
    "The data owner has published no data licence (CMU-MultiComp-Lab/CMU-MultimodalSDK issue 15); one of its members "
    "says that raw videos may not be shared while processed features are available (s3prl issue 487). Users answer "
    "for proper use, including the rights of the persons in the videos."
)
TERMS = (
    "Feature and transcript files of declare-lab/multimodal-deep-learning: MIT. The repositories of the word file, the "
    "label file and the segment tables have no licence file. " + OWNER_TERMS
)
CITATION = (
    "Zadeh, Zellers, Pincus, Morency: Multimodal sentiment intensity analysis in videos: facial gestures and verbal "
    "messages. IEEE Intelligent Systems 31(6), 2016. For audio73, vision100 and textcnn100: Poria, Cambria, Hazarika, "
    "Majumder, Zadeh, Morency: Context-dependent sentiment analysis in user-generated videos. ACL 2017."
)
NOTES = [
    "fold bc_lstm: the test part is clean, but a model over-trusts vision100 on the training part, and its validation "
    "videos lie in the extractors' training part too",
    "fold bc_lstm_test_cv-<k>: 5-fold by video over the bc-LSTM test videos, which the extractors never saw: the "
    "leak-free setting with three modalities",
    "segment 2WGyTLYerpo_44 has zero length and no word",
]

_DESCRIPTIONS: dict[str, tuple[Modality, str, str]] = {
    "audio73": ("audio", "", "segment mean of 73 COVAREP-like features (F0, voicing, NAQ, …, MCEP), no labels used"),
    "vision100": ("vision", "bc_lstm:train", "3D-CNN activations of the segment; 32 columns are constant"),
    "textcnn100": ("text", "bc_lstm:train", "text-CNN activations of the segment"),
}


def build(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSI from its original files.

    Folds: ``standard`` (1284/229/686), ``bc_lstm`` (the bc-LSTM split, validation = 15 % of its training
    videos, 9 of 62, the first in the hash order of :mod:`.folds`) and ``bc_lstm_test_cv-0`` … ``-4``.

    Args:
        files: file name to path, for every name in :data:`FILES`.

    Raises:
        DataError: a file is missing, unreadable or not the known one.
    """
    arrays = merged_arrays(files)
    groups = [video.decode() for video in arrays["video"]]
    words = Words(
        word=np.array([word.decode() for word in arrays["word"]], dtype=object),
        interval=arrays["word_interval"],
        offset=arrays["word_offset"],
    )
    times = np.stack([arrays["start"], arrays["stop"]], axis=1)
    folds = _folds(arrays, groups)
    return DatasetRecord(
        name="mosi",
        task=regression((-3, 3)),
        ids=[identifier.decode() for identifier in arrays["id"]],
        groups=groups,
        labels=arrays["label"],
        folds=folds,
        features={
            **{name: _segment_features(name, arrays[name]) for name in _DESCRIPTIONS},
            "timing": word_timing(words),
            "timing_utterance": timing_summaries(words, times),
        },
        defaults={name: _defaults(name) for name in folds},
        transcripts=list(arrays["text"]),
        words=words,
        times=times,
        terms=TERMS,
        citation=CITATION,
        notes=[_leak_note(arrays), *NOTES],
    )


def _folds(arrays: Mapping[str, np.ndarray], groups: list[str]) -> dict[str, np.ndarray]:
    """Fold name to split of each segment."""
    bc_lstm = arrays["split_poria"].astype(str).astype(object)
    test = bc_lstm == "test"
    validation = hold_out(groups, ~test, VALID_SHARE, "bc_lstm")
    return {
        "standard": arrays["split"].astype(str),
        "bc_lstm": np.where(validation, "valid", bc_lstm).astype(str),
        **cross_validation(groups, test, TEST_CV_PARTS, "bc_lstm_test_cv"),
    }


def _leak_note(arrays: Mapping[str, np.ndarray]) -> str:
    """What the label-trained features give away on the standard fold."""
    test = arrays["split"] == b"test"
    leaking = int((test & (arrays["split_poria"] == b"train")).sum())
    return (
        "vision100 and textcnn100 are activations of networks trained on the labels of the bc-LSTM training videos; "
        f"{leaking} of the {int(test.sum())} test segments of the standard fold lie in that part: never use them there"
    )


def _defaults(fold: str) -> dict[Modality, str]:
    """Feature sets that are safe on a fold."""
    leak_free: dict[Modality, str] = {"text": "words", "audio": "audio73"}
    return leak_free if fold == "standard" else {**leak_free, "vision": "vision100"}


def _segment_features(name: str, values: np.ndarray) -> FeatureSet:
    """One vector per segment, all observed."""
    modality, label_trained_on, description = _DESCRIPTIONS[name]
    return FeatureSet(
        modality=modality,
        values=values,
        lengths=np.ones(len(values), dtype=np.int64),
        observed=np.ones(len(values), dtype=bool),
        level="utterance",
        label_trained_on=label_trained_on,
        description=description,
    )
