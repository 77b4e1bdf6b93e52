"""What a constant answer scores on the test sets of published tables, computed from counts of their labels.

Nothing here needs the data themselves, and nothing here says how a published number came about: it places numbers
beside the score of a predictor that has not looked at its input (evaluation.md, section 2; hrlf, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mmsa_lib.data.task import emotions
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.evaluation.hazards import wrong_f1_with_swapped_arguments
from mmsa_lib.evaluation.metrics import f1_score

IEMOCAP_COUNTS = {"happy": 595, "sad": 1084, "angry": 1103, "neutral": 1708}
"""Utterances per emotion among the 4,490 with one of the four labels: a public repository's count [T]. The partition of
HRLF has 4,453 of them and prints no counts (hrlf, section 8)."""

AVERAGES = ("weighted", "macro", "positive")


def never_this_emotion(counts: Mapping[str, int] = IEMOCAP_COUNTS) -> pd.DataFrame:
    """F1 of the answer "not this emotion" for every utterance, in each averaging.

    Args:
        counts: utterances per emotion; each utterance has one.

    Returns:
        Index emotion; ``weighted``, ``macro`` and ``positive`` F1, and ``swapped``: the weighted one with truth and
        prediction exchanged, as some published code computes it.
    """
    names = tuple(counts)
    labels = np.repeat(np.eye(len(names)), list(counts.values()), axis=0)
    found = constant_metrics(emotions(names), labels, labels).loc["constant_majority"]
    never = np.zeros(len(labels), int)
    rows = {
        name: {
            "weighted": found[f"{name}_f1"], "macro": found[f"{name}_f1_macro"],
            "positive": found[f"{name}_f1_positive"],
            "swapped": wrong_f1_with_swapped_arguments(never, labels[:, column].astype(int)),
        }
        for column, name in enumerate(names)
    }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("emotion")


def always_one_sign(negative: int, positive: int) -> pd.DataFrame:
    """Accuracy and weighted F1 of always answering one class, over the samples with a label other than 0.

    Args:
        negative, positive: test samples of each class.

    Returns:
        Index ``always negative`` and ``always positive``; ``accuracy``, ``weighted`` F1, ``macro`` F1 and ``swapped``:
        the weighted F1 with its arguments exchanged.
    """
    truth = np.repeat([0, 1], [negative, positive])
    rows = {}
    for name, answer in (("always negative", 0), ("always positive", 1)):
        constant = np.full(len(truth), answer)
        rows[name] = {
            "accuracy": float((constant == truth).mean()),
            "weighted": f1_score(constant, truth, "weighted"),
            "macro": f1_score(constant, truth, "macro"),
            "swapped": wrong_f1_with_swapped_arguments(constant, truth),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("answer")


def against_constants(published: pd.DataFrame, floors: Mapping[str, float]) -> pd.DataFrame:
    """Published cells beside what a constant scores in the same column.

    Args:
        published: rows with ``method, setting, metric, value``, F1 in per cent.
        floors: metric to the constant's score, as a fraction; other metrics are left out.

    Returns:
        The chosen rows with ``floor`` (per cent) and ``below``: the printed value is smaller.

    Raises:
        DataError: no row has one of these metrics.
    """
    chosen = published[published["metric"].isin(floors)]
    if chosen.empty:
        raise DataError(f"no published row has a metric out of {', '.join(floors)}")
    floor = 100 * chosen["metric"].map(dict(floors)).astype(float)
    return chosen.assign(floor=floor, below=chosen["value"] < floor).reset_index(drop=True)
