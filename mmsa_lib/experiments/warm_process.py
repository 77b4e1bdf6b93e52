"""Run notebooks in kernels that are forked from a process which has paid for the heavy imports once.

::

    with WarmLauncher() as launcher:
        for seed in range(5):
            execute("notebooks/06_train.ipynb", {"seed": seed}, launcher=launcher)

A forked kernel computes and shows what a new one does, with three differences. Modules are loaded that the notebook may
not import, and the variables that they set are there. Warnings that libraries give on import do not appear in it. The
order of sets of strings is the same in all kernels of a server, since Python chooses its hash seed once per process.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmsa_lib.experiments.notebook_process import PRIVATE, read_journal, run_worker, worker_environment, write_request
from mmsa_lib.experiments.warm_client import ServerProcess

DEFAULT_IMPORTS = (
    "IPython.display",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "h5py",
    "scipy.stats",
    "scipy.optimize",
    "sklearn.linear_model",
    "sklearn.metrics",
    "pydantic",
    "torch",
    "torch._dynamo",
    "transformers",
    "transformers.models.auto",
    "transformers.models.bert.modeling_bert",
    "mmsa_lib.data.sources",
    "mmsa_lib.experiments.results",
    "mmsa_lib.experiments.runs",
    "mmsa_lib.experiments.tables",
    "mmsa_lib.figures.style",
    "mmsa_lib.figures.panels",
    "mmsa_lib.methods",
    "mmsa_lib.training",
)
"""What notebooks of this project import; a module that is not installed is left out."""

# Read when a notebook runs, not when libraries are imported; anything else that differs needs a server of its own.
_FREE = (*PRIVATE, "PYTEST_CURRENT_TEST")
_FREE_PREFIX = "MMSA_LIB_"
_SERVERS_AT_MOST = 4
_STARTS_AT_ONCE = 2  # of a server that is killed while it imports; the next run tries again


class WarmLauncher:
    """Starts runs in forked kernels where that is as good as a new process, and in new processes elsewhere.

    Runs get one thread unless ``OMP_NUM_THREADS`` says otherwise: a process with threads cannot be forked safely. One
    server is started per set of environment variables, on first use; it is replaced when it has ended, be it while it
    started, and when a module of this library that it has loaded changed on disk. Usable from several threads.

    Args:
        imports: modules to import in advance.
        environment: variables of every run, beside those of this process.
    """

    def __init__(self, imports: Sequence[str] = DEFAULT_IMPORTS, environment: Mapping[str, str] | None = None) -> None:
        self.imports = tuple(imports)
        self._environment = dict(environment or {})
        self._servers: dict[frozenset[tuple[str, str]], ServerProcess] = {}
        self._retired: list[ServerProcess] = []
        self._closed = False
        self._lock = threading.Lock()
        self._starting = threading.Lock()

    def __enter__(self) -> WarmLauncher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def reason(self) -> str:
        """Why runs start cold, in one line; empty where they are forked. Starts the server if there is none."""
        server, reason = self._take(self._variables({}))
        if server is not None:
            self._give_back(server)
        return reason

    @property
    def warm(self) -> bool:
        """Whether kernels are forked."""
        return not self.reason

    def run_worker(
        self, notebook: Path, parameters: dict[str, Any], folder: Path, timeout: float, environment: Mapping[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        """As :func:`mmsa_lib.experiments.notebook_process.run_worker`, in a forked kernel if possible."""
        variables = self._variables(environment)
        for _ in range(2):  # a server may end between being chosen and being asked
            server, _ = self._take(variables)
            if server is None:
                break
            try:
                write_request(notebook, parameters, folder)
                end = server.run(folder, worker_environment(folder, variables), timeout)
                return read_journal(folder), end
            except BrokenPipeError:
                continue
            finally:
                self._give_back(server)
        return run_worker(notebook, parameters, folder, timeout, variables)

    def close(self) -> None:
        """End all servers, and with them the runs that are not finished; later runs start cold."""
        with self._starting, self._lock:
            self._closed = True
            servers = [*self._servers.values(), *self._retired]
            self._servers.clear()
            self._retired.clear()
        for server in servers:
            server.close()

    def _variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """What a run sets beside the variables of this process, its own ``environment`` last."""
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        return {"OMP_NUM_THREADS": threads, **self._environment, **environment}

    def _take(self, variables: Mapping[str, str]) -> tuple[ServerProcess | None, str]:
        """A server for runs with these variables, to be given back, or why there is none."""
        if sys.platform != "linux":
            return None, f"forking a process with these libraries is safe on Linux only, not on {sys.platform}"
        key = _key(variables)
        with self._starting:
            if self._closed:
                return None, "the launcher is closed"
            with self._lock:
                server = self._servers.get(key)
                if server is not None and (server.stale or server.died or not (server.reason or server.alive)):
                    self._retire(key)
                    server = None
            if server is None:
                if not self._make_room():
                    return None, f"{_SERVERS_AT_MOST} servers are busy with runs under other environment variables"
                for _ in range(_STARTS_AT_ONCE):
                    server = ServerProcess(self.imports, variables)
                    server.wait_until_ready()
                    if not server.died:
                        break
            with self._lock:
                self._servers[key] = server
                if server.reason:
                    return None, server.reason
                server.users += 1
                return server, ""

    def _give_back(self, server: ServerProcess) -> None:
        with self._lock:
            server.users -= 1
            done = server in self._retired and not server.users
            if done:
                self._retired.remove(server)
        if done:
            server.close()

    def _retire(self, key: frozenset[tuple[str, str]]) -> None:
        """Choose this server no more; it ends with its last run."""
        server = self._servers.pop(key)
        if server.users:
            self._retired.append(server)
        else:
            server.close()

    def _make_room(self) -> bool:
        """Whether one more server may start, after ending an idle one if need be."""
        with self._lock:
            if len(self._servers) >= _SERVERS_AT_MOST:
                idle = [key for key, server in self._servers.items() if not server.users]
                if not idle:
                    return False
                self._retire(idle[0])
        return True


def _key(variables: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The variables that decide which server a run can use."""
    everything = worker_environment(Path(), variables)
    return frozenset(
        (name, value) for name, value in everything.items() if name not in _FREE and not name.startswith(_FREE_PREFIX)
    )
