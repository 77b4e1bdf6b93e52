"""Pages of docs/ that a command writes: they are what it writes, from the committed results."""

import numpy as np
import pandas as pd
import pytest

from companion.__main__ import PAGES, main
from companion.power import COMPARISONS, DESIGNS, RECOMMENDED, effect, spreads
from companion.sweeps import paired_power
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.statistics import holm
from mmsa_lib.paths import project_root

ROOT = project_root()
RESULTS = ROOT / "data" / "results"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_command_writes(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr("companion.__main__.project_root", lambda: tmp_path)
    assert main([name]) == 0
    written = capsys.readouterr().out.strip()
    assert (tmp_path / written).read_text(encoding="utf-8") == (ROOT / written).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DESIGNS)
def test_a_design_finds_its_effect_in_four_of_five_repetitions(name):
    n, m = DESIGNS[name]
    assert paired_power(effect(0.02, name), 0.02, n, 0.05 / m) == pytest.approx(0.8, abs=1e-6)


def test_one_true_difference_among_others_is_found_that_often():
    """The first step of Holm, drawn: n = 10, four comparisons of which one differs."""
    n, m = DESIGNS[RECOMMENDED]
    rng, found, draws = np.random.default_rng(0), 0, 2000
    from scipy import stats

    for _ in range(draws):
        differences = rng.normal(0, 0.02, (m, n))
        differences[0] += effect(0.02, RECOMMENDED)
        p = stats.ttest_1samp(differences, 0, axis=1).pvalue
        found += holm(p)[0] < 0.05
    assert 0.77 < found / draws < 0.86
    assert m in COMPARISONS


def test_spreads_are_those_of_the_comparisons(tmp_path):
    table = spreads(RESULTS)
    assert (table["sd"] <= table["largest"]).all()
    assert {"ablations", "main"} == set(table["kind"])
    effects = pd.read_csv(RESULTS / "sweep_ablations_comparison.csv")
    (first,) = (group for method, group in effects.groupby("method") if method in table["what"].iloc[0])
    most = first[first["n"] == first["n"].max()]
    assert (table["comparisons"].iloc[0], table["n"].iloc[0]) == (len(most), most["n"].iloc[0]) < (len(first), 11)
    assert table["sd"].iloc[0] == pytest.approx(most["sd"].median())
    with pytest.raises(DataError, match=r"sweep_ablations_comparison\.csv"):
        spreads(tmp_path)
