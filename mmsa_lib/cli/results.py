"""``mmsa-lib results``: tables over runs, and curated CSV files."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsa_lib.cli.output import print_json, say

CHOSEN = ("method", "dataset", "fold", "protocol", "level", "split", "metric")
"""Columns whose values ``results export`` can be asked for."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``results`` and its subcommands."""
    parser = subparsers.add_parser("results", help="tables over finished runs, and their export")
    commands = parser.add_subparsers(dest="results_command", required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="mean, deviation and interval over seeds, with constant baselines")
    table.add_argument("source", type=Path, metavar="FOLDER_OR_CSV", help="a folder of runs, or an exported table")
    table.add_argument("--metrics", nargs="+", metavar="KEY", help="which metrics (default: all but macro averages)")
    table.add_argument("--split", choices=("valid", "test"), default="test", help="default: test")
    table.add_argument("--protocol", default="complete", metavar="P", help="how test samples are made incomplete")
    table.add_argument("--level", default="0.0", metavar="L", help="a rate, or the available modalities (text+audio)")
    table.add_argument("--dataset", metavar="D", help="needed where there are several")
    table.add_argument("--fold", metavar="F", help="needed where there are several")
    table.add_argument("--json", action="store_true", help="print one JSON document")
    table.set_defaults(handler=show)
    export = commands.add_parser("export", help="write chosen rows, with run identifiers and seeds, to a small CSV")
    export.add_argument("source", type=Path, metavar="FOLDER_OR_CSV")
    export.add_argument("target", type=Path, metavar="CSV")
    for column in CHOSEN:
        export.add_argument(f"--{column}", nargs="+", metavar="NAME", help=f"only these values of {column}")
    export.set_defaults(handler=write)


def show(args: argparse.Namespace) -> int:
    """``results table``."""
    from mmsa_lib.experiments.results import failures, read_results
    from mmsa_lib.experiments.tables import results_table

    frame = read_results(args.source)
    chosen = {name: getattr(args, name) for name in ("split", "protocol", "level", "dataset", "fold")}
    table = results_table(frame, args.metrics, **chosen)
    if args.json:
        print_json({"title": table.title, "rows": table.frame.to_dict("records")})
    else:
        print(repr(table))
    if args.source.is_dir():
        for _, row in failures(args.source).iterrows():
            say(f"failed: {row['run_id']} ({row['method']}, seed {row['seed']}): {row['error']}: {row['message']}")
    return 0


def write(args: argparse.Namespace) -> int:
    """``results export``."""
    from mmsa_lib.experiments.results import curate

    chosen = {column: getattr(args, column) for column in CHOSEN if getattr(args, column)}
    frame = curate(args.source, args.target, **chosen)
    runs = frame.loc[frame["run_id"] != "", "run_id"].nunique()
    say(f"{len(frame)} rows of {runs} runs written to {args.target}")
    return 0
