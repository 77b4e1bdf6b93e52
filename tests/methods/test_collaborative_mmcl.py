"""collaborative_mmcl: its networks against plain computations, its players, every switch of the corrected method."""

import math
from dataclasses import replace

import pytest
import torch
from collaborative_data import SMALL, after_training, own, owners, small
from method_data import DIMS, changed, make_split, state, train_epochs
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods import create
from mmsa_lib.methods.collaborative_mmcl import (
    Actor,
    CollaborativeMMCLConfig,
    ContextAttention,
    Critic,
    Predictor,
    SequenceSummary,
    decouple,
    joint_reward,
)

LENGTHS = (5, 2, 3)


@pytest.fixture
def train():
    return make_split(size=16, aligned=True)


@pytest.fixture
def valid():
    return torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)


def config(**values):
    return CollaborativeMMCLConfig(**SMALL, **values)


class TestNetworks:
    def test_attention_normalises_the_context_without_the_input(self, valid):
        layer = ContextAttention(8, 2).double()
        x = torch.randn(3, 5, 8, dtype=torch.float64)
        found = layer(x, valid)
        for b, length in enumerate(LENGTHS):
            for i in range(length):
                context = []
                for head in (slice(0, 4), slice(4, 8)):
                    q = layer.query(x[b, i])[head]
                    scores = [(q @ layer.key(x[b, j])[head]).item() / math.sqrt(4) for j in range(length)]
                    weights = torch.tensor(scores).double().softmax(0)
                    context.append(sum(w * layer.value(x[b, j])[head] for j, w in enumerate(weights)))
                context = torch.cat(context)
                torch.testing.assert_close(found[b, i], layer.norm(context + layer.output(context)))

    def test_a_summary_is_a_transformer_layer_and_a_mean(self, valid):
        summary = SequenceSummary(8, 2, 16).double()
        plain = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
        names = {"attention": "self_attn", "expand": "linear1", "reduce": "linear2", "norm_attention": "norm1"}
        state = {}
        for name, value in summary.state_dict().items():
            first, _, rest = name.partition(".")
            state[f"{names.get(first, 'norm2')}.{rest}"] = value
        plain.load_state_dict(state)
        x = torch.randn(3, 5, 8, dtype=torch.float64)
        states = plain(x, src_key_padding_mask=~valid)
        expected = torch.stack([states[b, :length].mean(0) for b, length in enumerate(LENGTHS)])
        torch.testing.assert_close(summary(x, valid), expected)

    def test_a_summary_of_nothing_is_zero(self):
        x = torch.randn(2, 5, 8, requires_grad=True)
        result = SequenceSummary(8, 2, 16)(x, torch.zeros(2, 5, dtype=torch.bool))
        assert (result == 0).all()
        result.sum().backward()
        assert x.grad.isfinite().all()

    def test_fusion(self, valid):
        parts = {m: torch.randn(3, 5, 8) for m in MODALITIES}
        add = Predictor(MODALITIES, 1, config(fusion="add")).eval()
        embedded = add.embed(parts, parts, dict.fromkeys(MODALITIES, valid))
        mean = torch.stack([parts["audio"][b, :n].mean(0) for b, n in enumerate(LENGTHS)])
        torch.testing.assert_close(embedded["audio"][:, :8], mean)
        torch.testing.assert_close(embedded["audio"][:, 8:], add.summary["audio"](parts["audio"], valid))
        total = 0
        for m in MODALITIES:
            inner, outer = add.weigh[m]
            weight = (outer.weight @ (inner.weight @ embedded[m].T + inner.bias[:, None]) + outer.bias).sigmoid()
            total = total + weight.T * embedded[m] / 3
        torch.testing.assert_close(add.fuse(embedded), total)
        cat = Predictor(MODALITIES, 1, config(fusion="cat"))
        assert torch.equal(cat.fuse(embedded), torch.cat(list(embedded.values()), 1))
        assert [layer.out_features for layer in cat.head if isinstance(layer, nn.Linear)] == [24, 8, 1]

    def test_gates_are_one_number_per_position(self):
        actor = Actor(("text",), config()).double()
        state = {"text": torch.randn(2, 5, 8, dtype=torch.float64)}
        linear = actor.score["text"]
        expected = 1 / (1 + (-(state["text"] @ linear.weight[0] + linear.bias)).exp())
        torch.testing.assert_close(actor(state)["text"], expected)
        assert not torch.equal(actor(state, noise=0.1)["text"], actor(state)["text"])

    @pytest.mark.parametrize("reward", ["joint", "per_modality"])
    def test_the_critic_reads_states_with_their_actions(self, valid, reward):
        """A critic per modality reads nothing of the others."""
        critic = Critic(MODALITIES, config(reward=reward)).eval()
        state = {m: torch.randn(3, 5, 8) for m in MODALITIES}
        action = {m: torch.rand(3, 5, requires_grad=True) for m in MODALITIES}
        repeated = {m: torch.stack([action[m]] * 2, -1) for m in MODALITIES}
        seen = {m: critic.summary[m](torch.cat([state[m], repeated[m]], -1), valid) for m in MODALITIES}
        found = critic(state, action, dict.fromkeys(MODALITIES, valid))
        if reward == "joint":
            torch.testing.assert_close(found, critic.value(torch.cat(list(seen.values()), 1)))
            return
        torch.testing.assert_close(found, torch.cat([critic.value[m](x) for m, x in seen.items()], 1))
        gradients = torch.autograd.grad(found[:, 1].sum(), list(action.values()), allow_unused=True)
        assert [bool(g.any()) for g in gradients] == [False, True, False]


class TestPrediction:
    def test_batches_do_not_matter_even_of_one_word(self, train):
        method = small(train).eval()
        parts = [method(batch).prediction for batch in train.batches(1)]
        torch.testing.assert_close(torch.cat(parts), method(train.data).prediction)
        assert min(train.lengths("text")) == 1

    def test_what_is_decoupled_are_the_projections(self, train):
        method = small(train)
        parts = method.decouple(train.data)
        z = {m: method.project[m](train.data.features[m]) for m in MODALITIES}
        common, specific, _ = decouple(z, train.data.valid["text"], align="ln")
        for m in MODALITIES:
            torch.testing.assert_close(parts.common[m], common[m])
            torch.testing.assert_close(parts.specific[m], specific[m])

    def test_evaluation_needs_no_critic_and_gives_representations(self, train):
        method = small(train).eval()
        expected = method(train.data).prediction
        method.policy.critic = None
        output = method(train.data)
        assert torch.equal(output.prediction, expected)
        names = {f"{m}/{part}" for m in MODALITIES for part in ("common", "specific", "enhanced", "complementary")}
        assert set(output.representations) == names | {"fusion"}
        assert {tuple(output.representations[name].shape) for name in names} == {(16, 8)}


class TestInput:
    def test_unaligned_samples_are_refused_or_composed(self):
        ragged = make_split(size=16)
        with pytest.raises(ConfigError, match=r"not word-aligned \(sample 's\d+' has"):
            small(ragged)
        with pytest.raises(ConfigError, match="not word-aligned"):
            small(make_split(aligned=True))(ragged.data)
        method, steps = after_training(ragged, epochs=3, unaligned="compose")
        assert "raw/critic" in steps[-1]
        assert method.eval()(ragged.data).prediction.isfinite().all()

    def test_utterance_level_features_are_refused_in_training_and_without(self):
        train = make_split(aligned=True)
        cut = {n: {m: x[:, :1] for m, x in getattr(train.data, n).items()} for n in ("features", "valid", "observed")}
        with pytest.raises(ConfigError, match="one position"):
            create("collaborative_mmcl", DIMS, train.task, **SMALL)(replace(train.data, **cut))
        audio = {n: {**getattr(train.data, n), "audio": values["audio"]} for n, values in cut.items()}
        train = replace(train, data=replace(train.data, **audio), name="mine", feature_names={"audio": "audio73"})
        with pytest.raises(ConfigError, match=r"audio of mine \(audio73\) has one position per sample.*audio=None"):
            small(train)


class LikesOpenGates(nn.Module):
    """A critic whose value is the mean action, once its only weight is 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, state, action, valid):
        means = [(action[m] * valid[m]).sum(1) / valid[m].sum(1).clamp(min=1) for m in action]
        return self.weight * torch.stack(means).mean(0).unsqueeze(-1)


class TestPlayers:
    def test_the_step_of_the_reward_moves_gates_and_critic_only(self, train):
        method = small(train)
        optimizers = method.optimizers()
        for batch in train.batches(4):
            method.training_step(batch, optimizers)
        before = state(method)
        method.learn(4, optimizers)
        moved = {name.rsplit(".", 2)[0] for name in changed(method, before)}
        assert {name[:12] for name in moved} == {"policy.gates", "policy.criti"}

    def test_each_has_an_optimiser(self, train):
        method = small(train)
        owned = owners(method)
        assert owned["actor"] == own(method.policy.gates)
        assert owned["critic"] == own(method.policy.critic)
        assert owned["task"] == own(method) - own(method.policy.critic)

    def test_the_actor_step_raises_the_value_of_its_actions(self, train):
        """Under a critic that listens; the mean of its own over a batch is constant, since it ends in a batch norm."""
        method = small(train, dropout=0.0, replay="batch", learning_rate=1e-3)
        method.policy.critic = critic = LikesOpenGates()
        optimizers = method.optimizers()
        method.training_step(train.data, optimizers)
        state, valid = (method.unflatten(method.replay.rows, name) for name in ("state", "valid"))
        optimizers["critic"].param_groups[0]["lr"] = 0.0
        values = []
        for _ in range(6):
            with torch.no_grad():
                values.append(critic(state, method.policy.gates(state), valid).mean().item())
            method.learn(16, optimizers)
        assert values == sorted(values)
        assert values[-1] > values[0] + 1e-3  # five steps of 1e-3 move gates by far more than rounding, 1e-7

    def test_the_critic_learns_the_reward(self, train):
        method = small(train, dropout=0.0, learning_rate=1e-2, weight_rl=1.0)
        optimizers = method.optimizers()
        for optimizer in (optimizers["task"], optimizers["actor"]):
            optimizer.param_groups[0]["lr"] = 0.0
        steps, _ = train_epochs(method, train, epochs=30, size=4, optimizers=optimizers)
        errors = [step["raw/critic"] for step in steps if "raw/critic" in step]
        assert sum(errors[-10:]) < 0.3 * sum(errors[:10])

    def test_the_critic_aims_at_the_reward_alone_without_a_future(self, train):
        method, seen = small(train, replay="batch", dropout=0.0), {}
        learn = method.learn

        def watch(size, optimizers):
            rows = method.replay.rows
            state, action, valid = (method.unflatten(rows, n) for n in ("state", "action", "valid"))
            with torch.no_grad():
                seen["expected"] = (method.policy.critic(state, action, valid) - rows["reward"]).abs().mean().item()
            return learn(size, optimizers)

        method.learn = watch
        log = method.training_step(train.data, method.optimizers())
        assert log["raw/critic"] == pytest.approx(seen["expected"], rel=1e-5)
        assert log["loss/critic"] == pytest.approx(13 * seen["expected"], rel=1e-5)
        assert method.policy.target is None

    def test_a_reward_that_is_not_finite_stops_the_run(self, train):
        method = small(train, replay="batch")
        with torch.no_grad():
            method.policy.critic.value[-1].bias.fill_(float("nan"))
        with pytest.raises(RunError, match="critic is nan"):
            method.training_step(train.data, method.optimizers())

    def test_rates_fall_with_their_own_patience_also_after_an_interruption(self, train):
        method = small(train, plateau_patience_rl=1, plateau_patience_task=3, plateau_factor=0.5)
        optimizers = method.optimizers()
        plain = {name: torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=3e-4) for name in optimizers}
        patience = {"task": 3, "actor": 1, "critic": 1}
        expected = {n: ReduceLROnPlateau(o, factor=0.5, patience=patience[n]) for n, o in plain.items()}
        for loss in (1.0, 0.9, 0.9, 0.95, 0.91, 0.9, 0.8, 0.85, 0.9, 0.9, 0.9):
            method.end_validation(loss, optimizers)
            for scheduler in expected.values():
                scheduler.step(loss)
            rates = ({name: o.param_groups[0]["lr"] for name, o in many.items()} for many in (optimizers, plain))
            assert next(rates) == next(rates)
            state = method.training_state()
            method.load_training_state({})
            assert not any(name.startswith("plateau") for name in method.training_state())
            method.load_training_state(state)
        assert optimizers["critic"].param_groups[0]["lr"] < optimizers["task"].param_groups[0]["lr"] < 3e-4


class TestRewards:
    def stored(self, method, train):
        """The rewards that one step stores."""
        method.training_step(train.data, method.optimizers())
        return method.replay.rows["reward"]

    def test_it_is_that_of_the_prediction_of_the_step(self, train):
        method = small(train, replay="batch", dropout=0.0)
        with torch.no_grad():
            parts = method.decouple(train.data)
            prediction = method.act(parts, parts.specific)[0].prediction
        linear = joint_reward(prediction, train.labels, train.task).unsqueeze(1)
        torch.testing.assert_close(self.stored(method, train), linear)
        exponential = self.stored(small(train, replay="batch", dropout=0.0, reward_form="exponential"), train)
        torch.testing.assert_close(exponential, (-(1 - linear) * 6).exp(), rtol=1e-4, atol=1e-5)

    def test_each_policy_may_have_one_from_its_gated_part_alone(self, train):
        method = small(train, reward="per_modality", replay="batch", dropout=0.0)
        method.predictor.eval()
        method.predictor.train = lambda mode=True: method.predictor
        with torch.no_grad():
            parts = method.decouple(train.data)
            _, embedded = method.act(parts, parts.specific)
            expected = []
            for m in MODALITIES:
                alone = {n: e.clone() for n, e in embedded.items()}
                for n in MODALITIES:
                    if n != m:
                        alone[n][:, 8:] = 0
                prediction = method.predictor(alone).squeeze(1)
                expected.append(joint_reward(prediction, train.labels, train.task))
        torch.testing.assert_close(self.stored(method, train), torch.stack(expected, 1))

    @pytest.mark.parametrize("values", [{}, {"reward": "per_modality"}, {"gamma": 0.5}, {"decoupling": "reference"}])
    @pytest.mark.parametrize("replay", ["buffer", "batch"])
    def test_a_sample_without_label_has_none_and_takes_part_in_all_else(self, train, values, replay):
        known = torch.arange(len(train)) % 3 != 0
        labels = torch.where(known, train.labels, torch.nan)
        scarce = replace(train, data=replace(train.data, labels=labels, labelled=known))
        method = small(scarce, replay=replay, dropout=0.0, **values)
        optimizers, logs = method.optimizers(), []
        for _ in range(4):
            logs += [method.training_step(batch, optimizers) for batch in scarce.batches(4)]
        rewards = method.replay.rows["reward"]
        assert rewards.isfinite().all()
        assert {"raw/critic", "raw/actor", "policy/reward"} <= set(logs[-1])
        assert all(value == value for log in logs for value in log.values())
        # One step on three of four samples stores what the same step stores on all of them, but for one row.
        if not values:
            plain, other = small(train, replay="batch"), small(train, replay="batch")
            stored = []
            for one, own in ((plain, train.data), (other, scarce.data)):
                torch.manual_seed(1)
                one.training_step(own, one.optimizers())
                stored.append(one.replay.rows)
            for name, rows in stored[0].items():
                assert torch.equal(rows[known], stored[1][name])
        nothing = replace(scarce.data, labels=torch.full_like(labels, torch.nan), labelled=torch.zeros_like(known))
        log = method.training_step(nothing, optimizers)
        assert "policy/reward" not in log
        assert log["raw/task"] == 0 or values

    def test_those_leave_the_running_statistics_alone(self, train):
        states = []
        for reward in ("joint", "per_modality"):
            method = small(train, reward=reward)
            torch.manual_seed(0)
            method.training_step(train.data, method.optimizers())
            states.append(method.predictor.head[3].running_mean.clone())
        torch.testing.assert_close(*states)
        assert method.predictor.training


class TestSwitches:
    def test_no_decoupling_sends_the_projection_both_ways(self, train):
        method = small(train, no_decoupling=True)
        parts = method.decouple(train.data)
        for m in MODALITIES:
            z = method.project[m](train.data.features[m])
            assert torch.equal(parts.common[m], z)
            assert torch.equal(parts.specific[m], z)
        assert parts.weights == {}

    def test_no_intra_attention_takes_the_common_part_as_it_is(self, train):
        method = small(train, no_intra_attention=True).eval()
        found = method(train.data).representations
        for m in MODALITIES:
            torch.testing.assert_close(found[f"{m}/enhanced"], found[f"{m}/common"])
        assert not any(name.startswith("attend") for name, _ in method.named_parameters())

    def test_no_policy_opens_all_gates(self, train):
        method, steps = after_training(train, no_policy=True)
        output = method.eval()(train.data)
        assert all((output.auxiliary[f"gates/{m}"] == 1).all() for m in MODALITIES)
        assert method.policy is None
        assert set(method.optimizers()) == {"task"}
        assert not any("critic" in name for name in steps[-1])

    @pytest.mark.parametrize("variant", ["corrected", "reference"])
    def test_no_rl_trains_gates_by_the_task_alone(self, train, variant):
        method = small(train, no_rl=True, decoupling=variant)
        before = state(method.policy.gates)
        steps, _ = train_epochs(method, train, epochs=2, size=4)
        assert not any("critic" in name or "reward" in name for name in steps[-1])
        assert changed(method.policy.gates, before) == set(before)
        assert method.policy.critic is None

    @pytest.mark.parametrize(
        "values", [{"no_rl": True}, {"no_policy": True}, {"reward": "per_modality"}, {"gamma": 0.5}]
    )
    def test_what_variants_share_starts_from_the_same_weights(self, train, values):
        full, other = small(train).state_dict(), small(train, **values).state_dict()
        shared = {name for name in other if name.startswith(("project", "attend", "predictor", "policy.gates"))}
        assert all(torch.equal(full[name], other[name]) for name in shared)

    def test_the_first_task_step_is_the_same_with_and_without_a_reward(self, train):
        """The reward acts through the gates' later steps only: the same start, the same first gradient."""
        with_reward, without = small(train), small(train, no_rl=True)
        results = []
        for method in (with_reward, without):
            torch.manual_seed(3)
            results.append(method.training_step(next(train.batches(4)), method.optimizers())["raw/task"])
        assert results[0] == results[1]
        torch.testing.assert_close(with_reward.project["text"].weight, without.project["text"].weight)

    @pytest.mark.parametrize("variant", ["corrected", "reference"])
    def test_longest_cuts_sequences(self, train, variant):
        method, _ = after_training(train, epochs=2, size=8, decoupling=variant, longest=3)
        assert method.replay.rows["state/text"].shape[1:] == (3, 8)
        method.eval()
        assert all(w.shape[1:] == (3, 3) for w in method.decouple(train.data).weights.values())
        other = {m: torch.cat([x[:, :3], x[:, 3:] + 1], 1) for m, x in train.data.features.items()}
        found = method(replace(train.data, features=other)).prediction
        torch.testing.assert_close(found, method(train.data).prediction)

    @pytest.mark.parametrize(("values", "held"), [({"replay": "batch"}, 4), ({}, 96), ({"replay_capacity": 20}, 16)])
    def test_replay(self, train, values, held):
        values = {"replay_capacity": 1000, **values}
        assert len(after_training(train, epochs=6, **values)[0].replay) == held

    def test_exploration_moves_the_actions_of_training_only(self, train):
        method = small(train, exploration=0.5, dropout=0.0, replay="batch")
        with torch.no_grad():
            quiet = method(train.data).auxiliary["gates/text"]
        method.training_step(train.data, method.optimizers())
        assert not torch.allclose(method.replay.rows["action/text"], quiet)
        method.eval()
        assert torch.equal(method(train.data).prediction, method(train.data).prediction)

    @pytest.mark.parametrize(
        "values",
        [
            {"decoupling": "reference", "rl": "corrected"},
            {"rl": "reference"},
            {"temperature": 1.0},
            {"comparison": "mean"},
            {"align": "none"},
            {"align": "center"},
            {"fusion": "cat"},
            {"gamma": 0.5},
            {"reward": "per_modality"},
            {"reward_form": "exponential"},
            {"replay": "batch"},
            {"exploration": 0.5},
            {"weight_decay": 0.1},
            {"dropout": 0.0},
            {"dropout_attention": 0.3},
            {"dropout_critic": 0.0},
            {"rl_steps": 2},
            {"learning_rate_critic": 0.01},
            {"learning_rate_actor": 0.01},
        ],
    )
    def test_it_changes_what_is_learned(self, train, values):
        plain, other = (after_training(train, **config)[0].eval() for config in ({}, values))
        assert not torch.equal(plain(train.data).prediction, other(train.data).prediction)

    @pytest.mark.parametrize(("name", "term"), [("weight_task", "task"), ("weight_rl", "critic")])
    def test_weights_scale_losses(self, train, name, term):
        for weight in (1.0, 3.0):
            step = after_training(train, epochs=1, **{name: weight})[1][-1]
            assert step[f"loss/{term}"] == pytest.approx(weight * step[f"raw/{term}"])

    def test_the_task_weight_alone_changes_nothing_under_adam(self, train):
        """Defect D12: a factor of a loss that is stepped by itself cancels in Adam, up to its small constant."""
        torch.manual_seed(0)
        one, ten = (after_training(train, no_rl=True, weight_task=w, dropout=0.0)[0].eval() for w in (1.0, 10.0))
        torch.testing.assert_close(one(train.data).prediction, ten(train.data).prediction, atol=2e-3, rtol=1e-3)


def test_a_batch_without_a_word_logs_no_gate():
    train = make_split(size=4, aligned=True)
    nothing = {m: torch.zeros_like(x) for m, x in train.data.valid.items()}
    method = create("collaborative_mmcl", DIMS, train.task, **SMALL).train()
    log = method.training_step(replace(train.data, valid=nothing, observed=nothing), method.optimizers())
    assert "policy/gate" not in log
    assert all(math.isfinite(value) for value in log.values())
