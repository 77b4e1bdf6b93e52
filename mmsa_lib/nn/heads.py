"""Prediction heads."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mmsa_lib.data.task import Task


def mlp(in_dim: int, hidden: int, out_dim: int, dropout: float = 0.0) -> nn.Sequential:
    """``Linear(in_dim, hidden)``-ReLU-dropout-``Linear(hidden, out_dim)``; without the dropout layer when it is 0."""
    layers = [nn.Linear(in_dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out_dim)]
    return nn.Sequential(*(layer for layer in layers if dropout or not isinstance(layer, nn.Dropout)))


class AnySizeBatchNorm(nn.BatchNorm1d):
    """Batch normalisation ``(B, d)`` that takes a training batch of one sample: by the running statistics, unchanged.

    One sample has no variance; the last batch of an epoch may be that small.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) == 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def to_label_scale(task: Task, raw: Tensor) -> Tensor:
    """A head's output as the task's prediction.

    Regression heads predict the distance from neutral, so that an untrained head starts near the middle of the range
    also where that is not 0 (ICT-MMMO, 1 to 5).

    Args:
        task: what is predicted.
        raw: ``(B, task.outputs)``.

    Returns:
        ``(B,)`` on the label scale, or logits ``(B, K, 2)`` of emotions or ``(B, K)`` of classes.
    """
    shaped = task.shape_prediction(raw)
    return shaped + task.center if task.kind == "regression" else shaped
