"""``mmsa-lib sweep``: many runs from one YAML file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmsa_lib.cli.output import answer, say
from mmsa_lib.errors import ConfigError

EXECUTORS = ("local", "dask", "slurm-script")


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``sweep``."""
    parser = subparsers.add_parser(
        "sweep",
        help="execute a notebook many times: a grid, named ablations, seeds",
        description="Execute the sweep in a YAML file. What is finished is skipped; what was cut off is made again.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="for instance notebooks/sweeps/main.yaml")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder of runs (default: MMSA_LIB_RUNS or runs/)")
    what = parser.add_argument_group("what is executed")
    what.add_argument("--dry-run", action="store_true", help="show every point and where it stands; execute nothing")
    what.add_argument(
        "--only", nargs="+", default=[], metavar="PART",
        help="names of blocks or ablations, key=value, or the start of an identifier",
    )  # fmt: skip
    what.add_argument("--retry-failed", action="store_true", help="also repeat points that failed")
    what.add_argument(
        "--keep-going", action=argparse.BooleanOptionalAction, default=True,
        help="go on after a failure (default); --no-keep-going starts nothing new after the first",
    )  # fmt: skip
    what.add_argument("--shard", metavar="K/N", help="only every N-th point from the K-th on, counted from 0")
    how = parser.add_argument_group("how it is executed")
    how.add_argument("--executor", choices=EXECUTORS, default="local", help="default: local")
    how.add_argument("--workers", type=int, metavar="N", help="notebooks at a time (default: as many as fit the cores)")
    how.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each notebook (default: 1)")
    how.add_argument("--cold", action="store_true", help="a new Python for each notebook instead of a prepared one")
    dask = parser.add_argument_group("executor dask")
    dask.add_argument("--scheduler", metavar="ADDRESS", help="a running scheduler, or its scheduler file")
    dask.add_argument("--cluster", default="local", metavar="KIND", help="local, slurm, pbs, sge or lsf")
    dask.add_argument(
        "--cluster-option", nargs="+", default=[], metavar="KEY=VALUE",
        help="of the cluster's class in dask-jobqueue, for instance queue=gpu walltime=02:00:00 memory=8GB",
    )  # fmt: skip
    dask.add_argument("--resources", nargs="+", default=[], metavar="NAME=N", help="of a worker, for instance GPU=1")
    slurm = parser.add_argument_group("executor slurm-script")
    slurm.add_argument(
        "--emit-slurm", type=Path, metavar="PATH", help="write an array script there and execute nothing"
    )
    slurm.add_argument("--tasks", type=int, metavar="N", help="tasks of the array (default: one for each point)")
    slurm.add_argument("--at-once", type=int, metavar="N", help="how many tasks may run at the same time")
    slurm.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="for instance --sbatch=--gres=gpu:1"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Execute it; 1 if a point is not finished at the end."""
    if args.dry_run:
        return _show(args)
    if args.emit_slurm is not None or args.executor == "slurm-script":
        return _emit(args)
    from mmsa_lib.experiments.sweeps import sweep

    report = (lambda line: None) if args.quiet else say
    result = sweep(
        args.file, args.executor, runs=args.runs, only=args.only, shard=_shard(args.shard),
        retry_failed=args.retry_failed, keep_going=args.keep_going, report=report, **_options(args),
    )  # fmt: skip
    names = ("seconds", "runs", "cell", "error", "message")
    points = [{**_facts(r.point), "outcome": r.outcome, **_facts(r.state, names)} for r in result.points]
    document = {"file": str(result.file), "runs": str(result.runs), "ok": result.ok, "points": points}
    answer(args, document, [result.summary()])
    return 0 if result.ok else 1


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the executor; those of another executor are an error."""
    common = {"workers": args.workers, "threads": args.threads, "warm": not args.cold}
    slurm = {"--tasks": args.tasks, "--at-once": args.at_once, "--sbatch": args.sbatch}
    elsewhere = {} if args.executor == "dask" else dict.fromkeys(_of_dask(args), "dask")
    given = (name for name, value in slurm.items() if value not in (None, []))
    elsewhere |= dict.fromkeys(given, "slurm-script (or --emit-slurm PATH)")
    for name, owner in elsewhere.items():
        raise ConfigError(f"{name} belongs to --executor {owner}")
    if args.executor != "dask":
        return common
    resources = _pairs("--resources", args.resources)
    for name, amount in resources.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
            raise ConfigError(f"--resources: {name}={amount} must be a positive number")
    options = _pairs("--cluster-option", args.cluster_option)
    dask = {"scheduler": args.scheduler or "", "cluster": args.cluster, "cluster_options": options}
    return {**common, **dask, "resources": resources}


def _of_dask(args: argparse.Namespace) -> list[str]:
    """The options of ``--executor dask`` that are given."""
    dask = {"--scheduler": args.scheduler, "--cluster": args.cluster != "local"}
    dask |= {"--cluster-option": args.cluster_option, "--resources": args.resources}
    return [name for name, value in dask.items() if value]


def _pairs(name: str, items: list[str]) -> dict[str, Any]:
    from mmsa_lib.experiments.options import literal, parse_assignment

    try:
        return {key: literal(raw) for key, raw in map(parse_assignment, items)}
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, stroke, count = text.partition("/")
    if not (stroke and number.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shard {text} must read K/N, for instance 0/8")
    return int(number), int(count)


def _show(args: argparse.Namespace) -> int:
    """``--dry-run``."""
    from mmsa_lib.experiments.sweep_file import choose, read_points
    from mmsa_lib.experiments.sweeps import read_state
    from mmsa_lib.paths import runs_folder

    runs = Path(args.runs or runs_folder())
    points = choose(read_points(args.file), args.only, _shard(args.shard))
    states = [read_state(runs, point) for point in points]
    count = sum(state.to_do(args.retry_failed) for state in states)
    both = list(zip(points, states, strict=True))
    rows = [{**_facts(point), "state": state.state, "unbuilt": point.unbuilt} for point, state in both]
    lines = [f"{point.id}  {state.state:<8}  {point.label}" for point, state in both]
    needed = dict.fromkeys(f"needed first: {point.unbuilt}" for point in points if point.unbuilt)
    document = {"file": str(args.file), "runs": str(runs), "to_run": count, "points": rows}
    return answer(args, document, [*lines, f"{len(points)} points, {count} to run", *needed])


def _emit(args: argparse.Namespace) -> int:
    """``--emit-slurm``, ``--executor slurm-script``."""
    from mmsa_lib.experiments.clusters import slurm_script
    from mmsa_lib.experiments.sweep_file import choose, read_points
    from mmsa_lib.experiments.sweeps import make_runs_folder, refuse_unbuilt
    from mmsa_lib.files import write_text
    from mmsa_lib.paths import runs_folder

    lost = {"--executor dask": args.executor == "dask", "--shard": args.shard, "--workers": args.workers is not None}
    for name in (*(name for name, given in lost.items() if given), *_of_dask(args)):
        raise ConfigError(f"{name} has no effect on an array script, each task of which runs one share; leave it out")
    runs = Path(args.runs or runs_folder()).resolve()
    points = choose(read_points(args.file), args.only)
    refuse_unbuilt(points)
    flags = {"--retry-failed": args.retry_failed, "--cold": args.cold, "--no-keep-going": not args.keep_going}
    arguments = [flag for flag, given in flags.items() if given]
    arguments += ["--only", *args.only] if args.only else []
    kept = ("MMSA_LIB_DATA", "MMSA_LIB_MASKS", "MMSA_LIB_MIRROR", "MMSA_LIB_PLUGINS")
    text = slurm_script(
        args.file, runs, len(points), tasks=args.tasks, at_once=args.at_once, threads=args.threads, sbatch=args.sbatch,
        arguments=arguments, environment={name: os.environ[name] for name in kept if os.environ.get(name)},
    )  # fmt: skip
    make_runs_folder(runs)  # else SLURM can't write its logs there, and fails without a word
    path = args.emit_slurm or runs / f"{args.file.stem}.slurm.sh"
    write_text(path, text)
    path.chmod(0o755)
    line = f"{path}: {len(points)} points; submit with: sbatch {path}"
    return answer(args, {"script": str(path), "points": len(points)}, [line])


def _facts(thing: Any, names: Sequence[str] = ("id", "block", "ablation", "label", "parameters")) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}
