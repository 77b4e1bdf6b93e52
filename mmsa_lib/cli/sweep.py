"""``mmsa-lib sweep``: many runs from one YAML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.cli.output import print_json, say
from mmsa_lib.errors import ConfigError

if TYPE_CHECKING:
    from mmsa_lib.experiments.sweeps.driver import SweepResult
    from mmsa_lib.experiments.sweeps.points import Point

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
        "--only", nargs="+", action="extend", default=[], metavar="PART",
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
        "--cluster-option", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="of the cluster's class in dask-jobqueue, for instance queue=gpu walltime=02:00:00 memory=8GB",
    )  # fmt: skip
    dask.add_argument(
        "--resources", nargs="+", action="extend", default=[], metavar="NAME=N", help="of a worker, for instance GPU=1"
    )
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
    from mmsa_lib.experiments.sweeps.driver import sweep

    report = (lambda line: None) if args.quiet else say
    result = sweep(
        args.file, args.executor, runs=args.runs, only=args.only, shard=_shard(args.shard),
        retry_failed=args.retry_failed, keep_going=args.keep_going, report=report, **_options(args),
    )  # fmt: skip
    if args.json:
        print_json(_facts(result))
    else:
        print(result.summary())
    return 0 if result.ok else 1


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the executor; those of another executor are an error."""
    common = {"workers": args.workers, "threads": args.threads, "warm": not args.cold}
    if args.executor == "dask":
        return {
            **common, "scheduler": args.scheduler or "", "cluster": args.cluster,
            "cluster_options": _pairs("--cluster-option", args.cluster_option),
            "resources": _amounts(args.resources),
        }  # fmt: skip
    given = {"--scheduler": args.scheduler, "--cluster-option": args.cluster_option, "--resources": args.resources}
    given["--cluster"] = args.cluster != "local"
    for name, value in given.items():
        if value:
            raise ConfigError(f"{name} belongs to --executor dask")
    for name, value in {"--tasks": args.tasks, "--at-once": args.at_once, "--sbatch": args.sbatch}.items():
        if value:
            raise ConfigError(f"{name} belongs to --executor slurm-script (or --emit-slurm PATH)")
    return common


def _pairs(name: str, items: list[str]) -> dict[str, Any]:
    from mmsa_lib.experiments.options import literal, parse_assignment

    try:
        return {key: literal(raw) for key, raw in map(parse_assignment, items)}
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _amounts(items: list[str]) -> dict[str, float]:
    amounts = _pairs("--resources", items)
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not amount > 0:
            raise ConfigError(f"--resources: {name}={amount} must be a positive number")
    return amounts


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, stroke, count = text.partition("/")
    if not (stroke and number.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shard {text} must read K/N, for instance 0/8")
    return int(number), int(count)


def _show(args: argparse.Namespace) -> int:
    """``--dry-run``."""
    from mmsa_lib.experiments.sweeps.driver import select, to_do
    from mmsa_lib.experiments.sweeps.points import read_points
    from mmsa_lib.experiments.sweeps.store import read_state
    from mmsa_lib.paths import runs_folder

    runs = Path(args.runs or runs_folder())
    points = select(read_points(args.file), args.only, _shard(args.shard))
    states = [read_state(runs, point) for point in points]
    count = sum(to_do(state, args.retry_failed) for state in states)
    if args.json:
        rows = [
            {**_point_facts(p), "state": s.state, "unbuilt": p.unbuilt} for p, s in zip(points, states, strict=True)
        ]
        print_json({"file": str(args.file), "runs": str(runs), "to_run": count, "points": rows})
        return 0
    for point, state in zip(points, states, strict=True):
        print(f"{point.id}  {state.state:<8}  {point.label}")
    print(f"{len(points)} points, {count} to run")
    for reason in dict.fromkeys(point.unbuilt for point in points if point.unbuilt):
        print(f"needed first: {reason}")
    return 0


def _emit(args: argparse.Namespace) -> int:
    """``--emit-slurm``, ``--executor slurm-script``."""
    import os

    from mmsa_lib.experiments.sweeps.driver import refuse_unbuilt, select
    from mmsa_lib.experiments.sweeps.points import read_points
    from mmsa_lib.experiments.sweeps.slurm import slurm_script, write_slurm
    from mmsa_lib.paths import runs_folder

    runs = Path(args.runs or runs_folder()).resolve()
    points = select(read_points(args.file), args.only)
    refuse_unbuilt(points)
    flags = {"--retry-failed": args.retry_failed, "--cold": args.cold, "--no-keep-going": not args.keep_going}
    arguments = [flag for flag, given in flags.items() if given]
    arguments += ["--only", *args.only] if args.only else []
    kept = ("MMSA_LIB_DATA", "MMSA_LIB_MASKS", "MMSA_LIB_MIRROR")
    text = slurm_script(
        args.file, runs, len(points), tasks=args.tasks, at_once=args.at_once, threads=args.threads, sbatch=args.sbatch,
        arguments=arguments, environment={name: os.environ[name] for name in kept if os.environ.get(name)},
    )  # fmt: skip
    path = write_slurm(args.emit_slurm or runs / f"{args.file.stem}.slurm.sh", text, runs)
    if args.json:
        print_json({"script": str(path), "points": len(points)})
    else:
        print(f"{path}: {len(points)} points; submit with: sbatch {path}")
    return 0


def _facts(result: SweepResult) -> dict[str, Any]:
    rows = [
        {
            **_point_facts(r.point), "outcome": r.outcome, "seconds": r.state.seconds, "runs": list(r.state.runs),
            "cell": r.state.cell, "error": r.state.error, "message": r.state.message,
        }
        for r in result.points
    ]  # fmt: skip
    return {"file": str(result.file), "runs": str(result.runs), "ok": result.ok, "points": rows}


def _point_facts(point: Point) -> dict[str, Any]:
    return {
        "id": point.id, "block": point.block, "ablation": point.ablation, "label": point.label,
        "parameters": point.parameters,
    }  # fmt: skip
