"""collaborative_mmcl through the training loop: it learns, and goes on exactly after an interruption."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch

from mmsa_lib.data import load
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.methods import create
from mmsa_lib.training import fit, predict, seed_everything

SMALL = {"width": 16, "heads": 2, "feedforward": 32, "batch_size": 32, "replay_capacity": 200, "learning_rate": 3e-3}
TINY_DATA = {"samples": (96, 40, 10), "dims": (12, 8, 8), "length": 6}


@pytest.fixture
def mirror():
    folder = os.environ.get("MMSA_LIB_MIRROR")
    if not folder:
        pytest.skip("set MMSA_LIB_MIRROR to a folder of the original files")
    return Path(folder)


def new(data, **config):
    seed_everything(1)
    return create("collaborative_mmcl", data["train"].dims, data["train"].task, **{**SMALL, **config})


def fitted(data, epochs, **config):
    """The training history and the best validation error."""
    settings = {"max_epochs": epochs, "device": "cpu"}
    return fit(new(data, **config), data["train"], data["valid"], settings=settings, seed=1, progress="none")


def best_constant(data):
    """Validation error of the best constant that the training labels give."""
    return constant_metrics(data["train"].task, data["train"].labels, data["valid"].labels)["mae"].min()


def logged(history, split, name):
    return history.query("split == @split and name == @name")["value"].tolist()


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_synthetic_sentiment(variant):
    data = load("synthetic", samples=(300, 100, 10))
    result = fitted(data, epochs=7, decoupling=variant)
    assert result.best_value < 0.9 * best_constant(data)
    curve = logged(result.history, "train", "policy/reward")
    assert curve[-1] > curve[0]


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_synthetic_emotions(variant):
    data = load("synthetic", samples=(300, 100, 10), task="emotions")
    result = fitted(data, epochs=7, decoupling=variant)
    values = logged(result.history, "valid", "loss/task")
    assert result.best_value < 0.95 * values[0]
    rewards = logged(result.history, "train", "policy/reward")
    assert 0 < min(rewards) < max(rewards) < (1 if variant == "corrected" else 4)


@pytest.mark.parametrize("config", [{}, {"decoupling": "reference"}, {"gamma": 0.5}])
@pytest.mark.parametrize("stop_after", [1, 4])
def test_an_interrupted_training_goes_on_exactly(tmp_path, config, stop_after):
    """Replay buffer, the batch before, targets and schedulers are all part of what goes on."""
    data = load("synthetic", **TINY_DATA)
    config = {**config, "batch_size": 24, "plateau_patience_rl": 0, "plateau_factor": 0.5}

    def train(method, **options):
        return fit(
            method, data["train"], data["valid"], settings={"max_epochs": 6, "device": "cpu"}, seed=1,
            progress="none", **options,
        )  # fmt: skip

    def interrupt(state):
        if state.epoch == stop_after:
            raise KeyboardInterrupt

    straight, resumed = new(data, **config), new(data, **config)
    expected = train(straight)
    with pytest.raises(KeyboardInterrupt):
        train(new(data, **config), checkpoint=tmp_path / "checkpoint", on_epoch=interrupt)
    result = train(resumed, checkpoint=tmp_path / "checkpoint")
    assert result.resumed_after == stop_after
    pd.testing.assert_frame_equal(result.history, expected.history)
    assert torch.equal(predict(resumed, data["valid"]), predict(straight, data["valid"]))
    assert all(torch.equal(a, straight.training_state()[name]) for name, a in resumed.training_state().items())


def test_the_buffer_is_no_part_of_the_model(tmp_path):
    data = load("synthetic", **TINY_DATA)
    method = new(data)
    fit(method, data["train"], data["valid"], settings={"max_epochs": 2, "device": "cpu"}, seed=1, progress="none")
    assert len(method.replay) > 0
    assert not any("replay" in name or "buffer" in name for name in method.state_dict())


def test_bfloat16_stores_float32():
    data = load("synthetic", **TINY_DATA)
    method = new(data)
    settings = {"max_epochs": 2, "device": "cpu", "precision": "bfloat16"}
    fit(method, data["train"], data["valid"], settings=settings, seed=1, progress="none")
    assert method.training_state()["replay/state/text"].dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda():
    data = load("synthetic", **TINY_DATA)
    method = new(data)
    result = fit(method, data["train"], data["valid"], settings={"max_epochs": 3, "device": "cuda"}, seed=1)
    assert result.history["value"].notna().all()
    assert method.replay.rows["reward"].is_cuda


def stored(name, mirror, tmp_path, monkeypatch):
    from mmsa_lib.data.sources import build
    from mmsa_lib.data.store import write_store

    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    path = tmp_path / f"{name}.h5"
    write_store(build(name, mirror, progress=False), path)
    return str(path)


@pytest.mark.real_data
def test_ict_mmmo(mirror, tmp_path, monkeypatch):
    data = load(stored("mmmo", mirror, tmp_path, monkeypatch))
    result = fitted(data, epochs=4)
    assert result.history["value"].notna().all()
    assert logged(result.history, "train", "loss/task")[-1] < logged(result.history, "train", "loss/task")[0]


@pytest.mark.real_data
def test_mosi_with_word_timing(mirror, tmp_path, monkeypatch, long_text_model):
    """The default features of CMU-MOSI are one vector per utterance: refused; words with times are aligned."""
    path = stored("mosi", mirror, tmp_path, monkeypatch)
    text = {"text_model": long_text_model}
    with pytest.raises(ConfigError, match=r"not word-aligned|one position per sample"):
        fitted(load(path, text="words", max_length=40, **text), epochs=1)
    with pytest.raises(DataError, match="raise max_length"):
        load(path, text="timed_words", audio="timing", vision=None, max_length=20, **text)
    data = load(path, text="timed_words", audio="timing", vision=None, max_length=700, **text)
    for split in data.values():
        assert torch.equal(split.data.valid["text"], split.data.valid["audio"])
    result = fitted(data, epochs=2)
    assert result.history["value"].notna().all()
