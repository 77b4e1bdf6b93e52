"""Hashes that say what a run depends on: its code, its data, its values.

Two runs with equal identifiers would give equal numbers on one machine. Python and library versions are recorded
beside a run (``environment.json``), not in its identifier.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

PACKAGE = "mmsa_lib"
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent

LEFT_OUT = (
    # Lists every method; the run's own method is named as a root instead, so that a new method changes no other run.
    "mmsa_lib.methods",
    # Lists what the package offers and imports none of it; a run imports the modules that it uses by their own names.
    "mmsa_lib.experiments",
    # What sources, generator and store build enters through the fingerprint of the loaded data.
    "mmsa_lib.data.sources.*",
    "mmsa_lib.data.download",
    "mmsa_lib.data.registry",
    "mmsa_lib.data.validate",
    # These say where files lie and what went wrong; they touch no number.
    "mmsa_lib.errors",
    "mmsa_lib.files",
    "mmsa_lib.paths",
    "mmsa_lib.training.progress",
    "mmsa_lib.experiments.environment",
    "mmsa_lib.experiments.fingerprint",
    "mmsa_lib.experiments.manifest",
    "mmsa_lib.experiments.own_code",
    "mmsa_lib.experiments.run_log",
)
"""Modules that are no part of a code fingerprint; ``.*`` stands for a package with all its modules."""

_PARSING = threading.Lock()
_LOADED: dict[str, tuple[ModuleSpec, str]] = {}
"""Source of each module of this package as this process loaded it, with the mark of that loading."""


def parse(source: str, mode: str = "exec") -> Any:
    """The syntax tree of ``source``, as ``ast.parse`` gives it; threads of CPython 3.11 must not do that at once.

    Raises:
        SyntaxError: it is not Python.
    """
    with _PARSING:
        return ast.parse(source, mode=mode)


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of ``content`` (sorted keys, no blanks).

    Raises:
        TypeError: ``content`` holds something that JSON does not know.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def code_fingerprint(roots: Iterable[str], folder: Path = PACKAGE_FOLDER, left_out: Sequence[str] = LEFT_OUT) -> str:
    """Hash of the modules ``roots`` and of all modules of this package that they import, directly or not.

    Comments, docstrings and layout do not count. The text of the syntax tree differs slightly between Python
    versions, so fingerprints are to be compared within one version.

    Args:
        roots: dotted module names, for instance ``mmsa_lib.methods.self_mm``.
        folder: the package's folder.
        left_out: modules that do not count, by default those that no number of a run depends on.
    """
    closure = import_closure(roots, folder, left_out)
    return digest({name: _normalised(_source(name, folder)) for name in closure})


def import_closure(
    roots: Iterable[str], folder: Path = PACKAGE_FOLDER, left_out: Sequence[str] = LEFT_OUT
) -> list[str]:
    """Sorted names of all modules that ``roots`` import inside the package, read from their source, not by importing.

    Imports inside functions count too. Modules in ``left_out`` are not entered unless they are roots.
    """
    waiting, found = list(roots), set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting.extend(imported for imported in _imports(name, folder) if not _left_out(imported, left_out))
    return sorted(found)


def normalised_source(path: Path) -> str:
    """The source of ``path`` without comments, docstrings and layout."""
    return _normalised(path.read_text(encoding="utf-8"))


@cache
def _normalised(source: str) -> str:
    tree = parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [statement for statement in body if not _is_text(statement)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_text(statement: ast.stmt) -> bool:
    """A string that stands alone: the docstring of a module, class, function or attribute."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imports(name: str, folder: Path) -> set[str]:
    """Modules of the package that module ``name`` imports."""
    return imported_modules(_source(name, folder), folder)


def _source(name: str, folder: Path) -> str:
    """The source of a module; of a loaded one what was loaded, until it is loaded again."""
    path = _file(name, folder)
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or spec.origin is None or Path(spec.origin) != path:
        return path.read_text(encoding="utf-8")
    if name not in _LOADED or _LOADED[name][0] is not spec:
        _LOADED[name] = spec, path.read_text(encoding="utf-8")
    return _LOADED[name][1]


def imported_modules(source: str, folder: Path = PACKAGE_FOLDER) -> set[str]:
    """Modules of the package that the Python text ``source`` imports.

    Raises:
        SyntaxError: it is not Python.
    """
    modules = {name for name in _imported_names(source) if name.split(".")[0] == PACKAGE and _exists(name, folder)}
    return modules - {PACKAGE}


@cache
def _imported_names(source: str) -> frozenset[str]:
    """Absolute dotted names that ``source`` imports; those after ``from … import`` may be modules too."""
    named: set[str] = set()
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            named |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(named)


def _left_out(name: str, entries: Sequence[str]) -> bool:
    return any(
        name == entry.removesuffix(".*") or (entry.endswith(".*") and name.startswith(entry.removesuffix("*")))
        for entry in entries
    )


def _exists(name: str, folder: Path) -> bool:
    return _file(name, folder).is_file()


def _file(name: str, folder: Path) -> Path:
    """Source file of a module or package of this package."""
    path = folder.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
