"""Pooling, the ridge baseline and the leak check."""

import numpy as np
import pytest
import torch

from companion.data_sets import leak_check, pooled_features, ridge_metrics
from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError


def split(count: int, seed: int, weight: float = 1.0, task=None) -> Utterances:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randn(count, generator=generator).clamp(-3, 3)
    text = torch.randn(count, 4, 3, generator=generator) * 0.3 + weight * labels[:, None, None]
    valid = torch.ones(count, 4, dtype=torch.bool)
    valid[:, 3] = False
    text[:, 3] = 0
    batch = Batch(
        features={"text": text},
        valid={"text": valid},
        observed={"text": valid.clone()},
        labels=labels,
        index=torch.arange(count),
        ids=tuple(map(str, range(count))),
    )
    return Utterances(batch, task or regression())


def test_pooling_counts_observed_frames_only():
    data = split(3, 0)
    data.data.observed["text"][0, 1] = False
    data.data.observed["text"][2] = False
    pooled = pooled_features(data)
    kept = data.data.features["text"][0, [0, 2]].double().mean(0)
    np.testing.assert_allclose(pooled[0], kept, rtol=1e-6)
    np.testing.assert_allclose(pooled[2], 0)


def test_ridge_finds_a_linear_signal_and_none_where_there_is_none():
    strong = ridge_metrics({"train": split(200, 0), "test": split(100, 1)})
    nothing = ridge_metrics({"train": split(200, 0, weight=0), "test": split(100, 1, weight=0)})
    assert strong["corr"] > 0.9
    assert strong["mae"] < 0.5 * nothing["mae"]


def test_ridge_refuses_an_emotion_task():
    with pytest.raises(ConfigError, match="emotion"):
        ridge_metrics({"train": split(5, 0, task=emotions(["happy"])), "test": split(5, 1)})


def test_leak_check_reports_each_split_beside_its_majority():
    table = leak_check({"train": split(200, 0), "test": split(50, 1)}).set_index("split")
    labels = split(50, 1).labels
    positive = float((labels >= 0).float().mean())
    assert table.loc["test", "majority"] == pytest.approx(max(positive, 1 - positive))
    assert table.loc["train", "accuracy"] > 0.9
