"""Methods outside the package: the identifier of a run must change with their code, wherever it is, and only then."""

from __future__ import annotations

import importlib
import itertools
import linecache
import os
import subprocess
import sys

import pytest

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.experiments import runs
from mmsa_lib.experiments.fingerprint import own_code
from mmsa_lib.experiments.runs import run
from mmsa_lib.methods import METHODS, create, method_class
from mmsa_lib.methods.fusion_baselines import TextOnly

METHOD = """
from mmsa_lib.methods.fusion_baselines import TextOnly

class Mine(TextOnly):
    id = "mine"

    def losses(self, batch, output):
        return {name: weigh(term) for name, term in super().losses(batch, output).items()}
"""

WEIGH = """
def weigh(term):
    return LAMBDA * term
"""

_numbers = itertools.count()


def cell(space: dict, source: str) -> None:
    """Run ``source`` as a notebook does: in one namespace, with its lines where tracebacks look for them."""
    name = f"/tmp/ipykernel_1/{next(_numbers)}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), space)


def notebook(*cells: str) -> dict:
    space = {"__name__": "__main__"}
    for source in cells:
        cell(space, source)
    return space


def mark(*cells: str) -> str:
    return own_code(notebook(*cells)["Mine"])[0]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder from which modules can be imported; they are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


class TestCells:
    base = (WEIGH, "LAMBDA = 0.5", METHOD)

    def test_the_same_cells_give_the_same_mark(self):
        assert mark(*self.base) == mark(*self.base)
        assert mark("LAMBDA = 0.5", METHOD, WEIGH) == mark(*self.base)

    @pytest.mark.parametrize(
        "cells",
        [
            (WEIGH, "LAMBDA = 0.25", METHOD),
            (WEIGH.replace("LAMBDA *", "2 * LAMBDA *"), "LAMBDA = 0.5", METHOD),
            (WEIGH, "LAMBDA = 0.5", METHOD.replace("weigh(term)", "weigh(-term)")),
            (WEIGH, "LAMBDA = 0.5", METHOD.replace("super().losses", "self.other_terms")),
            (WEIGH, "LAMBDA = 0.5", METHOD + "    factor = 2\n"),
            (WEIGH, "LAMBDA = 0.5", METHOD + "    def forward(self, batch):\n        return super().forward(batch)\n"),
            (WEIGH, "import torch\nLAMBDA = torch.tensor(0.5)", METHOD),
            (WEIGH.replace("(term)", "(term, plus=1)"), "LAMBDA = 0.5", METHOD),
        ],
    )
    def test_what_the_class_uses_changes_it(self, cells):
        assert mark(*cells) != mark(*self.base)

    @pytest.mark.parametrize(
        "cells",
        [
            ("UNRELATED = 1\ndef other():\n    return UNRELATED", *base),
            (WEIGH.replace("return", '"""Weigh."""\n\n    # by lambda\n    return'), "LAMBDA = 0.5  # a half", METHOD),
            (WEIGH, "LAMBDA = 0.5", METHOD.replace('    id = "mine"', '    """Mine."""\n\n    id = "mine"  # so')),
        ],
    )
    def test_comments_docstrings_and_other_cells_do_not(self, cells):
        assert mark(*cells) == mark(*self.base)

    def test_a_cell_that_ran_again_counts_at_once(self):
        space = notebook(*self.base)
        before = own_code(space["Mine"])[0]
        cell(space, "LAMBDA = 0.75")
        assert own_code(space["Mine"])[0] != before
        cell(space, "LAMBDA = 0.5")
        assert own_code(space["Mine"])[0] == before
        cell(space, WEIGH.replace("LAMBDA *", "LAMBDA * LAMBDA *"))
        assert own_code(space["Mine"])[0] != before

    @pytest.mark.parametrize(
        ("definition", "old", "new"),
        [
            ("Base = make({})", 1, 2),  # a value that a function encloses
            ("class Base(TextOnly):\n    depth = {}", 1, 2),
            ("Base = type('Base', (TextOnly,), dict(table=[{}]))", 1, 2),
            ("class Base(TextOnly):\n    f = staticmethod(lambda: {})", 1, 2),
            ("class Base(TextOnly):\n    f = classmethod(lambda c: {})", 1, 2),
            ("class Base(TextOnly):\n    p = property(lambda s: {})", 1, 2),
            ("class Base(TextOnly):\n    f = functools.partial(print, {})", 1, 2),
            ("class Base(TextOnly):\n    f = functools.cache(lambda s: {})", 1, 2),
            ("class Base(TextOnly):\n    f = torch.no_grad()(lambda s: {})", 1, 2),
            ("class Base(TextOnly):\n    w = np.{}(3)", "zeros", "ones"),
            ("class Base(TextOnly):\n    w = torch.nn.{}()", "Identity", "ReLU"),
            ("class Base(TextOnly):\n    w = torch.float{}", 32, 64),
            ("class Base(TextOnly):\n    w = Options({})", 1, 2),
            ("class Base(TextOnly):\n    w = Kind.{}", "A", "B"),
            ("class Base(TextOnly):\n    w = pd.DataFrame(dict(a=[{}]))", 1, 2),
            ("class Base(TextOnly):\n    class Config(TextOnly.Config):\n        gamma: float = {}", 1.0, 2.0),
        ],
    )
    def test_whatever_a_base_class_is_made_of_counts(self, definition, old, new):
        tools = (
            "import dataclasses, enum, functools, torch\nimport numpy as np\nimport pandas as pd\n"
            "from mmsa_lib.methods.fusion_baselines import TextOnly\n"
            "def make(n):\n    class Made(TextOnly):\n        def f(self):\n            return n\n    return Made\n"
            "@dataclasses.dataclass\nclass Options:\n    n: int\n"
            "class Kind(enum.Enum):\n    A = 1\n    B = 2\n"
        )
        mine = "class Mine(Base):\n    id = 'mine'\n"
        before, again, after = (mark(tools, definition.format(value), mine) for value in (old, old, new))
        assert before == again
        assert before != after

    def test_the_modules_of_this_package_that_it_uses_are_named(self):
        inside = (
            "def weigh(term):\n    from mmsa_lib.losses import coral\n    return coral.covariance_alignment(term, term)"
        )
        used = own_code(notebook(inside, METHOD)["Mine"])[1]
        assert {"mmsa_lib.losses.coral", "mmsa_lib.methods.fusion_baselines", "mmsa_lib.methods.base"} <= set(used)

    def test_circles_end(self):
        space = notebook("def weigh(term):\n    return weigh(term) + len(RING) + Mine.factor", METHOD)
        cell(space, "RING = [1]\nRING.append(RING)\nMine.factor = Mine")
        with pytest.raises(AttributeError):  # a class body of its own has no factor
            _ = TextOnly.factor
        assert own_code(space["Mine"])[0] == own_code(space["Mine"])[0]

    def test_what_cannot_be_compared_is_refused_with_its_name(self):
        cells = "import threading\nLAMBDA = threading.Lock()"
        with pytest.raises(ConfigError, match="weigh, LAMBDA: the content of a lock can't be compared"):
            mark(WEIGH, cells, METHOD)

    def test_code_without_source_is_refused_with_the_remedy(self):
        space = {"__name__": "__main__"}
        exec(METHOD, space)
        with pytest.raises(ConfigError, match="put it into a file or a notebook cell"):
            own_code(space["Mine"])


class TestModules:
    def write(self, folder, files):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        importlib.invalidate_caches()

    package = {
        "own/__init__.py": "",
        "own/net/__init__.py": "",
        "own/net/losses.py": "SCALE = 2\ndef weigh(term):\n    return SCALE * term\n",
        "own/lazy.py": "def g():\n    return 1\n",
        "own/unused.py": "X = 1\n",
        "own/method.py": "from .net.losses import weigh\n"
        + METHOD
        + "    def later(self):\n        from . import lazy\n        return lazy.g()\n",
    }

    @pytest.mark.parametrize(
        ("file", "old", "new", "changes"),
        [
            ("own/method.py", "weigh(term) for", "-weigh(term) for", True),
            ("own/net/losses.py", "SCALE = 2", "SCALE = 3", True),
            ("own/net/losses.py", "SCALE * term", "term / SCALE", True),
            ("own/lazy.py", "return 1", "return 2", True),
            ("own/unused.py", "X = 1", "X = 2", False),
            ("own/net/losses.py", "    return", '    """Weigh."""\n    return', False),
        ],
    )
    def test_a_package_of_ones_own(self, folder, file, old, new, changes):
        self.write(folder, self.package)
        module = importlib.import_module("own.method")
        before = own_code(module.Mine)[0]
        assert old in self.package[file]
        self.write(folder, {file: self.package[file].replace(old, new)})
        assert own_code(module.Mine)[0] == before  # what this process runs is not yet what the file says
        for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
            del sys.modules[name]
        assert (own_code(importlib.import_module("own.method").Mine)[0] != before) is changes

    def test_a_module_that_is_loaded_again_counts(self, folder):
        self.write(
            folder,
            {
                "neighbour.py": "def weigh(term):\n    return term\n",
                "alone.py": "import neighbour\n" + METHOD.replace("weigh(", "neighbour.weigh("),
            },
        )
        alone = importlib.import_module("alone")
        before = own_code(alone.Mine)[0]
        self.write(folder, {"neighbour.py": "def weigh(term):\n    return 2 * term\n"})
        importlib.reload(sys.modules["neighbour"])
        assert own_code(alone.Mine)[0] != before

    def test_installed_packages_count_by_version_and_loose_files_by_content(self, folder, monkeypatch):
        site = folder / "site-packages"
        monkeypatch.syspath_prepend(site)
        self.write(folder, {
            "site-packages/other/__init__.py": "def weigh(term):\n    return term\n",
            "site-packages/other-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
            "site-packages/loose.py": "def weigh(term):\n    return term\n",
            "a.py": "from other import weigh\n" + METHOD,
            "b.py": "from loose import weigh\n" + METHOD,
        })  # fmt: skip
        from mmsa_lib.experiments import fingerprint as module

        a, b = (own_code(importlib.import_module(name).Mine)[0] for name in "ab")
        monkeypatch.setattr(module, "version", {"other": "1.1"}.get)
        module._distribution.cache_clear()
        assert own_code(sys.modules["a"].Mine)[0] != a
        self.write(folder, {"site-packages/loose.py": "def weigh(term):\n    return -term\n"})
        importlib.reload(sys.modules["loose"])
        importlib.reload(sys.modules["b"])
        assert own_code(sys.modules["b"].Mine)[0] != b
        module._distribution.cache_clear()


def test_every_process_and_hash_seed_gives_the_same_mark(tmp_path):
    script = tmp_path / "script.py"
    tail = "\nfrom mmsa_lib.experiments.fingerprint import own_code\nprint(own_code(Mine)[0])\n"
    script.write_text(
        "LAMBDA = {'a', 'b', 'c', 'd'}\n" + WEIGH.replace("* term", "and term in {'x', 'y', 'z'}") + METHOD + tail
    )
    found = set()
    for seed in ("0", "1", "77"):
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=300,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        found.add(done.stdout)
    assert len(found) == 1


class TestRuns:
    def test_an_edited_method_is_another_run_and_the_old_one_is_found_again(self, small_config, tmp_path, monkeypatch):
        space = notebook(*TestCells.base)
        monkeypatch.setitem(METHODS, "mine", space["Mine"])
        first = run(small_config(method="mine"), tmp_path, progress="none")
        cell(space, "LAMBDA = 0.1")
        second = run(small_config(method="mine"), tmp_path, progress="none")
        assert second.run_id != first.run_id
        cell(space, "LAMBDA = 0.5")
        assert run(small_config(method="mine"), tmp_path, progress="none").folder == first.folder

    def test_methods_of_the_package_keep_the_mark_of_their_modules(self):
        assert runs._code(TextOnly) == runs.code_fingerprint([runs.__name__, TextOnly.__module__])


class TestRegistration:
    def test_what_is_no_method_is_said_in_one_line(self, monkeypatch):
        class NoId(TextOnly):
            id = None

        class WrongConfig(TextOnly):
            Config = dict

        class OldHook(TextOnly):
            def loss_terms(self, batch, output):
                return {}

        cases = {
            OldHook: "defines loss_terms, which nothing calls; define losses",
            "text": "extends mmsa_lib.methods.Method", str: "extends mmsa_lib.methods.Method", NoId: "has no id",
            WrongConfig: "Config must be a class", METHODS["hrlf"].__mro__[-2]: "extends mmsa_lib.methods.Method",
        }  # fmt: skip
        for value, message in cases.items():
            monkeypatch.setitem(METHODS, "mine", value)
            with pytest.raises(ConfigError, match=message):
                method_class("mine")

    def test_an_unknown_name_says_how_to_register_one(self, small_config):
        with pytest.raises(UnknownNameError, match=r"METHODS\[name\] = class"):
            small_config(method="mine")

    def test_the_name_of_a_method_of_the_package_is_taken(self, small_config, monkeypatch, tmp_path):
        class Other(TextOnly):
            pass

        monkeypatch.setitem(METHODS, "text_only", Other)
        with pytest.raises(ConfigError, match="register it under another name"):
            run(small_config(), tmp_path, progress="none")
        with pytest.raises(ConfigError, match="register it under another name"):
            create("text_only", {"text": 3}, None)
