"""``key=value`` texts, as the command line and papermill give them, turned into typed values."""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.experiments.fingerprint import parse

PLACES_ONLY = frozenset({"folder", "in_memory"})
"""Data options that say where samples lie, not what they are."""


def data_options(dataset: str) -> dict[str, Any]:
    """Name and type of each option that :func:`mmsa_lib.data.load` takes for ``dataset``."""
    from mmsa_lib.data.loading import load
    from mmsa_lib.data.sources.synthetic import Settings

    types = get_type_hints(load)
    options = {p.name: types[p.name] for p in inspect.signature(load).parameters.values() if p.kind is p.KEYWORD_ONLY}
    return options | (get_type_hints(Settings) if dataset == "synthetic" else {})


def check_data_options(dataset: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with the types that the options have (a list from JSON becomes a tuple, for instance).

    Raises:
        ConfigError: an option is unknown (answered with the nearest ones) or of another type.
    """
    known = data_options(dataset)
    for name in values:
        if name not in known:
            raise unknown_name(f"data option of {dataset}", name, known)
    return {name: _fitting(f"data.{name}", [value], known[name]) for name, value in values.items()}


def parse_assignment(item: str) -> tuple[str, str]:
    """Split ``key=value`` at its first ``=``.

    Raises:
        ConfigError: there is no ``=`` or no key.
    """
    key, equals, raw = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{item!r} is no setting; write key=value, for instance learning_rate=3e-4")
    return key.strip(), raw.strip()


def typed_value(key: str, raw: str, annotation: Any = Any) -> Any:
    """Read ``raw`` as JSON, else as a Python literal, else as text, so that it fits ``annotation``.

    Where only text fits, the text stays as it was written (``no`` stays ``"no"``, ``10`` stays ``"10"``).

    Raises:
        ConfigError: nothing fits; names the key and the value.
    """
    return _fitting(key, [literal(raw), raw], annotation)


def _fitting(key: str, candidates: list[Any], annotation: Any) -> Any:
    """The first of ``candidates`` that fits ``annotation``, converted to it."""
    adapter = TypeAdapter(annotation)
    problem = ""
    for candidate in candidates:
        try:
            value = adapter.validate_python(candidate)
        except ValidationError as error:
            problem = problem or error.errors()[0]["msg"]  # of the value that was meant, not of its spelling
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={candidate} is not finite; give a number")
        return value
    raise ConfigError(f"{key}={candidates[-1]!r}: {problem}")


def literal(raw: str) -> Any:
    """``raw`` as JSON or as a Python literal; the text itself where it is neither."""
    for read in (json.loads, lambda text: ast.literal_eval(parse(text.lstrip(" \t"), mode="eval"))):
        try:
            return read(raw)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return raw
