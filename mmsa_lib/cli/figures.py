"""``mmsa-lib figures``: redraw the committed figures, or check that they agree with their data."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmsa_lib.errors import ConfigError


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``figures``."""
    parser = subparsers.add_parser("figures", help="redraw all figures from data/, or check them")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which figures (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a figure differs from its data")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of figures (default: figures/)")
    parser.set_defaults(handler=figures)


def figures(args: argparse.Namespace) -> int:
    """Redraw or check."""
    from mmsa_lib.figures.registry import check, redraw

    if args.check:
        if args.names:
            raise ConfigError("--check looks at all figures; leave the names out")
        differences = check(args.out)
        for line in differences:
            print(line)
        print("figures differ from their data; redraw them with: mmsa-lib figures" if differences else "figures agree")
        return 1 if differences else 0
    for name in redraw(args.out, args.names or None):
        print(name)
    return 0
