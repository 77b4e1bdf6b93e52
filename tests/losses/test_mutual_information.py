"""The Jensen-Shannon bound against logarithms in double precision; permutations without fixed points."""

import math

import pytest
import torch

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.mutual_information import derangement, jsd_mutual_information


def test_equation_7():
    torch.manual_seed(0)
    joint, marginal = 3 * torch.randn(9, dtype=torch.float64), 3 * torch.randn(4, dtype=torch.float64)
    expected = sum(-math.log(1 + math.exp(-t)) for t in joint.tolist()) / 9
    expected += sum(-math.log(1 + math.exp(t)) for t in marginal.tolist()) / 4
    assert jsd_mutual_information(joint, marginal).item() == pytest.approx(expected, rel=1e-12)


def test_never_above_zero_and_finite_for_huge_scores():
    scores = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4])
    for joint in scores:
        for marginal in scores:
            bound = jsd_mutual_information(joint[None], marginal[None])
            assert bound.isfinite()
            assert bound <= 0
    assert jsd_mutual_information(scores[-1:], scores[:1]).item() == 0
    assert jsd_mutual_information(scores.bfloat16(), scores.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("count", [2, 3, 4, 17, 128])
def test_no_fixed_point(count):
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        permutation = derangement(count, generator=generator)
        assert (permutation != torch.arange(count)).all()
        assert torch.equal(permutation.sort().values, torch.arange(count))


def test_each_other_row_is_equally_likely():
    generator, count, draws = torch.Generator().manual_seed(0), 5, 4000
    hits = torch.zeros(count, count)
    for _ in range(draws):
        hits[torch.arange(count), derangement(count, generator=generator)] += 1
    share = hits / draws
    others = ~torch.eye(count, dtype=torch.bool)
    # Five standard errors of a share of 1/4.
    assert (share[others] - 1 / (count - 1)).abs().max() < 5 * math.sqrt(0.25 * 0.75 / draws)


def test_the_generator_decides():
    one, two = (derangement(64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    again = derangement(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_row_is_refused(count):
    with pytest.raises(ConfigError, match=f"two samples or more, got {count}"):
        derangement(count)
