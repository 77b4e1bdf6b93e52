"""One point of a sweep, executed once, whoever asks: the work that every executor does."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import Timeout

from mmsa_lib.errors import DataError, MMSAError
from mmsa_lib.experiments.files import RUN_LOG, logged_runs
from mmsa_lib.experiments.notebook_process import Launcher
from mmsa_lib.experiments.notebooks import CellFailure, execute
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.experiments.sweeps.store import (
    FAILED,
    FINISHED,
    NOTEBOOK,
    State,
    clear,
    point_lock,
    read_state,
    record_failure,
    record_success,
)

BUSY = "busy"
"""State of a point that another process is working on."""

PASSING_AT_MOST = 5
"""So often a point is repeated unasked; what is killed each time is not repeated for ever."""

_PASSING_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE)
PASSING_REASONS = tuple(os.strerror(code) for code in _PASSING_CODES)
"""A full or broken disk. As a killed process it comes from outside the notebook, and a rerun repeats it unasked."""


def execute_point(
    point: Point,
    runs: Path,
    *,
    threads: int = 1,
    wait: float = -1,
    launcher: Launcher | None = None,
    known: State | None = None,
) -> tuple[State, bool]:
    """Execute ``point`` unless it is finished.

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
            environment = {**thread_variables(threads), "MMSA_LIB_RUNS": str(runs)}
            return _execute(point, runs, environment, launcher), True
    except Timeout:
        return State(BUSY), False
    except (MMSAError, OSError) as error:  # a folder that can't be written, a full disk
        return State(FAILED, error=type(error).__name__, message=_one_line(error), passing=_is_passing(error)), True


def _execute(point: Point, runs: Path, environment: Mapping[str, str], launcher: Launcher | None) -> State:
    times = read_state(runs, point).times
    folder = clear(runs, point)
    log = folder / "runs.log"
    started = time.monotonic()
    result = execute(
        point.notebook, point.parameters, folder / NOTEBOOK,
        timeout=point.timeout, environment={**environment, RUN_LOG: str(log)}, launcher=launcher,
    )  # fmt: skip
    seconds = time.monotonic() - started
    if result.failure is not None:
        return record_failure(runs, point, failed_state(result.failure, seconds, times))
    made = logged_runs(log)
    log.unlink(missing_ok=True)
    return record_success(runs, point, made, seconds)


def failed_state(failure: CellFailure, seconds: float = 0.0, times: int = 0) -> State:
    """The state of a point whose notebook did not run to its end, after it was killed ``times`` times before."""
    times = times + 1 if failure.killed else 0
    passing = failure.killed or any(reason in failure.message for reason in PASSING_REASONS)
    message = failure.message
    if times >= PASSING_AT_MOST:
        passing, message = False, f"{message}; killed {times} times, it is repeated only with --retry-failed"
    return State(
        FAILED, seconds=round(seconds, 3), cell=failure.cell, source=failure.source, error=failure.error,
        message=message, passing=passing, times=times,
    )  # fmt: skip


def thread_variables(threads: int) -> dict[str, str]:
    """Variables that give a notebook's process so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def met_full_disk(state: State, runs: Path) -> bool:
    """Whether a point failed because nothing more can be written below ``runs``, so that the others would fail too."""
    full = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    return str(runs) in state.message and any(reason in state.message for reason in full)


def _is_passing(error: BaseException) -> bool:
    cause = error.__cause__ if isinstance(error, DataError) else error
    return isinstance(cause, OSError) and cause.errno not in (errno.EACCES, errno.EPERM, errno.ENOTDIR)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
