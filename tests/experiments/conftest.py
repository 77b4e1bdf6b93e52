"""Runs small enough for tests: a few synthetic samples, two epochs."""

from __future__ import annotations

import pytest

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
