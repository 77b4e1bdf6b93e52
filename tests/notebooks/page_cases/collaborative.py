"""Notebook 03: the parts of `collaborative_mmcl`, the whole network, and one training step of its three players."""

import torch
from page_definitions import assert_same, case, copy_weights

from mmsa_lib.data import load
from mmsa_lib.methods import collaborative_mmcl as library
from mmsa_lib.methods import create

PAGE = "03_collaborative_mmcl"
LAYER = {
    "layer.self_attn": "attention", "layer.linear1": "expand", "layer.linear2": "reduce",
    "layer.norm1": "norm_attention", "layer.norm2": "norm",
}  # fmt: skip
MODALITIES = ("text", "audio", "vision")
OWN = {"width": 12, "heads": 4, "feedforward": 64, "dropout": 0.0, "replay": "batch", "learning_rate": 1e-3}
SIZES = library.CollaborativeMMCLConfig(**OWN)


def sequences():
    """Words of three modalities, the second utterance with padding."""
    valid = torch.arange(5) < torch.tensor([[5], [3]])
    return {m: torch.randn(2, 5, 12) for m in MODALITIES}, dict.fromkeys(MODALITIES, valid)


SUMMARIES = {f"summary.{m}.{one}": f"summary.{m}.{two}" for m in MODALITIES for one, two in LAYER.items()}
"""Names inside the page's summaries to those of the library."""


@case(PAGE, "decouple")
def split(page):
    z, valid = sequences()
    options = {"align": "ln", "temperature": 0.1}
    assert_same(lambda z: page.decouple(z, valid), lambda z: library.decouple(z, valid, **options), z)


@case(PAGE, "IntraAttention", "Summary")
def attention_and_summary(page):
    z, valid = sequences()
    theirs, ours = library.ContextAttention(12, 4), page.IntraAttention(12)
    weights = copy_weights(theirs, ours)
    assert_same(lambda x: ours(x, valid["text"])[0], lambda x: theirs(x, valid["text"]), z["text"], weights=weights)
    theirs, ours = library.SequenceSummary(12, 4, 64), page.Summary(12)
    weights = copy_weights(theirs, ours, LAYER)
    assert_same(lambda x: ours(x, valid["text"]), lambda x: theirs(x, valid["text"]), z["text"], weights=weights)


@case(PAGE, "Policies", "Critic", "Fusion", "reward")
def policies_critic_and_fusion(page):
    z, valid = sequences()
    theirs, ours = library.Actor(MODALITIES, SIZES), page.Policies(MODALITIES, 12)
    assert_same(ours, theirs, z, weights=copy_weights(theirs, ours))
    theirs, ours = library.Critic(MODALITIES, SIZES), page.Critic(MODALITIES, 12, dropout=0.0)
    weights = copy_weights(theirs, ours, {"value": "value", **SUMMARIES})
    action = {m: torch.rand(2, 5) for m in MODALITIES}
    assert_same(lambda s, a: ours(s, a, valid), lambda s, a: theirs(s, a, valid)[:, 0], z, action, weights=weights)
    theirs, ours = library.Predictor(MODALITIES, 1, SIZES), page.Fusion(MODALITIES, 12)
    weights = copy_weights(theirs, ours, {"weigh": "weigh", "head": "head", **SUMMARIES})
    ours.head[1].p = 0.0
    P, gated = z, sequences()[0]
    assert_same(
        lambda P, N: ours(P, N, valid)[0],
        lambda P, N: theirs(theirs.embed(P, N, valid))[:, 0],
        P,
        gated,
        weights=weights,
    )
    y_hat, y = torch.tensor([0.5, -3.5, 2.0]), torch.tensor([1.0, 3.0, 2.0])
    task = load("synthetic", samples=(4, 2, 2))["train"].task
    assert_same(lambda x: page.reward(x, y, 6.0), lambda x: library.joint_reward(x, y, task), y_hat)


@case(PAGE, "CollaborativeNet", "players", "step")
def whole_network_and_one_step(page):
    """Prediction and gradient of the network; weights after a step of task, critic and actor."""
    train = load("synthetic", samples=(40, 8, 8), dims=(12, 8, 8), length=6)["train"]
    theirs = create("collaborative_mmcl", train.dims, train.task, weight_task=1.0, weight_rl=1.0, **OWN)
    theirs.start_phase("train", train)
    ours = page.CollaborativeNet(train.dims, d=12)
    for part in (ours.fusion.head, ours.critic.value):
        for layer in part:
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
    policy = theirs.policy
    weights = [
        *copy_weights(theirs.project, ours.project),
        *copy_weights(theirs.attend, ours.attend),
        *copy_weights(policy.gates, ours.policies),
        *copy_weights(theirs.predictor, ours.fusion, {"weigh": "weigh", "head": "head", **SUMMARIES}),
        *copy_weights(policy.critic, ours.critic, {"value": "value", **SUMMARIES}),
    ]
    batch = train.data

    assert_same(lambda: ours(batch.features, batch.valid)[0], lambda: theirs(batch).prediction, weights=weights)
    page.step(ours, batch.features, batch.valid, batch.labels, 6.0, page.players(ours))
    theirs.train().training_step(batch, theirs.optimizers())
    for mine, other in weights:
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)  # a step of Adam moves a weight by 1e-3
