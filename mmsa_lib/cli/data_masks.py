"""``mmsa-lib data masks``: the missing-modality protocols, and the frozen masks of a data set under them."""

from __future__ import annotations

import argparse
from typing import Any

from mmsa_lib.cli.output import answer


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``data masks``."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a data set; without one, the protocols are listed")
    parser.add_argument("--fold", default="standard", metavar="F", help="a fold of it (default: standard)")
    parser.add_argument("--split", choices=("train", "valid", "test"), default="test", help="default: test")
    parser.add_argument(
        "--protocols", nargs="+", default=["frames", "subsets", "rate"], metavar="P",
        help="whose masks are shown, and drawn where there are none yet (default: frames subsets rate)",
    )  # fmt: skip


def show_masks(args: argparse.Namespace) -> int:
    """``data masks``."""
    from mmsa_lib.evaluation.protocols import PROTOCOLS, protocol

    if args.name is None:
        known = {name: entry.description for name, entry in PROTOCOLS.items()}
        return answer(args, {"protocols": known}, [f"{name:<17} {text}" for name, text in known.items()])
    names = [protocol(name).name for name in args.protocols]
    from mmsa_lib.data.loading import load

    data = load(args.name, args.fold)[args.split]
    rows = [row for name in names for row in _rows(data, name)]
    lines = [f"{'protocol':<17} {'level':<18} {'frames observed':<32} samples with nothing"]
    for row in rows:
        shares = "  ".join(f"{m} {share:.3f}" for m, share in row["observed"].items())
        lines.append(f"{row['protocol']:<17} {row['level']:<18} {shares:<32} {row['empty_samples']}")
    files = {row["protocol"]: row["file"] for row in rows}
    lines += [f"{name}: {file}" for name, file in files.items()]
    facts = {"name": args.name, "fold": args.fold, "split": args.split, "cells": rows}
    return answer(args, facts, lines)


def _rows(data, name: str) -> list[dict[str, Any]]:
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
