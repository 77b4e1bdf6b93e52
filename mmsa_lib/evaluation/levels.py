"""Names of protocols and levels, and the area over levels; without torch, so that tables of results start fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmsa_lib.errors import DataError

COMPLETE = "complete"
"""The protocol that hides nothing; its one level is 0.0."""

STOCHASTIC = "stochastic"
"""The recipe that methods are trained and validated with (docs/methods/hrlf.md); its one level is ``msm``."""

LEVEL_SEPARATOR = "+"
"""Between the modalities that a level of the protocol ``subsets`` leaves."""


def auilc(levels: Sequence[float], values: Sequence[float], normalised: bool = False) -> float:
    """Area under the indicators line chart, by the trapezoid rule [C: EMT-DLFR].

    Args:
        levels: missing rates, strictly increasing.
        values: the metric at each of them.
        normalised: divide by the range of the levels, which gives a mean on the scale of the metric [R]; areas over
            different ranges can't be compared without it.

    Returns:
        The area; NaN where a value is undefined (the correlation of a constant).

    Raises:
        DataError: fewer than two levels, another number of values, or levels that don't increase.
    """
    rates, heights = np.asarray(levels, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if rates.ndim != 1 or rates.shape != heights.shape or len(rates) < 2:
        raise DataError(f"an area needs two or more levels, each with a value; got {rates.shape} and {heights.shape}")
    if not (np.diff(rates) > 0).all():
        raise DataError(f"levels must increase, got {', '.join(f'{rate:g}' for rate in rates)}")
    area = float(((heights[1:] + heights[:-1]) / 2 * np.diff(rates)).sum())
    return area / float(rates[-1] - rates[0]) if normalised else area
