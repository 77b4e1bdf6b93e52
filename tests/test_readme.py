"""The result tables of README.md are what the curated data give."""

import importlib.util

import pytest

from mmsa_lib.paths import project_root

ROOT = project_root()


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("readme_results", ROOT / "companion" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["results", "missing", "sweeps"])
def test_readme_tables_are_those_of_the_data(tool, name):
    committed = tool.section((ROOT / "README.md").read_text(encoding="utf-8"), name)[1]
    assert committed == tool.SECTIONS[name](ROOT / "data" / "results")
    tables = committed.split("\n\n")
    assert all(line.count("|") == table.splitlines()[0].count("|") for table in tables for line in table.splitlines())


def test_every_section_is_compared(tool):
    assert set(tool.SECTIONS) == {"results", "missing", "sweeps"}
