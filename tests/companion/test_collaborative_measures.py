"""Weights of the decoupling against plain loops and random search; what a critic knows, by hand."""

import math

import pytest
import torch

from companion import collaborative as shelf
from mmsa_lib.data import load
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods import create

SMALL = {"width": 8, "heads": 2, "feedforward": 8}


@pytest.fixture(scope="module")
def train():
    return load("synthetic", samples=(40, 8, 8), dims=(12, 8, 8), length=6)["train"]


def built(train, **switches):
    torch.manual_seed(0)
    method = create("collaborative_mmcl", train.dims, train.task, **SMALL, **switches)
    method.start_phase("train", train)
    return method


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_entropy_agrees_with_loops(train, variant):
    method = built(train, decoupling=variant).eval()
    table = shelf.weight_entropy(method, train.data).set_index(["modality", "part"])["entropy"]
    with torch.no_grad():
        found = method.decouple(train.data).weights
    for (m, part), entropy in table.items():
        rows = []
        for sample, length in enumerate(train.lengths(m).tolist()):
            competing = found[f"{m}/{part}"].shape[1] if variant == "reference" else length
            for row in found[f"{m}/{part}"][sample, :length, :competing].tolist() if length > 1 else ():
                rows.append(-sum(w * math.log(w) for w in row) / math.log(competing))
        assert entropy == pytest.approx(sum(rows) / len(rows), abs=1e-6)


def test_what_has_no_weights_is_refused(train):
    with pytest.raises(ConfigError, match="no_decoupling"):
        shelf.weight_entropy(built(train, no_decoupling=True), train.data)
    one = train.lengths("text").eq(1).nonzero().flatten()
    with pytest.raises(ConfigError, match="no sample has two valid positions of text"):
        shelf.weight_entropy(built(train), train.data.select(one))


class TestBounds:
    @pytest.mark.parametrize("steps", [2, 5, 20])
    def test_no_random_row_is_below(self, steps):
        generator = torch.Generator().manual_seed(steps)
        scores = (torch.rand(20000, steps, generator=generator, dtype=torch.float64) * 2 - 1).mul(4).clamp(-1, 1)
        agree = scores.softmax(-1)
        everything = torch.ones(len(scores), steps, dtype=torch.bool)
        bounds = shelf.entropy_bounds(steps)
        assert agree.max() <= bounds["largest"] + 1e-12
        assert shelf.relative_entropy(agree.unsqueeze(1), everything).min() >= bounds["common"] - 1e-12
        assert (
            shelf.relative_entropy((1 - agree).softmax(-1).unsqueeze(1), everything).min() >= bounds["specific"] - 1e-12
        )

    def test_some_row_of_the_common_part_reaches_it(self):
        everything = torch.ones(1, 20, dtype=torch.bool)
        found = []
        for high in range(1, 20):
            row = torch.where(torch.arange(20) < high, 1.0, -1.0).double().softmax(0)
            found.append(float(shelf.relative_entropy(row[None, None], everything)))
        assert min(found) == pytest.approx(shelf.entropy_bounds(20)["common"], abs=1e-12)

    def test_known_values(self):
        bounds = shelf.entropy_bounds(20)
        assert bounds["largest"] == pytest.approx(math.e / (math.e + 19 / math.e))
        assert bounds["specific"] > 0.996
        assert shelf.entropy_bounds(20, "corrected")["specific"] < 1e-5

    def test_one_position_is_refused(self):
        with pytest.raises(ConfigError, match="two or more"):
            shelf.entropy_bounds(1)


class TestCritic:
    def test_numbers_of_a_known_critic(self, train):
        method = built(train).eval()
        with torch.no_grad():
            error = (method(train.data).prediction - train.labels).abs() / 6
        rewards = (1 - error).clamp(0, 1).double()
        values = torch.linspace(0, 1, len(train))
        opened = []

        def known(state, action, valid):
            opened.append(all(bool((a == 1).all()) for a in action.values()))
            return (values - 0.25 * opened[-1]).unsqueeze(1)

        method.policy.critic.forward = known
        skill = shelf.critic_skill(method, train)
        assert opened == [False, True]
        assert skill["error"] == pytest.approx(float((values - rewards).abs().mean()), abs=1e-6)
        median = rewards.sort().values[(len(rewards) - 1) // 2]
        assert skill["constant"] == pytest.approx(float((rewards - median).abs().mean()), abs=1e-6)
        assert skill["skill"] == pytest.approx(1 - skill["error"] / skill["constant"])
        squares = [float(((guess - rewards) ** 2).sum()) for guess in (values, rewards.mean())]
        assert skill["r2"] == pytest.approx(1 - squares[0] / squares[1], abs=1e-4)
        centred = (values.double() - values.mean()) @ (rewards - rewards.mean())
        expected = centred / (values.double().std() * rewards.std() * (len(rewards) - 1))
        assert skill["correlation"] == pytest.approx(float(expected), abs=1e-5)
        assert skill["gain"] == pytest.approx(0.25, abs=1e-6)

    @pytest.mark.parametrize("switches", [{"no_rl": True}, {"no_policy": True}, {"reward": "per_modality"}])
    def test_without_a_joint_critic_it_is_refused(self, train, switches):
        with pytest.raises(ConfigError, match="no critic"):
            shelf.critic_skill(built(train, **switches), train)
