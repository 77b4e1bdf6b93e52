from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score as sklearn_f1

from mmsa_lib.data.missing import frame_masks
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.evaluation.hazards import (
    mask_agreement,
    masks_from_one_seed,
    prediction_spread,
    wrong_f1_with_swapped_arguments,
)
from mmsa_lib.evaluation.metrics import f1_score

LABELS = np.array([-2.6, -1.0, -0.2, 0, 0, 0.4, 1.5, 2.5, 3.0])
PREDICTIONS = np.array([-3.4, 0.2, -0.5, -0.1, 0, 0.5, 2.5, 1.5, 3.6])


def test_swapped_arguments_give_the_golden_value_and_that_of_scikit_learn():
    kept = LABELS != 0
    truth, predicted = LABELS[kept] > 0, PREDICTIONS[kept] > 0
    assert f1_score(predicted, truth) == pytest.approx(0.850794, abs=1e-6)
    assert wrong_f1_with_swapped_arguments(predicted, truth) == pytest.approx(0.863492, abs=1e-6)
    expected = sklearn_f1(predicted, truth, average="weighted")
    assert wrong_f1_with_swapped_arguments(predicted, truth) == pytest.approx(expected)


def test_a_constant_gets_the_f1_of_its_class_when_swapped():
    truth = np.array([1] * 578 + [0] * 422)
    constant = np.ones(1000, int)
    of_its_class = 2 * 578 / (1000 + 578)
    assert wrong_f1_with_swapped_arguments(constant, truth) == pytest.approx(of_its_class)
    assert f1_score(constant, truth) == pytest.approx(0.578 * of_its_class)


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


def test_one_mask_seed_hides_the_same_frames_in_all_modalities_of_equal_shape():
    valid = {"text": torch.ones(200, 50).bool(), "audio": torch.ones(200, 50).bool(), "vision": torch.ones(9, 7).bool()}
    published = masks_from_one_seed(valid, 0.3, 1111)
    assert mask_agreement(valid, published) == {"text/audio": 1.0}
    own = frame_masks(valid, 0.3, torch.Generator().manual_seed(1111))
    assert mask_agreement(valid, own)["text/audio"] == pytest.approx(0.3**2 + 0.7**2, abs=0.02)
