"""``self_mm``: self-supervised multi-task learning.

Source: Yu, Xu, Yuan, Wu, "Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis", AAAI 2021, arXiv 2102.04830; details from the authors' code and from MMSA [C].

Written for any number of modalities. Where the paper has BERT's 768 features, here is the width of the text encoder or
of the text features that are loaded. ``tasks`` may leave out heads; the prediction is that of the first trained head
in the order M, T, A, V [R].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods.accumulation import AccumulatingMethod
from mmsa_lib.methods.base import Output
from mmsa_lib.methods.self_mm_config import SelfMMConfig
from mmsa_lib.methods.unimodal_labels import Centers, UnimodalLabelBank
from mmsa_lib.nn.heads import mlp, to_label_scale
from mmsa_lib.nn.sequence import LSTMEncoder, pool

__all__ = ["Centers", "SelfMM", "SelfMMConfig", "UnimodalLabelBank"]

FUSION = "fusion"
LETTERS = {FUSION: "M", "text": "T", "audio": "A", "vision": "V"}


class SelfMM(AccumulatingMethod):
    """One encoder per modality, a multimodal head and one head per modality, the latter on generated labels.

    Attributes:
        bank: the generated labels (``bank.labels``, distances from neutral) with features and centres.
        feature_dims: width of each modality's feature.
        trained: names of the heads that are trained, ``"fusion"`` first.

    Representations: ``"<modality>/feature"`` (Feature), ``"<modality>/private"`` (F*_s), ``"fusion"`` (F*_m).
    Auxiliary: ``"prediction/<modality>"`` and ``"prediction/fusion"``, ``(B,)`` on the label scale.

    Raises:
        ConfigError: the task is no regression, or the switches leave nothing to train.
    """

    id = "self_mm"
    Config = SelfMMConfig
    config: SelfMMConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: SelfMMConfig):
        super().__init__(dims, task, config)
        if task.kind != "regression":
            raise ConfigError(f"{self.id} generates labels on a sentiment scale; the task here is {task.kind}")
        self.encoders = nn.ModuleDict({m: self._encoder(m) for m in self.modalities if m != "text"})
        self.feature_dims = {m: self.dims[m] if m == "text" else getattr(config, f"{m}_out") for m in self.modalities}
        in_dims = {FUSION: sum(self.feature_dims.values()), **self.feature_dims}
        widths = {name: getattr(config, f"post_{name}_dim") for name in in_dims}
        self.post = nn.ModuleDict({name: self._post(name, in_dims[name], widths[name]) for name in in_dims})
        self.heads = nn.ModuleDict({name: mlp(width, width, 1) for name, width in widths.items()})
        self.trained = self._trained_heads()
        self.bank = UnimodalLabelBank(
            0, widths, task.bound if config.label_bound is None else config.label_bound, config.exclude_zero,
            distance=config.distance, relative=config.relative, momentum=not config.no_momentum,
        )  # fmt: skip

    def forward(self, batch: Batch) -> Output:
        """Predict; the bank takes no part."""
        batch = self.encode_text(batch)
        features = {m: self._feature(m, batch) for m in self.modalities}
        private = {FUSION: self.post[FUSION](torch.cat(list(features.values()), dim=-1))}
        private |= {m: self.post[m](x) for m, x in features.items()}
        predictions = {name: to_label_scale(self.task, self.heads[name](x)) for name, x in private.items()}
        return Output(
            prediction=predictions[self.trained[0]],
            representations={
                **{f"{m}/feature": x for m, x in features.items()},
                **{f"{m}/private": private[m] for m in self.modalities},
                FUSION: private[FUSION],
            },
            auxiliary={f"prediction/{name}": y for name, y in predictions.items()},
        )

    def loss_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``task``: the multimodal L1. ``label_<modality>``: weighted L1 to the generated labels, in training only."""
        if not self.training:
            return super().loss_terms(batch, output)
        terms = {}
        if FUSION in self.trained:
            terms["task"] = self.task.loss(output.auxiliary[f"prediction/{FUSION}"], batch.labels)
        for name in self.trained:
            if name != FUSION:
                terms[f"label_{name}"] = self._unimodal_loss(name, batch, output)
        return terms

    def after_backward(self, batch: Batch, output: Output) -> dict[str, float]:
        """Update the bank with this micro-batch."""
        if not self.config.no_ulgm:
            features = {m: output.representations[f"{m}/private"] for m in self.modalities}
            features[FUSION] = output.representations[FUSION]
            self.bank.update(self.epoch, batch.index, features, batch.labels - self.task.center)
        return {}

    def parameter_groups(self) -> list[dict]:
        """Five groups [C]: text encoder with and without decay, audio encoder, vision encoder, all others."""
        groups = self.text_parameter_groups()
        own = {id(p) for group in groups for p in group["params"]}
        for name, encoder in self.encoders.items():
            rate, decay = getattr(self.config, f"learning_rate_{name}"), getattr(self.config, f"weight_decay_{name}")
            groups.append({"params": list(encoder.parameters()), "lr": rate, "weight_decay": decay, "name": name})
            own |= {id(p) for p in encoder.parameters()}
        others = [p for p in self.parameters() if id(p) not in own]
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return [*groups, {"params": others, "lr": rate, "weight_decay": decay, "name": "other"}]

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Give every training sample its multimodal label for all modalities."""
        self.bank.initialise(train.labels - self.task.center)

    def start_epoch(self, epoch: int) -> None:
        """Start a new clip rate."""
        super().start_epoch(epoch)
        self.bank.reset_counts()

    def end_epoch(self, epoch: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Per modality: ``label_shift`` (mean ``|y_s - y_m|`` over all samples) and ``clip_rate`` of this epoch."""
        log = super().end_epoch(epoch, optimizers)
        log |= {f"label_shift/{name}": value for name, value in self.bank.shift().items()}
        return log | {f"clip_rate/{name}": value for name, value in self.bank.clip_rate().items()}

    def _encoder(self, modality: Modality) -> LSTMEncoder:
        hidden, out = getattr(self.config, f"{modality}_hidden"), getattr(self.config, f"{modality}_out")
        return LSTMEncoder(self.dims[modality], hidden, out)

    def _post(self, name: str, in_dim: int, width: int) -> nn.Sequential:
        dropout = getattr(self.config, f"post_{name}_dropout")
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(in_dim, width), nn.ReLU())

    def _trained_heads(self) -> tuple[str, ...]:
        wanted = ("M",) if self.config.single_task else self.config.tasks
        trained = tuple(name for name in (FUSION, *self.modalities) if LETTERS[name] in wanted)
        if not trained:
            raise ConfigError(f"tasks={'/'.join(wanted)} trains no head: the data has {', '.join(self.modalities)}")
        if FUSION not in trained and self.config.no_ulgm and not self.config.no_weighting:
            raise ConfigError("without M, no_ulgm leaves every loss at 0; add M to tasks or set no_weighting")
        return trained

    def _feature(self, modality: Modality, batch: Batch) -> Tensor:
        sequence, valid = batch.features[modality], batch.valid[modality]
        if modality == "text":
            return pool(sequence, valid, self.config.text_pooling)
        return self.encoders[modality](sequence, valid)

    def _unimodal_loss(self, name: str, batch: Batch, output: Output) -> Tensor:
        generated = self.bank.labels[name][batch.index]
        error = (output.auxiliary[f"prediction/{name}"] - (generated + self.task.center)).abs()
        if self.config.no_weighting:
            return error.mean()
        weight = torch.tanh((generated - (batch.labels - self.task.center)).abs())
        return (weight * error).mean()
