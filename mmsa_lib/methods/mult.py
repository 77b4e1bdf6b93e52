"""``mult``: the Multimodal Transformer, a crossmodal Transformer for each ordered pair of modalities.

Source: Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov, "Multimodal Transformer for Unaligned Multimodal Language
Sequences", ACL 2019, arXiv 1906.00295; networks and values are those of the authors' code [C],
github.com/yaohungt/Multimodal-Transformer, ``src/models.py``, ``modules/transformer.py`` and ``main.py``. What differs,
and why, is in docs/methods/mult.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmsa_lib.data.batch import Batch, Modality
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.base import Method, MethodConfig, Output
from mmsa_lib.methods.evidence import C
from mmsa_lib.nn.encoders import sinusoidal_positions
from mmsa_lib.nn.heads import to_label_scale
from mmsa_lib.nn.sequence import attended, last_valid, masked_mean

__all__ = ["CrossmodalTransformer", "MulT", "MulTConfig"]


class MulTConfig(MethodConfig):
    """Values of ``mult``: those of the code, which the paper tuned per data set."""

    batch_size: int = C(24, "main.py, batch_size", "samples per step", unit="samples", ge=1)
    max_epochs: int = C(40, "main.py, num_epochs", "upper limit of epochs", unit="epochs", ge=1)
    learning_rate: float = C(1e-3, "main.py, lr", "learning rate of all but a text encoder", unit="per step", gt=0)
    weight_decay: float = C(0.0, "train.py: Adam without decay", "weight decay of all but a text encoder", ge=0)
    width: int = C(30, "models.py, d_l = d_a = d_v", "features per step, a multiple of heads", unit="features", ge=1)
    heads: int = C(5, "main.py, num_heads", "attention heads", ge=1)
    layers: int = C(5, "main.py, nlevels", "layers of each Transformer; self-attention has at least 3", ge=1)
    kernel: int = C(1, "models.py, 1 for all modalities", "frames under the temporal convolution, odd", ge=1)
    dropout_attention: float = C(0.1, "main.py, attn_dropout", ge=0, lt=1)
    """dropout of attention weights: text as the source, and self-attention"""
    dropout_attention_audio: float = C(0.0, "main.py, attn_dropout_a", "with audio as the source", ge=0, lt=1)
    dropout_attention_vision: float = C(0.0, "main.py, attn_dropout_v", "with vision as the source", ge=0, lt=1)
    dropout_relu: float = C(0.1, "main.py, relu_dropout", "dropout inside the feed-forward halves", ge=0, lt=1)
    dropout_residual: float = C(0.1, "main.py, res_dropout", "dropout of what a half of a layer adds", ge=0, lt=1)
    dropout_embedding: float = C(0.2, "main.py, embed_dropout", ge=0, lt=1)
    """dropout of text features and of what enters a Transformer"""
    dropout: float = C(0.0, "main.py, out_dropout", "dropout inside the head", ge=0, lt=1)
    future_mask: bool = C(True, "main.py, attn_mask", "step i attends to steps j <= i + |difference of the lengths|")
    readout: Literal["last", "mean"] = C("last", "models.py: the last element")
    """how a target's states become one vector: the last valid one, or their mean [R]"""


class _Layer(nn.Module):
    """Attention to a source (or to the target itself) and a feed-forward network, each normalised before [C]."""

    def __init__(self, width: int, attention_dropout: float, config: MulTConfig):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, config.heads, attention_dropout, batch_first=True)
        self.norm, self.norm_feedforward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(config.dropout_relu), nn.Linear(4 * width, width)
        )
        for layer in (self.feedforward[0], self.feedforward[3]):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.dropout = nn.Dropout(config.dropout_residual)

    def forward(self, x: Tensor, source: Tensor | None, hidden: Tensor) -> Tensor:
        query = self.norm(x)
        key = query if source is None else self.norm(source)  # one normalisation for target and source [C]
        x = x + self.dropout(self.attention(query, key, key, attn_mask=hidden, need_weights=False)[0])
        return x + self.dropout(self.feedforward(self.norm_feedforward(x)))


class CrossmodalTransformer(nn.Module):
    """A target sequence reads a source sequence in every layer; without a source it reads itself.

    The source enters each layer as it came in: low-level features, never the states of another Transformer.

    Args:
        width: features per step of both, a multiple of the heads.
        layers: their number.
        attention_dropout: dropout of attention weights.
        config: heads, other dropouts and ``future_mask``.
    """

    def __init__(self, width: int, layers: int, attention_dropout: float, config: MulTConfig):
        super().__init__()
        self.heads, self.future_mask = config.heads, config.future_mask
        self.dropout = nn.Dropout(config.dropout_embedding)
        self.layers = nn.ModuleList(_Layer(width, attention_dropout, config) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, target: Tensor, valid: Tensor, source: Tensor | None = None, source_valid: Tensor | None = None
    ) -> Tensor:
        """``(B, T, width)`` with ``valid`` ``(B, T)`` and a source ``(B, S, width)`` to ``(B, T, width)``."""
        source_valid = valid if source_valid is None else source_valid
        hidden = self.hidden(valid, source_valid).repeat_interleave(self.heads, dim=0)
        x, source = self._embed(target), None if source is None else self._embed(source)
        for layer in self.layers:
            x = layer(x, source, hidden)
        return self.norm(x)

    def hidden(self, valid: Tensor, source_valid: Tensor) -> Tensor:
        """``(B, T, S)`` bool: what a step of the target may not read: padding, and with ``future_mask`` the future.

        The code compares padded lengths; here they are the sample's own [R], so that padding changes nothing.
        """
        hidden = ~attended(source_valid).unsqueeze(1).expand(-1, valid.shape[1], -1)
        if not self.future_mask:
            return hidden
        shift = (valid.sum(dim=1) - source_valid.sum(dim=1)).abs()[:, None, None]
        step, read = (torch.arange(n, device=valid.device) for n in hidden.shape[1:])
        return hidden | (read > step.unsqueeze(1) + shift)

    def _embed(self, x: Tensor) -> Tensor:
        positions = sinusoidal_positions(*x.shape[1:], device=x.device).to(x.dtype)
        return self.dropout(math.sqrt(x.shape[-1]) * x + positions)


class MulT(Method):
    """For each target modality the crossmodal Transformers of all sources, a self-attention memory, a residual head.

    Word-aligned or not: a source and a target may differ in length. A missing frame is a zero vector that is read like
    any other.

    Representations: ``"<modality>/feature"`` (what a target's memory is read out as), ``"fusion"`` (all of them).

    Raises:
        ConfigError: fewer than two modalities, an even kernel, or a width that is no multiple of the heads.
    """

    id = "mult"
    Config = MulTConfig
    config: MulTConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: MulTConfig):
        super().__init__(dims, task, config)
        width, sources = config.width, len(self.modalities) - 1
        if not sources:
            raise ConfigError(f"{self.id} crosses pairs of modalities; the data has only {self.modalities[0]}")
        if width % config.heads:
            raise ConfigError(f"width={width} can't have heads={config.heads}; choose a divisor of the width")
        if config.kernel % 2 == 0:
            raise ConfigError(f"kernel={config.kernel} has no middle frame; choose an odd number")
        dropout = {
            "text": config.dropout_attention,
            "audio": config.dropout_attention_audio,
            "vision": config.dropout_attention_vision,
        }
        self.project = nn.ModuleDict(
            {m: nn.Conv1d(d, width, config.kernel, padding="same", bias=False) for m, d in self.dims.items()}
        )
        self.crossmodal = nn.ModuleDict(
            {
                f"{target}_from_{source}": CrossmodalTransformer(width, config.layers, dropout[source], config)
                for target in self.modalities
                for source in self.modalities
                if source != target
            }
        )
        joint = sources * width
        self.memory = nn.ModuleDict(
            {
                m: CrossmodalTransformer(joint, max(config.layers, 3), config.dropout_attention, config)
                for m in self.modalities
            }
        )
        total = len(self.modalities) * joint
        self.residual = nn.Sequential(
            nn.Linear(total, total), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(total, total)
        )
        self.predict = nn.Linear(total, task.outputs)

    def forward(self, batch: Batch) -> Output:
        """Predict."""
        batch = self.encode_text(batch)
        low = {m: self._low_level(m, batch) for m in self.modalities}  # (B, T_m, width)
        read = {}
        for target in self.modalities:
            valid = batch.valid[target]
            crossed = [
                self.crossmodal[f"{target}_from_{source}"](low[target], valid, low[source], batch.valid[source])
                for source in self.modalities
                if source != target
            ]
            states = self.memory[target](torch.cat(crossed, dim=-1), valid)
            read[target] = (last_valid if self.config.readout == "last" else masked_mean)(states, valid)
        fused = torch.cat(list(read.values()), dim=-1)
        raw = self.predict(fused + self.residual(fused))
        return Output(to_label_scale(self.task, raw), {f"{m}/feature": x for m, x in read.items()} | {"fusion": fused})

    def _low_level(self, modality: Modality, batch: Batch) -> Tensor:
        x = batch.features[modality].masked_fill(~batch.valid[modality].unsqueeze(-1), 0)
        if modality == "text":
            x = F.dropout(x, self.config.dropout_embedding, self.training)
        return self.project[modality](x.mT).mT
