"""What an utterance is and where samples come from.

Names are imported when they are used, so that data sets can be listed and described without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsa_lib.data.batch import Batch, Utterances
    from mmsa_lib.data.loading import load, summary
    from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Modality
    from mmsa_lib.data.registry import SOURCES
    from mmsa_lib.data.task import Task, classes, emotions, regression

__all__ = [
    "MODALITIES",
    "SOURCES",
    "Batch",
    "DatasetRecord",
    "FeatureSet",
    "Modality",
    "Task",
    "Utterances",
    "classes",
    "emotions",
    "load",
    "regression",
    "summary",
]
_MODULES = {"Batch": "batch", "Utterances": "batch", "load": "loading", "summary": "loading"}
_MODULES |= dict.fromkeys(("MODALITIES", "DatasetRecord", "FeatureSet", "Modality"), "record") | {"SOURCES": "registry"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'task')}"), name)
