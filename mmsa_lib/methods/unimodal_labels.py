"""ULGM: labels for single modalities, generated from where a feature lies between two class centres.

Source: Self-MM (Yu et al., AAAI 2021), its code [C: thuiar/Self-MM, thuiar/MMSA]; spec self_mm.md, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.errors import ConfigError, RunError

EPSILON = 1e-8
"""Added to denominators [C]."""


class Centers(NamedTuple):
    """Class centres of one modality, ``(d,)`` each."""

    positive: Tensor
    negative: Tensor


class UnimodalLabelBank(nn.Module):
    """Features, labels and class centres of all training samples; no parameters, only buffers.

    The buffers travel in ``state_dict``, so a resumed run goes on with its labels; a bank of any size accepts a state
    of any other size. Labels are distances from neutral (0 is neutral).

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
        self.register_buffer("clipped", torch.zeros(len(self.unimodal)), persistent=False)
        self.register_buffer("generated", torch.zeros(()), persistent=False)

    @property
    def labels(self) -> dict[str, Tensor]:
        """Current label of every training sample, ``(N,)`` per modality and for the multimodal entry."""
        return {name: getattr(self, f"label_{name}") for name in self.dims}

    @property
    def features(self) -> dict[str, Tensor]:
        """Last seen feature of every training sample, ``(N, d)`` each; zeros where a sample was not seen yet."""
        return {name: getattr(self, f"feature_{name}") for name in self.dims}

    @property
    def centers(self) -> dict[str, Centers]:
        """Positive and negative centre of each modality."""
        return {name: Centers(*getattr(self, f"center_{name}")) for name in self.dims}

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
            index: ``(B,)`` int64, rows of the samples.
            features: ``(B, d)`` per entry of ``dims``.
            labels: ``(B,)`` multimodal labels, distances from neutral.

        Raises:
            RunError: an index lies outside of the bank.
        """
        with torch.autocast(labels.device.type, enabled=False):
            features = {name: features[name].detach().to(self.features[name]) for name in self.dims}
            labels = labels.detach().to(self.labels[self.multimodal])
            self._check(index)
            if epoch == 1:
                for stored in self.labels.values():
                    stored[index] = labels
            else:
                self._update_labels(epoch, index, features, labels)
            for name, stored in self.features.items():
                stored[index] = features[name]
            self._update_centers()

    def generate(self, features: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        """Generated labels before clipping, ``(B,)`` per modality: half a ratio and half a shift of the human label.

        ``y_s = (d_s / d_m) y_m / 2 + (y_m + d_s - d_m) / 2``, ``d`` being the relative distance to the centres.
        """
        d_m = self.relative_distance(self.multimodal, features[self.multimodal])
        shifted = {}
        for name in self.unimodal:
            d_s = self.relative_distance(name, features[name])
            shifted[name] = 0.5 * d_s / (d_m + EPSILON) * labels + 0.5 * (labels + d_s - d_m)
        return shifted

    def relative_distance(self, name: str, feature: Tensor) -> Tensor:
        """``(D_n - D_p) / (D_p + 1e-8)`` of features ``(B, d)``: large near the positive centre, ``(B,)``."""
        center = self.centers[name]
        to_positive, to_negative = self._distance(feature, center.positive), self._distance(feature, center.negative)
        scale = to_positive if self.relative == "pos" else self._distance(center.positive, center.negative)
        return (to_negative - to_positive) / (scale + EPSILON)

    def shift(self) -> dict[str, float]:
        """Mean ``|y_s - y_m|`` over all training samples, per modality; on the label scale."""
        labels = self.labels
        return {name: (labels[name] - labels[self.multimodal]).abs().mean().item() for name in self.unimodal}

    def clip_rate(self) -> dict[str, float]:
        """Share of generated labels that were clipped since :meth:`reset_counts`; 0 where none was generated."""
        rates = (self.clipped / self.generated.clamp_min(1)).tolist()
        return dict(zip(self.unimodal, rates, strict=True))

    def reset_counts(self) -> None:
        """Start a new :meth:`clip_rate`."""
        self.clipped.zero_()
        self.generated.zero_()

    def _check(self, index: Tensor) -> None:
        size = len(self.labels[self.multimodal])
        # On a GPU the check would wait for the device at every step; there the indexing itself asserts.
        if index.device.type == "cpu" and len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            raise RunError(
                f"the label bank holds {size} training samples and was asked for row {int(index.max())}; "
                "call initialise() (start_phase() of the method) with all training labels first"
            )

    def _update_labels(self, epoch: int, index: Tensor, features: Mapping[str, Tensor], labels: Tensor) -> None:
        new = 2 / (epoch + 1) if self.momentum else 1.0
        for position, (name, raw) in enumerate(self.generate(features, labels).items()):
            self.clipped[position] += (raw.abs() > self.bound).sum()
            stored = self.labels[name]
            stored[index] = (1 - new) * stored[index] + new * raw.clamp(-self.bound, self.bound)
        self.generated += len(index)

    def _update_centers(self) -> None:
        for name, labels in self.labels.items():
            positive = labels > 0 if self.exclude_zero else labels >= 0
            members = torch.stack([positive, labels < 0]).to(self.features[name])
            count = members.sum(dim=1, keepdim=True)
            means = members @ self.features[name] / count.clamp_min(1)
            # A class without a member has no mean; its old centre stays.
            setattr(self, f"center_{name}", torch.where(count > 0, means, getattr(self, f"center_{name}")))

    def _distance(self, x: Tensor, center: Tensor) -> Tensor:
        squared = (x - center).square().sum(dim=-1)
        return squared.sqrt() if self.distance == "l2" else squared / x.shape[-1] ** 0.5

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        for name in self.dims:
            for buffer in (f"label_{name}", f"feature_{name}"):
                saved = state_dict.get(prefix + buffer)
                if saved is not None and saved.shape[1:] == getattr(self, buffer).shape[1:]:
                    setattr(self, buffer, getattr(self, buffer).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
