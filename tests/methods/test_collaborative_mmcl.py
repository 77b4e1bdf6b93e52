"""collaborative_mmcl: its networks against plain computations, its players, and its two variants."""

import math
from dataclasses import replace

import pytest
import torch
from method_data import DIMS, build, make_split, train_epochs
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.task import emotions
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
)

SMALL = {"width": 8, "heads": 2, "feedforward": 16, "replay_capacity": 100, "batch_size": 4}
EMOTIONS = emotions(("neutral", "happy", "sad", "angry"))


def small(train, **config):
    return build("collaborative_mmcl", train, **{**SMALL, **config})


@pytest.fixture
def train():
    return make_split(size=16, aligned=True)


@pytest.fixture
def valid():
    return torch.arange(5) < torch.tensor([5, 2, 3]).unsqueeze(1)


def state_copy(module):
    return {name: x.clone() for name, x in module.state_dict().items()}


def changed(module, before):
    return {name for name, x in module.state_dict().items() if not torch.equal(x, before[name])}


class LikesOpenGates(nn.Module):
    """A critic whose value is the mean action, once its only weight is 1."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, state, action, valid):
        means = [(action[m] * valid[m]).sum(1) / valid[m].sum(1).clamp(min=1) for m in action]
        return self.weight * torch.stack(means).mean(0).unsqueeze(-1)


class TestNetworks:
    def test_parameter_counts_of_the_code(self):
        dims = {"text": 300, "audio": 74, "vision": 35}
        method = create("collaborative_mmcl", dims, EMOTIONS, decoupling="reference")

        def count(*modules):
            return sum(p.numel() for module in modules for p in module.parameters())

        assert count(method.project, method.attend) == 251_648
        assert count(method.policy.gates, method.predictor) == 1_912_718
        assert count(method.policy.critic) == 1_975_725
        assert count(method.policy.target) == count(method.policy.gates, method.policy.critic)

    def test_attention_normalises_the_context_without_the_input(self, valid):
        layer = ContextAttention(8, 2).double()
        x = torch.randn(3, 5, 8, dtype=torch.float64)
        found = layer(x, valid)
        for b, length in enumerate((5, 2, 3)):
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
        expected = torch.stack([states[b, :length].mean(0) for b, length in enumerate((5, 2, 3))])
        torch.testing.assert_close(summary(x, valid), expected)

    def test_a_summary_of_nothing_is_zero(self):
        summary = SequenceSummary(8, 2, 16)
        x = torch.randn(2, 5, 8, requires_grad=True)
        result = summary(x, torch.zeros(2, 5, dtype=torch.bool))
        assert (result == 0).all()
        result.sum().backward()
        assert x.grad.isfinite().all()

    def test_fusion(self, valid):
        parts = {m: torch.randn(3, 5, 8) for m in MODALITIES}
        masks = dict.fromkeys(MODALITIES, valid)
        add = Predictor(MODALITIES, 1, CollaborativeMMCLConfig(**SMALL, fusion="add")).eval()
        embedded = add.embed(parts, parts, masks)
        mean = torch.stack([parts["audio"][b, :n].mean(0) for b, n in enumerate((5, 2, 3))])
        torch.testing.assert_close(embedded["audio"][:, :8], mean)
        torch.testing.assert_close(embedded["audio"][:, 8:], add.summary["audio"](parts["audio"], valid))
        total = 0
        for m in MODALITIES:
            inner, outer = add.weigh[m]
            weight = (outer.weight @ (inner.weight @ embedded[m].T + inner.bias[:, None]) + outer.bias).sigmoid()
            total = total + weight.T * embedded[m] / 3
        torch.testing.assert_close(add.fuse(embedded), total)
        cat = Predictor(MODALITIES, 1, CollaborativeMMCLConfig(**SMALL, fusion="cat"))
        assert torch.equal(cat.fuse(embedded), torch.cat(list(embedded.values()), 1))
        assert [layer.out_features for layer in cat.head if isinstance(layer, nn.Linear)] == [24, 8, 1]

    def test_gates_are_one_number_per_position(self):
        gates = Actor(("text",), CollaborativeMMCLConfig(**SMALL)).double()
        state = {"text": torch.randn(2, 5, 8, dtype=torch.float64)}
        linear = gates.score["text"]
        expected = 1 / (1 + (-(state["text"] @ linear.weight[0] + linear.bias)).exp())
        torch.testing.assert_close(gates(state)["text"], expected)
        assert not torch.equal(gates(state, noise=0.1)["text"], gates(state)["text"])

    def test_the_critic_reads_states_with_their_actions(self, valid):
        critic = Critic(MODALITIES, CollaborativeMMCLConfig(**SMALL, dropout=0.0)).eval()
        state = {m: torch.randn(3, 5, 8) for m in MODALITIES}
        action = {m: torch.rand(3, 5) for m in MODALITIES}
        masks = dict.fromkeys(MODALITIES, valid)
        seen = [
            critic.summary[m](torch.cat([state[m], action[m][..., None], action[m][..., None]], -1), valid)
            for m in MODALITIES
        ]
        torch.testing.assert_close(critic(state, action, masks), critic.value(torch.cat(seen, 1)))

    def test_a_critic_per_modality_reads_nothing_of_the_others(self, valid):
        critic = Critic(MODALITIES, CollaborativeMMCLConfig(**SMALL, dropout=0.0, reward="per_modality")).eval()
        state = {m: torch.randn(3, 5, 8) for m in MODALITIES}
        action = {m: torch.rand(3, 5, requires_grad=True) for m in MODALITIES}
        values = critic(state, action, dict.fromkeys(MODALITIES, valid))
        assert values.shape == (3, 3)
        gradients = torch.autograd.grad(values[:, 1].sum(), list(action.values()), allow_unused=True)
        assert [bool(g.any()) for g in gradients] == [False, True, False]


class TestPrediction:
    @pytest.mark.parametrize("variant", ["corrected", "reference"])
    def test_actions_are_those_of_training_only_if_corrected(self, train, variant):
        """One batch after another: in the reference its gates are chosen in states gated by the batch before."""
        method = small(train, decoupling=variant, dropout=0.0)
        seen = []
        gates = method.policy.gates.forward
        method.policy.gates.forward = lambda state, noise=0.0: seen.append(gates(state, noise)) or seen[-1]
        first, second = train.data.select(torch.arange(8)), train.data.select(torch.arange(8, 16))
        optimizers = method.optimizers()
        method.training_step(first, optimizers)
        with torch.no_grad():
            evaluated = method.eval()(second).auxiliary["gates/text"].clone()
        method.train()
        seen.clear()
        method.training_step(second, optimizers)
        trained = seen[0]["text"]
        assert torch.equal(trained, evaluated) == (variant == "corrected")

    def test_batches_do_not_matter_even_of_one_word(self, train):
        method = small(train).eval()
        whole = method(train.data).prediction
        parts = [method(batch).prediction for batch in train.batches(1)]
        torch.testing.assert_close(torch.cat(parts), whole)
        assert min(train.lengths("text")) == 1

    def test_the_reference_works_in_the_length_of_its_training_data(self, train):
        method = small(train, decoupling="reference").eval()
        whole = method(train.data).prediction
        parts = [method(batch).prediction for batch in train.batches(3)]
        torch.testing.assert_close(torch.cat(parts), whole)
        views = method.decouple(next(train.batches(1)))
        assert views.weights["text/common"].shape == (1, 5, 5)
        assert views.valid["text"].all()

    def test_the_stored_weights_know_the_length(self, train):
        method = small(train, decoupling="reference")
        other = create("collaborative_mmcl", DIMS, train.task, **SMALL, decoupling="reference")
        other.load_state_dict(method.state_dict())
        batch = next(train.batches(2))
        torch.testing.assert_close(other.eval()(batch).prediction, method.eval()(batch).prediction)

    def test_views_are_the_decoupling_of_the_projections(self, train):
        method = small(train)
        views = method.decouple(train.data)
        z = {m: method.project[m](train.data.features[m]) for m in MODALITIES}
        common, specific, _ = decouple(z, train.data.valid["text"], align="ln")
        for m in MODALITIES:
            torch.testing.assert_close(views.common[m], common[m])
            torch.testing.assert_close(views.specific[m], specific[m])

    def test_representations(self, train):
        found = small(train).eval()(train.data).representations
        parts = ("common", "specific", "enhanced", "complementary")
        assert set(found) == {f"{m}/{part}" for m in MODALITIES for part in parts} | {"fusion"}
        assert {tuple(x.shape) for name, x in found.items() if name != "fusion"} == {(16, 8)}

    def test_evaluation_needs_no_critic(self, train):
        method = small(train).eval()
        expected = method(train.data).prediction
        method.policy.critic = None
        assert torch.equal(method(train.data).prediction, expected)


class TestInput:
    def test_unaligned_samples_are_refused(self):
        train = make_split()
        with pytest.raises(ConfigError, match=r"not word-aligned \(sample 's\d+' has"):
            small(train)
        method = small(make_split(aligned=True))
        with pytest.raises(ConfigError, match="not word-aligned"):
            method(train.data)

    def test_or_composed(self):
        train = make_split(size=16)
        method = small(train, unaligned="compose")
        steps, _ = train_epochs(method, train, epochs=3, size=4)
        assert "raw/critic" in steps[-1]
        assert method.eval()(train.data).prediction.isfinite().all()

    def test_utterance_level_features_are_refused(self):
        train = make_split(aligned=True)
        data = replace(
            train.data,
            features={**train.data.features, "audio": train.data.features["audio"][:, :1]},
            valid={**train.data.valid, "audio": train.data.valid["audio"][:, :1]},
            observed={**train.data.observed, "audio": train.data.observed["audio"][:, :1]},
        )
        train = replace(train, data=data, name="mine", feature_names={"audio": "audio73"})
        with pytest.raises(ConfigError, match=r"audio of mine \(audio73\) has one position per sample.*audio=None"):
            small(train)

    def test_one_position_is_refused_without_training_too(self):
        method = create("collaborative_mmcl", DIMS, make_split().task, **SMALL)
        batch = next(make_split(size=1, aligned=True, modalities=("text", "audio", "vision")).batches(1))
        cut = {
            name: {m: x[:, :1] for m, x in getattr(batch, name).items()} for name in ("features", "valid", "observed")
        }
        with pytest.raises(ConfigError, match="one position"):
            method(replace(batch, **cut))

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            ({"width": 9}, "multiple of heads"),
            ({"decoupling": "reference", "unaligned": "compose"}, "compose"),
            ({"no_policy": True, "no_rl": True}, "leave no_rl out"),
            ({"no_rl": True, "reward": "per_modality"}, "no reward"),
            ({"no_policy": True, "exploration": 0.1}, "no reward"),
            ({"no_rl": True, "gamma": 0.5}, "no reward"),
        ],
    )
    def test_contradictions_are_refused(self, train, config, reason):
        with pytest.raises(ConfigError, match=reason):
            small(train, **config)

    def test_one_modality_is_refused(self):
        with pytest.raises(ConfigError, match="only text"):
            small(make_split(modalities=("text",)))


class TestPlayers:
    def test_the_step_of_the_reward_moves_gates_and_critic_only(self, train):
        method = small(train)
        optimizers = method.optimizers()
        for batch in train.batches(4):
            method.training_step(batch, optimizers)
        before = state_copy(method)
        method.learn(4, optimizers)
        moved = changed(method, before)
        assert moved
        assert all(name.startswith(("policy.gates", "policy.critic")) for name in moved)
        assert any(name.startswith("policy.gates") for name in moved)

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
        method = small(train, replay="batch", dropout=0.0)
        optimizers = method.optimizers()
        seen = {}
        learn = method.learn

        def watch(size, optimizers):
            stored = method.replay.rows
            state, action, valid = (method.unflatten(stored, n) for n in ("state", "action", "valid"))
            with torch.no_grad():
                seen["expected"] = (method.policy.critic(state, action, valid) - stored["reward"]).abs().mean().item()
            return learn(size, optimizers)

        method.learn = watch
        log = method.training_step(train.data, optimizers)
        assert log["raw/critic"] == pytest.approx(seen["expected"], rel=1e-5)
        assert log["loss/critic"] == pytest.approx(13 * seen["expected"], rel=1e-5)

    def test_a_future_is_discounted(self, train):
        method = small(train, gamma=0.5, replay="batch", dropout=0.0)
        optimizers, seen = method.optimizers(), {}
        learn = method.learn

        def watch(size, optimizers):
            stored = method.replay.rows
            names = ("state", "action", "valid", "next", "next_valid")
            state, action, valid, following, later = (method.unflatten(stored, name) for name in names)
            target = method.policy.target.eval()
            with torch.no_grad():
                aim = stored["reward"] + 0.5 * target["critic"](following, target["gates"](following), later)
                seen["expected"] = (method.policy.critic(state, action, valid) - aim).abs().mean().item()
            return learn(size, optimizers)

        method.learn = watch
        logs = [method.training_step(batch, optimizers) for batch in train.batches(8)]
        assert "raw/critic" not in logs[0]
        assert logs[1]["raw/critic"] == pytest.approx(seen["expected"], rel=1e-5)

    def test_the_next_state_is_the_next_batch(self, train):
        """Defect D8, kept where a future is asked for: row i is followed by row i of the batch after it."""
        method = small(train, gamma=0.5)
        first, second = train.data.select(torch.arange(8)), train.data.select(torch.arange(8, 16))
        optimizers = method.optimizers()
        method.training_step(first, optimizers)
        assert len(method.replay) == 0
        expected = method.decouple(second).specific["text"].detach()
        method.training_step(second, optimizers)
        stored = method.replay.rows
        torch.testing.assert_close(stored["next/text"], expected)
        assert torch.equal(stored["next_valid/text"], second.valid["text"])

    def test_the_reference_gates_a_state_by_the_batch_before(self, train):
        method = small(train, decoupling="reference")
        first, second = train.data.select(torch.arange(8)), train.data.select(torch.arange(8, 16))
        optimizers = method.optimizers()
        method.training_step(first, optimizers)
        actions = method.carried["action/text"].clone()
        raw = method.decouple(second).specific["text"].detach()
        method.training_step(second, optimizers)
        torch.testing.assert_close(method.replay.rows["next/text"], raw * actions.unsqueeze(-1))
        torch.testing.assert_close(method.carried["state/text"], raw * actions.unsqueeze(-1))

    def test_batches_of_other_sizes_chain_as_far_as_they_go(self, train):
        method = small(train, decoupling="reference")
        steps, _ = train_epochs(method, train, epochs=3, size=6)  # 6, 6, 4 samples
        assert all(torch.tensor(list(step.values())).isfinite().all() for step in steps)

    @pytest.mark.parametrize("variant", ["corrected", "reference"])
    def test_targets_start_as_copies_only_if_corrected(self, train, variant):
        method = small(train, rl=variant, gamma=0.5)
        online = nn.ModuleDict({"gates": method.policy.gates, "critic": method.policy.critic}).state_dict()
        same = [torch.equal(x, online[name]) for name, x in method.policy.target.state_dict().items()]
        assert all(same) == (variant == "corrected")

    @pytest.mark.parametrize("variant", ["corrected", "reference"])
    def test_targets_follow_slowly(self, train, variant):
        method = small(train, rl=variant, gamma=0.5, target_rate=0.25)
        optimizers = method.optimizers()
        for batch in train.batches(4):
            method.training_step(batch, optimizers)
        before = state_copy(method.policy.target)
        method.learn(4, optimizers)
        online = nn.ModuleDict({"gates": method.policy.gates, "critic": method.policy.critic}).state_dict()
        for name, parameter in method.policy.target.named_parameters():
            torch.testing.assert_close(parameter, before[name] + 0.25 * (online[name] - before[name]))
        assert not any(p.requires_grad for p in method.policy.target.parameters())
        follows = changed(method.policy.target, before) & {name for name in before if "running_mean" in name}
        assert method.policy.target["critic"].value[4].training == (variant == "reference")
        assert follows  # the corrected target takes the online statistics, the reference's makes its own

    def test_no_future_no_target(self, train):
        assert small(train).policy.target is None
        assert small(train, decoupling="reference", gamma=0.0).policy.target is None

    @pytest.mark.parametrize(("variant", "shared"), [("corrected", False), ("reference", True)])
    def test_who_steps_what(self, train, variant, shared):
        method = small(train, decoupling=variant)
        owned = {name: {id(p) for g in o.param_groups for p in g["params"]} for name, o in method.optimizers().items()}
        gates = {id(p) for p in method.policy.gates.parameters()}
        predictor = {id(p) for p in method.predictor.parameters()}
        assert gates <= owned["actor"]
        assert (predictor <= owned["actor"]) == shared
        assert (predictor <= owned["task"]) != shared
        assert (gates <= owned["task"]) != shared
        assert owned["critic"] == {id(p) for p in method.policy.critic.parameters()}

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

    def test_a_reward_that_is_not_finite_stops_the_run(self, train):
        method = small(train, replay="batch")
        with torch.no_grad():
            method.policy.critic.value[-1].bias.fill_(float("nan"))
        with pytest.raises(RunError, match="critic is nan"):
            method.training_step(train.data, method.optimizers())
