"""The process that warm kernels are forked from: ``python -m mmsa_lib.experiments.warm_server MODULE ...``.

It imports the modules once and then forks a job for each line on its standard input. What it must not do, so that
forking is safe and a forked kernel equals a new one: start a thread, open a socket, use the GPU, draw a random number.

Lines in: ``{"job", "folder", "environment"}`` starts a job, ``{"stop": job}`` ends it with all its processes. Lines
out: first ``{"reason", "files"}``, then ``{"job", "code"}`` for each job that ended.
"""

from __future__ import annotations

import builtins
import gc
import importlib
import io
import json
import logging
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

PACKAGE_FOLDER = Path(__file__).resolve().parent.parent
# What a kernel imports before its first cell, and what only the process that runs the notebook needs.
_KERNEL = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "sqlite3",
    "tornado.platform.asyncio",
    "tornado.queues",
)
_JOB = ("papermill", "nbclient", "mmsa_lib.experiments.warm_kernel")
_INLINE = "module://matplotlib_inline.backend_inline"
_THREADS = Path("/proc/self/task")


class Server:
    """Forks jobs and tells how they ended.

    Attributes:
        jobs: number of the job by the pipe that closes when it ends.
        processes: process ids of a job, and of its kernel once that is known, by its number.
    """

    def __init__(self, requests: int, replies: int) -> None:
        self.requests, self.replies = requests, replies
        self.jobs: dict[int, int] = {}
        self.processes: dict[int, list[int]] = {}
        self._unread = b""

    def reply(self, **message: Any) -> None:
        """Send one line; nobody may be left to read it."""
        with suppress(BrokenPipeError):
            os.write(self.replies, json.dumps(message).encode("ascii") + b"\n")

    def serve(self) -> Any:
        """Serve until whoever started this process is gone; returns what to do next in a forked job."""
        starter = os.getppid()
        while os.getppid() == starter:
            ready, _, _ = select.select([self.requests, *self.jobs], [], [], 1.0)
            for pipe in ready:
                if pipe != self.requests:
                    self._hear(pipe)
                    continue
                received = os.read(self.requests, 1 << 16)
                *lines, self._unread = (self._unread + received).split(b"\n")
                if not received:
                    return self._stop_all()
                for line in lines:
                    request = json.loads(line)
                    if "stop" in request:
                        self._stop(request["stop"])
                    elif task := self._fork(request):
                        return task
        return self._stop_all()

    def _fork(self, request: dict[str, Any]) -> Any:
        """Start a job; what to do in the job, nothing in the server."""
        from mmsa_lib.experiments.warm_kernel import run_job

        mine, lifeline = os.pipe()
        server, pid = os.getpid(), os.fork()
        if pid == 0:
            for pipe in (mine, self.requests, self.replies, *self.jobs):
                os.close(pipe)
            return partial(run_job, Path(request["folder"]), request["environment"], lifeline, server)
        os.close(lifeline)
        self.jobs[mine] = request["job"]
        self.processes[request["job"]] = [pid]
        return None

    def _hear(self, pipe: int) -> None:
        """A job names its kernel or has ended."""
        job, received = self.jobs[pipe], os.read(pipe, 64)
        if received:
            self.processes[job].append(int(received))
            return
        os.close(pipe)
        del self.jobs[pipe]
        _, status = os.waitpid(self.processes.pop(job)[0], 0)
        self.reply(job=job, code=os.waitstatus_to_exitcode(status))

    def _stop(self, job: int) -> None:
        """Kill a job, its kernel and what the kernel started; the end of the job is noticed as ever."""
        if job not in self.processes:
            return
        pid, *kernels = self.processes[job]
        os.kill(pid, signal.SIGSTOP)  # from now on it can no longer reap its kernel, whose number stays its own
        for kernel in kernels:
            with suppress(ProcessLookupError):
                if _parent(kernel) == pid:
                    os.killpg(kernel, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)

    def _stop_all(self) -> None:
        for job in self.processes:
            self._stop(job)


def preload(modules: Sequence[str]) -> str:
    """Import what kernels and jobs need; why forking would not be safe, empty if it is."""
    for name in _KERNEL:
        importlib.import_module(name)
    variables = dict(os.environ)
    try:
        with _as_in_a_kernel() as streams:
            for name in modules:
                with suppress(ModuleNotFoundError):  # the notebook that needs it says so
                    importlib.import_module(name)
        changed = {name: value for name, value in os.environ.items() if variables.get(name) != value}
        with warnings.catch_warnings():  # what papermill filters is no business of a notebook
            for name in _JOB:
                importlib.import_module(name)
    except Exception as error:
        return f"{name} cannot be imported in advance: {type(error).__name__}: {' '.join(str(error).split())}"
    changed.pop("MPLBACKEND", None)  # set here and not by a library; ipykernel does it in the kernel
    kernels = sys.modules[_JOB[-1]]
    kernels.reroute.extend(_handlers(streams))
    kernels.set_on_import.update(changed)
    return _unsafe()


@contextmanager
def _as_in_a_kernel() -> Iterator[dict[str, TextIO]]:
    """Let libraries that look on import where they run, as pandas and tqdm do, see a kernel; yields its streams."""
    from ipykernel.iostream import OutStream
    from IPython.core.interactiveshell import InteractiveShell

    shell = type("ZMQInteractiveShell", (), {"kernel": SimpleNamespace(), "config": {"IPKernelApp": {}}})()
    streams = {
        name: io.TextIOWrapper(io.FileIO(place, "w", closefd=False), OutStream.encoding, write_through=True)
        for place, name in ((1, "stdout"), (2, "stderr"))
    }
    os.environ.setdefault("MPLBACKEND", _INLINE)  # ipykernel's default, which matplotlib reads on import
    builtins.get_ipython = lambda: shell
    InteractiveShell._instance = shell
    sys.stdout, sys.stderr = streams["stdout"], streams["stderr"]
    try:
        yield streams
    finally:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        InteractiveShell._instance = None
        del builtins.get_ipython


def _unsafe() -> str:
    """Why a fork of this process might not work as a new process does."""
    for _ in range(20):
        threads = len(list(_THREADS.iterdir()))
        if threads == 1:
            break
        time.sleep(0.05)  # a thread of an import may be about to end
    else:
        return f"{threads - 1} threads run after the imports (does OMP_NUM_THREADS ask for several?)"
    if "torch" in sys.modules:
        pid = os.fork()
        if pid == 0:  # only a forked process can tell
            os._exit(1 if sys.modules["torch"].cuda._is_in_bad_fork() else 0)
        if os.waitpid(pid, 0)[1]:
            return "CUDA is in use after the imports"
    return ""


def _handlers(streams: Mapping[str, TextIO]) -> list[tuple[logging.StreamHandler, str]]:
    """Log handlers that write to one of ``streams``, and to which."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", [])]
    return [(h, name) for h in handlers for name, stream in streams.items() if getattr(h, "stream", None) is stream]


def _stamps() -> dict[str, tuple[int, int]]:
    """Time and size of each module of this package on disk."""
    states = {str(path): path.stat() for path in PACKAGE_FOLDER.rglob("*.py")}
    return {path: (state.st_mtime_ns, state.st_size) for path, state in states.items()}


def _parent(pid: int) -> int:
    """Process id of the parent of ``pid``."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(status.rpartition(")")[2].split()[1])


def main() -> None:
    """Import, serve, and in a forked process go on as job or kernel."""
    server = Server(os.dup(0), os.dup(1))
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    if sys.path and sys.path[0] == os.getcwd():
        del sys.path[0]  # as ipykernel_launcher does, which is started with -m too
    stamps = _stamps()  # before the imports: a file that changes meanwhile is then seen to have changed
    reason = preload(sys.argv[1:])
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("mmsa_lib", "__main__")]
    loaded = {os.path.realpath(module.__file__) for module in ours if getattr(module, "__file__", None)}
    server.reply(reason=reason, files={path: stamp for path, stamp in stamps.items() if path in loaded})
    gc.collect()
    gc.freeze()  # forked processes need not look at, and so copy, what was imported
    task = None if reason else server.serve()
    if task is None:
        os._exit(0)  # there is nothing to save, and to take all these libraries down takes seconds
    while task:
        task = task()


if __name__ == "__main__":
    main()
