"""``mmsa-lib data import`` and ``data template``: from files of one's own to a data set with a name."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.cli.output import add_command, answer, say

if TYPE_CHECKING:
    from mmsa_lib.data.record import DatasetRecord
    from mmsa_lib.data.task import Task

READERS = {
    "auto": ("", "told from the file, as without a layout"),
    "mmsa": ("mmsa_pickle", "pickle of MMSA and Self-MM (aligned_50.pkl, unaligned_50.pkl, ...)"),
    "mult": ("mult_pickle", "pickle of MulT (mosi_data.pkl, iemocap_data.pkl, ...)"),
    "mag": ("mag_pickle", "pickle of MAG-BERT (mosi.pkl, mosei.pkl)"),
    "mfn": ("mfn_folder", "folder of HDF5 files of MFN (X_train.h5, y_train.h5, ...)"),
    "table": ("table", "table, folder of arrays, .npz, pickle, HDF5 or JSON of your own"),
}
"""Layouts that can be imported: module below ``mmsa_lib.data.sources`` and what it reads."""

TABLE_FORM = (
    "A table has a header and a row per sample: id (or video_id and clip_id), split (train, valid or test; also mode), "
    "label (sentiment, or label:NAME per emotion), and if there is one text (the transcript), group (video or speaker) "
    "and label_text, label_audio, label_vision. Features of whole utterances are columns audio:0, audio:1, ..., "
    "likewise text: and vision:. Sequences lie in a folder with samples.csv (or labels.csv) and audio/ID.npy (.npz, "
    ".csv), ... of shape (T, d), or in an .npz with arrays id, split, label, ... and text_features, audio, vision of "
    "shape (N, T, d). Tables of one split each lie in one folder as train.csv, valid.csv, test.csv. Text is UTF-8; "
    "cells are separated by commas (.csv) or tabs (.tsv). What is not read is named."
)
"""What ``data import table`` reads, for its help."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add ``import`` and ``template`` to the commands of ``data``."""
    template = add_command(commands, "template", template_one, "write a small data set of your own to fill in")
    template.add_argument("--out", type=Path, default=Path("my_data"), metavar="FOLDER", help="default: my_data")
    template.add_argument(
        "--kind", choices=("regression", "classes", "emotions"), default="regression",
        help="sentiment (the default), one class per sample, or a yes or no per emotion",
    )  # fmt: skip
    template.add_argument(
        "--modalities", nargs="+", choices=("text", "audio", "vision"), default=("text", "audio", "vision"),
        metavar="M", help="which of text, audio, vision (default: all)",
    )  # fmt: skip
    template.add_argument("--force", action="store_true", help="write into a folder that holds something")
    bring = add_command(commands, "import", import_one, "bring an official file or a table of your own into the store")
    bring.epilog = TABLE_FORM
    bring.add_argument("layout", choices=tuple(READERS), help="; ".join(f"{k}: {v[1]}" for k, v in READERS.items()))
    bring.add_argument("file", type=Path, metavar="FILE", help="the file or folder")
    bring.add_argument("--name", required=True, help="name of the data set from now on")
    _let_layout_out(bring)
    add_reading(bring)
    add_target(bring)


def _let_layout_out(parser: argparse.ArgumentParser) -> None:
    """Read ``import FILE ...`` as ``import auto FILE ...``, also where options stand before FILE."""
    parse = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None) -> Any:
        first = _first_word(parser, list(args or ()))
        has_layout = not first or first in READERS or not os.path.lexists(first)
        return parse(args if has_layout else ["auto", *args], namespace)

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def _first_word(parser: argparse.ArgumentParser, left: list[str]) -> str:
    """The first word that is neither an option nor a value of one; empty where there is none."""
    while left:
        if not (word := left.pop(0)).startswith("-"):
            return word
        option = parser._option_string_actions.get(word)
        all_values = next((i for i, value in enumerate(left) if value.startswith("-")), len(left))
        del left[: {None: 1, "+": all_values}.get(option.nargs, option.nargs) if option else 0]
    return ""


def add_reading(bring: argparse.ArgumentParser) -> None:
    """Options on how a file of one's own is to be read."""
    task = bring.add_mutually_exclusive_group()
    task.add_argument("--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="label range of a regression")
    task.add_argument(
        "--emotions", nargs="+", metavar="NAME", help="a yes or no for each of these, in label order (one name: binary)"
    )
    task.add_argument("--classes", nargs="+", metavar="NAME", help="one class of these, in the order of their ids")
    bring.add_argument(
        "--metrics", choices=("mosi", "sims", "mmmo", "plain"),
        help="metric set, where the range names none; plain: errors, correlation, two classes around the middle",
    )  # fmt: skip
    bring.add_argument(
        "--column",
        metavar="C",
        help="the label to take where there are several: a column of a table, or 0, 1, ... (CMU-MOSEI: sentiment)",
    )
    bring.add_argument(
        "--split", metavar="A/B/C",
        help="cut train, valid and test in these shares (70/10/20), whole videos or speakers only",
    )  # fmt: skip
    bring.add_argument("--groups", metavar="C", help="the column that names the video or speaker of a sample")
    bring.add_argument("--seed", type=int, default=0, metavar="N", help="of the cut (default: 0)")
    bring.add_argument(
        "--cut-valid", type=float, default=0.0, metavar="SHARE",
        help="files without a validation split: the share of training videos that become one",
    )  # fmt: skip
    bring.add_argument(
        "--labels", type=Path, metavar="FILE", help="the table of a folder of arrays, by default samples.csv"
    )


def refuse_other(args: argparse.Namespace, record: DatasetRecord, target: Path) -> None:
    """Raise a DataError where a store of other content has the name, unless it may be replaced."""
    from mmsa_lib.data.record import fingerprint
    from mmsa_lib.data.registry import stored
    from mmsa_lib.data.store import read_header
    from mmsa_lib.errors import DataError

    for present in {target, stored().get(args.name, target)}:
        if present.is_file() and not args.force and read_header(present)["fingerprint"] != fingerprint(record):
            raise DataError(f"{present} holds another data set {args.name!r}; choose another name, or add --force")


def import_one(args: argparse.Namespace) -> int:
    """``data import``; what ``data check`` would find is said on stderr."""
    from mmsa_lib.data.registry import check_name
    from mmsa_lib.data.validate import check_record

    check_name(args.name)
    record, layout = read_files(args, args.file, args.name)
    target = target_of(args)
    refuse_other(args, record, target)
    store(record, args.name, target)
    for note in doubts(record):
        say(f"warning: {note}")
    for problem in check_record(record):
        say(f"{problem.severity}: {problem}")
    return answer_stored(args, record, target, "imported", layout)


def doubts(record: DatasetRecord) -> list[str]:
    """The notes of an import that a user should act on, or at least see."""
    from mmsa_lib.data.sources.layouts import DOUBT, NOT_READ

    return [note for note in record.notes if note.startswith((DOUBT, NOT_READ))]


def read_files(args: argparse.Namespace, path: Path, name: str) -> tuple[DatasetRecord, str]:
    """What lies in a file or folder, and its layout, with the options of :func:`add_reading`.

    Raises:
        DataError: it can't be read; says what is wrong.
        ConfigError: the options do not go together, or not with the layout.
    """
    from mmsa_lib.data.formats import MFN_FOLDER, PICKLE, kind_of
    from mmsa_lib.data.sources.layouts import OtherLayout
    from mmsa_lib.errors import ConfigError, DataError

    task, layout, kind = _task(args), args.layout, kind_of(path)
    if layout == "auto":
        if not os.path.lexists(path):
            raise DataError(f"{path}: no such file or folder; check the path")
        layout = "mmsa" if kind == PICKLE and path.is_file() else "mfn" if kind == MFN_FOLDER else "table"
    asked = {key: value for key in ("split", "groups", "seed", "cut_valid") if (value := getattr(args, key))}
    if asked and layout == "mfn":
        option = next(iter(asked)).replace("_", "-")
        raise ConfigError(
            f"--{option} is for pickles and tables; files of the mfn layout are splits and name no videos"
        )
    if args.labels and not path.is_dir():
        raise ConfigError("--labels names the table of a folder of your own: mmsa-lib data import table FOLDER")
    chosen: dict[str, Any] = asked | {"labels": args.labels} if args.labels else asked
    chosen |= {} if args.column is None else {"label_column": args.column}
    with one_line(path):
        while True:
            reader = importlib.import_module(f"mmsa_lib.data.sources.{READERS[layout][0]}")
            try:
                return reader.read(path, name, task=task, **chosen), layout
            except OtherLayout as error:
                if args.layout != "auto":
                    raise
                layout = error.layout


def template_one(args: argparse.Namespace) -> int:
    """``data template``."""
    from mmsa_lib.data.sources.template import OPTIONS, write_template

    files = write_template(args.out, args.kind, args.modalities, args.force)
    next_one = f"mmsa-lib data import table {shlex.quote(str(args.out))} --name mine{OPTIONS.get(args.kind, '')}"
    lines = [f"{args.out}: samples.csv, README.md and {len(files) - 2} arrays", f"import it by: {next_one}"]
    return answer(args, {"folder": str(args.out), "kind": args.kind, "files": files, "import": next_one}, lines)


def _task(args: argparse.Namespace) -> Task | None:
    from mmsa_lib.data.task import classes, emotions, has_metrics, regression
    from mmsa_lib.errors import ConfigError

    if args.metrics and not args.range:
        raise ConfigError("--metrics needs --range LOW HIGH")
    if not args.range:
        return emotions(args.emotions) if args.emotions else classes(args.classes) if args.classes else None
    low, high = args.range
    if low < high and not args.metrics and not has_metrics(low, high):
        raise ConfigError(
            f"no metric set goes with the range {low:g} {high:g}; add --metrics plain (errors, correlation, two "
            "classes around the middle), mosi, sims or mmmo"
        )
    return regression((low, high), metrics=args.metrics)


@contextmanager
def one_line(what: Path | str) -> Iterator[None]:
    """Let what no reader foresaw be one line too: it names ``what`` was read and asks for a report."""
    from mmsa_lib.errors import DataError, MMSAError

    try:
        yield
    except (MMSAError, OSError):
        raise
    except MemoryError as error:
        raise DataError(f"{what}: not enough memory to read it; use a machine with more, or a smaller file") from error
    except RecursionError as error:
        raise DataError(f"{what}: something in it is nested too deeply; store plain arrays") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{what} can't be read ({reason}); please report this with what the file is") from error


def add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the store here instead of the default folder")
    parser.add_argument("--force", action="store_true", help="write the store even where it exists")


def target_of(args: argparse.Namespace) -> Path:
    from mmsa_lib.paths import stores_folder

    return (args.out or stores_folder()) / f"{args.name}.h5"


def store(record: DatasetRecord, name: str, target: Path) -> None:
    """Write and register a store; one that can't be found by its name is not left behind."""
    from mmsa_lib.data.registry import register
    from mmsa_lib.data.store import write_store
    from mmsa_lib.errors import MMSAError

    is_new = not target.exists()
    write_store(record, target)
    try:
        register(name, target)
    except MMSAError:
        if is_new:
            target.unlink()
        raise


def answer_stored(args: argparse.Namespace, record: DatasetRecord, path: Path, done: str, layout: str = "") -> int:
    from mmsa_lib.data.record import describe

    found = {**describe(record), "path": str(path), "result": done} | ({"layout": layout} if layout else {})
    return answer(args, found, _stored_lines(found))


def _stored_lines(found: dict[str, Any]) -> list[str]:
    """What was built or imported: where it is, what was repaired and what should be known."""
    lines = [f"{found['name']} {found['result']}: {found['samples']} samples in {found['path']}"]
    lines.append(f"fingerprint {found['fingerprint']}")
    lines += [f"read as {found['layout']}: {READERS[found['layout']][1]}"] if "layout" in found else []
    lines += listed("repaired", [f"{what}: {count}" for what, count in found["repairs"].items()])
    return lines + listed("notes", found["notes"])


def listed(title: str, entries: list[str]) -> list[str]:
    entries = [entry for entry in entries if entry]
    return [title, *(f"  {entry}" for entry in entries)] if entries else []
