"""``key=value`` texts, as the command line and papermill give them, turned into typed values."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.fingerprint import parse
from mmsa_lib.methods.evidence import numbers_only

LARGEST = 2**63 - 1
"""Of whole numbers: what torch and numpy count with."""


def parse_assignment(item: str) -> tuple[str, str]:
    """Split ``key=value`` at its first ``=``.

    Raises:
        ConfigError: there is no ``=`` or no key.
    """
    key, equals, raw = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{item!r} is no setting; write key=value, for instance learning_rate=3e-4")
    return key.strip(), raw.strip()


def typed_value(key: str, raw: Any, annotation: Any = Any) -> Any:
    """Read text ``raw`` as JSON, else as a Python literal, else as text, so that it fits ``annotation``.

    What is no text must fit as it is, as in a notebook, whose parameters papermill hands over as values or as text.
    Where only text fits, the text stays as it was written (``no`` stays ``"no"``, ``10`` stays ``"10"``).

    Raises:
        ConfigError: nothing fits; names the key and the value.
    """
    return fitting(key, [literal(raw), raw] if isinstance(raw, str) else [raw], annotation)


def fitting(key: str, candidates: list[Any], annotation: Any) -> Any:
    """The first of ``candidates`` that fits ``annotation``, converted to it."""
    adapter = TypeAdapter(annotation)
    for candidate in candidates:
        try:
            value = numbers_only(candidate, adapter.validate_python(candidate))
        except ValidationError:
            continue
        except ValueError as error:
            raise ConfigError(f"{key}={candidates[-1]!r}: {error}; it takes {_expected(annotation)}") from None
        for number in _numbers(value):
            if not math.isfinite(number):
                raise ConfigError(f"{key}={candidate} is not finite; give a number")
            if abs(number) > LARGEST and isinstance(number, int):
                raise ConfigError(f"{key}={candidate} is too large; give a number up to {LARGEST}")
        return value
    raise ConfigError(f"{key}={candidates[-1]!r} does not fit; it takes {_expected(annotation)}")


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers in a value, however deep."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(part)


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
    type(None): "null",
}


def _expected(annotation: Any) -> str:
    """What a type takes, for readers."""
    origin, inside = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Annotated:
        return _expected(inside[0])
    if origin is Literal:
        return " or ".join(map(str, inside))
    parts = ["..." if part is Ellipsis else _expected(part) for part in inside]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping ({{name: {parts[-1] if parts else 'value'}}})"
    if isinstance(origin, type) and issubclass(origin, list | tuple):
        return f"a list ([{', '.join(parts)}])"
    return _WORDS.get(annotation) or " or ".join(dict.fromkeys(parts)) or str(annotation)


def literal(raw: str) -> Any:
    """``raw`` as JSON or as a Python literal; the text itself where it is neither."""
    for read in (json.loads, lambda text: ast.literal_eval(parse(text.lstrip(" \t"), mode="eval"))):
        try:
            return read(raw)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return raw
