"""Curated tables of sweeps from made-up runs, and what few seeds can show."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sweep_files import write_sweep
from written_runs import SEEDS, write_run

from companion import names, sweeps
from companion.__main__ import main
from companion.sweeps import chosen_on_validation, detectable_difference, paired_power
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.statistics import holm
from mmsa_lib.experiments import files
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
        write_run(folder / "readings", "modal_alignment", seed, 1.2, config={"d_M": 16})
        for extra in ({}, {"no_alignment": True}):
            write_run(folder / "label_scarce", "modal_alignment", seed, 1.0, config={"d_M": 16, **extra})
        for weight in (0.0, 30.0):
            write_run(folder / "sensitivity", "modal_alignment", seed, 1.0, config={"lambda_cov": weight})
    return folder


@pytest.fixture(scope="module")
def tables(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "CLEAN", sweeps.PRIMARY)  # made-up runs know no noise-free sentiment
        assert sweeps.write(runs, target) == ["main", "ablations", "readings", "label_scarce", "sensitivity"]
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
    bayes = pd.DataFrame([{"dataset": "synthetic", "split": "test", "modalities": "text+audio+vision", "mae": 0.5}])
    ridge = pd.DataFrame([{"dataset": "mosi", "input": "text", "metric": "mae", "value": 0.9}])
    figure, lines = sweeps.main_results(summary.assign(dataset="synthetic"), bayes, ridge)
    assert lines["name"].tolist() == ["text_only", "early_fusion", "self_mm"]
    floors = {line.get_label() for line in figure.legends[0].get_lines()}
    assert floors >= {"best constant", "best possible"}
    assert "ridge regression" not in floors  # it is of another data set
    constant = summary[(summary["metric"] == "mae") & (summary["method"] == "constant_mean")]["mean"].iloc[0]
    drawn = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert constant in drawn
    assert 0.5 in drawn


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


def test_primary_switches_are_corrected_together_and_others_get_no_verdict(tmp_path, monkeypatch):
    switches = {"full": {}, "one": {"no_ulgm": True}, "two": {"no_weighting": True}, "three": {"no_alignment": True}}
    for noise, config in zip((0.8, 1.4, 1.2, 1.6), switches.values(), strict=True):
        for seed in SEEDS:
            write_run(tmp_path / "ablations", "modal_alignment", seed, noise, config=config)
    found = collect(tmp_path / "ablations")
    labels = {files.as_json(config): label for label, config in switches.items()}
    found["label"] = found["changes"].map(labels).where(found["run_id"] != "", "")
    changes = {name: {f"config.{key}": True for key in config} for name, config in switches.items()}
    blocks = [{"name": "primary", "ablations": {name: changes[name] for name in ("full", "one", "two")}}]
    (tmp_path / sweeps.SWEEPS).mkdir(parents=True)
    write_sweep(tmp_path / sweeps.SWEEPS / "ablations_modal_alignment.yaml", blocks=blocks)
    monkeypatch.setattr(sweeps, "project_root", lambda: tmp_path)
    one, other = sweeps._switches(found, "modal_alignment", tmp_path / "ablations")
    assert sorted(one["label"]) == ["one", "two"]
    assert one["p_holm"].tolist() == pytest.approx(holm(one["p"]).tolist())
    assert set(one["verdict"]) == {"worse"}
    assert (other["label"].tolist(), other["verdict"].tolist()) == (["three"], ["exploratory"])
    assert other["p_holm"].tolist() == other["p"].tolist()


def test_readings_stand_beside_the_full_method_of_the_ablations(runs, tables):
    rows = read_results(tables / "sweep_readings.csv").query("run_id != '' and metric == 'mae'")
    full = collect(runs / "ablations").query("method == 'modal_alignment' and changes == '{}' and metric == 'mae'")
    assert set(rows.loc[rows["changes"] == "{}", "run_id"]) == set(full["run_id"])
    (line,) = read_comparison(tables / "sweep_readings_comparison.csv").itertuples()
    assert (line.changes, line.reference_changes) == ('{"d_M": 16}', "{}")
    expected = rows[rows["changes"] != "{}"]["value"].mean() - full["value"].mean()
    assert line.difference == pytest.approx(expected, abs=1e-6)


def test_switches_with_few_labels_are_compared_with_the_tuned_method(tables):
    (line,) = read_comparison(tables / "sweep_label_scarce_comparison.csv").itertuples()
    assert (line.changes, line.reference_changes) == ('{"d_M": 16, "no_alignment": true}', '{"d_M": 16}')


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
    assert points[["value", "default"]].drop_duplicates().to_numpy().tolist() == [[30.0, True], [0.0, False]]


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
    assert [names.line("mult", name) for name in ("tuned", "tuned, length=3", "")] == ["mult", "mult, length=3", "mult"]


def test_the_command_names_what_it_wrote_and_what_is_missing(runs, tables, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweeps, "CLEAN", sweeps.PRIMARY)
    assert main(["results", str(runs), "--only", "sweep", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == [f"sweep_{name}.csv" for name in sweeps.TABLES]
    for path in tables.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    for arguments, message in (
        ([str(runs / "main")], "has none of the folders main, ablations, readings, label_scarce, sensitivity, missing"),
        ([str(runs), "--only", "swep"], "unknown kind of table 'swep'; did you mean sweep"),
        ([str(runs), "--only", "missing"], "has no finished run in any of missing"),
    ):
        assert main(["results", *arguments, "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(("effect", "n"), [(0.5, 5), (1.5, 5), (2.0, 3), (0.8, 20)])
def test_power_is_the_share_of_simulated_tests_that_find_the_difference(effect, n):
    draws = np.random.default_rng(0).normal(effect, 1.0, size=(40_000, n))
    p = stats.ttest_1samp(draws, 0.0, axis=1).pvalue
    assert paired_power(effect, 1.0, n) == pytest.approx((p < 0.05).mean(), abs=0.008)


def test_without_a_difference_power_is_the_level_of_the_test():
    assert paired_power(0.0, 2.0, 5, alpha=0.01) == pytest.approx(0.01)


def test_power_depends_on_the_ratio_alone_and_on_neither_sign():
    assert paired_power(0.3, 0.2, 5) == pytest.approx(paired_power(-3.0, 2.0, 5))


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_detectable_difference_has_that_power(power):
    found = detectable_difference(0.02, 5, power=power)
    assert paired_power(found, 0.02, 5) == pytest.approx(power, abs=1e-6)


def test_more_seeds_detect_smaller_differences_about_with_their_square_root():
    few, many = detectable_difference(1.0, 50), detectable_difference(1.0, 200)
    assert few / many == pytest.approx(2.0, rel=0.03)
    normal = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert many * math.sqrt(200) == pytest.approx(normal, rel=0.02)


@pytest.mark.parametrize(("sd", "n", "alpha"), [(1.0, 1, 0.05), (0.0, 5, 0.05), (math.nan, 5, 0.05), (1.0, 5, 0.0)])
def test_what_cannot_be_tested_is_refused(sd, n, alpha):
    with pytest.raises(ConfigError, match="paired t-test needs"):
        paired_power(1.0, sd, n, alpha)
    with pytest.raises(ConfigError, match="power must lie"):
        detectable_difference(1.0, 5, power=0.01)


def points(values, default=1.0):
    return pd.DataFrame(
        [
            {"panel": "p", "value": value, "split": split, "mean": mean, "default": value == default}
            for value, pair in values.items()
            for split, mean in zip(("valid", "test"), pair, strict=True)
        ]
    )


def test_validation_chooses_and_test_tells():
    found = chosen_on_validation(points({0.1: (0.9, 1.2), 1.0: (1.0, 1.0), 10.0: (1.1, 0.8)})).loc["p"]
    assert (found["default"], found["chosen"]) == (1.0, 0.1)
    assert (found["test_default"], found["test_chosen"], found["test_best"]) == (1.0, 1.2, 0.8)
    assert found["range"] == pytest.approx(0.4)


def test_panels_keep_their_order():
    one = points({1.0: (1.0, 1.0), 2.0: (2.0, 2.0)})
    found = chosen_on_validation(pd.concat([one.assign(panel="q"), one.assign(panel="p")]))
    assert list(found.index) == ["q", "p"]


def test_a_panel_without_default_or_without_a_split_is_refused():
    with pytest.raises(DataError, match="exactly one value must be the default"):
        chosen_on_validation(points({0.1: (1, 1)}))
    with pytest.raises(DataError, match="needs a validation and a test result"):
        chosen_on_validation(points({1.0: (1, 1)}).query("split == 'test'"))
    with pytest.raises(DataError, match="needs a validation and a test result"):
        chosen_on_validation(points({0.1: (1, 1), 1.0: (1, 1)}).iloc[1:])
