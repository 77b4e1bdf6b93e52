"""A finished run applied to a data set."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pandas as pd
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.loading import load
from mmsa_lib.errors import DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.runs import RunResult
from mmsa_lib.training import predict


def prediction_table(
    result: RunResult, split: str = "test", *, dataset: str | None = None, fold: str | None = None
) -> pd.DataFrame:
    """Predictions of a finished run for the samples of a split.

    Args:
        result: the run.
        split: ``train``, ``valid`` or ``test``.
        dataset, fold: by default those of the run.

    Returns:
        Columns id, group, label, prediction; for emotions ``label_<name>`` and ``probability_<name>``; for classes the
        names of the true and the predicted class and ``probability_<name>``.

    Raises:
        DataError: the data set has another task or other feature widths than the one the run was trained on.
    """
    config = result.config
    data = load(dataset or config.dataset, fold or config.fold, **config.load_options)[split]
    trained = files.read_json(result.folder / files.CONFIG)["resolved"]
    _check_fits(result, trained, data)
    prediction = predict(result.load_method(data), data, config.settings.evaluation_batch_size)
    columns = {"id": data.ids, "group": data.groups or [""] * len(data)}
    return pd.DataFrame(columns | _values(data, prediction))


def _check_fits(result: RunResult, trained: dict, data: Utterances) -> None:
    task = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(data.task).items()}
    if task != trained["task"]:
        raise DataError(f"{data.name} has task {task}, but run {result.run_id} was trained for {trained['task']}")
    for modality, width in trained["dims"].items():
        # A fine-tuned text encoder reads tokens, whose width is 0 in the data.
        found = data.dims.get(modality)
        if found is None or (found != width and found != 0):
            has = "no such features" if found is None else f"features {found} wide"
            raise DataError(f"run {result.run_id} needs {modality} features {width} wide; {data.name} has {has}")


def _values(data: Utterances, prediction: Tensor) -> dict[str, np.ndarray]:
    """Columns as float32, which prints as many digits as there are."""
    labels = data.labels.cpu().numpy()
    if data.task.kind == "regression":
        return {"label": labels, "prediction": prediction.numpy()}
    named = list(enumerate(data.task.names))
    if data.task.kind == "classes":
        chances, names = prediction.softmax(-1).numpy(), np.array(data.task.names)
        decided = {"label": names[labels.astype(int)], "prediction": names[chances.argmax(axis=1)]}
        return decided | {f"probability_{name}": chances[:, i] for i, name in named}
    chances = prediction.softmax(-1)[..., 1].numpy()
    return {f"label_{name}": labels[:, i] for i, name in named} | {
        f"probability_{name}": chances[:, i] for i, name in named
    }
