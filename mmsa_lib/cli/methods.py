"""``mmsa-lib methods``: which methods there are, and where each of their values comes from."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from mmsa_lib.cli.output import add_command, answer
from mmsa_lib.errors import unknown_name
from mmsa_lib.methods import METHODS, create
from mmsa_lib.plugins import package


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``methods`` and its subcommands."""
    parser = subparsers.add_parser("methods", help="list the methods, or show the values of one with their sources")
    commands = parser.add_subparsers(dest="methods_command", required=True, metavar="COMMAND")
    add_command(commands, "list", list_methods, "what each method is, which modalities it takes and what it predicts")
    info = add_command(commands, "info", info_of, "every value of a method's config: default, meaning and source")
    info.add_argument("method", metavar="METHOD", help="a method")
    info.add_argument("--dataset", metavar="D", help="with the values that are known for this data set")


def list_methods(args: argparse.Namespace) -> int:
    """``methods list``."""
    rows = [_facts(name) for name, _ in METHODS.items()]
    lines = [
        f"{r['method']:<19} {r['kind']:<9} {', '.join(r['modalities'])}; {', '.join(r['tasks'])}\n"
        f"{'':<19} {r['description']}"
        for r in rows
    ]
    return answer(args, {"methods": rows}, lines)


def info_of(args: argparse.Namespace) -> int:
    """``methods info``."""
    if args.method not in METHODS:
        raise unknown_name("method", args.method, METHODS)
    from mmsa_lib.methods import provenance

    values = provenance(METHODS[args.method].Config, args.dataset or "").astype(object).to_dict("records")
    lines = [
        f"{v['setting']}={v['value']}{v['unit'] and ' '}{v['unit']}: {v['meaning']} [{v['tag']}: {v['source']}]"
        for v in values
    ]
    return answer(args, {**_facts(args.method), "values": values}, lines)


def _facts(name: str) -> dict[str, Any]:
    cls = METHODS[name]
    origin = _words(sys.modules[cls.__module__].__doc__)
    offered = METHODS.entry(name)
    kind = "own" if name not in METHODS.ours else "baseline" if origin.startswith("Plain baselines") else "paper"
    title = origin.partition(": ")[2].rstrip(".") if kind == "paper" else ""
    description = f"{title[:1].upper()}{title[1:]}. {_words(cls.__doc__)}" if title else _words(cls.__doc__)
    return {
        "method": name, "kind": kind, "modalities": list(cls.modalities_used), "tasks": _tasks(name),
        "description": description, "package": offered and package(offered),
    }  # fmt: skip


def _words(text: str | None) -> str:
    """The first line of a docstring without markup."""
    return re.sub(r":\w+:|`", "", (text or "").strip().split("\n")[0])


def _tasks(name: str) -> list[str]:
    """The kinds of tasks that a method can be built for."""
    from mmsa_lib.data.task import classes, emotions, regression

    found = []
    for task in (regression(), emotions(["happy", "sad"]), classes(["happy", "sad"])):
        try:
            create(name, {"text": 8, "audio": 8, "vision": 8}, task)
        except Exception:  # not for this task; or a fault in a class of somebody else, which training will show
            continue
        found.append(task.kind)
    return found
