"""``mmsa-lib results``: tables over runs, comparisons, and small files of both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.cli.output import print_json, say, say_undefined
from mmsa_lib.errors import ConfigError, DataError

if TYPE_CHECKING:
    from mmsa_lib.experiments.rendering import Table

CHOSEN = ("method", "dataset", "fold", "protocol", "level", "split", "metric")
"""Columns whose values ``results export`` and ``results compare`` can be asked for."""

SUFFIXES = {".txt": "text", ".csv": "csv", ".tex": "latex", ".html": "html", ".md": "markdown"}
FORMATS = tuple(SUFFIXES.values())
RESAMPLES = 10_000
"""As :data:`mmsa_lib.evaluation.bootstrap.RESAMPLES`; importing that would cost a second before ``--help``."""

MOST_RESAMPLES = 1_000_000


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``results`` and its subcommands."""
    parser = subparsers.add_parser("results", help="tables over finished runs, comparisons, and their export")
    commands = parser.add_subparsers(dest="results_command", required=True, metavar="COMMAND")
    table = commands.add_parser("table", help="mean, deviation and interval over seeds, with constant baselines")
    table.add_argument("source", type=Path, metavar="FOLDER_OR_CSV", help="a folder of runs, or an exported table")
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
    _add_by(table)
    table.add_argument("--published", action="store_true", help="what papers print, in tables of their own below")
    _add_bootstrap(table)
    _add_output(table)
    table.set_defaults(handler=show)

    against = commands.add_parser("compare", help="every method and variant against one of them, paired over seeds")
    against.add_argument("source", type=Path, metavar="FOLDER_OR_CSV")
    against.add_argument(
        "--reference", required=True, metavar="NAME", help="a method, METHOD:VARIANT, a variant, or a constant baseline"
    )
    against.add_argument("--alpha", type=float, default=0.05, metavar="A", help="level of the verdicts (default: 0.05)")
    _add_chosen(against)
    against.add_argument("--no-items", action="store_true", help="don't read predictions: tests over seeds alone")
    _add_bootstrap(against)
    _add_output(against)
    against.set_defaults(handler=compare)

    export = commands.add_parser(
        "export", help="write chosen rows as a small CSV, or as a LaTeX, HTML or Markdown table"
    )
    export.add_argument("source", type=Path, metavar="FOLDER_OR_CSV")
    export.add_argument("target", type=Path, metavar="FILE", help=f"its suffix decides: {', '.join(SUFFIXES)}")
    export.add_argument("--format", choices=FORMATS, help="whatever the suffix is")
    _add_chosen(export)
    export.add_argument(
        "--summary", action="store_true", help="CSV of means, with intervals over seeds and test items where runs are"
    )
    _add_by(export)
    _add_bootstrap(export)
    export.set_defaults(handler=write)


def _add_chosen(parser: argparse.ArgumentParser) -> None:
    for column in CHOSEN:
        names = [f"--{column}"] + ["--metrics"] * (column == "metric")  # as in the other commands
        parser.add_argument(*names, nargs="+", metavar="NAME", help=f"only these values of {column}")


def _add_by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by", nargs="*", metavar="KEY",
        help="a column for each of these swept parameters instead of text in brackets (no KEY: all that differ)",
    )  # fmt: skip


def _add_bootstrap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, metavar="DIR", help="the folder of the runs behind a CSV")
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, metavar="N", help=f"of the bootstrap (default: {RESAMPLES})"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --out, else text")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write here instead of to stdout")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def show(args: argparse.Namespace) -> int:
    """``results table``."""
    _check_output(args)
    _check_runs(args)
    from mmsa_lib.experiments.tables import results_table

    chosen = {name: getattr(args, name) for name in ("split", "protocol", "level", "dataset", "fold", "intervals")}
    chosen |= {name: getattr(args, name) for name in ("published", "runs", "resamples", "by")}
    table = results_table(args.source, args.metrics, **chosen)
    say_undefined(table.undefined)
    content: dict[str, Any] = {"title": table.title, "rows": _records(table.frame), "notes": list(table.notes)}
    if args.published:
        content["published"] = [
            {"title": one.title, "header": one.header, "rows": [line.cells for line in one.lines]}
            for one in table.published
        ]
    _give(args, table, content)
    return 0


def compare(args: argparse.Namespace) -> int:
    """``results compare``."""
    _check_output(args)
    _check_runs(args)
    from mmsa_lib.experiments.summaries import compare as compare_runs
    from mmsa_lib.experiments.tables import comparison_table

    chosen = {column: getattr(args, column) for column in CHOSEN if column != "metric" and getattr(args, column)}
    frame = compare_runs(
        args.source, args.reference, args.metric, alpha=args.alpha, runs=args.runs,
        items=False if args.no_items else None, resamples=args.resamples, **chosen,
    )  # fmt: skip
    content = {"reference": args.reference, "alpha": args.alpha, "rows": _records(frame)}
    _give(args, comparison_table(frame), content)
    return 0


def write(args: argparse.Namespace) -> int:
    """``results export``."""
    _check_runs(args)
    kind = args.format or _format_of(args.target)
    chosen = {column: getattr(args, column) for column in CHOSEN if getattr(args, column)}
    if args.summary and kind != "csv":
        raise ConfigError(f"--summary writes CSV, and {args.target} asks for {kind}; leave --summary out")
    if kind == "csv":
        _export_csv(args, chosen)
    else:
        _write_file(args.target, _chosen_table(args, chosen).to(kind))
        say(f"table written to {args.target}")
    _say_failed(args)
    return 0


def _export_csv(args: argparse.Namespace, chosen: dict[str, list[str]]) -> None:
    from mmsa_lib.experiments.results import check_names, curate, read_results
    from mmsa_lib.experiments.summaries import curate_summary

    check_names(read_results(args.source), **chosen)
    if args.summary:
        if args.by is not None:
            raise ConfigError("--summary writes columns of its own; leave --by out")
        frame = curate_summary(args.source, args.target, runs=args.runs, resamples=args.resamples, **chosen)
        say(f"{len(frame)} rows of a summary written to {args.target}")
        return
    frame = curate(args.source, args.target, by=args.by, **chosen)
    runs = frame.loc[frame["run_id"] != "", "run_id"].nunique()
    say(f"{len(frame)} rows of {runs} runs written to {args.target}")


def _chosen_table(args: argparse.Namespace, chosen: dict[str, list[str]]) -> Table:
    """The table of one cell; a column with several values can't be shown in it."""
    from mmsa_lib.experiments.tables import results_table

    single = {}
    for column in ("dataset", "fold", "protocol", "level", "split"):
        values = chosen.get(column, [])
        if len(values) > 1:
            raise ConfigError(f"a table shows one {column}, not {', '.join(values)}; choose one, or export CSV")
        single |= {column: values[0]} if values else {}
    return results_table(
        args.source, chosen.get("metric"), methods=chosen.get("method"), runs=args.runs, by=args.by, **single
    )


def _check_output(args: argparse.Namespace) -> None:
    """Refuse what can't be done before anything is read."""
    if args.json and (args.format or args.out):
        raise ConfigError(f"--json prints to stdout; leave {'--format' if args.format else '--out'} out")
    if args.out is not None and not args.format:
        args.format = _format_of(args.out)


def _check_runs(args: argparse.Namespace) -> None:
    if args.runs is not None and not args.runs.is_dir():
        raise ConfigError(f"--runs: {args.runs} is no folder; give the folder of the runs behind {args.source}")
    if not 1 <= args.resamples <= MOST_RESAMPLES:
        raise ConfigError(f"--resamples: {args.resamples} is outside [1, {MOST_RESAMPLES:,}]")


def _format_of(path: Path) -> str:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"the suffix of {path} must say what to write ({', '.join(SUFFIXES)}); or give --format")
    return SUFFIXES[path.suffix]


def _give(args: argparse.Namespace, table: Table, content: dict[str, Any]) -> None:
    """Print or write a table, as text or as JSON, and say which runs failed."""
    if args.json:
        print_json({**content, "failed": _failed(args)})
    elif args.out is None:
        print(table.to(args.format or "text"), end="")
    else:
        _write_file(args.out, table.to(args.format))
        say(f"table written to {args.out}")
    _say_failed(args)


def _write_file(path: Path, text: str) -> None:
    from mmsa_lib.files import write_text

    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    write_text(path, text)


def _records(frame) -> list[dict[str, Any]]:
    """Rows as plain values; what is absent is ``None``."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _failed(args: argparse.Namespace) -> list[dict[str, Any]]:
    from mmsa_lib.experiments.results import failures

    folder = args.source if args.source.is_dir() else args.runs
    return _records(failures(folder)) if folder is not None else []


def _say_failed(args: argparse.Namespace) -> None:
    for row in _failed(args):
        message = " ".join(str(row["message"]).split())
        say(f"failed: {row['run_id']} ({row['method']}, seed {row['seed']}): {row['error']}: {message}")
