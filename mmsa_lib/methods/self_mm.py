"""``self_mm``: self-supervised multi-task learning.

Source: Yu, Xu, Yuan, Wu, "Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis", AAAI 2021, arXiv 2102.04830; details from the authors' code and from MMSA [C]
(docs/methods/self_mm.md).

Written for any number of modalities. Where the paper has BERT's 768 features, here is the width of the text encoder or
of the text features that are loaded. ``tasks`` may leave out heads; the prediction is that of the first trained head
in the order M, T, A, V [R].
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmsa_lib.data.batch import MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.base import Losses, Method, MethodConfig, Output, backward
from mmsa_lib.methods.evidence import C, R, Sourced
from mmsa_lib.nn.heads import mlp, to_label_scale
from mmsa_lib.nn.sequence import SequenceReadout, pool, sequence_encoder

__all__ = ["SelfMM", "SelfMMConfig", "UnimodalLabelBank"]

logger = logging.getLogger(__name__)


TaskLetter = Literal["M", "T", "A", "V"]

_DATASETS = ("mosi", "mosei", "sims", "simsv2")

# MMSA config_regression.json at a94e65d, one column per data set in the order above.
_MMSA: dict[str, tuple[Any, Any, Any, Any]] = {
    "batch_size": (16, 32, 32, 16),
    "learning_rate": (1e-3, 1e-3, 1e-3, 1e-3),
    "learning_rate_text": (5e-5, 5e-5, 5e-5, 5e-5),
    "learning_rate_audio": (5e-3, 5e-3, 5e-3, 1e-3),
    "learning_rate_vision": (5e-3, 1e-4, 5e-3, 1e-3),
    "weight_decay": (1e-3, 1e-2, 1e-3, 1e-3),
    "weight_decay_text": (1e-3, 1e-3, 1e-3, 1e-2),
    "weight_decay_audio": (1e-3, 0.0, 1e-2, 0.0),
    "weight_decay_vision": (1e-3, 0.0, 1e-2, 0.0),
    "audio_hidden": (16, 16, 16, 16),
    "vision_hidden": (32, 32, 64, 64),
    "audio_out": (16, 16, 16, 16),
    "vision_out": (32, 32, 32, 32),
    "post_fusion_dim": (128, 128, 128, 128),
    "post_text_dim": (32, 32, 64, 64),
    "post_audio_dim": (16, 16, 16, 32),
    "post_vision_dim": (32, 32, 32, 32),
    "post_fusion_dropout": (0.0, 0.1, 0.0, 0.0),
    "post_text_dropout": (0.1, 0.0, 0.1, 0.0),
    "post_audio_dropout": (0.1, 0.0, 0.1, 0.1),
    "post_vision_dropout": (0.0, 0.0, 0.0, 0.0),
    "label_bound": (3.0, 3.0, 1.0, 3.0),
}


def _tuned(name: str, meaning: str = "", unit: str = "", **constraints: Any) -> Any:
    """A field that MMSA tuned per data set; elsewhere its value for MOSI is our choice."""
    source = "MMSA's value for MOSI, on data sets that MMSA has no values for"
    return R(_MMSA[name][0], source, meaning, unit=unit, **constraints)


class SelfMMConfig(MethodConfig):
    """Values of ``self_mm``; the switches are its ablations."""

    update_epochs: int = C(4, "MMSA config_regression.json, the same for all data sets", unit="micro-batches", ge=1)
    """micro-batches whose gradients are summed (not averaged) into one optimiser step"""
    flush_last_group: bool = C(False, "MMSA and Self-MM, by reading: an incomplete last group never reaches a step")
    """step once more at the end of an epoch when micro-batches are left over"""
    batch_size: int = _tuned("batch_size", "samples per micro-batch", "samples", ge=1)
    learning_rate: float = _tuned("learning_rate", "learning rate of all other parameters", "per step", gt=0)
    learning_rate_text: float = _tuned("learning_rate_text", unit="per step", gt=0)
    """learning rate of a fine-tuned text encoder"""
    learning_rate_audio: float = _tuned("learning_rate_audio", "learning rate of the audio encoder", "per step", gt=0)
    learning_rate_vision: float = _tuned("learning_rate_vision", unit="per step", gt=0)
    """learning rate of the vision encoder"""
    weight_decay: float = _tuned("weight_decay", "weight decay of all other parameters", ge=0)
    weight_decay_text: float = _tuned("weight_decay_text", ge=0)
    """weight decay of a fine-tuned text encoder; biases and norms have none"""
    weight_decay_audio: float = _tuned("weight_decay_audio", "weight decay of the audio encoder", ge=0)
    weight_decay_vision: float = _tuned("weight_decay_vision", "weight decay of the vision encoder", ge=0)
    sequence: SequenceReadout = C("lstm", "MMSA and Self-MM: last state of an LSTM; mean is ours, as in late_fusion")
    """how audio and vision become one vector each: last state, or mean over frames after a layer at every frame"""
    audio_hidden: int = _tuned("audio_hidden", "state size of the audio LSTM", ge=1)
    vision_hidden: int = _tuned("vision_hidden", "state size of the vision LSTM", ge=1)
    audio_out: int = _tuned("audio_out", "width of Feature_a", ge=1)
    vision_out: int = _tuned("vision_out", "width of Feature_v", ge=1)
    post_fusion_dim: int = _tuned("post_fusion_dim", "width of the fusion feature F*_m", ge=1)
    post_text_dim: int = _tuned("post_text_dim", "width of the text feature F*_t", ge=1)
    post_audio_dim: int = _tuned("post_audio_dim", "width of the audio feature F*_a", ge=1)
    post_vision_dim: int = _tuned("post_vision_dim", "width of the vision feature F*_v", ge=1)
    post_fusion_dropout: float = _tuned("post_fusion_dropout", "dropout before the fusion layer", ge=0, lt=1)
    post_text_dropout: float = _tuned("post_text_dropout", "dropout before the text layer", ge=0, lt=1)
    post_audio_dropout: float = _tuned("post_audio_dropout", "dropout before the audio layer", ge=0, lt=1)
    post_vision_dropout: float = _tuned("post_vision_dropout", "dropout before the vision layer", ge=0, lt=1)
    label_bound: float | None = R(
        None, "MMSA: 3 on labels -3..3, 1 on -1..1; half the label range gives the same", unit="label units", gt=0
    )
    """H, generated labels are clipped to [-H, H] around neutral; None: half of the task's label range"""
    lambda_label: float = C(1.0, "MMSA and Self-MM add all terms unweighted", "weight of each unimodal loss (L1)", ge=0)
    tasks: tuple[TaskLetter, ...] = C(("M", "T", "A", "V"), "MMSA, multi-task heads", min_length=1)
    """heads that are trained; letters of modalities that the data lacks are left out"""
    single_task: bool = C(False, "Self-MM, ablation", "train the multimodal head alone (tasks = M)")
    no_ulgm: bool = C(False, "Self-MM, ablation")
    """no generated labels: they stay the multimodal label (with weighting, that trains M alone)"""
    no_weighting: bool = C(False, "Self-MM, ablation", "weight every unimodal sample with 1, not tanh|y_s - y_m|")
    no_momentum: bool = C(False, "Self-MM, ablation", "use the label of this epoch alone, not the weighted mean")
    distance: Literal["l2", "scaled_sq"] = C(
        "l2", "Self-MM code; scaled_sq is said to be the paper's form [P, unverified]"
    )
    """distance to a class centre: L2, or squared L2 over sqrt(width)"""
    relative: Literal["pos", "centers"] = C("pos", "Self-MM code; centers is a commented-out alternative in it")
    """what divides D_n - D_p: the distance to the positive centre, or between the centres"""
    exclude_zero: bool = C(True, "MMSA config_regression.json, excludeZero")
    """samples with generated label 0 count for no centre; otherwise for the positive one"""

    per_dataset = {
        dataset: {
            name: Sourced(values[column], "C", f"MMSA config_regression.json, Self-MM on {dataset}")
            for name, values in _MMSA.items()
        }
        for column, dataset in enumerate(_DATASETS)
    }


class AccumulatingMethod(Method):
    """A method whose step happens every ``config.update_epochs`` micro-batches, as Self-MM trains [C].

    Attributes:
        epoch: the epoch that is running, from 1.
        micro_batches: micro-batches seen in this epoch.
    """

    config: SelfMMConfig
    epoch = 1
    micro_batches = 0

    def start_epoch(self, epoch: int) -> None:
        """Forget the gradients of an incomplete group of the epoch before."""
        self.epoch, self.micro_batches = epoch, 0
        self.zero_grad(set_to_none=True)

    def training_step(self, batch: Batch, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Forward, backward, :meth:`after_backward`; a step where the group is complete.

        Returns:
            As :meth:`Method.training_step`.

        Raises:
            RunError: a term is not finite; names it.
        """
        output = self(batch)
        log = backward(self.losses(batch, output))
        log |= self.after_backward(batch, output)
        self.count_micro_batch(optimizers)
        return log

    def after_backward(self, batch: Batch, output: Output) -> dict[str, float]:
        """What a method does with each micro-batch after its loss; what it returns joins the log."""
        return {}

    def count_micro_batch(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Count one micro-batch and step when it completes its group."""
        self.micro_batches += 1
        if self.micro_batches % self.config.update_epochs == 0:
            self.apply_gradients(optimizers)

    def apply_gradients(self, optimizers: Mapping[str, Optimizer]) -> None:
        """One step of every optimiser; the gradients start anew."""
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def end_epoch(self, epoch: int, optimizers: Mapping[str, Optimizer]) -> dict[str, float]:
        """Step with an incomplete last group where ``flush_last_group`` says so; warn where no step was made at all."""
        group = self.config.update_epochs
        if self.config.flush_last_group and self.micro_batches % group:
            self.apply_gradients(optimizers)
        elif epoch == 1 and 0 < self.micro_batches < group:
            logger.warning(
                f"{self.id} learns nothing: an epoch of {self.micro_batches} micro-batches is no group of "
                f"update_epochs={group}; set flush_last_group=true, a smaller batch_size or a smaller update_epochs"
            )
        return {}


EPSILON = 1e-8
"""Added to denominators [C]."""


class UnimodalLabelBank(nn.Module):
    """ULGM: features, labels and class centres of all training samples; no parameters, only buffers.

    The buffers travel in ``state_dict``, so a resumed run goes on with its labels; a bank of any size accepts a state
    of any other size. Labels are distances from neutral (0 is neutral), NaN for an unlabelled sample: that one gets no
    generated label and belongs to no centre.

    Args:
        size: number ``N`` of training samples.
        dims: width of the feature of each modality, and of the multimodal one under the only key that is no modality
            (here ``"fusion"``).
        bound: ``H``, generated labels are clipped to ``[-H, H]``.
        exclude_zero: the positive centre averages samples with label > 0; otherwise >= 0. The negative one always < 0.
        distance: ``"l2"`` [C], or ``"scaled_sq"``: the squared distance over sqrt(d) [P, unverified].
        relative: divide ``D_n - D_p`` by ``D_p`` (``"pos"`` [C]) or by the distance of the two centres (``"centers"``,
            commented out in the code).
        momentum: mix with the labels of earlier epochs; without it, each epoch's generated label counts alone.

    Raises:
        ConfigError: ``dims`` has not exactly one multimodal entry and at least one modality.
    """

    def __init__(
        self,
        size: int,
        dims: Mapping[str, int],
        bound: float,
        exclude_zero: bool = True,
        *,
        distance: Literal["l2", "scaled_sq"] = "l2",
        relative: Literal["pos", "centers"] = "pos",
        momentum: bool = True,
    ):
        super().__init__()
        joint = [name for name in dims if name not in MODALITIES]
        if len(joint) != 1 or len(dims) < 2:
            raise ConfigError(
                "a label bank needs the widths of one multimodal feature (for instance 'fusion') and of at least one "
                f"of {', '.join(MODALITIES)}; got {', '.join(dims) or 'nothing'}"
            )
        self.multimodal = joint[0]
        self.unimodal = tuple(name for name in dims if name in MODALITIES)
        self.dims, self.bound, self.exclude_zero = dict(dims), float(bound), exclude_zero
        self.distance, self.relative, self.momentum = distance, relative, momentum
        for name, width in dims.items():
            self.register_buffer(f"label_{name}", torch.zeros(size))
            self.register_buffer(f"feature_{name}", torch.zeros(size, width))
            self.register_buffer(f"center_{name}", torch.zeros(2, width))
        self.register_buffer("clipped", torch.zeros(len(dims)), persistent=False)
        self.register_buffer("generated", torch.zeros(()), persistent=False)
        self.widths = list(dims.values())
        entry = torch.arange(len(dims)).repeat_interleave(torch.tensor(self.widths))
        self.register_buffer("entry", entry, persistent=False)  # (D,), of the features side by side
        self._sums: tuple[Tensor, Tensor] | None = None

    @property
    def labels(self) -> dict[str, Tensor]:
        """Current label of every training sample, ``(N,)`` per modality and for the multimodal entry."""
        return {name: getattr(self, f"label_{name}") for name in self.dims}

    @property
    def features(self) -> dict[str, Tensor]:
        """Last seen feature of every training sample, ``(N, d)`` each; zeros where a sample was not seen yet."""
        return {name: getattr(self, f"feature_{name}") for name in self.dims}

    @property
    def centers(self) -> dict[str, Tensor]:
        """Positive and negative centre of each modality, ``(2, d)``."""
        return {name: getattr(self, f"center_{name}") for name in self.dims}

    def initialise(self, labels: Tensor) -> None:
        """Forget everything and give every sample its multimodal label: ``y_s = y_m``.

        Args:
            labels: ``(N,)``, distances from neutral; ``N`` becomes the size of the bank.
        """
        for name, width in self.dims.items():
            center = torch.zeros_like(getattr(self, f"center_{name}"))
            setattr(self, f"label_{name}", labels.to(center).clone())
            setattr(self, f"feature_{name}", center.new_zeros(len(labels), width))
            setattr(self, f"center_{name}", center)
        self.reset_counts()

    @torch.no_grad()
    def update(self, epoch: int, index: Tensor, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """One micro-batch: new labels from the old centres, then the features, then the centres over all samples.

        In epoch 1 the rows' labels are set to ``labels``. Afterwards the unimodal ones are generated and mixed into
        the past with weight ``2 / (epoch + 1)``; the multimodal labels never change.

        Args:
            epoch: counts from 1.
            index: ``(B,)`` int64, rows of the samples, each once.
            features: ``(B, d)`` per entry of ``dims``.
            labels: ``(B,)`` multimodal labels, distances from neutral.

        Raises:
            RunError: an index lies outside of the bank.
        """
        with torch.autocast(labels.device.type, enabled=False):
            joined = self._joined(features)
            labels = labels.detach().to(self.labels[self.multimodal])
            self._check(index)
            past = torch.stack([stored[index] for stored in self.labels.values()], dim=1)  # (B, E)
            leaving = self._members(past, torch.cat([stored[index] for stored in self.features.values()], dim=1))
            sums = self._sums or self._members(torch.stack([*self.labels.values()], dim=1), self._joined(self.features))
            new = labels.unsqueeze(1).expand_as(past) if epoch == 1 else self._mixed(epoch, past, joined, labels)
            for stored, column in zip(self.labels.values(), new.unbind(1), strict=True):
                stored[index] = column
            for stored, part in zip(self.features.values(), joined.split(self.widths, dim=1), strict=True):
                stored[index] = part
            # Sums over all N samples from the rows that changed: O(B), not O(N).
            self._sums = tuple(a - b + c for a, b, c in zip(sums, leaving, self._members(new, joined), strict=True))
            self._update_centers(*self._sums)

    def generate(self, features: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Generated labels before clipping, ``(B,)`` per modality: half a ratio and half a shift of the human label.

        ``y_s = (d_s / d_m) y_m / 2 + (y_m + d_s - d_m) / 2``, ``d`` being the relative distance to the centres.
        """
        columns = self._generated(self._joined(features), labels).unbind(1)
        return {name: column for name, column in zip(self.dims, columns, strict=True) if name != self.multimodal}

    def relative_distances(self, joined: Tensor) -> Tensor:
        """``(D_n - D_p) / (D_p + 1e-8)``, large near the positive centre: ``(B, E)``.

        Args:
            joined: ``(B, D)``, the features of all E entries of ``dims`` side by side.
        """
        positive, negative = torch.cat([*self.centers.values()], dim=1)
        to_positive, to_negative = self._distance(joined, positive), self._distance(joined, negative)
        scale = to_positive if self.relative == "pos" else self._distance(positive, negative)
        return (to_negative - to_positive) / (scale + EPSILON)

    def shift(self) -> dict[str, float]:
        """Mean ``|y_s - y_m|`` over all labelled training samples, per modality; on the label scale."""
        labels, labelled = self.labels, ~self.labels[self.multimodal].isnan()
        distances = {name: (labels[name] - labels[self.multimodal]).abs() for name in self.unimodal}
        return {name: distance[labelled].mean().item() for name, distance in distances.items()}

    def clip_rate(self) -> dict[str, float]:
        """Share of generated labels that were clipped since :meth:`reset_counts`; 0 where none was generated."""
        rates = dict(zip(self.dims, (self.clipped / self.generated.clamp_min(1)).tolist(), strict=True))
        return {name: rates[name] for name in self.unimodal}

    def reset_counts(self) -> None:
        """Start a new :meth:`clip_rate`, and take the sums behind the centres anew."""
        self.clipped.zero_()
        self.generated.zero_()
        self._sums = None

    def _check(self, index: Tensor) -> None:
        size = len(self.labels[self.multimodal])
        # On a GPU the check would wait for the device at every step; there the indexing itself asserts.
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            raise RunError(
                f"the label bank holds {size} training samples and was asked for row {int(index.max())}; "
                "call initialise() (start_phase() of the method) with all training labels first"
            )

    def _joined(self, features: Mapping[str, Tensor]) -> Tensor:
        """``(B, D)``: the features of all entries side by side, without graph."""
        like = self.features
        return torch.cat([features[name].detach().to(like[name]) for name in self.dims], dim=1)

    def _mixed(self, epoch: int, past: Tensor, joined: Tensor, labels: Tensor) -> Tensor:
        """``past`` labels ``(B, E)`` and generated ones in their weighted mean; the multimodal column stays."""
        new = 2 / (epoch + 1) if self.momentum else 1.0
        raw = self._generated(joined, labels)
        self.clipped += (raw.abs() > self.bound).sum(dim=0)
        self.generated += (~labels.isnan()).sum()
        mixed = (1 - new) * past + new * raw.clamp(-self.bound, self.bound)
        column = list(self.dims).index(self.multimodal)
        mixed[:, column] = past[:, column]
        return mixed

    def _generated(self, joined: Tensor, labels: Tensor) -> Tensor:
        """``(B, E)``; the multimodal column means nothing."""
        d_s, y_m = self.relative_distances(joined), labels.unsqueeze(1)
        d_m = d_s[:, [list(self.dims).index(self.multimodal)]]
        return 0.5 * d_s / (d_m + EPSILON) * y_m + 0.5 * (y_m + d_s - d_m)

    def _members(self, labels: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Of rows with labels ``(R, E)`` and features ``(R, D)``: sums and counts of both classes, ``(2, D)`` each.

        In double precision, so that subtracting what was added leaves nothing.
        """
        positive = labels > 0 if self.exclude_zero else labels >= 0
        members = torch.stack([positive, labels < 0]).to(torch.float64)
        sums = members.mT @ features.to(torch.float64)  # (2, E, D), every entry's classes over every column
        return sums.gather(1, self.entry.expand(2, 1, -1)).squeeze(1), members.sum(dim=1)[:, self.entry]

    def _update_centers(self, sums: Tensor, counts: Tensor) -> None:
        old = torch.cat([*self.centers.values()], dim=1)
        # A class without a member has no mean; its old centre stays.
        means = torch.where(counts > 0, (sums / counts.clamp_min(1)).to(old), old)
        for center, part in zip(self.centers.values(), means.split(self.widths, dim=1), strict=True):
            center.copy_(part)

    def _distance(self, x: Tensor, center: Tensor) -> Tensor:
        """From ``(..., D)`` to ``(..., E)``."""
        parts = (x - center).square().split(self.widths, dim=-1)
        squared = torch.stack([part.sum(dim=-1) for part in parts], dim=-1)
        return squared.sqrt() if self.distance == "l2" else squared / x.new_tensor(self.widths).sqrt()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for name in self.dims:
            for buffer in (f"label_{name}", f"feature_{name}"):
                saved = state_dict.get(prefix + buffer)
                if saved is not None and saved.shape[1:] == getattr(self, buffer).shape[1:]:
                    setattr(self, buffer, getattr(self, buffer).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._sums = None


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
    encoder_modules = ("encoders", "post")

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
        bound = task.bound if config.label_bound is None else config.label_bound
        forms = {"distance": config.distance, "relative": config.relative, "momentum": not config.no_momentum}
        self.bank = UnimodalLabelBank(0, widths, bound, config.exclude_zero, **forms)

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

    def losses(self, batch: Batch, output: Output) -> Mapping[str, Tensor]:
        """``loss = |y^_m - y_m| + lambda_label sum over s of tanh|y_s - y_m| |y^_s - y_s|``.

        Each term is a mean over the labelled samples of the batch: ``task`` the multimodal one, ``label_<modality>``
        the others, on generated labels ``y_s`` as they stand before this batch's update, in training only.
        """
        if not self.training:
            return super().losses(batch, output)
        terms = {}
        for name in self.trained:
            predicted = output.auxiliary[f"prediction/{name}"]
            if name == FUSION:
                terms["task"] = (1.0, self.task.loss(predicted, batch.labels, batch.labelled))
            else:
                terms[f"label_{name}"] = (self.config.lambda_label, self._unimodal_loss(name, batch, predicted))
        return Losses(**terms)

    def _unimodal_loss(self, name: str, batch: Batch, predicted: Tensor) -> Tensor:
        generated = self.bank.labels[name][batch.index]  # (B,), distance from neutral
        labels = batch.labels - self.task.center
        if batch.labelled is not None:
            predicted, generated, labels = (x[batch.labelled] for x in (predicted, generated, labels))
        if not len(labels):
            return predicted.sum()  # 0, with a graph
        error = (predicted - (generated + self.task.center)).abs()
        if self.config.no_weighting:
            return error.mean()
        return (torch.tanh((generated - labels).abs()) * error).mean()

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

    def _encoder(self, modality: Modality) -> nn.Module:
        hidden, out = getattr(self.config, f"{modality}_hidden"), getattr(self.config, f"{modality}_out")
        return sequence_encoder(self.config.sequence, self.dims[modality], hidden, out)

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
