"""Finished run folders without a training: configuration, metrics, constants and predictions of made-up methods."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from mmsa_lib.data.task import Task, regression
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig

SEEDS = (1111, 1112, 1113)
ITEMS = 40


def labels_of(task: Task, count: int = ITEMS) -> np.ndarray:
    generator = np.random.default_rng(0)
    if task.kind == "emotions":
        return np.eye(len(task.names))[generator.integers(len(task.names), size=count)]
    return np.round(generator.uniform(*task.range, count), 1)


def predictions_of(labels: np.ndarray, seed: int, noise: float, task: Task) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if task.kind == "emotions":
        return np.stack([1 - labels, labels], axis=-1) + generator.normal(0, noise, (*labels.shape, 2))
    return labels + noise * (1 + 0.1 * generator.normal()) * np.random.default_rng(5).normal(size=len(labels))


def result_rows(method, values, *, changes=None, data=None, label="", metric="mae", seeds=None, dataset="toy",
                protocol="complete", level="0.0", split="test", constant=False, run_id=None) -> list[dict]:  # fmt: skip
    """Rows of results of one configuration, one per value; seeds from 1 on."""
    configuration = {"method": method, "label": label, "changes": files.as_json(changes or {}),
                     "data_options": files.as_json(data or {})}  # fmt: skip
    cell = {"protocol": protocol, "level": level, "split": split, "metric": metric}
    return [
        {"run_id": "" if constant else run_id or f"{method}-{'-'.join(changes or {})}{seed}", **configuration,
         "dataset": dataset, "fold": "standard", "seed": pd.NA if constant else seed, **cell, "value": value}
        for seed, value in zip(seeds or range(1, 1 + len(values)), values, strict=True)
    ]  # fmt: skip


def result_frame(*parts: list[dict]) -> pd.DataFrame:
    """The rows of :func:`result_rows` as one table."""
    return pd.DataFrame([row for part in parts for row in part]).astype({"seed": "Int64"})


def write_run(folder: Path, method: str, seed: int, noise: float = 1.0, *, task: Task | None = None, config=None,
              protocols=(("complete", "0.0"),), ids=None, prediction=None, groups=True) -> str:  # fmt: skip
    """Write one finished run and return its identifier."""
    task = task or regression()
    whole = RunConfig(method=method, seed=seed, config=config or {})
    named = (key if value is True else f"{key}{value}" for key, value in (config or {}).items())
    run_id = f"{method}-{'-'.join(named)}{seed}"
    labels = labels_of(task)
    found = predictions_of(labels, seed, noise, task) if prediction is None else prediction
    names = ids or [f"s{i:02d}" for i in range(len(labels))]
    data = SimpleNamespace(
        ids=names,
        groups=[f"v{i // 4}" for i in range(len(labels))] if groups else [],
        labels=torch.tensor(labels),
        clean=None,
    )
    cells, rows = {}, []
    own = {"run_id": run_id, "method": method, **whole.described(), "seed": seed, "dataset": "toy",
           "fold": "standard", "split": "test"}  # fmt: skip
    for position, (protocol, level) in enumerate(protocols):
        shifted = torch.tensor(found + 0.2 * position)
        cells[protocol, level, "test"] = (data, shifted)
        values = task_metrics(task, shifted, labels)
        rows += [{**own, "protocol": protocol, "level": level, "metric": k, "value": v} for k, v in values.items()]
    target = folder / run_id
    target.mkdir(parents=True)
    stored = {"run_id": run_id, "config": {**whole.model_dump(mode="json"), "dataset": "toy"}}
    files.write_json(target / files.CONFIG, {**stored, "resolved": {"task": asdict(task)}})
    files.write_table(target / files.METRICS, pd.DataFrame(rows)[list(files.METRIC_COLUMNS)])
    constant = {**own, "run_id": "", "method": "constant_mean", "label": "", "changes": "{}", "data_options": "{}",
                "seed": None, "protocol": "complete", "level": "0.0"}  # fmt: skip
    at = task_metrics(task, np.zeros_like(found), labels)
    files.write_table(
        target / files.CONSTANTS,
        pd.DataFrame([{**constant, "metric": k, "value": v} for k, v in at.items()])[list(files.METRIC_COLUMNS)],
    )
    files.write_predictions(target / files.PREDICTIONS, cells, run_id)
    files.write_text(target / files.DONE, run_id + "\n")
    return run_id


def write_failure(folder: Path, method: str, seed: int, config=None, message: str = "it went wrong") -> str:
    """Write a run that failed."""
    whole = RunConfig(method=method, seed=seed, config=config or {})
    target = folder / f"failed-{method}-{seed}"
    target.mkdir(parents=True)
    files.write_json(target / files.CONFIG, {"config": {**whole.model_dump(mode="json"), "dataset": "toy"}})
    files.write_json(target / files.ERROR, {"type": "RunError", "message": message})
    return target.name
