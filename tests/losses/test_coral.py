"""Covariance alignment against numpy in double precision."""

import math

import numpy as np
import pytest
import torch

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.coral import (
    correlation,
    covariance,
    covariance_alignment,
    covariance_distance,
    moving_covariance,
    noise_floor,
    private_alignment,
)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.randn(12, 5, dtype=torch.float64), 2 * torch.randn(12, 5, dtype=torch.float64) + 1


def naive(x, y):
    difference = np.cov(x.numpy(), rowvar=False) - np.cov(y.numpy(), rowvar=False)
    return sum(value**2 for value in difference.ravel()) / (4 * x.shape[1] ** 2)


def test_value_and_invariances(pair):
    x, y = pair
    assert covariance_alignment(x, y).item() == pytest.approx(naive(x, y), rel=1e-12)
    assert covariance_alignment(y, x).item() == pytest.approx(naive(x, y), rel=1e-12)
    assert covariance_alignment(x, x).item() == 0
    value = pytest.approx(naive(x, y), rel=1e-9)
    assert covariance_alignment(x + 7, y) == value  # blind to means and pairing
    assert covariance_alignment(x, y[torch.randperm(len(y))]) == value
    assert covariance_alignment(3 * x, 3 * y) / 3**4 == value


def test_correlation_knows_no_scale_nor_pairs_and_takes_a_constant_column(pair):
    x, y = pair
    expected = pytest.approx(np.corrcoef(x.numpy(), rowvar=False), rel=1e-12)
    assert correlation(covariance(x)).numpy() == expected
    assert correlation(covariance(x * torch.tensor([1e-3, 1, 2, 5, 9]))).numpy() == expected
    assert correlation(covariance(x[torch.randperm(len(x))])).numpy() == expected
    flat = torch.cat([y[:, :4], torch.ones(len(y), 1)], dim=1).requires_grad_()
    matrix = correlation(covariance(flat))
    assert (matrix[4] == 0).all()
    matrix.square().sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("rows", [2, 3])
def test_few_rows_are_divided_by_one_less(rows):
    x = torch.tensor([[1.0, 4.0], [3.0, 0.0], [5.0, 5.0]], dtype=torch.float64)[:rows]
    np.testing.assert_allclose(covariance(x).numpy(), np.cov(x.numpy(), rowvar=False), rtol=1e-12)
    assert (covariance(x[:1]) == 0).all()


def test_gradient_is_the_analytic_one(pair):
    x, y = (t.clone().requires_grad_() for t in pair)
    covariance_alignment(x, y).backward()
    difference = covariance(x.detach()) - covariance(y.detach())
    scale = 1 / (x.shape[1] ** 2 * (len(x) - 1))
    torch.testing.assert_close(x.grad, scale * (x - x.mean(0)) @ difference, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(y.grad, -scale * (y - y.mean(0)) @ difference, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("batch", "width", "sigma"), [(16, 32, 1.0), (64, 8, 1.0), (32, 16, 0.5)])
def test_noise_floor_is_the_monte_carlo_mean(batch, width, sigma):
    generator = torch.Generator().manual_seed(1)
    draws = sigma * torch.randn(300, 2, batch, width, generator=generator)
    values = torch.stack([covariance_alignment(x, y) for x, y in draws])
    standard_error = values.std().item() / math.sqrt(len(values))
    assert abs(values.mean().item() - noise_floor(batch, width, sigma)) < 4 * standard_error
    assert standard_error < 0.02 * noise_floor(batch, width, sigma)


def test_one_sample_gives_zero_with_a_graph():
    x, y = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    loss = covariance_alignment(x, y)
    loss.backward()
    assert loss.item() == 0
    assert (x.grad == 0).all()
    assert (y.grad == 0).all()


def test_float32_under_autocast():
    x, y = torch.randn(64, 8) + 100, torch.randn(64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        loss = covariance_alignment(x, y)
        low = covariance_alignment(x.bfloat16(), y.bfloat16())
    assert loss.dtype == low.dtype == torch.float32
    assert torch.equal(loss, covariance_alignment(x, y))


def test_private_form_is_finite_at_zero_and_bounded_below():
    distance = torch.tensor([0.0, 1e-9, 1e-3, 1.0, 1e6, 1e30], dtype=torch.float64)
    values = private_alignment(distance)
    assert values[0].item() == pytest.approx(-math.log(1e-6))
    assert (values >= 0).all()
    assert (values.diff() < 0).all()
    torch.testing.assert_close(values[1:3], -torch.log(distance[1:3] + 1e-6), rtol=0, atol=1e-3)


def test_moving_covariance_starts_with_the_first_batch_and_forgets():
    torch.manual_seed(0)
    x, y = torch.randn(9, 3), torch.randn(9, 3, requires_grad=True)
    first = moving_covariance(torch.zeros(3, 3), x, 0.9, torch.tensor(False))
    torch.testing.assert_close(first, covariance(x))
    previous = first.clone().requires_grad_()
    second = moving_covariance(previous, y, 0.9, torch.tensor(True))
    torch.testing.assert_close(second, 0.9 * first + 0.1 * covariance(y))
    covariance_distance(second, torch.zeros(3, 3)).backward()
    assert previous.grad is None
    assert y.grad.abs().sum() > 0


def test_bad_input():
    with pytest.raises(ConfigError, match=r"\(4, 3\) and \(4, 2\)"):
        covariance_alignment(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ConfigError, match="two samples"):
        noise_floor(1, 4)
    assert noise_floor(2, 4) == noise_floor(2, 4, 1.0) == 0.625
