"""``python -m companion``: run the sweeps of this companion, curate their tables, and write those of README.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from companion import batch, claims, collaborative, contrastive, data_sets, hrlf, missing, power, readme, sweeps, tuning
from companion.shared import SWEEPS, write_terms
from mmsa_lib.errors import ConfigError, DataError, MMSAError, unknown_name
from mmsa_lib.files import write_text
from mmsa_lib.paths import project_root

SHELVES: dict[str, ModuleType] = {
    "sweep": sweeps, "missing": missing, "hrlf": hrlf, "collaborative": collaborative, "contrastive": contrastive,
}  # fmt: skip
"""First word of curated tables to the module that writes them from folders of runs."""

PAGES: dict[str, tuple[Callable[[Path], str], Path, str]] = {
    "power": (power.page, power.PAGE, "which difference each design can show"),
    "claims": (claims.page, claims.PAGE, "what the papers claim, how it was tested, and what came out"),
}
"""Command to the function of the results that builds a page, the page, and what it says."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, 1 where runs are lacking or ``readme --check`` finds a difference, 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m companion", description="curate the tables of this companion")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    curated = commands.add_parser("results", help="write data/results/*.csv from folders of runs")
    curated.add_argument("runs", type=Path, help="folder of folders of runs: main, ablations, sensitivity, missing, …")
    curated.add_argument("--only", nargs="+", metavar="WORD", help=f"first words of tables: {', '.join(SHELVES)}")
    curated.add_argument("--out", type=Path, help="folder to write, by default data/results of the checkout")
    curated.set_defaults(run=_results)
    whole = commands.add_parser("run", help="run all sweeps of notebooks/sweeps that are not finished, in their order")
    whole.add_argument("runs", type=Path, help="folder of the folders of runs")
    whole.add_argument("--plan", action="store_true", help="say what is done and what is left; run nothing")
    whole.add_argument("--only", nargs="+", default=[], metavar="SWEEP", help="a sweep, or tune, main, ablations, …")
    whole.add_argument(
        "--workers", type=int, metavar="N", help="notebooks at a time (default: as many as fit the cores)"
    )
    whole.set_defaults(run=_run)
    tuned = commands.add_parser(
        "tune", help="choose each method's values by validation MAE: notebooks/sweeps/tuned.yaml"
    )
    tuned.add_argument("runs", type=Path, help="folder of folders of runs, with one called tuning")
    tuned.add_argument("--out", type=Path, help="folder for tuning.csv, by default data/results of the checkout")
    tuned.add_argument("--presets", type=Path, help="the YAML file, by default notebooks/sweeps/tuned.yaml")
    tuned.set_defaults(run=_tune)
    tables = commands.add_parser("tables", help="write the summary of the public sets and the linear baselines")
    tables.add_argument("--mirror", help="folder with the original files; by default they are downloaded")
    tables.add_argument("--out", type=Path, help="folder to write, by default data of the checkout")
    tables.set_defaults(run=_tables)
    page = commands.add_parser("readme", help="write the tables of README.md from data/results")
    page.add_argument("--check", action="store_true", help="change nothing; fail if README.md differs")
    page.set_defaults(run=_readme)
    for name, (build, target, what) in PAGES.items():
        written = commands.add_parser(name, help=f"write {target}: {what}")
        written.set_defaults(run=_page, page=build, target=target)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except MMSAError as error:
        print(f"companion: error: {error}", file=sys.stderr)
        return error.exit_code


def _results(options: argparse.Namespace) -> int:
    target = options.out or _root() / "data" / "results"
    for word in options.only or ():
        if word not in SHELVES:
            raise unknown_name("kind of table", word, SHELVES)
    there = [word for word, shelf in SHELVES.items() if any((options.runs / name).is_dir() for name in shelf.FOLDERS)]
    if not there:
        known = dict.fromkeys(name for shelf in SHELVES.values() for name in shelf.FOLDERS)
        raise DataError(f"{options.runs} has none of the folders {', '.join(known)}; make runs by notebooks/sweeps")
    for word in options.only or there:
        for name in SHELVES[word].write(options.runs, target):
            print(f"{word}_{name}.csv")
    if not options.only and (written := write_terms(options.runs, target)):
        print(written.name)
    return 0


def _run(options: argparse.Namespace) -> int:
    files = batch.sweep_files(_root() / SWEEPS, options.only)
    if not options.plan:
        tables = _root() / "data" / "results"
        lacking = batch.run_all(files, options.runs, tables, options.workers, lambda line: print(line, flush=True))
        if lacking:
            print(f"not finished: {', '.join(file.stem for file in lacking)}")
        return 1 if lacking else 0
    parts = [batch.part(file, options.runs) for file in files]
    print(*parts, batch.total(parts), sep="\n")
    return 0


def _tune(options: argparse.Namespace) -> int:
    table = (options.out or _root() / "data" / "results") / "tuning.csv"
    target = options.presets or _root() / SWEEPS / batch.PRESETS
    for row in tuning.write(options.runs / batch.ORDER["tune"], table, target).itertuples():
        print(f"{row.data} {row.method}: {row.label}, validation MAE {row.mean:.3f}, best of {row.trials}")
    return 0


def _tables(options: argparse.Namespace) -> int:
    folder = options.out or _root() / "data"
    summary = data_sets.write_summary(folder / "published" / "dataset_summary", options.mirror)
    for path in [*summary, *data_sets.write_linear(folder / "results")]:
        print(path.name)
    return 0


def _page(options: argparse.Namespace) -> int:
    write_text(_root() / options.target, options.page(_root() / "data" / "results"))
    print(options.target)
    return 0


def _readme(options: argparse.Namespace) -> int:
    if readme.write(_root(), options.check) or not options.check:
        return 0
    print("README.md differs from what the data give; write it with: python -m companion readme")
    return 1


def _root() -> Path:
    root = project_root()
    if root is None:
        raise ConfigError("no checkout to write to; run from one, or give --out")
    return root


if __name__ == "__main__":
    sys.exit(main())
