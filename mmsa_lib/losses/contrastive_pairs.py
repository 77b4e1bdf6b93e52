"""Which pairs the contrastive losses compare, as masks: what a notebook prints is what the losses use.

Source: contrastive_mmcl.md, sections 3.1 and 3.3. CMC forms pairs by category inside a modality, SMC by modality [A];
the readings of "decoupled self-contrast" that ``decouple`` names are ours [R].
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from mmsa_lib.errors import ConfigError, unknown_name

Decouple = Literal["cross_only", "self_only", "keep_intra", "uniformity"]
Positives = Literal["instance", "instance_or_category"]


def category_pairs(categories: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Positives and negatives of CMC: other samples of the same category, and samples of other categories.

    Args:
        categories: ``(B,)``.
        present: ``(..., B)`` bool; pairs with a sample that is not present are neither.

    Returns:
        Two masks ``(..., B, B)`` without the diagonal.
    """
    same = categories.unsqueeze(1) == categories.unsqueeze(0)
    pairs = ~_eye(len(categories), categories.device)
    if present is not None:
        pairs = pairs & present.unsqueeze(-1) & present.unsqueeze(-2)
    return pairs & same, pairs & ~same


def cross_modal_positives(
    size: int,
    positives: Positives = "instance",
    categories: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Positives of SMC: which sample of the target modality belongs to which anchor.

    Args:
        size: samples ``B``.
        positives: ``instance``: the same sample. ``instance_or_category``: also samples of the same category.
        categories: ``(B,)``, for ``instance_or_category``.
        device: where the mask is built.

    Returns:
        ``(B, B)`` bool.

    Raises:
        ConfigError: categories are needed and missing, or there are not ``B`` of them.
        UnknownNameError: no such ``positives``.
    """
    if positives not in get_args(Positives):
        raise unknown_name("positives", positives, get_args(Positives))
    if positives == "instance":
        return _eye(size, device)
    if categories is None or categories.shape != (size,):
        raise ConfigError(f"positives='instance_or_category' needs categories of shape ({size},)")
    return categories.unsqueeze(1) == categories.unsqueeze(0)


def cross_modal_candidates(positives: Tensor, modalities: int, decouple: Decouple = "cross_only") -> Tensor:
    """The denominators of SMC: which vectors stand against an anchor.

    ``cross_only`` (D1) and ``uniformity`` (D4): samples of the target modality that are not positives. ``keep_intra``
    (D3): those of the anchor's own modality as well. ``self_only`` (D2): all vectors but the anchor itself. Samples
    that count as positives across modalities are no negatives inside one either [R].

    Args:
        positives: ``(B, B)`` bool, see :func:`cross_modal_positives`.
        modalities: their number n.
        decouple: the reading.

    Returns:
        ``(n, n, B, n, B)`` bool: ``[m, t, i, k, j]`` says whether sample j of modality k stands against sample i of
        modality m when its target is modality t; nothing does for ``m = t``.

    Raises:
        UnknownNameError: no such ``decouple``.
    """
    if decouple not in get_args(Decouple):
        raise unknown_name("decouple", decouple, get_args(Decouple))
    equal = _eye(modalities, positives.device)
    in_anchor = equal[:, None, None, :, None]
    in_target = equal[None, :, None, :, None]
    if decouple == "self_only":
        allowed = ~(in_anchor & _eye(len(positives), positives.device)[None, None, :, None, :])
    else:
        blocks = in_anchor | in_target if decouple == "keep_intra" else in_target
        allowed = blocks & ~positives[None, None, :, None, :]
    return allowed & ~equal[:, :, None, None, None]


def _eye(size: int, device: torch.device | str) -> Tensor:
    return torch.eye(size, dtype=torch.bool, device=device)
