"""Prediction heads."""

import torch
from torch import nn

from mmsa_lib.data.task import emotions, regression
from mmsa_lib.nn.heads import mlp, to_label_scale


def test_mlp_layers():
    assert [type(layer) for layer in mlp(3, 4, 2)] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in mlp(3, 4, 2, 0.5)] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert mlp(3, 4, 2)(torch.zeros(5, 3)).shape == (5, 2)


def test_an_output_of_zero_is_the_neutral_label():
    assert to_label_scale(regression((1, 5)), torch.zeros(2, 1)).tolist() == [3, 3]
    assert to_label_scale(regression((-3, 3)), torch.zeros(2, 1)).tolist() == [0, 0]


def test_emotion_logits_are_only_shaped():
    raw = torch.randn(2, 6)
    assert torch.equal(to_label_scale(emotions(["a", "b", "c"]), raw), raw.view(2, 3, 2))
