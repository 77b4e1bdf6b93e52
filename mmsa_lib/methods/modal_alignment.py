"""``modal_alignment``: Self-MM with a covariance-alignment branch between chosen modalities.

Source: Lai, Li, Guo, ..., Liu, "Shared and Private Information Learning in Multimodal Sentiment Analysis with Deep
Modal Alignment and Self-supervised Multi-Task Learning", arXiv 2305.08473 v2, IJCNN 2024. Known are the abstracts and
the architecture figure [A]; sub-networks, label generation and loop are those of the parent Self-MM [P], the covariance
formula is Deep CORAL's [P], the rest is our reconstruction [R] (docs/methods/modal_alignment.md). The figure's "sLSTM"
is a one-directional LSTM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa_lib.data.batch import MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.coral import correlation, covariance, covariance_distance, moving_covariance, private_alignment
from mmsa_lib.methods.base import Losses, Method, MethodConfig, Output, loss_log, loss_sum, term_gradients
from mmsa_lib.methods.evidence import A, R, Sourced
from mmsa_lib.methods.fusion_baselines import LateFusion, LateFusionConfig
from mmsa_lib.methods.self_mm import AccumulatingMethod, SelfMM, SelfMMConfig
from mmsa_lib.nn.sequence import SequenceReadout

__all__ = ["CovarianceBranch", "ModalAlignment", "ModalAlignmentConfig"]

PairName = Literal["text-audio", "text-vision", "audio-vision"]
PairMode = Literal["shared", "off", "private"]


def pair_name(pair: Any) -> Any:
    """``("vision", "audio")`` or ``"vision-audio"`` as ``"audio-vision"``; anything else is left to the validation."""
    parts = pair.split("-") if isinstance(pair, str) else pair
    try:
        return "-".join(sorted(parts, key=MODALITIES.index))
    except (TypeError, ValueError):
        return pair


def _named_modes(modes: Any) -> Any:
    return {pair_name(pair): mode for pair, mode in modes.items()} if isinstance(modes, dict) else modes


Pair = Annotated[PairName, BeforeValidator(pair_name)]
PairModes = Annotated[PairMode | dict[PairName, PairMode], BeforeValidator(_named_modes)]


_SHARE = "ours: at this weight L3 is 6 % of the loss on this data set"


class ModalAlignmentConfig(SelfMMConfig):
    """Values of ``modal_alignment``. Inherited ones come from the parent's code and are tagged P.

    The defaults are the reading in which L3 has a share in the loss. The literal one has ``sequence="lstm"``,
    ``statistic="covariance"``, ``cov_batch="micro"`` and ``lambda_cov=1``.
    """

    parent = SelfMMConfig

    sequence: SequenceReadout = R("mean", "ours, by validation error on synthetic; lstm is the figure's [A]")
    """how audio and vision become one vector each: last state, or mean over frames after a layer at every frame"""
    no_ulgm: bool = R(False, "ablation of the self-supervised part", "without the private loss L1")
    no_alignment: bool = R(False, "ablation of the shared part", "lambda_cov = 0: what remains is the host")
    lambda_cov: float = R(30.0, "ours: L3 is 6 to 7 % of the loss; the figure's sum without weights is 1 [A]", ge=0)
    """weight of the covariance loss L3"""
    pairs: tuple[Pair, ...] | None = A(None, "authors' figure: only M_a and M_v enter L3")
    """aligned pairs; None: audio-vision, or with two modalities the only pair there is (a declared variant)"""
    pair_mode: PairModes = R("shared", "'shared or private information between chosen modalities' [A], form ours")
    """shared pulls a pair's covariances together, private pushes them apart, off leaves them; or per pair"""
    cov_batch: Literal["micro", "accumulated", "ema"] = R(
        "accumulated", "ours: on 16 samples L3 is mostly noise; micro is the plain reading of the parent's loop"
    )
    """samples behind a covariance: the micro-batch, all of one optimiser step, or a moving average; L3 counts once per
    micro-batch in any case, so that lambda_cov means the same"""
    ema_decay: float = R(0.9, "ours", "weight of the past with cov_batch='ema'", ge=0, lt=1)
    statistic: Literal["covariance", "correlation"] = R(
        "correlation", "ours: by shrinking M covariances escape any weight; 'based on the covariance matrix' [A]"
    )
    """what L3 compares; correlations are the covariances of M with variance 1 in each column"""
    shuffled_pairs: bool = R(False, "control: covariances know no pairs, so training stays as it is up to rounding")
    """before L3, shift the samples of each modality against the others', so that no M_a meets the M_v of its sample"""
    min_cov_samples: int = R(1, "ours; 8 is worth trying: the noise floor grows as 1/(B-1)", unit="samples", ge=1)
    """fewer samples than this give no covariance loss"""
    d_M: int = R(32, "ours, grid 16, 32, 64", "common width of M_t, M_a, M_v", unit="features", ge=1)
    activation: Literal["relu", "tanh"] | None = R(None, "ours; ReLU would confine M to the positive orthant")
    """activation of M"""
    norm: Literal["layernorm"] | None = R(None, "ours; against minimising L3 by shrinking M", "normalisation of M")
    host: Literal["self_mm", "late_fusion"] = R("self_mm", "plug-and-play claim of the abstract [A]; late_fusion ours")
    """network that the covariance branch is plugged into; settings that late_fusion lacks do not reach it"""

    per_dataset = SelfMMConfig.per_dataset | {
        dataset: {**SelfMMConfig.per_dataset.get(dataset, {}), "lambda_cov": Sourced(weight, "R", _SHARE)}
        for dataset, weight in (("synthetic_redundant", 60.0), ("mosi", 10.0))
    }


_ACTIVATIONS = {None: nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh}


class CovarianceBranch(nn.Module):
    """The plug-and-play module: projections ``M`` of any network's features, and the distances of their covariances.

    Args:
        dims: width of each modality's feature.
        modes: ``"shared"``, ``"private"`` or ``"off"`` per pair name, for instance ``{"audio-vision": "shared"}``.
        width: ``d_M``, common width of the projections.
        activation: ``None``, ``"relu"`` or ``"tanh"``.
        norm: ``None`` or ``"layernorm"``.
        ema_decay: weight of the past in moving covariances; ``None`` takes each batch by itself.
        min_samples: smaller batches give 0.
        statistic: ``"covariance"``, or ``"correlation"``, which no shrinking of M changes.
        shuffled: shift the rows of each modality against those of the others before distances are taken.
    """

    def __init__(
        self,
        dims: Mapping[Modality, int],
        modes: Mapping[str, str],
        width: int = 32,
        *,
        activation: str | None = None,
        norm: str | None = None,
        ema_decay: float | None = None,
        min_samples: int = 1,
        statistic: Literal["covariance", "correlation"] = "covariance",
        shuffled: bool = False,
    ):
        super().__init__()
        self.modes, self.ema_decay, self.min_samples = dict(modes), ema_decay, max(2, min_samples)
        self.statistic, self.shuffled = statistic, shuffled
        self.project = nn.ModuleDict()
        for modality, in_dim in dims.items():
            normalise = nn.LayerNorm(width) if norm else nn.Identity()
            self.project[modality] = nn.Sequential(nn.Linear(in_dim, width), normalise, _ACTIVATIONS[activation]())
        if ema_decay is not None:
            for modality in dims:
                self.register_buffer(f"covariance_{modality}", torch.zeros(width, width))
            self.register_buffer("started", torch.tensor(False))

    def forward(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """``M``, ``(B, d_M)`` per modality."""
        return {modality: layer(features[modality]) for modality, layer in self.project.items()}

    def distances(self, shared: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Distance of the covariances of each pair that is not off: a scalar each, 0 (with graph) for small batches.

        With ``ema_decay``, a call in training mode moves the averages.
        """
        pairs = {pair: pair.split("-") for pair, mode in self.modes.items() if mode != "off"}
        if self.shuffled:
            shared = {m: x.roll(shift, dims=0) for shift, (m, x) in enumerate(shared.items())}
        if len(next(iter(shared.values()))) < self.min_samples:
            return {pair: 0 * (shared[x].sum() + shared[y].sum()) for pair, (x, y) in pairs.items()}
        names = sorted({name for pair in pairs.values() for name in pair})
        if self.ema_decay is None:
            compared = {name: covariance(shared[name]) for name in names}
        else:
            compared = {name: self._moving_covariance(name, shared[name]) for name in names}
            if self.training:
                self.started.fill_(True)
        if self.statistic == "correlation":
            compared = {name: correlation(matrix) for name, matrix in compared.items()}
        return {pair: covariance_distance(compared[x], compared[y]) for pair, (x, y) in pairs.items()}

    def terms(self, shared: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """What is minimised: a shared pair's distance, the bounded opposite of a private one's; 0 for small batches."""
        small = len(next(iter(shared.values()))) < self.min_samples
        return {
            pair: distance if small or self.modes[pair] == "shared" else private_alignment(distance)
            for pair, distance in self.distances(shared).items()
        }

    def _moving_covariance(self, modality: Modality, x: Tensor) -> Tensor:
        previous = getattr(self, f"covariance_{modality}")
        moved = moving_covariance(previous, x, self.ema_decay, self.started)
        if self.training:
            previous.copy_(moved.detach())
        return moved


class ModalAlignment(AccumulatingMethod):
    """A host network (Self-MM, or late fusion) and the covariance branch on its unimodal features.

    ``L = L2 + L1 + lambda L3``: the multimodal loss, the private losses on generated labels, the shared loss.

    Attributes:
        host: the network; ``host.bank`` holds the generated labels with the default host.
        branch: the covariance branch.
        variant: empty, or what differs from the authors' figure because of the data.

    Representations: those of the host, and ``"<modality>/shared"`` (M).

    Raises:
        ConfigError: a pair names a modality that the data lacks, or there are fewer than two modalities.
    """

    id = "modal_alignment"
    Config = ModalAlignmentConfig
    config: ModalAlignmentConfig

    def __init__(self, dims: Mapping[Modality, int], task: Task, config: ModalAlignmentConfig):
        super().__init__(dims, task, config)
        self.variant = ""
        modes = self._pair_modes()
        # The text encoder belongs to this method; its states reach the host as features.
        self.host = _host(self.dims, task, config)
        # The branch's initial weights leave the random stream as it was, so that the host trains as it does alone.
        with torch.random.fork_rng(devices=[]):
            self.branch = CovarianceBranch(
                self.host.feature_dims,
                modes,
                config.d_M,
                activation=config.activation,
                norm=config.norm,
                ema_decay=config.ema_decay if config.cov_batch == "ema" else None,
                min_samples=config.min_cov_samples,
                statistic=config.statistic,
                shuffled=config.shuffled_pairs,
            )
        self._held: list[tuple[Losses, dict[Modality, Tensor]]] = []

    def forward(self, batch: Batch) -> Output:
        """Predict as the host does; the projections M are added to its representations, no covariance is computed."""
        output = self.host(self.encode_text(batch))
        shared = self.branch({m: output.representations[f"{m}/feature"] for m in self.modalities})
        representations = output.representations | {f"{m}/shared": x for m, x in shared.items()}
        return Output(output.prediction, representations, output.auxiliary)

    def losses(self, batch: Batch, output: Output) -> Losses:
        """``loss = L2 + L1 + lambda_cov L3``: the host's terms, and in training ``covariance_<pair>`` per pair."""
        losses = self.host.losses(batch, output)
        return losses | self._alignment(self._shared(output)) if self.training else losses

    def _alignment(self, shared: Mapping[Modality, Tensor]) -> Losses:
        """``lambda_cov L3`` of the projections M, ``(B, d_M)`` each."""
        weight = 0.0 if self.config.no_alignment else self.config.lambda_cov
        terms = self.branch.terms(shared)
        return Losses(**{f"covariance_{pair}": (weight, term) for pair, term in terms.items()})

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """As Self-MM's; with ``cov_batch="accumulated"`` one backward per group, over covariances of the whole group.

        The log of a group's last micro-batch then holds the covariance terms. Every log holds ``norm/M_<modality>``,
        the mean length of the rows of M: L3 falls when M merely shrinks.
        """
        if self.config.cov_batch != "accumulated":
            return super().training_step(batch, optimizers)
        output = self(batch)
        losses = self.host.losses(batch, output)
        self._held.append((losses, self._shared(output)))
        log = self._backward_held() if len(self._held) == self.config.update_epochs else loss_log(losses)
        log |= self.after_backward(batch, output)
        self.count_micro_batch(optimizers)
        return log

    def after_backward(self, batch: Batch, output: Output) -> dict[str, float]:
        """Update the host's label bank; returns the mean norm of each M."""
        if isinstance(self.host, AccumulatingMethod):
            self.host.after_backward(batch, output)
        shared = self._shared(output)
        norms = torch.stack([x.detach().float().norm(dim=-1).mean() for x in shared.values()]).tolist()
        return {f"norm/M_{m}": norm for m, norm in zip(shared, norms, strict=True)}

    def encoder_parameters(self) -> list[nn.Parameter]:
        """Of the text encoder and the host's encoders."""
        text = [] if self.text_encoder is None else self.text_encoder.parameters()
        return [*text, *self.host.encoder_parameters()]

    def parameter_groups(self) -> list[dict]:
        """The text encoder's and the host's groups [P]; the branch joins the host's last one (all other parameters)."""
        *groups, others = self.host.parameter_groups()
        others = {**others, "params": [*others["params"], *self.branch.parameters()]}
        return [*self.text_parameter_groups(), *groups, others]

    def start_phase(self, phase: str, train: Utterances) -> None:
        """Prepare the host (its label bank)."""
        self.host.start_phase(phase, train)

    def start_epoch(self, epoch: int) -> None:
        """Forget an incomplete group and prepare the host."""
        super().start_epoch(epoch)
        self._held.clear()
        self.host.start_epoch(epoch)

    def end_epoch(self, epoch: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """What the host logs, after a step with an incomplete last group where ``flush_last_group`` says so."""
        if self._held and self.config.flush_last_group:
            self._backward_held()
        self._held.clear()
        return super().end_epoch(epoch, optimizers) | self.host.end_epoch(epoch, optimizers)

    def _shared(self, output: Output) -> dict[Modality, Tensor]:
        return {m: output.representations[f"{m}/shared"] for m in self.modalities}

    def _backward_held(self) -> dict[str, float]:
        """One backward over the micro-batches held: each one's losses and the covariance loss of all their samples.

        Returns:
            The log of the last of them.
        """
        losses, parts = zip(*self._held, strict=True)
        self._held.clear()
        alignment = self._alignment({m: torch.cat([part[m] for part in parts]) for m in self.modalities})
        log = loss_log(losses[-1] | alignment) | term_gradients(losses[-1] | alignment)
        # The micro-batches before have it in their loss too, and could not log it yet.
        log["loss/total"] += (len(losses) - 1) * sum(log[f"loss/{name}"] for name in alignment)
        torch.stack([loss_sum(one | alignment) for one in losses]).sum().backward()
        return log

    def _pair_modes(self) -> dict[str, str]:
        """Mode of each pair in use; sets ``variant`` where the data cannot give the figure's pair."""
        if len(self.modalities) < 2:
            raise ConfigError(f"{self.id} aligns pairs of modalities; the data has only {self.modalities[0]}")
        pairs = self.config.pairs
        if pairs is None:
            pairs = (pair_name(self.modalities[-2:]),)
            if len(self.modalities) == 2 and pairs != ("audio-vision",):
                self.variant = f"{pairs[0]} is aligned instead of audio-vision: the data has no other modality"
        mode = self.config.pair_mode
        named = dict.fromkeys(pairs, mode) if isinstance(mode, str) else dict(mode)
        for pair in (*pairs, *named):
            if lacking := [m for m in pair.split("-") if m not in self.modalities]:
                raise ConfigError(f"pair {pair} needs {lacking[0]}; the data has {', '.join(self.modalities)}")
        if unused := [pair for pair in named if pair not in pairs]:
            raise ConfigError(f"pair_mode names {unused[0]}, which is not in pairs={', '.join(pairs)}; add it there")
        return {pair: named.get(pair, "shared") for pair in pairs}


def _host(dims: Mapping[Modality, int], task: Task, config: ModalAlignmentConfig) -> Method:
    """The host network, with those of its settings that ``config`` has. It gets text as features."""
    if config.host == "late_fusion":
        shared = {name: getattr(config, name) for name in MethodConfig.model_fields}
        return LateFusion(dims, task, LateFusionConfig(**{**shared, "text_encoder": "precomputed"}))
    own = {name: getattr(config, name) for name in SelfMMConfig.model_fields} | {"text_encoder": "precomputed"}
    if config.no_ulgm:
        own["single_task"] = True
    return SelfMM(dims, task, SelfMMConfig(**own))
