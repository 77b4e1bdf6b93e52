"""contrastive_mmcl through the training loop, on the synthetic and on the real sets."""

import os
from pathlib import Path

import pytest

from mmsa_lib.data import load
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.methods import create
from mmsa_lib.training import fit, seed_everything

SMALL = {"width": 16, "heads": 2, "feedforward": 32, "layers_specific": 1}


@pytest.fixture
def mirror():
    folder = os.environ.get("MMSA_LIB_MIRROR")
    if not folder:
        pytest.skip("set MMSA_LIB_MIRROR to a folder of the original files")
    return Path(folder)


def fitted(data, epochs, **config):
    """The training history and the best validation error."""
    seed_everything(1)
    method = create("contrastive_mmcl", data["train"].dims, data["train"].task, **{**SMALL, **config})
    settings = {"max_epochs": epochs, "device": "cpu"}
    return fit(method, data["train"], data["valid"], settings=settings, seed=1, progress="none")


def best_constant(data):
    """Validation error of the best constant that the training labels give."""
    return constant_metrics(data["train"].task, data["train"].labels, data["valid"].labels)["mae"].min()


def falls(history, name):
    values = history.query("split == 'train' and name == @name")["value"].tolist()
    return values[-1] < values[0]


def test_synthetic():
    data = load("synthetic", samples=(300, 100, 10))
    result = fitted(data, epochs=7, learning_rate=3e-3)
    assert result.best_value < 0.9 * best_constant(data)
    assert all(falls(result.history, name) for name in ("loss/task", "raw/cmc", "raw/smc"))


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "fold"), [("mosi", "A"), ("mmmo", "standard")])
def test_real_sets(mirror, tmp_path, monkeypatch, tiny_text_model, name, fold):
    from mmsa_lib.data.sources import build
    from mmsa_lib.data.store import write_store

    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    path = tmp_path / f"{name}.h5"
    write_store(build(name, mirror, progress=False), path)
    text = {"text": "words", "text_model": tiny_text_model, "max_length": 40} if name == "mosi" else {}
    result = fitted(load(str(path), fold, **text), epochs=4)
    assert result.history["value"].notna().all()
    assert all(falls(result.history, term) for term in ("loss/task", "raw/smc"))
