"""The files of a run folder: what is written where, and how to read it back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.hdf5 import add_array, add_texts, read_texts, write_hdf5
from mmsa_lib.errors import DataError, MMSAError
from mmsa_lib.experiments.fingerprint import digest
from mmsa_lib.experiments.manifest import MANIFEST, damaged_files
from mmsa_lib.files import atomic_path, level_name, write_text

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

FINGERPRINTS = ("data_fingerprint", "code_fingerprint", "mask_fingerprint")
"""What an identifier rests on beside the values of a run; recorded in ``environment.json``."""

REPEAT = "repeat the run with --force (force=True in Python), or delete the folder"

VARIANT_SEPARATOR = "; "
"""Between the changed values in the display name of a configuration."""

METRIC_COLUMNS = (
    "run_id", "method", "label", "changes", "data_options", "dataset", "fold", "seed", "protocol", "level", "split",
    "metric", "value",
)  # fmt: skip
"""``changes`` and ``data_options`` are JSON texts of what differs from the defaults. ``level`` is text: a rate such as
``0.1``, or the modalities that are available, such as ``text+audio``."""

NO_CHANGES = "{}"
"""The ``changes`` or ``data_options`` of a configuration without any."""

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


def as_json(values: Mapping[str, Any]) -> str:
    """Changed values as one JSON text, equal for equal values."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def describe_changes(changes: str, data_options: str = NO_CHANGES, label: str = "") -> str:
    """A configuration's name for printing: its label, else for instance ``"lambda_cov=0.0; text=words"``."""
    values = json.loads(changes) | json.loads(data_options)
    return label or VARIANT_SEPARATOR.join(f"{key}={values[key]}" for key in sorted(values))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, **expected: type) -> Any:
    """Read JSON; with ``expected`` names and types, an object that has these.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read ({error}); delete its folder and repeat the run") from error
    for name, kind in expected.items():
        if not isinstance(content, dict) or not isinstance(content.get(name), kind):
            raise DataError(f"{path} has no {name!r} as runs write it; delete its folder and repeat the run")
    return content


def read_resolved(folder: Path) -> dict[str, Any]:
    """The resolved values of a run, its task and feature widths among them.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    resolved = read_json(folder / CONFIG, resolved=dict)["resolved"]
    if not all(isinstance(resolved.get(name), dict) for name in ("task", "dims")):
        raise DataError(f"{folder / CONFIG} does not say what was predicted from what; {REPEAT}")
    return resolved


def run_problem(folder: Path) -> str:
    """What a finished folder claims but does not hold, in words; empty where it is as its run left it.

    ``DONE`` and the configuration must name the folder, all files agree with the manifest, and the identifier follow
    from the values and fingerprints that are recorded. A folder of version 0.1.0 has no manifest.
    """
    name = folder.resolve().name
    try:
        done = (folder / DONE).read_text(encoding="utf-8", errors="replace").strip()
        damaged = damaged_files(folder, RESULTS)
        stored = {} if damaged or not (folder / CONFIG).exists() else read_json(folder / CONFIG)
        if done != name and isinstance(stored, dict) and stored.get("run_id") == done:
            return f"{folder} is not named as the run in it, {done}"
        damaged = ([DONE] if done != name else []) + damaged
        if damaged:
            return f"{', '.join(damaged)} in {folder} lost its content or was changed"
        if (folder / MANIFEST).exists():
            return _contradiction(folder, name)
        # Version 0.1.0 wrote neither a manifest nor the machine.
        facts = read_json(folder / ENVIRONMENT) if (folder / ENVIRONMENT).exists() else {}
        return f"{folder} has no {MANIFEST}" if isinstance(facts, dict) and "machine" in facts else ""
    except OSError as error:
        return f"{folder} can't be read ({error.strerror or error})"
    except DataError as error:
        return str(error).partition(";")[0]


def _contradiction(folder: Path, name: str) -> str:
    """Where the values of a run disagree with each other or with its identifier."""
    stored = read_json(folder / CONFIG, run_id=str, config=dict, resolved=dict)
    asked, resolved = stored["config"], stored["resolved"]
    pairs = [(key, asked.get(key), resolved.get(key)) for key in ("method", "fold", "seed", "missing")]
    for section in ("config", "settings"):
        inner, used = asked.get(section), resolved.get(section)
        if isinstance(inner, dict) and isinstance(used, dict):
            pairs += [(key, inner[key], used[key]) for key in inner.keys() & used.keys()]
    for key, one, other in pairs:
        comparable = isinstance(one, int | float) and isinstance(other, int | float)
        comparable |= isinstance(one, str) and isinstance(other, str) and "auto" not in (one, other)
        if comparable and one != other:
            return f"{folder / CONFIG} contradicts itself: {key} is {one!r} and {other!r}"
    marks = read_json(folder / ENVIRONMENT, **dict.fromkeys(FINGERPRINTS, str), training=dict)
    if {run_identifier(resolved, marks), stored["run_id"]} != {name}:
        return f"the identifier of {folder} does not follow from its {CONFIG} and {ENVIRONMENT}"
    return ""


def run_identifier(resolved: dict[str, Any], marks: Mapping[str, str]) -> str:
    """The identifier of a run: 12 hexadecimal digits from its values and from its fingerprints of data, code, masks."""
    return digest({"resolved": resolved, **{name: marks[name] for name in FINGERPRINTS}})[:12]


def check_run(folder: Path) -> None:
    """Refuse a finished folder that does not hold what it claims.

    Raises:
        DataError: says what is wrong and what to do.
    """
    problem = run_problem(folder)
    if problem:
        raise DataError(f"{problem}; {REPEAT}")


@cache
def warn_once(text: str) -> None:
    """One line on stderr, the first time that it is to be said."""
    print(text, file=sys.stderr)


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a tidy table as CSV; floats keep all digits."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path, columns: Iterable[str] = (), what: str = "table") -> pd.DataFrame:
    """Read a tidy table of this version or of 0.1.0; an empty text stays a text, an empty value is NaN.

    Raises:
        DataError: the file is missing or damaged, or lacks one of the ``columns``, so that it is no ``what``.
    """
    types = dict.fromkeys(METRIC_COLUMNS, str) | {"seed": "Int64", "value": float}
    frame = _described(
        read_csv(path, (), what, dtype=types, keep_default_na=False, na_values={"value": [""], "seed": [""]}), path
    )
    _check_columns(path, frame, columns, what)
    return frame.assign(level=frame["level"].map(level_name)) if "level" in frame else frame


def read_csv(path: Path | str, columns: Iterable[str] = (), what: str = "table", **options: Any) -> pd.DataFrame:
    """Any CSV that this library wrote, with the ``columns`` that it must have.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    try:
        frame = pd.read_csv(path, **options)
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{path} can't be read as a table ({' '.join(str(error).split())}); write it again") from error
    _check_columns(path, frame, columns, what)
    return frame


def _check_columns(path: Path | str, frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataError(f"{path} is no {what}: column {missing[0]!r} is missing")


def _described(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """``frame`` with label, changes and data options, where version 0.1.0 wrote a display string alone."""
    if "changes" in frame:
        return with_variant(frame)
    if "variant" not in frame:
        return frame
    names = {"label": "", "changes": NO_CHANGES, "data_options": NO_CHANGES}
    if path.name == METRICS and (path.parent / CONFIG).is_file():
        from mmsa_lib.experiments.config import RunConfig

        names = RunConfig.describe_stored(read_json(path.parent / CONFIG, config=dict)["config"])
    return frame.assign(**names)


def with_variant(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the display names of its configurations as ``variant``."""
    if "data_options" not in frame or "variant" in frame:
        return frame
    pairs = zip(frame["changes"], frame["data_options"], strict=True)
    return frame.assign(variant=[describe_changes(changes, options) for changes, options in pairs])


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
    except MMSAError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no readable HDF5 file ({error}); repeat the run with --force (force=True in Python)"
        ) from error


def _cell_groups(file: h5py.File) -> dict[Cell, str]:
    """Each cell and its group."""
    return {(p, level_name(lv), s): f"{p}/{lv}/{s}" for p in file for lv in file[p] for s in file[p][lv]}
