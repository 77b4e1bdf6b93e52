"""Runs: a configuration in, a folder of results out. Names are imported when they are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmsa_lib.experiments.comparison_tables import ComparisonTable, comparison_table
    from mmsa_lib.experiments.comparisons import compare, curate_comparison, read_comparison
    from mmsa_lib.experiments.config import RunConfig
    from mmsa_lib.experiments.results import collect, curate, failures
    from mmsa_lib.experiments.runs import RunResult, find_run, run
    from mmsa_lib.experiments.summaries import curate_summary, read_summary, summarise
    from mmsa_lib.experiments.sweeps.driver import SweepResult, sweep
    from mmsa_lib.experiments.tables import ResultsTable, results_table

__all__ = [
    "ComparisonTable",
    "ResultsTable",
    "RunConfig",
    "RunResult",
    "SweepResult",
    "collect",
    "compare",
    "comparison_table",
    "curate",
    "curate_comparison",
    "curate_summary",
    "failures",
    "find_run",
    "read_comparison",
    "read_summary",
    "results_table",
    "run",
    "summarise",
    "sweep",
]

_HOME = {
    "ComparisonTable": "comparison_tables",
    "RunConfig": "config",
    "ResultsTable": "tables",
    "RunResult": "runs",
    "collect": "results",
    "compare": "comparisons",
    "comparison_table": "comparison_tables",
    "curate": "results",
    "curate_comparison": "comparisons",
    "curate_summary": "summaries",
    "failures": "results",
    "find_run": "runs",
    "read_comparison": "comparisons",
    "read_summary": "summaries",
    "results_table": "tables",
    "run": "runs",
    "summarise": "summaries",
    "SweepResult": "sweeps.driver",
    "sweep": "sweeps.driver",
}


def __getattr__(name: str) -> Any:
    # The command line and the notebook runner live in this package too and should not pay for torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
