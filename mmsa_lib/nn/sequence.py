"""Sequences to vectors: masked mean, last valid state, encoders of either kind, resampling to other steps.

Sequences are ``(B, T, d)``, right-padded; ``valid`` is ``(B, T)`` bool and False on padding only. A *missing* frame is
a zero vector that stays valid, so it counts in a mean and in a length like any other frame.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


def masked_mean(sequence: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid frames.

    Args:
        sequence: ``(B, T, d)``.
        valid: ``(B, T)`` bool.

    Returns:
        ``(B, d)``; zeros for a sample without a valid frame.
    """
    total = sequence.masked_fill(~valid.unsqueeze(-1), 0).sum(dim=1)
    return total / valid.sum(dim=1, keepdim=True).clamp_min(1).to(sequence.dtype)


def attended(valid: Tensor) -> Tensor:
    """``(B, T)`` bool: positions that attention may read; the first one where a sample has no valid position."""
    first = torch.arange(valid.shape[1], device=valid.device) == 0
    return valid | (first & ~valid.any(dim=1, keepdim=True))


def last_valid(sequence: Tensor, valid: Tensor) -> Tensor:
    """The state at the last valid frame of each sample: ``(B, T, d)``, ``(B, T)`` to ``(B, d)``."""
    position = (valid.sum(dim=1) - 1).clamp_min(0)
    return sequence[torch.arange(len(sequence), device=sequence.device), position]


def pool(sequence: Tensor, valid: Tensor, pooling: Literal["mean", "first"]) -> Tensor:
    """One vector ``(B, d)`` per text: the mean over valid tokens or words, or the first of them ([CLS] of BERT).

    A missing word is a zero vector that counts in the mean, so a half-missing text is a shorter vector; a missing token
    of a fine-tuned encoder is the state of its unknown token.
    """
    return sequence[:, 0] if pooling == "first" else masked_mean(sequence, valid)


class LSTMEncoder(nn.Module):
    """One-layer, one-directional LSTM, last valid state, linear output (Self-MM's audio and video sub-networks [C]).

    The LSTM runs over the padding and the last valid state is gathered. Since sequences are right-padded and the
    recurrence only looks back, that equals packing the sequences, without moving lengths off the device.

    Args:
        in_dim: width of a frame.
        hidden: LSTM state size.
        out_dim: width of the result.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int):
        super().__init__()
        self.lstm = nn.LSTM(in_dim, hidden, batch_first=True)
        self.project = nn.Linear(hidden, out_dim)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, in_dim)``, ``(B, T)`` to ``(B, out_dim)``."""
        states, _ = self.lstm(sequence)
        return self.project(last_valid(states, valid))


class MeanEncoder(nn.Module):
    """A linear layer and ReLU at every frame, then the masked mean: ``(B, T, in_dim)``, ``(B, T)`` to ``(B, out_dim)``.

    The layer comes before the mean, so that frames of several modalities side by side can interact step by step.
    """

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.project = nn.Linear(in_dim, out_dim)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        return masked_mean(self.project(sequence).relu(), valid)


SequenceReadout = Literal["mean", "lstm"]


def sequence_encoder(kind: SequenceReadout, in_dim: int, hidden: int, out_dim: int) -> nn.Module:
    """A :class:`MeanEncoder`, which has no state of size ``hidden``, or an :class:`LSTMEncoder`."""
    return MeanEncoder(in_dim, out_dim) if kind == "mean" else LSTMEncoder(in_dim, hidden, out_dim)


def resample(sequence: Tensor, valid: Tensor, target_valid: Tensor) -> Tensor:
    """Bring each sample to the number of steps of another sequence, by averages in proportion to time overlap.

    A sample of ``L`` frames and a target of ``L'`` steps are laid over the same stretch of time; step ``j`` is the
    average of the frames under it, weighted by overlap. Equal lengths give the same frames back; a single
    (utterance-level) frame is repeated on every step; more frames than steps are averaged.

    Args:
        sequence: ``(B, T, d)``.
        valid: ``(B, T)`` bool.
        target_valid: ``(B, T')`` bool.

    Returns:
        ``(B, T', d)``, zeros on the target's padding.
    """
    x = sequence.masked_fill(~valid.unsqueeze(-1), 0)
    # Comparing masks would make a GPU wait; there only a sequence that is resampled onto itself is known to fit.
    if valid is target_valid or (valid.device.type == "cpu" and torch.equal(valid, target_valid)):
        return x
    frames, steps = valid.sum(dim=1, keepdim=True), target_valid.sum(dim=1, keepdim=True).clamp_min(1)  # L, L': (B, 1)
    # In units of 1/(L L') of the utterance all borders are integers: step j is [jL, (j+1)L), frame i [iL', (i+1)L').
    step = torch.arange(target_valid.shape[1], device=valid.device)
    start, end = step * frames, (step + 1) * frames  # (B, T')
    first, last = start // steps, (end - 1) // steps  # the frames at both ends of a step
    share = target_valid.to(x.dtype) / frames.clamp_min(1)
    head = (torch.minimum((first + 1) * steps, end) - start) * share
    tail = torch.where(last > first, end - last * steps, 0) * share
    result = head.unsqueeze(-1) * _rows(x, first) + tail.unsqueeze(-1) * _rows(x, last)
    if x.shape[1] < 3:
        return result
    # The frames between those are whole; their sums are differences of running sums, so that time is linear in T.
    sums = x.cumsum(dim=1, dtype=torch.float64)
    between = _rows(sums, torch.maximum(last - 1, first)) - _rows(sums, first)
    return result + (steps * share).unsqueeze(-1) * between.to(x.dtype)


def _rows(table: Tensor, position: Tensor) -> Tensor:
    """Rows ``(B, T', d)`` of ``(B, T, d)`` at ``(B, T')``, the nearest one where a position lies outside."""
    size, rows, _ = table.shape
    offset = rows * torch.arange(size, device=table.device).unsqueeze(1)
    return table.flatten(0, 1)[offset + position.clamp(0, rows - 1)]
