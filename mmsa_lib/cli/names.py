"""Names of methods, read from the sources, so that a misspelt one is answered without waiting for torch."""

from __future__ import annotations

import ast
from pathlib import Path

from mmsa_lib.errors import unknown_name

METHODS_FOLDER = Path(__file__).resolve().parent.parent / "methods"
CONSTANT = "constant"


def method_ids() -> list[str]:
    """The ``id`` of every method class; a test keeps it equal to the keys of ``mmsa_lib.methods.METHODS``."""
    found = []
    for file in sorted(METHODS_FOLDER.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found.extend(_id(node))
    return found


def _id(node: ast.ClassDef) -> list[str]:
    """The value of ``id = "…"`` in a class body."""
    return [
        statement.value.value
        for statement in node.body
        if isinstance(statement, ast.Assign)
        and [ast.unparse(target) for target in statement.targets] == ["id"]
        and isinstance(statement.value, ast.Constant)
    ]


def check_method(name: str, *, constant: bool = True) -> str:
    """``name`` if it is a method or, where that is allowed, ``constant``.

    Raises:
        UnknownNameError: nothing is called so; names the nearest.
    """
    known = [*method_ids(), CONSTANT] if constant else method_ids()
    if name not in known:
        raise unknown_name("method", name, known)
    return name
