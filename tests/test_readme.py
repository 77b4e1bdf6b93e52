"""The result tables of README.md are what the curated data give."""

import importlib.util

from mmsa_lib.paths import project_root


def test_readme_tables_are_those_of_the_data():
    root = project_root()
    spec = importlib.util.spec_from_file_location("readme_results", root / "tools" / "readme_results.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    committed = (root / "README.md").read_text(encoding="utf-8").split(tool.START)[1].split(tool.END)[0]
    tables = [tool.table(block, root / "data" / "results") for block in tool.BLOCKS]
    assert committed.strip() == "\n\n".join(tables)
    assert all(line.count("|") == table.splitlines()[0].count("|") for table in tables for line in table.splitlines())
