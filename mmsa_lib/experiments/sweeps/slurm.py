"""A batch array for SLURM that needs no Dask: each task runs its share of a sweep and skips what is finished."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.files import write_text

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
    environment: dict[str, str] | None = None,
) -> str:
    """The text of an array script.

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
    tasks = min(points, MOST_TASKS) if tasks is None else min(points, tasks)
    for name, value in (("tasks", tasks), ("threads", threads), ("at_once", 1 if at_once is None else at_once)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    for option in sbatch:
        if not option.startswith("-"):
            raise ConfigError(f"{option!r} is no option of sbatch; write for instance --partition=gpu")
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in (environment or {}).items())
    return TEMPLATE.format(
        name=shlex.quote(f"mmsa-{file.stem}"),
        last=tasks - 1,
        limit=f"%{at_once}" if at_once else "",
        threads=threads,
        log=shlex.quote(f"{str(runs.resolve()).replace('%', '%%')}/slurm-%A_%a.log"),
        extra="".join(f"#SBATCH {option}\n" for option in sbatch),
        points=points,
        tasks=tasks,
        folder=shlex.quote(str(Path.cwd())),
        environment=exports,
        python=shlex.quote(sys.executable),
        file=shlex.quote(str(file.resolve())),
        runs=shlex.quote(str(runs.resolve())),
        arguments="".join(f" {shlex.quote(argument)}" for argument in arguments),
    )


def write_slurm(path: Path, text: str, runs: Path) -> Path:
    """Write the script to ``path``, to be given to ``sbatch``.

    Raises:
        DataError: it can't be written, or the folder of runs can't be created.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)  # else SLURM can't write its logs there, and fails without a word
    except OSError as error:
        raise DataError(f"cannot write runs to {runs}: {error.strerror}; choose another folder") from error
    write_text(path, text)
    path.chmod(0o755)
    return path
