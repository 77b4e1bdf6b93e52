"""A lower bound on mutual information from a statistics network's scores of joint and of shuffled pairs.

Source: HRLF (NeurIPS 2024), equation 7 [P]: the Jensen-Shannon form of Deep InfoMax (Hjelm et al., ICLR 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses import at_least_float32


def jsd_mutual_information(joint_scores: Tensor, marginal_scores: Tensor) -> Tensor:
    """``E[-sp(-T(x, y))]`` over pairs that belong together plus ``E[-sp(T(x, y'))]`` over pairs that don't.

    ``sp(w) = log(1 + e^w)``. The bound is never above 0; it is ``-2 ln 2`` for scores of 0 and is **maximised**. (The
    paper's sentence before equation 6 says that a divergence is minimised; that is a slip.)

    Args:
        joint_scores: ``(B,)`` scores of ``(x_i, y_i)``.
        marginal_scores: ``(N,)`` scores of pairs whose parts come from different samples, see :func:`derangement`.

    Returns:
        A scalar.
    """
    joint, marginal = at_least_float32(joint_scores), at_least_float32(marginal_scores)
    return -F.softplus(-joint).mean() - F.softplus(marginal).mean()


def derangement(
    count: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """A random permutation of ``count`` rows that leaves no row in its place, ``(count,)`` int64.

    A row is sent to the next one of a random order, so each other row is equally likely to take its place.

    Args:
        count: 2 or more.
        generator: source of the order, on ``device``; by default torch's own.
        device: where the permutation is made.

    Raises:
        ConfigError: fewer than two rows; a single row has no place to go.
    """
    if count < 2:
        raise ConfigError(f"pairs of different samples need two samples or more, got {count}")
    order = torch.randperm(count, generator=generator, device=device)
    permutation = torch.empty_like(order)
    permutation[order] = order.roll(1)
    return permutation
