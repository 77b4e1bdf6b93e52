"""The server of warm kernels, seen from the process that wants them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from mmsa_lib.experiments.notebook_process import (
    STDERR,
    by_signal,
    how_it_ended,
    last_line,
    private_folder,
    too_late,
    worker_environment,
)

_STARTS_WITHIN = 600.0  # seconds; a busy machine with a cold disk needs minutes
_ENDS_WITHIN = 10.0


class ServerProcess:
    """A process that kernels are forked from.

    Attributes:
        reason: why it cannot fork, empty if it can.
        died: it was killed while it started, and another one may fare better.
        users: how many runs it has been chosen for and has not finished.
    """

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        self.users = 0
        self.reason = ""
        self.died = False
        self._ended: dict[int, Future[int | None]] = {}
        self._count = 0
        self._gone = False
        self._lock = threading.Lock()
        self._files: dict[str, list[int]] = {}
        self._leave = ExitStack()
        self._folder = self._leave.enter_context(private_folder())
        with (self._folder / STDERR).open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mmsa_lib.experiments.warm_server", *imports],
                cwd=self._folder,
                env=worker_environment(self._folder, environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a Ctrl-C in the terminal is for this process, which then ends it
            )
        self._ready: Future[dict[str, Any] | None] = Future()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Wait for the imports; a server that is of no use is closed."""
        try:
            greeting = self._ready.result(_STARTS_WITHIN)
            if greeting is None:
                self.died = by_signal(self._process.wait())
                self.reason = f"the server of kernels ended: {last_line(self._folder / STDERR)}"
            else:
                self.reason, self._files = greeting["reason"], greeting["files"]
        except TimeoutError:
            self.reason = f"the server of kernels did not start within {_STARTS_WITHIN:g} s"
        finally:
            if self.reason or not self._ready.done():
                self.close()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def stale(self) -> bool:
        """Whether a module of this library that it has loaded is no longer what is on disk."""
        return any(_stamp(path) != tuple(stamp) for path, stamp in self._files.items())

    def run(self, folder: Path, environment: Mapping[str, str], timeout: float) -> str:
        """Run the job that ``folder`` asks for; how it ended, in one line, empty if well.

        Raises:
            BrokenPipeError: the server is gone and has started nothing.
        """
        with self._lock:
            if self._gone:
                raise BrokenPipeError
            self._count += 1
            job, ended = self._count, Future()
            self._ended[job] = ended
        try:
            self._send(job=job, folder=str(folder), environment=dict(environment))
            code = ended.result(timeout)
            return "the server of kernels ended, and its jobs with it" if code is None else how_it_ended(code, folder)
        except TimeoutError:
            return too_late(timeout)
        finally:
            if not ended.done():
                self._stop(job, ended)

    def close(self) -> None:
        """End the server and all its jobs."""
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        self._leave.close()

    def _stop(self, job: int, ended: Future[int | None]) -> None:
        try:
            self._send(stop=job)
            ended.result(_ENDS_WITHIN)
        except (OSError, TimeoutError):
            self._process.kill()  # jobs end with their server

    def _send(self, **message: Any) -> None:
        with self._lock:
            try:
                self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
                self._process.stdin.flush()
            except ValueError:  # closed
                raise BrokenPipeError from None

    def _read(self) -> None:
        """Pass on what the server says, until it ends."""
        for line in self._process.stdout:
            message = json.loads(line)
            if "reason" in message:
                self._ready.set_result(message)
            else:
                self._ended.pop(message["job"]).set_result(message["code"])
        if not self._ready.done():
            self._ready.set_result(None)
        with self._lock:
            self._gone = True
            for ended in self._ended.values():
                ended.set_result(None)


def _stamp(path: str) -> tuple[int, int] | None:
    """Time and size of a file, ``None`` if it is gone."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size
