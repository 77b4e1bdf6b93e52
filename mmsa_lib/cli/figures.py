"""``mmsa-lib figures``: redraw the committed figures, or check that they agree with their data."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsa_lib.cli.output import answer
from mmsa_lib.errors import ConfigError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``figures``."""
    parser = subparsers.add_parser("figures", help="list the figures, redraw them from data/, or check them")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which figures (default: all); 'list' lists them")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a figure differs from its data")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of figures (default: figures/)")
    parser.add_argument(
        "--format", nargs="+", choices=("svg", "png", "pdf"), default=["svg", "png"], metavar="KIND", dest="formats",
        help="svg, png or pdf (default: svg png); pdf needs --out, since figures/ holds the other two",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="with 'list': print one JSON document")
    parser.set_defaults(handler=figures)


def figures(args: argparse.Namespace) -> int:
    """List, redraw or check."""
    if args.names == ["list"]:
        return _list(args)
    if args.json:
        raise ConfigError("--json belongs to 'figures list'")
    others = set(args.formats) != {"svg", "png"}
    if others and (args.out is None or args.check):
        raise ConfigError("figures/ holds svg and png, which --check compares; for other formats give --out DIR alone")
    from mmsa_lib.figures.registry import check, redraw

    if args.check:
        if args.names:
            raise ConfigError("--check looks at all figures; leave the names out")
        differences = check(args.out)
        for line in differences:
            print(line)
        print("figures differ from their data; redraw them with: mmsa-lib figures" if differences else "figures agree")
        return 1 if differences else 0
    for name in redraw(args.out, args.names or None, formats=args.formats):
        print(name)
    return 0


def _list(args: argparse.Namespace) -> int:
    from mmsa_lib.figures.registry import load_figures

    rows = [{"figure": name, "title": entry.title, "sources": entry.sources} for name, entry in load_figures().items()]
    lines = [f"{r['figure']:<24} {r['title']}\n{'':<24} from {', '.join(r['sources'])}" for r in rows]
    return answer(args, {"figures": rows}, lines)
