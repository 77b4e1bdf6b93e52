"""Runs: a configuration in, a folder of results out. Names are imported when they are first used."""

from importlib import import_module
from typing import Any

_HOME = {
    "config": ["RunConfig"],
    "results": ["collect", "collect_terms", "curate", "failures"],
    "runs": ["RunResult", "find_run", "run"],
    "summaries": ["compare", "curate_summary", "protocol_summaries", "read_comparison", "read_summary", "summarise"],
    "sweeps": ["SweepResult", "sweep"],
    "tables": ["Table", "comparison_table", "results_table"],
}
"""Module and what it gives; nobody who starts a command or a notebook should pay for torch."""

__all__ = sorted(name for names in _HOME.values() for name in names)


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
