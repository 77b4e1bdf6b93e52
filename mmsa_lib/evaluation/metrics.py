"""Metrics as the field computes them (docs/evaluation.md, Metrics), with macro averages beside every weighted F1.

All accuracies and F1 scores are fractions. Predictions are never clipped unless the definition says so. A metric that
is undefined (the correlation of a constant, an accuracy over no sample) is NaN, never 0; bad input is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmsa_lib.errors import DataError, unknown_name

if TYPE_CHECKING:
    from mmsa_lib.data.task import Task

Scale = Literal["mosi", "sims", "mmmo", "plain"]
Average = Literal["accuracy", "weighted", "macro", "positive"]


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
        Metric(
            "mae_clean", "MAE (noise-free)", False, False, "",
            "mean absolute error against the planted sentiment, without the noise and the steps of ratings",
        ),
        Metric("corr_clean", "Corr (noise-free)", True, False, "", "Pearson correlation with the planted sentiment"),
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
}  # fmt: skip

CLEAN = "_clean"
"""How the keys of scores against noise-free labels end (:func:`noise_free_metrics`)."""

_EMOTION_PARTS: dict[str, tuple[Average, str, str]] = {
    "acc": ("accuracy", "accuracy", "accuracy of the decision"),
    "f1": ("weighted", "F1", "weighted F1 of the decision"),
    "f1_macro": ("macro", "macro F1", "macro F1 of the decision"),
    "f1_positive": ("positive", "positive F1", "F1 of the class 'has this emotion'"),
}
"""Last word of a key to its average, its label and what it is."""


def _everyone(labels: np.ndarray) -> np.ndarray:
    return np.ones(len(labels), bool)


@dataclass(frozen=True)
class Question:
    """A class metric: what is asked of each sample, and how the answers are scored.

    Attributes:
        key: of the metric.
        average: ``accuracy``, or how :func:`f1_score` averages.
        guess: predictions ``(N, ...)`` to the classes ``(N,)`` that they decide for.
        answer: labels ``(N, ...)`` to true classes ``(N,)``.
        kept: labels to the samples that count ``(N,)``; all by default.
    """

    key: str
    average: Average
    guess: Callable[[np.ndarray], np.ndarray]
    answer: Callable[[np.ndarray], np.ndarray]
    kept: Callable[[np.ndarray], np.ndarray] = _everyone


def _rounded(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Clip, then round half to even as NumPy does."""
    return lambda values: np.round(np.clip(values, low, high)).astype(int)


def _binned(*cuts: float) -> Callable[[np.ndarray], np.ndarray]:
    """Classes between ``cuts``, open on the left and closed on the right, compared in float32 as MMSA does."""
    return lambda values: np.searchsorted(np.array(cuts, np.float32), values.astype(np.float32), side="left")


def _seen_as(classes: Callable, accuracy: str, f1: str = "", kept: Callable = _everyone) -> tuple[Question, ...]:
    """One way to see sentiment as ``classes``: its accuracy and, if the definition has an F1, its two averages."""
    keys: dict[str, Average] = {accuracy: "accuracy", **({f1: "weighted", f"{f1}_macro": "macro"} if f1 else {})}
    return tuple(Question(key, average, classes, classes, kept) for key, average in keys.items())


VIEWS: dict[Scale, tuple[Question, ...]] = {
    "mosi": (
        *_seen_as(lambda v: (v >= 0).astype(int), "acc2_neg_nonneg", "f1_neg_nonneg"),
        *_seen_as(lambda v: (v > 0).astype(int), "acc2_neg_pos", "f1_neg_pos", kept=lambda y: y != 0),
        *_seen_as(_rounded(-2, 2), "acc5"),
        *_seen_as(_rounded(-3, 3), "acc7"),
    ),
    "sims": (
        *_seen_as(_binned(0), "acc2", "f1"),
        *_seen_as(_binned(-0.1, 0.1), "acc3"),
        *_seen_as(_binned(-0.7, -0.1, 0.1, 0.7), "acc5"),
    ),
    "mmmo": (
        *_seen_as(lambda v: (v > 3).astype(int), "acc2", kept=lambda y: y != 3),
        *_seen_as(_rounded(1, 5), "acc5"),
    ),
    "plain": (),
}
"""Sentiment as classes, coarsest first; ``plain`` has two around the middle of a task's range (:func:`questions`)."""


def questions(task: Task) -> tuple[Question, ...]:
    """The class metrics of ``task`` in the order of tables; means over emotions are none."""
    if task.kind == "classes":
        return _of_classes(task.names)
    if task.kind == "emotions":
        return _of_emotions(task.names)
    if task.metrics != "plain":
        return VIEWS[task.metrics]  # type: ignore[index]
    center = task.center
    return _seen_as(lambda v: (v > center).astype(int), "acc2", "f1", kept=lambda y: y != center)


def _largest(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(axis=1)


def _of_classes(names: Sequence[str]) -> tuple[Question, ...]:
    """The class with the largest logit; then each class against the others."""
    whole: dict[str, Average] = {"acc": "accuracy", "f1": "weighted", "f1_macro": "macro"}
    return (
        *(Question(key, average, _largest, lambda y: y) for key, average in whole.items()),
        *(
            Question(f"f1_{name}", "positive", lambda s, i=i: _largest(s) == i, lambda y, i=i: y == i)
            for i, name in enumerate(names)
        ),
    )


def _of_emotions(names: Sequence[str]) -> tuple[Question, ...]:
    """Of each emotion the larger logit, a tie means "no"; then the emotion with the largest "yes"."""
    single = [
        Question(
            f"{name}_{part}", average, lambda s, i=i: (s[:, i, 1] > s[:, i, 0]).astype(int), lambda y, i=i: y[:, i]
        )
        for i, name in enumerate(names)
        for part, (average, _, _) in _EMOTION_PARTS.items()
    ]
    over_all = Question(
        f"acc{len(names)}", "accuracy", lambda s: _largest(s[..., 1]), _largest, lambda y: y.sum(axis=1) == 1
    )
    return (*single, *([over_all] if len(names) > 1 else []))


def _scores(asked: Sequence[Question], prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    scores = {}
    for one in asked:
        kept = one.kept(truth)
        guess, answer = one.guess(prediction[kept]), one.answer(truth[kept])
        scores[one.key] = accuracy(guess, answer) if one.average == "accuracy" else f1_score(guess, answer, one.average)
    return scores


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
    values = sentiment_values(prediction, label, scale)
    return _errors(*values) | _scores(VIEWS[scale], *values)


def _errors(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"mae": float(np.abs(predicted - truth).mean()), "corr": pearson(predicted, truth)}


def noise_free_metrics(task: Task, prediction: Any, sentiment: Any) -> dict[str, float]:
    """``mae_clean`` and ``corr_clean``: of predicted sentiment against the planted one, free of annotation noise.

    They rank predictors as errors against rated labels do, with less chance in them; the ratings' own noise, which no
    predictor can know, is not part of them.

    Args:
        task: a regression.
        prediction: ``(N,)`` predicted sentiment.
        sentiment: ``(N,)`` of the same samples, :attr:`mmsa_lib.data.batch.Utterances.clean`.

    Raises:
        DataError: shapes differ, there is no sample, or a value is not finite.
    """
    return {f"{key}{CLEAN}": value for key, value in _errors(*task_values(task, prediction, sentiment)).items()}


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
    found = _scores(_of_emotions(names), *emotion_values(scores, labels, names))
    over_all = {key: found.pop(key) for key in [f"acc{len(names)}"] if key in found}
    means = {f"mean_{part}": float(np.mean([found[f"{n}_{part}"] for n in names])) for part in _EMOTION_PARTS}
    return found | means | over_all


def task_metrics(task: Task, prediction: Any, labels: Any) -> dict[str, float]:
    """The metrics of ``task``: :func:`sentiment_metrics`, :func:`emotion_metrics`, or those of one class out of K.

    A class metric whose truth holds one class alone is undefined here: a constant would score 100 %. It is NaN, and
    means over emotions leave it out. The functions named above keep the number that the field's definitions give.

    Args:
        task: what is predicted.
        prediction: sentiment ``(N,)``, or logits: ``(N, K, 2)`` of emotions; ``(N, K)`` of classes, of which the
            largest decides, the first of equal ones.
        labels: ``(N,)`` sentiment or class ids 0 to K-1, or ``(N, K)`` emotions.

    Returns:
        Of classes: ``acc``, ``f1`` (weighted by the frequencies in the truth), ``f1_macro`` (mean over the classes that
        occur in truth or predictions), and ``f1_<name>`` of each class against the others.

    Raises:
        DataError: shapes differ, there is no sample, a value is not finite or a label is none of the task.
    """
    if task.kind == "emotions":
        found = emotion_metrics(prediction, labels, task.names)
    else:
        values = task_values(task, prediction, labels)
        found = _errors(*values) if task.kind == "regression" else {}
        found |= _scores(questions(task), *values)
    return defined_metrics(task, found, labels)


def defined_metrics(task: Task, values: dict[str, float], labels: Any) -> dict[str, float]:
    """``values`` with NaN for class metrics whose labels hold one class alone, and means over the emotions left."""
    truth = finite_array("labels", labels)
    if task.kind == "regression":
        _, truth = task_values(task, truth, truth)
    undefined = {one.key for one in questions(task) if _is_single(one.answer(truth[one.kept(truth)]))}
    found = {key: float("nan") if key in undefined else value for key, value in values.items()}
    if task.kind == "emotions":
        for part in _EMOTION_PARTS:
            left = [found[key] for key in (f"{name}_{part}" for name in task.names) if key not in undefined]
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
    for part, (_, label, description) in _EMOTION_PARTS.items():
        name = key.removesuffix(f"_{part}")
        if name not in (key, ""):
            return Metric(key, f"{name.capitalize()} {label}", description=f"{name}: {description}")
    if key.startswith("acc") and key[3:].isdigit():
        return Metric(key, f"Acc-{key[3:]}", description="the emotion with the largest 'yes' logit, out of all")
    raise unknown_name("metric", key, METRICS)


def shown_first(keys: Sequence[str]) -> list[str]:
    """The keys that tables show unasked: without noise-free scores and macro averages; only classes are told by one."""
    return [key for key in keys if not key.endswith(("_macro", CLEAN)) or (key == "f1_macro" and "acc" in keys)]


def prediction_spread(prediction: Any, task: Task) -> dict[str, float | bool]:
    """How far predictions differ between samples: the sign of a model that answers with a constant (hazard 6).

    Args:
        prediction: ``(N,)`` sentiment, or logits ``(N, K, 2)`` of emotions or ``(N, K)`` of classes.
        task: decides on the classes.

    Returns:
        ``sd``: standard deviation of the predictions, else of the probabilities of "yes" or of the classes, averaged.
        ``entropy``: in bits, of the predicted classes of the finest class metric; of the patterns of emotions.
        ``one_class``: all samples get the same class or combination of emotions; of sentiment, they lie on one side of
        neutral by the two-class rule of the task's scale. The first sign of a model that has learned nothing.
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
    coarse = questions(task)[0].guess(values) if task.kind == "regression" else classes
    share = np.unique(classes, return_counts=True)[1] / len(classes)
    entropy = float(-(share * np.log2(share)).sum()) + 0.0  # no negative zero
    return {"sd": sd, "entropy": entropy, "one_class": _is_single(coarse)}


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
    if any(np.ptp(values) <= 4 * np.finfo(np.float32).eps * np.abs(values).max() for values in (x, y)):
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
