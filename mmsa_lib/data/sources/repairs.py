"""What is changed while a file is read, counted, and named by sample where values were no numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmsa_lib.errors import DataError

NAMED = 5
"""Samples that a remark names; the others are counted."""

_NOT_FINITE = (("-inf", np.isneginf), ("+inf", np.isposinf), ("NaN", np.isnan))


class Repairs(Counter):
    """Counts of everything that was changed on reading, for ``DatasetRecord.repairs``.

    Attributes:
        not_finite: field to its samples with values that became 0 because they are not finite, and how many.
    """

    def __init__(self) -> None:
        super().__init__()
        self.not_finite: dict[str, dict[str, int]] = {}

    def count(self, what: str, times: int) -> None:
        """Add ``times`` to the count of ``what``; nothing for 0."""
        if times:
            self[what] += int(times)

    def remarks(self) -> list[str]:
        """Per field what became 0 because it is not finite, and in which samples."""
        told = []
        for field, samples in self.not_finite.items():
            named = ", ".join(f"{times} of sample {name!r}" for name, times in list(samples.items())[:NAMED])
            more = f", and those of {len(samples) - NAMED} more samples" if len(samples) > NAMED else ""
            count = sum(samples.values())
            what = f"{count} value{'s are' if count > 1 else ' is'} not finite (NaN, infinite or too large for float32)"
            told.append(f"{field}: {what}, set to 0: {named}{more}")
        return told

    def finite(self, values: np.ndarray, field: str, ids: Sequence[str], starts: np.ndarray) -> np.ndarray:
        """``values`` as float32 in which -inf, +inf and NaN are 0, each counted under ``field`` in numbers.

        Args:
            values: ``(frames, d)``; those of sample ``ids[i]`` begin at row ``starts[i]``.

        Raises:
            DataError: the values are no real numbers.
        """
        if values.dtype.kind not in "biuf":
            raise DataError(f"{field}: expected numbers, found type {values.dtype}; store plain numbers")
        with np.errstate(over="ignore"):
            result = values.astype(np.float32)
        self.count(f"{field}: true and false stored as 1 and 0", values.size * (values.dtype == bool))
        self.count(f"{field}: float64 stored as float32", values.size * (values.dtype == np.float64))
        broken = ~np.isfinite(result)
        if broken.any():
            found = values[broken]
            for name, test in _NOT_FINITE:
                self.count(f"{field}: {name} set to 0", test(found).sum())
            self.count(f"{field}: too large for float32, set to 0", np.isfinite(found).sum())
            result[broken] = 0
            counts = np.add.reduceat(broken.sum(axis=1), starts)
            self.not_finite.setdefault(field, {}).update({ids[i]: int(counts[i]) for i in np.flatnonzero(counts)})
        return result
