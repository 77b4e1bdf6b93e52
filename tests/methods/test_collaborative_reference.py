"""The defects of collaborative_mmcl's code, each where it is kept; and a future, which needs its chain of states."""

from copy import deepcopy

import pytest
import torch
from collaborative_data import EMOTIONS, after_training, online, own, owners, small
from method_data import DIMS, changed, make_split, state

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods import create
from mmsa_lib.methods.collaborative_mmcl import CollaborativeMMCL
from mmsa_lib.methods.collaborative_reference import (
    Chained,
    ChainedReferenceDecoupling,
    Reference,
    ReferenceDecoupling,
    ReferenceProcess,
)
from mmsa_lib.nn.sequence import masked_mean

VARIANTS = pytest.mark.parametrize("variant", ["corrected", "reference"])


@pytest.fixture
def train():
    return make_split(size=16, aligned=True)


def two_batches(train):
    return train.data.select(torch.arange(8)), train.data.select(torch.arange(8, 16))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, CollaborativeMMCL),
        ({"decoupling": "reference"}, Reference),
        ({"decoupling": "reference", "no_policy": True}, Reference),
        ({"rl": "reference"}, ReferenceProcess),
        ({"decoupling": "reference", "rl": "corrected"}, ReferenceDecoupling),
        ({"gamma": 0.5}, Chained),
        ({"decoupling": "reference", "rl": "corrected", "gamma": 0.5}, ChainedReferenceDecoupling),
    ],
)
def test_settings_choose_the_class_and_a_copy_keeps_it(train, values, expected):
    method = small(train, **values)
    assert type(method) is type(deepcopy(method)) is expected
    made = CollaborativeMMCL(train.dims, train.task, method.config)
    assert type(made) is expected
    assert made.state_dict().keys() == method.state_dict().keys()


def test_a_class_of_ones_own_must_extend_the_one_that_settings_need(train):
    class Mine(CollaborativeMMCL):
        pass

    assert type(Mine(train.dims, train.task, Mine.Config())) is Mine
    with pytest.raises(ConfigError, match="Mine can't be had with these settings; let it extend Reference"):
        Mine(train.dims, train.task, Mine.Config(decoupling="reference"))


def test_parameter_counts_of_the_code():
    method = create("collaborative_mmcl", {"text": 300, "audio": 74, "vision": 35}, EMOTIONS, decoupling="reference")

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert count(method.project, method.attend) == 251_648
    assert count(method.policy.gates, method.predictor) == 1_912_718
    assert count(method.policy.critic) == 1_975_725
    assert count(method.policy.target) == count(method.policy.gates, method.policy.critic)


def test_d2_rl_decides_which_reward_emotions_get():
    train = make_split(size=16, aligned=True, task=EMOTIONS)
    values = {}
    for rl in ("corrected", "reference", None):
        method = small(train, rl=rl, gamma=0.0, dropout=0.0)
        method.training_step(train.data, method.optimizers())
        values[rl] = method.carried["reward"] if rl == "reference" else method.replay.rows["reward"]
    assert torch.equal(values[None], values["corrected"])
    assert values["corrected"].max() < 1 < values["reference"].max()


def test_d3_the_specific_part_is_nearly_the_mean(train):
    parts = small(train, decoupling="reference").decouple(train.data)
    z = small(train, decoupling="reference", no_decoupling=True).decouple(train.data).common
    for m in MODALITIES:
        mean = masked_mean(z[m], torch.ones_like(parts.valid["text"])).unsqueeze(1)
        assert (parts.specific[m] - mean).norm() / z[m].norm() < 0.2


def test_d5_it_works_in_the_length_of_its_training_data(train):
    method = small(train, decoupling="reference").eval()
    whole = method(train.data).prediction
    other = create("collaborative_mmcl", DIMS, train.task, **method.config.model_dump()).eval()
    other.load_state_dict(method.state_dict())  # the stored weights know the length
    for same in (method, other):
        torch.testing.assert_close(torch.cat([same(batch).prediction for batch in train.batches(3)]), whole)
    parts = method.decouple(next(train.batches(1)))
    assert parts.weights["text/common"].shape == (1, 5, 5)
    assert parts.valid["text"].all()


def test_d6_a_state_is_gated_by_the_batch_before(train):
    method = small(train, decoupling="reference")
    first, second = two_batches(train)
    optimizers = method.optimizers()
    method.training_step(first, optimizers)
    expected = method.decouple(second).specific["text"].detach() * method.carried["action/text"].unsqueeze(-1)
    method.training_step(second, optimizers)
    torch.testing.assert_close(method.replay.rows["next/text"], expected)
    torch.testing.assert_close(method.carried["state/text"], expected)


@VARIANTS
def test_d7_actions_are_those_of_training_only_if_corrected(train, variant):
    method = small(train, decoupling=variant, dropout=0.0)
    seen = []
    gates = method.policy.gates.forward
    method.policy.gates.forward = lambda state, noise=0.0: seen.append(gates(state, noise)) or seen[-1]
    first, second = two_batches(train)
    optimizers = method.optimizers()
    method.training_step(first, optimizers)
    with torch.no_grad():
        evaluated = method.eval()(second).auxiliary["gates/text"].clone()
    seen.clear()
    method.train().training_step(second, optimizers)
    assert torch.equal(seen[0]["text"], evaluated) == (variant == "corrected")


def test_d8_the_next_state_is_the_next_batch(train):
    """Kept where a future is asked for: row i is followed by row i of the batch after it."""
    method = small(train, gamma=0.5)
    first, second = two_batches(train)
    optimizers = method.optimizers()
    method.training_step(first, optimizers)
    assert len(method.replay) == 0
    expected = method.decouple(second).specific["text"].detach()
    method.training_step(second, optimizers)
    torch.testing.assert_close(method.replay.rows["next/text"], expected)
    assert torch.equal(method.replay.rows["next_valid/text"], second.valid["text"])


def test_d8_batches_of_other_sizes_chain_as_far_as_they_go(train):
    _, steps = after_training(train, epochs=3, size=6, decoupling="reference")  # 6, 6, 4 samples
    assert all(torch.tensor(list(step.values())).isfinite().all() for step in steps)


def test_a_future_is_discounted(train):
    method, seen = small(train, gamma=0.5, replay="batch", dropout=0.0), {}
    learn = method.learn

    def watch(size, optimizers):
        rows = method.replay.rows
        names = ("state", "action", "valid", "next", "next_valid")
        state, action, valid, following, later = (method.unflatten(rows, name) for name in names)
        target = method.policy.target.eval()
        with torch.no_grad():
            aim = rows["reward"] + 0.5 * target["critic"](following, target["gates"](following), later)
            seen["expected"] = (method.policy.critic(state, action, valid) - aim).abs().mean().item()
        return learn(size, optimizers)

    method.learn = watch
    optimizers = method.optimizers()
    logs = [method.training_step(batch, optimizers) for batch in train.batches(8)]
    assert "raw/critic" not in logs[0]
    assert logs[1]["raw/critic"] == pytest.approx(seen["expected"], rel=1e-5)


@VARIANTS
def test_d10_targets_start_as_copies_only_if_corrected_and_follow_slowly(train, variant):
    method = small(train, rl=variant, gamma=0.5, target_rate=0.25)
    start = online(method).state_dict()
    same = [torch.equal(x, start[name]) for name, x in method.policy.target.state_dict().items()]
    assert all(same) == (variant == "corrected")
    optimizers = method.optimizers()
    for batch in train.batches(4):
        method.training_step(batch, optimizers)
    before = state(method.policy.target)
    method.learn(4, optimizers)
    now = online(method).state_dict()
    for name, parameter in method.policy.target.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.25 * (now[name] - before[name]))
    assert not any(p.requires_grad for p in method.policy.target.parameters())
    assert method.policy.target["critic"].value[4].training == (variant == "reference")
    # The corrected target takes the online statistics, the reference's makes its own.
    assert changed(method.policy.target, before) & {name for name in before if "running_mean" in name}


def test_no_future_no_target(train):
    assert small(train, decoupling="reference", gamma=0.0).policy.target is None


def test_d13_one_adam_has_gates_and_predictor(train):
    method = small(train, decoupling="reference")
    owned = owners(method)
    assert owned["actor"] == own(method.policy.gates) | own(method.predictor)
    assert owned["task"] == own(method.project) | own(method.attend)
    assert owned["critic"] == own(method.policy.critic)
    before = state(method)
    method.training_step(train.data, method.optimizers())  # the first batch: a task step alone
    assert {name.split(".")[0] for name in changed(method, before)} == {"project", "attend", "policy", "predictor"}
    assert not any("critic" in name for name in changed(method, before))
