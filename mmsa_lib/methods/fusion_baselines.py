"""Plain baselines: ``text_only``, ``early_fusion`` and ``late_fusion`` [R, ours].

Small networks for about a thousand training samples. A sequence becomes a vector by a layer at every frame and a
masked mean, or by an LSTM and its last valid state (``sequence``).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmsa_lib.data.batch import Batch, Modality
from mmsa_lib.data.task import Task
from mmsa_lib.methods.base import Method, MethodConfig, Output
from mmsa_lib.methods.evidence import R, T
from mmsa_lib.nn.heads import mlp, to_label_scale
from mmsa_lib.nn.sequence import SequenceReadout, pool, resample, sequence_encoder


class FusionConfig(MethodConfig):
    """Values of the baselines."""

    hidden: int = R(64, "ours", "hidden width of the head", unit="features", ge=1)
    dropout: float = R(0.3, "ours", "dropout before and inside the head", ge=0, lt=1)


class TextOnlyConfig(FusionConfig):
    """Values of ``text_only``."""


class EarlyFusionConfig(FusionConfig):
    """Values of ``early_fusion``."""

    width: int = R(64, "ours", "width of the encoder", unit="features", ge=1)
    sequence: SequenceReadout = T("mean", "lower validation error than lstm on CMU-MOSI with MiniLM words, our runs")
    """how the joint sequence becomes one vector; lstm is the field's EF-LSTM"""


class LateFusionConfig(FusionConfig):
    """Values of ``late_fusion``."""

    width: int = R(32, "ours", "width of the audio and of the vision encoder", unit="features", ge=1)
    sequence: SequenceReadout = T("mean", "lower validation error than lstm on CMU-MOSI with MiniLM words, our runs")
    """how audio and vision become one vector each"""


class TextOnly(Method):
    """Pooled text features and an MLP head.

    Representations: ``"text/feature"``.
    """

    id = "text_only"
    Config = TextOnlyConfig
    config: TextOnlyConfig
    modalities_used = ("text",)

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: TextOnlyConfig):
        super().__init__(dims, task, config)
        self.head = _head(self.dims["text"], task, config)

    def forward(self, batch: Batch) -> Output:
        """Predict from the text."""
        batch = self.encode_text(batch)
        feature = pool(batch.features["text"], batch.valid["text"], self.config.text_pooling)
        return Output(to_label_scale(self.task, self.head(feature)), {"text/feature": feature})


class EarlyFusion(Method):
    """Features of all modalities side by side at every step, one encoder over them, an MLP head.

    The steps are those of the text, or of the first modality without text. A modality with other steps is resampled to
    them in proportion to time (:func:`mmsa_lib.nn.sequence.resample`): an utterance-level vector is repeated at every
    step, a longer sequence is averaged, a shorter one repeated.

    Representations: ``"fusion"``.
    """

    id = "early_fusion"
    Config = EarlyFusionConfig
    config: EarlyFusionConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: EarlyFusionConfig):
        super().__init__(dims, task, config)
        self.encoder = sequence_encoder(config.sequence, sum(self.dims.values()), config.width, config.width)
        self.head = _head(config.width, task, config)

    def forward(self, batch: Batch) -> Output:
        """Predict from the joint sequence."""
        batch = self.encode_text(batch)
        steps = batch.valid[self.modalities[0]]
        joint = [resample(batch.features[m], batch.valid[m], steps) for m in self.modalities]
        fused = self.encoder(torch.cat(joint, dim=-1), steps)
        return Output(to_label_scale(self.task, self.head(fused)), {"fusion": fused})


class LateFusion(Method):
    """One encoder per modality, their vectors concatenated before one MLP head; text is pooled.

    Attributes:
        feature_dims: width of each modality's vector.

    Representations: ``"<modality>/feature"`` and their concatenation ``"fusion"``.
    """

    id = "late_fusion"
    Config = LateFusionConfig
    config: LateFusionConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: LateFusionConfig):
        super().__init__(dims, task, config)
        self.encoders = nn.ModuleDict(
            {
                m: sequence_encoder(config.sequence, self.dims[m], config.width, config.width)
                for m in self.modalities
                if m != "text"
            }
        )
        self.feature_dims = {m: self.dims[m] if m == "text" else config.width for m in self.modalities}
        self.head = _head(sum(self.feature_dims.values()), task, config)

    def forward(self, batch: Batch) -> Output:
        """Predict from the concatenated vectors."""
        batch = self.encode_text(batch)
        features = {m: self._feature(m, batch) for m in self.modalities}
        fused = torch.cat(list(features.values()), dim=-1)
        representations = {f"{m}/feature": x for m, x in features.items()} | {"fusion": fused}
        return Output(to_label_scale(self.task, self.head(fused)), representations)

    def _feature(self, modality: Modality, batch: Batch) -> Tensor:
        sequence, valid = batch.features[modality], batch.valid[modality]
        if modality == "text":
            return pool(sequence, valid, self.config.text_pooling)
        return self.encoders[modality](sequence, valid)


def _head(in_dim: int, task: Task, config: FusionConfig) -> nn.Sequential:
    return nn.Sequential(nn.Dropout(config.dropout), *mlp(in_dim, config.hidden, task.outputs, config.dropout))
