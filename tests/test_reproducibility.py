"""docs/reproducibility.md says what the committed measurement says."""

import re
import runpy
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_differences_between_machines_are_those_of_the_committed_table():
    script = runpy.run_path(str(ROOT / "benchmarks" / "machine_differences.py"))
    found = script["spread"](pd.read_csv(ROOT / "data" / "results" / "machine_differences.csv"))
    text = (ROOT / "docs/reproducibility.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) == len(found) / 3
    for dataset, method, processors, seeds in rows:
        expected = found.loc[dataset, method, "mae"].tolist()
        assert [float(processors), float(seeds)] == pytest.approx(expected, abs=5.1e-4)


def test_the_tolerance_of_notebooks_is_the_one_in_use():
    text = (ROOT / "docs/reproducibility.md").read_text(encoding="utf-8")
    for tag, (relative, absolute) in runpy.run_path(str(ROOT / "notebooks" / "conftest.py"))["TOLERANCES"].items():
        assert re.search(rf"^\| `{tag}` \|.*\| {100 * relative:g} % \+ {absolute:g} \|$", text, flags=re.MULTILINE)
