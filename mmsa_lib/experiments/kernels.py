"""The processes behind an executed notebook: a worker that runs papermill, and a kernel for each notebook.

The worker is this file as a program. Papermill runs in a process of its own because it may leave behind what it likes
there, and because a kernel that takes its parent down must not take other runs with it. Its journal is the only trusted
account of what happened. After a kernel was killed, papermill saves a notebook in which every cell says ``completed``;
after ``sys.exit()`` in a cell it raises nothing.

A worker runs one notebook at a time and is kept for the next one. Its kernels are new processes, or forked ones that
have the heavy imports already, see :mod:`mmsa_lib.experiments.warm`.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from filelock import FileLock, Timeout

from mmsa_lib.errors import RunError

STARTED, REPLIED, FAILED, FINISHED = "started", "replied", "failed", "finished"
"""Events of a journal."""
WORK, EXECUTED, _JOURNAL, _KERNEL = "work", "executed.ipynb", "journal.jsonl", "kernel.pid"

# A Unix socket has at most 104 (macOS) or 108 (Linux) bytes of path; a zero and the longest that is put into a private
# folder, "/mmsa-xxxxxxxx/pymp-xxxxxxxx/listener-xxxxxxxx", take 47.
_PARENT_LIMIT = 57
_PREFIX, _OWNER = "mmsa-", "owner.lock"
# Settings of the user that would make a run differ from one machine to the next, and what stands in their place.
_NOT_INHERITED = ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH", "PYTHONSTARTUP")
_PRIVATE = {"JUPYTER_DATA_DIR": "jupyter", "JUPYTER_CONFIG_DIR": "jupyter", "JUPYTER_RUNTIME_DIR": "runtime",
            "IPYTHONDIR": "ipython"}  # fmt: skip
_STARTS_WITHIN = 600.0  # seconds; a busy machine with a cold disk needs minutes


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder whose path is short enough for sockets; removed afterwards.

    If this process is killed before, :func:`remove_leftovers` of a later one removes it.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_temporary()))
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
    for folder in _temporary().glob(f"{_PREFIX}*"):
        with suppress(OSError, Timeout):
            if (folder / _OWNER).is_file():
                with FileLock(folder / _OWNER, thread_local=False).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _temporary() -> Path:
    parent = tempfile.gettempdir()
    return Path(parent if len(os.fsencode(parent)) <= _PARENT_LIMIT else "/tmp")  # short on every Unix


def worker_environment(folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Variables of the worker: no settings, start-up files or kernels of the user, no dates in figures."""
    inherited = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    private = {name: str(folder / place) for name, place in _PRIVATE.items()}
    return {**inherited, **private, "SOURCE_DATE_EPOCH": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **extra}


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


def by_signal(status: int | None) -> bool:
    """Whether a process with this exit status was ended by a signal, or says so as shells and containers do."""
    return status is not None and (status < 0 or status in (128 + signal.SIGKILL, 128 + signal.SIGTERM))


def is_free(name: str) -> bool:
    """Whether a variable is read when a notebook runs, not when libraries are imported."""
    return name in _PRIVATE or name == "PYTEST_CURRENT_TEST" or name.startswith("MMSA_LIB_")


class Launcher(AbstractContextManager):
    """Starts runs of notebooks, each in a kernel of its own. Usable from several threads.

    Args:
        imports: modules that are imported in advance, in a process from which kernels are forked where that is safe;
            ``None`` for a new process each time. Such runs get one thread unless ``OMP_NUM_THREADS`` says otherwise,
            since a process with threads cannot be forked safely.
        environment: variables of every run, beside those of this process.
    """

    def __init__(self, imports: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._imports, self._environment = imports, dict(environment or {})
        self._lock, self._closed = threading.Lock(), False
        self._running: set[_Worker] = set()
        self._idle: set[_Worker] = set()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def reason(self) -> str:
        """Why kernels start cold, in one line; empty where they are forked. Starts a worker if there is none."""
        if sys.platform != "linux":
            return f"forking a process with these libraries is safe on Linux only, not on {sys.platform}"
        with self._worker(self._variables(Path("/nowhere"), {})) as worker:
            return worker.reason

    def run_worker(
        self, notebook: Path, parameters: dict[str, Any], folder: Path, timeout: float, environment: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        """Run a notebook.

        Args:
            notebook: path of the notebook.
            parameters: what is injected into it.
            folder: private folder of this run; the executed copy is then in it.
            timeout: seconds.
            environment: variables beside those of this process.

        Returns:
            The events of the journal, and how the worker ended: one line, empty if well.

        Raises:
            RunError: the launcher was closed before the end.
        """
        (folder / WORK).mkdir(exist_ok=True)
        variables = self._variables(folder, environment)
        request = {"notebook": str(notebook), "parameters": parameters, "folder": str(folder), "variables": variables}
        with self._worker(variables) as worker:
            end = worker.run(request, timeout)
        if self._closed:
            raise RunError("the run was interrupted")
        return read_journal(folder), end

    def close(self) -> None:
        """End what runs, and from now on whatever is started."""
        with self._lock:
            self._closed = True
            workers = self._running | self._idle
        for worker in workers:
            worker.kill()

    def _variables(self, folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
        one = {} if self._imports is None else {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        return worker_environment(folder, {**one, **self._environment, **environment})

    @contextmanager
    def _worker(self, variables: dict[str, str]) -> Iterator[_Worker]:
        """A worker for one run, kept for the next one if it is still good."""
        with self._lock:
            worker = next((worker for worker in self._idle if worker.fits(variables)), None)
            useless = set() if worker else self._idle
            self._idle = self._idle - {worker} - useless
            self._running |= {worker} if worker else set()
        for other in useless:
            other.kill()
        if worker is None:
            worker = _Worker(self._imports if sys.platform == "linux" else None, variables)
            with self._lock:
                self._running.add(worker)
        try:
            if self._closed:
                worker.kill()
            worker.wait_until_ready()
            yield worker
        finally:
            with self._lock:
                self._running.discard(worker)
                keep = not self._closed and worker.fits(variables)
                self._idle |= {worker} if keep else set()
            if not keep:
                worker.kill()


class _Worker:
    """A worker's process, seen from its driver.

    Attributes:
        reason: why its kernels start cold, empty if they are forked.
    """

    def __init__(self, imports: Sequence[str] | None, variables: Mapping[str, str]) -> None:
        self.reason, self._ready = "", False
        self._fixed = {name: value for name, value in variables.items() if not is_free(name)}
        self._files: dict[str, list[int] | None] = {}
        self._folder, self._leave = Path(), ExitStack()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *([] if imports is None else ["--warm", *imports])],
            env=dict(variables), cwd=self._leave.enter_context(private_folder()), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._stderr,
            start_new_session=True,  # a Ctrl-C in the terminal is for this process, which then ends it
        )  # fmt: skip
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        with self._process.stdout as replies:
            for line in replies:
                self._replies.put(line)
        self._replies.put(b"")

    def wait_until_ready(self) -> None:
        """Wait for the imports in advance; what takes too long is killed."""
        try:
            self._ready = self._ready or self._hear(_STARTS_WITHIN)
        except queue.Empty:
            self.kill()

    def fits(self, variables: Mapping[str, str]) -> bool:
        """Whether it lives, and what is imported is what another one would import now."""
        fixed = {name: value for name, value in variables.items() if not is_free(name)}
        fresh = all(stamp(path) == known for path, known in self._files.items())
        return self._process.poll() is None and fixed == self._fixed and fresh

    def run(self, request: Mapping[str, Any], timeout: float) -> str:
        """Run a notebook; how that ended, in one line, empty if well."""
        self._folder = Path(request["folder"])
        with suppress(BrokenPipeError, ValueError):  # it has just ended, as is seen below
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self._process.stdin.flush()
        try:
            return "" if self._hear(timeout) else self._how_it_ended()
        except queue.Empty:
            self.kill()
            return f"Timeout: not finished after {timeout:g} s"

    def kill(self) -> None:
        """End it, its kernel, and all that the notebook has started."""
        group = self._process.pid
        if self._process.poll() is None:
            os.killpg(group, signal.SIGSTOP)  # it must not report, nor forget, the kernel that is killed now
            with suppress(OSError, ValueError):
                kernel = int((self._folder / _KERNEL).read_text())
                parent = Path(f"/proc/{kernel}/stat").read_text().rpartition(")")[2].split()[1]
                if os.getpgid(int(parent)) == group:
                    os.killpg(kernel, signal.SIGKILL)
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        with suppress(OSError):
            self._process.stdin.close()
        self._leave.close()

    def _hear(self, timeout: float | None) -> bool:
        """Wait for a reply; whether one came before the end."""
        line = self._replies.get(timeout=timeout)
        if not line:
            self._replies.put(line)  # the end is the end
        else:
            told = json.loads(line)
            self.reason, self._files = told["reason"], told["files"]
        return bool(line)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", errors="replace").strip().splitlines()
        return f"the process ended with exit code {code}: {lines[-1] if lines else 'no message'}"


def stamp(path: str) -> list[int] | None:
    """Time and size of a file, ``None`` if it is gone."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_mtime_ns, state.st_size]


# ------------------------------------------------------------------------------------------------ the worker's program


def main() -> None:
    """Be a worker: run the notebook that each line on standard input asks for, until that closes."""
    replies = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    del sys.path[0]  # the working folder; in a kernel, IPython gives it its place
    own = os.getcwd()
    _end_with_driver()
    forking = None
    told: dict[str, Any] = {"reason": "", "files": {}}
    if sys.argv[1:2] == ["--warm"]:
        from mmsa_lib.experiments import warm as forking

        told = forking.prepare(sys.argv[2:], own)
    import papermill  # noqa: F401 (now, so that it is no part of the first notebook's time)

    os.write(replies, json.dumps(told).encode("ascii") + b"\n")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        os.environ.clear()
        os.environ.update(request["variables"])
        if told.get("died"):
            told = forking.prepare(sys.argv[2:], own)
        run_request(request, forking if forking and not told["reason"] else None)
        os.write(replies, json.dumps(told).encode("ascii") + b"\n")


def run_request(request: Mapping[str, Any], forking: Any = None) -> None:
    """Execute ``request["notebook"]`` and write every event to the journal; raises nothing."""
    folder, endings, current = Path(request["folder"]), [], None

    def write(event: str, **fields: Any) -> None:
        with (folder / _JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **fields}) + "\n")

    def before(cell: Any, cell_index: int) -> None:
        nonlocal current
        current = cell_index
        write(STARTED, cell=cell_index)

    def after(cell: Any, cell_index: int, execute_reply: dict) -> None:
        content = execute_reply["content"]
        asks_to_exit = any(part.get("source") == "ask_exit" for part in content.get("payload") or [])
        write(REPLIED, cell=cell_index, exited=asks_to_exit or content.get("ename") == "SystemExit")

    try:
        os.chdir(folder / WORK)
        import papermill
        from traitlets.config import Config

        # Messages of papermill go to a log that nobody reads; what matters is in the journal.
        logging.getLogger("papermill").setLevel(logging.CRITICAL)
        # TCP ports are chosen before the kernel binds them, so two kernels can get the same one. A socket file in a
        # private folder cannot collide. The connection file lies there too, and goes with the folder.
        transport = {"transport": "ipc", "ip": str(folder / "socket"), "connection_file": str(folder / "socket.json")}
        with _watched_kernel(folder, endings, forking):
            papermill.execute_notebook(
                request["notebook"], str(folder / EXECUTED), parameters=request["parameters"], kernel_name="python3",
                language="python", progress_bar=False, start_timeout=300, config=Config(KernelManager=transport),
                on_cell_execute=before, on_cell_executed=after, coalesce_streams=True,
            )  # fmt: skip
    except Exception as error:
        write(FAILED, cell=current, **_describe(error, endings))
    else:
        write(FINISHED)


def _describe(error: Exception, endings: list[int]) -> dict[str, Any]:
    """Kind, message and traceback of what papermill raised; where no cell raised it, how the kernel had ended."""
    from papermill.exceptions import PapermillExecutionError, strip_color

    if isinstance(error, PapermillExecutionError):
        told = strip_color("\n".join(error.traceback))
        return {"error": error.ename, "message": strip_color(error.evalue), "traceback": told}
    ending = endings[0] if endings else None
    return {"error": type(error).__name__, "message": str(error), "traceback": "", "ending": ending}


@contextmanager
def _watched_kernel(folder: Path, endings: list[int], forking: Any) -> Iterator[None]:
    """Note in ``folder`` which kernel is launched, in ``endings`` its exit status, which jupyter_client forgets."""
    from jupyter_client.provisioning import LocalProvisioner

    poll, launch = LocalProvisioner.poll, LocalProvisioner.launch_kernel

    async def recorded(self: Any) -> int | None:
        status = await poll(self)
        if status is not None and self.has_process:
            endings.append(status)
        return status

    async def launched(self: Any, cmd: list[str], **kwargs: Any) -> Any:
        if forking is None or not forking.launch(self, cmd, **kwargs):
            await launch(self, cmd, **kwargs)
        (folder / _KERNEL).write_text(str(self.pid))
        return self.connection_info

    with patch.multiple(LocalProvisioner, poll=recorded, launch_kernel=launched):
        yield


def _end_with_driver() -> None:
    """End this process as soon as its standard input closes, that is when whoever started it is gone."""

    def wait() -> None:
        pipe = select.poll()
        pipe.register(0, 0)  # closing is told unasked
        pipe.poll()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
