"""Parameter-free decoupling: split each modality's sequence by its similarity to the other modalities.

Source: Wang, Liu, Liu, arXiv 2501.12424 (withdrawn); reference code smwanghhh/MMCL [C]; the variant ``corrected`` is
ours [R].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError

Variant = Literal["corrected", "reference"]
Comparison = Literal["min", "mean"]
Align = Literal["none", "ln", "center"]
Unaligned = Literal["refuse", "compose"]
Sequences = dict[str, Tensor]


def decouple(
    z: Mapping[str, Tensor],
    valid: Tensor | Mapping[str, Tensor],
    *,
    variant: Variant = "corrected",
    temperature: float = 0.1,
    comparison: Comparison = "min",
    align: Align = "none",
    unaligned: Unaligned = "refuse",
) -> tuple[Sequences, Sequences, Sequences]:
    r"""Common and specific part of each modality, without any parameter.

    With :math:`C^{mn}` the cosines of all positions of two modalities, :math:`C_m=\min_{n\ne m}C^{mn}` says how far
    position :math:`i` of :math:`m` agrees with position :math:`j` of *every* other modality. Rows of
    :math:`Z_m` are then mixed by agreement (common) and by disagreement (specific):

    * ``reference`` [C]: :math:`S=\mathrm{softmax}(C)`, :math:`P=SZ`, :math:`N=\mathrm{softmax}(1-S)Z`. Padding takes
      part. Both weights are nearly uniform: for 20 positions no entry of S exceeds .28.
    * ``corrected`` [R]: :math:`S=\mathrm{softmax}(C/\tau)`, :math:`P=SZ`, :math:`N=\mathrm{softmax}(-C/\tau)Z`, over
      valid positions only.

    Position ``j`` of another modality weighs position ``j`` of the own one, so positions must be the same words.

    Args:
        z: per modality ``(B, T, d)``; at least two, of one width.
        valid: ``(B, T)`` bool for all modalities, or one per modality.
        variant: see above.
        temperature: :math:`\tau` of ``corrected``.
        comparison: ``"min"`` [C], or ``"mean"`` of the similarities (a commented line of the code).
        align: what is done to each modality before the cosine [R, ours]: ``"ln"`` brings every row to mean 0 and
            variance 1, ``"center"`` subtracts the mean over the valid rows of the batch, ``"none"`` nothing.
        unaligned: ``"refuse"`` sequences whose valid positions differ, or ``"compose"`` [R]:
            :math:`C_m=\min_n\mathrm{softmax}(C^{mn}/\tau)\,\mathrm{softmax}(C^{nm}/\tau)`, the similarity of two
            positions of m by way of n (``corrected`` only).

    Returns:
        ``(common, specific, weights)``: ``(B, T_m, d)`` per modality, twice, and the matrices ``(B, T_m, T_m)`` under
        ``"<modality>/common"`` and ``"<modality>/specific"``. Rows sum to 1; in ``corrected`` padding has weight 0 (and
        a sample without a valid position has no weights at all).

    Raises:
        ConfigError: fewer than two modalities, sequences of length 1, unaligned sequences, or a bad setting.
    """
    masks = {m: valid[m] if isinstance(valid, Mapping) else valid for m in z}
    _check(z, masks, variant, temperature, unaligned)
    if variant == "reference":
        masks = {m: torch.ones_like(mask) for m, mask in masks.items()}
    unit = {m: F.normalize(_align(x, masks[m], align), dim=-1) for m, x in z.items()}
    common, specific, weights = {}, {}, {}
    for m, sequence in z.items():
        similarity = _similarity(m, unit, masks, comparison, temperature if unaligned == "compose" else None)
        agree, differ = _weights(similarity, masks[m], variant, temperature)
        weights[f"{m}/common"], weights[f"{m}/specific"] = agree, differ
        common[m], specific[m] = agree @ sequence, differ @ sequence
    return common, specific, weights


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the valid positions of the last axis: ``(B, R, T)``, ``(B, T)``; padding gets 0, exactly."""
    ignored = ~valid.unsqueeze(1)
    # The smallest number instead of minus infinity: a row without a valid position would not be a number.
    return scores.masked_fill(ignored, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(ignored, 0)


def _similarity(own: str, unit: Sequences, masks: Sequences, comparison: Comparison, compose: float | None) -> Tensor:
    """How far all other modalities agree: ``(B, T_own, T_own)``."""
    per_other = []
    for other, rows in unit.items():
        if other == own:
            continue
        cosine = unit[own] @ rows.transpose(1, 2)
        if compose is not None:
            there = masked_softmax(cosine / compose, masks[other])
            cosine = there @ masked_softmax(cosine.transpose(1, 2) / compose, masks[own])
        per_other.append(cosine)
    stacked = torch.stack(per_other)
    return stacked.amin(0) if comparison == "min" else stacked.mean(0)


def _weights(similarity: Tensor, valid: Tensor, variant: Variant, temperature: float) -> tuple[Tensor, Tensor]:
    if variant == "reference":
        agree = similarity.softmax(-1)
        return agree, (1 - agree).softmax(-1)
    return masked_softmax(similarity / temperature, valid), masked_softmax(-similarity / temperature, valid)


def _align(sequence: Tensor, valid: Tensor, align: Align) -> Tensor:
    if align == "ln":
        return F.layer_norm(sequence, sequence.shape[-1:])
    if align == "center":
        kept = valid.unsqueeze(-1)
        return sequence - (sequence * kept).sum((0, 1)) / kept.sum().clamp_min(1)
    return sequence


def _check(z: Mapping[str, Tensor], masks: Sequences, variant: str, temperature: float, unaligned: str) -> None:
    if len(z) < 2:
        raise ConfigError(f"decoupling compares modalities; got only {', '.join(z) or 'none'}")
    if temperature <= 0:
        raise ConfigError(f"the decoupling temperature must be above 0, got {temperature}")
    if unaligned == "compose" and variant == "reference":
        raise ConfigError("unaligned='compose' belongs to the corrected decoupling; the reference has no masks")
    for m, sequence in z.items():
        if sequence.shape[1] < 2:
            raise ConfigError(
                f"{m} has one position per sample: its common and its specific part would both be the input; "
                "decoupling needs sequences (word-level features)"
            )
        if masks[m].shape != sequence.shape[:2]:
            raise ConfigError(f"{m} is {tuple(sequence.shape)}, but its mask is {tuple(masks[m].shape)}")
    if unaligned == "refuse":
        check_aligned(masks)


def check_aligned(masks: Mapping[str, Tensor], ids: Sequence[str] = ()) -> None:
    """Refuse sequences that are not word by word the same length.

    Args:
        masks: valid positions of each modality, ``(B, T_m)`` bool.
        ids: names of the samples, for the message.

    Raises:
        ConfigError: two modalities differ in their valid positions; names them and a sample.
    """
    first, *others = masks
    for other in others:
        lengths = masks[first].sum(1), masks[other].sum(1)
        differs = (lengths[0] != lengths[1]).nonzero().flatten()
        if not len(differs) and masks[first].shape == masks[other].shape and torch.equal(masks[first], masks[other]):
            continue
        row = int(differs[0]) if len(differs) else 0
        sample = f"sample {ids[row]!r}" if ids else f"row {row}"
        raise ConfigError(
            f"{first} and {other} are not word-aligned ({sample} has {int(lengths[0][row])} and "
            f"{int(lengths[1][row])} valid positions, padded to {masks[first].shape[1]} and {masks[other].shape[1]}): "
            "the decoupling compares position by position; use word-aligned features, or unaligned='compose'"
        )
