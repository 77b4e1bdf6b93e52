"""Curated tables of sweeps, from run folders with made-up predictions."""

import numpy as np
import pandas as pd
import pytest
from written_runs import SEEDS, write_run

from companion import sweep_results
from mmsa_lib.experiments import files
from mmsa_lib.experiments.comparisons import read_comparison
from mmsa_lib.experiments.results import collect, read_results
from mmsa_lib.experiments.summaries import read_summary

SUBSETS = (("complete", "0.0"), ("subsets", "text"), ("subsets", "audio"), ("subsets", "text+audio"))
CHOSEN = {"lambda_frf": 0.01, "lambda_hal": 0.01}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in SEEDS:
        for method, noise in (("early_fusion", 1.0), ("text_only", 1.1), ("self_mm", 0.6)):
            write_run(folder / "main", method, seed, noise)
        for config, noise in (({}, 0.8), ({"no_ulgm": True}, 1.4)):
            write_run(folder / "ablations", "modal_alignment", seed, noise, config=config)
        for extra in ({}, {"no_frf": True}):
            write_run(folder / "ablations", "hrlf", seed, 0.9, config={**CHOSEN, **extra}, protocols=SUBSETS)
        for weight in (0.0, 1.0):
            write_run(folder / "sensitivity", "modal_alignment", seed, 1.0, config={"lambda_cov": weight})
    return folder


@pytest.fixture(scope="module")
def tables(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("tables")
    assert sweep_results.write(runs, target) == ["main", "ablations", "sensitivity"]
    return target


def test_the_main_rows_are_those_of_the_runs_with_their_identifiers(runs, tables):
    rows = read_results(tables / "sweep_main.csv")
    found = collect(runs / "main")
    own = rows[rows["run_id"] != ""]
    assert set(own["run_id"]) == set(found.loc[found["run_id"] != "", "run_id"])
    assert not own["metric"].str.endswith("_macro").any()
    key = ["run_id", "metric"]
    both = own.merge(found[found["run_id"] != ""], on=key, suffixes=("", "_run"))
    np.testing.assert_allclose(both["value"], both["value_run"], atol=1e-6)
    assert (rows.loc[rows["run_id"] == "", "method"] == "constant_mean").any()


def test_the_summary_has_both_intervals_and_the_runs_behind_them(tables):
    summary = read_summary(tables / "sweep_main_summary.csv")
    mae = summary[(summary["metric"] == "mae") & ~summary["constant"]]
    assert (mae["n"] == len(SEEDS)).all()
    assert (mae["item_low"] < mae["mean"]).all()
    assert (mae["mean"] < mae["item_high"]).all()
    assert mae["runs"].str.split().str.len().eq(len(SEEDS)).all()


def test_methods_are_compared_with_plain_fusion_and_with_the_text_alone(tables):
    found = read_comparison(tables / "sweep_main_comparison.csv")
    pairs = set(zip(found["method"], found["reference_method"], strict=True))
    assert pairs == {
        ("text_only", "early_fusion"), ("self_mm", "early_fusion"), ("early_fusion", "text_only"),
        ("self_mm", "text_only"),
    }  # fmt: skip
    assert set(found["metric"]) == {"mae"}
    better = found[(found["method"] == "self_mm") & (found["reference_method"] == "early_fusion")].iloc[0]
    assert better["difference"] < 0
    assert better["item_low"] < better["item_high"] < 0


def test_each_method_is_compared_with_its_full_variant(tables):
    found = read_comparison(tables / "sweep_ablations_comparison.csv").set_index("method")
    assert found.loc["modal_alignment", "variant"] == "no_ulgm=True"
    assert found.loc["modal_alignment", "difference"] > 0.3
    assert found.loc["hrlf", "reference_variant"] == sweep_results.FULL["hrlf"]
    assert found.loc["hrlf", "verdict"] == "no difference shown"  # the same predictions


def test_averages_over_incomplete_subsets_are_kept_per_run(runs, tables):
    rows = read_results(tables / "sweep_ablations.csv")
    averages = rows[(rows["protocol"] == "subsets") & (rows["metric"] == "mae")]
    assert set(averages["level"]) == {"average"}
    assert len(averages) == 2 * len(SEEDS)
    found = collect(runs / "ablations")
    one = averages.iloc[0]
    own = found[(found["run_id"] == one["run_id"]) & (found["metric"] == "mae") & (found["protocol"] == "subsets")]
    expected = own[own["level"].isin(["text", "audio"])]["value"].mean()
    assert one["value"] == pytest.approx(expected, abs=1e-6)


def test_sensitivity_keeps_every_value(tables):
    rows = pd.read_csv(tables / "sweep_sensitivity.csv", keep_default_na=False)
    own = rows[rows["run_id"] != ""]
    assert set(own["variant"]) == {"lambda_cov=0.0", ""}  # 1.0 is the default, and belongs to every parameter
    assert set(own["metric"]) == {"mae", "corr"}


def test_what_the_runs_lack_is_taken_from_earlier_tables(runs, tmp_path):
    found = collect(runs / "ablations")
    old = found[(found["method"] == "hrlf") & (found["protocol"] == "complete")]
    extra = old.assign(seed=9, run_id="older", variant="audio=audio73; text=words; vision=None; x=1")
    other = extra.assign(method="modal_alignment")
    files.write_table(tmp_path / "old.csv", pd.concat([old, extra, other], ignore_index=True))
    joined = sweep_results._with_earlier(found, tmp_path, ("hrlf",), ("old.csv", "none.csv"))
    pd.testing.assert_frame_equal(joined.iloc[: len(found)], found)  # nothing that is there is replaced or doubled
    added = joined.iloc[len(found) :]
    assert set(added["run_id"]) == {"older"}
    assert set(added["variant"]) == {"x=1"}
    assert set(added["method"]) == {"hrlf"}
    assert not added["metric"].str.endswith("_macro").any()


def test_different_inputs_of_one_data_set_are_not_compared():
    rows = pd.DataFrame(
        [
            {"run_id": "a", "dataset": "mosi", "fold": "A", "method": "text_only", "variant": ""},
            {"run_id": "b", "dataset": "mosi", "fold": "A", "method": "hrlf", "variant": "lambda_frf=0.01; seed=1"},
            {"run_id": "c", "dataset": "mosi", "fold": "A", "method": "late_fusion", "variant": "text=timed_words"},
            {"run_id": "d", "dataset": "mmmo", "fold": "A", "method": "text_only", "variant": ""},
            {"run_id": "", "dataset": "mosi", "fold": "A", "method": "constant_mean", "variant": ""},
        ]
    )  # fmt: skip
    parts = [list(part["run_id"]) for part in sweep_results._same_input(rows)]
    assert parts == [["a", "b", ""], ["c", ""], ["d"]]


def test_the_command_names_what_it_wrote_and_what_is_missing(runs, tmp_path, capsys):
    assert sweep_results.main([str(runs / "main"), "--out", str(tmp_path)]) == 2
    assert "no finished run in any of main, ablations, sensitivity" in capsys.readouterr().err
