"""What the server of warm kernels forks: a job, which runs one notebook as a worker process does, and its kernel.

The kernel is forked before the job starts threads or opens sockets. It waits on its standard input until the job
sends the command, the folder and the variables that a new process would have been started with.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib.util
import io
import json
import logging
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from mmsa_lib.experiments.notebook_process import REQUEST, STDERR, WORK
from mmsa_lib.experiments.notebook_worker import run_request

_SIGNAL_WHEN_PARENT_ENDS = 1  # PR_SET_PDEATHSIG
_MODULE = "ipykernel_launcher"
_NAME = "mmsa-warm"

reroute: list[tuple[logging.StreamHandler, str]] = []
"""Log handlers of imported libraries, and the stream of ``sys`` that each writes to."""

set_on_import: dict[str, str] = {}
"""Variables that imported libraries set, as scikit-learn does; a kernel has them as if it had imported them itself."""

Task = Callable[[], "Task | None"]
"""What a process does next; each runs with the stack of the one before already unwound."""


class ForkedKernel:
    """A forked kernel with as much of ``subprocess.Popen`` as jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int, order: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._order = order

    def start(self, command: list[str], folder: str | None, environment: Mapping[str, str]) -> None:
        """Tell the waiting process to become the kernel that ``command`` would have started."""
        order = {"command": command, "folder": folder, "environment": dict(environment)}
        with open(self._order, "w", encoding="utf-8") as pipe:
            json.dump(order, pipe)

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkedProvisioner(LocalProvisioner):
    """Gives jupyter_client the kernel that was forked in advance instead of a new process."""

    waiting: ClassVar[ForkedKernel | None] = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Start the waiting kernel, or a new process where the kernel specification asks for anything else."""
        kernel, ForkedProvisioner.waiting = ForkedProvisioner.waiting, None
        usual = cmd[:3] == [sys.executable, "-m", _MODULE]
        if kernel is None or not usual or not {"env", "cwd"} >= self._scrub_kwargs(kwargs).keys():
            return await super().launch_kernel(cmd, **kwargs)
        kernel.start(cmd, kwargs.get("cwd"), {**kwargs["env"], "JPY_PARENT_PID": str(os.getpid())})
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        self.cwd = kwargs.get("cwd", Path.cwd())
        return self.connection_info


def run_job(folder: Path, environment: Mapping[str, str], lifeline: int, server: int) -> Task:
    """Run the notebook that ``folder`` asks for; returns in the kernel only, with what that does next.

    Args:
        folder: private folder with the request.
        environment: all variables of the run.
        lifeline: pipe to the server, on which the kernel is named and which closes when this process ends.
        server: process id of the server; this process ends with it.
    """
    end_with(server)
    os.setsid()
    become(folder / WORK, environment)
    stderr = os.open(folder / STDERR, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(stderr, 2)
    os.close(stderr)
    receiver, order = os.pipe()
    job, pid = os.getpid(), os.fork()
    if pid == 0:
        end_with(job)
        os.setsid()
        os.dup2(receiver, 0)
        for pipe in (receiver, order, lifeline):
            os.close(pipe)
        return run_kernel
    os.close(receiver)
    os.write(lifeline, b"%d\n" % pid)
    _work(folder, ForkedKernel(pid, order))


def _work(folder: Path, kernel: ForkedKernel) -> NoReturn:
    """Do what ``notebook_worker.py`` does as a program, with ``kernel``."""
    code = 1
    try:
        ForkedProvisioner.waiting = kernel
        factory = KernelProvisionerFactory.instance()
        if factory.default_provisioner_name == "local-provisioner":
            place = f"{ForkedProvisioner.__module__}:{ForkedProvisioner.__name__}"
            factory.provisioners[_NAME] = EntryPoint(_NAME, place, factory.GROUP_NAME)
            factory.default_provisioner_name = _NAME
        run_request(json.loads((folder / REQUEST).read_text(encoding="utf-8")))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # not through the server's frames and exit handlers


def run_kernel() -> None:
    """Wait for the order to start, then be the kernel until it ends."""
    with open(0, "rb", closefd=False) as pipe:  # closed by the job after the order: standard input is then at its end
        text = pipe.read()
    if not text:
        os._exit(0)  # the job ended without a use for this process
    order = json.loads(text)
    become(order["folder"], {**order["environment"], **set_on_import})
    sys.orig_argv[:] = order["command"]
    sys.argv[:] = [_program(), *order["command"][3:]]
    reseed()
    from ipykernel.kernelapp import IPKernelApp

    # The default of this trait was read from the server's environment, when the module was imported.
    app = IPKernelApp.instance(parent_handle=int(order["environment"]["JPY_PARENT_PID"]))
    app.initialize()
    for handler, stream in reroute:
        handler.setStream(getattr(sys, stream))
    app.start()
    _leave()


def _leave() -> NoReturn:
    """End as an interpreter does, except that the libraries are not taken down object by object.

    That takes seconds, since it copies all memory that is shared with the server, and jupyter_client gives an ending
    kernel 2.5. Namespaces of the notebook are emptied by IPython's exit handler.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # what the server had imported is frozen and not looked at
    for thing in gc.get_objects():
        if isinstance(thing, io.IOBase) and not thing.closed:
            with suppress(Exception):
                thing.flush()
    os._exit(0)


def reseed() -> None:
    """Give each kernel generators of its own, as if its libraries had just been imported."""
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()  # torch.seed() would queue work for CUDA as well


def become(folder: Path | str | None, environment: Mapping[str, str]) -> None:
    """Take over a working folder and all variables, for this process and its C libraries."""
    if folder:
        os.chdir(folder)
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def end_with(parent: int) -> None:
    """Be killed as soon as ``parent``, which has just forked this process, ends."""
    ctypes.CDLL(None).prctl(_SIGNAL_WHEN_PARENT_ENDS, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _program() -> str:
    """``sys.argv[0]`` of ``python -m ipykernel_launcher``."""
    spec = importlib.util.find_spec(_MODULE)
    return str(spec.origin) if spec else _MODULE
