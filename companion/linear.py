"""Linear baselines on pooled features: what a method must beat, and how a leak shows itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.errors import ConfigError
from mmsa_lib.evaluation.metrics import task_metrics


def pooled_features(split: Utterances, modalities: Sequence[Modality] | None = None) -> np.ndarray:
    """Mean over the observed frames of each modality, modalities side by side: ``(N, sum of d_m)`` float64.

    A sample without an observed frame of a modality gets zeros there.

    Args:
        modalities: which modalities, all by default.
    """
    parts = []
    for modality in modalities or split.modalities:
        weight = split.data.observed[modality].unsqueeze(-1).double()
        total = (split.data.features[modality].double() * weight).sum(1)
        parts.append((total / weight.sum(1).clamp_min(1)).cpu().numpy())
    return np.concatenate(parts, axis=1)


def ridge_metrics(data: Mapping[str, Utterances]) -> dict[str, float]:
    """Test metrics of a ridge regression on pooled features; its strength is chosen inside the training split.

    Args:
        data: splits as :func:`mmsa_lib.data.load` returns them, for a regression task.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    task = data["train"].task
    if task.kind != "regression":
        raise ConfigError(f"the ridge baseline predicts a sentiment value; this data set has {task.kind}")
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 21)))
    model.fit(pooled_features(data["train"]), data["train"].labels.cpu().numpy())
    return task_metrics(task, model.predict(pooled_features(data["test"])), data["test"].labels)


def leak_check(data: Mapping[str, Utterances]) -> pd.DataFrame:
    """Accuracy of "label >= neutral" by a logistic regression (C = .01) on pooled features, per split.

    Features that were trained on the labels of evaluation samples show the signature of a leak: the *test* accuracy is
    higher than the *training* accuracy of the same linear model (data.md, section 2.4 [T]).

    Returns:
        columns split, samples, accuracy, majority (share of the larger class in that split).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if data["train"].task.kind != "regression":
        raise ConfigError(f"the leak check needs a sentiment value; this data set has {data['train'].task.kind}")
    center = data["train"].task.center
    features = {name: pooled_features(split) for name, split in data.items()}
    truth = {name: (split.labels >= center).cpu().numpy() for name, split in data.items()}
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(features["train"], truth["train"])
    rows = []
    for name in data:
        share = truth[name].mean()
        rows.append(
            {
                "split": name,
                "samples": len(truth[name]),
                "accuracy": float(model.score(features[name], truth[name])),
                "majority": float(max(share, 1 - share)),
            }
        )
    return pd.DataFrame(rows)
