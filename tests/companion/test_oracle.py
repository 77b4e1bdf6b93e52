"""Oracle against validation selection: numbers by hand, and what a real run records."""

import json

import pandas as pd
import pytest

from companion.oracle import ORACLE_COLUMNS, curate_oracle, oracle_gap
from mmsa_lib.errors import DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.runs import run

HISTORY = {"mae": [1.0, 0.7, 0.8, 0.7], "acc2": [0.5, 0.6, 0.9, 0.6], "corr": [float("nan")] * 4}


def write_run(folder, name, *, seed=1, best_epoch=2, history=HISTORY, variant="", split="oracle"):
    """A run folder with the files that the summary reads."""
    own = {
        "run_id": name, "method": "m", "variant": variant, "dataset": "toy", "fold": "standard", "seed": seed,
        "protocol": "complete", "level": 0.0, "split": "test",
    }  # fmt: skip
    path = folder / name
    path.mkdir(parents=True)
    rows = [
        {"phase": "train", "epoch": epoch, "split": split, "name": metric, "value": value}
        for metric, values in history.items() for epoch, value in enumerate(values, 1)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(path / files.HISTORY, index=False)
    metrics = [{**own, "metric": metric, "value": values[best_epoch - 1]} for metric, values in history.items()]
    pd.DataFrame(metrics).to_csv(path / files.METRICS, index=False)
    constant = {**own, "run_id": "", "seed": None, "method": "constant_mean", "metric": "mae", "value": 1.5}
    pd.DataFrame([constant]).to_csv(path / files.CONSTANTS, index=False)
    (path / files.ENVIRONMENT).write_text(json.dumps({"training": {"best_epoch": best_epoch}}))
    (path / files.DONE).write_text(name)
    return path


def test_each_metric_has_its_own_best_epoch_and_direction(tmp_path):
    write_run(tmp_path, "a")
    table = oracle_gap(tmp_path)
    assert tuple(table.columns) == ORACLE_COLUMNS
    assert table["metric"].tolist() == ["mae", "acc2"]  # a correlation of constants is undefined
    mae, acc2 = table.iloc[0], table.iloc[1]
    assert (mae["epoch"], mae["value"], mae["oracle_epoch"], mae["oracle"], mae["gap"]) == (2, 0.7, 2, 0.7, 0.0)
    assert (acc2["value"], acc2["oracle_epoch"], acc2["oracle"]) == (0.6, 3, 0.9)
    assert acc2["gap"] == pytest.approx(0.3)


def test_a_gap_of_an_error_is_how_much_lower_the_oracle_is(tmp_path):
    write_run(tmp_path, "a", best_epoch=1)
    assert oracle_gap(tmp_path)["gap"].tolist() == pytest.approx([0.3, 0.4])


def test_runs_without_a_record_are_left_out_and_all_of_them_refused(tmp_path):
    write_run(tmp_path, "without", split="valid")
    with pytest.raises(DataError, match="train with --oracle"):
        oracle_gap(tmp_path)
    write_run(tmp_path, "with", seed=2)
    assert oracle_gap(tmp_path)["run_id"].unique().tolist() == ["with"]


def test_a_history_without_the_kept_epoch_is_refused(tmp_path):
    path = write_run(tmp_path, "a")
    (path / files.ENVIRONMENT).write_text(json.dumps({"training": {"best_epoch": 9}}))
    with pytest.raises(DataError, match="no test metric of epoch 9"):
        oracle_gap(tmp_path)


def test_curated_rows_are_rounded_chosen_and_keep_their_run(tmp_path):
    write_run(tmp_path / "one", "a", history={"mae": [1 / 3, 0.5]}, best_epoch=2)
    write_run(tmp_path / "one", "b", variant="x=1")
    write_run(tmp_path / "two", "c", seed=2)
    kept = curate_oracle([tmp_path / "one", tmp_path / "two"], tmp_path / "o.csv", variants=[""])
    assert kept["run_id"].unique().tolist() == ["a", "c"]
    assert kept["oracle"].iloc[0] == 0.333333
    again = pd.read_csv(tmp_path / "o.csv", keep_default_na=False)
    assert again["gap"].tolist() == kept["gap"].tolist()
    with pytest.raises(DataError, match="nothing was written"):
        curate_oracle([tmp_path / "one"], tmp_path / "none.csv", variants=["y"])
    assert not (tmp_path / "none.csv").exists()


def test_the_value_of_a_real_run_is_its_test_metric(tmp_path):
    small = {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6}
    brief = {"max_epochs": 2, "batch_size": 16}
    config = RunConfig(method="text_only", config=brief, data=small, settings={"device": "cpu"}, oracle=True)
    result = run(config, tmp_path, progress="none")
    table = oracle_gap(tmp_path).set_index("metric")
    own = result.metrics.query("split == 'test'").set_index("metric")["value"]
    for metric, row in table.iterrows():
        assert row["value"] == pytest.approx(own[metric], abs=1e-6)
    assert (table["gap"] >= 0).all()
    assert {"mae", "acc7"} <= set(table.index)
