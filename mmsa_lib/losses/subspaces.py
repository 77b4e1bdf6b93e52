"""Losses of MISA on shared and private vectors: alike in distribution, or apart.

Source: Hazarika, Zimmermann, Poria, "MISA", ACM MM 2020, arXiv 2005.03545, in the form of its code as MMSA carries it
(``trains/singleTask/MISA.py``) [C]; central moment discrepancy: Zellinger et al., ICLR 2017; difference: Bousmalis et
al., "Domain Separation Networks", 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmsa_lib.losses import at_least_float32


def central_moment_discrepancy(x: Tensor, y: Tensor, moments: int = 5) -> Tensor:
    """``|E x - E y| + sum over k = 2 ... moments of |E (x - E x)^k - E (y - E y)^k|``: a scalar.

    Norms are Euclidean, powers are taken per coordinate. Zellinger's factor ``1 / |b - a|^k`` is 1, since the vectors
    end in a sigmoid. It compares distributions: the pairing of rows does not matter. Where a norm is 0 (one row has no
    central moments) so is its gradient.

    Args:
        x: ``(B, d)``.
        y: ``(B', d)``.
        moments: highest moment.
    """
    x, y = at_least_float32(x), at_least_float32(y)
    means = [z.mean(dim=0) for z in (x, y)]
    distances = [means[0] - means[1]]
    centred = [z - mean for z, mean in zip((x, y), means, strict=True)]
    for k in range(2, moments + 1):
        a, b = (z.pow(k).mean(dim=0) for z in centred)
        distances.append(a - b)
    return torch.linalg.vector_norm(torch.stack(distances), dim=1).sum()


def difference(x: Tensor, y: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Mean squared entry ``(d, d)`` of ``X^T Y``: soft orthogonality of two sets of vectors of the same samples.

    ``X`` and ``Y`` are the rows of ``x`` and ``y`` less their mean over the batch, then divided by their length, which
    is held constant in the gradient [C]. 0 where every coordinate of one is uncorrelated with every one of the other.

    Args:
        x: ``(B, d)``.
        y: ``(B, d)``.
        epsilon: added to a row's length.
    """
    centred = [z - z.mean(dim=0) for z in (at_least_float32(x), at_least_float32(y))]
    a, b = (z / (z.norm(dim=1, keepdim=True).detach() + epsilon) for z in centred)
    with torch.autocast(x.device.type, enabled=False):
        return (a.T @ b).square().mean()


def reverse_gradient(x: Tensor, weight: float = 1.0) -> Tensor:
    """``x`` itself, whose gradient arrives multiplied by ``-weight`` (Ganin and Lempitsky, 2015)."""
    reversed_ = -weight * x
    return reversed_ + (x - reversed_).detach()
