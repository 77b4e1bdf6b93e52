"""Errors that a user can cause and mend.

Every message is one line that names the file, the field or the sample, and what to do. The command line prints the
message and exits with :attr:`MMSAError.exit_code`; in a notebook the same text ends the traceback. Each error is also
the built-in one that Python code would expect in its place: ``except ValueError`` catches bad data and settings.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError


class MMSAError(Exception):
    """Base of all errors of this library that have a remedy; the message says which."""

    exit_code = 2


class DataError(MMSAError, ValueError):
    """A data file, a split or an array is not what it should be."""


class FileProblems(DataError):
    """All that is wrong in a file: one line each in ``problems``; the message is the first, with what to do for all.

    Args:
        message: of the first problem, and of ``told`` problems with it.
    """

    def __init__(self, problems: Iterable[str], path: object, message: str = "", told: int = 1):
        self.problems = list(problems)
        more = len(self.problems) - told
        said = message or self.problems[0]
        super().__init__(f"{said} ({more} more: mmsa-lib data check {path})" if more > 0 else said)


class Problems(list[str]):
    """What is found to be wrong while a file is read on, to be told all at once."""

    first: tuple[str, int] = ("", 1)

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Remember what the block raises as bad data, and go on behind it."""
        try:
            yield
        except DataError as error:
            found = error.problems if isinstance(error, FileProblems) else [str(error)]
            self.first = self.first if self else (str(error), len(found))
            self.extend(found)

    def refuse(self, path: object) -> None:
        """Raise :class:`FileProblems` where anything was found."""
        if self:
            raise FileProblems(self, path, *self.first)


class ConfigError(MMSAError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class UnknownNameError(ConfigError, KeyError):
    """A name that nothing answers to; the message lists the nearest known names."""

    __str__ = Exception.__str__  # KeyError would put the message in quotes


class RunError(MMSAError, RuntimeError):
    """A run started and failed (for instance a loss that is not finite)."""

    exit_code = 1


@cache
def warn_once(text: str) -> None:
    """One line on stderr, the first time that it is to be said."""
    print(text, file=sys.stderr)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """An :class:`UnknownNameError` that names up to three nearest ``known`` names, or all where none is near.

    >>> print(unknown_name("method", "self_m", ["self_mm", "hrlf"]))
    unknown method 'self_m'; did you mean self_mm?
    """
    names = sorted(known)
    by_lower = {other.lower(): other for other in reversed(names)}
    near = [by_lower[m] for m in difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)]
    hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UnknownNameError(f"unknown {kind} {str(name)!r}; {hint}")


def invalid_value(error: ValidationError, kind: str, model: type[BaseModel]) -> MMSAError:
    """The first problem of a pydantic error as one line that says what the field is for.

    An unknown name is answered with the nearest known ones; an error of this library that a validator raised is
    returned as it is.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, MMSAError):
        return cause
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_name(kind, where, model.model_fields)
    if first["type"] == "missing":
        return ConfigError(f"{kind} {where!r} is missing")
    field = model.model_fields.get(str(first["loc"][0])) if first["loc"] else None
    meaning = f" ({' '.join(field.description.split())})" if field is not None and field.description else ""
    reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return ConfigError(f"{where or kind}={first.get('input')!r}{meaning}: {reason}")
