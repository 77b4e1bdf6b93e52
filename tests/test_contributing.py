"""The recipes of CONTRIBUTING.md, followed as they stand there."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest

from mmsa_lib.cli import main

PAGE = Path(__file__).resolve().parent.parent / "CONTRIBUTING.md"
RECIPES = dict(re.findall(r"<!-- recipe: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a reader's own, which is the current one; data and runs go there."""
    for name in ("DATA", "RUNS"):
        monkeypatch.setenv(f"MMSA_LIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in RECIPES.items():
        if "." in name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    yield tmp_path
    for name in RECIPES:
        sys.modules.pop(name.removesuffix(".py"), None)


def follow(name):
    """Each command line of a recipe."""
    for line in RECIPES[name].splitlines():
        assert main(shlex.split(line)[1:]) == 0, line


@pytest.mark.usefixtures("folder")
def test_a_loss():
    importlib.import_module("redundancy").test_redundancy_is_the_slow_computation()


@pytest.mark.usefixtures("folder")
def test_a_data_set():
    from mmsa_lib.data import load

    follow("import")
    assert {name: len(split) for name, split in load("clips", text=None).items()} == {"train": 4, "valid": 1, "test": 1}


def test_a_notebook_and_a_sweep(folder):
    importlib.import_module("write_notebook")
    follow("run")
    assert "1112: " in (folder / "executed" / "constant.ipynb").read_text(encoding="utf-8")
    follow("sweep")
    assert len(list((folder / "runs").rglob("*.ipynb"))) == 2


def test_a_figure(folder):
    from mmsa_lib.figures.registry import FIGURES

    try:
        exec(compile(RECIPES["figure.py"], "figure.py", "exec"), {"__name__": "figure_recipe"})
        follow("draw")
        assert (folder / "drawn" / "main_runs.png").exists()
    finally:
        FIGURES.pop("main_runs", None)
