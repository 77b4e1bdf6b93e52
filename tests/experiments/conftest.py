"""Runs small enough for tests: a few synthetic samples, two epochs."""

from __future__ import annotations

import pytest
from sweep_machinery import Lab
from written_runs import SEEDS, write_run

from mmsa_lib.experiments.config import RunConfig

SMALL_DATA = {"samples": (48, 24, 32), "dims": (12, 8, 8), "length": 6}


@pytest.fixture
def small_config():
    """Make a configuration of a small run of ``text_only``; keyword arguments change it."""

    def build(**changes) -> RunConfig:
        values = {"method": "text_only", "config": {"max_epochs": 2, "batch_size": 16}, "data": SMALL_DATA}
        values |= {"settings": {"device": "cpu"}}
        return RunConfig(**{**values, **changes})

    return build


@pytest.fixture
def folder(tmp_path):
    """Finished runs of two methods under three seeds."""
    for seed in SEEDS:
        write_run(tmp_path / "runs", "self_mm", seed, 1.0)
        write_run(tmp_path / "runs", "text_only", seed, 1.3)
    return tmp_path / "runs"


@pytest.fixture
def lab(request, tmp_path):
    """A folder with a notebook and a sweep of it, of the name that a module gives as ``LAB``."""
    folder = tmp_path / getattr(request.module, "LAB", "")
    folder.mkdir(exist_ok=True)
    lab = Lab(folder)
    yield lab
    lab.close()
