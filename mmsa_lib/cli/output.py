"""What commands print: JSON for programs, aligned text for people, on a console of any encoding."""

from __future__ import annotations

import argparse
import codecs
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_SPELT = {"…": "...", "−": "-", "–": "-", "±": "+-", "↓": "v", "↑": "^", "→": "->", "←": "<-", "≥": ">=", "≤": "<=",
          "×": "x", "²": "2", "▼": "v", "“": '"', "”": '"', "λ": "lambda", "γ": "gamma", "ω": "omega"}  # fmt: skip
"""How our own signs are written where an encoding lacks them."""

_HANDLER = "mmsa_lib.spelt"


def _spell(error: UnicodeError) -> tuple[str, int]:
    """An error handler for encoders: our own signs in ASCII, any other one as its ``\\uXXXX``, which JSON reads too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(_SPELT.get(sign) or json.dumps(sign)[1:-1] for sign in signs), error.end


codecs.register_error(_HANDLER, _spell)


@contextmanager
def any_encoding() -> Iterator[None]:
    """Meanwhile stdout and stderr take every sign, whatever their encoding (cp1252, cp437, ascii)."""
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if callable(getattr(stream, "reconfigure", None)):  # else it takes text as it is, as a notebook's does
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=_HANDLER)
    try:
        yield
    finally:
        for stream, errors in changed:
            if not stream.closed:
                stream.reconfigure(errors=errors)


def add_command(
    commands: argparse._SubParsersAction, name: str, handler: Callable[[argparse.Namespace], int], help: str,
    description: str = "", json: str = "print one JSON document on stdout and nothing else there",
) -> argparse.ArgumentParser:  # fmt: skip
    """A new command with its handler and, unless ``json`` (its help) is empty, ``--json``."""
    parser = commands.add_parser(name, help=help, description=description or f"{help[0].upper()}{help[1:]}.")
    parser.set_defaults(handler=handler)
    if json:
        parser.add_argument("--json", action="store_true", help=json)
    return parser


def print_json(content: Any) -> None:
    """One JSON document on stdout; a number that is not finite becomes ``null``."""
    plain = _plain(content)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(plain, indent=2)
    print(text)


def answer(args: argparse.Namespace, document: dict[str, Any], lines: Iterable[str]) -> int:
    """0, after printing ``document`` where ``--json`` is given, else ``lines``."""
    if args.json:
        print_json(document)
    else:
        print("\n".join(lines))
    return 0


def say(text: str) -> None:
    """One line for the reader, on stderr."""
    print(text, file=sys.stderr)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def say_undefined(metrics: Sequence[str]) -> None:
    """Warn of class metrics that are not defined, where there are any."""
    if metrics:
        say(f"warning: not defined, where the labels of these samples do not hold two classes: {', '.join(metrics)}")
