"""Sequence encoders against loops over samples."""

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from mmsa_lib.nn.sequence import LSTMEncoder, last_valid, masked_mean, pool, resample

LENGTHS = [5, 1, 3]


@pytest.fixture
def padded():
    """Random sequences ``(3, 5, 4)`` and their valid mask."""
    torch.manual_seed(0)
    valid = torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)
    return torch.randn(3, 5, 4, dtype=torch.float64) * valid.unsqueeze(-1), valid


def with_garbage(sequence, valid):
    return sequence.masked_fill(~valid.unsqueeze(-1), float("nan"))


def test_mean_first_and_last_of_the_valid_frames(padded):
    sequence, valid = padded
    expected = torch.stack([sequence[i, :n].mean(0) for i, n in enumerate(LENGTHS)])
    torch.testing.assert_close(masked_mean(with_garbage(sequence, valid), valid), expected)
    assert (masked_mean(sequence, torch.zeros_like(valid)) == 0).all()
    missing = sequence.clone()
    missing[0, :2] = 0  # a missing frame is valid and counts
    torch.testing.assert_close(masked_mean(missing, valid)[0], sequence[0, 2:].sum(0) / 5)
    assert torch.equal(pool(sequence, valid, "first"), sequence[:, 0])
    assert torch.equal(pool(sequence, valid, "mean"), masked_mean(sequence, valid))
    last = torch.stack([sequence[i, n - 1] for i, n in enumerate(LENGTHS)])
    assert torch.equal(last_valid(sequence, valid), last)


def test_lstm_equals_packing_and_ignores_padding(padded):
    sequence, valid = padded
    torch.manual_seed(1)
    encoder = LSTMEncoder(4, 6, 2).double()
    packed = pack_padded_sequence(sequence, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    expected = encoder.project(encoder.lstm(packed)[1][0][-1])
    torch.testing.assert_close(encoder(with_garbage(sequence, valid), valid), expected)


@pytest.mark.parametrize(("frames", "steps"), [(40, 7), (7, 40), (30, 30), (2, 9), (9, 1), (1, 6)])
def test_resample_is_the_matrix_of_overlaps(frames, steps):
    """The plain path, quadratic in time: each step weighs each frame by their overlap; float32 agrees to 1e-6."""
    torch.manual_seed(0)
    lengths, target_lengths = torch.randint(0, frames + 1, (20, 1)), torch.randint(0, steps + 1, (20, 1))
    valid, target = torch.arange(frames) < lengths, torch.arange(steps) < target_lengths
    sequence = torch.randn(20, frames, 3) + 1
    for x, row, count, want, result in zip(
        sequence, lengths, target_lengths, target, resample(with_garbage(sequence, valid), valid, target), strict=True
    ):
        step, frame = torch.arange(steps).unsqueeze(1), torch.arange(frames)
        end = torch.minimum((step + 1) * row, (frame + 1) * count)
        overlap = (end - torch.maximum(step * row, frame * count)).clamp_min(0) * (frame < row) * want.unsqueeze(1)
        expected = overlap.double() / row.clamp_min(1) @ x.double()
        torch.testing.assert_close(result.double(), expected, rtol=1e-6, atol=1e-6)


def test_resample_keeps_equal_lengths_and_repeats_single_frames(padded):
    sequence, valid = padded
    assert torch.equal(resample(sequence, valid, valid), sequence)
    single = sequence[:, :1]
    repeated = resample(single, torch.ones(3, 1, dtype=torch.bool), valid)
    assert torch.equal(repeated, single * valid.unsqueeze(-1))
