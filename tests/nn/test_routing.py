"""Dynamic routing against loops over samples, steps and capsules."""

import math

import pytest
import torch

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.nn.routing import DynamicRouting, squash_norm

LENGTHS = [6, 1, 4]


@pytest.fixture
def sequence():
    """States ``(3, 6, 4)`` and their valid mask."""
    torch.manual_seed(0)
    return torch.randn(3, 6, 4, dtype=torch.float64), torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(1)


def routing(iterations=3, squash="squash", capsules=3):
    torch.manual_seed(1)
    return DynamicRouting(4, capsules, 2, iterations, squash).double()


def naive_squash(s, kind):
    if kind == "tanh":
        return [math.tanh(x) for x in s]
    square = sum(x * x for x in s)
    return [square / (1 + square) * x / math.sqrt(square + 1e-8) for x in s]


def naive(module, states, length, iterations, kind):
    """Capsules and coefficients of one sample, the algorithm line by line."""
    count, _, width = module.weight.shape
    matrix = module.weight.detach().transpose(1, 2).tolist()
    votes = [
        [[sum(w * x for w, x in zip(matrix[k][d], states[t], strict=True)) for d in range(width)] for k in range(count)]
        for t in range(length)
    ]
    b = [[0.0] * count for _ in range(length)]
    for round_number in range(iterations):
        c = [[math.exp(x) / sum(math.exp(y) for y in row) for x in row] for row in b]
        capsules = [
            naive_squash([sum(c[t][k] * votes[t][k][d] for t in range(length)) for d in range(width)], kind)
            for k in range(count)
        ]
        if round_number < iterations - 1:
            for t in range(length):
                for k in range(count):
                    b[t][k] += sum(v * u for v, u in zip(capsules[k], votes[t][k], strict=True))
    return capsules, c


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["squash", "tanh"])
def test_routing(sequence, iterations, kind):
    states, valid = sequence
    module = routing(iterations, kind)
    capsules, coupling = module(states, valid, return_coupling=True)
    for row, length in enumerate(LENGTHS):
        expected, coefficients = naive(module, states[row].tolist(), length, iterations, kind)
        torch.testing.assert_close(capsules[row], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(coupling[row, :length], torch.tensor(coefficients, dtype=torch.float64))
    torch.testing.assert_close(coupling.sum(-1), valid.double())  # 1 on valid steps, 0 elsewhere
    uniform = torch.allclose(coupling[valid], torch.tensor(1 / 3, dtype=torch.float64))
    assert uniform is (iterations == 1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_capsules_are_shorter_than_one(sequence, scale):
    states, valid = sequence
    assert (routing()(scale * states, valid).norm(dim=-1) <= 1).all()
    assert (routing()(states, valid).norm(dim=-1) < 1).all()


@pytest.mark.parametrize("garbage", [1e6, float("nan"), float("inf")])
def test_padding_never_reaches_a_capsule(sequence, garbage):
    states, valid = sequence
    module = routing()
    dirty = states.masked_fill(~valid.unsqueeze(-1), garbage)
    assert torch.equal(module(dirty, valid), module(states, valid))
    longer = torch.cat([states, torch.full((3, 2, 4), garbage, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(
        module(longer, torch.cat([valid, valid.new_zeros(3, 2)], 1)), module(states, valid), rtol=1e-12, atol=1e-14
    )


def test_a_sample_without_a_valid_step_gives_zeros_and_a_finite_gradient(sequence):
    states, valid = sequence
    states = states.clone().requires_grad_()
    valid[1] = False
    capsules = routing()(states, valid)
    assert (capsules[1] == 0).all()
    torch.nn.functional.normalize(capsules.flatten(1), dim=-1).sum().backward()
    assert states.grad.isfinite().all()
    assert (states.grad[1] == 0).all()


def test_the_gradient_flows_through_the_votes_only(sequence):
    """It is that of a weighted sum with constant coefficients."""
    states, valid = sequence
    module, leaf = routing(), states.clone().requires_grad_()
    capsules, coupling = module(leaf, valid, return_coupling=True)
    assert not coupling.requires_grad
    capsules.square().sum().backward()
    again = states.clone().requires_grad_()
    votes = torch.einsum("bti,kic->btkc", again, module.weight)
    squash_norm(torch.einsum("btk,btkd->bkd", coupling, votes)).square().sum().backward()
    torch.testing.assert_close(leaf.grad, again.grad, rtol=1e-10, atol=1e-12)


def test_initial_votes_have_the_scale_of_the_input():
    torch.manual_seed(0)
    weight = DynamicRouting(256, 8, 32).weight
    assert weight.std().item() == pytest.approx(1 / 16, rel=0.02)


def test_float32_under_autocast(sequence):
    states, valid = sequence
    module = routing().float()
    with torch.autocast("cpu", torch.bfloat16):
        capsules, coupling = module(states.float(), valid, return_coupling=True)
    assert capsules.dtype == coupling.dtype == torch.float32
    assert torch.equal(capsules, module(states.float(), valid))


def test_bad_values():
    with pytest.raises(ConfigError, match="iterations=0"):
        DynamicRouting(4, 3, 2, iterations=0)
    with pytest.raises(UnknownNameError, match="did you mean squash"):
        DynamicRouting(4, 3, 2, squash="squashed")
