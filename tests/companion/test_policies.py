"""Whose logits a reward reads, and what the policies see in training against evaluation."""

import pytest
import torch

from companion.collaborative import critic_skill, reward_dependence, training_states
from mmsa_lib.data import load
from mmsa_lib.data.task import emotions, regression
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


def test_rewards_of_emotions_depend_on_their_own_sample_or_on_a_quarter_of_the_row():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 4, 2, generator=generator)
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]] * 4)
    task = emotions(["a", "b", "c", "d"])
    corrected = reward_dependence(logits, labels, task, "corrected")
    assert torch.equal(corrected > 0, torch.eye(8, dtype=torch.bool))
    wrong = reward_dependence(logits, torch.zeros_like(labels), task, "reference")
    assert {tuple(pair) for pair in (wrong > 1e-9).nonzero().tolist()} == {(i, i // 4) for i in range(8)}


def test_rewards_of_sentiment_have_the_slope_of_their_form():
    found = reward_dependence(torch.tensor([0.5, -1.0]), torch.tensor([1.0, -3.0]), regression(), "corrected")
    torch.testing.assert_close(found, torch.eye(2) / 6)


def test_states_of_the_reference_are_gated_by_another_sample(train):
    method = built(train, decoupling="reference")
    table = training_states(method, train, 8)
    assert len(table) == 3 * 32  # the first of five batches has none before it
    assert (table["id"] != table["carried_from"]).all()
    inside = table["norm_training"] / table["norm_evaluation"]
    assert ((table["carried"] > 0) & (table["carried"] < 1)).all()
    # The reference's states hardly vary inside a sequence, so a mean gate is a mean factor.
    assert (inside - table["carried"]).abs().max() < 0.01
    assert (table["gate_training"] - table["gate_evaluation"]).abs().max() > 1e-3


def test_states_of_the_reference_are_those_of_training(train):
    """The second training step reads exactly the state that the table describes."""
    method = built(train, decoupling="reference")
    first, second, *_ = train.batches(8, shuffle=True, generator=torch.Generator().manual_seed(5))
    seen = {}
    method.policy.gates.score["text"].register_forward_pre_hook(lambda _, inputs: seen.update(state=inputs[0]))
    method.eval()
    with torch.no_grad():
        views = method.decouple(first)
        method.carried = {f"action/{m}": a for m, a in method.policy.gates(views.specific).items()}
        views = method.decouple(second)
        method.act(views, method.state(views))
    norms = seen["state"].norm(dim=-1)
    words = second.valid["text"]
    expected = [float(row[: int(n)].mean()) for row, n in zip(norms, words.sum(1), strict=True)]
    table = training_states(method, train, 8, seed=5).query("modality == 'text'")[:8]
    assert table["norm_training"].tolist() == pytest.approx(expected, rel=1e-5)


def test_states_of_the_correction_are_the_same_in_training_and_evaluation(train):
    table = training_states(built(train), train, 8)
    assert (table["norm_training"] == table["norm_evaluation"]).all()
    assert (table["gate_training"] == table["gate_evaluation"]).all()
    assert set(table["carried_from"]) == {""}


@pytest.mark.parametrize("switches", [{"rl": "reference"}, {"decoupling": "reference", "longest": 4}])
def test_sequences_of_other_lengths_are_fitted(train, switches):
    table = training_states(built(train, **switches), train, 8)
    assert (table["carried_from"] != "").all()
    assert table.drop(columns=["id", "modality", "carried_from"]).notna().all(axis=None)


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
        skill = critic_skill(method, train)
        assert opened == [False, True]
        assert skill["error"] == pytest.approx(float((values - rewards).abs().mean()), abs=1e-6)
        median = rewards.sort().values[(len(rewards) - 1) // 2]
        assert skill["constant"] == pytest.approx(float((rewards - median).abs().mean()), abs=1e-6)
        centred = (values.double() - values.mean()) @ (rewards - rewards.mean())
        expected = centred / (values.double().std() * rewards.std() * (len(rewards) - 1))
        assert skill["correlation"] == pytest.approx(float(expected), abs=1e-5)
        assert skill["gain"] == pytest.approx(0.25, abs=1e-6)

    @pytest.mark.parametrize("switches", [{"no_rl": True}, {"no_policy": True}, {"reward": "per_modality"}])
    def test_without_a_joint_critic_it_is_refused(self, train, switches):
        with pytest.raises(ConfigError, match="no critic"):
            critic_skill(built(train, **switches), train)


def test_what_cannot_be_shown_is_refused(train):
    with pytest.raises(ConfigError, match="no gates"):
        training_states(built(train, no_policy=True), train, 8)
    with pytest.raises(ConfigError, match="two batches"):
        training_states(built(train), train, 30)
