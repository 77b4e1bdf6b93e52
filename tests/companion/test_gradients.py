"""Gradient norms per term and part, on a network small enough to differentiate by hand."""

import math

import pytest
import torch
from torch import nn

from companion.contrastive import gradient_norms
from mmsa_lib.data.batch import Batch
from mmsa_lib.data.task import regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import Method, MethodConfig, Output


class TwoStages(Method):
    """``above`` sees ``below`` with a stopped gradient; ``unused`` is reached by nothing."""

    id = "two_stages"

    def __init__(self, frozen=False):
        super().__init__({"text": 2}, regression(), MethodConfig())
        self.parts = nn.ModuleDict({"below": nn.Linear(2, 1, bias=False), "above": nn.Linear(1, 1, bias=False)})
        self.unused = nn.Linear(3, 1)
        self.quiet = nn.ReLU()
        if frozen:
            self.parts["below"].requires_grad_(False)

    def forward(self, batch):
        low = self.parts["below"](batch.features["text"][:, 0])
        high = self.parts["above"](low.detach())
        return Output(high.squeeze(-1), auxiliary={"low": low})

    def loss_terms(self, batch, output):
        assert self.training
        return {"task": output.prediction.sum(), "low": output.auxiliary["low"].sum(), "constant": torch.tensor(1.0)}

    def loss_weights(self):
        return {"low": 0.5}


@pytest.fixture
def batch():
    features = torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]])
    here = torch.ones(2, 1, dtype=torch.bool)
    return Batch({"text": features}, {"text": here}, {"text": here}, torch.zeros(2), torch.arange(2), ("a", "b"))


def table(method, batch, **options):
    return gradient_norms(method, batch, **options).set_index(["term", "part"])["norm"]


def test_norms_by_hand(batch):
    method = TwoStages()
    norms = table(method, batch, parts=["parts.below", "parts.above", "parts"])
    low = method.parts["below"](batch.features["text"][:, 0]).sum().item()
    assert norms["task", "parts.above"] == pytest.approx(abs(low))
    assert math.isnan(norms["task", "parts.below"])
    # d(0.5 sum_i w . x_i) / dw = 0.5 * (1 + 3, 2 + 4)
    assert norms["low", "parts.below"] == pytest.approx(0.5 * math.hypot(4, 6))
    assert math.isnan(norms["low", "parts.above"])
    assert norms["low", "parts"] == norms["low", "parts.below"]
    assert norms["constant"].isna().all()


def test_default_parts_are_the_children_with_parameters(batch):
    norms = table(TwoStages(), batch)
    assert list(norms.loc["task"].index) == ["parts", "unused"]
    assert math.isnan(norms["task", "unused"])


def test_a_frozen_part_is_not_reached(batch):
    assert math.isnan(table(TwoStages(frozen=True), batch, parts=["parts.below"])["low", "parts.below"])


def test_nothing_is_changed(batch):
    method = TwoStages().eval()
    method.unused.weight.grad = torch.ones(1, 3)
    gradient_norms(method, batch)
    assert not method.training
    assert method.parts["below"].weight.grad is None
    assert torch.equal(method.unused.weight.grad, torch.ones(1, 3))


@pytest.mark.parametrize("part", ["part", "parts.belo", "quiet"])
def test_a_part_without_parameters_is_refused(batch, part):
    with pytest.raises(ConfigError, match=f"no parameter below '{part}'; its parts are parts, unused"):
        gradient_norms(TwoStages(), batch, parts=[part])
