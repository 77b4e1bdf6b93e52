"""The network of hrlf: against a slow double-precision computation, its shapes, its size, padding on either side."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hrlf_data import arrays, hidden_relu, linear, slow_state, small
from method_data import make_split, pad
from torch import nn

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.task import regression
from mmsa_lib.methods import create
from mmsa_lib.methods.hrlf import AttentionBlock, HRLFConfig, HRLFNetwork, StateEncoder, scale_widths

READOUTS = pytest.mark.parametrize("readout", ["last", "mean"])


@pytest.fixture
def train():
    return make_split(size=6)


@READOUTS
def test_prediction_step_by_step(train, readout):
    method = small(train, readout=readout).eval()
    batch, network = train.data, method.student
    w, output = arrays(network), method(train.data)
    for i in range(len(batch)):
        joined = []
        for m in MODALITIES:
            frames = batch.features[m][i][batch.valid[m][i]].double().numpy()
            z = slow_state(network.encoders[m], frames, 2, readout)
            q, u = hidden_relu(w, f"sentiment.{m}", z), hidden_relu(w, f"specific.{m}", z)
            joined += [q, u]
            for name, expected in (("state", z), ("sentiment", q), ("specific", u)):
                found = output.representations[f"{m}/{name}"][i].detach().numpy()
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        x = np.concatenate(joined)
        for layer in range(3):
            x = np.maximum(linear(w, f"stack.{layer}", x), 0)
        x = linear(w, "stack.3", x)
        np.testing.assert_allclose(output.representations["fusion"][i].detach().numpy(), x, rtol=1e-4, atol=1e-5)
        assert output.prediction[i].item() == pytest.approx(linear(w, "predict", x).item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("qu_dim", [20, 40])
def test_shapes(count, qu_dim):
    split = make_split(size=5, modalities=MODALITIES[:count])
    network = HRLFNetwork(split.dims, 1, HRLFConfig(qu_dim=qu_dim))
    encoding = network(split.data)
    top = 40 * count
    assert encoding.joint.shape == encoding.fused.shape == (5, top)
    assert [x.shape[1] for x in encoding.inner] == [80, 40, 80]
    assert {x.shape for x in encoding.states.values()} == {(5, 40)}
    assert {x.shape for x in (*encoding.sentiment.values(), *encoding.specific.values())} == {(5, qu_dim)}
    assert isinstance(network.join, nn.Linear) is (qu_dim == 40)
    for merge, widths in (("concat", [2 * top, 160, 40]), ("mean", [top, 80, 40])):
        assert [x.shape for x in encoding.scales(merge)] == [(5, width) for width in widths]
        assert scale_widths(count, HRLFConfig(scale_merge=merge)) == widths


def test_scales_join_what_they_should(train):
    encoding = small(train).student(train.data)
    h, (down, middle, up), again = encoding.joint, encoding.inner, encoding.fused
    joined, mean = encoding.scales("concat"), encoding.scales("mean")
    torch.testing.assert_close(joined, [torch.cat([h, again], 1), torch.cat([down, up], 1), middle])
    torch.testing.assert_close(mean, [(h + again) / 2, (down + up) / 2, middle])


def test_number_of_parameters():
    """The sketch in docs/methods/hrlf.md has 211,601 per network, with the paper's feature widths."""
    method = create("hrlf", {"text": 300, "audio": 74, "vision": 35}, regression())
    for network in (method.teacher, method.student):
        assert sum(p.numel() for p in network.parameters()) == 211_601


def test_a_block_is_a_transformer_layer():
    torch.manual_seed(0)
    block = AttentionBlock(12, 3, 20, 0.0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, 0.0, batch_first=True)
    ours = dict(block.named_parameters())
    names = {"self_attn": "attention", "linear1": "feedforward.0", "linear2": "feedforward.2",
             "norm1": "norms.0", "norm2": "norms.1"}  # fmt: skip
    with torch.no_grad():
        for name, p in layer.named_parameters():
            first, rest = name.split(".", 1)
            p.copy_(ours[f"{names[first]}.{rest}"])
    x = torch.randn(4, 7, 12)
    ignored = torch.arange(7) >= torch.tensor([7, 5, 3, 1]).unsqueeze(1)
    expected = layer(x, src_key_padding_mask=ignored)
    torch.testing.assert_close(block(x, x, ignored), expected)
    torch.testing.assert_close(block(x[:, 2:3], x, ignored), expected[:, 2:3])


def left_padded(batch, frames=3, value=50.0):
    """The same batch with all padding, and ``frames`` more steps of it, on the left."""
    batch = pad(batch, frames, value)

    def moved(m, x):
        return torch.stack([row.roll(int((~keep).sum()), 0) for row, keep in zip(x, batch.valid[m], strict=True)])

    parts = {
        name: {m: moved(m, x) for m, x in getattr(batch, name).items()} for name in ("features", "valid", "observed")
    }
    return replace(batch, **parts)


@READOUTS
@pytest.mark.parametrize("dropped", [False, True])
def test_padding_on_either_side_changes_nothing(train, dropped, readout):
    """Also where the last valid frame is missing: it is a zero vector and stays the last."""
    batch = train.data
    if dropped:
        last = {m: torch.arange(v.shape[1]) < v.sum(1, keepdim=True) - 1 for m, v in batch.valid.items()}
        batch = batch.hide(last)
    method = small(train, readout=readout).eval()
    plain, right, left = method(batch), method(pad(batch)), method(left_padded(batch))
    assert not left_padded(batch).valid["text"][:, 0].any()
    for name, value in plain.representations.items():
        torch.testing.assert_close(right.representations[name], value)
        torch.testing.assert_close(left.representations[name], value)
    torch.testing.assert_close(left.prediction, plain.prediction)


def test_missing_is_not_padding(train):
    """A frame that is missing leaves a zero vector at its place; one that is padding leaves nothing."""
    encoder = small(train).eval().student.encoders["text"]
    x, valid = torch.randn(1, 4, 6), torch.ones(1, 4, dtype=torch.bool)
    zeroed = x * torch.tensor([1, 1, 1, 0]).view(1, 4, 1)
    shorter = torch.arange(4).unsqueeze(0) < 3
    assert not torch.allclose(encoder(zeroed, valid), encoder(zeroed, shorter))
    torch.testing.assert_close(encoder(zeroed, shorter), encoder(x[:, :3], valid[:, :3]))


def test_no_valid_frame_is_one_frame_of_zeros(train):
    encoder = small(train).eval().student.encoders["text"]
    garbage, nothing = torch.randn(2, 4, 6), torch.zeros(2, 4, dtype=torch.bool)
    first = torch.arange(4).expand(2, 4) == 0
    found = encoder(garbage, nothing)
    assert found.isfinite().all()
    torch.testing.assert_close(found, encoder(torch.zeros(2, 4, 6), first))
    assert found.abs().sum() > 0


def test_positions_matter():
    torch.manual_seed(0)
    encoder = StateEncoder(3, HRLFConfig(dropout=0.0))
    x, valid = torch.randn(1, 8, 3), torch.ones(1, 8, dtype=torch.bool)
    x[:, -2:] = 0  # the convolution of the last position sees no difference
    swapped = x[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    assert not torch.allclose(encoder(x, valid), encoder(swapped, valid), atol=1e-4)
