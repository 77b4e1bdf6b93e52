"""``misa``: modality-invariant and modality-specific representations.

Source: Hazarika, Zimmermann, Poria, "MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment
Analysis", ACM MM 2020, arXiv 2005.03545; the network is that of the authors' ``src/models.py``, the losses as MMSA
carries them (``trains/singleTask/MISA.py``), the values those of the authors' ``config.py``, read in copies of it [C],
github.com/declare-lab/MISA. What differs, and why, is in docs/methods/misa.md. "sLSTM" there is two stacked
bidirectional LSTMs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmsa_lib.data.batch import Batch, Modality
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.subspaces import central_moment_discrepancy, difference, reverse_gradient
from mmsa_lib.methods.base import Losses, Method, MethodConfig, Output
from mmsa_lib.methods.evidence import C, R
from mmsa_lib.nn.heads import to_label_scale
from mmsa_lib.nn.sequence import masked_mean, pool

__all__ = ["MISA", "MISAConfig", "StackedLSTM"]


class MISAConfig(MethodConfig):
    """Values of ``misa``."""

    batch_size: int = C(64, "config.py", "samples per step, and behind each moment", unit="samples", ge=1)
    learning_rate: float = C(1e-4, "config.py", "learning rate of all but a text encoder", unit="per step", gt=0)
    weight_decay: float = C(0.0, "solver: Adam without decay", "weight decay of all but a text encoder", ge=0)
    patience: int = C(6, "config.py", "epochs without a better validation loss before training stops", ge=1)
    width: int = C(128, "config.py, hidden_size", "width of all six vectors, a multiple of heads", ge=1)
    sequence: Literal["lstm", "mean"] = C("lstm", "models.py: two stacked bidirectional LSTMs as wide as their input")
    """how audio and vision become one vector each: the LSTMs, or the masked mean of the features [R]; text is pooled"""
    heads: int = C(2, "models.py, nhead", "attention heads of the Transformer over the six vectors", ge=1)
    dropout_attention: float = C(
        0.1, "torch's default, which models.py keeps", "dropout in that Transformer", ge=0, lt=1
    )
    dropout: float = C(0.5, "config.py", "dropout inside the head", ge=0, lt=1)
    similarity: Literal["cmd", "adversarial"] = C("cmd", "config.py, use_cmd_sim")
    """what makes shared vectors alike: central moments, or a discriminator of modalities behind a reversed gradient"""
    reverse_weight: float = C(1.0, "config.py, reverse_grad_weight", ge=0)
    """factor of the reversed gradient with similarity='adversarial'"""
    moments: int = C(5, "solver, n_moments", "highest central moment with similarity='cmd'", ge=1)
    lambda_similarity: float = C(1.0, "config.py, sim_weight", "weight of the similarity loss", ge=0)
    lambda_difference: float = C(0.3, "config.py, diff_weight", "weight of the difference loss", ge=0)
    lambda_reconstruction: float = C(1.0, "config.py, recon_weight", "weight of the reconstruction loss", ge=0)
    task_loss: Literal["mse", "l1"] = C("mse", "solver: MSELoss for a sentiment value")
    """loss of a sentiment value in training; emotions and classes have cross-entropy"""
    no_similarity: bool = R(False, "ablation of the paper", "lambda_similarity = 0")
    no_difference: bool = R(False, "ablation of the paper", "lambda_difference = 0")
    no_reconstruction: bool = R(False, "ablation of the paper", "lambda_reconstruction = 0")


class StackedLSTM(nn.Module):
    """Two bidirectional LSTMs with a layer normalisation between; the last states of both, ``(B, 4 in_dim)`` [C].

    Args:
        in_dim: width of a frame, and of each state.
    """

    def __init__(self, in_dim: int):
        super().__init__()
        self.first = nn.LSTM(in_dim, in_dim, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(2 * in_dim)
        self.second = nn.LSTM(2 * in_dim, in_dim, batch_first=True, bidirectional=True)
        self.width = 4 * in_dim

    def forward(self, sequence: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, in_dim)``, ``(B, T)`` to ``(B, 4 in_dim)``."""
        lengths = valid.sum(dim=1).clamp_min(1).cpu()  # a reading from the end needs lengths, and torch wants them here
        x = sequence.masked_fill(~valid.unsqueeze(-1), 0)
        states, (last, _) = self.first(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        normed = self.norm(pad_packed_sequence(states, batch_first=True)[0])
        _, (top, _) = self.second(pack_padded_sequence(normed, lengths, batch_first=True, enforce_sorted=False))
        return torch.cat([*last, *top], dim=-1)


class MISA(Method):
    """A shared and a private vector per modality, held apart and together by three losses, and a Transformer over all.

    ``loss = task + lambda_similarity sim + lambda_difference diff + lambda_reconstruction recon``. Only the task loss
    needs labels.

    Representations: ``"<modality>/shared"``, ``"<modality>/private"``, ``"fusion"`` (all of them after the
    Transformer). Auxiliary: ``"projected/<modality>"`` and ``"reconstructed/<modality>"``, ``(B, width)``.

    Raises:
        ConfigError: fewer than two modalities, or a width that is no multiple of the heads.
    """

    id = "misa"
    Config = MISAConfig
    config: MISAConfig
    encoder_modules = ("encoders", "project")

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: MISAConfig):
        super().__init__(dims, task, config)
        width, count = config.width, len(self.modalities)
        if count < 2:
            raise ConfigError(f"{self.id} compares modalities; the data has only {self.modalities[0]}")
        if width % config.heads:
            raise ConfigError(f"width={width} can't have heads={config.heads}; choose a divisor of the width")
        self.encoders = nn.ModuleDict()
        if config.sequence == "lstm":
            self.encoders.update({m: StackedLSTM(d) for m, d in self.dims.items() if m != "text"})
        widths = {m: self.encoders[m].width if m in self.encoders else d for m, d in self.dims.items()}
        self.project = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(d, width), nn.ReLU(), nn.LayerNorm(width)) for m, d in widths.items()}
        )
        self.private = nn.ModuleDict({m: nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for m in self.modalities})
        self.shared = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.reconstruct = nn.ModuleDict({m: nn.Linear(width, width) for m in self.modalities})
        self.fuse = nn.TransformerEncoderLayer(width, config.heads, dropout=config.dropout_attention, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(2 * count * width, 3 * width), nn.Dropout(config.dropout), nn.ReLU(),
            nn.Linear(3 * width, task.outputs),
        )  # fmt: skip
        self.discriminator = None
        if config.similarity == "adversarial":
            self.discriminator = nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(width, count)
            )

    def forward(self, batch: Batch) -> Output:
        """Predict."""
        batch = self.encode_text(batch)
        projected = {m: self.project[m](self._utterance(m, batch)) for m in self.modalities}  # (B, width)
        private = {m: self.private[m](x) for m, x in projected.items()}
        shared = {m: self.shared(x) for m, x in projected.items()}
        vectors = torch.stack([*private.values(), *shared.values()], dim=1)  # (B, 2n, width)
        fused = self.fuse(vectors).flatten(1)
        representations = {f"{m}/shared": x for m, x in shared.items()} | {
            f"{m}/private": x for m, x in private.items()
        }
        auxiliary = {f"projected/{m}": x for m, x in projected.items()}
        auxiliary |= {f"reconstructed/{m}": self.reconstruct[m](private[m] + shared[m]) for m in self.modalities}
        return Output(to_label_scale(self.task, self.head(fused)), representations | {"fusion": fused}, auxiliary)

    def losses(self, batch: Batch, output: Output) -> Losses:
        """The four terms in training, the task loss alone in evaluation."""
        if not self.training:
            return super().losses(batch, output)
        config, squared = self.config, self.config.task_loss == "mse"
        return Losses(
            task=(1.0, self.task.loss(output.prediction, batch.labels, batch.labelled, squared=squared)),
            similarity=(0.0 if config.no_similarity else config.lambda_similarity, lambda: self._similarity(output)),
            difference=(0.0 if config.no_difference else config.lambda_difference, lambda: self._difference(output)),
            reconstruction=(
                0.0 if config.no_reconstruction else config.lambda_reconstruction,
                lambda: self._reconstruction(output),
            ),
        )

    def _similarity(self, output: Output) -> Tensor:
        """Of the shared vectors: mean discrepancy over pairs of modalities, or cross-entropy of the discriminator."""
        shared = [output.representations[f"{m}/shared"] for m in self.modalities]
        if self.discriminator is None:
            pairs = combinations(shared, 2)
            return torch.stack([central_moment_discrepancy(x, y, self.config.moments) for x, y in pairs]).mean()
        logits = self.discriminator(reverse_gradient(torch.cat(shared), self.config.reverse_weight))
        origin = torch.arange(len(shared), device=logits.device).repeat_interleave(len(shared[0]))
        return F.cross_entropy(logits, origin)

    def _difference(self, output: Output) -> Tensor:
        """Shared against private of each modality, and private against private of each pair, summed [C]."""
        shared, private = (
            [output.representations[f"{m}/{part}"] for m in self.modalities] for part in ("shared", "private")
        )
        pairs = [*zip(private, shared, strict=True), *combinations(private, 2)]
        return torch.stack([difference(x, y) for x, y in pairs]).sum()

    def _reconstruction(self, output: Output) -> Tensor:
        """Mean squared error of what the decoders make of private + shared, mean over modalities."""
        pairs = [(output.auxiliary[f"reconstructed/{m}"], output.auxiliary[f"projected/{m}"]) for m in self.modalities]
        return torch.stack([F.mse_loss(found, aim) for found, aim in pairs]).mean()

    def _utterance(self, modality: Modality, batch: Batch) -> Tensor:
        sequence, valid = batch.features[modality], batch.valid[modality]
        if modality == "text":
            return pool(sequence, valid, self.config.text_pooling)
        return self.encoders[modality](sequence, valid) if self.encoders else masked_mean(sequence, valid)
