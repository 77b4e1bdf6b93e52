"""``contrastive_mmcl``: modality-specific and modality-shared contrastive learning.

Source: Liu, You, Xie, Lee, Wang, Yang, "Modality-specific and -shared Contrastive Learning for Sentiment Analysis",
ICMR 2024, DOI 10.1145/3652583.3658004. Only the abstract was available: two stages, contrast by category inside each
modality (CMC) and by modality across them (SMC), self-modulation factors, dynamic routing before both modules in
training, stopped gradients between them [A]. Everything else is a documented reconstruction [R].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.contrastive import (
    Decouple,
    Modulation,
    Positives,
    cross_modal_decoupled,
    label_ranked_supcon,
    modulated_supcon,
)
from mmsa_lib.methods.base import Method, MethodConfig, Output
from mmsa_lib.methods.evidence import evidence
from mmsa_lib.nn.encoders import FrameLSTM, FrameTransformer
from mmsa_lib.nn.heads import mlp, to_label_scale
from mmsa_lib.nn.routing import DynamicRouting, Squash
from mmsa_lib.nn.sequence import masked_mean, pool

__all__ = ["ContrastiveMMCL", "ContrastiveMMCLConfig"]

Categories = Literal["sign", "bins7", "ranked"]


class ContrastiveMMCLConfig(MethodConfig):
    """Values of ``contrastive_mmcl``; the ``no_…`` switches and ``single_stage`` are its ablations."""

    batch_size: int = evidence(
        64, tag="R", source="HSCL has 128 [P]; contrast needs negatives, so never below 32",
        meaning="samples per step; also the samples that are contrasted with each other", unit="samples", ge=1,
    )  # fmt: skip
    encoder: Literal["transformer", "lstm"] = evidence(
        "transformer", tag="R", source="ConFEDE and HSCL have Transformers, Self-MM an LSTM [P]; not available [X]",
        meaning="encoders of both stages",
    )  # fmt: skip
    width: int = evidence(
        64, tag="R", meaning="d, width of projections and states",
        source="half of HSCL's and Semi-IIN's 128 [P]: about equal validation error in under half the time [T]",
        unit="features", ge=1,
    )  # fmt: skip
    layers_specific: int = evidence(
        2, tag="R", source="ConFEDE 2, HSCL 3 [P]", meaning="layers of each modality's own encoder", ge=1
    )
    layers_shared: int = evidence(
        1, tag="R", source="ours; one encoder for all modalities as in MISA and DMD [P]",
        meaning="layers of the encoder that modalities share", ge=1,
    )  # fmt: skip
    heads: int = evidence(4, tag="R", source="ours", meaning="attention heads", ge=1)
    feedforward: int = evidence(
        128, tag="R", source="ours, twice the width", meaning="hidden width inside Transformer layers", ge=1
    )
    dropout: float = evidence(0.1, tag="R", source="ours", meaning="dropout in Transformer layers", ge=0, lt=1)
    capsules: int = evidence(
        8, tag="R", source="GraphCAGE 20 [P], reduced for batches of 64", meaning="K, capsules per sequence", ge=1
    )
    capsule_dim: int = evidence(
        32, tag="R", source="GraphCAGE [P]", meaning="d_c, width of one capsule", unit="features", ge=1
    )
    routing_iterations: int = evidence(
        3, tag="R", source="GraphCAGE [P]", meaning="r, computations of the coupling coefficients", ge=1
    )
    squash: Squash = evidence(
        "squash", tag="R", source="Sabour et al.; tanh in GraphCAGE [P]", meaning="activation of capsules"
    )
    temperature_cmc: float = evidence(
        0.1, tag="R", source="DCL .1, SupCon .07, ConFEDE and HSCL .5 [P]", meaning="temperature of CMC", gt=0
    )
    temperature_smc: float = evidence(0.1, tag="R", source="DCL .1 [P]", meaning="temperature of SMC", gt=0)
    modulation: Modulation = evidence(
        "focal", tag="R", source="weights grow with distance [A], formula ours",
        meaning="formula of the self-modulation factors in both modules",
    )  # fmt: skip
    gamma: float = evidence(
        1.0, tag="R", source="ours; larger values cost class separation on toy data [T]",
        meaning="exponent of the focal factors; 0 is plain SupCon", ge=0,
    )  # fmt: skip
    decoupled_cmc: bool = evidence(
        False, tag="R", source="SupCon keeps positives in the denominator [P]",
        meaning="only samples of other categories in the denominator of CMC",
    )  # fmt: skip
    decouple: Decouple = evidence(
        "cross_only", tag="R", source="'decoupling the self-contrast of all modalities' [A], reading ours",
        meaning="denominator of SMC: other samples of the other modality; all but the anchor itself (self_only); other "
        "samples of both modalities (keep_intra); cross_only plus a uniformity term inside each modality",
    )  # fmt: skip
    uniformity_weight: float = evidence(
        1.0, tag="R", source="ours", meaning="weight of that term with decouple='uniformity'", ge=0
    )
    positives: Positives = evidence(
        "instance", tag="R", source="SMC forms pairs by modality, in contrast to category [A]",
        meaning="positives of SMC: the same sample, or also samples of the same category",
    )  # fmt: skip
    categories: Categories = evidence(
        "sign", tag="R", source="classification_labels of the MMSA files [P]; ranked: HSCL's SupConR [P]",
        meaning="categories of CMC: sign of the label (or emotion pattern), seven bins over the label range, or none "
        "but a ranking by label distance (then temperature_cmc=0.5 as in HSCL)",
    )  # fmt: skip
    contrast_absent: bool = evidence(
        False, tag="R", source="ours: a modality without one observed frame has the same vector in every sample",
        meaning="contrast wholly missing modalities as well",
    )  # fmt: skip
    lambda_cmc: float = evidence(0.1, tag="R", source="ConFEDE .1, HSCL .01 and .1 [P]", meaning="weight of CMC", ge=0)
    lambda_smc: float = evidence(0.1, tag="R", source="ConFEDE .1, HSCL .01 and .1 [P]", meaning="weight of SMC", ge=0)
    task_loss: Literal["l1", "mse"] = evidence(
        "l1", tag="R", source="Self-MM, MMSA, HSCL; ConFEDE has the mean squared error [P]",
        meaning="loss of a sentiment value; emotions have cross-entropy",
    )  # fmt: skip
    schedule: Literal["T1", "T2"] = evidence(
        "T1", tag="R", source="two stages of one network with stopped gradients [A]; T2 as ConFEDE trains [P]",
        meaning="T1 trains both stages jointly; T2 first the specific stage, then the shared one on top",
    )  # fmt: skip
    finetune_epoch: int = evidence(
        6, tag="R", source="ours; ConFEDE unfreezes at a configured epoch [P]",
        meaning="first epoch of T2's second phase in which the specific stage is trained again", unit="epoch", ge=1,
    )  # fmt: skip
    no_cmc: bool = evidence(False, tag="R", source="ablation of a claimed module", meaning="lambda_cmc = 0")
    no_smc: bool = evidence(False, tag="R", source="ablation of a claimed module", meaning="lambda_smc = 0")
    no_modulation: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="all factors 1 (gamma = 0) in both modules"
    )
    no_routing: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="contrast masked means over time, not capsules"
    )
    no_stop_gradient: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="SMC also reaches the specific stage"
    )
    no_self_decoupling: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="decouple = self_only"
    )
    single_stage: bool = evidence(
        False, tag="R", source="ablation of a claimed part", meaning="one encoder per modality, both losses act on it"
    )


Stage = Literal["specific", "shared"]


class ContrastiveMMCL(Method):
    """An encoder per modality, one shared encoder on top, a head on the pooled states of both.

    CMC acts on the specific states, SMC on the shared ones, both through dynamic routing that exists in training only.

    Attributes:
        phase: ``"specific"`` or ``"shared"`` with ``schedule="T2"`` (in ``"specific"`` the second stage does not run
            and a head of its own predicts), else ``"train"``.

    Representations: ``"<modality>/specific"`` and ``"<modality>/shared"`` (pooled states; with ``single_stage`` there
    is one, ``"<modality>/feature"``), ``"fusion"`` (hidden layer of the head).
    Auxiliary, in training: ``"states/<modality>/<stage>"``, ``(B, T, d)``.

    Raises:
        ConfigError: fewer than two modalities, or settings that contradict each other or the task.
    """

    id = "contrastive_mmcl"
    Config = ContrastiveMMCLConfig
    config: ContrastiveMMCLConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: ContrastiveMMCLConfig):
        super().__init__(dims, task, config)
        self._check_settings()
        self.phases = ("specific", "shared") if config.schedule == "T2" else ("train",)
        self.phase = self.phases[-1]
        self.project = nn.ModuleDict({m: nn.Linear(dim, config.width) for m, dim in self.dims.items()})
        self.specific = nn.ModuleDict({m: self._encoder(config.layers_specific, True) for m in self.modalities})
        self.shared = None if config.single_stage else self._encoder(config.layers_shared, False)
        stages = 1 if config.single_stage else 2
        self.fuse = nn.Linear(stages * len(self.modalities) * config.width, config.width)
        self.predict = nn.Linear(config.width, task.outputs)
        self.specific_head = None
        if config.schedule == "T2":
            self.specific_head = mlp(len(self.modalities) * config.width, config.width, task.outputs)
        self.routing = nn.ModuleDict()
        if not config.no_routing:
            self.routing.update({stage: self._routing() for stage in ("specific", "shared")})

    def forward(self, batch: Batch) -> Output:
        """Predict; neither routing nor contrast takes part."""
        batch = self.encode_text(batch)
        states = self.encode(batch)
        pooled = {name: self._pool(name, x, batch) for name, x in states.items()}
        joint = torch.cat(list(pooled.values()), dim=-1)
        if self.phase == "specific":
            raw = self.specific_head(joint)
        else:
            pooled["fusion"] = self.fuse(joint).relu()
            raw = self.predict(pooled["fusion"])
        auxiliary = {f"states/{name}": x for name, x in states.items()} if self.training else {}
        return Output(to_label_scale(self.task, raw), pooled, auxiliary)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """States of both stages, ``(B, T_m, d)`` per ``"<modality>/<stage>"``; the first one alone in its own phase."""
        specific = {}
        for m in self.modalities:
            specific[m] = self.specific[m](self.project[m](batch.features[m]), batch.valid[m])
        if self.shared is None:
            return {f"{m}/feature": x for m, x in specific.items()}
        states = {f"{m}/specific": x for m, x in specific.items()}
        if self.phase == "specific":
            return states
        for m, x in specific.items():
            states[f"{m}/shared"] = self.shared(x if self.config.no_stop_gradient else x.detach(), batch.valid[m])
        return states

    def contrast_vectors(self, stage: Stage, batch: Batch, output: Output) -> dict[Modality, Tensor]:
        """What CMC (``"specific"``) or SMC (``"shared"``) contrasts: unit rows ``(B, K d_c)`` per modality.

        They are all capsules side by side; with ``no_routing`` the masked mean over time, ``(B, d)``.
        ``output`` must come from a forward pass in training mode.
        """
        name = "feature" if self.shared is None else stage
        states = {m: output.auxiliary[f"states/{m}/{name}"] for m in self.modalities}
        if self.config.no_routing:
            vectors = {m: masked_mean(x, batch.valid[m]).float() for m, x in states.items()}
        else:
            vectors = {m: self.routing[stage](x, batch.valid[m]).flatten(1) for m, x in states.items()}
        return {m: F.normalize(x, dim=-1) for m, x in vectors.items()}

    def loss_terms(self, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``task``; in training also ``cmc`` and ``smc``, where their weights are not 0."""
        if not self.training:
            return super().loss_terms(batch, output)
        terms = {"task": self._task_loss(output.prediction, batch.labels)}
        weights = self.loss_weights()
        if weights["cmc"]:
            terms["cmc"] = self._cmc(batch, output)
        if weights["smc"]:
            terms["smc"] = self._smc(batch, output)
        return terms

    def loss_weights(self) -> dict[str, float]:
        """``lambda_cmc`` and ``lambda_smc``; 0 where switched off, and in the phase of T2 without the term."""
        config = self.config
        return {
            "cmc": 0.0 if config.no_cmc or self.phase == "shared" else config.lambda_cmc,
            "smc": 0.0 if config.no_smc or self.phase == "specific" else config.lambda_smc,
        }

    def categories(self, labels: Tensor) -> Tensor:
        """Category of each sample ``(B,)`` int64: of the task, or one of seven bins over the label range (acc7's)."""
        if self.config.categories != "bins7":
            return self.task.categories(labels)
        return (3 * (labels - self.task.center) / self.task.bound).round().clamp(-3, 3).long() + 3

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Switch between the phases of T2."""
        self.phase = phase

    def start_epoch(self, epoch: int) -> None:
        """Freeze or release the specific stage in the second phase of T2; frozen, it runs without dropout [R]."""
        if self.config.schedule == "T2":
            trained = self.phase == "specific" or epoch >= self.config.finetune_epoch
            for module in (self.text_encoder, self.project, self.specific):
                if module is not None:
                    module.requires_grad_(trained).train(trained)

    def _cmc(self, batch: Batch, output: Output) -> Tensor:
        vectors = torch.stack(list(self.contrast_vectors("specific", batch, output).values()))
        present = self._present(batch)
        shared = {
            "temperature": self.config.temperature_cmc,
            **self._modulation(),
            "present": None if present is None else torch.stack(list(present.values())),
        }
        if self.config.categories == "ranked":
            return label_ranked_supcon(vectors, batch.labels, **shared)
        categories = self.categories(batch.labels)
        return modulated_supcon(vectors, categories, decoupled=self.config.decoupled_cmc, **shared)

    def _smc(self, batch: Batch, output: Output) -> Tensor:
        config = self.config
        return cross_modal_decoupled(
            self.contrast_vectors("shared", batch, output),
            temperature=config.temperature_smc,
            decouple="self_only" if config.no_self_decoupling else config.decouple,
            positives=config.positives,
            categories=None if config.positives == "instance" else self.categories(batch.labels),
            uniformity_weight=config.uniformity_weight,
            present=self._present(batch),
            **self._modulation(),
        )

    def _modulation(self) -> dict:
        modulation = "none" if self.config.no_modulation else self.config.modulation
        return {"modulation": modulation, "gamma": self.config.gamma}

    def _present(self, batch: Batch) -> dict[Modality, Tensor] | None:
        """Per modality ``(B,)``: is any frame observed; ``None`` where that is not to matter."""
        if self.config.contrast_absent:
            return None
        return {m: batch.observed[m].any(dim=1) for m in self.modalities}

    def _task_loss(self, prediction: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(prediction, labels) if self.config.task_loss == "mse" else self.task.loss(prediction, labels)

    def _pool(self, name: str, states: Tensor, batch: Batch) -> Tensor:
        modality = name.partition("/")[0]
        pooling = self.config.text_pooling if modality == "text" else "mean"
        return pool(states, batch.valid[modality], pooling)

    def _encoder(self, layers: int, positions: bool) -> nn.Module:
        config = self.config
        if config.encoder == "lstm":
            return FrameLSTM(config.width, layers)
        return FrameTransformer(config.width, layers, config.heads, config.feedforward, config.dropout, positions)

    def _routing(self) -> DynamicRouting:
        config = self.config
        return DynamicRouting(
            config.width, config.capsules, config.capsule_dim, config.routing_iterations, config.squash
        )

    def _check_settings(self) -> None:
        config, regression = self.config, self.task.kind == "regression"
        contradictions = {
            f"{self.id} contrasts modalities; the data has only {self.modalities[0]}": len(self.modalities) < 2,
            "single_stage has no second stage; leave schedule='T2' out": (
                config.single_stage and config.schedule == "T2"
            ),
            "single_stage has no gradient to stop; leave no_stop_gradient out": (
                config.single_stage and config.no_stop_gradient
            ),
            f"no_self_decoupling sets decouple='self_only'; leave decouple={config.decouple!r} out": (
                config.no_self_decoupling and config.decouple not in ("cross_only", "self_only")
            ),
            "categories='ranked' gives SMC no categories; use positives='instance'": (
                config.categories == "ranked" and config.positives != "instance"
            ),
            "decoupled_cmc needs categories; categories='ranked' has none": (
                config.categories == "ranked" and config.decoupled_cmc
            ),
            f"task_loss='mse' and categories='bins7' need a sentiment scale; the task here is {self.task.kind}": (
                not regression and (config.task_loss == "mse" or config.categories == "bins7")
            ),
            "categories='ranked' ranks by label distance, which classes do not have; use categories='sign'": (
                self.task.kind == "classes" and config.categories == "ranked"
            ),
        }
        for message, found in contradictions.items():
            if found:
                raise ConfigError(message)
