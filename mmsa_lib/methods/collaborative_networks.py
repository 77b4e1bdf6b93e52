"""Networks of ``collaborative_mmcl``: attention inside a modality, the predictor and the critic [C]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError
from mmsa_lib.nn.heads import AnySizeBatchNorm
from mmsa_lib.nn.sequence import masked_mean

Fusion = Literal["add", "cat"]


def attended(valid: Tensor) -> Tensor:
    """``(B, T)`` bool: positions that attention may read; the first one where a sample has no valid position."""
    first = torch.arange(valid.shape[1], device=valid.device) == 0
    return valid | (first & ~valid.any(dim=1, keepdim=True))


class ContextAttention(nn.Module):
    """Self-attention inside one modality: ``LayerNorm(c + W c)`` of the attention context ``c``.

    The residual goes around the context, not around the input [C: network.py, lines 10-54].
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, d)``, ``(B, T)`` to ``(B, T, d)``; padding is not attended to."""
        query, key, value = (
            layer(sequence).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attended(valid)[:, None, None], dropout_p=self.dropout * self.training
        )
        context = context.transpose(1, 2).flatten(2)
        return self.norm(context + self.output(context))


class SequenceSummary(nn.Module):
    """One Transformer layer (normalised after each block, ReLU, no dropout) and the mean over valid positions [C].

    The same computation as ``nn.TransformerEncoderLayer``; but its feed-forward block, where nearly all of the time
    goes, runs over the valid positions alone.
    """

    def __init__(self, width: int, heads: int, feedforward: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.expand, self.reduce = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm_attention, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, d)``, ``(B, T)`` to ``(B, d)``; zeros for a sample without a valid position."""
        ignored = ~attended(valid)
        context, _ = self.attention(sequence, sequence, sequence, key_padding_mask=ignored, need_weights=False)
        states = self.norm_attention(sequence + context)
        kept = valid.flatten().nonzero().squeeze(1)
        rows = states.flatten(0, 1).index_select(0, kept)
        rows = self.norm(rows + self.reduce(self.expand(rows).relu()))
        total = rows.new_zeros(len(valid), rows.shape[1]).index_add(0, kept // valid.shape[1], rows)
        return total / valid.sum(dim=1, keepdim=True).clamp_min(1)


class Predictor(nn.Module):
    """Weigh, join and read the common and the gated specific part of each modality.

    Args:
        modalities: their names, in order.
        width: features of each part.
        heads, feedforward: of the Transformer layer over the gated sequences.
        dropout: in the head.
        fusion: ``"add"``: mean of the modalities' embeddings, each times its weight in (0, 1); ``"cat"``: embeddings
            side by side (a commented alternative of the code).
        outputs: width of the prediction.
    """

    def __init__(
        self, modalities: Sequence[str], width: int, heads: int, feedforward: int, dropout: float, fusion: Fusion,
        outputs: int,
    ):  # fmt: skip
        super().__init__()
        self.fusion = fusion
        self.summary = nn.ModuleDict({m: SequenceSummary(width, heads, feedforward) for m in modalities})
        joint = 2 * width * len(modalities)
        if fusion == "add":
            # Two linear layers without a non-linearity between them, as in the code.
            self.weigh = nn.ModuleDict(
                {m: nn.Sequential(nn.Linear(2 * width, width), nn.Linear(width, 1)) for m in modalities}
            )
            self.head = nn.Sequential(
                nn.Linear(2 * width, width), nn.Dropout(dropout), nn.ReLU(), AnySizeBatchNorm(width),
                nn.Linear(width, outputs),
            )  # fmt: skip
        else:
            self.head = nn.Sequential(
                nn.Linear(joint, joint // 2), nn.Dropout(dropout), nn.ReLU(), AnySizeBatchNorm(joint // 2),
                nn.Linear(joint // 2, width), nn.Dropout(dropout), nn.Linear(width, outputs),
            )  # fmt: skip

    def embed(
        self, common: Mapping[str, Tensor], gated: Mapping[str, Tensor], valid: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Per modality the mean of its common part beside the summary of its gated part, ``(B, 2 d)``."""
        return {
            m: torch.cat([masked_mean(common[m], valid[m]), self.summary[m](gated[m], valid[m])], dim=-1)
            for m in common
        }

    def fuse(self, embedded: Mapping[str, Tensor]) -> Tensor:
        """Join the modalities: ``(B, 2 d)`` with ``"add"``, ``(B, 2 d M)`` with ``"cat"``."""
        if self.fusion == "cat":
            return torch.cat(list(embedded.values()), dim=-1)
        return torch.stack([self.weigh[m](e).sigmoid() * e for m, e in embedded.items()]).mean(0)

    def alone(self, modality: str, embedded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The embeddings with the gated part of ``modality`` only; the others' are 0, common parts stay."""
        kept = {}
        for m, embedding in embedded.items():
            common, gated = embedding.chunk(2, dim=-1)
            kept[m] = embedding if m == modality else torch.cat([common, torch.zeros_like(gated)], dim=-1)
        return kept

    def forward(self, embedded: Mapping[str, Tensor]) -> Tensor:
        """A prediction before its shape, ``(B, outputs)``."""
        return self.head(self.fuse(embedded))


class Critic(nn.Module):
    """The value of gating states with actions.

    Each state has its action appended ``heads`` times, so that the width stays a multiple of the heads [C].

    Args:
        modalities: their names, in order.
        width: features of a state.
        heads, feedforward: of the Transformer layer over each modality.
        dropout: in the head.
        joint: one value from all modalities [C], or else one value for each from its own state and action alone [R].
    """

    def __init__(
        self, modalities: Sequence[str], width: int, heads: int, feedforward: int, dropout: float, joint: bool = True
    ):
        super().__init__()
        if width % heads:
            raise ConfigError(f"a critic of width {width} can't have {heads} heads; choose a divisor of the width")
        self.heads, self.joint = heads, joint
        inner = width + heads
        self.summary = nn.ModuleDict({m: SequenceSummary(inner, heads, feedforward) for m in modalities})
        if joint:
            self.value = _value_head(inner * len(modalities), width, dropout)
        else:
            self.value = nn.ModuleDict({m: _value_head(inner, width, dropout) for m in modalities})

    def forward(self, state: Mapping[str, Tensor], action: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> Tensor:
        """States ``(B, T, d)``, actions ``(B, T)`` and masks per modality to ``(B, 1)``, or ``(B, M)`` if not joint."""
        seen = {}
        for m, sequence in state.items():
            repeated = action[m].unsqueeze(-1).expand(-1, -1, self.heads)
            seen[m] = self.summary[m](torch.cat([sequence, repeated], dim=-1), valid[m])
        if self.joint:
            return self.value(torch.cat(list(seen.values()), dim=-1))
        return torch.cat([self.value[m](x) for m, x in seen.items()], dim=-1)


def _value_head(inputs: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 2 * width), nn.Linear(2 * width, width), nn.Dropout(dropout), nn.ReLU(),
        AnySizeBatchNorm(width), nn.Linear(width, 1),
    )  # fmt: skip
