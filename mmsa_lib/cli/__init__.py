"""Command line: ``mmsa-lib COMMAND …``. Thin: each command calls the library; heavy imports wait until it runs."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import mmsa_lib
from mmsa_lib.cli.output import any_encoding
from mmsa_lib.errors import ConfigError, MMSAError

COMMANDS = (
    "data",
    "train",
    "sweep",
    "extract",
    "predict",
    "results",
    "methods",
    "figures",
    "notebooks",
    "demo",
    "doctor",
)
"""Modules of this package; each has ``register(subparsers)`` and sets a handler that returns the exit code."""

INTERRUPTED = 130
LONGEST = 2000
"""Characters of an error's line; a name of 5,000 letters is not repeated in full."""

DEBUG = "MMSA_LIB_DEBUG"
"""Environment variable; set, it shows the traceback of an error that nobody foresaw."""


class _Store(argparse._StoreAction):
    """Keep what is given; an option of several values that is given again adds to the first ones."""

    def __call__(self, parser, namespace, values, option_string=None):
        before = getattr(namespace, self.dest, self.default)
        again = option_string and self.nargs in ("+", "*") and before is not self.default
        setattr(namespace, self.dest, [*before, *values] if again else values)


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one line and exit code 2, and that takes no empty names and paths."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register("action", None, _Store)
        self.register("type", None, _given)
        self.register("type", Path, lambda text: Path(_given(text)))

    def add_subparsers(self, **options: Any) -> argparse._SubParsersAction:
        """Commands of this parser; words behind one are checked by its own parser, which can name their option."""
        action = super().add_subparsers(**options)
        action.type = str
        return action

    def error(self, message: str):
        self.exit(2, _line(f"{message}; see {self.prog} --help"))


class _Completion(argparse.Action):
    """Print a script with which a shell completes commands and options; argparse gives none, the package shtab does."""

    HELP = "print a script that completes commands and options in this shell (needs: pip install shtab)"

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            import shtab
        except ImportError:
            parser.error("--print-completion needs shtab; run: pip install shtab")
        _offer_names(parser)
        print(shtab.complete(parser, values))
        parser.exit()


def _offer_names(parser: argparse.ArgumentParser) -> None:
    """Let methods and data sets be completed as well, those of packages and of this machine included."""
    from mmsa_lib.data.registry import known_names
    from mmsa_lib.methods import METHODS

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _offer_names(command)
        elif action.dest in ("method", "dataset"):
            action.choices = list(METHODS) if action.dest == "method" else known_names()


def _given(text: str) -> str:
    """``text``, if it can be a name or a path: an empty path would mean the current folder."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(
            "is empty; give a value or leave it out" if not text.strip() else "holds a NUL"
        )
    return text


def build_parser() -> Parser:
    """The whole command line."""
    parser = Parser(prog="mmsa-lib", description=mmsa_lib.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"mmsa-lib {mmsa_lib.__version__}")
    parser.add_argument(
        "--print-completion", action=_Completion, choices=("bash", "zsh", "tcsh"), help=_Completion.HELP
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"{__name__}.{name}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 good, 1 a run failed, 2 bad usage or bad input (with one line on stderr), 130 interrupted.
    """
    try:
        with any_encoding():
            code = _run(argv)
            if sys.stdout is not None:  # closed by the shell: >&-
                sys.stdout.flush()
            return code
    except BrokenPipeError:
        _silence_stdout()  # the reader of our output (head, less) has left
        return 0
    except OSError as error:
        # The disk, a permission or the output's own file: the user's to mend, and no traceback tells more.
        place = f"{error.filename}: " if error.filename else ""
        _complain(f"{place}{error.strerror or error}; free space, or check the path and its permissions")
        _silence_stdout()
        return 2


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    try:
        args = build_parser().parse_args(words)
        try:
            os.getcwd()  # without this, libraries below (MKL) would end the process without a word
        except OSError as error:
            why = f"the current folder can't be used ({error.strerror}); change to another one (cd)"
            raise ConfigError(why) from None
        return args.handler(args)
    except SystemExit as end:  # argparse ends the process after --help, --version and usage errors
        return end.code if isinstance(end.code, int) else 0
    except MMSAError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; repeat the command to resume", "")
        return INTERRUPTED
    except OSError:
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        _complain(_unforeseen(error, " ".join(words[:2])))
        return 2


def _unforeseen(error: Exception, command: str) -> str:
    """What failed, and how to learn more."""
    more = f"; set {DEBUG}=1 to see where"
    if isinstance(error, MemoryError):
        return f"not enough memory for {command}; use less data or smaller settings, or a larger machine{more}"
    if isinstance(error, RecursionError):
        return f"{command}: something in the input is nested too deeply; flatten it{more}"
    return f"{command} failed unexpectedly: {type(error).__name__}: {str(error)[:500]}{more}"


def _silence_stdout() -> None:
    """Let what is still buffered go nowhere: Python would try to write it once more on the way out."""
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # replaced by something that is no file (a notebook, a test)
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _line(message: str, label: str = "mmsa-lib: error: ") -> str:
    line = " ".join(message.split())
    return f"{label}{line if len(line) <= LONGEST else f'{line[:LONGEST]} ...'}\n"


def _complain(message: str, label: str = "mmsa-lib: error: ") -> None:
    with suppress(OSError, ValueError, AttributeError):  # there may be no stderr to write to
        sys.stderr.write(_line(message, label))
