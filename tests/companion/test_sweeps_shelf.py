"""Curated tables of sweeps, from run folders with made-up predictions, and the command that writes them."""

import numpy as np
import pandas as pd
import pytest
from written_runs import SEEDS, write_run

from companion import names, sweeps
from companion.__main__ import main
from mmsa_lib.experiments.results import collect, read_results
from mmsa_lib.experiments.summaries import read_comparison, read_summary

SUBSETS = (("complete", "0.0"), ("subsets", "text"), ("subsets", "audio"), ("subsets", "text+audio"))
WEIGHTS = {"lambda_frf": 0.01, "lambda_hal": 0.01}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in SEEDS:
        for method, noise in (("early_fusion", 1.0), ("text_only", 1.1), ("self_mm", 0.6)):
            write_run(folder / "main", method, seed, noise)
        for config, noise in (({}, 0.8), ({"no_ulgm": True}, 1.4)):
            write_run(folder / "ablations", "modal_alignment", seed, noise, config=config)
        for extra in ({}, {"no_frf": True}):
            write_run(folder / "ablations", "hrlf", seed, 0.9, config={**WEIGHTS, **extra}, protocols=SUBSETS)
        for weight in (0.0, 1.0):
            write_run(folder / "sensitivity", "modal_alignment", seed, 1.0, config={"lambda_cov": weight})
    return folder


@pytest.fixture(scope="module")
def tables(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("tables")
    assert sweeps.write(runs, target) == ["main", "ablations", "sensitivity"]
    return target


def test_the_main_rows_are_those_of_the_runs_with_their_identifiers(runs, tables):
    rows, found = read_results(tables / "sweep_main.csv"), collect(runs / "main")
    own = rows[rows["run_id"] != ""]
    assert set(own["run_id"]) == set(found.loc[found["run_id"] != "", "run_id"])
    assert not own["metric"].str.endswith("_macro").any()
    both = own.merge(found[found["run_id"] != ""], on=["run_id", "metric"], suffixes=("", "_run"))
    np.testing.assert_allclose(both["value"], both["value_run"], atol=1e-6)
    assert (rows.loc[rows["run_id"] == "", "method"] == "constant_mean").any()


def test_the_summary_has_both_intervals_and_the_runs_behind_them(tables):
    summary = read_summary(tables / "sweep_main_summary.csv")
    mae = summary[(summary["metric"] == "mae") & ~summary["constant"]]
    assert (mae["n"] == len(SEEDS)).all()
    assert (mae["item_low"] < mae["mean"]).all()
    assert (mae["mean"] < mae["item_high"]).all()
    assert mae["runs"].str.split().str.len().eq(len(SEEDS)).all()
    lines, floors = sweeps.main_rows(summary.assign(dataset="synthetic"))
    assert lines["name"].tolist() == ["text_only", "early_fusion", "self_mm"]
    constant = summary[(summary["metric"] == "mae") & summary["constant"]]["mean"].min()
    assert floors[["panel", "value"]].to_numpy().tolist() == [["synthetic", pytest.approx(constant)]]


def test_methods_are_compared_with_plain_fusion_and_with_the_text_alone(tables):
    found = read_comparison(tables / "sweep_main_comparison.csv")
    assert set(zip(found["method"], found["reference_method"], strict=True)) == {
        ("text_only", "early_fusion"), ("self_mm", "early_fusion"), ("early_fusion", "text_only"),
        ("self_mm", "text_only"),
    }  # fmt: skip
    assert set(found["metric"]) == {"mae"}
    better = found[(found["method"] == "self_mm") & (found["reference_method"] == "early_fusion")].iloc[0]
    assert better["difference"] < 0
    assert better["item_low"] < better["item_high"] < 0


def test_each_method_is_compared_with_its_full_configuration(tables):
    found = read_comparison(tables / "sweep_ablations_comparison.csv").set_index("method")
    assert found.loc["modal_alignment", "changes"] == '{"no_ulgm": true}'
    assert found.loc["modal_alignment", "difference"] > 0.3
    assert found.loc["hrlf", "reference_changes"] == '{"lambda_frf": 0.01, "lambda_hal": 0.01}'
    assert found.loc["hrlf", "verdict"] == "no difference shown"  # the same predictions
    lines = sweeps.ablation_rows(found.reset_index())
    assert lines[["panel", "name"]].to_numpy().tolist()[0] == ["modal_alignment", "no_ulgm=True"]


def test_averages_over_incomplete_subsets_are_kept_per_run(runs, tables):
    rows = read_results(tables / "sweep_ablations.csv")
    averages = rows[(rows["protocol"] == "subsets") & (rows["metric"] == "mae")]
    assert set(averages["level"]) == {"average"}
    assert len(averages) == 2 * len(SEEDS)
    found, one = collect(runs / "ablations"), averages.iloc[0]
    own = found[(found["run_id"] == one["run_id"]) & (found["metric"] == "mae") & (found["protocol"] == "subsets")]
    assert one["value"] == pytest.approx(own[own["level"].isin(["text", "audio"])]["value"].mean(), abs=1e-6)


def test_sensitivity_keeps_every_value_and_the_default_belongs_to_each(tables):
    rows = pd.read_csv(tables / "sweep_sensitivity.csv", keep_default_na=False)
    own = rows[rows["run_id"] != ""]
    assert set(own["changes"]) == {'{"lambda_cov": 0.0}', "{}"}
    assert set(own["metric"]) == {"mae", "corr"}
    points = sweeps.sensitivity_rows(read_results(tables / "sweep_sensitivity.csv").assign(dataset="synthetic"))
    assert points[["value", "default"]].drop_duplicates().to_numpy().tolist() == [[1.0, True], [0.0, False]]


def test_different_inputs_of_one_data_set_are_not_compared(runs, tmp_path, monkeypatch):
    found = collect(runs / "main")
    timed = found["method"].isin(["self_mm", "early_fusion"]) & (found["seed"] != SEEDS[0])
    options = found["data_options"].where(~timed, '{"audio": "timing", "text": "timed_words"}')
    monkeypatch.setattr(sweeps, "collect", lambda folder: found.assign(data_options=options))
    sweeps.main_tables(runs / "main", tmp_path)
    table = read_comparison(tmp_path / "sweep_main_comparison.csv")
    assert (table["data_options"] == table["reference_data_options"]).all()


def test_the_two_inputs_of_mosi_are_told_apart():
    options = ["{}", '{"audio": "timing"}', '{"task": "emotions"}']
    rows = pd.DataFrame({"dataset": ["mosi", "mosi", "synthetic"], "data_options": options})
    assert names.data_of(rows).tolist() == ["mosi", "mosi_timed", "synthetic_emotions"]
    assert names.line("hrlf", "chosen_weights") == "hrlf, chosen weights"


def test_the_command_names_what_it_wrote_and_what_is_missing(runs, tables, tmp_path, capsys):
    assert main(["results", str(runs), "--only", "sweep", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["sweep_main.csv", "sweep_ablations.csv", "sweep_sensitivity.csv"]
    for path in tables.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    for arguments, message in (
        ([str(runs / "main")], "has none of the folders main, ablations, sensitivity, missing"),
        ([str(runs), "--only", "swep"], "unknown kind of table 'swep'; did you mean sweep"),
        ([str(runs), "--only", "missing"], "has no finished run in any of missing"),
    ):
        assert main(["results", *arguments, "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
