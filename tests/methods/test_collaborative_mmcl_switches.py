"""collaborative_mmcl: every switch changes what it should."""

from dataclasses import replace

import pytest
import torch
from method_data import make_split, train_epochs
from test_collaborative_mmcl import EMOTIONS, small

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.methods.collaborative_mmcl import joint_reward
from mmsa_lib.nn.sequence import masked_mean


@pytest.fixture
def train():
    return make_split(size=16, aligned=True)


def after_training(train, epochs=4, **config):
    method = small(train, **config)
    steps, _ = train_epochs(method, train, epochs=epochs, size=4)
    return method, steps


def rewards_of(method, batch):
    """The rewards that one step stores."""
    method.replay.store = lambda experience: rewards_of.__dict__.update(seen=experience["reward"])
    method.training_step(batch, method.optimizers())
    return rewards_of.seen


def test_no_decoupling_sends_the_projection_both_ways(train):
    method = small(train, no_decoupling=True)
    views = method.decouple(train.data)
    for m in MODALITIES:
        z = method.project[m](train.data.features[m])
        assert torch.equal(views.common[m], z)
        assert torch.equal(views.specific[m], z)
    assert views.weights == {}


def test_no_intra_attention_takes_the_common_part_as_it_is(train):
    method = small(train, no_intra_attention=True).eval()
    found = method(train.data).representations
    for m in MODALITIES:
        torch.testing.assert_close(found[f"{m}/enhanced"], found[f"{m}/common"])
    assert not any(name.startswith("attend") for name, _ in method.named_parameters())
    plain = small(train).eval()(train.data).representations
    assert not torch.allclose(plain["text/enhanced"], plain["text/common"])


def test_no_policy_opens_all_gates(train):
    method, steps = after_training(train, no_policy=True)
    output = method.eval()(train.data)
    assert all((output.auxiliary[f"gates/{m}"] == 1).all() for m in MODALITIES)
    assert method.policy is None
    assert set(method.optimizers()) == {"task"}
    assert not any("critic" in name for name in steps[-1])


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_no_rl_trains_gates_by_the_task_alone(train, variant):
    method = small(train, no_rl=True, decoupling=variant)
    before = [p.clone() for p in method.policy.gates.parameters()]
    steps, _ = train_epochs(method, train, epochs=2, size=4)
    assert not any("critic" in name or "reward" in name for name in steps[-1])
    assert not any(torch.equal(a, b) for a, b in zip(before, method.policy.gates.parameters(), strict=True))
    assert method.policy.critic is None


@pytest.mark.parametrize("config", [{"no_rl": True}, {"no_policy": True}, {"reward": "per_modality"}, {"gamma": 0.5}])
def test_what_variants_share_starts_from_the_same_weights(train, config):
    full, other = small(train).state_dict(), small(train, **config).state_dict()
    shared = {name for name in other if name.startswith(("project", "attend", "predictor", "policy.gates"))}
    assert all(torch.equal(full[name], other[name]) for name in shared)


def test_the_first_task_step_is_the_same_with_and_without_a_reward(train):
    """The reward acts through the gates' later steps only: the same start, the same first gradient."""
    with_reward, without = small(train), small(train, no_rl=True)
    results = []
    for method in (with_reward, without):
        torch.manual_seed(3)
        results.append(method.training_step(next(train.batches(4)), method.optimizers())["raw/task"])
    assert results[0] == results[1]
    torch.testing.assert_close(with_reward.project["text"].weight, without.project["text"].weight)


def test_a_reward_for_each_policy_needs_its_gated_part_alone(train):
    method = small(train, reward="per_modality", replay="batch", dropout=0.0)
    method.predictor.eval()
    method.predictor.train = lambda mode=True: method.predictor
    with torch.no_grad():
        views = method.decouple(train.data)
        _, embedded = method.act(views, views.specific)
        expected = []
        for m in MODALITIES:
            alone = {n: e.clone() for n, e in embedded.items()}
            for n in MODALITIES:
                if n != m:
                    alone[n][:, 8:] = 0
            prediction = method.predictor(alone).squeeze(1)
            expected.append(joint_reward(prediction, train.labels, train.task))
    found = rewards_of(method, train.data)
    torch.testing.assert_close(found, torch.stack(expected, 1))
    assert rewards_of(small(train, replay="batch"), train.data).shape == (16, 1)


def test_rewards_of_each_policy_leave_the_running_statistics_alone(train):
    states = []
    for reward in ("joint", "per_modality"):
        method = small(train, reward=reward)
        torch.manual_seed(0)
        method.training_step(train.data, method.optimizers())
        states.append(method.predictor.head[3].running_mean.clone())
    torch.testing.assert_close(*states)
    assert method.predictor.training


def test_the_reward_of_a_step_is_that_of_its_prediction(train):
    method = small(train, replay="batch", dropout=0.0)
    with torch.no_grad():
        views = method.decouple(train.data)
        prediction = method.act(views, views.specific)[0].prediction
    expected = joint_reward(prediction, train.labels, train.task).unsqueeze(1)
    torch.testing.assert_close(rewards_of(method, train.data), expected)


def test_reward_form(train):
    linear = rewards_of(small(train, replay="batch", dropout=0.0), train.data)
    exponential = rewards_of(small(train, replay="batch", dropout=0.0, reward_form="exponential"), train.data)
    torch.testing.assert_close(exponential, (-(1 - linear) * 6).exp(), rtol=1e-4, atol=1e-5)


def test_rl_decides_which_reward_emotions_get():
    train = make_split(size=16, aligned=True, task=EMOTIONS)
    values = {}
    for rl in ("corrected", "reference", None):
        method = small(train, rl=rl, gamma=0.0, dropout=0.0)
        method.training_step(train.data, method.optimizers())
        stored = method.carried["reward"] if rl == "reference" else method.replay.rows["reward"]
        values[rl] = stored
    assert torch.equal(values[None], values["corrected"])
    assert values["corrected"].max() < 1 < values["reference"].max()


@pytest.mark.parametrize("variant", ["corrected", "reference"])
def test_longest_cuts_sequences(train, variant):
    method = small(train, decoupling=variant, longest=3)
    train_epochs(method, train, epochs=2, size=8)
    assert method.replay.rows["state/text"].shape[1:] == (3, 8)
    method.eval()
    cut = method.decouple(train.data)
    assert all(w.shape[1:] == (3, 3) for w in cut.weights.values())
    changed = {m: x.clone() for m, x in train.data.features.items()}
    for x in changed.values():
        x[:, 3:] += 1
    torch.testing.assert_close(method(replace(train.data, features=changed)).prediction, method(train.data).prediction)


def test_replay_of_the_batch_alone_has_nothing_stale(train):
    method, _ = after_training(train, epochs=1, replay="batch")
    assert len(method.replay) == 4
    assert len(after_training(train, epochs=1)[0].replay) == 16


def test_replay_capacity(train):
    sizes = [len(after_training(train, epochs=6, replay_capacity=c)[0].replay) for c in (20, 1000)]
    assert sizes[0] < 20
    assert sizes[1] == 96


def test_exploration_moves_the_actions_of_training_only(train):
    method = small(train, exploration=0.5, dropout=0.0, replay="batch")
    with torch.no_grad():
        quiet = method(train.data).auxiliary["gates/text"]
    method.training_step(train.data, method.optimizers())
    assert not torch.allclose(method.replay.rows["action/text"], quiet)
    method.eval()
    assert torch.equal(method(train.data).prediction, method(train.data).prediction)


@pytest.mark.parametrize(
    "config",
    [
        {"decoupling": "reference", "rl": "corrected"}, {"rl": "reference"}, {"temperature": 1.0},
        {"comparison": "mean"}, {"align": "none"}, {"align": "center"}, {"fusion": "cat"}, {"gamma": 0.5},
        {"reward": "per_modality"}, {"reward_form": "exponential"}, {"replay": "batch"}, {"exploration": 0.5},
        {"weight_decay": 0.1}, {"dropout": 0.0}, {"dropout_attention": 0.3},
    ],
)  # fmt: skip
def test_it_changes_what_is_learned(train, config):
    plain, _ = after_training(train)
    other, _ = after_training(train, **config)
    assert not torch.equal(plain.eval()(train.data).prediction, other.eval()(train.data).prediction)


@pytest.mark.parametrize("name", ["weight_task", "weight_rl"])
def test_weights_scale_losses(train, name):
    steps = [after_training(train, epochs=1, **{name: weight})[1][-1] for weight in (1.0, 3.0)]
    term = {"weight_task": "task", "weight_rl": "critic"}[name]
    for step, weight in zip(steps, (1.0, 3.0), strict=True):
        assert step[f"loss/{term}"] == pytest.approx(weight * step[f"raw/{term}"])


def test_the_task_weight_alone_changes_nothing_under_adam(train):
    """Defect D12: a factor of a loss that is stepped by itself cancels in Adam, up to its small constant."""
    torch.manual_seed(0)
    one, ten = (after_training(train, no_rl=True, weight_task=w, dropout=0.0)[0].eval() for w in (1.0, 10.0))
    torch.testing.assert_close(one(train.data).prediction, ten(train.data).prediction, atol=2e-3, rtol=1e-3)


def test_specific_of_the_reference_is_nearly_the_mean(train):
    views = small(train, decoupling="reference").decouple(train.data)
    z = small(train, decoupling="reference", no_decoupling=True).decouple(train.data).common
    everything = torch.ones_like(views.valid["text"])
    for m in MODALITIES:
        mean = masked_mean(z[m], everything).unsqueeze(1)
        distance = (views.specific[m] - mean).norm() / z[m].norm()
        assert distance < 0.2
