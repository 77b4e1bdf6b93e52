"""The tables of collaborative_mmcl from real runs of a few samples."""

import pandas as pd
import pytest

from companion import collaborative as shelf
from companion.__main__ import main
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.runs import find_run, run

COMMON = {"data": {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6}, "settings": {"device": "cpu"}}
OWN = {"width": 8, "heads": 2, "feedforward": 8, "max_epochs": 2, "batch_size": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Ablations and readings on small synthetic data."""
    folder = tmp_path_factory.mktemp("runs")
    for name, label, config in (
        ("ablations", "full", {}), ("ablations", "reference", {"decoupling": "reference"}),
        ("ablations", "no_rl", {"no_rl": True}), ("readings", "fast_critic", {"rl_steps": 2}),
        ("readings", "silent", {"no_rl": True}),
    ):  # fmt: skip
        made = RunConfig(method="collaborative_mmcl", config={**OWN, **config}, label=label, **COMMON)
        run(made, folder / name, progress="none")
    return folder


def test_tables_hold_what_the_trained_runs_do(runs, tmp_path, capsys):
    assert main(["results", str(runs), "--out", str(tmp_path), "--only", "collaborative"]) == 0
    assert capsys.readouterr().out.split() == [
        f"collaborative_{name}.csv" for name in ("weights", "curves", "readings")
    ]
    weights = pd.read_csv(tmp_path / "collaborative_weights.csv")
    assert weights["label"].drop_duplicates().tolist() == ["reference", "full"]
    for run_id, rows in weights.groupby("run_id"):
        done = find_run(run_id, runs / "ablations")
        test = done.load_data()["test"]
        method = done.load_method(test)
        assert rows["entropy"].tolist() == pytest.approx(shelf.weight_entropy(method, test.data)["entropy"], abs=1e-9)
        expected = shelf.entropy_bounds(rows["steps"].iloc[0], method.config.decoupling)["specific"]
        assert rows.query("part == 'specific'")["bound"].tolist() == pytest.approx([expected] * 3, abs=1e-9)
    assert (weights[weights["label"] == "reference"]["steps"] == 6).all()
    curves = pd.read_csv(tmp_path / "collaborative_curves.csv")
    assert set(curves["epoch"]) == {1, 2}
    assert {"policy/gate", "policy/reward"} <= set(curves["name"])
    critics = pd.read_csv(tmp_path / "collaborative_readings.csv").set_index(["label", "split"])
    assert set(critics.index) == {(label, split) for label in ("fast_critic", "full") for split in ("valid", "test")}
    done = find_run(critics.loc[("full", "test"), "run_id"], runs / "ablations")
    test = done.load_data()["test"]
    expected = shelf.critic_skill(done.load_method(test), test)["skill"]
    assert critics.loc[("full", "test"), "skill"] == pytest.approx(expected, abs=1e-6)


def test_without_readings_or_runs_of_the_method_there_are_fewer_tables(runs, tmp_path):
    (tmp_path / "readings").symlink_to(runs / "readings")
    assert shelf.write(tmp_path, tmp_path) == ["readings"]
    assert shelf.write(tmp_path / "empty", tmp_path) == []


def test_variants_are_known_by_their_label():
    rows = pd.DataFrame({"label": ["full", "reference", "no_rl"]})
    assert shelf.by_variant(rows)["variant"].tolist() == ["reference", "corrected"]


def test_lines_of_the_entropy_figure_start_with_the_reference():
    rows = pd.DataFrame(
        {"run_id": list("abc"), "label": ["full", "reference", "no_rl"], "data_options": "{}",
         "dataset": "mmmo", "part": "common", "modality": "text", "entropy": 0.5, "bound": 0.4}
    )  # fmt: skip
    assert shelf.entropy_lines(rows)["group"].tolist() == ["ICT-MMMO, reference", "ICT-MMMO, corrected"]
