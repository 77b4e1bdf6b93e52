"""``hrlf``: hierarchical representation learning for missing modalities.

Source: Li, Yang, et al., "Toward Robust Incomplete Multimodal Sentiment Analysis via Hierarchical Representation
Learning", NeurIPS 2024, arXiv 2411.02793 [P]. A teacher learns from complete samples; a student of the same structure
then learns from incomplete copies of them to do and to represent the same (factorization FRF, mutual information HMI,
adversaries HAL, divergence KL). Network sizes and the distribution of gaps are not in the paper [R].

With the printed norm and all weights 1 the states collapse and both networks end as constants on the synthetic set [T]:
the gradient of a norm has length 1 however small the error, while that of the task loss fades with the differences
between states. The default is the reading that keeps all weights at 1 and trains: ``frf_distance="mse"``, the mean of
squared errors that code of this field writes for such a term, and ``student_init="teacher"``. The literal one is
called ``printed`` in sweeps and pages: ``frf_distance="norm"``, ``student_init="random"``. Equations 1 to 3 hold for a
constant ``Q``; ``sentiment_head="q"`` makes ``Q`` carry sentiment (docs/methods/hrlf.md, sections 9 and 14).

The paper's two-class option for MOSI is left out: a class has no place on the label scale by which runs are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.missing import stochastic_missing, stochastic_validation
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.losses.adversarial import discriminator_loss, hierarchical_adversarial, nonsaturating_adversarial
from mmsa_lib.losses.factorization import Distance, reconstruction_loss, translate, translation_loss
from mmsa_lib.losses.mutual_information import derangement, jsd_mutual_information
from mmsa_lib.methods.base import Losses, Method, MethodConfig, Output, backward, evaluation_mode, text_from_tokens
from mmsa_lib.methods.evidence import P, R, Sourced
from mmsa_lib.nn.adam import Adam
from mmsa_lib.nn.encoders import sinusoidal_positions
from mmsa_lib.nn.heads import mlp, to_label_scale
from mmsa_lib.nn.sequence import attended, masked_mean
from mmsa_lib.nn.text_encoder import TextEncoder

ScaleMerge = Literal["concat", "mean"]

_DATASETS = ("mosi", "mosei", "iemocap")

# HRLF, implementation details, one column per data set in the order above [P].
_PAPER: dict[str, tuple[Any, Any, Any]] = {
    "batch_size": (128, 16, 32),
    "learning_rate": (1e-3, 2e-3, 4e-3),
    "max_epochs": (50, 20, 30),
    "heads": (10, 8, 10),
}


def _stated(name: str, meaning: str = "", unit: str = "", **constraints: Any) -> Any:
    """A field that the paper states per data set; elsewhere its value for MOSI is our choice."""
    source = "the paper's value for MOSI [P], on data sets that it has no values for"
    return R(_PAPER[name][0], source, meaning, unit=unit, **constraints)


class HRLFConfig(MethodConfig):
    """Values of ``hrlf``; the ``no_…`` switches are its ablations."""

    text_encoder: Literal["precomputed", "bert"] = P("precomputed", "GloVe features")
    """precomputed: text features come from the data set and stay fixed; bert: teacher and student each fine-tune a
    transformers encoder of their own on token ids"""
    batch_size: int = R(
        32,
        "ours, as other methods have on small sets; the paper states 128, 16 and 32 for its three [P]",
        "samples per step",
        unit="samples",
        ge=1,
    )
    learning_rate: float = _stated("learning_rate", "learning rate of all networks (Adam)", "per step", gt=0)
    weight_decay: float = R(0.0, "the paper mentions none", "weight decay", ge=0)
    max_epochs: int = _stated("max_epochs", "limit of epochs of the teacher, and of the student", "epochs", ge=1)
    patience: int = R(50, "the paper states epochs and no early stop, so all of them are run", unit="epochs", ge=1)
    """epochs without a better validation loss before a phase stops"""
    width: int = P(40, "HRLF", "d, width of states Z", unit="features", ge=1)
    heads: int = _stated("heads", "attention heads", ge=1)
    layers: int = R(2, "ours; the paper gives no depth", "Transformer layers", ge=1)
    feedforward: int = R(160, "ours, 4 d", "hidden width inside Transformer layers", ge=1)
    dropout: float = R(0.1, "ours", "dropout in Transformer layers", ge=0, lt=1)
    dropout_attention: float | None = R(
        None, "ours; 0 lets torch take its fused kernel, 0.89 of the time of a step [T]", ge=0, lt=1
    )
    """dropout of attention weights; by default as dropout"""
    readout: Literal["last", "mean"] = P("last", "HRLF, Z is the last element of the encoder's output")
    """how states become Z: the last valid one, or the mean over valid ones"""
    qu_dim: int = R(
        20, "d/2: the only width for which H, joined from Q and U, is 3 d wide as the paper says", unit="features", ge=1
    )
    """width of Q and of U; with another one a first layer brings H to n d"""
    scale_merge: ScaleMerge = R("concat", "the paper says concatenated, but prints the widths (3d, 2d, d) of means")
    """how features of one scale are joined: widths (2nd, 4d, d), or (nd, 2d, d) with mean"""
    critic_hidden: int = R(64, "ours", "hidden width of statistics networks and discriminators", ge=1)
    msm: Literal["stochastic", "none"] = R("stochastic", "the strategy is the paper's, its distribution ours")
    """what the student sees: incomplete copies of the samples, or the samples; validation sees the same"""
    hal: Literal["saturating", "nonsaturating"] = P("saturating", "HRLF, equation 9")
    """what the student minimises: equation 9, or -log D of itself"""
    frf_distance: Distance = R(
        "mse",
        "what MISA and DMD write for such a term [C]; from the norm of equations 1 to 3 [P], which holds states at a "
        "constant, every seed ended as one: synthetic validation MAE 1.281, a constant's 1.28 [T]",
    )
    """distance of FRF: Euclidean norm, mean of squared errors, or the norm over the root of the width (rms)"""
    frf_detach: bool = R(
        True,
        "the paper stops no gradient; with targets in the graph 5 of 10 teachers stayed a constant for 500 steps on "
        "synthetic_redundant, with fixed ones none of these five [T]",
        "no gradient through the targets of FRF",
    )
    frf_warmup: int = R(
        0,
        "the paper has no schedule; with one for the teacher alone the student still collapses [T]",
        "epochs of each phase over which lambda_frf rises from 0 to its value",
        unit="epochs",
        ge=0,
    )
    student_init: Literal["random", "teacher"] = R(
        "teacher",
        "the paper says no more than same structure and pre-trained teacher; synthetic validation MAE .801 complete, "
        "1.002 with gaps, no collapse, against 1.279, a constant's, of a random start [T]",
    )
    """where the student starts: weights of its own, or a copy of all weights of the trained teacher; with no_teacher
    always the former"""
    sentiment_head: Literal["none", "q"] = R(
        "none", "ours; equations 1 to 3 allow a constant Q, so nothing but this asks it to be about sentiment"
    )
    """q: one linear head, shared by all modalities, also predicts from each Q alone"""
    lambda_sentiment: float = R(1.0, "ours, as all other weights", "weight of the loss of sentiment_head", ge=0)
    lambda_frf: float = P(1.0, "HRLF prints no coefficient", "weight of FRF", ge=0)
    lambda_hmi: float = P(1.0, "HRLF prints no coefficient", "weight of HMI", ge=0)
    lambda_hal: float = P(1.0, "HRLF prints no coefficient", "weight of HAL", ge=0)
    lambda_kl: float = P(1.0, "HRLF prints no coefficient", "weight of KL", ge=0)
    collapse_guard: float = R(0.01, "ours; FRF alone makes Z a constant [T]", ge=0, lt=1)
    """a run fails when the spread of Z over samples is below this share of its start; 0 never"""
    no_frf: bool = P(False, "HRLF, Table 3; two plain projections in its place are ours [R]")
    """lambda_frf = 0, no decoder, Q and U are linear in Z"""
    no_hmi: bool = P(False, "HRLF, Table 3", "lambda_hmi = 0")
    no_hal: bool = P(False, "HRLF, Table 3", "lambda_hal = 0, no discriminator")
    no_kl: bool = R(False, "ours", "lambda_kl = 0")
    no_teacher: bool = R(False, "ours: what the method adds over training with missing data")
    """train the student alone: no teacher phase, no HMI, HAL and KL"""
    no_teacher_phases: Literal[1, 2] = R(1, "ours; 2 is the control with as many steps as teacher and student have")
    """phases of the student with no_teacher, each with the limits of one phase; the second starts from the best state
    of the first with a fresh optimiser"""

    per_dataset = {
        dataset: {
            name: Sourced(values[column], "P", f"HRLF, implementation details, {dataset}")
            for name, values in _PAPER.items()
        }
        for column, dataset in enumerate(_DATASETS)
    }

    @model_validator(mode="after")
    def _without_contradiction(self) -> HRLFConfig:
        alone = [name for name in ("no_hmi", "no_hal", "no_kl") if getattr(self, name)]
        if self.width % self.heads:
            raise ConfigError(f"width={self.width} can't have heads={self.heads}; choose a divisor of the width")
        if self.no_teacher and alone:
            raise ConfigError(f"no_teacher leaves nothing to compare the student with; leave {', '.join(alone)} out")
        if self.no_teacher_phases == 2 and not self.no_teacher:
            raise ConfigError("no_teacher_phases=2 is for no_teacher; a student with a teacher has one phase")
        if self.no_frf and self.frf_warmup:
            raise ConfigError("no_frf has no weight to raise; leave frf_warmup out")
        return self


# --- the network of teacher and student ---

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

    Where only the last state of the last layer is read, that layer is computed for one position alone: the same numbers
    as for all of them, in a fraction of the time.
    """

    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, dropout_attention: float | None = None
    ):
        super().__init__()
        attention = dropout if dropout_attention is None else dropout_attention
        self.attention = nn.MultiheadAttention(width, heads, attention, batch_first=True)
        self.feedforward = mlp(width, feedforward, width, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, sequence: Tensor, ignored: Tensor) -> Tensor:
        """``(B, S, d)`` states that attend to ``(B, T, d)``, but not where ``ignored`` ``(B, T)``: ``(B, S, d)``."""
        context, _ = self.attention(queries, sequence, sequence, key_padding_mask=ignored, need_weights=False)
        states = self.norms[0](queries + self.dropout(context))
        return self.norms[1](states + self.dropout(self.feedforward(states)))


class StateEncoder(nn.Module):
    """Frames of one modality to ``Z``: convolution over time, positions, Transformer, last valid position or mean.

    Padding, on either side, is zero before the convolution and attended to by nothing; positions count from the first
    valid frame. A sample without a valid frame has one, of zeros. Missing frames are zeros that stay in the sequence.
    """

    def __init__(self, in_dim: int, config: HRLFConfig):
        super().__init__()
        self.convolve = nn.Conv1d(in_dim, config.width, KERNEL, padding=KERNEL // 2)
        sizes = (config.width, config.heads, config.feedforward, config.dropout, config.dropout_attention)
        self.blocks = nn.ModuleList(AttentionBlock(*sizes) for _ in range(config.layers))
        self.readout = config.readout

    def forward(self, frames: Tensor, valid: Tensor) -> Tensor:
        """``(B, T, in_dim)``, ``(B, T)`` to ``(B, d)``."""
        frames = frames.masked_fill(~valid.unsqueeze(-1), 0)
        valid = attended(valid)
        states = self.convolve(frames.mT).mT
        positions = sinusoidal_positions(*states.shape[1:], device=states.device).to(states.dtype)
        states = states + positions[(valid.cumsum(dim=1) - 1).clamp_min(0)]
        for block in self.blocks[:-1]:
            states = block(states, states, ~valid)
        if self.readout == "mean":
            return masked_mean(self.blocks[-1](states, states, ~valid), valid)
        last = (torch.arange(valid.shape[1], device=valid.device) * valid).amax(dim=1)
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
        text_encoder: makes the text features of a batch of tokens; part of this network.
    """

    def __init__(
        self,
        dims: Mapping[Modality, int],
        outputs: int,
        config: HRLFConfig,
        text_encoder: TextEncoder | None = None,
    ):
        super().__init__()
        width, top = config.width, len(dims) * config.width
        self.text_encoder = text_encoder
        self.encoders = nn.ModuleDict({m: StateEncoder(dim, config) for m, dim in dims.items()})
        self.sentiment = nn.ModuleDict({m: _factor(config) for m in dims})
        self.specific = nn.ModuleDict({m: _factor(config) for m in dims})
        self.decoder = None if config.no_frf else PairDecoder(config)
        joined = 2 * config.qu_dim * len(dims)
        self.join = nn.Identity() if joined == top else nn.Linear(joined, top)
        widths = (top, 2 * width, width, 2 * width, top)
        self.stack = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.predict = nn.Linear(top, outputs)
        self.predict_sentiment = nn.Linear(config.qu_dim, outputs) if config.sentiment_head == "q" else None

    def forward(self, batch: Batch) -> Encoding:
        """Encode the observed frames of ``batch``; missing ones are zero vectors, missing tokens unknown ones."""
        batch = text_from_tokens(batch, self.text_encoder)
        states = {m: encoder(batch.features[m], batch.valid[m]) for m, encoder in self.encoders.items()}  # Z (B, d)
        sentiment = {m: self.sentiment[m](z) for m, z in states.items()}  # Q = E^S(Z)
        specific = {m: self.specific[m](z) for m, z in states.items()}  # U = E^M(Z)
        joint = self.join(torch.cat([part[m] for m in states for part in (sentiment, specific)], dim=-1))  # H (B, n d)
        down = self.stack[0](joint).relu()  # I_1 (B, 2d)
        middle = self.stack[1](down).relu()  # I_2 (B, d)
        up = self.stack[2](middle).relu()  # I_3 (B, 2d)
        fused = self.stack[3](up)  # H~ (B, n d)
        return Encoding(states, sentiment, specific, joint, (down, middle, up), fused, self.predict(fused))

    def factorization(
        self,
        states: Mapping[Modality, Tensor],
        sentiment: Mapping[Modality, Tensor],
        specific: Mapping[Modality, Tensor],
        detach_targets: bool = False,
        distance: Distance = "norm",
    ) -> dict[str, Tensor]:
        """Both parts of FRF, equations 1 to 4: ``translation`` and ``reconstruction``."""
        parts = (states, sentiment, specific, self.decoder)
        shared = {
            "distance": distance,
            "detach_targets": detach_targets,
            "translations": translate(sentiment, specific, self.decoder),
        }
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


# --- the method ---


class HRLF(Method):
    """A frozen teacher of complete samples and a student of incomplete ones, which alone predicts in the end.

    The teacher phase minimises the task loss and FRF on complete samples; its best epoch on the complete validation
    samples is kept. The student phase draws new gaps for each step and is validated on samples with fixed gaps.
    Labels enter the task loss and that of ``sentiment_head`` only; every other term uses unlabelled samples too.

    Attributes:
        phase: ``"teacher"``, or ``"student"`` (and ``"student_first"`` before it with ``no_teacher_phases=2``): which
            network :meth:`forward` runs.
        text_encoder: that of this network.
        teacher: the teacher, or ``None`` with ``no_teacher``.
        statistics: ``T``, one per scale, trained with the student; ``None`` without HMI.
        discriminators: ``D_e``, one per scale, with an optimiser of their own; ``None`` without HAL.

    Representations: ``"<modality>/state"`` (Z), ``"<modality>/sentiment"`` (Q), ``"<modality>/specific"`` (U),
    ``"fusion"`` (H~, what the classifier reads).
    Auxiliary, in training: ``"scale/1"`` … ``"scale/3"`` (E); in the student phase, once the teacher has seen the
    complete samples, also ``"teacher/scale/1"`` … and ``"teacher/prediction"``.

    Raises:
        ConfigError: fewer than two modalities, or settings that contradict each other.
    """

    id = "hrlf"
    Config = HRLFConfig
    config: HRLFConfig
    phases = ("teacher", "student")
    own_missing: ClassVar[bool] = True

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: HRLFConfig):
        super().__init__(dims, task, config)
        if len(self.modalities) < 2:
            raise ConfigError(f"{self.id} translates between modalities; the data has only {self.modalities[0]}")
        if config.no_teacher:
            self.phases = ("student_first", "student")[-config.no_teacher_phases :]
        self.phase = "student"
        self.epoch = 0
        self.gaps = torch.Generator()
        self.guard = CollapseGuard(config.collapse_guard)
        encoder = self.text_encoder
        del self.text_encoder  # the networks own one each
        sizes = (self.dims, task.outputs, config)
        self.teacher = None if config.no_teacher else HRLFNetwork(*sizes, deepcopy(encoder))
        self.student = HRLFNetwork(*sizes, encoder)
        widths, hidden, lambdas = scale_widths(len(self.dims), config), config.critic_hidden, self.lambdas()
        self.statistics = ScaleCritics((2 * w for w in widths), hidden) if lambdas["hmi"] else None
        self.discriminators = ScaleCritics(widths, hidden) if lambdas["hal"] else None
        self._release(self.phase)

    @property
    def network(self) -> HRLFNetwork:
        """The network of this phase."""
        return self.teacher if self.phase == "teacher" else self.student

    def forward(self, batch: Batch) -> Output:
        """Predict with the network of this phase: after training, the student alone."""
        encoding = self.network(batch)
        representations = {f"{m}/state": z for m, z in encoding.states.items()}
        representations |= {f"{m}/sentiment": q for m, q in encoding.sentiment.items()}
        representations |= {f"{m}/specific": u for m, u in encoding.specific.items()}
        representations["fusion"] = encoding.fused
        auxiliary = self._named_scales(encoding) if self.training else {}
        return Output(to_label_scale(self.task, encoding.raw), representations, auxiliary)

    def with_teacher(self, complete: Batch, output: Output) -> Output:
        """``output`` of the student with what the teacher makes of the ``complete`` samples as further auxiliaries."""
        if self.phase == "teacher" or self.teacher is None or "teacher/prediction" in output.auxiliary:
            return output
        with torch.no_grad():
            encoding = self.teacher(complete)
        auxiliary = output.auxiliary | self._named_scales(encoding, "teacher/")
        return replace(output, auxiliary={**auxiliary, "teacher/prediction": to_label_scale(self.task, encoding.raw)})

    def _named_scales(self, encoding: Encoding, whose: str = "") -> dict[str, Tensor]:
        return {f"{whose}scale/{i}": e for i, e in enumerate(encoding.scales(self.config.scale_merge), start=1)}

    # --- the objective ---

    def lambdas(self) -> dict[str, float]:
        """The coefficients ``frf``, ``sentiment``, ``hmi``, ``hal``, ``kl``; 0 where switched off or of another phase.

        With ``frf_warmup`` FRF has weight 0 in the first epoch of each phase and rises by equal steps.
        """
        config = self.config
        compared = self.phase == "student" and not config.no_teacher
        frf = 0.0 if config.no_frf else config.lambda_frf
        if config.frf_warmup:
            frf *= min(1.0, max(0, self.epoch - 1) / config.frf_warmup)
        return {
            "frf": frf,
            "sentiment": 0.0 if config.sentiment_head == "none" else config.lambda_sentiment,
            "hmi": config.lambda_hmi if compared and not config.no_hmi else 0.0,
            "hal": config.lambda_hal if compared and not config.no_hal else 0.0,
            "kl": config.lambda_kl if compared and not config.no_kl else 0.0,
        }

    def losses(self, batch: Batch, output: Output) -> Losses:
        """``loss = task + lambda_frf FRF + lambda_hmi HMI + lambda_hal HAL + lambda_kl KL``; in evaluation the task's.

        With ``sentiment_head`` there is also ``lambda_sentiment`` times ``sentiment``. FRF is ``translation`` plus
        ``reconstruction``, of the network of this phase; the student factorizes its own states, as printed. HMI, HAL
        and KL are the student's: in the teacher's phase they have weight 0. A single sample has no other to be shuffled
        with: such a batch has no ``hmi``.

        Args:
            batch: the complete samples; the teacher reads them.
            output: of the same samples, in the student phase of their incomplete copies.
        """
        if not self.training:
            return super().losses(batch, output)
        weights, output = self.lambdas(), self.with_teacher(batch, output)
        frf = self._factorization(output) if weights["frf"] else {}
        return Losses(
            task=(1.0, self._task_loss(output.prediction, batch)),
            translation=(weights["frf"], lambda: frf["translation"]),
            reconstruction=(weights["frf"], lambda: frf["reconstruction"]),
            sentiment=(weights["sentiment"], lambda: self._sentiment(batch, output)),
            hmi=(weights["hmi"] if len(batch) > 1 else 0.0, lambda: self._mutual_information(output)),
            hal=(weights["hal"], lambda: self._adversarial(output)),
            kl=(weights["kl"], lambda: self._divergence(output)),
        )

    def _task_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of a sentiment value [P]; selection is by the absolute error, as for all methods."""
        return self.task.loss(prediction, batch.labels, batch.labelled, squared=True)

    def _factorization(self, output: Output) -> dict[str, Tensor]:
        """Equations 1 to 4."""
        named = output.representations
        z, q, u = ({m: named[f"{m}/{part}"] for m in self.modalities} for part in ("state", "sentiment", "specific"))
        return self.network.factorization(z, q, u, self.config.frf_detach, self.config.frf_distance)

    def _sentiment(self, batch: Batch, output: Output) -> Tensor:
        """Task loss of what the head on ``Q`` alone predicts, a mean over modalities."""
        head = self.network.predict_sentiment
        raw = [head(output.representations[f"{m}/sentiment"]) for m in self.modalities]
        return torch.stack([self._task_loss(to_label_scale(self.task, x), batch) for x in raw]).mean()

    def _mutual_information(self, output: Output) -> Tensor:
        """Equation 8: minus the bound between teacher and student, summed over scales; other pairs by a shuffle."""
        student, teacher = _scales(output), _scales(output, "teacher/")
        count = len(student[0])
        other = derangement(count, device=student[0].device)
        pairs = [  # (2 B, 2 width): E^t_i beside E^s_i of the same sample, then of another one
            torch.cat([t.repeat(2, 1), torch.cat([s, s[other]])], dim=-1) for t, s in zip(teacher, student, strict=True)
        ]
        bounds = [jsd_mutual_information(x[:count], x[count:]) for x in self.statistics(pairs)]
        return -torch.stack(bounds).sum()

    def _adversarial(self, output: Output) -> Tensor:
        """Equation 9, or the student's non-saturating form of it."""
        student, teacher = self.discriminate(_scales(output), _scales(output, "teacher/"))
        if self.config.hal == "nonsaturating":
            return nonsaturating_adversarial(student)
        return hierarchical_adversarial(student, teacher)

    def discriminate(self, student: list[Tensor], teacher: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits of the discriminators for student and teacher, per scale ``(B,)``, in one call."""
        both = self.discriminators([torch.cat(pair) for pair in zip(student, teacher, strict=True)])
        count = len(student[0])
        return [x[:count] for x in both], [x[count:] for x in both]

    def _divergence(self, output: Output) -> Tensor:
        """``KL(teacher, student)``, a mean over samples (and emotions).

        Of softmax outputs, or of Gaussians of variance 1 around a sentiment value. The paper's softmax is not
        defined for such a value; ``(y_t - y_s)^2 / 2`` is its exact counterpart [R].
        """
        teacher, student = output.auxiliary["teacher/prediction"].float(), output.prediction.float()
        if self.task.kind == "regression":
            return 0.5 * (teacher - student).square().mean()
        log_t, log_s = teacher.log_softmax(dim=-1).flatten(0, -2), student.log_softmax(dim=-1).flatten(0, -2)
        return F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Of the encoders of this phase's network, which end in Z."""
        modules = (self.text_encoder, self.network.encoders)
        return [p for module in modules if module is not None for p in module.parameters()]

    # --- the step ---

    def optimizers(self) -> dict[str, Optimizer]:
        """``network``: the network of this phase, with the student also the statistics networks; ``discriminators``.

        A text encoder is a part of its network with its own learning rate and weight decay.
        """
        with_network = () if self.phase == "teacher" else (self.statistics,)
        optimizers = {"network": self._adam(self.network, *with_network, groups=self.text_parameter_groups())}
        if self.phase != "teacher" and self.discriminators is not None:
            optimizers["discriminators"] = self._adam(self.discriminators)
        return optimizers

    def _adam(self, *modules: nn.Module | None, groups: Sequence[dict] = ()) -> Optimizer:
        known = {id(p) for group in groups for p in group["params"]}
        rest = [p for module in modules if module is not None for p in module.parameters() if id(p) not in known]
        rates = {"lr": self.config.learning_rate, "weight_decay": self.config.weight_decay}
        return Adam([*groups, {"params": rest, **rates, "name": "rest"}], **rates, fused=True)

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """One step of the teacher; or one of the discriminators, then one of the student on incomplete copies."""
        if self.phase == "teacher":
            return super().training_step(batch, optimizers)
        output = self.with_teacher(batch, self(self._incomplete(batch)))
        apart = {}
        if "discriminators" in optimizers:
            apart["discriminators"] = self.discriminator_step(output, optimizers["discriminators"])
        optimizers["network"].zero_grad(set_to_none=True)
        log = backward(self.losses(batch, output), **apart)
        optimizers["network"].step()
        return log

    def discriminator_step(self, output: Output, optimizer: Optimizer) -> Tensor:
        """Let the discriminators tell student from teacher better; returns their cross-entropy before the step."""
        optimizer.zero_grad(set_to_none=True)  # the student's step left gradients behind
        logits = self.discriminate([e.detach() for e in _scales(output)], _scales(output, "teacher/"))
        loss = discriminator_loss(*logits)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _incomplete(self, batch: Batch) -> Batch:
        return batch if self.config.msm == "none" else stochastic_missing(batch, self.gaps)

    # --- the phases ---

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Turn to the teacher or the student: release its networks, freeze the others, note the spread of its Z.

        With ``student_init="teacher"`` the student takes over every weight of the teacher, text encoder included: both
        have the same structure.
        """
        self.phase = phase
        if phase == "student" and self.teacher is not None and self.config.student_init == "teacher":
            self.student.load_state_dict(self.teacher.state_dict())
        self._release(phase)
        self.train(self.training)
        # Drawn from the seeded source: each run has gaps of its own, equal seeds have equal ones.
        self.gaps.manual_seed(int(torch.randint(2**62, ())))
        self.guard.start(self.network, train)

    def _release(self, phase: str) -> None:
        """Only what this phase trains takes gradients; the text encoder is that of its network."""
        object.__setattr__(self, "text_encoder", self.network.text_encoder)  # an alias: registered once, in its network
        for module in (self.teacher, self.student, self.statistics, self.discriminators):
            if module is not None:
                module.requires_grad_((module is self.teacher) == (phase == "teacher"))

    def train(self, mode: bool = True) -> HRLF:
        """Training or evaluation mode; the frozen teacher stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.teacher is not None and self.phase == "student":
            self.teacher.eval()
        return self

    def start_epoch(self, epoch: int) -> None:
        """Note the epoch; the warm-up of FRF depends on it."""
        self.epoch = epoch

    def end_epoch(self, epoch: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Spread of Z over samples: ``z_sd/<modality>`` and their mean ``z_sd``.

        Raises:
            RunError: the mean is below ``collapse_guard`` of its start.
        """
        return self.guard.check(self.network, f"{self.id}, {self.phase}, epoch {epoch}")

    def prepare_validation(self, phase: str, valid: Utterances) -> Utterances:
        """The teacher is validated on complete samples, the student on those with fixed gaps that all methods share."""
        if phase == "teacher" or self.config.msm == "none":
            return valid
        return stochastic_validation(valid)

    def training_state(self) -> dict[str, Tensor]:
        """Where the source of the gaps is, and the spread of Z at the start of this phase."""
        return {"gaps": self.gaps.get_state(), "z_sd": self.guard.first}

    def load_training_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the same gaps and the same reference for the guard."""
        self.gaps.set_state(state["gaps"].cpu())
        self.guard.first = state["z_sd"].cpu()


def _scales(output: Output, whose: str = "") -> list[Tensor]:
    """``E_1`` to ``E_3`` of the student, or with ``"teacher/"`` of the teacher."""
    return [output.auxiliary[f"{whose}scale/{i}"] for i in (1, 2, 3)]


# --- not in the paper: a guard against collapse ---

WATCHED = 256
"""Training samples, evenly spread over the split, on which the guard measures."""


def state_std(vectors: Tensor) -> float:
    """Standard deviation over samples of ``(B, d)``, averaged over the features."""
    return float(vectors.detach().float().std(dim=0, correction=0).mean())


class CollapseGuard:
    """Watches how far the states Z of different samples differ, and fails a run in which they no longer do.

    It measures without dropout on complete training samples, per modality on those that have any observed frame of it.

    Args:
        share: of the spread at the start, below which a run fails; 0 never.

    Attributes:
        first: the mean spread over modalities at the start of the phase, a scalar tensor.
    """

    def __init__(self, share: float):
        self.share = share
        self.first = torch.zeros(())
        self.samples: Batch | None = None

    def start(self, network: HRLFNetwork, train: Utterances) -> None:
        """Choose the samples and note the spread before the first step."""
        rows = torch.arange(0, len(train), -(-len(train) // WATCHED))
        self.samples = next(train.select(rows).batches(len(rows)))
        self.first = torch.tensor(self._mean(self.measure(network)))

    def measure(self, network: HRLFNetwork) -> dict[str, float]:
        """Spread of Z per modality; modalities with fewer than two observed samples are left out."""
        with evaluation_mode(network):
            states = network(self.samples).states
        seen = {m: self.samples.observed[m].any(dim=1) for m in states}
        return {m: state_std(z[seen[m]]) for m, z in states.items() if int(seen[m].sum()) > 1}

    def check(self, network: HRLFNetwork, where: str) -> dict[str, float]:
        """Spread per modality (``z_sd/<modality>``) and their mean (``z_sd``), for the history.

        Raises:
            RunError: the mean is below ``share`` of the start; ``where`` names the run.
        """
        if self.samples is None:
            return {}
        found = self.measure(network)
        now, first = self._mean(found), float(self.first)
        if now < self.share * first:
            raise RunError(
                f"the states Z collapsed: their spread over samples fell from {first:.3g} to {now:.3g}, under "
                f"{self.share:.0%} of its start; lower lambda_frf or lambda_hal, or set frf_warmup ({where})"
            )
        return {**{f"z_sd/{m}": value for m, value in found.items()}, "z_sd": now}

    @staticmethod
    def _mean(by_modality: Mapping[str, float]) -> float:
        return sum(by_modality.values()) / max(1, len(by_modality))
