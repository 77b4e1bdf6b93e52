"""Losses of shared and private vectors against loops in double precision."""

import math

import pytest
import torch

from mmsa_lib.losses.subspaces import central_moment_discrepancy, difference, reverse_gradient


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return torch.rand(9, 4, dtype=torch.float64), torch.rand(9, 4, dtype=torch.float64).square()


def slow_discrepancy(x, y, moments):
    total, columns = 0.0, range(x.shape[1])
    for k in range(1, moments + 1):
        squares = 0.0
        for j in columns:
            found = []
            for z in (x, y):
                values = [float(v) for v in z[:, j]]
                mean = sum(values) / len(values)
                found.append(mean if k == 1 else sum((v - mean) ** k for v in values) / len(values))
            squares += (found[0] - found[1]) ** 2
        total += math.sqrt(squares)
    return total


def slow_difference(x, y):
    a, b = ([[float(v - c) for v, c in zip(row, z.mean(0), strict=True)] for row in z] for z in (x, y))
    for rows in (a, b):
        for n, row in enumerate(rows):
            length = math.sqrt(sum(v * v for v in row)) + 1e-6
            rows[n] = [v / length for v in row]
    width = range(x.shape[1])
    entries = [sum(p[i] * q[j] for p, q in zip(a, b, strict=True)) ** 2 for i in width for j in width]
    return sum(entries) / len(entries)


@pytest.mark.parametrize("moments", [1, 2, 5])
def test_discrepancy_is_the_slow_computation(pair, moments):
    x, y = pair
    assert central_moment_discrepancy(x, y, moments).item() == pytest.approx(slow_discrepancy(x, y, moments), rel=1e-12)
    more = torch.cat([y, y[:4] / 2])  # distributions may have samples of their own
    assert central_moment_discrepancy(x, more, moments).item() == pytest.approx(slow_discrepancy(x, more, moments))


def test_discrepancy_compares_distributions(pair):
    x, y = pair
    value = central_moment_discrepancy(x, y).item()
    assert value > 0
    assert central_moment_discrepancy(y, x).item() == pytest.approx(value)
    assert central_moment_discrepancy(x + 3, y + 3).item() == pytest.approx(value)
    assert central_moment_discrepancy(x, y[torch.randperm(9)]).item() == pytest.approx(value)  # blind to the pairing
    assert central_moment_discrepancy(x, x[torch.randperm(9)]).item() == pytest.approx(0, abs=1e-15)
    shift = torch.tensor([3.0, 4.0, 0, 0], dtype=torch.float64)
    assert central_moment_discrepancy(x, x + shift).item() == pytest.approx(5)  # a shift moves the mean alone


def test_difference_is_the_slow_computation(pair):
    x, y = pair
    assert difference(x, y).item() == pytest.approx(slow_difference(x, y), rel=1e-12)
    assert difference(y, x).item() == pytest.approx(slow_difference(x, y), rel=1e-12)
    # Blind to what all samples share and, up to epsilon, to the scale; uncorrelated coordinates cost nothing.
    assert difference(x + 5, 100 * y).item() == pytest.approx(slow_difference(x, y), rel=1e-4)
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert difference(signs[:, :1], signs[:, 1:]).item() == pytest.approx(0, abs=1e-15)
    assert difference(signs[:, :1], signs[:, :1]).item() == pytest.approx(16, rel=1e-4)


def test_gradient_of_the_difference_holds_lengths_constant(pair):
    x, y = (z.clone().requires_grad_() for z in pair)
    difference(x, y).backward()
    with torch.no_grad():
        centred = [z - z.mean(0) for z in pair]
        scale = [1 / (z.norm(dim=1, keepdim=True) + 1e-6) for z in centred]
        a, b = (z * s for z, s in zip(centred, scale, strict=True))
        through = 2 * b @ (a.T @ b).T / 16 * scale[0]
        torch.testing.assert_close(x.grad, through - through.mean(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", [central_moment_discrepancy, difference])
def test_one_sample_and_equal_samples_have_finite_gradients(loss):
    for rows in (torch.full((1, 3), 0.3), torch.full((4, 3), 0.3)):
        x, y = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        loss(x, y).backward()
        assert x.grad.isfinite().all()
        assert y.grad.isfinite().all()


@pytest.mark.parametrize("loss", [central_moment_discrepancy, difference])
def test_float32_under_autocast(loss):
    x, y = torch.rand(8, 4), torch.rand(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(x, y).dtype == loss(x.bfloat16(), y.bfloat16()).dtype == torch.float32


def test_a_reversed_gradient():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    y = reverse_gradient(x, 0.3)
    torch.testing.assert_close(y, x, rtol=1e-15, atol=0)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * 2 * x.detach())
