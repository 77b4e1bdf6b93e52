"""One process per notebook: a private folder, a private environment, a time limit and a journal to read afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from mmsa_lib.experiments import notebook_worker

# A Unix socket has at most 104 (macOS) or 108 (Linux) bytes of path; "/mmsa-xxxxxxxx/socket-5" and a zero take 24.
_PARENT_LIMIT = 80
# Settings of the user that would make a run differ from one machine to the next.
_NOT_INHERITED = ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP")
PRIVATE = {
    "JUPYTER_DATA_DIR": "jupyter",
    "JUPYTER_CONFIG_DIR": "jupyter",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
}
"""Variables that name a place in the private folder of a run."""
REQUEST, WORK, STDERR = "request.json", "work", "stderr.txt"
_JOURNAL = "journal.jsonl"
_PREFIX, _OWNER = "mmsa-", "owner.lock"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder whose path is short enough for sockets; removed afterwards.

    If this process is killed before, :func:`remove_leftovers` of a later one removes it.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_parent()))
    lock = FileLock(folder / f"new.{_OWNER}", thread_local=False)
    try:
        lock.acquire()
        (folder / f"new.{_OWNER}").rename(folder / _OWNER)  # under this name it is locked from the first moment on
        yield folder
    finally:
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers() -> None:
    """Remove the private folders of processes that were killed; the system has freed their locks."""
    for folder in _parent().glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):
            if (folder / _OWNER).is_file():
                with FileLock(folder / _OWNER, thread_local=False).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _parent() -> Path:
    parent = tempfile.gettempdir()
    return Path(parent if len(os.fsencode(parent)) <= _PARENT_LIMIT else "/tmp")  # short on every Unix


class Launcher(Protocol):
    """What :func:`mmsa_lib.experiments.notebooks.execute` runs a notebook with, for instance warm kernels."""

    def run_worker(
        self, notebook: Path, parameters: dict[str, Any], folder: Path, timeout: float, environment: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        """What :func:`run_worker` of this module does."""


class ColdLauncher:
    """Starts each run in a new process; those that still run when it is closed are killed."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._closed = False
        self._lock = threading.Lock()

    def run_worker(
        self, notebook: Path, parameters: dict[str, Any], folder: Path, timeout: float, environment: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        """As :func:`run_worker` of this module."""
        return run_worker(notebook, parameters, folder, timeout, environment, started=self._add)

    def close(self) -> None:
        """Kill what runs, and from now on whatever is started."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    def _add(self, process: subprocess.Popen) -> None:
        with self._lock:
            self._running = {process, *(other for other in self._running if other.returncode is None)}
            if self._closed:
                process.kill()


def run_worker(
    notebook: Path,
    parameters: dict[str, Any],
    folder: Path,
    timeout: float,
    environment: Mapping[str, str],
    *,
    started: Callable[[subprocess.Popen], None] = lambda process: None,
) -> tuple[list[dict[str, Any]], str]:
    """Run the worker process in ``folder``; its journal, and how the process ended (one line, empty if well).

    ``started`` is called with the process as soon as it runs.
    """
    write_request(notebook, parameters, folder)
    # By path, because the module needs nothing of this package; -P keeps the modules beside it from shadowing others.
    command = [sys.executable, "-P", notebook_worker.__file__, str(folder / REQUEST)]
    with (folder / STDERR).open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=folder / WORK,
            env=worker_environment(folder, environment),
            stdin=subprocess.PIPE,  # closes when this process ends, and the worker ends with it
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            started(process)
            code = process.wait(timeout)
            end = how_it_ended(code, folder)
        except subprocess.TimeoutExpired:
            end = too_late(timeout)
        finally:
            process.kill()  # its kernel notices within a second and ends as well
            process.wait()
            process.stdin.close()
    return read_journal(folder), end


def write_request(notebook: Path, parameters: dict[str, Any], folder: Path) -> None:
    """Put into ``folder`` what a worker reads: the request, and an empty folder to work in."""
    files = {"output": str(folder / "executed.ipynb"), "journal": str(folder / _JOURNAL)}
    request = {"notebook": str(notebook), "parameters": parameters, "socket": str(folder / "socket"), **files}
    (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    (folder / WORK).mkdir(exist_ok=True)


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """The events that a worker wrote down, as far as it came."""
    journal = folder / _JOURNAL
    lines = journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.exists() else []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:  # a full disk cut it off
            break
    return events


def how_it_ended(code: int, folder: Path) -> str:
    """One line about a worker that ended with ``code`` (negative: a signal), empty if it ended well."""
    return "" if code == 0 else f"the process ended with exit code {code}: {last_line(folder / STDERR)}"


def by_signal(status: int | None) -> bool:
    """Whether a process with this exit status was ended by a signal, or says so as shells and containers do."""
    return status is not None and (status < 0 or status in (128 + signal.SIGKILL, 128 + signal.SIGTERM))


def too_late(timeout: float) -> str:
    """One line about a worker that was stopped after ``timeout`` seconds."""
    return f"Timeout: not finished after {timeout:g} s"


def worker_environment(folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Variables of the worker: no settings, start-up files or kernels of the user, no dates in figures."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    private = {name: str(folder / place) for name, place in PRIVATE.items()}
    return {**inherited, **private, "SOURCE_DATE_EPOCH": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **extra}


def last_line(path: Path) -> str:
    """The last line of a file of messages."""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
