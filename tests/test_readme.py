"""The result tables of README.md are what the curated data give."""

import pytest

from companion import readme
from companion.__main__ import main
from mmsa_lib.paths import project_root

ROOT = project_root()


@pytest.mark.parametrize("name", ["results", "missing", "sweeps"])
def test_readme_tables_are_those_of_the_data(name):
    committed = readme.section((ROOT / "README.md").read_text(encoding="utf-8"), name)[1]
    assert committed == readme.SECTIONS[name](ROOT / "data" / "results")
    tables = committed.split("\n\n")
    assert all(line.count("|") == table.splitlines()[0].count("|") for table in tables for line in table.splitlines())


def test_every_section_is_compared():
    assert set(readme.SECTIONS) == {"results", "missing", "sweeps"}


def test_a_changed_table_is_told_and_written_anew(tmp_path, monkeypatch, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "README.md").write_text(text.replace("| `early_fusion` |", "| `early` |", 1), encoding="utf-8")
    monkeypatch.setattr("companion.__main__.project_root", lambda: tmp_path)
    assert main(["readme", "--check"]) == 1
    assert "python -m companion readme" in capsys.readouterr().out
    assert main(["readme"]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    assert main(["readme", "--check"]) == 0
