"""The crossmodal Transformers, against attention written out with loops."""

import math
from dataclasses import replace

import pytest
import torch
from method_data import build, make_split

from mmsa_lib.methods.mult import CrossmodalTransformer, MulTConfig
from mmsa_lib.nn.encoders import sinusoidal_positions


@pytest.fixture
def train():
    return make_split()


def slow_transformer(network, target, source, valid, source_valid):
    """One sample in float64: ``(T, d)`` of which ``valid`` steps are real, and the same of the source."""
    length, source_length = int(valid.sum()), int(source_valid.sum())
    shift, width = abs(length - source_length), target.shape[1]
    x, s = (math.sqrt(width) * z + sinusoidal_positions(*z.shape).double() for z in (target, source))
    for layer in network.layers:
        attention, size = layer.attention, width // network.heads
        query, key = layer.norm(x), layer.norm(x if source is target else s)
        q, k, v = (
            z @ w.T + b
            for z, w, b in zip(
                (query, key, key), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
            )
        )
        rows = []
        for i in range(length):
            heads = []
            for h in range(network.heads):
                part = slice(h * size, (h + 1) * size)
                seen = [j for j in range(source_length) if not network.future_mask or j <= i + shift]
                scores = torch.stack([q[i, part] @ k[j, part] / math.sqrt(size) for j in seen]).exp()
                heads.append(sum(w * v[j, part] for w, j in zip(scores / scores.sum(), seen, strict=True)))
            rows.append(x[i] + attention.out_proj(torch.cat(heads)))
        x = torch.cat([torch.stack(rows), x[length:]])
        hidden = layer.feedforward[0](layer.norm_feedforward(x)).relu()
        x = x + layer.feedforward[3](hidden)
    return network.norm(x)[:length]


@pytest.mark.parametrize("future_mask", [True, False])
@pytest.mark.parametrize("crossed", [True, False])
def test_a_transformer_is_the_slow_computation(future_mask, crossed):
    torch.manual_seed(0)
    config = MulTConfig(width=6, heads=2, layers=2, future_mask=future_mask)
    network = CrossmodalTransformer(6, 2, 0.1, config).double().eval()
    target, source = torch.randn(2, 5, 6).double(), torch.randn(2, 7, 6).double()
    valid, source_valid = (
        torch.arange(n) < torch.tensor(lengths)[:, None] for n, lengths in ((5, [3, 5]), (7, [7, 4]))
    )
    if not crossed:
        source, source_valid = target, valid
    found = network(target, valid, *((source, source_valid) if crossed else ()))
    for i in range(2):
        own = target[i]
        expected = slow_transformer(network, own, source[i] if crossed else own, valid[i], source_valid[i])
        torch.testing.assert_close(found[i, : valid[i].sum()], expected, rtol=1e-9, atol=1e-9)


def test_the_head_reads_the_last_states_of_each_target(train):
    method = build("mult", train, width=10, heads=2, layers=1).eval()
    output, batch = method(train.data), train.data
    low = {m: batch.features[m] @ method.project[m].weight.squeeze(-1).T for m in method.modalities}
    for target, sources in (("text", ("audio", "vision")), ("vision", ("text", "audio"))):
        valid = batch.valid[target]
        crossed = [method.crossmodal[f"{target}_from_{s}"](low[target], valid, low[s], batch.valid[s]) for s in sources]
        states = method.memory[target](torch.cat(crossed, dim=-1), valid)
        for i in range(len(train)):
            last = states[i, int(valid[i].sum()) - 1]
            torch.testing.assert_close(output.representations[f"{target}/feature"][i], last)
    fused = torch.cat([output.representations[f"{m}/feature"] for m in method.modalities], dim=-1)
    assert fused.shape == (12, 3 * 2 * 10)
    assert torch.equal(output.representations["fusion"], fused)
    first, last = method.residual[0], method.residual[3]
    torch.testing.assert_close(output.prediction, method.predict(fused + last(first(fused).relu())).squeeze(-1))


def test_every_ordered_pair_has_its_transformer(train):
    method = build("mult", train)
    assert len(method.crossmodal) == 6
    assert (len(method.crossmodal["text_from_audio"].layers), len(method.memory["text"].layers)) == (5, 5)
    shallow = build("mult", train, layers=1)
    assert (len(shallow.crossmodal["text_from_audio"].layers), len(shallow.memory["text"].layers)) == (1, 3)
    two = build("mult", make_split(modalities=("text", "audio")))
    assert set(two.crossmodal) == {"text_from_audio", "audio_from_text"}
    assert two.predict.in_features == 2 * 30


@pytest.mark.parametrize("kernel", [1, 3])
def test_padding_and_kernel(train, kernel):
    """A longer batch changes nothing, also under a convolution wider than a frame; missing frames are not padding."""
    method = build("mult", train, kernel=kernel, layers=1).eval()
    whole, alone = method(train.data).prediction, method(next(train.select(torch.tensor([1])).batches(1))).prediction
    torch.testing.assert_close(whole[1:2], alone)
    audio = train.data.valid["audio"]
    gap = audio & (torch.arange(audio.shape[1]) != 0)
    missing = train.data.hide({"audio": gap})
    assert not torch.allclose(method(missing).prediction, whole)


def test_switches_change_what_they_name(train):
    plain = build("mult", train, layers=1).eval()(train.data).prediction
    for change in ({"future_mask": False}, {"readout": "mean"}):
        assert not torch.allclose(build("mult", train, layers=1, **change).eval()(train.data).prediction, plain)
    mean = build("mult", train, layers=1, readout="mean").eval()
    states = []
    mean.memory["audio"].register_forward_hook(lambda module, given, out: states.append(out))
    feature = mean(train.data).representations["audio/feature"]
    torch.testing.assert_close(feature[2], states[0][2, train.data.valid["audio"][2]].mean(0))


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("dropout_attention", "crossmodal"),
        ("dropout_attention_audio", "crossmodal"),
        ("dropout_attention_vision", "crossmodal"),
        ("dropout_relu", "crossmodal"),
        ("dropout_residual", "crossmodal"),
        ("dropout_embedding", "crossmodal"),
        ("dropout", "residual"),
    ],
)
def test_each_dropout_acts_by_itself(train, name, reached):
    names = [n for n in MulTConfig.model_fields if n.startswith("dropout")]
    off = dict.fromkeys(names, 0.0)
    method = build("mult", train, layers=1, **off)
    assert torch.equal(method(train.data).prediction, method(train.data).prediction)
    method = build("mult", train, layers=1, **{**off, name: 0.5})
    first, second = method(train.data), method(train.data)
    assert not torch.equal(first.prediction, second.prediction)
    same = torch.equal(first.representations["fusion"], second.representations["fusion"])
    assert same is (reached == "residual")


def test_unlabelled_samples_do_not_reach_the_loss(train):
    method = build("mult", train, layers=1).eval()
    known = torch.arange(12) < 5
    labels = torch.where(known, train.labels, float("nan"))
    some = replace(train.data, labels=labels, labelled=known)
    few = train.data.select(torch.arange(5))
    loss = method.losses(some, method(some))["task"]
    torch.testing.assert_close(loss, method.losses(few, method(few))["task"])
