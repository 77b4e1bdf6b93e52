"""Run a sweep: execute what is missing, skip what is finished, report what failed.

Where a point stands is read from the disk alone, whoever executes it: one sweep may die and another go on, or several
share a folder. ``<runs>/sweep/<point id>/`` holds ``point.json`` (what was executed), ``notebook.ipynb`` (the executed
copy), ``result.json`` (seconds, runs that it made), ``manifest.json`` and, written last, ``DONE``. After a failure it
holds ``error.json`` and ``notebook.failed.ipynb``. Anything else is an execution that was cut off, and is made again.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from filelock import FileLock, Timeout

from mmsa_lib.errors import ConfigError, DataError, MMSAError, unknown_name
from mmsa_lib.experiments.files import (
    DONE,
    ERROR,
    MANIFEST,
    RUN_LOG,
    damaged_files,
    logged_runs,
    read_json,
    run_problem,
    write_json,
    write_manifest,
)
from mmsa_lib.experiments.kernels import Launcher, remove_leftovers
from mmsa_lib.experiments.notebooks import CellFailure, execute
from mmsa_lib.experiments.sweep_file import Point, choose, read_points
from mmsa_lib.experiments.warm import DEFAULT_IMPORTS
from mmsa_lib.files import atomic_path, write_text
from mmsa_lib.paths import runs_folder

POINT, RESULT, NOTEBOOK = "point.json", "result.json", "notebook.ipynb"
FINISHED, FAILED, MISSING, BUSY = "finished", "failed", "missing", "busy"
RAN, BEFORE, NOT_RUN = "ran", "finished before", "not run"
EXECUTORS = ("local", "dask")

PASSING_AT_MOST = 5
"""So often a point is repeated unasked; what is killed each time is not repeated for ever."""
PASSING_REASONS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)))
"""A full or broken disk. As a killed process it comes from outside the notebook, and a rerun repeats it unasked."""
PATIENCE = 1.0
"""Seconds for which a point that another process works on is waited for, before the next such point is looked at."""


@dataclass(frozen=True)
class State:
    """Where a point stands.

    Attributes:
        state: ``finished``, ``failed`` or ``missing``; ``busy`` while another process works on it.
        runs: identifiers of the runs behind a finished point.
        seconds: how long it took.
        cell, source, error, message: of a failure: position of the cell from 1, its first line, what happened.
        passing: the failure came from outside (a killed process, a full disk), so repeating it makes sense.
        times: how often in a row it was killed.
    """

    state: str
    runs: tuple[str, ...] = ()
    seconds: float = 0.0
    cell: int | None = None
    source: str = ""
    error: str = ""
    message: str = ""
    passing: bool = False
    times: int = 0

    def __str__(self) -> str:
        place = f"cell {self.cell} (`{self.source}`): " if self.cell is not None else ""
        return f"{place}{self.error}{': ' if self.message else ''}{self.message}"

    def to_do(self, retry_failed: bool) -> bool:
        """Whether the point is to be executed."""
        return self.state == MISSING or (self.state == FAILED and (retry_failed or self.passing))


def point_folder(runs: Path, point: Point) -> Path:
    """The folder of ``point`` below the folder of runs."""
    return runs / "sweep" / point.id


def point_lock(runs: Path, point: Point) -> FileLock:
    """Held by the one process that works on ``point``; the system frees it when that process ends, however it ends."""
    (runs / ".locks").mkdir(parents=True, exist_ok=True)
    return FileLock(runs / ".locks" / f"point-{point.id}.lock")


def read_state(runs: Path, point: Point) -> State:
    """Where ``point`` stands. What is damaged, or rests on a run that is damaged or gone, counts as missing.

    Every file is compared with its hash each time; ``message`` then says what differs.
    """
    folder = point_folder(runs, point)
    if not (folder / DONE).is_file():
        try:
            return State(FAILED, **read_json(folder / ERROR, error=str))
        except (DataError, TypeError):  # none, or cut off while it was written
            return State(MISSING)
    try:
        done = (folder / DONE).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        done = ""
    if done != point.id:
        return State(MISSING, message=f"{folder / DONE} is damaged")
    # Without its manifest, or with one that leaves files out, nothing here could be checked.
    damaged = damaged_files(folder, (POINT, RESULT, NOTEBOOK))
    if damaged == [MANIFEST] or not (folder / MANIFEST).is_file():
        return State(MISSING, message=f"{folder / MANIFEST} is missing or leaves files out")
    if damaged:
        return State(MISSING, message=f"{folder / damaged[0]} differs from its manifest")
    try:
        result = read_json(folder / RESULT, runs=list, seconds=float)
    except DataError:
        return State(MISSING, message=f"{folder / RESULT} is damaged")
    for name in result["runs"]:
        if run_problem(runs / name):
            return State(MISSING, message=f"the run {name} behind it is damaged or gone")
    return State(FINISHED, tuple(result["runs"]), result["seconds"])


def execute_point(
    point: Point,
    runs: Path,
    *,
    threads: int = 1,
    wait: float = -1,
    launcher: Launcher | None = None,
    known: State | None = None,
) -> tuple[State, bool]:
    """Execute ``point`` unless it is finished: the work that every executor does.

    Args:
        point: what to execute.
        runs: the folder of runs; the notebook's runs go there as well.
        threads: of PyTorch and of the numerical libraries, in this run.
        wait: seconds to wait for another process that works on the point, by default as long as it takes; if it
            still does so after that, the state is ``busy``.
        launcher: how the notebook's process is started, see :func:`mmsa_lib.experiments.notebooks.execute`.
        known: where the point stood when it was decided to execute it. Another failure than that one is news from
            another sweep, and is not repeated here.

    Returns:
        Where the point stands now, and whether it was executed here.
    """
    try:
        with point_lock(runs, point).acquire(timeout=wait):
            state = read_state(runs, point)
            failed_elsewhere = state.state == FAILED and not state.passing and known not in (None, state)
            if state.state == FINISHED or failed_elsewhere:
                return state, False
            return _execute(point, runs, thread_variables(threads), launcher, state.times), True
    except Timeout:
        return State(BUSY), False
    except (MMSAError, OSError) as error:  # a folder that can't be written, a full disk, a sweep that ends
        cause = error.__cause__ if isinstance(error, DataError) else error
        passing = isinstance(cause, OSError) and cause.errno not in (errno.EACCES, errno.EPERM, errno.ENOTDIR)
        message = " ".join(str(error).split())
        return State(FAILED, error=type(error).__name__, message=message, passing=passing), True


def thread_variables(threads: int) -> dict[str, str]:
    """Variables that give a notebook's process so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def _execute(point: Point, runs: Path, variables: Mapping[str, str], launcher: Launcher | None, times: int) -> State:
    """Execute ``point`` in an empty folder and write down how that went, ``DONE`` last."""
    folder = point_folder(runs, point)
    shutil.rmtree(folder, ignore_errors=True)
    content = {key: value for key, value in asdict(point).items() if key != "unbuilt"}
    write_json(folder / POINT, {**content, "notebook": Path(point.notebook).name})
    log = folder / "runs.log"
    result = execute(
        point.notebook, point.parameters, folder / NOTEBOOK, timeout=point.timeout, launcher=launcher,
        environment={**variables, "MMSA_LIB_RUNS": str(runs), RUN_LOG: str(log)}, lessons=False,
    )  # fmt: skip
    seconds = round(result.seconds, 3)
    if result.failure is not None:
        state = failed_state(result.failure, seconds, times)
        write_json(folder / ERROR, {key: value for key, value in vars(state).items() if key not in ("state", "runs")})
        return state
    names = [path.name for path in logged_runs(log) if path.parent == runs.resolve()]
    log.unlink(missing_ok=True)
    for name in names:
        with atomic_path(runs / name / NOTEBOOK) as temporary:
            temporary.unlink()
            try:
                os.link(folder / NOTEBOOK, temporary)
            except OSError:  # the file system has no links
                shutil.copyfile(folder / NOTEBOOK, temporary)
    write_json(folder / RESULT, {"runs": names, "seconds": seconds})
    write_manifest(folder, [POINT, RESULT, NOTEBOOK])
    write_text(folder / DONE, point.id + "\n")
    return State(FINISHED, tuple(names), seconds)


def failed_state(failure: CellFailure, seconds: float = 0.0, times: int = 0) -> State:
    """The state of a point whose notebook did not run to its end, after it was killed ``times`` times before."""
    times = times + 1 if failure.killed else 0
    passing = failure.killed or any(reason in failure.message for reason in PASSING_REASONS)
    message = failure.message
    if times >= PASSING_AT_MOST:
        passing, message = False, f"{message}; killed {times} times, it is repeated only with --retry-failed"
    return State(FAILED, (), seconds, failure.cell, failure.source, failure.error, message, passing, times)


class Outcome(NamedTuple):
    """What became of one point: its state, and whether it was executed now."""

    point: Point
    state: State
    executed: bool = False

    @property
    def outcome(self) -> str:
        """``ran``, ``finished before``, ``failed`` or ``not run``."""
        done = RAN if self.executed else BEFORE
        return {FINISHED: done, FAILED: FAILED}.get(self.state.state, NOT_RUN)


class Executor(Protocol):
    """Something that executes points."""

    workers: int

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        """Execute ``points`` in their order and yield each as it ends; start none once ``stop`` is set."""


class LocalExecutor:
    """Processes on this machine, ``workers`` at a time, each notebook in a kernel of its own.

    Args:
        workers: notebooks at a time; by default as many as fit the cores.
        threads: of PyTorch in each of them. Numbers may differ in their last digits between numbers of threads.
        warm: fork kernels from a process that has imported the heavy libraries once; else every kernel starts cold.
    """

    def __init__(self, workers: int | None = None, threads: int = 1, *, warm: bool = True) -> None:
        if threads < 1 or (workers is not None and workers < 1):
            raise ConfigError(f"workers and threads must be at least 1, not {workers} and {threads}")
        self.workers = workers or max(1, (os.cpu_count() or 1) // threads)
        self.threads, self.warm = threads, warm

    def launcher(self) -> Launcher:
        """Starts the notebooks; left when the sweep ends."""
        launcher = Launcher(DEFAULT_IMPORTS if self.warm else None, thread_variables(self.threads))
        try:
            # Asked now, so that the imports in advance do not count as time of the first points.
            if self.warm and (reason := launcher.reason):
                print(f"every kernel starts cold: {reason}", file=sys.stderr)
        except BaseException:  # Ctrl-C meanwhile
            launcher.close()
            raise
        return launcher

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        known = {point.id: read_state(runs, point) for point in points}
        # The launcher is left first: what still runs then, because of an error or Ctrl-C, ends at once.
        with ThreadPoolExecutor(self.workers) as pool, self.launcher() as launcher:

            def work(point: Point, seconds: float) -> Outcome:
                options = {"threads": self.threads, "wait": seconds, "launcher": launcher}
                return Outcome(point, *execute_point(point, runs, known=known[point.id], **options))

            waiting, busy = list(reversed(points)), []
            running: set[Future[Outcome]] = set()
            while running or ((waiting or busy) and not stop.is_set()):
                while len(running) < self.workers and not stop.is_set() and (waiting or busy):
                    # What another process works on comes last; by then it may be finished.
                    point, seconds = (waiting.pop(), 0) if waiting else (busy.pop(0), PATIENCE)
                    running.add(pool.submit(work, point, seconds))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for outcome in (future.result() for future in done):
                    if outcome.state.state == BUSY:
                        busy.append(outcome.point)
                    else:
                        yield outcome


class Progress:
    """One line per finished point, with the time that is left.

    Args:
        points: what is going to be executed.
        workers: how many at a time; may be set anew while the sweep goes on.
        report: is called with each line.
    """

    def __init__(self, points: Sequence[Point], workers: int, report: Callable[[str], None]) -> None:
        self.waiting = {point.id: point.group for point in points}
        self.total, self.workers, self.report = len(points), workers, report
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, outcome: Outcome) -> None:
        """Count ``outcome`` and say so."""
        group, state = self.waiting.pop(outcome.point.id, outcome.point.group), outcome.state
        word = "FAILED" if state.state != FINISHED else "ok  by another process"
        if outcome.executed and state.state == FINISHED:
            self.seconds[group].append(state.seconds)
            word = f"ok {state.seconds:6.1f} s"
        left = self.seconds_left()
        rest = f"   about {duration(left)} left" if self.waiting and left is not None else ""
        self.report(f"[{self.total - len(self.waiting)}/{self.total}] {word} {outcome.point.label}{rest}")
        if state.state != FINISHED:
            self.report(f"        {state}")

    def seconds_left(self) -> float | None:
        """Estimated seconds to the end: points like one that was executed take as long, others the mean."""
        means = {group: sum(values) / len(values) for group, values in self.seconds.items()}
        every = [value for values in self.seconds.values() for value in values]
        if not every:
            return None
        expected = [means.get(group, sum(every) / len(every)) for group in self.waiting.values()]
        return max(sum(expected) / max(1, self.workers), max(expected, default=0.0))


def duration(seconds: float) -> str:
    """``seconds`` as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


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
    points: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether every point is finished."""
        return all(result.state.state == FINISHED for result in self.points)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(result for result in self.points if result.state.state == FAILED)

    def summary(self) -> str:
        """How many ran, were finished before, failed or were left; then each failure with its cell."""
        names = (RAN, BEFORE, FAILED, NOT_RUN)
        count = {name: sum(r.outcome == name for r in self.points) for name in names}
        lines = [f"{self.file.name}: " + ", ".join(f"{count[name]} {name}" for name in names if count[name])]
        for result in self.failed:
            lines.append(f"  failed  {result.point.id}  {result.point.label}")
            lines.append(f"          {result.state}; see {point_folder(self.runs, result.point)}")
        if any(r.outcome == FAILED and not r.state.passing for r in self.points):
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
        file: see :mod:`mmsa_lib.experiments.sweep_file`.
        executor: ``local``, ``dask``, or an object with the methods of :class:`Executor`.
        runs: folder of runs, by default :func:`mmsa_lib.paths.runs_folder`.
        only: see :func:`mmsa_lib.experiments.sweep_file.choose`.
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
    chosen = choose(read_points(file), only, shard)
    results = {point.id: Outcome(point, read_state(folder, point)) for point in chosen}
    todo = [point for point in chosen if results[point.id].state.to_do(retry_failed)]
    refuse_unbuilt(todo)
    if isinstance(executor, str):
        if executor not in EXECUTORS:
            raise unknown_name("executor", executor, EXECUTORS)
        kind: Any = LocalExecutor
        if executor == "dask":
            from mmsa_lib.experiments.clusters import DaskExecutor as kind
        try:
            executor = kind(**options)
        except TypeError as error:
            raise ConfigError(f"executor {executor}: {error}") from None
    make_runs_folder(folder)
    remove_leftovers()
    if todo:
        finished = sum(result.state.state == FINISHED for result in results.values())
        at_once = f"{executor.workers} at a time, " if executor.workers else ""
        for point in todo:
            state = results[point.id].state
            if state.state == MISSING and state.message:
                say(f"{point.id}  {point.label}: {state.message}; it is made again")
        say(f"{file.name}: {len(todo)} to run, {finished} finished before, {at_once}in {folder}")
        # Closed also where a notebook keeps the traceback of a Ctrl-C, and with it this frame: nothing must run on.
        try:
            with closing(_outcomes(executor, todo, folder, keep_going, say)) as outcomes:
                for outcome in outcomes:
                    results[outcome.point.id] = outcome
        finally:
            remove_leftovers()  # of workers that were killed
    return SweepResult(file, folder, tuple(results.values()))


def refuse_unbuilt(points: Sequence[Point]) -> None:
    """Raise a :class:`DataError` if a point needs data that are not there."""
    reasons = list(dict.fromkeys(point.unbuilt for point in points if point.unbuilt))
    if reasons:
        raise DataError("; ".join(reasons))


def make_runs_folder(runs: Path) -> None:
    """Make the folder of runs.

    Raises:
        DataError: it can't be made.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write runs to {runs}: {error.strerror}; choose another folder") from error


def _outcomes(
    executor: Executor, todo: list[Point], folder: Path, keep_going: bool, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """What the executor reports, told on the way; after a reason to stop nothing new is started."""
    progress, stop = Progress(todo, executor.workers, say), threading.Event()
    for outcome in executor.outcomes(todo, folder, stop):
        progress.workers = executor.workers  # those of a cluster are known once it answers
        progress.add(outcome)
        message = outcome.state.message
        full = any(os.strerror(code) in message for code in (errno.ENOSPC, errno.EDQUOT)) and str(folder) in message
        if outcome.state.state != FINISHED and not stop.is_set() and (full or not keep_going):
            stop.set()
            say(f"the disk of {folder} is full; nothing new is started; free space and repeat the command" if full
                else "stopping after a failure; what runs already is finished (--keep-going goes on)")  # fmt: skip
        yield outcome
