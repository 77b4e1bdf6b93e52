from __future__ import annotations

import os
import platform
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmsa_lib.errors import ConfigError
from mmsa_lib.training import TrainSettings, seed_everything
from mmsa_lib.training import settings as settings_module
from mmsa_lib.training.seeding import random_states, restore_random_states


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batchsize": 3}, "did you mean .*batch_size"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"precision": "float16"}, "gradient scaler.*bfloat16"),
        ({"device": "tpu:0:1"}, "device='tpu:0:1'"),
        ({"device": "meta"}, "choose auto, cpu, cuda"),
        ({"min_delta": float("nan")}, "min_delta"),
        ({"max_epochs": "many"}, "max_epochs='many'"),
    ],
)
def test_bad_values_are_one_clear_line(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        TrainSettings(**values)
    assert "\n" not in str(caught.value)


def test_resolve_takes_the_methods_values_where_none_are_given(new_method):
    resolved = TrainSettings(patience=2).resolve(new_method(batch_size=5, max_epochs=7, patience=9))
    assert (resolved.batch_size, resolved.max_epochs, resolved.patience) == (5, 7, 2)
    assert resolved.bucket is False
    in_steps = TrainSettings(max_steps=9, patience_steps=5, patience=2).resolve(new_method(max_epochs=7))
    assert (in_steps.max_epochs, in_steps.max_steps, in_steps.patience, in_steps.patience_steps) == (None, 9, 2, 5)
    assert resolved.device in ("cpu", "cuda")


def test_identity_leaves_out_what_changes_no_number():
    assert TrainSettings(checkpoint_every=1).identity() == TrainSettings(checkpoint_every=5).identity()
    for name in ("batch_size", "max_steps", "patience_steps", "validate_every"):
        assert TrainSettings(**{name: 1}).identity() != TrainSettings(**{name: 5}).identity()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(new_method):
    with pytest.raises(ConfigError, match="0 CUDA devices; use device=cpu"):
        TrainSettings(device="cuda").resolve(new_method())


def test_bfloat16_is_refused_where_an_lstm_cannot_be_trained_in_it(new_method, monkeypatch):
    """Some CPUs lack it: known before training, and no obstacle to a method without LSTM, or to CUDA."""
    plain, recurrent = new_method(), new_method()
    recurrent.memory = torch.nn.LSTM(2, 2)
    monkeypatch.setattr(settings_module, "bfloat16_lstm", lambda: False)
    settings = TrainSettings(precision="bfloat16", device="cpu")
    assert settings.resolve(plain).precision == "bfloat16"
    with pytest.raises(ConfigError, match=f"{recurrent.id} has an LSTM.*use precision=float32") as caught:
        settings.resolve(recurrent)
    assert "\n" not in str(caught.value)
    assert TrainSettings(device="cpu").resolve(recurrent).precision == "float32"
    monkeypatch.setattr(settings_module, "resolve_device", lambda name: torch.device("cuda"))
    assert settings.resolve(recurrent).precision == "bfloat16"


def test_the_answer_on_bfloat16_is_asked_of_the_machine():
    """As one sees it on a CPU without AVX-512, whichever CPU this is; the random numbers stay where they were."""
    code = "import torch; from mmsa_lib.training.settings import bfloat16_lstm as ask; torch.manual_seed(0); "
    code += "first = torch.get_rng_state(); print(ask(), bool((first == torch.get_rng_state()).all()))"
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=limited, capture_output=True, text=True, check=True)
    answer, kept = done.stdout.split()
    assert kept == "True"
    if platform.machine() in ("x86_64", "AMD64"):
        assert answer == "False"


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002


def test_seed_everything_seeds_all_three_and_reports_flags():
    flags = seed_everything(5)
    first = draw()
    assert all(a != b for a, b in zip(first, draw(), strict=True))
    seed_everything(5)
    assert draw() == first
    assert flags["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed):
    with pytest.raises(ConfigError, match="seed="):
        seed_everything(seed)


def test_random_states_come_back():
    shuffling = torch.Generator().manual_seed(1)
    np.random.randn(1)  # noqa: NPY002  (leaves a cached second Gaussian)
    random.gauss(0, 1)
    states = random_states({"shuffling": shuffling})
    drawn = (*draw(), random.gauss(0, 1), np.random.randn(), torch.randperm(9, generator=shuffling).tolist())  # noqa: NPY002
    restore_random_states(states, {"shuffling": shuffling})
    again = (*draw(), random.gauss(0, 1), np.random.randn(), torch.randperm(9, generator=shuffling).tolist())  # noqa: NPY002
    assert drawn == again
