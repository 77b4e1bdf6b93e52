"""Sweeps beyond one machine: points on a Dask cluster, or in a batch array of SLURM that needs no Dask.

Dask needs the extra ``cluster`` (``pip install "mmsa-lib[cluster]"``). Every worker must see the same files: the
checkout, the data and the folder of runs. Both only hand out work; what is finished is read from the files, so a
scheduler that is lost costs no more than the notebooks that it was executing.
"""

from __future__ import annotations

import json
import logging
import shlex
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
from mmsa_lib.experiments.kernels import Launcher, private_folder
from mmsa_lib.experiments.sweep_file import Point
from mmsa_lib.experiments.sweeps import (
    FAILED,
    FINISHED,
    LocalExecutor,
    Outcome,
    State,
    execute_point,
    read_state,
)

CLUSTERS = {
    "local": ("", ""),
    "slurm": ("SLURMCluster", "sbatch"),
    "pbs": ("PBSCluster", "qsub"),
    "sge": ("SGECluster", "qsub"),
    "lsf": ("LSFCluster", "bsub"),
}
"""Name to the class of ``dask_jobqueue`` and the program that submits its jobs; further settings of the class may stand
in ``~/.config/dask/jobqueue.yaml``."""

EXTRA = 'run: pip install "mmsa-lib[cluster]"'
WAIT_FOR_SCHEDULER, WAIT_FOR_WORKERS = 10.0, 600.0
"""Seconds until the scheduler answers, and until it has a worker; a batch system may let jobs wait."""

_launchers: dict[tuple[int, int, bool], Launcher] = {}
"""Of a worker's threads, kept from point to point; they end with the worker."""


def run_point(point: Point, runs: Path, threads: int, warm: bool, known: State, stop: str) -> Outcome | None:
    """On a worker: execute the point; ``None``, and nothing is started, once the Dask event ``stop`` is set."""
    from distributed import Event

    if Event(stop).is_set():
        return None
    key = threading.get_ident(), threads, warm
    if key not in _launchers:
        _launchers[key] = LocalExecutor(1, threads, warm=warm).launcher()
    return Outcome(point, *execute_point(point, runs, threads=threads, launcher=_launchers[key], known=known))


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
        warm: as for :class:`~mmsa_lib.experiments.sweeps.LocalExecutor`.

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
            raise ConfigError(f"executor dask needs dask[distributed]; {EXTRA}") from None
        if cluster not in CLUSTERS:
            raise unknown_name("cluster", cluster, CLUSTERS)
        if scheduler and (cluster != "local" or cluster_options):
            raise ConfigError("a scheduler's address and a cluster to start are given; choose one")
        fitting = LocalExecutor(workers, threads).workers
        # Those of a scheduler are known once it answers.
        self.workers = 0 if scheduler else fitting if cluster == "local" else workers or 1
        self.threads, self.scheduler, self.cluster = threads, scheduler, cluster
        self.cluster_options, self.resources, self.warm = dict(cluster_options or {}), dict(resources or {}), warm

    def outcomes(self, points: Sequence[Point], runs: Path, stop: threading.Event) -> Iterator[Outcome]:
        """As :class:`~mmsa_lib.experiments.sweeps.Executor`."""
        from distributed import Event, as_completed

        with ExitStack() as stack:
            stack.enter_context(_terse())
            client = self._connect(stack)
            # Several sweeps may share a scheduler, which would take points of one name for one point.
            sweep = f"mmsa-sweep-{uuid.uuid4().hex[:12]}"
            stopped = Event(sweep, client=client)
            of = {
                client.submit(
                    run_point, point, runs, self.threads, self.warm, read_state(runs, point), sweep, pure=False,
                    key=f"{sweep}-{point.id}", retries=1, priority=-position, resources=self.resources or None,
                ): point
                for position, point in enumerate(points)
            }  # fmt: skip
            lost = False
            for future in as_completed(of):
                if future.status == "cancelled" or (future.status == "finished" and future.result() is None):
                    lost |= future.status == "cancelled"
                    continue
                self.workers = self._count_workers(client) or self.workers  # they may come and go
                yield future.result() if future.status == "finished" else self._lost(future, of[future], runs)
                if stop.is_set() and not stopped.is_set():
                    stopped.set()
            if lost:
                print("Dask: the scheduler is gone; repeat the command to run what is missing", file=sys.stderr)

    def _lost(self, future: Any, point: Point, runs: Path) -> Outcome:
        """Its worker was killed, again and again. What it had finished before it died is finished all the same."""
        state, error = read_state(runs, point), future.exception()
        if state.state != FINISHED:
            message = " ".join(str(error).split())[:300]
            state = State(FAILED, error=type(error).__name__, message=message, passing=True)
        return Outcome(point, state, True)

    def _connect(self, stack: ExitStack) -> Any:
        """A client of the cluster, with at least one worker that can execute a point."""
        import dask
        from distributed import Client

        place = f"Dask, {f'scheduler {self.scheduler}' if self.scheduler else f'{self.cluster} cluster'}"
        try:
            if self.scheduler:
                client = Client(_address(self.scheduler), timeout=WAIT_FOR_SCHEDULER)
            else:
                start = self._local_cluster if self.cluster == "local" else self._batch_cluster
                # A point waits at the scheduler, not behind another one at a worker, so that they start in their order.
                with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}):
                    client = Client(stack.enter_context(start()))
            stack.enter_context(client)
        except MMSAError:
            raise
        except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
            cause = error.__cause__ or error  # Dask tells that a worker failed, and with it why
            raise ConfigError(f"{place}: {' '.join(str(cause).split())}") from error
        wanted = "".join(f" with {name}={amount:g}" for name, amount in self.resources.items())
        end = time.monotonic() + WAIT_FOR_WORKERS
        if not self._count_workers(client):
            print(f"{place}: waiting for a worker{wanted}", file=sys.stderr)
        while not (workers := self._count_workers(client)):
            if time.monotonic() > end:
                raise ConfigError(f"{place}: no worker{wanted} came within {WAIT_FOR_WORKERS:g} s")
            time.sleep(0.2)
        self.workers = workers
        return client

    def _count_workers(self, client: Any) -> int:
        """How many points the workers can execute at a time."""

        def fitting(worker: Mapping[str, Any]) -> int:
            has = worker["resources"]
            amounts = (int(has.get(name, 0) / amount) for name, amount in self.resources.items())
            return min([worker["nthreads"], *amounts])

        return sum(map(fitting, client.scheduler_info(n_workers=-1)["workers"].values()))

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
            raise ConfigError(f"cluster {self.cluster} needs dask-jobqueue; {EXTRA}") from None
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
    from distributed.utils import silence_logging_cmgr

    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado.application", "asyncio")]
    levels = [log.level for log in logs]
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
    end = time.monotonic() + WAIT_FOR_SCHEDULER
    while scheme in ("tcp", "tls"):
        try:
            socket.create_connection(parse_host_port(rest), timeout=WAIT_FOR_SCHEDULER).close()
            break
        except ConnectionRefusedError:  # it may be about to start
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    return scheduler


MOST_TASKS = 1000
"""Of an array: SLURM's ``MaxArraySize`` is 1001 unless an administrator changed it."""


TEMPLATE = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{limit}
#SBATCH --cpus-per-task={threads}
#SBATCH --output={log}
{extra}
# {points} points of {file} in {tasks} tasks. Submit it again to run what is missing: what is finished is skipped, and a
# task that was killed or ran out of time repeats only the point that it was working on.
# Written by `mmsa-lib sweep --emit-slurm`; every node must see these folders.
set -euo pipefail
cd {folder}
{environment}exec {python} -m mmsa_lib sweep {file} --runs {runs} --workers 1 --threads {threads} \\
  --shard "$SLURM_ARRAY_TASK_ID/{tasks}"{arguments}
"""


def slurm_script(
    file: Path,
    runs: Path,
    points: int,
    *,
    tasks: int | None = None,
    at_once: int | None = None,
    threads: int = 1,
    sbatch: Sequence[str] = (),
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> str:
    """The text of an array script, each task of which runs its share of a sweep and skips what is finished.

    Args:
        file: the sweep's file.
        runs: the folder of runs, which all nodes share.
        points: how many points there are.
        tasks: of the array; by default one for each point, at most 1000. A task with several pays for its start once.
        at_once: how many tasks may run at the same time.
        threads: cores of a task, and threads of PyTorch.
        sbatch: further options, for instance ``--partition=gpu``.
        arguments: further options of ``mmsa-lib sweep``.
        environment: variables to set.

    Raises:
        ConfigError: nothing to run, or a number that is not positive.
    """
    if points < 1:
        raise ConfigError(f"{file} leaves no point to run")
    tasks = min(points, MOST_TASKS if tasks is None else tasks)
    for name, value in (("tasks", tasks), ("threads", threads), ("at_once", 1 if at_once is None else at_once)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    for option in sbatch:
        if not option.startswith("-"):
            raise ConfigError(f"{option!r} is no option of sbatch; write for instance --partition=gpu")
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in (environment or {}).items())
    paths = {"folder": Path.cwd(), "python": sys.executable, "file": file.resolve(), "runs": runs.resolve()}
    return TEMPLATE.format(
        name=shlex.quote(f"mmsa-{file.stem}"), last=tasks - 1, limit=f"%{at_once}" if at_once else "", threads=threads,
        log=shlex.quote(f"{str(runs.resolve()).replace('%', '%%')}/slurm-%A_%a.log"),
        extra="".join(f"#SBATCH {option}\n" for option in sbatch), points=points, tasks=tasks, environment=exports,
        arguments="".join(f" {shlex.quote(argument)}" for argument in arguments),
        **{name: shlex.quote(str(path)) for name, path in paths.items()},
    )  # fmt: skip
