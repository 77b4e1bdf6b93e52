"""Curated tables of the missing-modality benchmark, from real runs of a few samples."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from companion.missing_results import METRICS, main, results, run_states, write
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.hazards import prediction_spread
from mmsa_lib.evaluation.missing_effects import augmentation_effects
from mmsa_lib.evaluation.missing_summary import run_summaries
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.files import write_manifest
from mmsa_lib.experiments.results import collect, read_results
from mmsa_lib.experiments.runs import find_run, run

COMMON = {
    "data": {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6},
    "settings": {"device": "cpu"},
    "config": {"max_epochs": 1, "batch_size": 16},
    "protocols": ("frames", "subsets", "rate"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Plain and augmented runs of two methods, two seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSA_LIB_MASKS", str(folder / "masks"))
        for method in ("text_only", "early_fusion"):
            for missing in ("none", "stochastic"):
                for seed in (1, 2):
                    config = RunConfig(method=method, missing=missing, seed=seed, **COMMON)
                    run(config, folder / "synthetic", progress="none")
    return folder


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the runs that a test may damage."""
    shutil.copytree(runs / "synthetic", tmp_path / "runs" / "synthetic")
    return tmp_path / "runs"


def fail(folder, source, error, seed=None):
    """A run folder as a failed run leaves it, made from a finished one."""
    target = folder / f"failed{seed or ''}"
    target.mkdir()
    stored = json.loads((source / files.CONFIG).read_text())
    stored["config"]["seed"] = seed or stored["config"]["seed"]
    files.write_json(target / files.CONFIG, stored)
    files.write_json(target / files.ERROR, error)


def test_all_cells_of_all_runs_are_kept_and_rounded(runs, tmp_path, capsys):
    assert main([str(runs), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["missing_synthetic.csv", "missing_spread.csv", "missing_runs.csv"]
    table = read_results(tmp_path / "missing_synthetic.csv")
    expected = collect(runs / "synthetic").query("split == 'test'")
    expected = expected[expected["metric"].isin(METRICS)].reset_index(drop=True)
    keys = ["run_id", "method", "protocol", "level", "metric"]
    merged = table.merge(expected, on=keys, suffixes=("", "_all"))
    assert len(merged) == len(table) == len(expected)
    np.testing.assert_allclose(merged["value"], merged["value_all"], atol=5.1e-5)
    assert {"acc5", "acc2_neg_nonneg"}.isdisjoint(table["metric"])
    effects = augmentation_effects(run_summaries(table).query("summary == 'auilc_normalised'"), "mae")
    assert effects["method"].tolist() == ["early_fusion", "text_only"]


def test_spread_is_that_of_the_stored_predictions(runs, tmp_path):
    write(runs, tmp_path)
    table = pd.read_csv(tmp_path / "missing_spread.csv", dtype={"level": str})
    assert set(table["protocol"]) == {"frames", "subsets", "rate"}
    assert not table.duplicated(["run_id", "protocol", "level"]).any()
    for row in table.query("protocol == 'rate' and level == '0.5'").itertuples():
        stored = find_run(row.run_id, runs / "synthetic").predictions("test", "rate", 0.5)
        expected = prediction_spread(stored.predictions, regression())
        assert row.sd == pytest.approx(expected["sd"], abs=5.1e-5)
        assert row.entropy == pytest.approx(expected["entropy"], abs=5.1e-5)


def test_every_run_is_listed_with_one_fingerprint_of_the_masks(runs):
    table = run_states({runs / "synthetic": collect(runs / "synthetic")})
    assert len(table) == 8
    assert set(table["state"]) == {"finished"}
    assert len(set(table["masks"])) == 1
    assert len(table["masks"].iloc[0]) == 64
    stored = find_run(table["run_id"].iloc[0], runs / "synthetic").environment["mask_fingerprint"]
    assert table["masks"].iloc[0] == stored


def test_a_failed_run_is_listed_and_one_that_was_repeated_is_not(copied):
    folder = copied / "synthetic"
    source = next(folder.glob(f"*/{files.DONE}")).parent
    error = {"type": "TrainingError", "message": "the states\ncollapsed"}
    fail(folder, source, error, seed=9)
    fail(folder, source, error)  # the same seed as the finished run
    table = run_states({folder: collect(folder)})
    failed = table[table["state"] == "failed"]
    assert failed["seed"].tolist() == [9]
    assert failed["error"].tolist() == ["TrainingError: the states collapsed"]
    assert failed["variant"].tolist() == table.loc[table["run_id"] == source.name, "variant"].tolist()
    assert len(table) == 9


def test_complete_input_that_differs_from_rate_0_is_refused(copied, tmp_path):
    source = next((copied / "synthetic").glob(f"*/{files.DONE}")).parent
    table = files.read_table(source / files.METRICS)
    wrong = (table["protocol"] == "frames") & (table["level"] == "0.0") & (table["metric"] == "mae")
    files.write_table(source / files.METRICS, table.assign(value=table["value"].where(~wrong, 9.0)))
    write_manifest(source, files.RESULTS)
    with pytest.raises(DataError, match=r"has mae 9.0 under frames 0.0 and .* on complete input"):
        results(collect(copied / "synthetic"), tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_missing_folders_are_left_out_and_no_run_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no finished run in any of synthetic, mosi, mmmo, mosi_timed" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.csv"))
