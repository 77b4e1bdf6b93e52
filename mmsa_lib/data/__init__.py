"""What an utterance is and where samples come from."""

from mmsa_lib.data.batch import MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.loading import load, summary
from mmsa_lib.data.task import Task, classes, emotions, regression

__all__ = [
    "MODALITIES",
    "Batch",
    "Modality",
    "Task",
    "Utterances",
    "classes",
    "emotions",
    "load",
    "regression",
    "summary",
]
