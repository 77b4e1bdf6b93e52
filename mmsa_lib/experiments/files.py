"""The folder of a run: its files, how they are written and read back, and how a damaged one is told from a whole one.

``DONE`` is written last, but a machine that loses its power may keep a name and lose the content behind it. So a
finished folder has a manifest with the size and SHA-256 of each file; a folder that differs from it is made again.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from mmsa_lib.data.hdf5 import add_array, add_texts, read_texts, write_hdf5
from mmsa_lib.errors import DataError, MMSAError
from mmsa_lib.experiments.fingerprint import RECORDED_PACKAGES, digest
from mmsa_lib.files import atomic_path, file_sha256, level_name, write_text
from mmsa_lib.paths import project_root

if TYPE_CHECKING:
    from torch import Tensor

    from mmsa_lib.data.batch import Utterances

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
HISTORY = "history.csv"
METRICS = "metrics.csv"
CONSTANTS = "constants.csv"
SPREAD = "spread.csv"
TERMS = "terms.csv"
PREDICTIONS = "predictions.h5"
MODEL = "model.safetensors"
INPUTS = "inputs.safetensors"
CHECKPOINT = "checkpoint.pt"
ERROR = "error.json"
MANIFEST = "manifest.json"
DONE = "DONE"

RESULTS = (CONFIG, ENVIRONMENT, HISTORY, METRICS, CONSTANTS, SPREAD, PREDICTIONS, MODEL)
"""What a finished run has, beside its manifest and ``DONE``; one of version 0.3.0 or later also has ``TERMS``,
one of version 0.4.0 or later ``INPUTS``."""

FINGERPRINTS = ("data_fingerprint", "code_fingerprint", "mask_fingerprint")
"""What an identifier rests on beside the values of a run; recorded in ``environment.json``."""

CORE_CODE = "core_code"
"""Fingerprint in ``environment.json`` of the code that runs of all methods share: runs of two methods are compared
where it is equal."""

OWN = "own_code"
"""In ``environment.json`` a method and a data source that are none of this library: where they come from (``from``)
and the SHA-256 of their code (``code``)."""

REPEAT = "repeat the run with --force (force=True in Python), or delete the folder"

METRIC_COLUMNS = (
    "run_id", "method", "label", "changes", "data_options", "dataset", "fold", "seed", "protocol", "level", "split",
    "metric", "value",
)  # fmt: skip
"""``changes`` and ``data_options`` are JSON texts of what differs from the defaults. ``level`` is text: a rate such as
``0.1``, or the modalities that are available, such as ``text+audio``."""

CODE_COLUMNS = ("method_code", "core_code")
"""Which code made a run: that of its method with everything below it, and what runs of all methods share; 12 digits
each, empty where that is unknown (constants, tables of version 0.1.0 and 0.2.0)."""

RESULT_COLUMNS = (*METRIC_COLUMNS, *CODE_COLUMNS)
"""Of many runs in one table."""

NO_CHANGES = "{}"
"""The ``changes`` or ``data_options`` of a configuration without any."""

CELL_COLUMNS = ("protocol", "level", "split")

Cell = tuple[str, str, str]
"""Protocol, level and split."""


RUN_LOG = "MMSA_LIB_RUN_LOG"
"""Environment variable with the file to which finished runs are added; so a sweep learns what its notebook has run."""

PROCESSOR_SETTINGS = (
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR",
    "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip
"""Environment variables that let a processor compute as another one does."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for one split under one protocol cell.

    Attributes:
        ids, groups: per sample its identifier and the video that it was cut from.
        labels: ``(N,)`` or ``(N, K)``; predictions: ``(N,)``, or logits ``(N, K, 2)`` or ``(N, K)``.
        clean: noise-free labels ``(N,)`` where the data have them, else ``None``.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    clean: np.ndarray | None = None


def as_json(values: Mapping[str, Any]) -> str:
    """Changed values as one JSON text, equal for equal values."""
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path, **expected: type) -> Any:
    """JSON; with ``expected`` names and types, an object that has these.

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


def run_problem(folder: Path, renamed: bool = False) -> str:
    """What a finished folder claims but does not hold, in words; empty where it is as its run left it.

    ``DONE`` and the configuration must name the folder, all files agree with the manifest, and the identifier follow
    from the values and fingerprints that are recorded. A folder of version 0.1.0 has no manifest.

    Args:
        renamed: the folder may be called as it likes.
    """
    name = folder.resolve().name
    try:
        done = (folder / DONE).read_text(encoding="utf-8", errors="replace").strip()
        if renamed and (folder / MANIFEST).exists() and read_json(folder / CONFIG, run_id=str)["run_id"] == done:
            name = done
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


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a tidy table as CSV; floats keep all digits."""
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read_table(path: Path, columns: Iterable[str] = (), what: str = "table") -> pd.DataFrame:
    """Read a tidy table of this version or of 0.1.0; an empty text stays a text, an empty value is NaN.

    Raises:
        DataError: the file is missing or damaged, or lacks one of the ``columns``, so that it is no ``what``.
    """
    types = dict.fromkeys(RESULT_COLUMNS, str) | {"seed": "Int64", "value": float}
    empty = {"value": [""], "seed": [""]}
    frame = read_csv(path, columns, what, dtype=types, keep_default_na=False, na_values=empty)
    for name in {"changes", "data_options"} & {*frame}:
        for text in frame[name].unique():
            try:
                whole = isinstance(json.loads(text), dict)
            except (ValueError, TypeError, RecursionError):
                whole = False
            if not whole:
                raise DataError(f"{path}: column {name!r} holds {text[:80]!r}, which is no JSON object; write it again")
    return frame.assign(level=frame["level"].map(level_name)) if "level" in frame else frame


def read_csv(path: Path | str, columns: Iterable[str] = (), what: str = "table", **options: Any) -> pd.DataFrame:
    """Any CSV that this library wrote, with the ``columns`` that it must have; one of 0.1.0 gets its present columns.

    Raises:
        DataError: the file is missing, damaged or something else.
    """
    try:
        frame = pd.read_csv(path, **options)
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise DataError(f"{path} can't be read as a table ({' '.join(str(error).split())}); write it again") from error
    frame = _described(frame, Path(path))
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataError(f"{path} is no {what}: column {missing[0]!r} is missing")
    return frame


def _described(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """``frame`` with label, changes and data options, where version 0.1.0 wrote a display string alone.

    A run folder still says what the three were. Elsewhere the string is the label and, so that configurations stay
    apart, the one changed value; nothing takes it to pieces.
    """
    for prefix in (prefix for prefix in ("", "reference_") if f"{prefix}variant" in frame):
        texts = frame[f"{prefix}variant"].fillna("")
        names = {"label": texts, "changes": [as_json({"variant": text} if text else {}) for text in texts],
                 "data_options": NO_CHANGES}  # fmt: skip
        if path.name == METRICS and (path.parent / CONFIG).is_file():
            from mmsa_lib.experiments.config import RunConfig

            names = RunConfig.describe_stored(read_json(path.parent / CONFIG, config=dict)["config"])
        frame = frame.drop(columns=f"{prefix}variant").assign(**{f"{prefix}{k}": v for k, v in names.items()})
    return frame


def write_predictions(path: Path, cells: Mapping[Cell, tuple[Utterances, Tensor]], run_id: str) -> None:
    """Write predictions per protocol, level and split.

    Layout: group ``/<protocol>/<level>/<split>`` with ``ids``, ``groups``, ``labels``, ``predictions`` and, where they
    are known, the noise-free labels ``clean``.
    """

    def fill(file: h5py.File) -> None:
        file.attrs["run_id"] = run_id
        for (protocol, level, split), (data, prediction) in cells.items():
            group = file.create_group(f"{protocol}/{level_name(level)}/{split}")
            add_texts(group, "ids", data.ids)
            add_texts(group, "groups", data.groups)
            add_array(group, "labels", data.labels.cpu().numpy())
            add_array(group, "predictions", prediction.numpy())
            if data.clean is not None:
                add_array(group, "clean", data.clean.cpu().numpy())

    write_hdf5(path, fill)


def read_predictions(
    path: Path, split: str = "test", protocol: str = "complete", level: float | str = 0.0
) -> Predictions:
    """Read the predictions of one cell.

    Raises:
        DataError: the file is damaged or has no such cell; names the cells that it has.
    """
    wanted = f"{protocol}/{level_name(level)}/{split}"
    try:
        with h5py.File(path, "r") as file:
            if (found := file.get(wanted)) is None:  # not there, or its level is spelled in another way
                cells = {
                    f"{p}/{level_name(lv)}/{s}": file[p][lv][s] for p in file for lv in file[p] for s in file[p][lv]
                }
                if wanted not in cells:
                    raise DataError(f"{path} has no predictions for {wanted}; it has {', '.join(cells)}")
                found = cells[wanted]
            ids, videos = tuple(read_texts(found["ids"])), tuple(read_texts(found["groups"]))
            clean = found["clean"][:] if "clean" in found else None
            return Predictions(ids, videos, found["labels"][:], found["predictions"][:], clean)
    except MMSAError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no readable HDF5 file ({error}); repeat the run with --force (force=True in Python)"
        ) from error


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Record the size and SHA-256 of the files ``names`` of ``folder``, which are complete by now."""
    record = {name: _facts(folder / name) for name in sorted(names)}
    write_text(folder / MANIFEST, json.dumps(record, indent=1, sort_keys=True) + "\n")


def damaged_files(folder: Path, needed: Iterable[str] = ()) -> list[str]:
    """Names of files in ``folder`` that are missing or differ from its manifest; the manifest itself if unreadable.

    A folder without a manifest (written by version 0.1.0) can't be checked and passes. A manifest that leaves out one
    of the files ``needed`` is damaged itself.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        recorded = {str(name): dict(facts) for name, facts in record.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return [MANIFEST]
    if not set(needed) <= set(recorded):
        return [MANIFEST]
    agree = set()
    for name, facts in recorded.items():
        path = folder / name
        with suppress(OSError):  # the size first: it costs nothing, and a cut file is the usual damage
            is_own = path.name == name and path.is_file()  # no path to elsewhere, no device or pipe
            if is_own and path.stat().st_size == facts.get("size") and _facts(path) == facts:
                agree.add(name)
    return [name for name in recorded if name not in agree]


def _facts(path: Path) -> dict[str, int | str]:
    now = path.stat()
    return {"size": now.st_size, "sha256": _sha256(path, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)}


@cache
def _sha256(path: Path, *state: int) -> str:
    """Digest of a file in one ``state``: many tables may be made of the same runs in one process."""
    return file_sha256(path)


def log_run(folder: Path) -> None:
    """Add a finished run's folder to the log that the environment asks for."""
    if path := os.environ.get(RUN_LOG):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(str(folder.resolve())) + "\n")


def logged_runs(path: Path) -> list[Path]:
    """The folders in the log ``path``, each once, in order; none without a log."""
    if not path.is_file():
        return []
    return [Path(json.loads(line)) for line in dict.fromkeys(path.read_text(encoding="utf-8").splitlines())]


def environment(device: str = "cpu") -> dict[str, Any]:
    """Everything about the surroundings that may explain a difference between two runs; no paths, no names of people.

    Args:
        device: the device that is used, for instance ``cuda:0``.
    """
    import torch

    from mmsa_lib.training.seeding import determinism_flags

    on_gpu = device.startswith("cuda")
    libraries = {"mkl": torch.backends.mkl.is_available(), "onednn": torch.backends.mkldnn.is_available()}
    machine = {  # what decides the last bits of a result on a CPU
        "processor": _processor(),
        "architecture": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "settings": {name: os.environ[name] for name in PROCESSOR_SETTINGS if name in os.environ},
        "libraries": [name for name, there in libraries.items() if there],
        "blas": torch.__config__.show().partition("BLAS_INFO=")[2].partition(",")[0] or None,
    }
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": {name: package_version(name) for name in RECORDED_PACKAGES},
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "cuda": torch.version.cuda,
        "machine": machine,
        "determinism": determinism_flags(),
        "git": _git_state(),
    }


def package_version(name: str) -> str | None:
    """Installed version of a distribution, or ``None``."""
    with suppress(PackageNotFoundError):
        return version(name)
    return None


@cache
def _processor() -> str:
    """The model of the CPU, as the system names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.partition(":")[0].strip() in ("model name", "Hardware", "cpu model", "cpu"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or platform.machine()


def _git_state() -> dict[str, Any]:
    """Commit of the checkout and whether tracked files differ from it; both ``None`` outside a checkout."""
    git = ("git", "-C", str(project_root()))
    with suppress(OSError, subprocess.SubprocessError):
        if project_root() is not None:
            commit = _output(*git, "rev-parse", "HEAD")
            return {"commit": commit, "dirty": bool(_output(*git, "status", "--porcelain", "--untracked-files=no"))}
    return {"commit": None, "dirty": None}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
