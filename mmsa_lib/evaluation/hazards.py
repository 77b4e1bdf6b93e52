"""Hazards of published evaluation code (evaluation.md, section 4), as functions that show them. None is a metric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import Modality
from mmsa_lib.data.missing import frame_mask
from mmsa_lib.data.task import Task
from mmsa_lib.evaluation.metrics import f1_score, finite_array, predicts_one_class, questions


def wrong_f1_with_swapped_arguments(predicted: Any, truth: Any) -> float:
    """**Wrong on purpose**: weighted F1 with prediction and truth exchanged, as ``f1_score(pred, true)`` computes it.

    Classes are then weighted by how often they are *predicted*. A constant predictor gets the F1 of the class that it
    predicts: 77.19 instead of 48.51 on MOSEI (hazard 1: MulT, MISA, MPLMM, DMRl, MMSA before April 2021). To be shown
    beside :func:`mmsa_lib.evaluation.metrics.f1_score`, never reported.

    Args:
        predicted, truth: ``(N,)`` classes, in the right order; they are exchanged here.
    """
    return f1_score(np.asarray(truth), np.asarray(predicted), "weighted")


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


def masks_from_one_seed(valid: Mapping[Modality, Tensor], rate: float, mask_seed: int) -> dict[Modality, Tensor]:
    """**As published**: the random stream starts again at ``mask_seed`` for every modality (hazard 9: MMSA, TFR-Net).

    Where shapes agree, all modalities then lose the same frames, although they look drawn one by one.
    :func:`mmsa_lib.data.missing.frame_masks` draws independently, or jointly where that is asked for.
    """
    return {
        m: frame_mask(frames, rate, torch.Generator().manual_seed(mask_seed), bernoulli=True)
        for m, frames in valid.items()
    }


def mask_agreement(valid: Mapping[Modality, Tensor], masks: Mapping[Modality, Tensor]) -> dict[str, float]:
    """Share of steps, valid in both, at which two modalities of equal shape have the same state; 1 for joint masks.

    Independent masks at rate ``r`` agree in ``r^2 + (1-r)^2`` of the steps.
    """
    names = list(masks)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if masks[a].shape == masks[b].shape]
    return {f"{a}/{b}": float((masks[a] == masks[b])[valid[a] & valid[b]].double().mean()) for a, b in pairs}
