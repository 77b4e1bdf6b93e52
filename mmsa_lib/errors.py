"""Errors that a user can cause and mend.

Every message is one line that names the file, the field or the sample, and what to do. The command line prints the
message and exits with :attr:`MMSAError.exit_code`; in a notebook the same text ends the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MMSAError(Exception):
    """Base of all errors of this library that have a remedy; the message says which."""

    exit_code = 2


class DataError(MMSAError):
    """A data file, a split or an array is not what it should be."""


class ConfigError(MMSAError):
    """A setting is unknown, of the wrong type or out of range."""


class UnknownNameError(ConfigError):
    """A name that nothing answers to; the message lists the nearest known names."""


class RunError(MMSAError):
    """A run started and failed (for instance a loss that is not finite)."""

    exit_code = 1


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
