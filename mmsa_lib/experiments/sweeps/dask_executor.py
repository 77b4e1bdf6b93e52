"""Points on a Dask cluster: on this machine, at a scheduler's address, or in a batch system's jobs.

Needs the extra ``cluster`` (``pip install "mmsa-lib[cluster]"``). Every worker must see the same files: the checkout,
the data and the folder of runs. Dask only hands out work; what is finished is read from the files, so a scheduler that
is lost costs no more than the notebooks that it was executing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.experiments.sweeps.execution import execute_point
from mmsa_lib.experiments.sweeps.executors import Outcome
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.experiments.sweeps.store import FAILED, FINISHED, State, read_state

CLUSTERS = {"local": None, "slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster"}
"""Name to the class of ``dask_jobqueue``; its settings may also stand in ``~/.config/dask/jobqueue.yaml``."""

WAIT_FOR_WORKERS = 600
"""Seconds until the first worker has to be there; a batch system may let it wait, and it comes in any case."""

_warm = threading.local()


def run_point(content: Mapping[str, Any], runs: str, threads: int, warm: bool) -> tuple[dict[str, Any], bool]:
    """On a worker: execute the point; its state as plain values, and whether it was executed now."""
    launcher = _launcher(threads) if warm else None
    state, executed = execute_point(Point(**content), Path(runs), threads=threads, launcher=launcher)
    return vars(state), executed


def _launcher(threads: int) -> Any:
    """One warm process per thread of a worker, kept from point to point; it ends with the worker."""
    if getattr(_warm, "threads", None) != threads:
        from mmsa_lib.experiments.warm_process import WarmLauncher

        _warm.launcher, _warm.threads = WarmLauncher(environment={"OMP_NUM_THREADS": str(threads)}), threads
    return _warm.launcher


class DaskExecutor:
    """Points as tasks of a Dask cluster.

    Args:
        workers: how many notebooks at a time; for a scheduler's address its own workers count.
        threads: of PyTorch in each notebook.
        scheduler: address of a running scheduler (``tcp://host:8786``), or the path of its scheduler file.
        cluster: ``local``, or a batch system that dask-jobqueue knows: ``slurm``, ``pbs``, ``sge``, ``lsf``.
        cluster_options: keyword arguments of the cluster's class, such as ``{"queue": "gpu", "walltime": "02:00:00"}``.
        resources: what each point takes of a worker that was started with ``--resources``, such as ``{"GPU": 1}``; a
            local cluster gives each of its workers as much as one point takes.
        warm: as for :class:`~mmsa_lib.experiments.sweeps.executors.LocalExecutor`.

    Raises:
        ConfigError: Dask is not installed, or options contradict each other.
    """

    def __init__(
        self,
        workers: int | None = None,
        threads: int = 1,
        *,
        scheduler: str = "",
        cluster: str = "local",
        cluster_options: Mapping[str, Any] | None = None,
        resources: Mapping[str, float] | None = None,
        warm: bool = True,
    ) -> None:
        try:
            import distributed  # noqa: F401
        except ImportError:
            raise ConfigError('executor dask needs dask[distributed]; run: pip install "mmsa-lib[cluster]"') from None
        if cluster not in CLUSTERS:
            raise unknown_name("cluster", cluster, CLUSTERS)
        if scheduler and (cluster != "local" or cluster_options):
            raise ConfigError("a scheduler's address and a cluster to start are given; choose one")
        if (workers is not None and workers < 1) or threads < 1:
            raise ConfigError(f"workers and threads must be at least 1, not {workers} and {threads}")
        self.workers = workers or 1
        self.threads, self.scheduler, self.cluster = threads, scheduler, cluster
        self.cluster_options, self.resources, self.warm = dict(cluster_options or {}), dict(resources or {}), warm

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        """As :class:`~mmsa_lib.experiments.sweeps.executors.Executor`."""
        from distributed import as_completed

        with ExitStack() as stack:
            client = self._connect(stack)
            self.workers = len(client.scheduler_info(n_workers=-1)["workers"])
            of = {}
            for priority, point in enumerate(points):
                future = client.submit(
                    run_point, point.to_plain(), str(runs), self.threads, self.warm,
                    key=f"point-{point.id}", pure=False, retries=1, priority=-priority,
                    resources=self.resources or None,
                )  # fmt: skip
                of[future] = point
            for future in as_completed(of):
                if future.status == "cancelled":
                    continue
                yield self._outcome(future, of[future], runs)
                if stop.is_set():
                    running = {key for keys in client.processing().values() for key in map(str, keys)}
                    client.cancel([other for other in of if not other.done() and str(other.key) not in running])

    def _outcome(self, future: Any, point: Point, runs: Path) -> Outcome:
        if future.status == "finished":
            facts, executed = future.result()
            return Outcome(point, State(**{**facts, "runs": tuple(facts["runs"])}), executed)
        # The worker was killed, again and again. What it had finished before it died is finished all the same.
        state, error = read_state(runs, point), future.exception()
        if state.state != FINISHED:
            message = " ".join(str(error).split())[:300]
            state = State(FAILED, error=type(error).__name__, message=message, passing=True)
        return Outcome(point, state, True)

    def _connect(self, stack: ExitStack) -> Any:
        from distributed import Client, LocalCluster

        try:
            if self.scheduler:
                is_file = Path(self.scheduler).is_file()
                address = {"scheduler_file": self.scheduler} if is_file else {"address": self.scheduler}
                client = stack.enter_context(Client(**address, timeout=30))
            elif self.cluster == "local":
                options = {
                    "n_workers": self.workers,
                    "threads_per_worker": 1,
                    "processes": True,
                    "dashboard_address": None,
                }
                given = {**options, "resources": self.resources or None, **self.cluster_options}
                client = stack.enter_context(Client(stack.enter_context(LocalCluster(**given))))
            else:
                client = stack.enter_context(Client(self._batch_cluster(stack)))
            client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS)
        except (OSError, TimeoutError, TypeError, ValueError) as error:
            place = self.scheduler or f"a {self.cluster} cluster"
            raise ConfigError(f"no Dask worker at {place}: {' '.join(str(error).split())}") from error
        return client

    def _batch_cluster(self, stack: ExitStack) -> Any:
        """Jobs of a batch system, as many as workers, replaced when they die."""
        try:
            import dask_jobqueue
        except ImportError:
            raise ConfigError(
                f'cluster {self.cluster} needs dask-jobqueue; run: pip install "mmsa-lib[cluster]"'
            ) from None
        start = getattr(dask_jobqueue, str(CLUSTERS[self.cluster]))
        wanted = [f"{name}={amount:g}" for name, amount in self.resources.items()]
        extra = {"worker_extra_args": ["--resources", ",".join(wanted)]} if wanted else {}
        options = {"cores": 1, "processes": 1, "memory": "4GB", **extra, **self.cluster_options}
        cluster = stack.enter_context(start(**options))
        cluster.adapt(minimum=self.workers, maximum=self.workers)
        return cluster
