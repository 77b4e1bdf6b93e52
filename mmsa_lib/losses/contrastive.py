"""Contrastive losses with self-modulation factors: CMC inside one modality, SMC across modalities.

Source: Liu, You, Xie, Lee, Wang, Yang, "Modality-specific and -shared Contrastive Learning for Sentiment Analysis",
ICMR 2024: which pairs are formed, that weights of positive pairs grow with their distance, that self-contrast is
decoupled [A]. The forms are reconstructions [R] from SupCon, Decoupled Contrastive Learning and circle loss [P];
docs/methods/contrastive_mmcl.md, "Losses", derives each.

Vectors are rows of unit length. Similarities and log-sum-exp are computed in float32 (float64 stays), also under
autocast. Every loss is a scalar that keeps its graph, and 0 where a batch holds no pair to contrast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.losses import at_least_float32

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


Modulation = Literal["focal", "circle", "dclw", "none"]

CIRCLE_MARGIN = 0.25
"""``m`` of circle loss, as in its multimodal use by Nguyen et al., EMNLP 2022 [P]."""

DCLW_SIGMA = 0.5
"""``sigma`` of DCLW (Yeh et al., ECCV 2022) [P]."""

CLOSEST = 1e-6
"""Least distance of a focal factor that has a gradient, which else is infinite there for exponents below 1."""


def modulation_weights(
    similarity: Tensor,
    positives: Tensor,
    *,
    gamma: float = 1.0,
    modulation: Modulation = "focal",
    normalise: bool = True,
    detach: bool = True,
) -> Tensor:
    """Self-modulation factors: weights of positive pairs that grow with their distance.

    ``focal`` [R]: ``((1 - s) / 2)^gamma``. ``circle`` [P]: ``max(0, 1.25 - s)``. Both are then scaled to mean 1 over
    the positives of a row (the last dimension), unless ``normalise`` is off: then they also say how hard the whole row
    is. ``dclw`` [P]: ``2 - exp(s / 0.5) / mean exp(s / 0.5)``, of mean 1 by itself, can be negative. ``none``: 1.

    Args:
        similarity: ``(..., P)`` cosines.
        positives: ``(..., P)`` bool, the pairs to weigh.
        gamma: exponent of ``focal``, 0 or more; 0 gives every pair the weight 1.
        modulation: the formula.
        normalise: scale ``focal`` and ``circle`` to mean 1 [R]; else they keep their size.
        detach: no gradient flows through the weights [R]; else it does, as in DCLW's code [P].

    Returns:
        ``(..., P)``, 0 outside ``positives``. Normalised, 1 where all positives of a row coincide.

    Raises:
        ConfigError: gamma is negative.
        UnknownNameError: no such modulation.
    """
    if modulation not in get_args(Modulation):
        raise unknown_name("modulation", modulation, get_args(Modulation))
    if not gamma >= 0:
        raise ConfigError(f"gamma={gamma} must be 0 or more; 0 weighs all positive pairs alike")
    ones = positives.to(similarity.dtype)
    if modulation == "none":
        return ones
    # A power below 1 has no finite slope at distance 0, where every vector stands to itself: those are no pairs.
    s = similarity.detach() if detach else similarity.masked_fill(~positives, 0)
    count = ones.sum(-1, keepdim=True)
    if modulation == "dclw":
        share = (s / DCLW_SIGMA).masked_fill(~positives, torch.finfo(s.dtype).min).softmax(-1)
        return (2 - count * share) * ones
    least = 0 if detach else CLOSEST
    raw = (0.5 * (1 - s)).clamp(least, 1).pow(gamma) if modulation == "focal" else (1 + CIRCLE_MARGIN - s).clamp_min(0)
    if not normalise:
        return raw * ones
    total = (raw * ones).sum(-1, keepdim=True)
    return torch.where(total < 1e-12, ones, count * raw * ones / total.clamp_min(1e-12))


def modulated_supcon(
    z: Tensor,
    categories: Tensor,
    *,
    temperature: float = 0.1,
    gamma: float = 1.0,
    modulation: Modulation = "focal",
    decoupled: bool = False,
    normalise: bool = True,
    detach: bool = True,
    present: Tensor | None = None,
) -> Tensor:
    """CMC: samples of one category attract each other inside a modality, hard pairs more.

    Per anchor ``i`` with positives ``P(i)``: the mean over ``p`` in ``P(i)`` of
    ``-w_ip log(exp(s_ip / t) / sum_{j != i} exp(s_ij / t))``; ``gamma=0`` is SupCon.
    Weights of mean 1 act on the numerators alone; not normalised they act on the whole log-ratio of a pair. With
    ``decoupled`` only other categories stand in the denominator, and the weights act on the numerators alone.

    Args:
        z: ``(B, D)`` unit rows, or ``(n, B, D)`` for n modalities at once.
        categories: ``(B,)`` int.
        temperature: ``t``, above 0.
        gamma: exponent of the focal weights.
        modulation, normalise, detach: formula of the weights, see :func:`modulation_weights`.
        decoupled: only samples of other categories in the denominator.
        present: ``(B,)`` or ``(n, B)`` bool; samples that take no part are False. ``None``: all take part.

    Returns:
        Scalar: mean over anchors that have a positive and a negative, 0 if there are none; then over modalities.

    Raises:
        ConfigError: shapes do not fit, or temperature or gamma is out of range.
    """
    _check_rows(z, "categories", categories, temperature)
    similarity = _similarities(z)
    positives, negatives = category_pairs(categories, present)
    weights = modulation_weights(
        similarity, positives, gamma=gamma, modulation=modulation, normalise=normalise, detach=detach
    )
    logits = similarity / temperature
    push = _masked_logsumexp(logits, negatives if decoupled else positives | negatives)
    if not (normalise or decoupled):
        push = push * _masked_mean(weights, positives)
    pull = _masked_mean(weights * logits, positives)
    return _masked_mean(push - pull, positives.any(-1) & negatives.any(-1)).mean()


def label_ranked_supcon(
    z: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.5,
    gamma: float = 1.0,
    modulation: Modulation = "focal",
    normalise: bool = True,
    detach: bool = True,
    present: Tensor | None = None,
) -> Tensor:
    """The regression-aware variant of CMC: pairs are ranked by label distance and need no categories.

    Every other sample ``p`` is a positive of anchor ``i``; the negatives of that pair are the samples whose labels are
    farther from the anchor's than that of ``p``. Idea: SupConR of HSCL, temperature 0.5 [P]; that all others are
    positives and that ``p`` itself stays in the denominator is ours [R]. A pair without negatives gives 0. Memory grows
    with ``B^3``.

    Args:
        z: ``(B, D)`` unit rows, or ``(n, B, D)``.
        labels: ``(B,)``, or ``(B, K)`` with the sum of absolute differences as distance.
        temperature, gamma, modulation, normalise, detach, present: as in :func:`modulated_supcon`.

    Returns:
        Scalar: mean over pairs, then over anchors, then over modalities.

    Raises:
        ConfigError: as :func:`modulated_supcon`.
    """
    _check_rows(z, "labels", labels, temperature)
    similarity = _similarities(z)
    distance = (labels.unsqueeze(1) - labels.unsqueeze(0)).abs().reshape(len(labels), len(labels), -1).sum(-1)
    positives, _ = category_pairs(labels.new_zeros(len(labels)), present)
    weights = modulation_weights(
        similarity, positives, gamma=gamma, modulation=modulation, normalise=normalise, detach=detach
    )
    logits = similarity / temperature
    # [i, p, j]: j is in the denominator of the pair (i, p).
    rivals = (distance.unsqueeze(1) > distance.unsqueeze(2)) | _eye(len(labels), z.device)
    push = _masked_logsumexp(logits.unsqueeze(-2), rivals & positives.unsqueeze(-2))
    per_anchor = _masked_mean(weights * (push - logits), positives)
    return _masked_mean(per_anchor, positives.any(-1)).mean()


def cross_modal_decoupled(
    u: Mapping[str, Tensor],
    *,
    temperature: float = 0.1,
    gamma: float = 1.0,
    decouple: Decouple = "cross_only",
    modulation: Modulation = "focal",
    positives: Positives = "instance",
    categories: Tensor | None = None,
    uniformity_weight: float = 1.0,
    normalise: bool = True,
    detach: bool = True,
    present: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """SMC: the vectors of one sample in two modalities attract each other, other samples repel.

    Per anchor ``i`` of modality ``m`` and target modality ``n``: ``-w s_ii / t`` plus the
    log-sum-exp over the denominator that ``decouple`` names (:func:`cross_modal_candidates`). ``cross_only`` (D1),
    ``keep_intra`` (D3) and ``uniformity`` (D4) leave the positive out of it; ``self_only`` (D2) keeps it, and there the
    weight acts on the whole log-ratio. D4 adds ``uniformity_weight`` times the mean log-sum-exp inside each modality.
    Normalised, the weights of one pair of modalities have mean 1 over the batch, not per anchor.

    Args:
        u: per modality ``(B, D)`` unit rows; two modalities or more.
        temperature: ``t``, above 0.
        gamma, modulation, normalise, detach: see :func:`modulation_weights`.
        decouple: which logits stand in the denominators.
        positives: the same sample alone, or also all samples of its category; several positives are averaged.
        categories: ``(B,)`` int, needed with ``positives="instance_or_category"``.
        uniformity_weight: weight of the added term of ``uniformity``.
        present: per modality ``(B,)`` bool; a sample takes no part with a modality where it is False.

    Returns:
        Scalar: mean over ordered pairs of modalities and their anchors; 0 for one sample.

    Raises:
        ConfigError: fewer than two modalities, shapes differ, or a value is out of range.
        UnknownNameError: no such ``decouple``, ``positives`` or ``modulation``.
    """
    vectors = _stacked(u, temperature)
    n, size, _ = vectors.shape
    rows = vectors.flatten(0, 1)
    similarity = _similarities(rows).view(n, size, n, size).transpose(1, 2)  # [m, k, i, j]: u^m_i . u^k_j
    same = cross_modal_positives(size, positives, categories, vectors.device)
    here = torch.ones(n, size, dtype=torch.bool, device=vectors.device) if present is None else _presence(u, present)
    across = ~_eye(n, same.device)[:, :, None, None]
    pairs = same & across & here[:, None, :, None] & here[None, :, None, :]
    candidates = cross_modal_candidates(same, n, decouple) & here
    weights = modulation_weights(
        similarity.flatten(-2),
        pairs.flatten(-2),
        gamma=gamma,
        modulation=modulation,
        normalise=normalise,
        detach=detach,
    )
    weights, logits = weights.unflatten(-1, same.shape), similarity / temperature
    # (m, 1, i, k, j): what anchor i of modality m sees in sample j of modality k, the same for every target.
    seen = logits.transpose(1, 2).unsqueeze(1)
    push = _masked_logsumexp(seen.flatten(-2), candidates.flatten(-2))
    if decouple == "self_only":
        push = push * _masked_mean(weights, pairs)
    has_negative = (candidates & ~same.unsqueeze(1)).flatten(-2).any(-1)
    terms = push - _masked_mean(weights * logits, pairs)
    loss = _masked_mean(terms.flatten(), (pairs.any(-1) & has_negative).flatten())
    return loss + uniformity_weight * _uniformity(logits, same, here) if decouple == "uniformity" else loss


def _uniformity(logits: Tensor, same: Tensor, here: Tensor) -> Tensor:
    """Mean over anchors of the log-sum-exp over negatives of their own modality (D4); ``logits`` ``(n, n, B, B)``."""
    inside = logits.diagonal(dim1=0, dim2=1).movedim(-1, 0)
    negatives = ~same & here.unsqueeze(-1) & here.unsqueeze(-2)
    return _masked_mean(_masked_logsumexp(inside, negatives).flatten(), negatives.any(-1).flatten())


def _similarities(rows: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return at_least_float32(rows) @ at_least_float32(rows).mT


def _masked_logsumexp(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp of the last dimension over ``mask``; finite, and without gradient, where the mask is empty."""
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min).logsumexp(-1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the last dimension over ``mask``; 0, with a graph, where the mask is empty."""
    return values.masked_fill(~mask, 0).sum(-1) / mask.sum(-1).clamp_min(1)


def _presence(u: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Tensor:
    """``(n, B)`` bool."""
    if lacking := [m for m in u if m not in present or present[m].shape != u[m].shape[:1]]:
        raise ConfigError(f"present needs a bool (B,) mask for each modality of u; that of {lacking[0]} does not fit")
    return torch.stack([present[m] for m in u])


def _stacked(u: Mapping[str, Tensor], temperature: float) -> Tensor:
    """``(n, B, D)`` of the modalities in their order."""
    shapes = {m: tuple(rows.shape) for m, rows in u.items()}
    if len(shapes) < 2:
        raise ConfigError(f"SMC contrasts modalities; it needs two or more, got {', '.join(shapes) or 'none'}")
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ConfigError(f"SMC needs (B, D) rows of one shape for all modalities, got {shapes}")
    _check_temperature(temperature)
    return torch.stack(list(u.values()))


def _check_rows(z: Tensor, name: str, per_sample: Tensor, temperature: float) -> None:
    if z.ndim not in (2, 3) or per_sample.ndim == 0 or z.shape[-2] != len(per_sample):
        raise ConfigError(
            f"CMC needs rows (B, D) or (n, B, D) and {name} of length B, "
            f"got {tuple(z.shape)} and {tuple(per_sample.shape)}"
        )
    _check_temperature(temperature)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ConfigError(f"temperature={temperature} must be above 0; 0.1 is usual for unit vectors")
