"""Sequence to sequence: a masked Transformer encoder and an LSTM with a state per step.

Sequences are ``(B, T, d)``, right-padded; ``valid`` is ``(B, T)`` bool. Padding is neither attended to nor returned; a
sample without any valid step gives zeros.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmsa_lib.errors import ConfigError
from mmsa_lib.nn.sequence import attended


def sinusoidal_positions(steps: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Sinusoidal positions ``(steps, width)``: even columns sine, odd columns cosine, of ``t / 10000^(2i / width)``.

    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.5 [P].
    """
    column = torch.arange(width, device=device)
    rate = torch.exp(-math.log(10000.0) / width * (column - column % 2))
    angle = torch.arange(steps, device=device).unsqueeze(1) * rate
    return torch.where(column % 2 == 0, angle.sin(), angle.cos())


class FrameTransformer(nn.Module):
    """Transformer encoder with a key-padding mask, normalised before each block and at the end.

    Args:
        width: features per step, a multiple of ``heads``.
        layers: blocks.
        heads: attention heads.
        feedforward: hidden width of each block's two linear layers.
        dropout: dropout in and after each half of a block.
        positions: add sinusoidal positions to the input.
        dropout_attention: dropout in attention where it differs from ``dropout``.

    Raises:
        ConfigError: the width is no multiple of the heads.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float = 0.1,
        positions: bool = True,
        dropout_attention: float | None = None,
    ):
        super().__init__()
        if width % heads:
            raise ConfigError(f"an encoder of width {width} can't have {heads} heads; choose a divisor of the width")
        self.positions = positions
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, feedforward, dropout, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        if dropout_attention is not None:
            for layer in self.layers:
                layer.self_attn.dropout = dropout_attention
        self.norm = nn.LayerNorm(width)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, width)``, ``(B, T)`` to ``(B, T, width)``, zeros at padding."""
        padding = ~valid.unsqueeze(-1)
        states = sequence.masked_fill(padding, 0)
        if self.positions:
            states = states + sinusoidal_positions(*states.shape[1:], device=states.device).to(states.dtype)
        ignored = ~attended(valid)  # a sample without a valid step attends to its first; zeroed below
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=ignored)
        return self.norm(states).masked_fill(padding, 0)


class FrameLSTM(nn.Module):
    """One-directional LSTM and a linear layer on the state of each step: light where a Transformer is too slow.

    Args:
        width: features per step, of input, state and output.
        layers: stacked LSTMs.
    """

    def __init__(self, width: int, layers: int = 1):
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers=layers, batch_first=True)
        self.project = nn.Linear(width, width)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, width)``, ``(B, T)`` to ``(B, T, width)``, zeros at padding."""
        # Sequences are right-padded and the recurrence looks back only, so padding cannot reach a valid state.
        states, _ = self.lstm(sequence)
        return self.project(states).masked_fill(~valid.unsqueeze(-1), 0)
