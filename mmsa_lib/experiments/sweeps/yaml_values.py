"""YAML as its readers expect it: ``3e-4`` is a number, ``no`` is a word, a key given twice is a mistake.

PyYAML follows YAML 1.1, where ``3e-4`` is text, ``no`` and ``off`` are false, ``1:30`` is ninety, and the second of two
equal keys wins without a word. In a sweep each of these would run something else than what was written.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from mmsa_lib.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}

MOST_BYTES = 100_000
MOST_VALUES = 20_000
MOST_DEPTH = 50
"""Far more than a configuration needs, and read within a second or two."""
_TOO_MANY = f"more than {MOST_VALUES:,} values, aliases written out; write fewer"


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2's core schema, and ``<<`` to take over another mapping."""

    yaml_implicit_resolvers: dict[str, list] = {}
    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MOST_VALUES:
            raise yaml.composer.ComposerError(None, None, _TOO_MANY, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _problem(key_node, f"key {key!r} is no text; put it in quotes")
            if key in seen:
                raise _problem(key_node, f"key {key!r} is given twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)


_CORE = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (_MERGE, r"<<", ["<"]),
)
for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # 08 is eight, not an octal mistake


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file as plain values.

    What aliases repeat is counted before anything is built, so that a small file cannot fill the memory.

    Raises:
        ConfigError: no such file, not YAML, a key twice, a tag that is no plain value, or too large; names file and
            line.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= MOST_BYTES else ""
    except FileNotFoundError:
        raise ConfigError(f"no file {path}; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} can't be read as text ({error.reason}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read as text: {error}") from None
    if size > MOST_BYTES:
        raise ConfigError(f"{path} has more than {MOST_BYTES:,} bytes; is it the right file?")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        return loader.construct_document(node)
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply; no more than {MOST_DEPTH} levels are read") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{place}: {' '.join(str(reason).split())}") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())[:200]}") from None


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """How many values ``node`` stands for, aliases written out; each node is looked at once.

    Raises:
        yaml.YAMLError: too many, nested too deeply, an alias inside of itself, or a tag that is no plain value.
    """
    if id(node) in known:
        if not known[id(node)]:
            raise _problem(node, "an alias stands inside of what it repeats")
        return known[id(node)]
    known[id(node)] = 0  # not finished
    if depth > MOST_DEPTH:
        raise _problem(node, f"nested too deeply; no more than {MOST_DEPTH} levels are read")
    if node.tag not in _PLAIN:
        raise _problem(node, f"could not determine a constructor for the tag {node.tag!r}; write a plain value")
    parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
    parts = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
    count = 1 + sum(_count(part, known, depth + 1) for part in parts)
    if count > MOST_VALUES:
        raise _problem(node, _TOO_MANY)
    known[id(node)] = count
    return count


def _problem(node: yaml.Node, text: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, text, node.start_mark)
