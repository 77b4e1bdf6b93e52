"""A SLURM of one node on loopback, run by the tests themselves: nothing in /etc, no service, no munge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sweep_machinery import Lab, wait_for

from mmsa_lib.paths import project_root

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
PACKAGE = "slurm-wlm"

CONFIGURATION = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
MessageTimeout=60
KillWait=2
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why there can be no SLURM here, after trying to install it; empty if there can be one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a SLURM of its own needs Linux and root"
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has the daemons
    said = ""
    if not all(map(shutil.which, PROGRAMS)):
        script = project_root() / "tools" / "system_packages.sh"
        tried = subprocess.run(["bash", script, PACKAGE], capture_output=True, text=True, check=False)
        said = " ".join(tried.stderr.split())
    lacking = [program for program in PROGRAMS if not shutil.which(program)]
    return f"{', '.join(lacking)} not installed ({said})" if lacking else ""


class Slurm:
    """The running SLURM.

    Attributes:
        environment: variables with which SLURM's programs find it.
    """

    def __init__(self, folder: Path) -> None:
        self.machine = Lab(folder)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def ask(self, *command: str | Path) -> str:
        """What one of SLURM's programs answers."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            [str(part) for part in command], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    def submit(self, script: Path) -> str:
        """Number of the job that ``sbatch`` makes of the script."""
        return self.ask("sbatch", "--parsable", script).strip()

    def jobs(self) -> list[str]:
        """Numbers of jobs that are not over."""
        return self.ask("squeue", "--noheader", "--array", "--format", "%A").split()

    def wait(self, seconds: float = 240) -> None:
        """Wait until all jobs are over."""
        wait_for(lambda: not self.jobs(), seconds, interval=0.5)


@contextmanager
def slurm_node(folder: Path) -> Iterator[Slurm]:
    """Start controller and node; afterwards nothing of them is left, jobs included."""
    slurm = Slurm(folder)
    ports = _free_ports(2)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(host=host, controller=ports[0], daemon=ports[1], folder=folder)
    (folder / "slurm.conf").write_text(text)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    try:
        # Ended by the kernel if the tests are killed.
        for daemon in ("slurmctld", "slurmd"):
            slurm.machine.start("setpriv", "--pdeathsig", "KILL", daemon, "-D", env=slurm.environment)
        wait_for(lambda: _is_idle(slurm, folder), 60, interval=0.3)
        yield slurm
    finally:
        subprocess.run(["scancel", "--user", "root"], env={**os.environ, **slurm.environment}, check=False, timeout=60)
        slurm.machine.close()


def _is_idle(slurm: Slurm, folder: Path) -> bool:
    for process in slurm.machine.started:
        if process.poll() is not None:
            logs = [(folder / f"{name}.log").read_text()[-500:] for name in ("slurmctld", "slurmd")]
            raise AssertionError(f"a daemon of SLURM ended: {logs}")
    try:
        return slurm.ask("sinfo", "--noheader", "--format", "%t").strip() == "idle"
    except subprocess.CalledProcessError:
        return False


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
