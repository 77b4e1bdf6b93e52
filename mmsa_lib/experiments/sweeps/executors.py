"""Who executes the points of a sweep. All executors do the same work (:func:`execute_point`) and only report it.

What is finished is decided by the files that the work leaves, never by what an executor heard. So one executor may die,
and another may go on where it stopped.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.experiments.notebook_process import ColdLauncher, Launcher
from mmsa_lib.experiments.sweeps.execution import BUSY, execute_point, thread_variables
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.experiments.sweeps.store import State, read_state

PATIENCE = 1.0
"""Seconds for which a point that another process works on is waited for, before the next such point is looked at."""


class Outcome(NamedTuple):
    """What an executor reports of one point: its state, and whether it was executed now."""

    point: Point
    state: State
    executed: bool


class Executor(Protocol):
    """Something that executes points."""

    workers: int

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        """Execute ``points`` in their order and yield each as it ends; start none once ``stop`` is set."""


class LocalExecutor:
    """Processes on this machine, ``workers`` at a time, each notebook in one of its own.

    Args:
        workers: notebooks at a time; by default as many as fit the cores.
        threads: of PyTorch in each of them. Numbers may differ in their last digits between numbers of threads.
        warm: start kernels from a process that has imported the heavy libraries once; else every kernel starts cold.
    """

    def __init__(self, workers: int | None = None, threads: int = 1, *, warm: bool = True) -> None:
        if threads < 1 or (workers is not None and workers < 1):
            raise ConfigError(f"workers and threads must be at least 1, not {workers} and {threads}")
        self.workers = workers or max(1, (os.cpu_count() or 1) // threads)
        self.threads = threads
        self.warm = warm

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        known = {point.id: read_state(runs, point) for point in points}
        # The launcher is left first: what still runs then, because of an error or Ctrl-C, ends at once.
        with ThreadPoolExecutor(self.workers) as pool, self._launcher() as launcher:

            def work(point: Point, seconds: float) -> Outcome:
                options = {"threads": self.threads, "wait": seconds, "launcher": launcher}
                return Outcome(point, *execute_point(point, runs, known=known[point.id], **options))

            waiting = list(reversed(points))
            busy: list[Point] = []
            running: set[Future[Outcome]] = set()
            while running or ((waiting or busy) and not stop.is_set()):
                while len(running) < self.workers and not stop.is_set() and (waiting or busy):
                    # What another process works on comes last; by then it may be finished.
                    point, seconds = (waiting.pop(), 0) if waiting else (busy.pop(0), PATIENCE)
                    running.add(pool.submit(work, point, seconds))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = future.result()
                    if outcome.state.state == BUSY:
                        busy.append(outcome.point)
                    else:
                        yield outcome

    @contextmanager
    def _launcher(self) -> Iterator[Launcher]:
        if self.warm:
            from mmsa_lib.experiments.warm_process import WarmLauncher

            inner: Any = WarmLauncher(environment=thread_variables(self.threads))
        else:
            inner = ColdLauncher()
        launcher = _Interruptible(inner)
        try:
            # Asked now, so that the imports in advance do not count as time of the first points.
            if self.warm and inner.reason:
                print(f"every kernel starts cold: {inner.reason}", file=sys.stderr)
            yield launcher
        finally:
            launcher.left.set()
            inner.close()


class _Interruptible:
    """A launcher whose runs count as never made once it was left: they were killed because the sweep ends."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.left = threading.Event()

    def run_worker(self, *request: Any) -> tuple[list[dict[str, Any]], str]:
        if not self.left.is_set():
            result = self.inner.run_worker(*request)
            if not self.left.is_set():
                return result
        raise RunError("the sweep was interrupted")
