"""What a comparison over few seeds can show at all: the smallest difference that it would find, and how often."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import integrate, optimize, stats

from mmsa_lib.errors import ConfigError


def paired_power(difference: float, sd: float, n: int, alpha: float = 0.05) -> float:
    """Probability that a two-sided paired t-test finds a true mean difference.

    Args:
        difference: the true mean of the paired differences, in the unit of the metric.
        sd: their standard deviation over seeds.
        n: pairs.
        alpha: level of the test.

    Returns:
        A probability: that of the noncentral t distribution with n-1 degrees of freedom.

    Raises:
        ConfigError: fewer than two pairs, no spread, or alpha outside (0, 1).
    """
    _check(sd, n, alpha)
    critical = stats.t.ppf(1 - alpha / 2, n - 1)
    shift = abs(difference) / sd * math.sqrt(n)

    def found(quantile: float) -> float:
        # Given the spread that was seen, the mean is normal. scipy's noncentral t is NaN for some arguments.
        spread = math.sqrt(stats.chi2.ppf(quantile, n - 1) / (n - 1))
        return float(stats.norm.sf(critical * spread - shift) + stats.norm.cdf(-critical * spread - shift))

    return integrate.quad(found, 0, 1, epsabs=1e-9, limit=200)[0]


def detectable_difference(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided paired t-test finds with probability ``power``.

    Args and raises as :func:`paired_power`; ``power`` lies in (``alpha``, 1).

    Returns:
        The difference, in the unit of the metric.
    """
    _check(sd, n, alpha)
    if not alpha < power < 1:
        raise ConfigError(f"power must lie between alpha ({alpha}) and 1, not {power}")
    return _detectable_effect(n, alpha, power) * sd


@cache
def _detectable_effect(n: int, alpha: float, power: float) -> float:
    """The detectable difference in standard deviations; it depends on nothing else."""
    high = 1.0
    while paired_power(high, 1.0, n, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: paired_power(effect, 1.0, n, alpha) - power, 0, high, xtol=1e-10))


def _check(sd: float, n: int, alpha: float) -> None:
    if n < 2 or not sd > 0 or not np.isfinite(sd) or not 0 < alpha < 1:
        raise ConfigError(
            f"a paired t-test needs n >= 2, sd > 0 and alpha in (0, 1), got n={n}, sd={sd}, alpha={alpha}"
        )
