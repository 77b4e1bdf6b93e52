"""What an utterance is and where samples come from. Names are imported when they are first used."""

from importlib import import_module
from typing import Any

_HOME = {
    "batch": ["MODALITIES", "Batch", "Modality", "Utterances"],
    "loading": ["load", "summary"],
    "task": ["Task", "classes", "emotions", "regression"],
}
"""Module and what it gives; a table of results, which reads HDF5 at most, should not pay for torch."""

__all__ = sorted(name for names in _HOME.values() for name in names)


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOME.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
