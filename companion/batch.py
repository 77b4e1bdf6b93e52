"""One batch: all sweeps of this companion in their order, what is left of them, and whether tables agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from companion import tuning
from mmsa_lib.errors import unknown_name
from mmsa_lib.experiments.results import SAME_RUN, is_constant, with_code
from mmsa_lib.experiments.sweep_file import Point, read_points, read_sweep
from mmsa_lib.experiments.sweeps import FAILED, FINISHED, duration, read_state, refuse_unbuilt, sweep

ORDER = {
    "tune": "tuning", "main": "main", "ablations": "ablations", "readings": "readings", "missing": "missing",
    "label": "label_scarce", "sensitivity": "sensitivity",
}  # fmt: skip
"""First word of a sweep's file to the folder of its runs, in the order in which sweeps are run; other sweeps are run
where they are named."""

PRESETS = "tuned.yaml"
TOLERANCE = 6e-5
"""Tables have four digits or more."""


class Part(NamedTuple):
    """One sweep: its file, the folder of its runs, its points, how many are finished and failed, minutes for all."""

    file: Path
    runs: Path
    points: Sequence[Point]
    finished: int
    failed: int
    minutes: float | None

    @property
    def left(self) -> float | None:
        """Expected minutes for what is not finished."""
        return None if self.minutes is None else self.minutes * (1 - self.finished / len(self.points))

    def __str__(self) -> str:
        done = f"{self.finished} of {len(self.points)} done" + (f", {self.failed} failed" if self.failed else "")
        left = "" if self.finished == len(self.points) else ", minutes unknown" if self.left is None else ""
        left = left or (f", about {duration(60 * self.left)} left" if self.left else "")
        unbuilt = next((f"; needed first: {point.unbuilt}" for point in self.points if point.unbuilt), "")
        return f"{self.file.stem:<32} {done}{left}{unbuilt}"


def sweep_files(folder: Path, only: Sequence[str] = ()) -> list[Path]:
    """The sweeps in ``folder`` in the order in which they are run.

    Args:
        folder: of YAML files; the presets are none.
        only: whole names, or first words; by default those of :data:`ORDER`.

    Raises:
        UnknownNameError: no sweep is called so.
    """
    words = [*ORDER]
    found = sorted(path for path in folder.glob("*.yaml") if path.name != PRESETS)
    found.sort(key=lambda path: words.index(_word(path)) if _word(path) in words else len(words))
    for name in only:
        if name not in {known for path in found for known in (path.stem, _word(path))}:
            raise unknown_name("sweep", name, {*words, *(path.stem for path in found)})
    return [path for path in found if {path.stem, _word(path)} & set(only or ORDER)]


def _word(path: Path) -> str:
    return path.stem.partition("_")[0]


def part(file: Path, runs: Path) -> Part:
    """Where the sweep in ``file`` stands, its runs in their folder below ``runs``."""
    folder = (runs / ORDER.get(_word(file), file.stem)).resolve()
    points = read_points(file)
    states = [read_state(folder, point).state for point in points]
    return Part(file, folder, points, states.count(FINISHED), states.count(FAILED), read_sweep(file).minutes)


def total(parts: Sequence[Part]) -> str:
    """One line on all parts together."""
    points, done = sum(len(own.points) for own in parts), sum(own.finished for own in parts)
    unknown = ", ".join(own.file.stem for own in parts if own.left is None)
    minutes = sum(own.left or 0 for own in parts)
    rest = "" if done == points else f", about {duration(60 * minutes)} left with two workers"
    return f"{len(parts)} sweeps, {done} of {points} runs done{rest}{f' (without {unknown})' if unknown else ''}"


def run_all(
    files: Sequence[Path], runs: Path, tables: Path, workers: int | None, say: Callable[[str], None]
) -> list[Path]:
    """Run the sweeps that are not finished, and choose the presets once their trials are there.

    Args:
        files: sweeps, in their order.
        runs: folder of the folders of runs.
        tables: folder of the curated tables; ``tuning.csv`` goes there, the presets beside their sweep.
        workers: notebooks at a time.
        say: is told what is done.

    Returns:
        Sweeps of which a point is not finished. A trial of the tuning that failed is merely not chosen.

    Raises:
        DataError: data are not built; before anything runs.
    """
    refuse_unbuilt([point for file in files for point in read_points(file)])
    lacking = []
    for file in files:
        standing = part(file, runs)  # read now: the presets may be new
        say(str(standing))
        result = sweep(file, runs=standing.runs, workers=workers)
        say(result.summary())
        tunes = _word(file) == "tune"
        if any(point.state.state != FINISHED for point in result.points if not (tunes and point.state.state == FAILED)):
            lacking.append(file)
        elif tunes:
            chosen = tuning.write(result.runs, tables / "tuning.csv", file.with_name(PRESETS))
            say(f"{PRESETS}: {len(chosen)} presets chosen by validation MAE")
    return lacking


def contradictions(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """What keeps tables from being one batch, in words; empty where they are.

    Rows of results with known code are looked at: one run of a configuration, data set and seed has one value of a
    metric in all tables, all runs come from one code that methods share, and all of a method from one code.

    Args:
        tables: name to any table of ``data/results``; those that are no rows of results pass.
    """
    keys = [*SAME_RUN, "protocol", "level", "split", "metric"]
    parts = [
        with_code(table).assign(table=name)
        for name, table in tables.items()
        if {"run_id", "core_code", "value", *keys} <= set(table.columns)
    ]
    if not parts:
        return []
    rows = pd.concat(parts, ignore_index=True)
    rows = rows[~is_constant(rows) & (rows["core_code"] != "")]
    found = []
    for who, codes in [("all runs", rows["core_code"]), *rows.groupby("method")["method_code"]]:
        first = codes.drop_duplicates()
        places = ", ".join(f"{code} ({rows['table'][position]})" for position, code in first.items())
        found += [f"{who}: different code: {places}"] if len(first) > 1 else []
    values = rows.dropna(subset=["value"]).groupby(keys)["value"]
    spread = values.transform("max") - values.transform("min")
    apart = rows.loc[spread.index[spread > TOLERANCE]]
    for _, own in apart.groupby(keys):
        first = own.iloc[0]
        cell = " ".join(str(first[name]) for name in ("method", "changes", "dataset", "seed", "protocol", "metric"))
        told = ", ".join(f"{row.value:.6g} in {row.table}" for row in own.itertuples())
        found.append(f"{cell}: {told}")
    return found
