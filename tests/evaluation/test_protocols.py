from __future__ import annotations

import math

import pytest

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.protocols import auilc


class TestArea:
    def test_golden_values(self):
        rates = [step / 10 for step in range(11)]
        values = [80 - 35 * r**2 for r in rates]
        assert auilc(rates, values) == pytest.approx(68.275)
        assert auilc(rates[:6], values[:6]) == pytest.approx(38.5125)
        assert auilc(rates[:6], values[:6], normalised=True) == pytest.approx(77.025)

    def test_unequal_steps_and_undefined_values(self):
        assert auilc([0, 0.5, 2], [1, 3, 5]) == pytest.approx(0.5 * 2 + 1.5 * 4)
        assert auilc([0, 0.5, 2], [4, 4, 4], normalised=True) == pytest.approx(4)
        assert math.isnan(auilc([0, 1], [1, float("nan")]))

    @pytest.mark.parametrize(
        ("rates", "values"), [([0.1], [1]), ([0, 0.1], [1]), ([0, 0, 1], [1, 2, 3]), ([1, 0], [1, 2])]
    )
    def test_levels_that_make_no_area_are_refused(self, rates, values):
        with pytest.raises(DataError, match="level"):
            auilc(rates, values)
