"""The files of a run folder: what is written where, and how to read it back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.hdf5 import add_array, add_texts, read_texts, write_hdf5
from mmsa_lib.data.masks import level_name
from mmsa_lib.errors import DataError
from mmsa_lib.files import atomic_path, write_text

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
HISTORY = "history.csv"
METRICS = "metrics.csv"
CONSTANTS = "constants.csv"
SPREAD = "spread.csv"
PREDICTIONS = "predictions.h5"
MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
ERROR = "error.json"
DONE = "DONE"

RESULTS = (CONFIG, ENVIRONMENT, HISTORY, METRICS, CONSTANTS, SPREAD, PREDICTIONS, MODEL)
"""What a finished run has, beside its manifest and ``DONE``."""

VARIANT_SEPARATOR = "; "
"""Between the changed values that name a variant."""

METRIC_COLUMNS = (
    "run_id", "method", "variant", "dataset", "fold", "seed", "protocol", "level", "split", "metric", "value",
)  # fmt: skip
"""``level`` is text: a rate such as ``0.1``, or the modalities that are available, such as ``text+audio``."""

CELL_COLUMNS = ("protocol", "level", "split")

Cell = tuple[str, str, str]
"""Protocol, level and split."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for one split under one protocol cell.

    Attributes:
        ids, groups: per sample its identifier and the video that it was cut from.
        labels: ``(N,)`` or ``(N, K)``; predictions: ``(N,)``, or logits ``(N, K, 2)`` or ``(N, K)``.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({error}); delete its folder and repeat the run") from error


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a tidy table as CSV; floats keep all digits."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path) -> pd.DataFrame:
    """Read a tidy table; an empty text stays a text, an empty value is NaN.

    Raises:
        DataError: the file is missing or damaged.
    """
    texts = {name: str for name in METRIC_COLUMNS if name not in ("seed", "value")}
    try:
        frame = pd.read_csv(
            path, dtype={**texts, "seed": "Int64"}, keep_default_na=False, na_values={"value": [""], "seed": [""]}
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read as a table ({' '.join(str(error).split())})") from error
    return frame.assign(level=frame["level"].map(level_name)) if "level" in frame else frame


def write_predictions(path: Path, cells: Mapping[Cell, tuple[Utterances, Tensor]], run_id: str) -> None:
    """Write predictions per protocol, level and split.

    Layout: group ``/<protocol>/<level>/<split>`` with ``ids``, ``groups``, ``labels``, ``predictions``.
    """

    def fill(file: h5py.File) -> None:
        file.attrs["run_id"] = run_id
        for (protocol, level, split), (data, prediction) in cells.items():
            group = file.create_group(f"{protocol}/{level_name(level)}/{split}")
            add_texts(group, "ids", data.ids)
            add_texts(group, "groups", data.groups)
            add_array(group, "labels", data.labels.cpu().numpy())
            add_array(group, "predictions", prediction.numpy())

    write_hdf5(path, fill)


def read_predictions(
    path: Path, split: str = "test", protocol: str = "complete", level: float | str = 0.0
) -> Predictions:
    """Read the predictions of one cell.

    Raises:
        DataError: the file is damaged or has no such cell; names the cells that it has.
    """
    with _opened(path) as file:
        groups = _cell_groups(file)
        wanted = (protocol, level_name(level), split)
        if wanted not in groups:
            cells = ", ".join("/".join(cell) for cell in groups)
            raise DataError(f"{path} has no predictions for {'/'.join(wanted)}; it has {cells}")
        group = file[groups[wanted]]
        return Predictions(
            ids=tuple(read_texts(group["ids"])),
            groups=tuple(read_texts(group["groups"])),
            labels=group["labels"][:],
            predictions=group["predictions"][:],
        )


def list_cells(path: Path) -> list[Cell]:
    """The cells that a file of predictions has.

    Raises:
        DataError: the file is damaged.
    """
    with _opened(path) as file:
        return list(_cell_groups(file))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path} is no readable HDF5 file ({error}); repeat the run with --force (force=True in Python)"
        ) from error


def _cell_groups(file: h5py.File) -> dict[Cell, str]:
    """Each cell and its group."""
    return {(p, level_name(lv), s): f"{p}/{lv}/{s}" for p in file for lv in file[p] for s in file[p][lv]}
