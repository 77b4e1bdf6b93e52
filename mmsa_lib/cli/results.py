"""``mmsa-lib results``: tables over runs, comparisons, and small files of both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.cli.output import add_command, print_json, say, say_undefined
from mmsa_lib.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmsa_lib.experiments.rendering import Table

CELL = ("dataset", "fold", "protocol", "level", "split")
CHOSEN = ("method", "label", *CELL, "metric")
"""Columns whose values ``results export`` and ``results compare`` can be asked for."""

SUFFIXES = {".txt": "text", ".csv": "csv", ".tex": "latex", ".html": "html", ".md": "markdown"}
RESAMPLES = 10_000
"""As :data:`mmsa_lib.evaluation.bootstrap.RESAMPLES`; importing that would cost a second before ``--help``."""

MOST_RESAMPLES = 1_000_000


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``results`` and its subcommands."""
    parser = subparsers.add_parser("results", help="tables over finished runs, comparisons, and their export")
    commands = parser.add_subparsers(dest="results_command", required=True, metavar="COMMAND")
    words = "mean, deviation and interval over seeds, with constant baselines"
    table = add_command(commands, "table", show, words)
    words = "every method and configuration against one of them, paired over seeds"
    against = add_command(commands, "compare", compare, words)
    words = "write chosen rows as a small CSV, or as a LaTeX, HTML or Markdown table"
    export = add_command(commands, "export", write, words, json="")
    for command in (table, against, export):
        source = "a folder of runs, or an exported table"
        command.add_argument("source", type=Path, metavar="FOLDER_OR_CSV", help=source)
    table.add_argument(
        "--metrics", "--metric", nargs="+", metavar="KEY", help="which metrics (default: all but macro averages)"
    )
    table.add_argument("--split", choices=("valid", "test"), default="test", help="default: test")
    table.add_argument("--protocol", default="complete", metavar="P", help="how test samples are made incomplete")
    table.add_argument("--level", default="0.0", metavar="L", help="a rate, or the available modalities (text+audio)")
    table.add_argument("--dataset", metavar="D", help="needed where there are several")
    table.add_argument("--fold", metavar="F", help="needed where there are several")
    table.add_argument(
        "--intervals", choices=("seeds", "items"), default="seeds", help="over seeds, or over seeds and test items"
    )
    table.add_argument("--published", action="store_true", help="what papers print, in tables of their own below")
    against.add_argument(
        "--reference", required=True, metavar="NAME",
        help="a method, METHOD:NAME, the NAME of a configuration (its label or its changes), or a constant baseline",
    )  # fmt: skip
    against.add_argument("--alpha", type=float, default=0.05, metavar="A", help="level of the verdicts (default: 0.05)")
    against.add_argument("--no-items", action="store_true", help="don't read predictions: tests over seeds alone")
    export.add_argument("target", type=Path, metavar="FILE", help=f"its suffix decides: {', '.join(SUFFIXES)}")
    export.add_argument("--format", choices=SUFFIXES.values(), help="whatever the suffix is")
    export.add_argument(
        "--summary", action="store_true", help="CSV of means, with intervals over seeds and test items where runs are"
    )
    for command in (table, export):
        command.add_argument(
            "--by", nargs="*", metavar="KEY",
            help="a column for each of these swept parameters instead of text in brackets (no KEY: all that differ)",
        )  # fmt: skip
    for command in (against, export):
        for column in CHOSEN:
            names = [f"--{column}"] + ["--metrics"] * (column == "metric")  # as in the other commands
            command.add_argument(*names, nargs="+", metavar="NAME", help=f"only these values of {column}")
    for command in (table, against, export):
        command.add_argument("--runs", type=Path, metavar="DIR", help="the folder of the runs behind a CSV")
        command.add_argument(
            "--resamples", type=int, default=RESAMPLES, metavar="N", help=f"of the bootstrap (default: {RESAMPLES})"
        )
        command.add_argument(
            "--across-code", action="store_true", help="also put runs side by side that different code made"
        )
    for command in (table, against):
        command.add_argument("--format", choices=SUFFIXES.values(), help="default: by the suffix of --out, else text")
        command.add_argument("--out", type=Path, metavar="FILE", help="write here instead of to stdout")


def show(args: argparse.Namespace) -> int:
    """``results table``."""
    _check(args)
    from mmsa_lib.experiments.tables import results_table

    names = (*CELL, "intervals", "published", "runs", "resamples", "by", "across_code")
    table = results_table(args.source, args.metrics, **{name: getattr(args, name) for name in names})
    say_undefined(table.undefined)
    content: dict[str, Any] = {"title": table.title, "rows": _records(table.frame), "notes": list(table.notes)}
    if args.published:
        content["published"] = [
            {"title": one.title, "header": one.header, "rows": [line.cells for line in one.lines]}
            for one in table.published
        ]
    return _give(args, table, content)


def compare(args: argparse.Namespace) -> int:
    """``results compare``."""
    _check(args)
    from mmsa_lib.experiments.summaries import compare as compare_runs
    from mmsa_lib.experiments.tables import comparison_table

    chosen = _chosen(args)
    frame = compare_runs(
        args.source, args.reference, chosen.pop("metric", None), alpha=args.alpha, runs=args.runs,
        items=False if args.no_items else None, resamples=args.resamples, across_code=args.across_code, **chosen,
    )  # fmt: skip
    content = {"reference": args.reference, "alpha": args.alpha, "rows": _records(frame)}
    return _give(args, comparison_table(frame), content)


def write(args: argparse.Namespace) -> int:
    """``results export``."""
    _check(args)
    chosen, kind = _chosen(args), args.format or _format_of(args.target)
    if args.summary and kind != "csv":
        raise ConfigError(f"--summary writes CSV, and {args.target} asks for {kind}; leave --summary out")
    if args.summary and args.by is not None:
        raise ConfigError("--summary writes columns of its own; leave --by out")
    if not args.summary and args.resamples != RESAMPLES:
        raise ConfigError("--resamples is of the bootstrap of --summary; add --summary or leave --resamples out")
    if not args.summary and kind == "csv" and args.across_code:
        raise ConfigError("exported rows say which code made each; add --summary or leave --across-code out")
    if kind != "csv":
        _write_file(args.target, _table_of_cell(args, chosen).to(kind))
        return _say_failed(args)
    from mmsa_lib.experiments.results import check_names, curate, is_constant, read_results

    check_names(read_results(args.source), **chosen)
    if args.summary:
        from mmsa_lib.experiments.summaries import curate_summary

        given = {"runs": args.runs, "resamples": args.resamples, "across_code": args.across_code}
        frame = curate_summary(args.source, args.target, **given, **chosen)
        say(f"{len(frame)} rows of a summary written to {args.target}")
    else:
        frame = curate(args.source, args.target, by=args.by, **chosen)
        runs = frame.loc[~is_constant(frame), "run_id"].nunique()
        say(f"{len(frame)} rows of {runs} runs written to {args.target}")
    return _say_failed(args)


def _table_of_cell(args: argparse.Namespace, chosen: dict[str, list[str]]) -> Table:
    """The table of one cell; a column with several values can't be shown in it."""
    from mmsa_lib.experiments.tables import results_table

    if "label" in chosen:
        raise ConfigError("a table shows the configurations side by side; leave --label out, or export CSV")
    for column in (name for name in CELL if len(chosen.get(name, [])) > 1):
        raise ConfigError(f"a table shows one {column}, not {', '.join(chosen[column])}; choose one, or export CSV")
    single = {column: chosen[column][0] for column in CELL if column in chosen}
    return results_table(
        args.source, chosen.get("metric"), methods=chosen.get("method"), runs=args.runs, by=args.by,
        across_code=args.across_code, **single,
    )  # fmt: skip


def _chosen(args: argparse.Namespace) -> dict[str, list[str]]:
    return {column: getattr(args, column) for column in CHOSEN if getattr(args, column)}


def _check(args: argparse.Namespace) -> None:
    """Refuse what can't be done before anything is read."""
    if args.results_command != "export":
        if args.json and (args.format or args.out):
            raise ConfigError(f"--json prints to stdout; leave {'--format' if args.format else '--out'} out")
        if args.out is not None and not args.format:
            args.format = _format_of(args.out)
    if args.runs is not None and not args.runs.is_dir():
        raise ConfigError(f"--runs: {args.runs} is no folder; give the folder of the runs behind {args.source}")
    if not 1 <= args.resamples <= MOST_RESAMPLES:
        raise ConfigError(f"--resamples: {args.resamples} is outside [1, {MOST_RESAMPLES:,}]")


def _format_of(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"the suffix of {path} must say what to write ({', '.join(SUFFIXES)}); or give --format")
    return SUFFIXES[path.suffix]


def _give(args: argparse.Namespace, table: Table, content: dict[str, Any]) -> int:
    """Print or write a table, as text or as JSON, and say which runs failed."""
    if args.json:
        print_json({**content, "failed": _failed(args)})
    elif args.out is None:
        print(table.to(args.format or "text"), end="")
    else:
        _write_file(args.out, table.to(args.format))
    return _say_failed(args)


def _write_file(path: Path, text: str) -> None:
    from mmsa_lib.files import write_text

    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    write_text(path, text)
    say(f"table written to {path}")


def _records(frame) -> list[dict[str, Any]]:
    """Rows as plain values; what is absent is ``None``."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _failed(args: argparse.Namespace) -> list[dict[str, Any]]:
    from mmsa_lib.experiments.results import failures

    folder = args.source if args.source.is_dir() else args.runs
    return _records(failures(folder)) if folder is not None else []


def _say_failed(args: argparse.Namespace) -> int:
    """0, after a line for each run that failed."""
    for row in _failed(args):
        message = " ".join(str(row["message"]).split())
        say(f"failed: {row['run_id']} ({row['method']}, seed {row['seed']}): {row['error']}: {message}")
    return 0
