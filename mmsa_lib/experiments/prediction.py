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
from mmsa_lib.experiments.cells import Splits
from mmsa_lib.experiments.runs import RunResult, data_fingerprint
from mmsa_lib.threads import cpu_threads
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
        DataError: the data set has another task or other feature widths than the one the run was trained on, or it is
            the run's own and changed since.
    """
    config = result.config
    with cpu_threads(config.settings.threads):
        return _table(result, split, dataset or config.dataset, fold or config.fold)


def _table(result: RunResult, split: str, dataset: str, fold: str) -> pd.DataFrame:
    config = result.config
    splits = load(dataset, fold, **config.load_options)
    data = splits[split]
    trained = files.read_resolved(result.folder)
    _check_fits(result, trained, data)
    if (dataset, fold) == (config.dataset, config.fold):
        _check_same_data(result, splits)
    prediction = predict(result.load_method(data), data, config.settings.evaluation_batch_size)
    columns = {"id": data.ids, "group": data.groups or [""] * len(data)}
    return pd.DataFrame(columns | _values(data, prediction))


def _check_same_data(result: RunResult, splits: Splits) -> None:
    """Refuse the run's own data set where it is no longer what the run was trained and scaled on."""
    recorded = result.environment.get("data_fingerprint")
    if recorded is not None and recorded != data_fingerprint(splits):
        raise DataError(
            f"{result.config.dataset} is not the data that run {result.run_id} was trained on; it changed since, or "
            f"{files.CONFIG} was edited; train again, or keep the changed data under another name and give that"
        )


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
