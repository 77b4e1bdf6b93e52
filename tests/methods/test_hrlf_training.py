"""hrlf through the training loop: both phases, exact resumption, what a finished run holds, real data."""

import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from hrlf_data import FRF, SMALL, STUDENT_TERMS

from mmsa_lib.data import load
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.experiments import RunConfig, run
from mmsa_lib.methods import create
from mmsa_lib.training import fit, predict, seed_everything

TINY_DATA = {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6}


@pytest.fixture(scope="module")
def data():
    return load("synthetic", **TINY_DATA)


@pytest.fixture
def mirror():
    folder = os.environ.get("MMSA_LIB_MIRROR")
    if not folder:
        pytest.skip("set MMSA_LIB_MIRROR to a folder of the original files")
    return Path(folder)


def new(data, seed=1, **config):
    seed_everything(seed)
    values = {**SMALL, "dropout": 0.1, "batch_size": 16, "max_epochs": 3, "learning_rate": 3e-3, **config}
    return create("hrlf", data["train"].dims, data["train"].task, **values)


def fitted(data, method, seed=1, **options):
    return fit(method, data["train"], data["valid"], settings={"device": "cpu"}, seed=seed, progress="none", **options)


def values(result, phase, split, name):
    return result.history.query("phase == @phase and split == @split and name == @name")["value"].tolist()


def error(method, split):
    return (predict(method, split) - split.labels).abs().mean().item()


def test_both_phases(data):
    method = new(data)
    result = fitted(data, method)
    history = result.history
    assert list(history["phase"].unique()) == ["teacher", "student"]
    for phase, terms in (("teacher", ["task", *FRF]), ("student", STUDENT_TERMS)):
        logged = set(history.query("phase == @phase and split == 'train'")["name"])
        spreads = {"z_sd", *(f"z_sd/{m}" for m in method.modalities)}
        expected = {f"{kind}/{name}" for kind in ("raw", "loss") for name in terms} | spreads | {"loss/total"}
        assert logged == expected | ({"raw/discriminators"} if phase == "student" else set())
    # The student that is left is its best epoch, on validation samples with the fixed gaps of all methods.
    curve = values(result, "student", "valid", "loss/task")
    assert result.best_value == min(curve)
    assert error(method, stochastic_validation(data["valid"])) == pytest.approx(result.best_value, rel=1e-5)
    # The teacher that is left is its best epoch, on complete validation samples.
    method.phase = "teacher"
    best = min(values(result, "teacher", "valid", "loss/task"))
    assert error(method, data["valid"]) == pytest.approx(best, rel=1e-5)


def test_training_lowers_the_losses():
    data = load("synthetic", samples=(300, 100, 10), dims=(30, 20, 10), length=8)
    method = new(data, max_epochs=12, batch_size=32, width=16, qu_dim=8, feedforward=32, lambda_frf=0.05)
    result = fitted(data, method)
    constant = constant_metrics(data["train"].task, data["train"].labels, data["valid"].labels)["mae"].min()
    assert min(values(result, "teacher", "valid", "loss/task")) < 0.9 * constant
    for phase, names in (("teacher", ["task", *FRF]), ("student", FRF)):
        for name in names:
            curve = values(result, phase, "train", f"raw/{name}")
            assert curve[-1] < curve[0], (phase, name)


@pytest.mark.parametrize(("phase", "epoch"), [(0, 2), (1, 1), (1, 2)])
def test_resumption_is_exact(data, tmp_path, phase, epoch):
    straight = new(data)
    whole = fitted(data, straight)

    def interrupt(state):
        if (state.phase, state.epoch) == (phase, epoch):
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fitted(data, new(data), checkpoint=path, on_epoch=interrupt)
    torch.rand(5)
    resumed = new(data, seed=7)
    again = fitted(data, resumed, checkpoint=path)
    assert again.resumed_after == epoch
    pd.testing.assert_frame_equal(again.history, whole.history, check_exact=True)
    assert torch.equal(resumed.guard.first, straight.guard.first)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_student_of_gaps_alone_learns():
    """Without the terms that compare it with the teacher, so that what is learned is learned from the labels."""
    data = load("synthetic", samples=(300, 100, 10), dims=(30, 20, 10), length=8)
    method = new(data, max_epochs=20, batch_size=32, no_teacher=True, no_frf=True)
    curve = values(fitted(data, method), "student", "train", "raw/task")
    assert curve[-1] < 0.85 * curve[0]


def test_without_a_teacher_there_is_one_phase(data):
    result = fitted(data, new(data, no_teacher=True))
    assert list(result.history["phase"].unique()) == ["student"]
    assert result.history["value"].notna().all()


def test_a_run_can_be_loaded_and_predicts_with_the_student(tmp_path):
    config = RunConfig(
        method="hrlf", config={**SMALL, "max_epochs": 2, "batch_size": 16}, data=TINY_DATA, settings={"device": "cpu"}
    )
    result = run(config, tmp_path, progress="none")
    data = result.load_data()
    method = result.load_method(data["test"])
    stored = torch.as_tensor(result.predictions().predictions)
    torch.testing.assert_close(predict(method, data["test"]), stored.float())
    with torch.no_grad():
        torch.testing.assert_close(method.student(data["test"].data).raw.squeeze(-1), stored.float())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu(data):
    """HMI draws its shuffle on the device, so it is left out."""
    found = []
    for device in ("cpu", "cuda"):
        method = new(data, dropout=0.0, no_hmi=True)
        settings = {"device": device}
        result = fit(method, data["train"], data["valid"], settings=settings, seed=1, progress="none")
        found.append(result.best_value)
    assert found[0] == pytest.approx(found[1], rel=1e-2)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "fold"), [("mosi", "A"), ("mmmo", "standard")])
def test_real_sets(mirror, tmp_path, monkeypatch, tiny_text_model, name, fold):
    from mmsa_lib.data.sources import build
    from mmsa_lib.data.store import write_store

    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    path = tmp_path / f"{name}.h5"
    write_store(build(name, mirror, progress=False), path)
    text = {"text": "words", "text_model": tiny_text_model, "max_length": 40} if name == "mosi" else {}
    data = load(str(path), fold, **text)
    result = fitted(data, new(data, max_epochs=2, batch_size=64))
    assert result.history["value"].notna().all()
    curve = values(result, "student", "train", "raw/translation")
    assert curve[-1] < curve[0]
