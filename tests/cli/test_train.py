from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from mmsa_lib.cli import main
from mmsa_lib.errors import RunError

SMALL = ["--set", "samples=[48, 24, 32]", "dims=[12, 8, 8]", "length=6", "max_epochs=2", "--device", "cpu"]


@pytest.fixture
def train(tmp_path):
    def run(method, *more):
        return main(["train", method, *SMALL, "--runs", str(tmp_path), *more])

    return run


def test_json_is_the_only_output_and_holds_runs_means_and_constants(train, tmp_path, capsys):
    assert train("text_only", "--seeds", "1", "2", "--label", "tiny", "--json") == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "text_only seed 1: train 1/2" in err
    runs = report["runs"]
    assert [entry["seed"] for entry in runs] == [1, 2]
    for entry in runs:
        assert (tmp_path / entry["run_id"] / "DONE").is_file()
        assert set(entry["metrics"]) == {"valid", "test"}
        assert set(pd.read_csv(tmp_path / entry["run_id"] / "metrics.csv")["label"]) == {"tiny"}
    mean = (runs[0]["metrics"]["test"]["mae"] + runs[1]["metrics"]["test"]["mae"]) / 2
    assert report["over_seeds"]["mae"]["mean"] == pytest.approx(mean)
    assert report["over_seeds"]["mae"]["n"] == 2
    assert report["constants"]["constant_mean"]["corr"] is None
    assert report["constants"]["constant_mean"]["mae"] > 0


def test_text_output_and_repetition(train, capsys):
    assert train("text_only", "--seeds", "1", "1", "--quiet") == 0
    out, err = capsys.readouterr()
    assert "train 1/2" not in err
    assert out.count("seed 1: ") == 1
    assert "constant_mean" in out
    assert "MAE ↓" in out
    assert train("text_only", "--seeds", "1") == 0
    again, err = capsys.readouterr()
    assert "(finished before)" in again
    assert "train 1/2" not in err


@pytest.mark.parametrize("kind", [RunError, ZeroDivisionError])
def test_a_failing_seed_does_not_keep_the_others_from_running(train, capsys, monkeypatch, kind):
    from mmsa_lib.experiments import runs

    original = runs.fit

    def fit(*splits, seed, **rest):
        if seed == 1:
            raise kind("loss term raw/task is nan")
        return original(*splits, seed=seed, **rest)

    monkeypatch.setattr(runs, "fit", fit)
    assert train("text_only", "--seeds", "1", "2", "--json") == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "seed 1 failed: loss term raw/task is nan" in err
    assert [entry["seed"] for entry in report["runs"]] == [2, 1]
    assert report["runs"][1]["error"] == {"type": kind.__name__, "message": "loss term raw/task is nan"}
    assert ("Traceback" in err) is (kind is ZeroDivisionError)
    assert report["over_seeds"]["mae"]["n"] == 1


def test_all_seeds_failing_is_still_one_report(train, capsys, monkeypatch):
    from mmsa_lib.experiments import runs

    def fit(*splits, **rest):
        raise RunError("no")

    monkeypatch.setattr(runs, "fit", fit)
    assert train("text_only", "--seeds", "1", "--json") == 1
    assert "over_seeds" not in json.loads(capsys.readouterr().out)


class TestIncompleteSamples:
    @pytest.fixture(autouse=True)
    def masks(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MMSA_LIB_MASKS", str(tmp_path / "masks"))

    def test_json_has_every_cell_apart_from_the_complete_one(self, train, tmp_path, capsys):
        options = ("--missing", "stochastic", "--protocols", "frames", "subsets", "rate", "--quiet")
        assert train("early_fusion", "--seeds", "1", *options, "--json") == 0
        (entry,) = json.loads(capsys.readouterr().out)["runs"]
        assert set(entry["metrics"]) == {"valid", "test"}
        assert {name: len(cells) for name, cells in entry["protocols"].items()} == {
            "frames": 11,
            "subsets": 7,
            "rate": 7,
        }
        assert entry["protocols"]["frames"]["0.0"] == entry["metrics"]["test"]
        assert entry["protocols"]["subsets"]["audio"]["mae"] > 0

    def test_text_has_one_block_per_protocol_with_the_constants(self, train, tmp_path, capsys):
        assert train("text_only", "--protocols", "frames", "subsets", "--quiet") == 0
        out = capsys.readouterr().out
        for headline in ("frames: auilc, normalised, mean over seeds", "subsets: average, mean over seeds"):
            block = out.split(headline)[1]
            assert block.index("text_only") >= 0
            assert "constant_median" in block
            assert "oracle" not in block
        assert main(["results", "table", str(tmp_path), "--protocol", "subsets", "--level", "audio"]) == 0
        assert "protocol subsets at audio" in capsys.readouterr().out

    def test_masks_are_listed_and_shown(self, tmp_path, capsys):
        assert main(["data", "masks"]) == 0
        assert "subsets" in capsys.readouterr().out
        assert main(["data", "masks", "synthetic", "--protocols", "subsets", "--json"]) == 0
        cells = json.loads(capsys.readouterr().out)["cells"]
        assert [cell["level"] for cell in cells][:2] == ["text", "audio"]
        assert cells[0]["observed"]["audio"] == 0
        assert cells[-1]["observed"]["text"] > 0.8
        assert cells[0]["empty_samples"] > 0  # some samples have no text by nature
        assert len(list((tmp_path / "masks").glob("*.h5"))) == 1
        assert main(["data", "masks", "synthetic", "--protocols", "subset"]) == 2
        assert "did you mean subsets" in capsys.readouterr().err


def test_a_data_set_is_found_in_the_folder_that_is_named(tmp_path, capsys):
    from mmsa_lib.data.sources.synthetic import build
    from mmsa_lib.data.store import write_store

    (tmp_path / "other").mkdir()
    write_store(build(samples=(12, 6, 6), dims=(8, 8, 8), length=4, seed=1), tmp_path / "other" / "mine.h5")
    words = ["train", "text_only", "--dataset", "mine", "--runs", str(tmp_path), "--set", "max_epochs=1", "--quiet"]
    assert main(words) == 2
    assert "unknown data set 'mine'" in capsys.readouterr().err
    assert main([*words, "--set", f"data.folder={tmp_path / 'other'}"]) == 0


def test_constant_is_answered_with_the_baselines(capsys):
    assert main(["train", "constant", "--json"]) == 0
    constants = json.loads(capsys.readouterr().out)["constants"]
    assert {"constant_majority", "constant_mean", "constant_median", "constant_prior"} <= set(constants)
    assert main(["train", "constant"]) == 0
    assert "MAE" in capsys.readouterr().out


@pytest.mark.parametrize("label", [2.0, -2.0])
def test_a_model_that_decides_the_same_for_all_is_named(train, capsys, monkeypatch, label):
    from mmsa_lib.experiments import runs

    monkeypatch.setattr(runs, "predict", lambda method, data, size: torch.full((len(data),), label))
    assert train("text_only", "--quiet") == 0
    assert "it has learned nothing" in capsys.readouterr().err


class TestAfterwards:
    @pytest.fixture
    def run_folder(self, train, capsys):
        assert train("text_only", "--seeds", "3", "--json") == 0
        return json.loads(capsys.readouterr().out)["runs"][0]["folder"]

    def test_predict_to_stdout_and_to_a_file(self, run_folder, tmp_path, capsys):
        assert main(["predict", run_folder]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[0].startswith("id,group,label,prediction,low,high,sd,without_text,")
        assert len(out.splitlines()) == 33
        assert main(["predict", run_folder, "--split", "valid", "--out", str(tmp_path / "p.csv")]) == 0
        assert len(pd.read_csv(tmp_path / "p.csv")) == 24
        assert capsys.readouterr().out == ""


class TestMetrics:
    def test_chosen_ones_are_shown_everywhere(self, train, capsys):
        words = ["--quiet", "--metrics", "corr", "f1_neg_pos_macro"]
        assert train("text_only", *words) == 0
        out = capsys.readouterr().out
        assert "  Corr " in out
        assert "macro F1 (neg/pos)" in out
        assert "MAE" not in out
        assert train("text_only", *words, "--json") == 0
        report = json.loads(capsys.readouterr().out)
        assert set(report["over_seeds"]) == set(report["runs"][0]["metrics"]["test"]) == {"corr", "f1_neg_pos_macro"}

    def test_of_incomplete_samples_and_constants(self, train, capsys):
        assert train("text_only", "--quiet", "--metrics", "mae", "--protocols", "rate") == 0
        assert "Corr" not in capsys.readouterr().out
        assert main(["train", "constant", "--metrics", "mae"]) == 0
        assert "Acc" not in capsys.readouterr().out
