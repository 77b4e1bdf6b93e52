"""``mmsa-lib predict``: what a finished run says about the samples of a data set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmsa_lib.cli.output import add_command, say


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``predict``."""
    more = (
        "Write id, label and prediction of every sample as CSV. Audio and vision are standardised by the training "
        "split of the data set that is given."
    )
    add = add_command(subparsers, "predict", predict, "apply the model of a finished run", more, json="").add_argument
    add("run", metavar="RUN", help="folder of a finished run, or its identifier")
    add("--dataset", metavar="NAME", help="a data set (default: the run's own)")
    add("--fold", metavar="F", help="a fold of it (default: the run's own)")
    add("--split", choices=("train", "valid", "test"), default="test", help="default: test")
    add("--runs", type=Path, metavar="DIR", help="where to look for an identifier")
    add("--out", type=Path, metavar="CSV", help="write here instead of to stdout")


def predict(args: argparse.Namespace) -> int:
    """Load the run's model and data, predict, write a table."""
    from mmsa_lib.experiments.files import write_table
    from mmsa_lib.experiments.runs import find_run, prediction_table

    table = prediction_table(find_run(args.run, args.runs), args.split, dataset=args.dataset, fold=args.fold)
    if args.out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        write_table(args.out, table)
        say(f"{len(table)} predictions written to {args.out}")
    return 0
