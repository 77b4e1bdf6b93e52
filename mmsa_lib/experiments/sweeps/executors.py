"""Who executes the points of a sweep. All executors do the same work (:func:`execute_point`) and only report it.

What is finished is decided by the files that the work leaves, never by what an executor heard. So one executor may die,
and another may go on where it stopped.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.sweeps.execution import BUSY, execute_point
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.experiments.sweeps.store import State


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
        with self._launcher() as launcher, ThreadPoolExecutor(self.workers) as pool:

            def work(point: Point, patient: bool) -> Outcome:
                options = {"threads": self.threads, "wait": patient, "launcher": launcher}
                return Outcome(point, *execute_point(point, runs, **options))

            waiting = list(reversed(points))
            busy: list[Point] = []
            running: set[Future[Outcome]] = set()
            try:
                while running or ((waiting or busy) and not stop.is_set()):
                    while len(running) < self.workers and not stop.is_set() and (waiting or busy):
                        # What another process works on comes last; by then it may be finished.
                        patient = not waiting
                        running.add(pool.submit(work, busy.pop(0) if patient else waiting.pop(), patient))
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        outcome = future.result()
                        if outcome.state.state == BUSY:
                            busy.append(outcome.point)
                        else:
                            yield outcome
            finally:
                stop.set()

    def _launcher(self) -> AbstractContextManager[Any]:
        if not self.warm:
            return nullcontext()
        from mmsa_lib.experiments.warm_process import WarmLauncher

        return WarmLauncher(environment={"OMP_NUM_THREADS": str(self.threads)})
