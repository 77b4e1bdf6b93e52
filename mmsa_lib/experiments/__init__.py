"""Runs: a configuration in, a folder of results out. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsa_lib.experiments.config import RunConfig
    from mmsa_lib.experiments.results import collect, curate
    from mmsa_lib.experiments.runs import RunResult, find_run, run
    from mmsa_lib.experiments.sweeps.driver import SweepResult, sweep
    from mmsa_lib.experiments.tables import ResultsTable, results_table

__all__ = [
    "ResultsTable",
    "RunConfig",
    "RunResult",
    "SweepResult",
    "collect",
    "curate",
    "find_run",
    "results_table",
    "run",
    "sweep",
]

_HOME = {
    "RunConfig": "config",
    "ResultsTable": "tables",
    "RunResult": "runs",
    "collect": "results",
    "curate": "results",
    "find_run": "runs",
    "results_table": "tables",
    "run": "runs",
    "SweepResult": "sweeps.driver",
    "sweep": "sweeps.driver",
}


def __getattr__(name: str) -> Any:
    # The command line and the notebook runner live in this package too and should not pay for torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
