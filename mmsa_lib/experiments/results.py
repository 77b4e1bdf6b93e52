"""Many runs as one tidy table, and small curated tables for the repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmsa_lib.data.masks import level_name
from mmsa_lib.errors import DataError, unknown_name
from mmsa_lib.experiments import files

SAME_RUN = ("method", "variant", "dataset", "fold", "seed")
"""Runs that agree in these answer the same question; with several of them, code or data changed in between."""

DECIMALS = 6
"""Digits after the point in curated tables: more than a table shows, fewer than machines disagree on."""


def collect(folder: Path | str, *, superseded: bool = False) -> pd.DataFrame:
    """All finished runs below ``folder``: one row per run, protocol cell, split and metric, then constant baselines.

    Of runs that differ only in the code or the data that they were made with, the newest one counts; an older one still
    counts under protocols that the newer one was not tested with.

    Args:
        folder: a folder of runs, or one run.
        superseded: keep the older ones as well.

    Returns:
        Columns run_id, method, variant, dataset, fold, seed, protocol, level, split, metric, value. Constant baselines
        have no run_id and no seed.

    Raises:
        DataError: there is no finished run.
    """
    found = finished_runs(folder)
    metrics = [files.read_table(path / files.METRICS) for path in found]
    if not superseded:
        metrics = _newest(metrics)
    constants = [
        files.read_table(path / files.CONSTANTS) for path, table in zip(found, metrics, strict=True) if len(table)
    ]
    frame = pd.concat([*metrics, *constants], ignore_index=True).drop_duplicates(ignore_index=True)
    return _sorted(frame)


def _newest(metrics: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Each table, the oldest first, without the protocols that a later table of the same run has."""
    answered: set[tuple] = set()
    kept = []
    for table in reversed(metrics):
        own = [(*table[list(SAME_RUN)].iloc[0], protocol) for protocol in table["protocol"]]
        kept.append(table[[key not in answered for key in own]])
        answered |= set(own)
    return kept[::-1]


def finished_runs(folder: Path | str) -> list[Path]:
    """Folders of finished runs in ``folder`` (or ``folder`` itself), the oldest first.

    Raises:
        DataError: there is none.
    """
    folder = Path(folder)
    marks = [folder / files.DONE] if (folder / files.DONE).is_file() else list(folder.glob(f"*/{files.DONE}"))
    if not marks:
        raise DataError(f"no finished run in {folder}; make one with: mmsa-lib train METHOD --runs {folder}")
    return [mark.parent for mark in sorted(marks, key=lambda mark: (mark.stat().st_mtime_ns, mark.parent.name))]


def failures(folder: Path | str) -> pd.DataFrame:
    """Runs below ``folder`` that failed: run_id, method, dataset, fold, seed, error, message."""
    rows = []
    for file in sorted(Path(folder).glob(f"*/{files.ERROR}")):
        stored, error = files.read_json(file.parent / files.CONFIG), files.read_json(file)
        config = stored["config"]
        rows.append(
            {
                "run_id": file.parent.name,
                **{key: config[key] for key in ("method", "dataset", "fold", "seed")},
                "error": error["type"],
                "message": error["message"],
            }
        )
    return pd.DataFrame(rows, columns=["run_id", "method", "dataset", "fold", "seed", "error", "message"])


def read_results(source: Path | str) -> pd.DataFrame:
    """Results from a folder of runs, or from a table that :func:`curate` wrote.

    Raises:
        DataError: nothing there, or a table without the columns of results.
    """
    source = Path(source)
    if not source.is_file():
        return collect(source)
    frame = files.read_table(source)
    missing = [column for column in files.METRIC_COLUMNS if column not in frame]
    if missing:
        raise DataError(f"{source} is no table of results: column {missing[0]!r} is missing")
    return frame


def curate(source: Path | str | pd.DataFrame, target: Path | str, **chosen: Any) -> pd.DataFrame:
    """Write the rows behind a table or figure to a small CSV, with run identifiers and seeds, always in one order.

    Args:
        source: a folder of runs, a curated table or a frame of :func:`collect`.
        target: the CSV file.
        **chosen: values that a column must have (one, or a list), for instance ``split="test"``,
            ``method=["self_mm", "text_only"]``. Constant baselines stay whatever ``method``, ``variant``, ``seed``,
            ``protocol`` and ``level`` are asked for.

    Returns:
        The rows that were written.

    Raises:
        DataError: nothing is left; UnknownNameError: no such column.
    """
    frame = source if isinstance(source, pd.DataFrame) else read_results(source)
    frame = frame.assign(level=frame["level"].map(level_name))
    for column, values in chosen.items():
        if column not in files.METRIC_COLUMNS:
            raise unknown_name("column", column, files.METRIC_COLUMNS)
        wanted = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
        if column == "level":
            wanted = [level_name(level) for level in wanted]
        keep = frame[column].isin(wanted)
        if column in ("run_id", "method", "variant", "seed", "protocol", "level"):
            keep |= frame["run_id"] == ""
        frame = frame[keep]
    if not (frame["run_id"] != "").any():
        raise DataError(f"no run is left after choosing {chosen}; nothing was written to {target}")
    frame = _sorted(frame.assign(value=frame["value"].round(DECIMALS)).drop_duplicates())
    files.write_table(Path(target), frame)
    return frame


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs first, then constants; inside them by everything but the metric, which keeps the order of its definition."""
    keys = [*SAME_RUN, "run_id", "protocol", "level", "split"]
    ordered = frame.assign(_constant=frame["run_id"] == "").sort_values(["_constant", *keys], kind="stable")
    return ordered[list(files.METRIC_COLUMNS)].reset_index(drop=True)
