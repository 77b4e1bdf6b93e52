"""Covariance alignment (Deep CORAL) and its forms for ``modal_alignment``.

Source: Sun and Saenko, "Deep CORAL", 2016, and its official layer [P]; that ``modal_alignment`` aligns covariances is
its authors' word [A], this formula is the parent's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses import at_least_float32


def covariance(x: Tensor) -> Tensor:
    """Unbiased covariance ``(d, d)`` of the rows of ``x`` ``(B, d)``, in float32 at least; zeros for one row."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_float32(x)
        centred = x - x.mean(dim=0)
        return centred.T @ centred / max(len(x) - 1, 1)


def correlation(covariance: Tensor) -> Tensor:
    """Correlation matrix ``(d, d)`` of a covariance: its form without scale; 0 where a variance is (below 1e-8)."""
    scale = covariance.diagonal().clamp_min(1e-8).rsqrt()
    return covariance * scale * scale.unsqueeze(1)


def covariance_distance(cx: Tensor, cy: Tensor) -> Tensor:
    """``||cx - cy||_F^2 / (4 d^2)`` of two covariances ``(d, d)``: a scalar."""
    return (cx - cy).square().sum() / (4 * cx.shape[0] ** 2)


def covariance_alignment(x: Tensor, y: Tensor) -> Tensor:
    """Distance between the second-order statistics of two sets of vectors.

    ``l(x, y) = ||C_x - C_y||_F^2 / (4 d^2)`` with the unbiased covariances ``C`` (denominator ``B - 1``). It ignores
    means and the pairing of rows: it aligns distributions, not samples. Computed in float32 also under autocast.

    Args:
        x: ``(B, d)``.
        y: ``(B, d)``.

    Returns:
        Scalar; for ``B = 1`` it is 0, with a graph.

    Raises:
        ConfigError: the shapes are not those of two matrices of one width.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ConfigError(
            f"covariance alignment needs two (B, d) matrices of one width, got {tuple(x.shape)} and {tuple(y.shape)}; "
            "project both to the same width"
        )
    return covariance_distance(covariance(x), covariance(y))


def private_alignment(distance: Tensor, epsilon: float = 1e-6) -> Tensor:
    """``log((1 + distance) / (distance + epsilon))``: pushes two covariances apart, bounded below by 0 [R].

    A negative weight on the distance is the literal reading of "private" and has no lower bound, since the distance
    grows with the fourth power of the feature scale; nor has ``-log(distance + epsilon)``, to which this form is equal
    for small distances. At distance 0 it is ``-log(epsilon)``.
    """
    return torch.log1p(distance) - torch.log(distance + epsilon)


def moving_covariance(previous: Tensor, x: Tensor, decay: float, started: Tensor) -> Tensor:
    """Exponential moving covariance ``decay * sg[previous] + (1 - decay) * C_x`` [R].

    The gradient flows through ``x`` only. The first batch starts the average, so nothing is biased towards 0.

    Args:
        previous: ``(d, d)`` average so far.
        x: ``(B, d)``.
        decay: weight of the past, in [0, 1).
        started: scalar bool, False before the first batch.
    """
    current = covariance(x)
    kept = torch.where(started, decay, 0.0)
    return kept * previous.detach() + (1 - kept) * current


def noise_floor(batch_size: int, width: int, sigma: float = 1.0) -> float:
    """Expected :func:`covariance_alignment` of two batches drawn from the *same* distribution.

    For independent Gaussian coordinates of standard deviation ``sigma``: ``sigma^4 (1 + 1/d) / (2 (B - 1))``, nearly
    independent of the width [T]. A loss near this value carries no information.

    Raises:
        ConfigError: fewer than two samples.
    """
    if batch_size < 2:
        raise ConfigError(f"a covariance needs at least two samples, got batch_size={batch_size}")
    return math.pow(sigma, 4) * (1 + 1 / width) / (2 * (batch_size - 1))
