"""Notebook 03's tables from real runs of a few samples, and what an oracle would claim, by hand."""

import json
import shutil

import pandas as pd
import pytest
import written_runs

from companion import collaborative as shelf
from companion.__main__ import main
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import collect, read_results
from mmsa_lib.experiments.runs import find_run, run

COMMON = {"data": {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6}, "settings": {"device": "cpu"}}
OWN = {"width": 8, "heads": 2, "feedforward": 8, "max_epochs": 2, "batch_size": 16}
REFERENCE = '{"decoupling": "reference"}'


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of both variants and of a switch on small synthetic data, and of a baseline."""
    folder = tmp_path_factory.mktemp("runs")
    for name, config in (
        ("synthetic", {}), ("synthetic", {"decoupling": "reference"}), ("synthetic", {"no_rl": True}),
        ("ablations", {"no_policy": True}),
    ):  # fmt: skip
        made = RunConfig(method="collaborative_mmcl", config={**OWN, **config}, oracle=True, label=name, **COMMON)
        run(made, folder / "collaborative" / name, progress="none")
    text = RunConfig(method="text_only", config={"max_epochs": 1, "batch_size": 16}, **COMMON)
    run(text, folder / "others", progress="none")
    return folder


@pytest.fixture
def target(runs, tmp_path):
    """A folder of curated tables that holds baselines."""
    collect(runs / "others").to_csv(tmp_path / "contrastive_synthetic.csv", index=False)
    return tmp_path


def test_tables_hold_what_the_trained_runs_do(runs, target, monkeypatch, capsys):
    # These small runs change more than the two named variants do.
    changed = {name: json.dumps({**OWN, **json.loads(text)}, sort_keys=True) for name, text in VARIANTS.items()}
    monkeypatch.setattr("companion.collaborative.VARIANTS", changed)
    folder = runs / "collaborative" / "synthetic"
    found = shelf.named_runs(folder)
    assert [done.config.config.get("decoupling") for done in found] == [None, "reference"]
    assert main(["results", str(runs), "--out", str(target)]) == 0
    names = ["synthetic", "ablations", "weights", "critics", "curves", "oracle"]
    assert capsys.readouterr().out.split() == [*(f"collaborative_{name}.csv" for name in names), "terms.csv"]
    terms = pd.read_csv(target / "terms.csv")
    assert terms[terms["run_id"] == found[0].run_id]["term"].tolist() == ["task", "critic", "actor"]
    assert set(terms["method"]) == {"collaborative_mmcl", "text_only"}
    table = read_results(target / "collaborative_synthetic.csv")
    assert set(table["method"]) >= {"collaborative_mmcl", "text_only", "constant_median"}
    assert set(table["split"]) == {"test"}
    weights = pd.read_csv(target / "collaborative_weights.csv")
    critics = pd.read_csv(target / "collaborative_critics.csv").set_index(["run_id", "split"])
    assert weights["changes"].drop_duplicates().tolist() == [done.config.described()["changes"] for done in found]
    for run_id, rows in weights.groupby("run_id"):
        done = find_run(run_id, folder)
        test = done.load_data()["test"]
        method = done.load_method(test)
        assert rows["entropy"].tolist() == pytest.approx(
            shelf.method_decoupling(method, test.data)["entropy"], abs=1e-9
        )
        expected = shelf.entropy_bounds(rows["steps"].iloc[0], method.config.decoupling)["specific"]
        assert rows.query("part == 'specific'")["bound"].tolist() == pytest.approx([expected] * 3, abs=1e-9)
        for split, own in done.load_data().items():
            if split != "train":
                expected = shelf.critic_skill(method, own)["skill"]
                assert critics.loc[(run_id, split), "skill"] == pytest.approx(expected, abs=1e-6)
    assert (shelf.by_variant(weights).query("variant == 'reference'")["steps"] == 6).all()
    curves = pd.read_csv(target / "collaborative_curves.csv")
    assert set(curves["epoch"]) == {1, 2}
    assert {"policy/gate", "policy/reward"} <= set(curves["name"])
    oracle = pd.read_csv(target / "collaborative_oracle.csv")
    assert set(oracle["run_id"]) == set(weights["run_id"])  # of the named variants only
    assert set(read_results(target / "collaborative_ablations.csv")["label"]) == {"ablations", ""}
    with pytest.raises(ConfigError, match="is no test sample"):  # the words of MOSI
        shelf.utterance(found[0])


def test_critics_of_readings_and_of_the_whole_method_have_a_table_of_their_own(runs, tmp_path):
    shutil.copytree(runs / "collaborative" / "synthetic", tmp_path / "readings")
    for label in ("full", "fusion_cat"):  # the default critic is that of the ablations; other switches are left out
        made = RunConfig(method="collaborative_mmcl", config=OWN, label=label, **COMMON)
        run(made, tmp_path / "ablations", progress="none")
    assert shelf.write(tmp_path, tmp_path) == ["readings"]
    found = pd.read_csv(tmp_path / "collaborative_readings.csv")
    assert found[found["split"] == "test"]["label"].tolist() == ["synthetic", "synthetic", "full"]
    assert found["split"].value_counts().to_dict() == {"test": 3, "valid": 3}
    assert not found["changes"].str.contains("no_rl").any()


VARIANTS = {"reference": REFERENCE, "corrected": "{}"}


def test_lines_of_the_entropy_figure_start_with_the_reference():
    rows = pd.DataFrame(
        {"run_id": list("abc"), "changes": ["{}", REFERENCE, '{"no_rl": true}'], "data_options": "{}",
         "dataset": "mmmo", "part": "common", "modality": "text", "entropy": 0.5, "bound": 0.4}
    )  # fmt: skip
    assert shelf.entropy_lines(rows)["group"].tolist() == ["ICT-MMMO, reference", "ICT-MMMO, corrected"]


HISTORY = {"mae": [1.0, 0.7, 0.8, 0.7], "acc2": [0.5, 0.6, 0.9, 0.6], "corr": [float("nan")] * 4}


def write_run(folder, *, seed=1, best_epoch=2, split="oracle"):
    """A finished run whose history says what the test metrics were after each epoch."""
    path = folder / written_runs.write_run(folder, "text_only", seed)
    rows = [
        {"phase": "train", "epoch": epoch, "split": split, "name": metric, "value": value}
        for metric, values in HISTORY.items() for epoch, value in enumerate(values, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path / files.HISTORY, index=False)
    (path / files.ENVIRONMENT).write_text(json.dumps({"training": {"best_epoch": best_epoch}}))
    return path


def test_each_metric_has_its_own_best_epoch_and_direction(tmp_path):
    write_run(tmp_path)
    table = shelf.oracle_gap(tmp_path)
    assert table["metric"].tolist() == ["mae", "acc2"]  # a correlation of constants is undefined
    mae, acc2 = table.iloc[0], table.iloc[1]
    assert (mae["epoch"], mae["value"], mae["oracle_epoch"], mae["oracle"], mae["gap"]) == (2, 0.7, 2, 0.7, 0.0)
    assert (acc2["value"], acc2["oracle_epoch"], acc2["oracle"]) == (0.6, 3, 0.9)
    assert acc2["gap"] == pytest.approx(0.3)
    write_run(tmp_path / "late", best_epoch=1)
    assert shelf.oracle_gap(tmp_path / "late")["gap"].tolist() == pytest.approx([0.3, 0.4])


def test_runs_without_a_record_are_left_out_and_all_of_them_refused(tmp_path):
    write_run(tmp_path, split="valid")
    with pytest.raises(DataError, match="train with --oracle"):
        shelf.oracle_gap(tmp_path)
    path = write_run(tmp_path, seed=2)
    assert shelf.oracle_gap(tmp_path)["run_id"].unique().tolist() == [path.name]
    (path / files.ENVIRONMENT).write_text(json.dumps({"training": {"best_epoch": 9}}))
    with pytest.raises(DataError, match="no test metric of epoch 9"):
        shelf.oracle_gap(tmp_path)


def test_the_value_of_a_real_run_is_its_test_metric(runs):
    folder = runs / "collaborative" / "ablations"
    (done,) = folder.glob(f"*/{files.DONE}")
    table = shelf.oracle_gap(folder).set_index("metric")
    own = find_run(done.parent.name, folder).metrics.query("split == 'test'").set_index("metric")["value"]
    assert table["value"].to_dict() == pytest.approx(own[table.index].to_dict(), abs=1e-6)
    assert (table["gap"] >= 0).all()
    assert {"mae", "acc7"} <= set(table.index)
