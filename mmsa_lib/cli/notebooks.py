"""``mmsa-lib notebooks``: execute the notebooks strictly."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmsa_lib.errors import ConfigError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``notebooks run``."""
    parser = subparsers.add_parser("notebooks", help="execute the notebooks")
    commands = parser.add_subparsers(dest="notebooks_command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="execute notebooks in order; executed copies go to runs/notebooks")
    which = "which ones, for instance 01, 01_data or the path of one of your own (default: all)"
    run.add_argument("names", nargs="*", metavar="NAME", help=which)
    run.add_argument("--profile", choices=("smoke", "cpu", "full"), default="smoke", help="default: smoke")
    run.add_argument("--out", type=Path, metavar="DIR", help="folder of the executed copies")
    run.add_argument("--update", action="store_true", help="also put good copies in the place of the notebooks")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at a time (default: 1)")
    run.add_argument("--timeout", type=float, default=3600, metavar="SECONDS", help="for each notebook (default: 3600)")
    values = "parameters for all chosen notebooks, for instance seed=1112 config.max_epochs=20"
    run.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help=values)
    run.set_defaults(handler=execute)


def execute(args: argparse.Namespace) -> int:
    """Run them; 1 if one failed."""
    from mmsa_lib.experiments.notebooks import run_all
    from mmsa_lib.experiments.options import literal, parse_assignment

    # The notebook's annotations turn text into numbers; lists and dictionaries are read here.
    parameters: dict[str, Any] = {}
    for key, raw in map(parse_assignment, args.set):
        if key in parameters:
            raise ConfigError(f"--set {key} is given twice; give it once")
        parameters[key] = literal(raw) if raw[:1] in ("[", "{") or "." in key else raw
    results = run_all(
        args.names, profile=args.profile, parameters=parameters, output=args.out, update=args.update, jobs=args.jobs,
        timeout=args.timeout,
    )  # fmt: skip
    return 0 if all(result.ok for result in results) else 1
