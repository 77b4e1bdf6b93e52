"""The command that curated tables have in common: ``python -m mmsa_lib.experiments.<subject>_results RUNS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mmsa_lib.errors import ConfigError, MMSAError
from mmsa_lib.paths import project_root

Write = Callable[[Path, Path], list[str]]
"""Reads a folder of folders of runs, writes tables to another folder, and returns their names."""


def curation_command(subject: str, write: Write, meaning: str, arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, write the tables and name them.

    Args:
        subject: first word of the tables, which are ``<subject>_<name>.csv``.
        write: what makes them.
        meaning: what the tables are of, for ``--help``.
        arguments: of the command line; by default those of this process.

    Returns:
        Exit code: 0, or 2 where runs or data are missing, with a line on stderr.
    """
    parser = argparse.ArgumentParser(description=f"write the curated tables of {meaning}")
    parser.add_argument("runs", type=Path, help="the folder that holds one folder of runs per table")
    parser.add_argument("--out", type=Path, help="folder, by default data/results of the checkout")
    args = parser.parse_args(arguments)
    root = project_root()
    try:
        if args.out is None and root is None:
            raise ConfigError("no checkout to write to; give --out")
        for name in write(args.runs, args.out or root / "data" / "results"):
            print(f"{subject}_{name}.csv")
    except MMSAError as error:
        print(f"{subject}_results: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0
