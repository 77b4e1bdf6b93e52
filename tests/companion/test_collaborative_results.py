"""Curated tables of collaborative_mmcl, from real runs of a few samples."""

import pandas as pd
import pytest

from companion.collaborative_results import main, named_variants, results, utterance, write
from companion.decoupling import entropy_bounds, method_decoupling
from companion.policies import critic_skill
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.results import collect, read_results
from mmsa_lib.experiments.runs import find_run, run

OWN = {"width": 8, "heads": 2, "feedforward": 8, "max_epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of both variants and of a switch on small synthetic data, and of a baseline."""
    from mmsa_lib.experiments.config import RunConfig

    folder = tmp_path_factory.mktemp("runs")
    common = {"data": {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6}, "settings": {"device": "cpu"}}
    for name, config in (
        ("synthetic", {}), ("synthetic", {"decoupling": "reference"}), ("synthetic", {"no_rl": True}),
        ("ablations", {"no_policy": True}),
    ):  # fmt: skip
        made = RunConfig(method="collaborative_mmcl", config={**OWN, **config}, oracle=True, **common)
        run(made, folder / name, progress="none")
    text = RunConfig(method="text_only", config={"max_epochs": 1, "batch_size": 16}, **common)
    run(text, folder / "others", progress="none")
    return folder


@pytest.fixture
def target(runs, tmp_path):
    """A folder of curated tables that holds baselines."""
    collect(runs / "others").to_csv(tmp_path / "contrastive_synthetic.csv", index=False)
    return tmp_path


def test_only_the_named_variants_are_looked_into(runs):
    found = named_variants(runs / "synthetic")
    assert {variant for variant, _ in found} == {"", "decoupling=reference"}
    assert all(("decoupling" in run.config.config) == bool(variant) for variant, run in found)


def test_baselines_of_the_same_data_join_the_table(runs, target):
    table = results(runs / "synthetic", "synthetic", target)
    assert set(table["method"]) >= {"collaborative_mmcl", "text_only", "constant_median"}
    assert set(table["split"]) == {"test"}
    assert not table.duplicated(["run_id", "method", "variant", "seed", "metric"]).any()


def test_tables_hold_what_the_trained_runs_do(runs, target, capsys):
    assert main([str(runs), "--out", str(target)]) == 0
    names = ["synthetic", "ablations", "weights", "critics", "curves", "oracle"]
    assert capsys.readouterr().out.split() == [f"collaborative_{name}.csv" for name in names]
    weights = pd.read_csv(target / "collaborative_weights.csv")
    critics = pd.read_csv(target / "collaborative_critics.csv").set_index("run_id")
    for run_id, rows in weights.groupby("run_id"):
        done = find_run(run_id, runs / "synthetic")
        test = done.load_data()["test"]
        method = done.load_method(test)
        assert rows["entropy"].tolist() == pytest.approx(method_decoupling(method, test.data)["entropy"], abs=1e-9)
        expected = entropy_bounds(rows["steps"].iloc[0], method.config.decoupling)["specific"]
        assert rows.query("part == 'specific'")["bound"].tolist() == pytest.approx([expected] * 3, abs=1e-9)
        assert critics.loc[run_id, "error"] == pytest.approx(critic_skill(method, test)["error"], abs=1e-6)
    reference = weights[weights["variant"] == "decoupling=reference"]
    assert (reference["steps"] == 6).all()
    curves = pd.read_csv(target / "collaborative_curves.csv")
    assert set(curves["epoch"]) == {1, 2}
    assert {"policy/gate", "policy/reward"} <= set(curves["name"])
    oracle = pd.read_csv(target / "collaborative_oracle.csv")
    assert set(oracle["run_id"]) >= set(weights["run_id"])
    assert read_results(target / "collaborative_ablations.csv")["variant"].str.contains("no_policy").any()


def test_missing_runs_are_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no finished run in any of synthetic" in capsys.readouterr().err


def test_nothing_else_is_written(runs, target):
    assert "utterance" not in write(runs, target)  # needs the words of MOSI
    with pytest.raises(ConfigError, match="is no test sample"):
        utterance(runs / "synthetic")
