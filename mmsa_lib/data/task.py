"""What is predicted: a sentiment value, a set of one-against-rest emotions, or one of K classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mmsa_lib.errors import ConfigError, unknown_name

if TYPE_CHECKING:  # at run time where it is used: a data set can be described without it
    from torch import Tensor

MetricSet = Literal["mosi", "sims", "mmmo", "plain", "emotions", "classes"]
SCALES = ("mosi", "sims", "mmmo", "plain")
"""Metric sets of a regression; ``plain``: errors, correlation, two classes around the middle of any range."""

_BY_RANGE: dict[tuple[float, float], MetricSet] = {(-3, 3): "mosi", (-1, 1): "sims", (1, 5): "mmmo"}


@dataclass(frozen=True)
class Task:
    """A prediction task: its label range, its loss, its metric set and its categories.

    Build one with :func:`regression`, :func:`emotions` or :func:`classes`.

    Attributes:
        kind: ``"regression"``, ``"emotions"`` or ``"classes"``.
        metrics: which metric definitions apply (docs/evaluation.md).
        range: smallest and largest label of a regression.
        names: emotions in label order, or classes in the order of their ids.
    """

    kind: Literal["regression", "emotions", "classes"]
    metrics: MetricSet
    range: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Width of a prediction head: 1, two logits per emotion, or one per class."""
        return {"regression": 1, "emotions": 2 * len(self.names), "classes": len(self.names)}[self.kind]

    @property
    def center(self) -> float:
        """The neutral label: the middle of the range (0 for MOSI and SIMS, 3 for ICT-MMMO)."""
        return (self.range[0] + self.range[1]) / 2

    @property
    def bound(self) -> float:
        """Half the label range: the largest distance of a label from neutral (``H`` of Self-MM)."""
        return (self.range[1] - self.range[0]) / 2

    def shape_prediction(self, raw: Tensor) -> Tensor:
        """Shape a head's output ``(B, outputs)``: ``(B,)``, for emotions ``(B, K, 2)``, for classes ``(B, K)``."""
        if self.kind == "emotions":
            return raw.unflatten(-1, (len(self.names), 2))
        return raw.squeeze(-1) if self.kind == "regression" else raw

    def loss(
        self, prediction: Tensor, labels: Tensor, labelled: Tensor | None = None, *, squared: bool = False
    ) -> Tensor:
        """The task loss, a mean over labelled samples: absolute error, or cross-entropy averaged over emotions.

        Args:
            prediction: ``(B,)``, or logits ``(B, K, 2)`` of emotions or ``(B, K)`` of classes.
            labels: ``(B,)`` values or class ids, or ``(B, K)`` with entries 0 and 1.
            labelled: ``(B,)`` bool, the samples that count, by default all; without any the loss is 0, with a graph.
            squared: of a regression, the squared error in place of the absolute one.
        """
        from torch.nn import functional as F

        if labelled is not None:
            prediction, labels = prediction[labelled], labels[labelled]
            if not len(labels):
                return prediction.sum()
        if self.kind == "regression":
            return F.mse_loss(prediction, labels) if squared else F.l1_loss(prediction, labels)
        if self.kind == "classes":
            return F.cross_entropy(prediction, labels.long())
        return F.cross_entropy(prediction.flatten(0, 1), labels.flatten().long())

    def categories(self, labels: Tensor) -> Tensor:
        """Integer category of each sample ``(B,)``.

        Regression: 0 negative, 1 neutral (exactly the middle of the range), 2 positive. Emotions: the code of the
        label pattern, so that samples with the same emotions share a category. Classes: the id.
        """
        if self.kind == "classes":
            return labels.long()
        if self.kind == "regression":
            return (labels > self.center).long() - (labels < self.center).long() + 1
        codes = labels.long()
        return (codes * codes.new_tensor([2**i for i in range(len(self.names))])).sum(-1)


def regression(range: tuple[float, float] = (-3, 3), metrics: MetricSet | None = None) -> Task:
    """Sentiment regression on ``range``: (-3, 3) for MOSI and MOSEI, (-1, 1) for SIMS, (1, 5) for ICT-MMMO.

    Args:
        range: smallest and largest possible label.
        metrics: metric set; by default the one that goes with the range.

    Raises:
        ConfigError: the range is empty or no metric set is known for it.
    """
    low, high = float(range[0]), float(range[1])
    if not low < high or not math.isfinite(high - low):
        raise ConfigError(f"a label range needs low < high, both finite, got ({low}, {high})")
    if metrics is not None and metrics not in SCALES:
        raise unknown_name("metric set", metrics, SCALES)
    chosen = metrics or _BY_RANGE.get((low, high))
    if chosen is None:
        raise ConfigError(
            f"no metric set is known for labels in ({low:g}, {high:g}); pass metrics='plain' (errors, correlation, two "
            "classes around the middle), 'mosi', 'sims' or 'mmmo'"
        )
    return Task(kind="regression", metrics=chosen, range=(low, high))


def has_metrics(low: float, high: float) -> bool:
    """Whether a metric set goes with this label range."""
    return (low, high) in _BY_RANGE


def emotions(names: Sequence[str]) -> Task:
    """One binary decision per emotion (IEMOCAP: neutral, happy, sad, angry), each with two logits.

    Raises:
        ConfigError: no name, or one that is empty, given twice, or taken by a metric.
    """
    if not names:
        raise ConfigError("an emotion task needs at least one emotion name")
    return Task(kind="emotions", metrics="emotions", names=_checked(names, "emotion", ("mean",)))


def classes(names: Sequence[str]) -> Task:
    """One class out of ``names``, which stand in the order of their ids 0, 1, ...; one logit per class.

    Raises:
        ConfigError: fewer than two names, or one that is empty, given twice, or taken by a metric.
    """
    if len(names) < 2:
        raise ConfigError(f"a task of classes needs two names or more, got {len(names)}")
    taken = ("macro", "neg_pos", "neg_nonneg", "neg_pos_macro", "neg_nonneg_macro")
    return Task(kind="classes", metrics="classes", names=_checked(names, "class", taken))


def _checked(names: Sequence[str], what: str, taken: Sequence[str]) -> tuple[str, ...]:
    """The names without blanks around them; they become parts of metric names and columns."""
    stripped = tuple(str(name).strip() for name in names)
    folded = [name.casefold() for name in stripped]
    for name, key in zip(stripped, folded, strict=True):
        if not name or not name.isprintable():
            raise ConfigError(f"{what} name {name!r} is empty or not printable; name every {what} in words")
        if folded.count(key) > 1:
            raise ConfigError(f"{what} {name!r} is named twice; give every {what} a name of its own")
        if key in taken:
            raise ConfigError(f"{what} name {name!r} is taken by a metric; choose another name")
    return stripped
