"""What is predicted: a sentiment value or a set of one-against-rest emotions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsa_lib.errors import ConfigError

MetricSet = Literal["mosi", "sims", "mmmo", "emotions"]


@dataclass(frozen=True)
class Task:
    """A prediction task: its label range, its loss, its metric set and its categories.

    Build one with :func:`regression` or :func:`emotions`.

    Attributes:
        kind: ``"regression"`` or ``"emotions"``.
        metrics: which metric definitions apply (evaluation.md, section 1).
        range: smallest and largest label of a regression.
        names: emotion names, in label order.
    """

    kind: Literal["regression", "emotions"]
    metrics: MetricSet
    range: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Width of a prediction head: 1, or two logits per emotion."""
        return 1 if self.kind == "regression" else 2 * len(self.names)

    @property
    def center(self) -> float:
        """The neutral label: the middle of the range (0 for MOSI and SIMS, 3 for ICT-MMMO)."""
        return (self.range[0] + self.range[1]) / 2

    @property
    def bound(self) -> float:
        """Half the label range: the largest distance of a label from neutral (``H`` of Self-MM)."""
        return (self.range[1] - self.range[0]) / 2

    def shape_prediction(self, raw: Tensor) -> Tensor:
        """Shape a head's output ``(B, outputs)``: ``(B,)`` for regression, ``(B, K, 2)`` for emotions."""
        return raw.squeeze(-1) if self.kind == "regression" else raw.unflatten(-1, (len(self.names), 2))

    def loss(self, prediction: Tensor, labels: Tensor) -> Tensor:
        """The task loss, a mean over samples: absolute error, or cross-entropy averaged over emotions.

        Args:
            prediction: ``(B,)`` or ``(B, K, 2)`` logits.
            labels: ``(B,)`` or ``(B, K)`` with entries 0 and 1.
        """
        if self.kind == "regression":
            return F.l1_loss(prediction, labels)
        return F.cross_entropy(prediction.flatten(0, 1), labels.flatten().long())

    def categories(self, labels: Tensor) -> Tensor:
        """Integer category of each sample ``(B,)``.

        Regression: 0 negative, 1 neutral (exactly the middle of the range), 2 positive. Emotions: the code of the
        label pattern, so that samples with the same emotions share a category.
        """
        if self.kind == "regression":
            return (labels > self.center).long() - (labels < self.center).long() + 1
        powers = 2 ** torch.arange(len(self.names), device=labels.device)
        return (labels.long() * powers).sum(-1)


def regression(range: tuple[float, float] = (-3, 3), metrics: MetricSet | None = None) -> Task:
    """Sentiment regression on ``range``: (-3, 3) for MOSI and MOSEI, (-1, 1) for SIMS, (1, 5) for ICT-MMMO.

    Args:
        range: smallest and largest possible label.
        metrics: metric set; by default the one that goes with the range.

    Raises:
        ConfigError: the range is empty or no metric set is known for it.
    """
    low, high = float(range[0]), float(range[1])
    if not low < high:
        raise ConfigError(f"a label range needs low < high, got ({low}, {high})")
    by_range: dict[tuple[float, float], MetricSet] = {(-3, 3): "mosi", (-1, 1): "sims", (1, 5): "mmmo"}
    chosen = metrics or by_range.get((low, high))
    if chosen is None:
        raise ConfigError(
            f"no metric set is known for labels in ({low}, {high}); pass metrics='mosi', 'sims' or 'mmmo'"
        )
    return Task(kind="regression", metrics=chosen, range=(low, high))


def emotions(names: Sequence[str]) -> Task:
    """One binary decision per emotion (IEMOCAP: neutral, happy, sad, angry), each with two logits."""
    if not names:
        raise ConfigError("an emotion task needs at least one emotion name")
    return Task(kind="emotions", metrics="emotions", names=tuple(names))
