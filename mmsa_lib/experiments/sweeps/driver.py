"""Run a sweep: execute what is missing, skip what is finished, report what failed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.experiments.notebook_process import remove_leftovers
from mmsa_lib.experiments.sweeps.execution import met_full_disk
from mmsa_lib.experiments.sweeps.executors import Executor, LocalExecutor, Outcome
from mmsa_lib.experiments.sweeps.points import Point, choose, read_points
from mmsa_lib.experiments.sweeps.progress import Progress, describe
from mmsa_lib.experiments.sweeps.store import FAILED, FINISHED, MISSING, State, point_folder, read_state
from mmsa_lib.paths import runs_folder

RAN, BEFORE, NOT_RUN = "ran", "finished before", "not run"
EXECUTORS = ("local", "dask")


@dataclass(frozen=True)
class PointResult:
    """One point of a sweep at its end.

    Attributes:
        point: what was asked for.
        state: where it stands on disk.
        outcome: ``ran``, ``finished before``, ``failed`` or ``not run``.
    """

    point: Point
    state: State
    outcome: str


@dataclass(frozen=True)
class SweepResult:
    """What a sweep did.

    Attributes:
        file: the sweep's file.
        runs: the folder of runs.
        points: all its points, in the order of the file.
    """

    file: Path
    runs: Path
    points: tuple[PointResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every point is finished."""
        return all(result.state.state == FINISHED for result in self.points)

    @property
    def failed(self) -> tuple[PointResult, ...]:
        return tuple(result for result in self.points if result.state.state == FAILED)

    @property
    def table(self) -> pd.DataFrame:
        """One row per point: id, block, ablation, outcome, seconds, runs, cell, error, message, and its parameters."""
        rows = [
            {
                "id": r.point.id, "block": r.point.block, "ablation": r.point.ablation, "outcome": r.outcome,
                "seconds": r.state.seconds, "runs": " ".join(r.state.runs), "cell": r.state.cell,
                "error": r.state.error, "message": r.state.message, **r.point.varied,
            }
            for r in self.points
        ]  # fmt: skip
        return pd.DataFrame(rows).astype({"cell": "Int64"})

    def summary(self) -> str:
        """How many ran, were finished before, failed or were left; then each failure with its cell."""
        names = (RAN, BEFORE, FAILED, NOT_RUN)
        count = {name: sum(r.outcome == name for r in self.points) for name in names}
        lines = [f"{self.file.name}: " + ", ".join(f"{count[name]} {name}" for name in names if count[name])]
        for result in self.failed:
            folder = point_folder(self.runs, result.point)
            lines.append(f"  failed  {result.point.id}  {result.point.label}")
            lines.append(f"          {describe(result.state)}; see {folder}")
        old = sum(r.outcome == FAILED and not r.state.passing for r in self.points)
        if old:
            lines.append("  --retry-failed repeats what failed; what was killed or met a full disk is repeated unasked")
        return "\n".join(lines)


def sweep(
    file: Path | str,
    executor: str | Executor = "local",
    *,
    runs: Path | str | None = None,
    only: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
    retry_failed: bool = False,
    keep_going: bool = True,
    report: Callable[[str], None] | None = None,
    **options: Any,
) -> SweepResult:
    """Execute the sweep in a YAML file; a finished point is skipped, so a repeated call does what is missing.

    A failed point is left as it is, unless it failed for a reason outside of it (a killed process, a full disk) or
    ``retry_failed`` asks for it. Several sweeps may work on one folder at once.

    Args:
        file: see :mod:`mmsa_lib.experiments.sweeps.definition`.
        executor: ``local``, ``dask``, or an object with the methods of :class:`Executor`.
        runs: folder of runs, by default :func:`mmsa_lib.paths.runs_folder`.
        only: see :func:`mmsa_lib.experiments.sweeps.points.choose`.
        shard: ``(k, n)``: only every n-th point, from the k-th on, as one task of a batch array.
        retry_failed: repeat what failed.
        keep_going: go on after a failure; else nothing new is started after the first. A full disk ends the sweep in
            any case.
        report: is called with each line of progress; by default they go to standard error.
        **options: of the executor, for instance ``workers=4, threads=2``.

    Raises:
        ConfigError, UnknownNameError, DataError: before anything runs: a mistake in the file, data that are not built,
            a folder of runs that can't be made.
    """
    file, folder = Path(file), Path(runs or runs_folder()).resolve()
    say = report or (lambda line: print(line, file=sys.stderr, flush=True))
    chosen = select(read_points(file), only, shard)
    states = {point.id: read_state(folder, point) for point in chosen}
    todo = [point for point in chosen if to_do(states[point.id], retry_failed)]
    refuse_unbuilt(todo)
    runner = make_executor(executor, **options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write runs to {folder}: {error.strerror}; choose another folder") from error
    executed: set[str] = set()
    remove_leftovers()
    if todo:
        finished = sum(state.state == FINISHED for state in states.values())
        at_once = f"{runner.workers} at a time, " if runner.workers else ""
        for point in todo:
            if states[point.id].state == MISSING and states[point.id].message:
                say(f"{point.id}  {point.label}: {states[point.id].message}; it is made again")
        say(f"{file.name}: {len(todo)} to run, {finished} finished before, {at_once}in {folder}")
        # Closed also where a notebook keeps the traceback of a Ctrl-C, and with it this frame: nothing must run on.
        try:
            with closing(_outcomes(runner, todo, folder, keep_going, say)) as outcomes:
                for outcome in outcomes:
                    states[outcome.point.id] = outcome.state
                    executed |= {outcome.point.id} if outcome.executed else set()
        finally:
            remove_leftovers()  # of workers that were killed
    results = [PointResult(p, states[p.id], _outcome(states[p.id], p.id in executed)) for p in chosen]
    return SweepResult(file, folder, tuple(results))


def select(points: list[Point], only: Sequence[str] = (), shard: tuple[int, int] | None = None) -> list[Point]:
    """The points that ``only`` and ``shard`` leave.

    Raises:
        ConfigError: a shard that does not exist.
    """
    if only:
        points = choose(points, only)
    if shard is None:
        return points
    number, count = shard
    if not 0 <= number < count:
        raise ConfigError(
            f"shard {number}/{count} does not exist; the first is 0/{count}, the last {count - 1}/{count}"
        )
    return points[number::count]


def to_do(state: State, retry_failed: bool) -> bool:
    """Whether a point in ``state`` is to be executed."""
    return state.state == MISSING or (state.state == FAILED and (retry_failed or state.passing))


def refuse_unbuilt(points: Sequence[Point]) -> None:
    """Raise a :class:`DataError` if a point needs data that are not there."""
    reasons = list(dict.fromkeys(point.unbuilt for point in points if point.unbuilt))
    if reasons:
        raise DataError("; ".join(reasons))


def make_executor(executor: str | Executor, **options: Any) -> Executor:
    """The executor of that name with its options.

    Raises:
        UnknownNameError: no such executor; ConfigError: an option that it does not have, or a bad value.
    """
    if not isinstance(executor, str):
        return executor
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if executor == "dask":
        from mmsa_lib.experiments.sweeps.dask_executor import DaskExecutor as chosen
    else:
        chosen = LocalExecutor
    try:
        return chosen(**options)
    except TypeError as error:
        raise ConfigError(f"executor {executor}: {error}") from None


def _outcomes(runner: Executor, todo: list[Point], folder: Path, keep_going: bool, say: Callable[[str], None]):
    progress, stop = Progress(todo, runner.workers, say), threading.Event()
    for outcome in runner.outcomes(todo, folder, stop):
        progress.workers = runner.workers  # those of a cluster are known once it answers
        progress.add(outcome)
        if outcome.state.state != FINISHED and not stop.is_set():
            if met_full_disk(outcome.state, folder):
                say(f"the disk of {folder} is full; nothing new is started; free space and repeat the command")
                stop.set()
            elif not keep_going:
                say("stopping after a failure; what runs already is finished (--keep-going goes on)")
                stop.set()
        yield outcome


def _outcome(state: State, executed: bool) -> str:
    if state.state == FINISHED:
        return RAN if executed else BEFORE
    return FAILED if state.state == FAILED else NOT_RUN


__all__ = ["Outcome", "PointResult", "SweepResult", "sweep"]
