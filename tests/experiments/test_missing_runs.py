"""Runs with incomplete training, validation and test samples."""

from __future__ import annotations

import json
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch

from mmsa_lib.data.missing import MASK_SEED, mask_path
from mmsa_lib.errors import ConfigError
from mmsa_lib.evaluation.metrics import noise_free_metrics, prediction_spread, task_metrics
from mmsa_lib.evaluation.protocols import cells
from mmsa_lib.experiments import runs
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import collect, curate, read_results
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.experiments.tables import results_table
from mmsa_lib.methods.fusion_baselines import EarlyFusion
from mmsa_lib.training import predict

ALL = ("frames", "subsets", "rate")


@pytest.fixture(autouse=True)
def mask_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_MASKS", str(tmp_path / "masks"))
    return tmp_path / "masks"


@pytest.fixture
def incomplete(small_config, tmp_path):
    config = small_config(method="early_fusion", missing="stochastic", protocols=ALL)
    return run(config, tmp_path / "runs", progress="none")


def test_every_cell_has_metrics_predictions_and_spread(incomplete):
    levels = {"complete": 1, "frames": 11, "subsets": 7, "rate": 7}
    test = incomplete.metrics.query("split == 'test'")
    assert test.groupby("protocol")["level"].nunique().to_dict() == levels
    assert len(test) == sum(levels.values()) * test["metric"].nunique()
    task, spread = incomplete.load_data()["test"].task, incomplete.spread.set_index(["protocol", "level", "split"])
    for (protocol, level, split), rows in incomplete.metrics.groupby(["protocol", "level", "split"]):
        stored = incomplete.predictions(split, protocol, level)
        expected = task_metrics(task, stored.predictions, stored.labels)
        if split == "test":
            expected |= noise_free_metrics(task, stored.predictions, stored.clean)
        assert rows.set_index("metric")["value"].to_dict() == pytest.approx(expected, nan_ok=True)
        expected = prediction_spread(torch.from_numpy(stored.predictions), task)
        assert spread.loc[(protocol, level, split)].to_dict() == pytest.approx(expected)
    assert len(spread) == sum(levels.values()) + 2  # complete and corrupted validation samples
    nothing = spread.loc[("frames", "1.0", "test")]
    assert (nothing["sd"], nothing["entropy"], bool(nothing["one_class"])) == (pytest.approx(0, abs=1e-6), 0, True)
    assert spread.loc[("complete", "0.0", "test"), "sd"] > 0.01


def test_predictions_are_those_under_the_frozen_masks(incomplete, mask_folder):
    test = incomplete.load_data()["test"]
    method = incomplete.load_method(test)
    for protocol in ALL:
        assert mask_path(test, protocol, MASK_SEED).is_file()
        for level, part in cells(test, protocol):
            stored = incomplete.predictions("test", protocol, level)
            assert stored.ids == test.ids
            assert np.array_equal(predict(method, part).numpy(), stored.predictions)


def test_complete_input_is_rate_0_and_the_subset_of_all(incomplete):
    complete = incomplete.predictions().predictions
    assert np.array_equal(complete, incomplete.predictions("test", "frames", 0).predictions)
    assert np.array_equal(complete, incomplete.predictions("test", "subsets", "text+audio+vision").predictions)
    assert not np.array_equal(complete, incomplete.predictions("test", "frames", 0.5).predictions)


def test_selection_is_on_the_corrupted_validation_samples(incomplete):
    history = incomplete.history.query("split == 'valid' and name == 'loss/task'")["value"]
    corrupted = incomplete.metrics.query("split == 'valid' and protocol == 'stochastic' and metric == 'mae'")
    complete = incomplete.metrics.query("split == 'valid' and protocol == 'complete' and metric == 'mae'")
    assert corrupted["value"].item() == pytest.approx(history.min(), rel=1e-6)
    assert complete["value"].item() != pytest.approx(history.min(), rel=1e-6)


def test_every_method_meets_the_same_masks_and_stores_the_same_fingerprint(small_config, tmp_path, monkeypatch):
    met = {}
    original = runs.predict

    def watch(method, data, size):
        bits = b"".join(data.data.observed[m].numpy().tobytes() for m in data.modalities)
        met.setdefault(method.id, []).append(bits)
        return original(method, data, size)

    monkeypatch.setattr(runs, "predict", watch)
    names = ("text_only", "early_fusion", "late_fusion")
    results = [
        run(small_config(method=m, seed=7 + i, missing="stochastic", protocols=ALL), tmp_path, progress="none")
        for i, m in enumerate(names)
    ]
    assert len(met["text_only"]) == 28  # two complete splits, the corrupted validation split and 25 test cells
    assert met["text_only"] == met["early_fusion"] == met["late_fusion"]
    assert len({result.environment["mask_fingerprint"] for result in results}) == 1


def identifier(config):
    data = runs.load(config.dataset, config.fold, **config.load_options)
    frozen = runs.freeze(config, data)
    return runs._identify(config, runs._create(config, data["train"]), data, frozen.fingerprint)["run_id"]


class TestIdentity:
    def test_missing_protocols_and_masks_are_part_of_it(self, small_config, mask_folder, tmp_path, monkeypatch):
        base, tested = small_config(), small_config(protocols=("frames",))
        found = {identifier(c) for c in (base, tested, small_config(missing="stochastic"))}
        assert len(found) == 3
        assert identifier(small_config(protocols=("complete", "frames", "frames"))) == identifier(tested)
        first = identifier(tested)
        (file,) = mask_folder.glob("*-frames-*.h5")
        file.unlink()
        assert identifier(tested) == first  # drawn again, the same
        with h5py.File(file, "r+") as stored:
            mask = stored[f"frames/0.5/{MASK_SEED}/text"]
            mask[0, 0] = not mask[0, 0]
        assert identifier(tested) != first

    def test_order_of_protocols_does_not_matter(self):
        one = RunConfig(method="text_only", protocols=["rate", "frames"])
        assert one == RunConfig(method="text_only", protocols=["frames", "complete", "rate"])
        assert one.protocols == ("complete", "frames", "rate")


class TestValidationUnderTheRecipe:
    def recorded(self, result):
        found = result.metrics.query("split == 'valid'")
        return set(zip(found["protocol"], found["level"].astype(str), strict=True))

    def test_a_plain_run_records_it_and_still_selects_on_complete_samples(self, small_config, tmp_path):
        plain = run(small_config(), tmp_path, progress="none")
        tested = run(small_config(protocols=("rate",)), tmp_path, progress="none")
        assert self.recorded(plain) == {("complete", "0.0")}
        assert self.recorded(tested) == {("complete", "0.0"), ("stochastic", "msm")}
        assert np.array_equal(plain.predictions().predictions, tested.predictions().predictions)

    def test_hrlf_records_what_it_selected_on(self, small_config, tmp_path):
        small = {"max_epochs": 2, "width": 8, "heads": 2, "qu_dim": 4, "feedforward": 8, "critic_hidden": 4}
        result = run(small_config(method="hrlf", config=small), tmp_path, progress="none")
        assert self.recorded(result) == {("complete", "0.0"), ("stochastic", "msm")}
        mae = result.metrics.query("protocol == 'stochastic' and metric == 'mae'")["value"].item()
        assert mae == pytest.approx(result.environment["training"]["best_value"], abs=1e-5)


class TestTraining:
    def test_stochastic_training_changes_the_model_and_is_a_change(self, small_config, tmp_path):
        plain = run(small_config(), tmp_path, progress="none")
        augmented = run(small_config(missing="stochastic"), tmp_path, progress="none")
        assert plain.run_id != augmented.run_id
        assert not np.array_equal(plain.predictions().predictions, augmented.predictions().predictions)
        assert json.loads(augmented.metrics["changes"].iloc[0])["missing"] == "stochastic"
        assert find_run(augmented.folder).config.missing == "stochastic"

    def test_a_method_that_makes_its_own_missing_samples_refuses_it(self, small_config, monkeypatch):
        class Own(EarlyFusion):
            own_missing: ClassVar[bool] = True

        monkeypatch.setitem(runs.METHODS, "early_fusion", Own)
        with pytest.raises(ConfigError, match="early_fusion makes training samples incomplete itself; leave missing="):
            small_config(method="early_fusion", missing="stochastic")
        assert small_config(method="early_fusion").missing == "none"

    def test_emotions_have_cells_too(self, small_config, tmp_path):
        data = {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6, "task": "emotions"}
        result = run(small_config(data=data, protocols=("subsets",)), tmp_path, progress="none")
        audio = result.spread.set_index(["protocol", "level"]).loc[("subsets", "audio")]
        assert (audio["sd"], bool(audio["one_class"])) == (pytest.approx(0, abs=1e-6), True)  # text_only hears nothing


def test_a_protocol_that_does_not_suit_the_data_fails_before_training(small_config, tmp_path):
    data = {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6, "audio": None, "vision": None}
    with pytest.raises(ConfigError, match="frames_audio needs audio; synthetic carries text"):
        run(small_config(data=data, protocols=("frames_audio",)), tmp_path / "runs", progress="none")
    assert not (tmp_path / "runs").exists()


class TestTables:
    def test_a_table_of_one_cell_has_the_constants(self, incomplete, tmp_path):
        frame = collect(tmp_path / "runs")
        table = results_table(frame, ["mae"], protocol="subsets", level="text+audio")
        expected = incomplete.metrics.query("protocol == 'subsets' and level == 'text+audio' and metric == 'mae'")
        assert table.lines[0].cells[-1] == f"{expected['value'].item():.3f}"
        assert {line.cells[0] for line in table.lines if line.grey} >= {"constant_mean", "constant_median"}
        assert "protocol subsets at text+audio" in table.title
        assert results_table(frame, ["mae"], protocol="frames", level=0.5).lines
        assert results_table(frame, ["mae"]).title.startswith("synthetic, fold standard, test samples")

    def test_a_later_run_without_protocols_leaves_those_of_an_older_one(self, small_config, tmp_path):
        tested = run(small_config(protocols=("subsets",)), tmp_path, progress="none")
        later = run(small_config(), tmp_path, progress="none")
        frame = collect(tmp_path)
        by_protocol = frame[frame["run_id"] != ""].groupby("protocol")["run_id"].unique()
        assert by_protocol["complete"].tolist() == [later.run_id]
        assert by_protocol["subsets"].tolist() == [tested.run_id]
        assert len(collect(tmp_path, superseded=True)) > len(frame)

    def test_cells_survive_curation(self, incomplete, tmp_path):
        curate(tmp_path / "runs", tmp_path / "c.csv", protocol=["frames", "subsets"], level=[0.5, "text"])
        again = read_results(tmp_path / "c.csv")
        own = again[again["run_id"] != ""]
        assert set(zip(own["protocol"], own["level"], strict=True)) == {("frames", "0.5"), ("subsets", "text")}
        assert (again["run_id"] == "").any()
