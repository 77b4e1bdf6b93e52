"""What a contrastive loss did to a space of unit vectors: cosines of pairs, retrieval across modalities, a flat map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.losses.contrastive import category_pairs


def pair_cosines(z: Tensor, categories: Tensor, hard: float = 0.05) -> dict[str, float]:
    """Mean cosines of pairs of the same and of different categories.

    Args:
        z: ``(B, D)`` unit rows.
        categories: ``(B,)`` int.
        hard: share of the positive pairs, the most distant ones, that counts as hard.

    Returns:
        ``positive`` and ``negative`` (all pairs) and ``hard_positive`` (the most distant share of the positives).

    Raises:
        DataError: there is no pair of the same, or none of different categories.
        ConfigError: ``hard`` is not in (0, 1].
    """
    if not 0 < hard <= 1:
        raise ConfigError(f"hard={hard} must be a share in (0, 1]")
    similarity = z.detach().double() @ z.detach().double().T
    positives, negatives = category_pairs(categories)
    if not positives.any() or not negatives.any():
        raise DataError("cosines of pairs need two samples of one category and one of another")
    ordered, _ = similarity[positives].sort()
    hardest = ordered[: max(1, round(hard * len(ordered)))]
    return {
        "positive": float(ordered.mean()),
        "hard_positive": float(hardest.mean()),
        "negative": float(similarity[negatives].mean()),
    }


def retrieval(u: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> pd.DataFrame:
    """How often the nearest vector of another modality belongs to the same sample.

    A hit needs a cosine strictly above that of every other sample, so a collapsed space scores 0 and not by order.

    Args:
        u: per modality ``(B, D)`` unit rows.
        present: per modality ``(B,)`` bool; samples that lack a modality of a pair are left out of it. ``None``: all.

    Returns:
        Columns ``anchor``, ``target``, ``samples``, ``top1`` (share of hits), ``chance`` (1 / samples), ``same`` and
        ``other`` (mean cosine with the same and with other samples).

    Raises:
        DataError: a pair of modalities has fewer than two samples in common.
    """
    rows = []
    for anchor in u:
        for target in (m for m in u if m != anchor):
            kept = torch.ones(len(u[anchor]), dtype=torch.bool)
            if present is not None:
                kept = present[anchor].cpu() & present[target].cpu()
            count = int(kept.sum())
            if count < 2:
                raise DataError(f"{anchor} and {target} have {count} samples in common; retrieval needs two or more")
            cosines = u[anchor].detach().double().cpu()[kept] @ u[target].detach().double().cpu()[kept].T
            own, itself = cosines.diagonal(), torch.eye(count, dtype=torch.bool)
            best_other = cosines.masked_fill(itself, -torch.inf).amax(dim=1)
            rows.append(
                {
                    "anchor": anchor,
                    "target": target,
                    "samples": count,
                    "top1": float((own > best_other).double().mean()),
                    "chance": 1 / count,
                    "same": float(own.mean()),
                    "other": float(cosines[~itself].mean()),
                }
            )
    return pd.DataFrame(rows)


def principal_components(x: Any, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates along the directions of largest variance.

    The sign of a direction is arbitrary; here its largest entry is positive, so that machines agree.

    Args:
        x: ``(N, D)`` tensor or array.
        count: directions wanted, at most ``min(N, D)``.

    Returns:
        Coordinates ``(N, count)`` of the centred rows, and the share of the variance that each direction explains
        (zeros where all rows coincide).

    Raises:
        ConfigError: more directions than rows or columns.
    """
    matrix = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=np.float64)
    if not 1 <= count <= min(matrix.shape):
        raise ConfigError(f"a {matrix.shape} matrix has no {count} principal components")
    centred = matrix - matrix.mean(axis=0)
    _, scale, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:count]
    largest = directions[np.arange(count), np.abs(directions).argmax(axis=1)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)[:, None]
    total = (scale**2).sum()
    return centred @ directions.T, scale[:count] ** 2 / total if total > 0 else np.zeros(count)
