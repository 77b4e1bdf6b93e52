"""Metrics as the field computes them (evaluation.md, section 1), with macro averages beside every weighted F1.

All accuracies and F1 scores are fractions. Predictions are never clipped unless the definition says so. A metric that
is undefined (the correlation of a constant, an accuracy over no sample) is NaN, never 0; bad input is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError, unknown_name

Scale = Literal["mosi", "sims", "mmmo", "plain"]


@dataclass(frozen=True)
class Metric:
    """What a table or an axis needs to know about a metric.

    Attributes:
        key: name in results; label: name for readers.
        higher_is_better: direction.
        percent: shown in per cent (stored as a fraction).
        mmsa: the name in MMSA's result tables, or empty.
        description: the definition in one line.
    """

    key: str
    label: str
    higher_is_better: bool = True
    percent: bool = True
    mmsa: str = ""
    description: str = ""


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("mae", "MAE", False, False, "MAE", "mean absolute error over all samples"),
        Metric("corr", "Corr", True, False, "Corr", "Pearson correlation over all samples"),
        Metric("acc2_neg_nonneg", "Acc-2 (neg/non-neg)", mmsa="Has0_acc_2", description="y >= 0, all samples"),
        Metric("f1_neg_nonneg", "F1 (neg/non-neg)", mmsa="Has0_F1_score", description="weighted F1 of y >= 0"),
        Metric("f1_neg_nonneg_macro", "macro F1 (neg/non-neg)", description="macro F1 of y >= 0"),
        Metric("acc2_neg_pos", "Acc-2 (neg/pos)", mmsa="Non0_acc_2", description="y > 0, without samples with y = 0"),
        Metric("f1_neg_pos", "F1 (neg/pos)", mmsa="Non0_F1_score", description="weighted F1 of y > 0, y = 0 dropped"),
        Metric("f1_neg_pos_macro", "macro F1 (neg/pos)", description="macro F1 of y > 0, y = 0 dropped"),
        Metric("acc2", "Acc-2", mmsa="Mult_acc_2", description="two classes around the neutral label"),
        Metric("acc", "Accuracy", description="share of samples whose class is right"),
        Metric("f1", "F1", mmsa="F1_score", description="weighted F1 of the classes"),
        Metric("f1_macro", "macro F1", description="macro F1 of the classes"),
        Metric("acc3", "Acc-3", mmsa="Mult_acc_3", description="three classes, cut at -.1 and .1"),
        Metric("acc5", "Acc-5", mmsa="Mult_acc_5", description="five classes"),
        Metric("acc7", "Acc-7", mmsa="Mult_acc_7", description="seven classes, rounded labels -3 ... 3"),
    )
}

_EMOTION_PARTS = {
    "acc": ("accuracy", "accuracy of the decision"),
    "f1": ("F1", "weighted F1 of the decision"),
    "f1_macro": ("macro F1", "macro F1 of the decision"),
    "f1_positive": ("positive F1", "F1 of the class 'has this emotion'"),
}


@dataclass(frozen=True)
class ClassView:
    """One way to see sentiment values as classes.

    Attributes:
        accuracy: key of the accuracy.
        classes: values ``(N,)`` to integer classes.
        f1: key of the weighted F1, if the definition has one; its macro average is ``<f1>_macro``.
        kept: labels ``(N,)`` to the samples that count; all by default.
    """

    accuracy: str
    classes: Callable[[np.ndarray], np.ndarray]
    f1: str = ""
    kept: Callable[[np.ndarray], np.ndarray] = lambda labels: np.ones(len(labels), bool)


def _rounded(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Clip, then round half to even as NumPy does."""
    return lambda values: np.round(np.clip(values, low, high)).astype(int)


def _binned(*cuts: float) -> Callable[[np.ndarray], np.ndarray]:
    """Classes between ``cuts``, open on the left and closed on the right, compared in float32 as MMSA does."""
    return lambda values: np.searchsorted(np.array(cuts, np.float32), values.astype(np.float32), side="left")


VIEWS: dict[Scale, tuple[ClassView, ...]] = {
    "mosi": (
        ClassView("acc2_neg_nonneg", lambda v: (v >= 0).astype(int), "f1_neg_nonneg"),
        ClassView("acc2_neg_pos", lambda v: (v > 0).astype(int), "f1_neg_pos", kept=lambda y: y != 0),
        ClassView("acc5", _rounded(-2, 2)),
        ClassView("acc7", _rounded(-3, 3)),
    ),
    "sims": (
        ClassView("acc2", _binned(0), "f1"),
        ClassView("acc3", _binned(-0.1, 0.1)),
        ClassView("acc5", _binned(-0.7, -0.1, 0.1, 0.7)),
    ),
    "mmmo": (
        ClassView("acc2", lambda v: (v > 3).astype(int), kept=lambda y: y != 3),
        ClassView("acc5", _rounded(1, 5)),
    ),
    "plain": (),
}
"""``plain`` has its two classes around the middle of the task's range, see :func:`class_views`."""


def class_views(task: Task) -> tuple[ClassView, ...]:
    """The ways in which sentiment values of ``task`` are seen as classes, coarsest first."""
    if task.metrics != "plain":
        return VIEWS[task.metrics]  # type: ignore[index]
    center = task.center
    return (ClassView("acc2", lambda v: (v > center).astype(int), "f1", kept=lambda y: y != center),)


def sentiment_metrics(prediction: Any, label: Any, scale: Scale = "mosi") -> dict[str, float]:
    """Regression and class metrics of sentiment predictions.

    Args:
        prediction, label: ``(N,)`` tensors, arrays or sequences. Truth is the second argument.
        scale: ``"mosi"`` (MOSI and MOSEI, labels -3 ... 3; [C: MMSA metricsTop.py]), ``"sims"`` (labels -1 ... 1, both
            clipped to that range first [C]), ``"mmmo"`` (labels 1 ... 5 [R]) or ``"plain"`` (any range: errors and
            correlation).

    Returns:
        Keys of :data:`METRICS`: ``mae``, ``corr`` and, for mosi, ``acc2_neg_nonneg``, ``f1_neg_nonneg``,
        ``f1_neg_nonneg_macro``, ``acc2_neg_pos``, ``f1_neg_pos``, ``f1_neg_pos_macro``, ``acc5``, ``acc7``; for sims,
        ``acc2``, ``f1``, ``f1_macro``, ``acc3``, ``acc5``; for mmmo, ``acc2``, ``acc5``.

    Raises:
        DataError: shapes differ, there is no sample, or a value is not finite.
        UnknownNameError: the scale is unknown.
    """
    predicted, truth = sentiment_values(prediction, label, scale)
    return _regression_metrics(predicted, truth, VIEWS[scale])


def _regression_metrics(predicted: np.ndarray, truth: np.ndarray, views: Sequence[ClassView]) -> dict[str, float]:
    result = {"mae": float(np.abs(predicted - truth).mean()), "corr": pearson(predicted, truth)}
    for view in views:
        kept = view.kept(truth)
        guess, answer = view.classes(predicted[kept]), view.classes(truth[kept])
        result[view.accuracy] = accuracy(guess, answer)
        if view.f1:
            result[view.f1] = f1_score(guess, answer, "weighted")
            result[f"{view.f1}_macro"] = f1_score(guess, answer, "macro")
    return result


def emotion_metrics(scores: Any, labels: Any, names: Sequence[str]) -> dict[str, float]:
    """Metrics of one-against-rest emotion decisions [C: MulT's metric for IEMOCAP; macro, positive F1 and means: R].

    Args:
        scores: ``(N, K, 2)`` logits, "no" before "yes"; the larger one decides, a tie means "no".
        labels: ``(N, K)`` with entries 0 and 1.
        names: the K emotions.

    Returns:
        Per emotion ``<name>_acc``, ``<name>_f1`` (weighted), ``<name>_f1_macro``, ``<name>_f1_positive``; their means
        over emotions ``mean_acc`` and so on; for two emotions or more ``acc<K>``, the accuracy of the emotion with the
        largest "yes" logit, over samples that have exactly one emotion.

    Raises:
        DataError: shapes differ, there is no sample, a value is not finite or a label is not 0 or 1.
    """
    logits, truth = emotion_values(scores, labels, names)
    decided = (logits[..., 1] > logits[..., 0]).astype(int)
    result: dict[str, float] = {}
    for column, name in enumerate(names):
        guess, answer = decided[:, column], truth[:, column]
        result[f"{name}_acc"] = accuracy(guess, answer)
        result[f"{name}_f1"] = f1_score(guess, answer, "weighted")
        result[f"{name}_f1_macro"] = f1_score(guess, answer, "macro")
        result[f"{name}_f1_positive"] = f1_score(guess, answer, "positive")
    for part in _EMOTION_PARTS:
        result[f"mean_{part}"] = float(np.mean([result[f"{name}_{part}"] for name in names]))
    if len(names) > 1:
        single = truth.sum(axis=1) == 1
        result[f"acc{len(names)}"] = accuracy(logits[single, :, 1].argmax(axis=1), truth[single].argmax(axis=1))
    return result


def class_metrics(scores: Any, labels: Any, names: Sequence[str]) -> dict[str, float]:
    """Metrics of one class out of K.

    Args:
        scores: ``(N, K)`` logits; the largest decides, the first of equal ones.
        labels: ``(N,)`` class ids 0 to K-1.
        names: the K classes.

    Returns:
        ``acc``, ``f1`` (weighted by the frequencies in the truth), ``f1_macro`` (mean over the classes that occur in
        truth or predictions), and ``f1_<name>`` of each class against the others.

    Raises:
        DataError: shapes differ, there is no sample, a value is not finite or a label is no class id.
    """
    logits, truth = class_values(scores, labels, names)
    guess = logits.argmax(axis=1)
    result = {"acc": accuracy(guess, truth), "f1": f1_score(guess, truth), "f1_macro": f1_score(guess, truth, "macro")}
    return result | {f"f1_{name}": f1_score(guess == i, truth == i, "positive") for i, name in enumerate(names)}


def task_metrics(task: Task, prediction: Any, labels: Any) -> dict[str, float]:
    """The metrics of ``task``: :func:`sentiment_metrics`, :func:`emotion_metrics` or :func:`class_metrics`.

    A class metric whose truth holds one class alone is undefined here: a constant would score 100 %. It is NaN, and
    means over emotions leave it out. The functions named above keep the number that the field's definitions give.
    """
    if task.kind == "emotions":
        found = emotion_metrics(prediction, labels, task.names)
    elif task.kind == "classes":
        found = class_metrics(prediction, labels, task.names)
    else:
        found = _regression_metrics(*task_values(task, prediction, labels), class_views(task))
    return defined_metrics(task, found, labels)


def undefined_metrics(task: Task, labels: Any) -> tuple[str, ...]:
    """Keys of the class metrics for which ``labels`` hold one class alone, or none."""
    truth = finite_array("labels", labels)
    if task.kind == "regression":
        _, truth = task_values(task, truth, truth)
        single = [view for view in class_views(task) if _is_single(view.classes(truth[view.kept(truth)]))]
        return tuple(
            key for view in single for key in (view.accuracy, *((view.f1, f"{view.f1}_macro") if view.f1 else ()))
        )
    if task.kind == "classes":
        absent = [f"f1_{name}" for i, name in enumerate(task.names) if _is_single(truth == i)]
        return ("acc", "f1", "f1_macro", *(f"f1_{name}" for name in task.names)) if _is_single(truth) else tuple(absent)
    single = [name for i, name in enumerate(task.names) if _is_single(truth[:, i])]
    means = [f"mean_{part}" for part in _EMOTION_PARTS] if len(single) == len(task.names) else []
    alone = truth[truth.sum(axis=1) == 1].argmax(axis=1)
    all_classes = [f"acc{len(task.names)}"] if len(task.names) > 1 and _is_single(alone) else []
    return (*(f"{name}_{part}" for name in single for part in _EMOTION_PARTS), *means, *all_classes)


def defined_metrics(task: Task, values: dict[str, float], labels: Any) -> dict[str, float]:
    """``values`` with NaN for :func:`undefined_metrics`, and means over the emotions that are left."""
    undefined = undefined_metrics(task, labels)
    found = {key: float("nan") if key in undefined else value for key, value in values.items()}
    if task.kind == "emotions" and undefined:
        for part in _EMOTION_PARTS:
            left = [found[f"{name}_{part}"] for name in task.names if f"{name}_{part}" not in undefined]
            found[f"mean_{part}"] = float(np.mean(left)) if left else float("nan")
    return found


def _is_single(classes: np.ndarray) -> bool:
    return len(np.unique(classes)) < 2


def metric(key: str) -> Metric:
    """What :data:`METRICS` says of ``key``; also answers for emotion metrics such as ``happy_f1`` and ``acc4``.

    Raises:
        UnknownNameError: no metric has this key.
    """
    if key in METRICS:
        return METRICS[key]
    if key.startswith("f1_"):
        name = key.removeprefix("f1_")
        return Metric(key, f"F1 of {name}", description=f"F1 of the class {name} against the others")
    for part, (label, description) in _EMOTION_PARTS.items():
        name = key.removesuffix(f"_{part}")
        if name not in (key, ""):
            return Metric(key, f"{name.capitalize()} {label}", description=f"{name}: {description}")
    if key.startswith("acc") and key[3:].isdigit():
        return Metric(key, f"Acc-{key[3:]}", description="the emotion with the largest 'yes' logit, out of all")
    raise unknown_name("metric", key, METRICS)


def shown_first(keys: Sequence[str]) -> list[str]:
    """The keys that tables show unasked: all but macro averages, which only classes are told by."""
    return [key for key in keys if not key.endswith("_macro") or (key == "f1_macro" and "acc" in keys)]


def predicts_one_class(prediction: Any, task: Task) -> bool:
    """Whether the model decides the same for every sample: the first sign of a model that has learned nothing.

    Regression: all predictions lie on one side of neutral, by the two-class rule of the task's scale. Emotions: all
    samples get the same combination of emotions. Classes: all samples get the same class.
    """
    values = finite_array("predictions", prediction)
    if task.kind == "classes":
        return _is_single(values.argmax(axis=1))
    if task.kind == "emotions":
        decided = values[..., 1] > values[..., 0]
        return bool((decided == decided[:1]).all())
    return _is_single(class_views(task)[0].classes(values))


def sentiment_values(prediction: Any, label: Any, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Checked predictions and labels ``(N,)`` in float64, on SIMS clipped to [-1, 1] in float32 first."""
    if scale not in VIEWS:
        raise unknown_name("scale", scale, VIEWS)
    predicted, truth = finite_array("predictions", prediction), finite_array("labels", label)
    if predicted.shape != truth.shape or truth.ndim != 1:
        raise DataError(f"predictions {predicted.shape} and labels {truth.shape} must both have shape (N,)")
    if scale == "sims":
        predicted, truth = (np.clip(v.astype(np.float32), -1, 1).astype(np.float64) for v in (predicted, truth))
    return predicted, truth


def task_values(task: Task, prediction: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checked predictions and labels, as the metrics of ``task`` see them."""
    if task.kind == "regression":
        return sentiment_values(prediction, labels, task.metrics)  # type: ignore[arg-type]
    return (emotion_values if task.kind == "emotions" else class_values)(prediction, labels, task.names)


def class_values(scores: Any, labels: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Checked logits ``(N, K)`` float64 and class ids ``(N,)`` int."""
    logits, truth = finite_array("scores", scores), finite_array("labels", labels)
    if truth.ndim != 1 or logits.shape != (len(truth), len(names)):
        raise DataError(f"scores {logits.shape} and labels {truth.shape} must be (N, {len(names)}) and (N,)")
    wrong = np.flatnonzero(~np.isin(truth, np.arange(len(names))))
    if len(wrong):
        raise DataError(f"the class of sample {wrong[0]} is {truth[wrong[0]]:g}; ids are 0 to {len(names) - 1}")
    return logits, truth.astype(int)


def emotion_values(scores: Any, labels: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Checked logits ``(N, K, 2)`` float64 and labels ``(N, K)`` int."""
    logits, truth = finite_array("scores", scores), finite_array("labels", labels)
    if truth.ndim != 2 or truth.shape[1] != len(names) or logits.shape != (*truth.shape, 2):
        raise DataError(
            f"scores {logits.shape} and labels {truth.shape} must be (N, {len(names)}, 2) and (N, {len(names)})"
        )
    if not np.isin(truth, (0, 1)).all():
        row = int(np.flatnonzero(~np.isin(truth, (0, 1)).all(axis=1))[0])
        raise DataError(f"emotion labels of sample {row} are {truth[row].tolist()}; only 0 and 1 are allowed")
    return logits, truth.astype(int)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation; NaN where either side is constant to the precision of float32."""
    if _constant(x) or _constant(y):
        return float("nan")
    dx, dy = x - x.mean(), y - y.mean()
    return float(dx @ dy / np.sqrt((dx @ dx) * (dy @ dy)))


def accuracy(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of equal classes; NaN over no sample."""
    return float((predicted == truth).mean()) if len(truth) else float("nan")


def f1_score(
    predicted: np.ndarray, truth: np.ndarray, average: Literal["weighted", "macro", "positive"] = "weighted"
) -> float:
    """F1 as scikit-learn defines it: a class that is never right scores 0; NaN over no sample.

    ``weighted`` weighs each class by its frequency in the **truth**, so the order of the arguments matters;
    ``macro`` takes the plain mean over classes that occur in either; ``positive`` is the F1 of class 1.
    """
    if not len(truth):
        return float("nan")
    if average == "positive":
        both = (predicted == 1).sum() + (truth == 1).sum()
        return float(2 * ((predicted == 1) & (truth == 1)).sum() / both) if both else 0.0
    classes = np.union1d(predicted, truth)
    guessed = (predicted[:, None] == classes).sum(axis=0)
    actual = (truth[:, None] == classes).sum(axis=0)
    right = ((predicted == truth)[:, None] & (truth[:, None] == classes)).sum(axis=0)
    scores = 2 * right / (guessed + actual)
    return float(np.average(scores, weights=actual) if average == "weighted" else scores.mean())


def _constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= 4 * np.finfo(np.float32).eps * np.abs(values).max())


def finite_array(what: str, values: Any) -> np.ndarray:
    """A tensor, array or sequence as float64; a :class:`DataError` names ``what`` if it is empty or not finite."""
    if hasattr(values, "detach"):
        values = values.detach().to("cpu").double().numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{what} hold no sample; metrics need at least one")
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"{what} of sample {row} are not finite ({(~finite).sum()} of {len(array)} samples); the run is broken"
        )
    return array
