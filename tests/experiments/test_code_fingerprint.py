from __future__ import annotations

import ast
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from mmsa_lib.experiments.fingerprint import code_fingerprint, digest, import_closure, parse


@pytest.fixture
def package(tmp_path) -> Path:
    """A package in which ``run`` uses ``loop`` and (lazily) ``metrics``, and two methods share ``base``."""
    files = {
        "__init__.py": "VERSION = 1\n",
        "run.py": "from mmsa_lib import loop\nimport mmsa_lib.methods\ndef r():\n    from mmsa_lib.metrics import f1\n",
        "loop.py": '"""The loop."""\nRATE = 1  # per step\n',
        "metrics.py": "def f1():\n    return 1\n",
        "other.py": "X = 1\n",
        "methods/__init__.py": "from mmsa_lib.methods import first, second\n",
        "methods/base.py": "B = 1\n",
        "methods/first.py": "from mmsa_lib.methods.base import B\n",
        "methods/second.py": "from mmsa_lib.methods.base import B\nimport torch\n",
    }
    folder = tmp_path / "mmsa_lib"
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


ROOTS = ("mmsa_lib.run", "mmsa_lib.methods.first")


def test_closure_follows_imports_also_lazy_ones_and_leaves_other_methods_out(package):
    assert import_closure(ROOTS, package) == [
        "mmsa_lib.loop",
        "mmsa_lib.methods.base",
        "mmsa_lib.methods.first",
        "mmsa_lib.metrics",
        "mmsa_lib.run",
    ]


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("loop.py", '"""Another text."""\n\nRATE  =  1\n# a comment\n', False),
        ("loop.py", '"""The loop."""\nRATE = 2\n', True),
        ("metrics.py", 'def f1():\n    """Now with a docstring."""\n    return 1\n', False),
        ("metrics.py", "def f1():\n    return 2\n", True),
        ("methods/base.py", "B = 2\n", True),
        ("methods/second.py", "ANOTHER = 1\n", False),
        ("methods/__init__.py", "from mmsa_lib.methods import first, second, third\n", False),
        ("other.py", "X = 2\n", False),
    ],
)
def test_only_code_that_the_run_uses_changes_the_fingerprint(package, file, text, changes):
    before = code_fingerprint(ROOTS, package)
    (package / file).write_text(text)
    assert (code_fingerprint(ROOTS, package) != before) is changes


def test_a_package_that_imports_when_it_is_asked_reaches_what_it_names(package):
    lazy = "HOME = {'A': 'first', 'B': 'second', 'C': 'nothing'}\ndef __getattr__(name):\n    return HOME[name]\n"
    (package / "methods" / "__init__.py").write_text(lazy)
    reached = {"mmsa_lib.methods", "mmsa_lib.methods.base", "mmsa_lib.methods.first", "mmsa_lib.methods.second"}
    assert set(import_closure(["mmsa_lib.methods"], package)) == reached
    everything = import_closure(["mmsa_lib.methods", "mmsa_lib.experiments"], left_out=())
    assert {"mmsa_lib.methods.hrlf", "mmsa_lib.experiments.runs", "mmsa_lib.data.loading"} <= set(everything)


def test_a_loaded_module_counts_as_it_was_loaded_until_it_is_loaded_again(package, monkeypatch):
    """Whoever edits a file and does not load it again runs the old code."""
    module = ModuleType("mmsa_lib.loop")
    module.__spec__ = ModuleSpec("mmsa_lib.loop", None, origin=str(package / "loop.py"))
    monkeypatch.setitem(sys.modules, "mmsa_lib.loop", module)
    before = code_fingerprint(ROOTS, package)
    (package / "loop.py").write_text("RATE = 2\n")
    assert code_fingerprint(ROOTS, package) == before
    module.__spec__ = ModuleSpec("mmsa_lib.loop", None, origin=str(package / "loop.py"))
    assert code_fingerprint(ROOTS, package) != before


def test_many_threads_parse_at_once():
    source = "x = [" + ", ".join(f"f({i}, (a + b) * c)" for i in range(400)) + "]"
    with ThreadPoolExecutor(8) as pool:
        assert len({ast.dump(tree) for tree in pool.map(parse, [source] * 40)}) == 1


def test_attribute_docstrings_and_empty_bodies(package):
    (package / "loop.py").write_text('class A:\n    """Only a docstring."""\n\nY = 1\n"""About Y."""\n')
    before = code_fingerprint(ROOTS, package)
    (package / "loop.py").write_text("class A:\n    pass\nY = 1")
    assert code_fingerprint(ROOTS, package) == before


class TestPlaces:
    """Where a definition stands changes nothing; which of two definitions is meant does."""

    def test_a_module_may_move(self, package):
        before = code_fingerprint(ROOTS, package)
        (package / "metrics.py").rename(package / "scores.py")
        text = (package / "run.py").read_text()
        (package / "run.py").write_text(text.replace("mmsa_lib.metrics", "mmsa_lib.scores"))
        assert code_fingerprint(ROOTS, package) == before

    def test_modules_may_be_merged_and_cut(self, package):
        (package / "loop.py").write_text("import json, os\nfrom mmsa_lib.metrics import f1\n__all__ = ['g']\n\n"
                                         "def g():\n    return f1()\n")  # fmt: skip
        before = code_fingerprint(ROOTS, package)
        (package / "loop.py").write_text("import os\nimport json\n\ndef g():\n    return f1()\n\n"
                                         "def f1():\n    return 1\n")  # fmt: skip
        text = (package / "run.py").read_text()
        (package / "run.py").write_text(text.replace("mmsa_lib.metrics", "mmsa_lib.loop"))
        assert import_closure(["mmsa_lib.run"], package) == ["mmsa_lib.loop", "mmsa_lib.run"]
        assert code_fingerprint(ROOTS, package) == before

    @pytest.mark.parametrize("imported", ["from mmsa_lib.loop import f1", "from mmsa_lib.metrics import g as f1"])
    def test_another_definition_of_the_same_name_counts(self, package, imported):
        (package / "loop.py").write_text("def f1():\n    return 2\n")
        (package / "metrics.py").write_text("def f1():\n    return 1\n\ndef g():\n    return 3\n")
        marks = []
        for own in ("from mmsa_lib.metrics import f1", imported):
            (package / "run.py").write_text(f"from mmsa_lib import loop, metrics\n{own}\n")
            marks.append(code_fingerprint(ROOTS, package))
        assert marks[0] != marks[1]

    def test_what_only_type_checkers_import_does_not_count(self, package):
        before = code_fingerprint(ROOTS, package)
        text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mmsa_lib.other import X\n"
        with (package / "loop.py").open("a") as file:
            file.write(text)
        assert "mmsa_lib.other" not in import_closure(ROOTS, package)
        (package / "loop.py").write_text('"""The loop."""\nfrom typing import TYPE_CHECKING\nRATE = 1\n')
        without = code_fingerprint(ROOTS, package)
        with (package / "loop.py").open("a") as file:
            file.write(text)
        assert before != without == code_fingerprint(ROOTS, package)


def test_digest_does_not_depend_on_order_and_refuses_what_is_not_json():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    with pytest.raises(TypeError):
        digest({"a": object()})
    with pytest.raises(ValueError, match="JSON"):
        digest({"a": float("nan")})


def test_the_real_closure_of_a_run_holds_what_makes_its_numbers_and_no_other_method():
    closure = import_closure(["mmsa_lib.experiments.runs", "mmsa_lib.methods.self_mm"])
    needed = {
        "mmsa_lib.training.fit", "mmsa_lib.data.batch", "mmsa_lib.data.loading", "mmsa_lib.evaluation.metrics",
        "mmsa_lib.methods.base", "mmsa_lib.methods.self_mm", "mmsa_lib.experiments.runs",
    }  # fmt: skip
    assert needed <= set(closure)
    assert not {name for name in closure if name.startswith(("mmsa_lib.cli", "mmsa_lib.figures"))}
    # What reads runs, shows them or starts them is no part of them: editing it must not orphan results.
    assert not {name for name in closure if name.startswith("mmsa_lib.experiments.")} - {
        f"mmsa_lib.experiments.{name}" for name in ("runs", "config", "options", "preparation", "terms")
    }
    assert "mmsa_lib.methods" not in closure
    assert "mmsa_lib.methods.modal_alignment" not in closure
