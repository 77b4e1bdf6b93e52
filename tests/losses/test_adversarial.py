"""Equation 9 and its relatives against logarithms in double precision."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.adversarial import discriminator_loss, hierarchical_adversarial, nonsaturating_adversarial


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return [[2 * torch.randn(7, dtype=torch.float64) for _ in range(3)] for _ in range(2)]


def test_equation_9(logits):
    student, teacher = logits
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        expected += sum(math.log(1 - sigmoid(x)) for x in s.tolist()) / 7
        expected += sum(math.log(sigmoid(x)) for x in t.tolist()) / 7
    assert hierarchical_adversarial(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_nonsaturating_form(logits):
    expected = -sum(math.log(sigmoid(x)) for s in logits[0] for x in s.tolist()) / 7
    assert nonsaturating_adversarial(logits[0]).item() == pytest.approx(expected, rel=1e-12)


def test_the_discriminator_minimises_binary_cross_entropy(logits):
    student, teacher = logits
    expected = sum(F.binary_cross_entropy(s.sigmoid(), torch.zeros_like(s)) for s in student)
    expected += sum(F.binary_cross_entropy(t.sigmoid(), torch.ones_like(t)) for t in teacher)
    assert discriminator_loss(student, teacher).item() == pytest.approx(expected.item(), rel=1e-10)
    assert discriminator_loss(student, teacher).item() == -hierarchical_adversarial(student, teacher).item()


def test_signs_of_the_gradients():
    """Both student forms drive D(E^s) up; the saturating one vanishes where D is sure, the other does not."""
    sure = [torch.full((2,), -20.0, requires_grad=True)]
    teacher = [torch.zeros(2, requires_grad=True)]
    hierarchical_adversarial(sure, teacher).backward()
    saturated = sure[0].grad.clone()
    sure[0].grad = None
    nonsaturating_adversarial(sure).backward()
    assert (saturated <= 0).all()
    assert (sure[0].grad < 0).all()
    assert (saturated.abs() < 1e-6).all()
    assert (sure[0].grad.abs() > 0.1).all()
    assert (teacher[0].grad > 0).all()  # and the discriminator, which maximises, drives D(E^t) up


def test_finite_for_huge_logits_and_in_float32():
    huge = [torch.tensor([1e4, -1e4]).bfloat16()]
    for loss in (hierarchical_adversarial(huge, huge), nonsaturating_adversarial(huge), discriminator_loss(huge, huge)):
        assert loss.isfinite()
        assert loss.dtype == torch.float32


def test_what_does_not_fit(logits):
    with pytest.raises(ConfigError, match="3 scales and the teacher of 2"):
        hierarchical_adversarial(logits[0], logits[1][:2])
    with pytest.raises(ConfigError, match="one or more"):
        discriminator_loss([], [])
