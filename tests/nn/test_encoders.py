"""Sequence-to-sequence encoders against samples taken one by one."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError
from mmsa_lib.nn.encoders import FrameLSTM, FrameTransformer, sinusoidal_positions

LENGTHS = [6, 1, 4]


@pytest.fixture
def padded():
    torch.manual_seed(0)
    valid = torch.arange(6) < torch.tensor(LENGTHS).unsqueeze(1)
    return torch.randn(3, 6, 8, dtype=torch.float64) * valid.unsqueeze(-1), valid


def encoders():
    torch.manual_seed(1)
    transformer = FrameTransformer(8, layers=2, heads=2, feedforward=16, dropout=0.3)
    return [transformer.double().eval(), FrameLSTM(8, layers=2).double().eval()]


BOTH = pytest.mark.parametrize("encoder", encoders(), ids=["transformer", "lstm"])


@pytest.mark.parametrize("width", [6, 7])
def test_positions(width):
    positions = sinusoidal_positions(9, width)
    for t in range(9):
        for column in range(width):
            angle = t / 10000 ** ((column - column % 2) / width)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert positions[t, column].item() == pytest.approx(expected, abs=1e-5)


@BOTH
@pytest.mark.parametrize("gradients", [True, False])
def test_padded_samples_equal_samples_alone(encoder, padded, gradients):
    sequence, valid = padded
    with torch.set_grad_enabled(gradients):
        states = encoder(sequence, valid)
        for row, length in enumerate(LENGTHS):
            alone = encoder(sequence[row : row + 1, :length], valid[row : row + 1, :length])
            torch.testing.assert_close(states[row, :length], alone[0])
            assert (states[row, length:] == 0).all()


@BOTH
@pytest.mark.parametrize("garbage", [1e6, float("nan")])
def test_padding_never_matters(encoder, padded, garbage):
    sequence, valid = padded
    states = encoder(sequence, valid)
    dirty = encoder(sequence.masked_fill(~valid.unsqueeze(-1), garbage), valid)
    assert torch.equal(dirty, states)


@BOTH
@pytest.mark.parametrize("training", [True, False])
def test_a_sample_without_a_valid_step_gives_zeros(encoder, padded, training):
    sequence, valid = padded
    valid[1] = False
    leaf = sequence.clone().requires_grad_()
    states = encoder.train(training)(leaf, valid)
    states.square().sum().backward()
    encoder.eval()
    assert (states[1] == 0).all()
    assert states.isfinite().all()
    assert leaf.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())
    with torch.no_grad():
        assert (encoder(sequence, valid)[1] == 0).all()


def test_one_layer_is_attention_and_a_feedforward_each_after_a_norm(padded):
    sequence, _ = padded
    torch.manual_seed(2)
    encoder = FrameTransformer(8, layers=1, heads=2, feedforward=16, dropout=0.0, positions=False).double()
    layer, x = encoder.layers[0], sequence[0]
    normed = F.layer_norm(x, (8,), layer.norm1.weight, layer.norm1.bias)
    attention = layer.self_attn
    q, k, v = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=-1)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        heads.append((q[:, part] @ k[:, part].T / 2.0).softmax(-1) @ v[:, part])
    x = x + torch.cat(heads, dim=-1) @ attention.out_proj.weight.T + attention.out_proj.bias
    normed = F.layer_norm(x, (8,), layer.norm2.weight, layer.norm2.bias)
    hidden = (normed @ layer.linear1.weight.T + layer.linear1.bias).relu()
    x = x + hidden @ layer.linear2.weight.T + layer.linear2.bias
    expected = F.layer_norm(x, (8,), encoder.norm.weight, encoder.norm.bias)
    torch.testing.assert_close(encoder(sequence[:1], torch.ones(1, 6, dtype=torch.bool))[0], expected)


def test_positions_make_order_matter(padded):
    sequence, _ = padded
    valid = torch.ones(3, 6, dtype=torch.bool)
    for positions in (True, False):
        torch.manual_seed(3)
        encoder = FrameTransformer(8, 1, 2, 16, positions=positions).double().eval()
        same = torch.allclose(encoder(sequence.flip(1), valid).flip(1), encoder(sequence, valid))
        assert same is not positions


def test_layers_of_their_own_and_heads_that_divide_the_width():
    first, second = FrameTransformer(8, layers=2, heads=2, feedforward=16).layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    with pytest.raises(ConfigError, match="width 8 can't have 3 heads"):
        FrameTransformer(8, 1, 3, 16)
