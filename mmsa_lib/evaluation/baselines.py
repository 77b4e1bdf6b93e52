"""Constant baselines: what a model scores that has not looked at its input (docs/evaluation.md, Constant baselines).

Two kinds must be told apart. Baselines fitted to the **training** labels are honest. ``oracle_test_majority`` reads the
**test** labels and is no baseline; it is the floor that published majority values often mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import (
    CLEAN,
    Question,
    defined_metrics,
    finite_array,
    noise_free_metrics,
    questions,
    task_metrics,
    task_values,
)

ORACLE = "oracle_test_majority"


def constant_metrics(task: Task, train_labels: Any, test_labels: Any, clean: Any = None) -> pd.DataFrame:
    """Test metrics of predictors that ignore their input.

    Args:
        task: what is predicted; decides on the metrics.
        train_labels, test_labels: ``(N,)`` sentiment or class ids, or ``(N, K)`` emotions, tensors or arrays.
        clean: ``(N,)`` noise-free test labels, where they are known; the constants get scores against them as well.

    Returns:
        One column per metric of the task and these rows:

        * ``constant_majority``: the commonest class of the training labels; for sentiment one step to its side of
          neutral (so -1, 0 or 1 on MOSI), for emotions the commoner decision for each.
        * ``constant_mean``, ``constant_median``: mean and median training label (sentiment only).
        * ``constant_neutral``: the neutral label (sentiment only).
        * ``constant_prior``: each prediction drawn from the training labels; the **exact expectation**, no draws (the
          macro F1 of classes counts a class that only the training labels have as predicted, which it nearly always
          is).
        * ``oracle_test_majority``: as ``constant_majority``, but from the test labels. Not a baseline.

    Raises:
        DataError: labels have the wrong shape, are empty or not finite.
    """
    train, test = _labels(task, train_labels), _labels(task, test_labels)
    values = constant_values(task, train)
    rows = {name: _constant(task, value, test) for name, value in values.items()}
    rows["constant_prior"] = defined_metrics(task, _prior(task, train, test), test)
    values[ORACLE] = constant_values(task, test)["constant_majority"]
    rows[ORACLE] = _constant(task, values[ORACLE], test)
    if clean is not None:
        known = finite_array("noise-free labels", clean)
        for name, value in values.items():
            rows[name] |= noise_free_metrics(task, np.broadcast_to(value, known.shape), known)
        rows["constant_prior"] |= {f"{key}{CLEAN}": value for key, value in _drawn_errors(train, known).items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("baseline")


def constant_values(task: Task, labels: Any) -> dict[str, np.ndarray]:
    """What each constant baseline predicts: a number, a 0/1 decision per emotion ``(K,)``, or a class id."""
    values = _labels(task, labels)
    if task.kind == "classes":
        return {"constant_majority": np.bincount(values.astype(int), minlength=len(task.names)).argmax()}
    if task.kind == "emotions":
        return {"constant_majority": (values.mean(axis=0) > 0.5).astype(float)}
    side, count = np.unique(np.sign(values - task.center), return_counts=True)
    return {
        "constant_majority": np.array(task.center + side[count.argmax()] * min(1.0, task.bound)),
        "constant_mean": np.array(values.mean()),
        "constant_median": np.array(np.median(values)),
        "constant_neutral": np.array(task.center),
    }


def _labels(task: Task, labels: Any) -> np.ndarray:
    """Labels checked against themselves: finite, not empty, of the task's shape; unclipped."""
    array = finite_array("labels", labels)
    if array.ndim != (2 if task.kind == "emotions" else 1):
        expected = f"(N, {len(task.names)})" if task.kind == "emotions" else "(N,)"
        raise DataError(f"labels of the kind {task.kind} have shape {array.shape}; expected {expected}")
    task_values(task, _as_prediction(task, array), array)
    return array


def _constant(task: Task, value: np.ndarray, test: np.ndarray) -> dict[str, float]:
    return task_metrics(task, _as_prediction(task, np.broadcast_to(value, test.shape)), test)


def _as_prediction(task: Task, chosen: np.ndarray) -> np.ndarray:
    """Labels as a method would predict them: values, or logits of emotions ``(N, K, 2)`` or classes ``(N, K)``."""
    if task.kind == "classes":
        return (chosen[:, None] == np.arange(len(task.names))).astype(float)
    return np.stack([1 - chosen, chosen], axis=-1) if task.kind == "emotions" else chosen


def _prior(task: Task, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Expected metrics of independent draws from the training labels (of emotions: of whole rows, means aside)."""
    if task.kind == "regression":
        train, test = task_values(task, train, train)[1], task_values(task, test, test)[1]
    result = {one.key: _expected(one, train, test) for one in questions(task)}
    if task.kind == "regression":
        result |= _drawn_errors(train, test)
    elif task.kind == "classes":
        single = [result[f"f1_{name}"] for name in task.names]
        frequency = [(test == i).mean() for i in range(len(single))]
        occurring = sum(bool((train == i).any() or (test == i).any()) for i in range(len(single)))
        result["f1"] = float(sum(share * score for share, score in zip(frequency, single, strict=True)))
        result["f1_macro"] = sum(single) / occurring
    return result


def _drawn_errors(train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Expected error and correlation of draws from ``train``.

    Every order of the same draws is equally likely, and over all orders a correlation averages to exactly 0.
    """
    drawn, weight = np.unique(train, return_counts=True)
    mae = float(np.abs(drawn[:, None] - test).mean(axis=1) @ weight / len(train))
    return {"mae": mae, "corr": 0.0 if len(drawn) > 1 and np.ptp(test) > 0 else float("nan")}


def _expected(asked: Question, train: np.ndarray, test: np.ndarray) -> float:
    """Expected score where the classes of ``train`` are drawn as the answers to ``test``; an F1 is of two classes."""
    drawn, truth = asked.answer(train), asked.answer(test[asked.kept(test)])
    if asked.average == "accuracy" and len(truth):
        return float(sum((drawn == c).mean() * (truth == c).mean() for c in np.unique(truth)))
    if asked.average == "accuracy":
        return float("nan")
    return expected_f1(float((drawn == 1).mean()), (truth == 1).astype(int), asked.average)


def expected_f1(positive: float, truth: np.ndarray, average: str) -> float:
    """Exact expectation of a two-class F1 when each prediction is 1 with probability ``positive``.

    Of ``M ~ Binomial(N, positive)`` predicted ones, ``M n_1 / N`` are right on average; for a given ``M`` every F1 is
    linear in the number of right ones, so that this average gives the conditional expectation exactly.

    Args:
        positive: probability of predicting class 1.
        truth: ``(N,)`` classes 0 and 1.
        average: ``weighted``, ``macro`` or ``positive``, as in :func:`mmsa_lib.evaluation.metrics.f1_score`.
    """
    size, ones = len(truth), int(truth.sum())
    if not size:
        return float("nan")
    drawn = np.arange(size + 1)
    score_one = _mean_f1(drawn, ones, size)
    score_zero = _mean_f1(size - drawn, size - ones, size)
    if average == "positive":
        scores = score_one
    elif average == "weighted":
        scores = (ones * score_one + (size - ones) * score_zero) / size
    else:
        occurs_one, occurs_zero = (drawn > 0) | (ones > 0), (drawn < size) | (ones < size)
        scores = (score_one + score_zero) / (occurs_one.astype(int) + occurs_zero)
    return float(binom.pmf(drawn, size, positive) @ scores)


def _mean_f1(predicted: np.ndarray, actual: int, size: int) -> np.ndarray:
    """Expected F1 of a class that has ``actual`` of ``size`` samples and is predicted ``predicted`` times at random."""
    both = predicted + actual
    return np.divide(2 * predicted * actual / size, both, out=np.zeros(size + 1), where=both > 0)
