"""``contrastive_mmcl``: modality-specific and modality-shared contrastive learning.

Source: Liu, You, Xie, Lee, Wang, Yang, "Modality-specific and -shared Contrastive Learning for Sentiment Analysis",
ICMR 2024, DOI 10.1145/3652583.3658004. Only the abstract was available: two stages, contrast by category inside each
modality (CMC) and by modality across them (SMC), self-modulation factors, dynamic routing before both modules in
training, stopped gradients between them [A]. Everything else is a reconstruction [R]; docs/methods/contrastive_mmcl.md
says from which parents.

The defaults are the reading whose CMC separates categories. Measured on validation samples of redundant sentiment, one
seed [T]: cosine of two samples of the same category minus that of different ones, text / audio / vision. Without any
contrast .14 / .18 / .13; literal reading .006 in all; defaults .29 / .32 / .24. The literal reading has
``decoupled_cmc=False, temperature_cmc=0.1, lambda_cmc=0.1, normalise_factors=True, contrasted="capsules"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from pydantic import model_validator
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
from mmsa_lib.methods.base import Losses, Method, MethodConfig, Output
from mmsa_lib.methods.evidence import R
from mmsa_lib.nn.encoders import FrameLSTM, FrameTransformer
from mmsa_lib.nn.heads import mlp, to_label_scale
from mmsa_lib.nn.routing import DynamicRouting, Squash
from mmsa_lib.nn.sequence import masked_mean, pool

__all__ = ["ContrastiveMMCL", "ContrastiveMMCLConfig"]

Categories = Literal["sign", "bins7", "ranked"]
Contrasted = Literal["capsules", "fused_capsules", "mlp"]
Stage = Literal["specific", "shared"]


class ContrastiveMMCLConfig(MethodConfig):
    """Values of ``contrastive_mmcl``; the ``no_…`` switches and ``single_stage`` are its ablations."""

    batch_size: int = R(64, "HSCL has 128 [P]; contrast needs negatives, so never below 32", unit="samples", ge=1)
    """samples per step; also the samples that are contrasted with each other"""
    encoder: Literal["transformer", "lstm"] = R(
        "transformer", "ConFEDE and HSCL have Transformers, Self-MM an LSTM [P]; not available [X]"
    )
    """encoders of both stages"""
    width: int = R(
        64,
        "half of HSCL's and Semi-IIN's 128 [P]: about equal validation error in under half the time [T]",
        unit="features",
        ge=1,
    )
    """d, width of projections and states"""
    layers_specific: int = R(2, "ConFEDE 2, HSCL 3 [P]", "layers of each modality's own encoder", ge=1)
    layers_shared: int = R(1, "ours; one encoder for all modalities as in MISA and DMD [P]", ge=1)
    """layers of the encoder that modalities share"""
    heads: int = R(4, "ours", "attention heads", ge=1)
    feedforward: int = R(128, "ours, twice the width", "hidden width inside Transformer layers", ge=1)
    dropout: float = R(0.1, "ours", "dropout in Transformer layers", ge=0, lt=1)
    dropout_attention: float | None = R(None, "ours; a tuning range of its own", ge=0, lt=1)
    """dropout of the attention weights in Transformer layers; None: as dropout"""
    contrasted: Contrasted = R(
        "fused_capsules",
        "routing 'clusters the inputs of the contrastive modules during training' [A]; capsules that exist in training "
        "only can satisfy both modules in place of the encoders",
    )
    """what both modules contrast: capsules that exist in training only; capsules that the head reads as well, in place
    of the pooled states (text_pooling then has no effect); or, as in SimCLR and SupCon [P], a two-layer projection of
    the pooled states in their place"""
    capsules: int = R(8, "GraphCAGE 20 [P], reduced for batches of 64", "K, capsules per sequence", ge=1)
    capsule_dim: int = R(32, "GraphCAGE [P]", "d_c, width of one capsule", unit="features", ge=1)
    routing_iterations: int = R(3, "GraphCAGE [P]", "r, computations of the coupling coefficients", ge=1)
    squash: Squash = R("squash", "Sabour et al.; tanh in GraphCAGE [P]", "activation of capsules")
    temperature_cmc: float = R(
        0.5,
        "ConFEDE and HSCL [P]; DCL's .1 and SupCon's .07 hardly separate categories here [T]",
        "temperature of CMC",
        gt=0,
    )
    temperature_smc: float = R(0.1, "DCL .1 [P]", "temperature of SMC", gt=0)
    modulation: Modulation = R("focal", "weights grow with distance [A], formula ours")
    """formula of the self-modulation factors in both modules"""
    gamma: float = R(1.0, "ours; larger values cost class separation on toy data [T]", ge=0)
    """exponent of the focal factors; 0 is plain SupCon"""
    normalise_factors: bool = R(
        False, "factors of mean 1 pull as hard when positives have met, absolute ones do not: twice the separation [T]"
    )
    """scale focal and circle factors to mean 1; else they keep their absolute weight and fade as positives meet"""
    factor_gradient: bool = R(False, "ours; DCLW's code does not detach its weights [P]")
    """let the gradient flow through the self-modulation factors"""
    decoupled_cmc: bool = R(
        True, "with positives in the denominator, as SupCon has it [P], all vectors contract into one direction [T]"
    )
    """only samples of other categories in the denominator of CMC"""
    decouple: Decouple = R("cross_only", "'decoupling the self-contrast of all modalities' [A], reading ours")
    """denominator of SMC: other samples of the other modality; all but the anchor itself (self_only); other samples of
    both modalities (keep_intra); cross_only plus a uniformity term inside each modality"""
    uniformity_weight: float = R(1.0, "ours", "weight of that term with decouple='uniformity'", ge=0)
    positives: Positives = R("instance", "SMC forms pairs by modality, in contrast to category [A]")
    """positives of SMC: the same sample, or also samples of the same category"""
    categories: Categories = R("sign", "classification_labels of the MMSA files [P]; ranked: HSCL's SupConR [P]")
    """categories of CMC: sign of the label (or emotion pattern), seven bins over the label range, or none but a
    ranking by label distance (temperature_cmc=0.5 as in HSCL, and decoupled_cmc=False)"""
    contrast_absent: bool = R(False, "ours: a modality without one observed frame has the same vector in every sample")
    """contrast wholly missing modalities as well"""
    lambda_cmc: float = R(1.0, "at ConFEDE's .1 [P] the term moves the encoders little [T]", "weight of CMC", ge=0)
    lambda_smc: float = R(0.1, "ConFEDE .1, HSCL .01 and .1 [P]", "weight of SMC", ge=0)
    task_loss: Literal["l1", "mse"] = R("l1", "Self-MM, MMSA, HSCL; ConFEDE has the mean squared error [P]")
    """loss of a sentiment value; emotions have cross-entropy"""
    schedule: Literal["T1", "T2"] = R(
        "T1", "two stages of one network with stopped gradients [A]; T2 as ConFEDE trains [P]"
    )
    """T1 trains both stages jointly; T2 first the specific stage, then the shared one on top"""
    finetune_epoch: int = R(6, "ours; ConFEDE unfreezes at a configured epoch [P]", unit="epoch", ge=1)
    """first epoch of T2's second phase in which the specific stage is trained again"""
    no_cmc: bool = R(False, "ablation of a claimed module", "lambda_cmc = 0")
    no_smc: bool = R(False, "ablation of a claimed module", "lambda_smc = 0")
    no_modulation: bool = R(False, "ablation of a claimed part", "all factors 1 (gamma = 0) in both modules")
    no_routing: bool = R(False, "ablation of a claimed part", "masked means over time in place of capsules")
    no_stop_gradient: bool = R(False, "ablation of a claimed part", "SMC also reaches the specific stage")
    no_self_decoupling: bool = R(False, "ablation of a claimed part", "decouple = self_only")
    single_stage: bool = R(False, "ablation of a claimed part", "one encoder per modality, both losses act on it")

    @model_validator(mode="after")
    def _without_contradiction(self) -> ContrastiveMMCLConfig:
        if self.single_stage and self.schedule == "T2":
            raise ConfigError("single_stage has no second stage; leave schedule='T2' out")
        if self.single_stage and self.no_stop_gradient:
            raise ConfigError("single_stage has no gradient to stop; leave no_stop_gradient out")
        if self.no_self_decoupling and self.decouple not in ("cross_only", "self_only"):
            raise ConfigError(f"no_self_decoupling sets decouple='self_only'; leave decouple={self.decouple!r} out")
        if self.categories == "ranked" and self.positives != "instance":
            raise ConfigError("categories='ranked' gives SMC no categories; use positives='instance'")
        if self.categories == "ranked" and self.decoupled_cmc:
            raise ConfigError("decoupled_cmc needs categories; categories='ranked' has none: set decoupled_cmc=False")
        if self.no_routing and self.contrasted == "mlp":
            raise ConfigError("contrasted='mlp' has no routing; leave no_routing out")
        if not self.normalise_factors and self.modulation == "dclw":
            raise ConfigError("modulation='dclw' has mean 1 by its formula: set normalise_factors=True")
        return self


class ContrastiveMMCL(Method):
    """An encoder per modality, one shared encoder on top, a head on the pooled states of both.

    CMC acts on the specific states, SMC on the shared ones, both through dynamic routing; the head reads the same
    capsules (``contrasted`` names other readings).

    Attributes:
        phase: ``"specific"`` or ``"shared"`` with ``schedule="T2"`` (in ``"specific"`` the second stage does not run
            and a head of its own predicts), else ``"train"``.

    Representations: ``"<modality>/specific"`` and ``"<modality>/shared"``, what the head reads (capsules; else pooled
    states, of which ``single_stage`` has one, ``"<modality>/feature"``), ``"fusion"`` (hidden layer of the head).
    Auxiliary, in training: ``"states/<modality>/<stage>"``, ``(B, T, d)``.

    Raises:
        ConfigError: fewer than two modalities, or settings that contradict each other or the task.
    """

    id = "contrastive_mmcl"
    Config = ContrastiveMMCLConfig
    config: ContrastiveMMCLConfig
    encoder_modules = ("project", "specific", "shared")

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: ContrastiveMMCLConfig):
        super().__init__(dims, task, config)
        count, width = len(self.modalities), config.width
        self.fused = config.contrasted == "fused_capsules" and not config.no_routing
        read = config.capsules * config.capsule_dim if self.fused else width  # what the head reads of each stage
        stages = 1 if config.single_stage and not self.fused else 2
        if count < 2:
            raise ConfigError(f"{self.id} contrasts modalities; the data has only {self.modalities[0]}")
        if task.kind != "regression" and (config.task_loss == "mse" or config.categories == "bins7"):
            raise ConfigError(
                f"task_loss='mse' and categories='bins7' need a sentiment scale; the task here is {task.kind}"
            )
        if task.kind == "classes" and config.categories == "ranked":
            raise ConfigError(
                "categories='ranked' ranks by label distance, which classes do not have; use categories='sign'"
            )
        self.phases = ("specific", "shared") if config.schedule == "T2" else ("train",)
        self.phase = self.phases[-1]
        self.project = nn.ModuleDict({m: nn.Linear(dim, width) for m, dim in self.dims.items()})
        self.specific = nn.ModuleDict({m: self._encoder(config.layers_specific, True) for m in self.modalities})
        self.shared = None if config.single_stage else self._encoder(config.layers_shared, False)
        self.fuse = nn.Linear(stages * count * read, width)
        self.predict = nn.Linear(width, task.outputs)
        self.specific_head = mlp(count * read, width, task.outputs) if config.schedule == "T2" else None
        self.routing = nn.ModuleDict()
        self.projection = nn.ModuleDict()
        if config.contrasted == "mlp":
            self.projection.update({stage: mlp(width, width, width) for stage in get_args(Stage)})
        elif not config.no_routing:
            sizes = (width, config.capsules, config.capsule_dim, config.routing_iterations, config.squash)
            self.routing.update({stage: DynamicRouting(*sizes) for stage in get_args(Stage)})

    def _encoder(self, layers: int, positions: bool) -> nn.Module:
        config = self.config
        if config.encoder == "lstm":
            return FrameLSTM(config.width, layers)
        sizes = (config.width, layers, config.heads, config.feedforward)
        return FrameTransformer(*sizes, config.dropout, positions, config.dropout_attention)

    # --- the network ---

    def forward(self, batch: Batch) -> Output:
        """Predict; contrast takes no part, and routing only where the head reads its capsules."""
        batch = self.encode_text(batch)
        states = self.encode(batch)
        pooled = {}  # (B, d) each, or (B, K d_c)
        for name, x in states.items():
            m, _, stage = name.partition("/")
            if not self.fused:
                pooled[name] = pool(x, batch.valid[m], self.config.text_pooling if m == "text" else "mean")
                continue
            for routed in get_args(Stage) if stage == "feature" else (stage,):
                pooled[f"{m}/{routed}"] = self._before_norm(routed, x, batch.valid[m])
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
            # SMC must not reach the specific stage: the gradient stops between the modules [A].
            states[f"{m}/shared"] = self.shared(x if self.config.no_stop_gradient else x.detach(), batch.valid[m])
        return states

    # --- the objective ---

    def losses(self, batch: Batch, output: Output) -> Losses:
        """``loss = task + lambda_cmc CMC + lambda_smc SMC``; in evaluation the task loss alone.

        A contrast has weight 0 where it is switched off, and in the phase of T2 that is not its own.
        """
        if not self.training:
            return super().losses(batch, output)
        config, phase = self.config, self.phase
        squared = config.task_loss == "mse"
        lambda_cmc = 0.0 if config.no_cmc or phase == "shared" else config.lambda_cmc
        lambda_smc = 0.0 if config.no_smc or phase == "specific" else config.lambda_smc
        return Losses(
            task=(1.0, self.task.loss(output.prediction, batch.labels, batch.labelled, squared=squared)),
            cmc=(lambda_cmc, lambda: self._cmc(batch, output)),
            smc=(lambda_smc, lambda: self._smc(batch, output)),
        )

    def _cmc(self, batch: Batch, output: Output) -> Tensor:
        """By category inside each modality: samples of one category attract each other; unlabelled ones take no part.

        As a category of its own such a sample would be pushed away from those of its true category [R].
        """
        config, found = self.config, self._present(batch)
        vectors = torch.stack(list(self.contrast_vectors("specific", batch, output).values()))  # (n, B, D)
        present = batch.labelled if found is None else torch.stack(list(found.values()))
        if found is not None and batch.labelled is not None:
            present = present & batch.labelled
        shared = {"temperature": config.temperature_cmc, **self._modulation, "present": present}
        if config.categories == "ranked":
            return label_ranked_supcon(vectors, batch.labels, **shared)
        return modulated_supcon(vectors, self._categories(batch), decoupled=config.decoupled_cmc, **shared)

    def _smc(self, batch: Batch, output: Output) -> Tensor:
        """By modality across them: the modalities of one sample attract each other, labelled or not."""
        config = self.config
        return cross_modal_decoupled(
            self.contrast_vectors("shared", batch, output),
            temperature=config.temperature_smc,
            decouple="self_only" if config.no_self_decoupling else config.decouple,
            positives=config.positives,
            categories=None if config.positives == "instance" else self._categories(batch),
            uniformity_weight=config.uniformity_weight,
            present=self._present(batch),
            **self._modulation,
        )

    def contrast_vectors(self, stage: Stage, batch: Batch, output: Output) -> dict[Modality, Tensor]:
        """What CMC (``"specific"``) or SMC (``"shared"``) contrasts: unit rows ``(B, K d_c)`` per modality.

        They are all capsules side by side; with ``contrasted="mlp"`` a projection of the masked mean over time, with
        ``no_routing`` that mean itself, both ``(B, d)``. ``output`` must come from a forward pass in training mode.
        """
        if self.fused:
            vectors = {m: output.representations[f"{m}/{stage}"] for m in self.modalities}
        else:
            name = "feature" if self.shared is None else stage
            states = {m: output.auxiliary[f"states/{m}/{name}"] for m in self.modalities}
            vectors = {m: self._before_norm(stage, x, batch.valid[m]) for m, x in states.items()}
        return {m: F.normalize(x, dim=-1) for m, x in vectors.items()}

    def _before_norm(self, stage: Stage, states: Tensor, valid: Tensor) -> Tensor:
        """One vector per sample of the states ``(B, T, d)`` of one modality."""
        if stage in self.routing:
            return self.routing[stage](states, valid).flatten(1)
        mean = masked_mean(states, valid)
        return (self.projection[stage](mean) if stage in self.projection else mean).float()

    def categories(self, labels: Tensor) -> Tensor:
        """Category of each sample ``(B,)`` int64: of the task, or one of seven bins over the label range (acc7's)."""
        if self.config.categories != "bins7":
            return self.task.categories(labels)
        return (3 * (labels - self.task.center) / self.task.bound).round().clamp(-3, 3).long() + 3

    def _categories(self, batch: Batch) -> Tensor:
        """:meth:`categories` of a batch; an unlabelled sample is alone in a category of its own, below 0."""
        if batch.labelled is None:
            return self.categories(batch.labels)
        alone = -1 - torch.arange(len(batch), device=batch.labels.device)
        return torch.where(batch.labelled, self.categories(batch.labels.nan_to_num()), alone)

    @property
    def _modulation(self) -> dict:
        return {
            "modulation": "none" if self.config.no_modulation else self.config.modulation,
            "gamma": self.config.gamma,
            "normalise": self.config.normalise_factors,
            "detach": not self.config.factor_gradient,
        }

    def _present(self, batch: Batch) -> dict[Modality, Tensor] | None:
        """Per modality ``(B,)``: is any frame observed; ``None`` where that is not to matter."""
        if self.config.contrast_absent:
            return None
        return {m: batch.observed[m].any(dim=1) for m in self.modalities}

    # --- the schedule ---

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
