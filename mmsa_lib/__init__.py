"""Library behind a reproducible companion to four papers on multimodal sentiment analysis."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "predict":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.experiments.prediction").predict  # torch, which --help does without
