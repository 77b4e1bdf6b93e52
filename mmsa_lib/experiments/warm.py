"""Kernels forked from a process that has the heavy imports already, by the fork server of ``multiprocessing``.

The server imports and then does nothing but fork: no thread, no socket of its own, no GPU, no random number. A kernel
computes and shows what a new one does, with three differences: modules are loaded that the notebook may not import,
warnings that libraries give on import do not appear in it, and the order of sets of strings is the same in all kernels
of a server.

Everything here runs in a worker (:mod:`mmsa_lib.experiments.kernels`), in its fork server and in their kernels. The
driver ends its worker, the worker its server, and the server its kernels, however each of them ends.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import importlib.util
import io
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmsa_lib.experiments.kernels import is_free, stamp

DEFAULT_IMPORTS = (
    "seaborn", "sklearn.linear_model", "sklearn.metrics", "torch._dynamo", "transformers.models.auto",
    "transformers.models.bert.modeling_bert", "mmsa_lib.data.sources", "mmsa_lib.experiments.runs",
    "mmsa_lib.experiments.tables", "mmsa_lib.figures.panels", "mmsa_lib.methods", "mmsa_lib.training",
)  # fmt: skip
"""What notebooks of this project import, with all that these import; a module that is not there is left out."""

_SERVER = multiprocessing.get_context("forkserver")
_WANTED = "MMSA_LIB_IMPORTS_IN_ADVANCE"
_KERNEL = "ipykernel_launcher"
_wanted: list[str] = []
"""In a worker: what its servers import."""
_told: dict[str, Any] = {}
"""In a server and what it forks: why forking would not be safe, and the files that may be edited, with their states."""


def prepare(imports: Sequence[str], folder: str) -> dict[str, Any]:
    """In a worker: start a server, with its socket in ``folder``. Why it cannot fork, and the files that it has loaded.

    With ``died`` if it was killed meanwhile, and another one may fare better.
    """
    vars(sys.modules["__main__"]).update(__file__=None, __spec__=None)  # else each kernel would first import it
    _SERVER.set_forkserver_preload([__name__])
    _wanted[:], usual, tempfile.tempdir = imports, tempfile.tempdir, folder
    try:
        for _ in range(2):
            with suppress(EOFError, OSError):
                reader, writer = _SERVER.Pipe(duplex=False)
                probe = _SERVER.Process(target=_tell, args=(writer,))
                _start(probe)
                writer.close()
                return reader.recv()
    finally:
        tempfile.tempdir = usual
    return {"reason": "the server of kernels ended", "files": {}, "died": True}


def launch(provisioner: Any, command: Sequence[str], **options: Any) -> bool:
    """In a worker: fork the kernel that ``command`` would start; ``False`` where it asks for what a fork is not."""
    usual = command[:3] == [sys.executable, "-m", _KERNEL]
    if not usual or not {"env", "cwd"} >= provisioner._scrub_kwargs(dict(options)).keys():
        return False
    variables = {**options["env"], "JPY_PARENT_PID": str(os.getpid())}
    kernel = _SERVER.Process(target=_be_kernel, args=(command[3:], options.get("cwd"), variables), name="MainProcess")
    _start(kernel)
    provisioner.process, provisioner.pid, provisioner.pgid = _Forked(kernel), kernel.pid, kernel.pid
    provisioner.cwd = options.get("cwd", Path.cwd())
    return True


def _start(process: Any) -> None:
    """Start a forked process, in a new server (which reads the variable) if there is none or it was killed."""
    os.environ[_WANTED] = json.dumps(_wanted)
    try:
        for _ in range(200):
            with suppress(ConnectionRefusedError):
                return process.start()
            time.sleep(0.05)  # the server was killed just now, and the system has not told yet
        return process.start()
    finally:
        del os.environ[_WANTED]


class _Forked:
    """A forked kernel with as much of ``Popen`` as jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, process: Any) -> None:
        self._process, self.pid = process, process.pid

    def poll(self) -> int | None:
        code = self._process.exitcode
        return -signal.SIGKILL if code == 255 else code  # its server was killed, and it with it

    returncode = property(poll)

    def wait(self) -> int | None:
        self._process.join()
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _preload(imports: Sequence[str]) -> None:
    """In a server: import what kernels need and find out whether forking is safe then."""
    _end_with_parent()
    sys.path.remove("")  # of `python -c`, which servers are started with
    started, name = time.time_ns(), ""
    # matplotlib and pandas look on import whether they are in a kernel.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    builtins.get_ipython = lambda: SimpleNamespace(kernel=None, config={})
    _told.update(reason="", files={})
    try:
        for name in ("ipykernel.kernelapp", "ipykernel.zmqshell", *imports):
            with suppress(ModuleNotFoundError):  # the notebook that needs it says so
                importlib.import_module(name)
    except Exception as error:
        words = " ".join(str(error).split())
        _told["reason"] = f"{name} cannot be imported in advance: {type(error).__name__}: {words}"
    finally:
        del builtins.get_ipython
    for path in _own_files():
        state = stamp(path)
        # A file that changed during the imports may not be what was imported.
        _told["files"][path] = state if state and state[0] < started else None
    gc.collect()
    gc.freeze()  # kernels need not look at, and so copy, what was imported


def _own_files() -> set[str]:
    """Files of the loaded modules that somebody may edit: this library, and all that is not installed."""
    installed = tuple({sys.prefix, sys.base_prefix, *(path for path in sys.path if path.endswith("-packages"))})
    files = [(name, getattr(module, "__file__", None) or "") for name, module in list(sys.modules.items())]
    return {
        os.path.realpath(file)
        for name, file in files
        if file and (name.partition(".")[0] == "mmsa_lib" or not file.startswith(installed))
    }


def _tell(writer: Any) -> None:
    """In a forked process: send what the server knows, and what only a fork of it can see."""
    told = dict(_told)
    for _ in range(20):
        threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
        if threads == 1:
            break
        time.sleep(0.05)  # a thread of an import may be about to end
    else:
        told["reason"] = f"{threads - 1} threads run after the imports (does OMP_NUM_THREADS ask for several?)"
    if "torch" in sys.modules and sys.modules["torch"].cuda._is_in_bad_fork():
        told["reason"] = "CUDA is in use after the imports"
    writer.send(told)


def _be_kernel(arguments: Sequence[str], folder: str | None, variables: Mapping[str, str]) -> None:
    """In a forked process: be the kernel that a new process with these arguments would be, and end as it does."""
    _end_with_parent()
    os.setsid()
    if folder:
        os.chdir(folder)
    for name in [name for name in os.environ if is_free(name) and name not in variables]:
        del os.environ[name]
    os.environ.update(variables)
    sys.argv[:] = [importlib.util.find_spec(_KERNEL).origin, *arguments]
    _reseed()
    for name in ("tqdm.auto", "tqdm.autonotebook"):
        sys.modules.pop(name, None)  # they look on import whether they are in a kernel
    from ipykernel.kernelapp import IPKernelApp

    # The default of this trait was read from the server's environment, when the module was imported.
    app = IPKernelApp.instance(parent_handle=int(variables["JPY_PARENT_PID"]))
    app.initialize()
    app.start()
    # The libraries are not taken down object by object: that copies all memory that is shared with the server, which
    # takes seconds, and jupyter_client gives an ending kernel 2.5.
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # what the server had imported is frozen and not looked at
    for thing in gc.get_objects():
        if isinstance(thing, io.IOBase) and not thing.closed:
            with suppress(Exception):
                thing.flush()
    os._exit(0)


def _reseed() -> None:
    """Give each kernel generators of its own, as if its libraries had just been imported."""
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()  # torch.seed() would queue work for CUDA as well


def _end_with_parent() -> None:
    """Be killed as soon as the process that has just started this one ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        os._exit(1)


if _WANTED in os.environ:
    _preload(json.loads(os.environ.pop(_WANTED)))
