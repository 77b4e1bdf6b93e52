"""How far predictions differ between samples, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmsa_lib.data.task import emotions, regression
from mmsa_lib.evaluation.hazards import prediction_spread


class TestSpread:
    def test_a_constant_has_none(self):
        assert prediction_spread(torch.full((50,), 0.3), regression()) == {"sd": 0, "entropy": 0, "one_class": True}

    def test_standard_deviation_and_entropy_of_seven_classes(self):
        values = np.array([-3.0, -3, 0, 0.2, 1, 2.4, 9, 3])  # classes -3 -3 0 0 1 2 3 3
        found = prediction_spread(values, regression())
        assert found["sd"] == pytest.approx(math.sqrt(sum((v - values.mean()) ** 2 for v in values) / 8))
        assert found["entropy"] == pytest.approx(3 * 0.25 * 2 + 2 * 0.125 * 3)
        assert found["one_class"] is False

    def test_emotions(self):
        logits = torch.zeros(4, 2, 2)
        logits[:2, 0, 1] = 100.0  # half of the samples are surely happy, nobody is decidedly sad
        found = prediction_spread(logits, emotions(["happy", "sad"]))
        assert found["entropy"] == pytest.approx(1)
        assert found["sd"] == pytest.approx((0.25 + 0) / 2)
        assert prediction_spread(torch.zeros(4, 2, 2), emotions(["happy", "sad"]))["one_class"] is True
