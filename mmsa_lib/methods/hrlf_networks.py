"""Networks of ``hrlf``: teacher and student are two :class:`HRLFNetwork`; critics compare them scale by scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmsa_lib.data.batch import Batch, Modality
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.factorization import reconstruction_loss, translate, translation_loss
from mmsa_lib.methods.hrlf_config import HRLFConfig, ScaleMerge
from mmsa_lib.nn.encoders import sinusoidal_positions
from mmsa_lib.nn.heads import mlp

KERNEL = 3
"""Frames under the convolution; the paper prints 3 x 3 though it is one-dimensional [P]."""


@dataclass(frozen=True)
class Encoding:
    """Everything that an :class:`HRLFNetwork` computes for a batch.

    Attributes:
        states: ``Z`` per modality, ``(B, d)``.
        sentiment: ``Q`` per modality, ``(B, qu_dim)``.
        specific: ``U`` per modality, ``(B, qu_dim)``.
        joint: ``H``, ``(B, n d)``.
        inner: ``I_1``, ``I_2``, ``I_3``, widths 2d, d, 2d.
        fused: ``H~``, ``(B, n d)``.
        raw: the head's output, ``(B, outputs)``.
    """

    states: dict[Modality, Tensor]
    sentiment: dict[Modality, Tensor]
    specific: dict[Modality, Tensor]
    joint: Tensor
    inner: tuple[Tensor, Tensor, Tensor]
    fused: Tensor
    raw: Tensor

    def scales(self, merge: ScaleMerge) -> list[Tensor]:
        """``E_1``, ``E_2``, ``E_3``: ``{H, H~}``, ``{I_1, I_3}`` and ``{I_2}``, joined or averaged."""
        groups = ((self.joint, self.fused), (self.inner[0], self.inner[2]), (self.inner[1],))
        return [torch.cat(g, dim=-1) if merge == "concat" else torch.stack(g).mean(dim=0) for g in groups]


class AttentionBlock(nn.Module):
    """A Transformer encoder layer, normalised after each half as in Vaswani et al., for some positions of a sequence.

    Only the last state of the last layer is read, so that layer is computed for one position alone: the same numbers as
    for all of them, in a fraction of the time.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.feedforward = mlp(width, feedforward, width, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, sequence: Tensor, ignored: Tensor) -> Tensor:
        """``(B, S, d)`` states that attend to ``(B, T, d)``, but not where ``ignored`` ``(B, T)``: ``(B, S, d)``."""
        attended, _ = self.attention(queries, sequence, sequence, key_padding_mask=ignored, need_weights=False)
        states = self.norms[0](queries + self.dropout(attended))
        return self.norms[1](states + self.dropout(self.feedforward(states)))


class LastStateEncoder(nn.Module):
    """Frames of one modality to ``Z``: convolution over time, positions, Transformer, last valid position.

    Padding, on either side, is zero before the convolution and attended to by nothing; positions count from the first
    valid frame. A sample without a valid frame has one, of zeros. Missing frames are zeros that stay in the sequence.
    """

    def __init__(self, in_dim: int, config: HRLFConfig):
        super().__init__()
        self.convolve = nn.Conv1d(in_dim, config.width, KERNEL, padding=KERNEL // 2)
        self.blocks = nn.ModuleList(
            AttentionBlock(config.width, config.heads, config.feedforward, config.dropout) for _ in range(config.layers)
        )

    def forward(self, frames: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, in_dim)``, ``(B, T)`` to ``(B, d)``."""
        frames = frames.masked_fill(~valid.unsqueeze(-1), 0)
        step = torch.arange(valid.shape[1], device=valid.device)
        valid = valid | (~valid.any(dim=1, keepdim=True) & (step == 0))
        states = self.convolve(frames.mT).mT
        positions = sinusoidal_positions(*states.shape[1:], device=states.device).to(states.dtype)
        states = states + positions[(valid.cumsum(dim=1) - 1).clamp_min(0)]
        for block in self.blocks[:-1]:
            states = block(states, states, ~valid)
        last = (step * valid).amax(dim=1)
        queries = states[torch.arange(len(states), device=states.device), last].unsqueeze(1)
        return self.blocks[-1](queries, states, ~valid).squeeze(1)


class PairDecoder(nn.Module):
    """``D_r``: sentiment of one modality and specifics of another, ``(N, qu_dim)`` each, to a state ``(N, d)``."""

    def __init__(self, config: HRLFConfig):
        super().__init__()
        self.layers = mlp(2 * config.qu_dim, config.width, config.width)

    def forward(self, sentiment: Tensor, specific: Tensor) -> Tensor:
        return self.layers(torch.cat([sentiment, specific], dim=-1))


class HRLFNetwork(nn.Module):
    """Teacher or student: states, their factorization, the fully connected stack, the classifier.

    Args:
        dims: feature width per modality, two or more.
        outputs: width of the prediction.
        config: sizes; ``no_frf`` makes ``Q`` and ``U`` plain projections and leaves out the decoder.

    Raises:
        ConfigError: the width is no multiple of the heads.
    """

    def __init__(self, dims: Mapping[Modality, int], outputs: int, config: HRLFConfig):
        super().__init__()
        if config.width % config.heads:
            raise ConfigError(f"width={config.width} can't have heads={config.heads}; choose a divisor of the width")
        width, top = config.width, len(dims) * config.width
        self.encoders = nn.ModuleDict({m: LastStateEncoder(dim, config) for m, dim in dims.items()})
        self.sentiment = nn.ModuleDict({m: _factor(config) for m in dims})
        self.specific = nn.ModuleDict({m: _factor(config) for m in dims})
        self.decoder = None if config.no_frf else PairDecoder(config)
        joined = 2 * config.qu_dim * len(dims)
        self.join = nn.Identity() if joined == top else nn.Linear(joined, top)
        widths = (top, 2 * width, width, 2 * width, top)
        self.stack = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.predict = nn.Linear(top, outputs)

    def forward(self, batch: Batch) -> Encoding:
        """Encode the observed frames of ``batch``; missing ones are zero vectors."""
        states = {m: encoder(batch.features[m], batch.valid[m]) for m, encoder in self.encoders.items()}
        sentiment = {m: self.sentiment[m](z) for m, z in states.items()}
        specific = {m: self.specific[m](z) for m, z in states.items()}
        joint = self.join(torch.cat([part[m] for m in states for part in (sentiment, specific)], dim=-1))
        down = self.stack[0](joint).relu()
        middle = self.stack[1](down).relu()
        up = self.stack[2](middle).relu()
        fused = self.stack[3](up)
        return Encoding(states, sentiment, specific, joint, (down, middle, up), fused, self.predict(fused))

    def factorization(
        self,
        states: Mapping[Modality, Tensor],
        sentiment: Mapping[Modality, Tensor],
        specific: Mapping[Modality, Tensor],
        detach_targets: bool = False,
    ) -> dict[str, Tensor]:
        """Both parts of FRF, equations 1 to 4: ``translation`` and ``reconstruction``."""
        parts = (states, sentiment, specific, self.decoder)
        shared = {"detach_targets": detach_targets, "translations": translate(sentiment, specific, self.decoder)}
        return {
            "translation": translation_loss(*parts, **shared),
            "reconstruction": reconstruction_loss(*parts, self.sentiment, **shared),
        }


def scale_widths(modalities: int, config: HRLFConfig) -> list[int]:
    """Widths of ``E_1``, ``E_2``, ``E_3``: (2nd, 4d, d), or (nd, 2d, d) with ``scale_merge="mean"``."""
    copies = 2 if config.scale_merge == "concat" else 1
    return [copies * modalities * config.width, copies * 2 * config.width, config.width]


class ScaleCritics(nn.ModuleList):
    """One network with a scalar output per scale: discriminators ``D_e``, or statistics networks ``T`` of pairs."""

    def __init__(self, widths: Iterable[int], hidden: int):
        super().__init__(mlp(width, hidden, 1) for width in widths)

    def forward(self, scales: Sequence[Tensor]) -> list[Tensor]:
        """Per scale ``(N, width)`` to ``(N,)``."""
        return [critic(x).squeeze(-1) for critic, x in zip(self, scales, strict=True)]


def _factor(config: HRLFConfig) -> nn.Module:
    """``E^S`` or ``E^M``: one MLP per modality, or a plain projection where nothing makes it a factorization."""
    if config.no_frf:
        return nn.Linear(config.width, config.qu_dim)
    return mlp(config.width, config.width, config.qu_dim)
