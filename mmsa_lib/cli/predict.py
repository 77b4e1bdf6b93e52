"""``mmsa-lib predict``: what finished runs say about samples, with or without labels."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mmsa_lib.cli.data_import import one_line
from mmsa_lib.cli.output import add_command, print_json, say
from mmsa_lib.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from mmsa_lib.experiments.runs import RunResult


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``predict``."""
    more = (
        "Write a CSV with a row per sample: prediction, interval, and the prediction without each modality "
        "(docs/predict.md). Several runs are averaged. Scaling and text model are those of the runs; labels and splits "
        "are not needed. Without INPUT and --text the samples are a split of the run's data set, or of --dataset."
    )
    add = add_command(subparsers, "predict", predict, "predict samples with finished runs", more).add_argument
    add("given", metavar="RUN ... INPUT", nargs="+", help="first runs: folders, identifiers, or 'demo'; then files or "
        "folders of samples, as 'data import' reads them or without labels, names of built data sets, or - for "
        "sentences on stdin")  # fmt: skip
    add("--text", metavar="SENTENCE", action="append", help="a sentence to predict (may be repeated)")
    add("--modalities", metavar="M", nargs="+", help="use these alone: text, audio, vision")
    add("--interval", metavar="SHARE", type=float, default=0.9, help="of labels that the interval shall hold "
        "(default: 0.9)")  # fmt: skip
    add("--dataset", metavar="NAME", help="without INPUT: a data set (default: the run's own)")
    add("--fold", metavar="F", help="a fold of it (default: the run's own)")
    add("--split", choices=("train", "valid", "test"), help="a split of it (default: test)")
    add("--runs", type=Path, metavar="DIR", help="where to look for an identifier")
    add("--out", type=Path, metavar="CSV", help="write here instead of to stdout")


def predict(args: argparse.Namespace) -> int:
    """Load runs and samples, predict, write a table."""
    from mmsa_lib.experiments import prediction
    from mmsa_lib.experiments.files import write_table

    runs, inputs = _sorted(args)
    of_split = {"dataset": args.dataset, "fold": args.fold, "split": args.split}
    asked = [name for name, value in of_split.items() if value]
    if inputs and asked:
        raise ConfigError(f"--{asked[0]} is for predictions without INPUT and --text; leave one of them out")
    if not inputs:
        split = of_split.pop("split") or "test"
        try:
            inputs = [prediction.stored_split(runs[0], split, **of_split)]
        except UnknownNameError as error:
            raise ConfigError(f"without INPUT and --text a split of a data set is predicted: {error}") from error
    with one_line("the input"), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"warning: {' '.join(str(message).split())}")
        table = prediction.predict(runs, inputs, modalities=args.modalities, interval=args.interval)
    if args.out is not None:
        write_table(args.out, table)
        say(f"{len(table)} predictions written to {args.out}")
    if args.json:
        numbers = table.select_dtypes("float32").columns
        table = table.astype(dict.fromkeys(numbers, str)).astype(dict.fromkeys(numbers, float))  # the fewest digits
        print_json({**table.attrs["calibration"], "predictions": table.to_dict("records")})
    elif args.out is None:
        table.to_csv(sys.stdout, index=False, lineterminator="\n")
    return 0


def _sorted(args: argparse.Namespace) -> tuple[list[RunResult], list]:
    """The runs, and what is to be predicted."""
    from mmsa_lib.experiments.prediction import find_runs, is_run

    count = next((i for i, given in enumerate(args.given) if not is_run(given, args.runs)), len(args.given))
    runs = [run for given in args.given[: max(1, count)] for run in find_runs(given, args.runs)]
    inputs: list = []
    for given in args.given[max(1, count) :]:
        if is_run(given, args.runs):
            raise ConfigError(f"{given} is a run and stands behind an input; name the runs first")
        inputs.append(given)
    several = len(inputs) + bool(args.text) > 1
    inputs = [_lines("stdin_" * several) if given == "-" else Path(given) for given in inputs]
    texts = [{"id": f"{'text_' * several}{row}", "text": text} for row, text in enumerate(args.text or (), 1)]
    return runs, [*inputs, *([texts] if texts else [])]


def _lines(before: str) -> list[dict[str, str]]:
    """The sentences on stdin, one per line, called ``before`` and their line."""
    try:
        lines = list(sys.stdin)
        "".join(lines).encode()  # what can't be decoded may be kept as it is
    except UnicodeError as error:
        raise ConfigError("stdin is no UTF-8 text; convert it (iconv -t UTF-8)") from error
    return [{"id": f"{before}{row}", "text": line} for row, line in enumerate(lines, 1) if line.strip()]
