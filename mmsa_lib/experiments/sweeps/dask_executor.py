"""Points on a Dask cluster: on this machine, at a scheduler's address, or in a batch system's jobs.

Needs the extra ``cluster`` (``pip install "mmsa-lib[cluster]"``). Every worker must see the same files: the checkout,
the data and the folder of runs. Dask only hands out work; what is finished is read from the files, so a scheduler that
is lost costs no more than the notebooks that it was executing.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mmsa_lib.errors import ConfigError, MMSAError, unknown_name
from mmsa_lib.experiments.notebook_process import private_folder
from mmsa_lib.experiments.sweeps.execution import execute_point, thread_variables
from mmsa_lib.experiments.sweeps.executors import Outcome
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.experiments.sweeps.store import FAILED, FINISHED, State, read_state

CLUSTERS = {
    "local": ("", ""),
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "sge": ("SGECluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
}
"""Name to the class of ``dask_jobqueue`` and the program that submits its jobs; further settings of the class may stand
in ``~/.config/dask/jobqueue.yaml``."""

WAIT_FOR_SCHEDULER = 10.0
WAIT_FOR_WORKERS = 600.0
"""Seconds until the scheduler answers, and until it has a worker; a batch system may let jobs wait."""

_warm = threading.local()


def run_point(
    content: Mapping[str, Any], runs: str, threads: int, warm: bool, known: Mapping[str, Any], stop: str
) -> tuple[dict[str, Any], bool] | None:
    """On a worker: execute the point; its state as plain values, and whether it was executed now.

    Nothing is started, and ``None`` returned, once the Dask event ``stop`` is set.
    """
    from distributed import Event

    if Event(stop).is_set():
        return None
    launcher = _launcher(threads) if warm else None
    state, executed = execute_point(
        Point(**content), Path(runs), threads=threads, launcher=launcher, known=_state(known)
    )
    return vars(state), executed


def _launcher(threads: int) -> Any:
    """One warm process per thread of a worker, kept from point to point; it ends with the worker."""
    if getattr(_warm, "threads", None) != threads:
        from mmsa_lib.experiments.warm_process import WarmLauncher

        _warm.launcher, _warm.threads = WarmLauncher(environment=thread_variables(threads)), threads
    return _warm.launcher


def _state(facts: Mapping[str, Any]) -> State:
    """A state that came as plain values."""
    return State(**{**facts, "runs": tuple(facts["runs"])})


class DaskExecutor:
    """Points as tasks of a Dask cluster.

    Args:
        workers: how many notebooks at a time; by default as many as fit the cores of this machine, one job of a batch
            system. At a scheduler's address its own workers count.
        threads: of PyTorch in each notebook.
        scheduler: address of a running scheduler (``tcp://host:8786``), or the path of its scheduler file.
        cluster: ``local``, or a batch system that dask-jobqueue knows: ``slurm``, ``pbs``, ``sge``, ``lsf``.
        cluster_options: keyword arguments of the cluster's class, such as ``{"queue": "gpu", "walltime": "02:00:00"}``.
        resources: what each point takes of a worker that was started with ``--resources``, such as ``{"GPU": 1}``; a
            cluster that is started here gives each of its workers as much as one point takes.
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
        fitting = max(1, (os.cpu_count() or 1) // threads) if cluster == "local" else 1
        self.workers = 0 if scheduler else workers or fitting  # of a scheduler it is known once it answers
        self.threads, self.scheduler, self.cluster = threads, scheduler, cluster
        self.cluster_options, self.resources, self.warm = dict(cluster_options or {}), dict(resources or {}), warm

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        """As :class:`~mmsa_lib.experiments.sweeps.executors.Executor`."""
        from distributed import Event, as_completed

        with ExitStack() as stack:
            stack.enter_context(_terse())
            client = self._connect(stack)
            # Several sweeps may share a scheduler, which would take points of one name for one point.
            sweep = f"mmsa-sweep-{uuid.uuid4().hex[:12]}"
            stopped = Event(sweep, client=client)
            of = {}
            for priority, point in enumerate(points):
                known = vars(read_state(runs, point))
                future = client.submit(
                    run_point, point.to_plain(), str(runs), self.threads, self.warm, known, sweep,
                    key=f"{sweep}-{point.id}", pure=False, retries=1, priority=-priority,
                    resources=self.resources or None,
                )  # fmt: skip
                of[future] = point
            lost = False
            for future in as_completed(of):
                if future.status == "cancelled" or (future.status == "finished" and future.result() is None):
                    lost |= future.status == "cancelled"
                    continue
                self.workers = self._count_workers(client) or self.workers  # they may come and go
                yield self._outcome(future, of[future], runs)
                if stop.is_set() and not stopped.is_set():
                    stopped.set()
            if lost:
                print("Dask: the scheduler is gone; repeat the command to run what is missing", file=sys.stderr)

    def _outcome(self, future: Any, point: Point, runs: Path) -> Outcome:
        if future.status == "finished":
            facts, executed = future.result()
            return Outcome(point, _state(facts), executed)
        # The worker was killed, again and again. What it had finished before it died is finished all the same.
        state, error = read_state(runs, point), future.exception()
        if state.state != FINISHED:
            message = " ".join(str(error).split())[:300]
            state = State(FAILED, error=type(error).__name__, message=message, passing=True)
        return Outcome(point, state, True)

    def _connect(self, stack: ExitStack) -> Any:
        """A client of the cluster, with at least one worker that can execute a point."""
        import dask
        from distributed import Client

        place = f"scheduler {self.scheduler}" if self.scheduler else f"{self.cluster} cluster"
        try:
            if self.scheduler:
                client = Client(_address(self.scheduler), timeout=WAIT_FOR_SCHEDULER)
            else:
                start = self._local_cluster if self.cluster == "local" else self._batch_cluster
                # A point waits at the scheduler, not behind another one at a worker, so that they start in their order.
                with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
                    cluster = stack.enter_context(start())
                client = Client(cluster)
            stack.enter_context(client)
        except MMSAError:
            raise
        except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
            cause = error.__cause__ or error  # Dask tells that a worker failed, and with it why
            raise ConfigError(f"Dask, {place}: {' '.join(str(cause).split())}") from error
        self.workers = self._wait_for_workers(client, place)
        return client

    def _wait_for_workers(self, client: Any, place: str) -> int:
        """How many points the workers can execute at a time, as soon as it is one."""
        wanted = "".join(f" with {name}={amount:g}" for name, amount in self.resources.items())
        started, told = time.monotonic(), False
        while not (count := self._count_workers(client)):
            if time.monotonic() > started + WAIT_FOR_WORKERS:
                raise ConfigError(f"Dask, {place}: no worker{wanted} came within {WAIT_FOR_WORKERS:g} s")
            if not told:
                print(f"Dask, {place}: waiting for a worker{wanted}", file=sys.stderr)
                told = True
            time.sleep(0.2)
        return count

    def _count_workers(self, client: Any) -> int:
        """How many points the workers can execute at a time."""
        return sum(map(self._fits, client.scheduler_info(n_workers=-1)["workers"].values()))

    def _fits(self, worker: Mapping[str, Any]) -> int:
        has = worker["resources"]
        return min([worker["nthreads"], *(int(has.get(name, 0) / amount) for name, amount in self.resources.items())])

    @contextmanager
    def _local_cluster(self) -> Iterator[Any]:
        import dask
        from distributed import LocalCluster

        with ExitStack() as stack:
            folder, loop = stack.enter_context(private_folder()), stack.enter_context(_uninterrupted_loop())
            stack.enter_context(dask.config.set({"temporary-directory": str(folder)}))
            options = {
                "n_workers": self.workers, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0",
                "resources": self.resources or None, "loop": loop, "silence_logs": logging.CRITICAL,
            }  # fmt: skip
            # In a thread, so that a Ctrl-C meanwhile finds a whole cluster to close.
            pool = stack.enter_context(ThreadPoolExecutor(1))
            cluster = pool.submit(LocalCluster, **{**options, **self.cluster_options})
            try:
                yield cluster.result()
            finally:
                if cluster.exception() is None:
                    cluster.result().close()

    def _batch_cluster(self) -> Any:
        """Jobs of a batch system, as many as workers, replaced when they die."""
        from distributed import Status

        name, program = CLUSTERS[self.cluster]
        try:
            import dask_jobqueue
        except ImportError:
            raise ConfigError(
                f'cluster {self.cluster} needs dask-jobqueue; run: pip install "mmsa-lib[cluster]"'
            ) from None
        if shutil.which(program) is None:
            raise ConfigError(f"cluster {self.cluster} submits jobs with {program}, which is not on this machine")
        # A job gets a core for each thread of its one notebook.
        extra = ["--nthreads", "1"]
        if self.resources:
            extra += ["--resources", ",".join(f"{name}={amount:g}" for name, amount in self.resources.items())]
        options = {"cores": self.threads, "processes": 1, "memory": "4GB", "worker_extra_args": extra}
        options["scheduler_options"] = {"dashboard_address": ":0"}
        cluster = getattr(dask_jobqueue, name)(**{**options, **self.cluster_options})

        async def submitted() -> None:
            await cluster

        try:
            # Not by scale(), which submits in the background: what the batch system refuses would go to a log.
            for _ in range(self.workers):
                cluster.worker_spec.update(cluster.new_worker_spec())
            cluster.sync(submitted)
            cluster.adapt(minimum=self.workers, maximum=self.workers)
        except BaseException:
            for job in cluster.workers.values():
                if job.status == Status.created:  # refused; close() expects that each was started
                    job.status = Status.failed
            cluster.close()
            raise
        return cluster


@contextmanager
def _uninterrupted_loop() -> Iterator[Any]:
    """Dask's event loop in a thread that never sees a Ctrl-C, and with it no worker that is started from there.

    A Ctrl-C in the terminal is for this process, which then ends its workers.
    """
    from multiprocessing import resource_tracker

    from distributed.utils import LoopRunner

    resource_tracker.ensure_running()  # started later, it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # threads and processes inherit it
    try:
        runner = LoopRunner()
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def _terse() -> Iterator[None]:
    """Keep Dask from logging tracebacks when it loses its scheduler or is interrupted; that is said in one line."""
    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application", "asyncio")]
    levels = [log.level for log in logs]
    from distributed.utils import silence_logging_cmgr

    try:
        for log in logs:
            log.setLevel(logging.CRITICAL)
        with silence_logging_cmgr(logging.CRITICAL):
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _address(scheduler: str) -> str:
    """The address that ``scheduler`` is, or that its scheduler file holds, once somebody listens there.

    A failed ``Client`` takes long to find out and leaves threads behind, so the door is tried first.

    Raises:
        OSError, ValueError: nobody listens there, no such file or no address.
    """
    from distributed.comm import parse_address, parse_host_port

    if scheduler.endswith(".json") or Path(scheduler).is_file():
        try:
            scheduler = str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])
        except FileNotFoundError:
            raise ValueError("there is no such scheduler file") from None
        except (ValueError, KeyError, TypeError):
            raise ValueError("it is no scheduler file, which `dask scheduler --scheduler-file` writes") from None
    scheme, rest = parse_address(scheduler)
    if scheme in ("tcp", "tls"):
        end = time.monotonic() + WAIT_FOR_SCHEDULER
        while True:
            try:
                socket.create_connection(parse_host_port(rest), timeout=WAIT_FOR_SCHEDULER).close()
                break
            except ConnectionRefusedError:  # it may be about to start
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
    return scheduler
