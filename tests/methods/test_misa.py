"""Shared and private vectors, the LSTMs that they are made of, and the objective."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from method_data import build, make_split, reached, train_epochs
from torch.nn import functional as F

from mmsa_lib.losses.subspaces import central_moment_discrepancy, difference
from mmsa_lib.methods.misa import StackedLSTM

SMALL = {"width": 8}


@pytest.fixture
def train():
    return make_split()


def test_stacked_lstms_read_each_sample_from_both_ends(train):
    torch.manual_seed(0)
    network = StackedLSTM(4).double()
    frames, valid = train.data.features["audio"].double(), train.data.valid["audio"]
    found = network(frames, valid)
    assert found.shape == (12, 16)
    for i in range(12):
        alone = frames[i : i + 1, : valid[i].sum()]
        states, (first, _) = network.first(alone)
        second = network.second(network.norm(states))[1][0]
        torch.testing.assert_close(found[i], torch.cat([first[0, 0], first[1, 0], second[0, 0], second[1, 0]]))


def test_the_network_is_what_it_says(train):
    method = build("misa", train, **SMALL).eval()
    output = method(train.data)
    vectors = {m: method.project[m](method._utterance(m, train.data)) for m in method.modalities}
    text = train.data.features["text"][0, train.data.valid["text"][0]].mean(0)
    torch.testing.assert_close(vectors["text"][0], method.project["text"](text))
    for m, x in vectors.items():
        private = torch.sigmoid(x @ method.private[m][0].weight.T + method.private[m][0].bias)
        shared = torch.sigmoid(x @ method.shared[0].weight.T + method.shared[0].bias)
        torch.testing.assert_close(output.representations[f"{m}/private"], private)
        torch.testing.assert_close(output.representations[f"{m}/shared"], shared)
        torch.testing.assert_close(output.auxiliary[f"reconstructed/{m}"], method.reconstruct[m](private + shared))
    named = [output.representations[f"{m}/{part}"] for part in ("private", "shared") for m in method.modalities]
    fused = method.fuse(torch.stack(named, dim=1)).flatten(1)
    torch.testing.assert_close(output.representations["fusion"], fused)
    assert fused.shape == (12, 6 * 8)
    torch.testing.assert_close(output.prediction, method.head(fused).squeeze(-1))


def test_the_loss_is_the_weighted_sum_of_its_parts(train):
    method = build("misa", train, **SMALL)
    output = method(train.data)
    losses = method.losses(train.data, output)
    shared, private = ([output.representations[f"{m}/{p}"] for m in method.modalities] for p in ("shared", "private"))
    expected = {
        "task": ((output.prediction - train.labels) ** 2).mean(),
        "similarity": sum(central_moment_discrepancy(x, y, 5) for x, y in combinations(shared, 2)) / 3,
        "difference": sum(difference(s, p) for s, p in zip(shared, private, strict=True))
        + sum(difference(x, y) for x, y in combinations(private, 2)),
        "reconstruction": sum(
            (output.auxiliary[f"reconstructed/{m}"] - output.auxiliary[f"projected/{m}"]).square().mean()
            for m in method.modalities
        )
        / 3,
    }
    for name, weight in (("task", 1.0), ("similarity", 1.0), ("difference", 0.3), ("reconstruction", 1.0)):
        torch.testing.assert_close(losses.raw[name], expected[name])
        torch.testing.assert_close(losses[name], weight * expected[name])
    assert set(method.eval().losses(train.data, output)) == {"task"}
    torch.testing.assert_close(
        method.losses(train.data, output)["task"], (output.prediction - train.labels).abs().mean()
    )


@pytest.mark.parametrize("term", ["similarity", "difference", "reconstruction"])
def test_a_term_without_weight_is_off(train, term):
    for off in ({f"no_{term}": True}, {f"lambda_{term}": 0.0}):
        method = build("misa", train, **SMALL, **off)
        assert set(method.losses(train.data, method(train.data))) == {
            "task", "similarity", "difference", "reconstruction",
        } - {term}  # fmt: skip


def test_what_each_term_reaches(train):
    method = build("misa", train, **SMALL)
    raw = method.losses(train.data, method(train.data)).raw
    below = {"encoders", "project", "shared"}
    assert reached(raw["similarity"], method) == below
    assert reached(raw["difference"], method) == below | {"private"}
    assert reached(raw["reconstruction"], method) == below | {"private", "reconstruct"}
    assert reached(raw["task"], method) == below | {"private", "fuse", "head"}


def test_training_brings_shared_vectors_together_and_reconstructs(train):
    steps, _ = train_epochs(build("misa", train, learning_rate=1e-2, **SMALL), train, epochs=40, size=12)
    for term in ("similarity", "reconstruction"):
        assert steps[-1][f"raw/{term}"] < 0.5 * steps[0][f"raw/{term}"]


def test_the_discriminator_learns_what_shared_vectors_unlearn(train):
    method = build("misa", train, similarity="adversarial", reverse_weight=0.5, dropout=0.0, **SMALL)
    output = method(train.data)
    shared = [output.representations[f"{m}/shared"] for m in method.modalities]
    loss = method.losses(train.data, output).raw["similarity"]
    logits = [method.discriminator(x) for x in shared]
    origins = [torch.full((12,), k) for k in range(3)]
    direct = sum(F.cross_entropy(x, y) for x, y in zip(logits, origins, strict=True)) / 3
    torch.testing.assert_close(loss, direct)
    weight = method.discriminator[0].weight
    torch.testing.assert_close(*(torch.autograd.grad(value, weight, retain_graph=True)[0] for value in (loss, direct)))
    into, straight = (torch.autograd.grad(value, shared[0], retain_graph=True)[0] for value in (loss, direct))
    torch.testing.assert_close(into, -0.5 * straight)
    assert build("misa", train, **SMALL).discriminator is None


def test_switches_change_what_they_name(train):
    plain = build("misa", train, **SMALL).eval()
    mean = build("misa", train, sequence="mean", **SMALL).eval()
    assert not any("encoders" in name for name in mean.state_dict())
    audio = train.data.features["audio"][3, train.data.valid["audio"][3]].mean(0)
    projected = mean(train.data).auxiliary["projected/audio"][3]
    torch.testing.assert_close(projected, mean.project["audio"](audio))
    assert not torch.equal(plain(train.data).prediction, mean(train.data).prediction)
    l1 = build("misa", train, task_loss="l1", dropout=0.0, dropout_attention=0.0, **SMALL)
    output = l1(train.data)
    torch.testing.assert_close(l1.losses(train.data, output)["task"], (output.prediction - train.labels).abs().mean())
    fewer = build("misa", train, moments=1, **SMALL)
    raw = [m.train().losses(train.data, output).raw["similarity"] for m in (plain, fewer)]
    assert raw[1] < raw[0]
    for name in ("dropout", "dropout_attention"):
        off = {"dropout": 0.0, "dropout_attention": 0.0}
        still, moving = (build("misa", train, **{**off, **own}, **SMALL) for own in ({}, {name: 0.5}))
        assert torch.equal(still(train.data).prediction, still(train.data).prediction)
        assert not torch.equal(moving(train.data).prediction, moving(train.data).prediction)


def test_labels_reach_the_task_loss_alone(train):
    method = build("misa", train, dropout=0.0, dropout_attention=0.0, **SMALL)
    known = torch.arange(12) < 5
    some = replace(train.data, labels=torch.where(known, train.labels, float("nan")), labelled=known)
    found, whole = method.losses(some, method(some)).raw, method.losses(train.data, method(train.data)).raw
    for term in ("similarity", "difference", "reconstruction"):
        assert torch.equal(found[term], whole[term])
    few = train.data.select(torch.arange(5))
    torch.testing.assert_close(found["task"], method.losses(few, method(few)).raw["task"])
    nothing = replace(some, labelled=torch.zeros(12, dtype=torch.bool))
    assert method.losses(nothing, method(nothing)).raw["task"].item() == 0
