"""Methods through the training loop: they learn, go on exactly after an interruption, and take the real sets."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from hrlf_data import FRF, STUDENT_TERMS
from hrlf_data import SMALL as SMALL_HRLF

from mmsa_lib.data import load
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.data.sources import build
from mmsa_lib.data.store import write_store
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.experiments import RunConfig, run
from mmsa_lib.methods import create
from mmsa_lib.training import fit, predict, seed_everything

SMALL = {"width": 16, "heads": 2, "feedforward": 32, "learning_rate": 3e-3}
CONFIGS = {
    "contrastive_mmcl": {**SMALL, "layers_specific": 1},
    "collaborative_mmcl": {**SMALL, "batch_size": 32, "replay_capacity": 200},
    "hrlf": {**SMALL_HRLF, "dropout": 0.1, "batch_size": 16, "max_epochs": 3, "learning_rate": 3e-3},
}
TINY_DATA = {"samples": (96, 40, 32), "dims": (12, 8, 8), "length": 6}
VARIANTS = pytest.mark.parametrize("variant", ["corrected", "reference"])
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def data():
    return load("synthetic", **TINY_DATA)


@pytest.fixture(scope="module")
def larger():
    return load("synthetic", samples=(300, 100, 10), dims=(30, 20, 10), length=8)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Builds a real set and gives its file."""
    mirror = os.environ.get("MMSA_LIB_MIRROR") or pytest.skip("set MMSA_LIB_MIRROR to a folder of the original files")
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))

    def made(name):
        path = tmp_path / f"{name}.h5"
        write_store(build(name, Path(mirror), progress=False), path)
        return str(path)

    return made


def new(method_id, data, seed=1, **config):
    seed_everything(seed)
    return create(method_id, data["train"].dims, data["train"].task, **{**CONFIGS[method_id], **config})


def fitted(data, method, device="cpu", precision="float32", **options):
    settings = {"device": device, "precision": precision}
    return fit(method, data["train"], data["valid"], settings=settings, seed=1, progress="none", **options)


def values(result, name, split="train", phase="train"):
    return result.history.query("phase == @phase and split == @split and name == @name")["value"].tolist()


def error(method, split):
    return (predict(method, split) - split.labels).abs().mean().item()


@pytest.mark.parametrize(
    ("method_id", "config", "falling", "rising"),
    [
        ("contrastive_mmcl", {"max_epochs": 7}, {"train": ["loss/task", "raw/cmc", "raw/smc"]}, ()),
        ("collaborative_mmcl", {"max_epochs": 7}, {}, ["policy/reward"]),
        ("collaborative_mmcl", {"max_epochs": 7, "decoupling": "reference"}, {}, ["policy/reward"]),
        (
            "hrlf",
            {"max_epochs": 12, "batch_size": 32, "width": 16, "qu_dim": 8, "feedforward": 32, "lambda_frf": 0.05},
            {"teacher": ["raw/task", "raw/translation"], "student": ["raw/task"]},
            (),
        ),
    ],
)
def test_it_learns_more_than_a_constant(larger, method_id, config, falling, rising):
    data = larger if method_id == "hrlf" else load("synthetic", samples=(300, 100, 10))
    method = new(method_id, data, **config)
    result = fitted(data, method)
    constants = constant_metrics(data["train"].task, data["train"].labels, data["valid"].labels)
    assert min(values(result, "loss/task", "valid", method.phases[0])) < 0.9 * constants["mae"].min()
    for phase, names in falling.items():
        for name in names:
            curve = values(result, name, phase=phase)
            assert curve[-1] < curve[0], (phase, name)
    for name in rising:
        assert values(result, name)[-1] > values(result, name)[0]


@pytest.mark.parametrize(
    ("method_id", "config", "stop"),
    [
        *(("hrlf", {}, stop) for stop in ((0, 2), (1, 1), (1, 2))),
        *(("hrlf", {"student_init": "random"}, stop) for stop in ((0, 3), (1, 1))),
        ("hrlf", {"no_teacher": True, "no_teacher_phases": 2}, (1, 1)),
        *(
            ("collaborative_mmcl", {**config, "max_epochs": 6, "batch_size": 24, "plateau_patience_rl": 0}, (0, epoch))
            for config in ({}, {"decoupling": "reference"}, {"gamma": 0.5})
            for epoch in (1, 4)
        ),
    ],
)
def test_an_interrupted_training_goes_on_exactly(data, tmp_path, method_id, config, stop):
    """Gaps, replay buffer, the batch before, targets and schedulers are all part of what goes on."""
    straight = new(method_id, data, **config)
    whole = fitted(data, straight)

    def interrupt(state):
        if (state.phase, state.epoch) == stop:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fitted(data, new(method_id, data, **config), checkpoint=path, on_epoch=interrupt)
    resumed = new(method_id, data, seed=7, **config)
    again = fitted(data, resumed, checkpoint=path)
    assert again.resumed_after == stop[1]
    pd.testing.assert_frame_equal(again.history, whole.history, check_exact=True)
    for found, expected in (
        (resumed.state_dict(), straight.state_dict()),
        (resumed.training_state(), straight.training_state()),
    ):
        assert found.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


# --- collaborative_mmcl ---


@VARIANTS
def test_synthetic_emotions(variant):
    data = load("synthetic", samples=(300, 100, 10), task="emotions")
    result = fitted(data, new("collaborative_mmcl", data, max_epochs=7, decoupling=variant))
    assert result.best_value < 0.95 * values(result, "loss/task", "valid")[0]
    rewards = values(result, "policy/reward")
    assert 0 < min(rewards) < max(rewards) < (1 if variant == "corrected" else 4)


def test_the_buffer_is_no_part_of_the_model_and_holds_float32(data):
    method = new("collaborative_mmcl", data, max_epochs=2)
    fitted(data, method, precision="bfloat16")
    assert len(method.replay) > 0
    assert not any("replay" in name or "buffer" in name for name in method.state_dict())
    assert method.training_state()["replay/state/text"].dtype == torch.float32


@pytest.mark.gpu
@CUDA
def test_the_buffer_is_on_the_device(data):
    method = new("collaborative_mmcl", data, max_epochs=3)
    assert fitted(data, method, "cuda").history["value"].notna().all()
    assert method.replay.rows["reward"].is_cuda


# --- hrlf ---


def test_both_phases(data):
    method = new("hrlf", data)
    result = fitted(data, method)
    history = result.history
    assert list(history["phase"].unique()) == ["teacher", "student"]
    for phase, terms in (("teacher", ["task", *FRF]), ("student", STUDENT_TERMS)):
        names = history.query("phase == @phase and split == 'train'")["name"]
        logged = set(names[~names.str.match("steps|share/|gradient/")])
        spreads = {"z_sd", *(f"z_sd/{m}" for m in method.modalities)}
        expected = {f"{kind}/{name}" for kind in ("raw", "loss") for name in terms} | spreads | {"loss/total"}
        assert logged == expected | ({"raw/discriminators"} if phase == "student" else set())
    # The student that is left is its best epoch, on validation samples with the fixed gaps of all methods.
    assert result.best_value == min(values(result, "loss/task", "valid", "student"))
    assert error(method, stochastic_validation(data["valid"])) == pytest.approx(result.best_value, rel=1e-5)
    # The teacher that is left is its best epoch, on complete validation samples.
    method.phase = "teacher"
    best = min(values(result, "loss/task", "valid", "teacher"))
    assert error(method, data["valid"]) == pytest.approx(best, rel=1e-5)


def test_a_student_of_gaps_alone_learns_in_one_phase(larger):
    """Without the terms that compare it with the teacher, so that what is learned is learned from the labels."""
    result = fitted(larger, new("hrlf", larger, max_epochs=20, batch_size=32, no_teacher=True, no_frf=True))
    assert list(result.history["phase"].unique()) == ["student"]
    assert result.history["value"].notna().all()
    curve = values(result, "raw/task", phase="student")
    assert curve[-1] < 0.85 * curve[0]


def test_a_run_can_be_loaded_and_predicts_with_the_student(tmp_path):
    values = {**SMALL_HRLF, "max_epochs": 2, "batch_size": 16}
    config = RunConfig(method="hrlf", config=values, data=TINY_DATA, settings={"device": "cpu"})
    result = run(config, tmp_path, progress="none")
    data = result.load_data()
    method = result.load_method(data["test"])
    expected = torch.as_tensor(result.predictions().predictions).float()
    torch.testing.assert_close(predict(method, data["test"]), expected)
    with torch.no_grad():
        torch.testing.assert_close(method.student(data["test"].data).raw.squeeze(-1), expected)


@pytest.mark.gpu
@CUDA
def test_cuda_agrees_with_the_cpu(data):
    """HMI draws its shuffle on the device, so it is left out."""
    on_cpu, on_cuda = (
        fitted(data, new("hrlf", data, dropout=0.0, no_hmi=True), device).best_value for device in ("cpu", "cuda")
    )
    assert on_cpu == pytest.approx(on_cuda, rel=1e-2)


# --- real sets ---


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("method_id", "config", "falling"),
    [
        ("contrastive_mmcl", {"max_epochs": 4, "learning_rate": 1e-3}, [("train", "loss/task"), ("train", "raw/smc")]),
        ("collaborative_mmcl", {"max_epochs": 4}, [("train", "loss/task")]),
        ("hrlf", {"max_epochs": 2, "batch_size": 64}, [("student", "raw/translation")]),
    ],
)
@pytest.mark.parametrize(("name", "fold"), [("mosi", "A"), ("mmmo", "standard")])
def test_real_sets(stored, tiny_text_model, long_text_model, method_id, config, falling, name, fold):
    text = {"text": "words", "text_model": tiny_text_model, "max_length": 40} if name == "mosi" else {}
    if method_id == "collaborative_mmcl" and name == "mosi":
        # The default features of CMU-MOSI are one vector per utterance: refused; words with times are aligned.
        path, text = stored(name), {"text_model": long_text_model}
        data = load(path, text="words", max_length=40, **text)
        with pytest.raises(ConfigError, match=r"not word-aligned|one position per sample"):
            fitted(data, new(method_id, data))
        text |= {"text": "timed_words", "audio": "timing", "vision": None}
        with pytest.raises(DataError, match="raise max_length"):
            load(path, max_length=20, **text)
        data = load(path, max_length=700, **text)
        for split in data.values():
            assert torch.equal(split.data.valid["text"], split.data.valid["audio"])
        config, falling = {"max_epochs": 2}, []
    else:
        data = load(stored(name), fold, **text)
    result = fitted(data, new(method_id, data, **config))
    assert result.history["value"].notna().all()
    for phase, term in falling:
        curve = values(result, term, phase=phase)
        assert curve[-1] < curve[0]
