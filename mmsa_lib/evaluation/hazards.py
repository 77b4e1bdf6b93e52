"""The sign of a model that has given up: predictions that hardly differ between samples (docs/evaluation.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmsa_lib.data.task import Task
from mmsa_lib.evaluation.metrics import finite_array, predicts_one_class, questions


def prediction_spread(prediction: Any, task: Task) -> dict[str, float | bool]:
    """How far predictions differ between samples: the sign of a model that answers with a constant (hazard 6).

    Args:
        prediction: ``(N,)`` sentiment, or logits ``(N, K, 2)`` of emotions or ``(N, K)`` of classes.
        task: decides on the classes.

    Returns:
        ``sd``: standard deviation of the predictions, else of the probabilities of "yes" or of the classes, averaged.
        ``entropy``: in bits, of the predicted classes of the finest class metric; of the patterns of emotions.
        ``one_class``: the two-class decision (the pattern of emotions) is the same for all samples.
    """
    values = finite_array("predictions", prediction)
    if task.kind == "emotions":
        decided = (values[..., 1] > values[..., 0]).astype(int)
        classes = decided @ 2 ** np.arange(decided.shape[1])
        chances = 1 / (1 + np.exp(np.clip(values[..., 0] - values[..., 1], -700, 700)))
        sd = float(chances.std(axis=0).mean())
    elif task.kind == "classes":
        chances = np.exp(values - values.max(axis=1, keepdims=True))
        classes, sd = values.argmax(axis=1), float((chances / chances.sum(axis=1, keepdims=True)).std(axis=0).mean())
    else:
        classes, sd = questions(task)[-1].guess(values), float(values.std())
    share = np.unique(classes, return_counts=True)[1] / len(classes)
    entropy = float(-(share * np.log2(share)).sum()) + 0.0  # no negative zero
    return {"sd": sd, "entropy": entropy, "one_class": predicts_one_class(values, task)}
