"""Library behind a reproducible companion to four papers on multimodal sentiment analysis."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


_PLACES = {"predict": "experiments.prediction", "extract": "data.extract"}  # torch, which --help does without


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
