"""Where each point of a sweep stands, on disk: the one truth that every executor and every rerun reads.

``<runs>/sweep/<point id>/`` holds ``point.json`` (what was executed), ``notebook.ipynb`` (the executed copy),
``result.json`` (seconds, runs that it made), ``manifest.json`` and, written last, ``DONE``. After a failure it holds
``error.json`` and ``notebook.failed.ipynb``. Anything else is an execution that was cut off, and is made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from mmsa_lib.errors import DataError
from mmsa_lib.experiments.files import MANIFEST, damaged_files, run_problem, write_manifest
from mmsa_lib.experiments.sweeps.points import Point
from mmsa_lib.files import atomic_path, remove_tree, write_text

FOLDER = "sweep"
DONE, POINT, RESULT, ERROR, NOTEBOOK = "DONE", "point.json", "result.json", "error.json", "notebook.ipynb"
FAILED_NOTEBOOK = "notebook.failed.ipynb"

FINISHED, FAILED, MISSING = "finished", "failed", "missing"


@dataclass(frozen=True)
class State:
    """Where a point stands.

    Attributes:
        state: ``finished``, ``failed`` or ``missing``.
        runs: identifiers of the runs behind a finished point.
        seconds: how long it took.
        cell, source, error, message: of a failure: position of the cell from 1, its first line, what happened.
        passing: the failure came from outside (a killed process, a full disk), so repeating it makes sense.
        times: how often in a row it was killed.
    """

    state: str
    runs: tuple[str, ...] = ()
    seconds: float = 0.0
    cell: int | None = None
    source: str = ""
    error: str = ""
    message: str = ""
    passing: bool = False
    times: int = 0


def point_folder(runs: Path, point: Point) -> Path:
    """The folder of ``point`` below the folder of runs."""
    return runs / FOLDER / point.id


def read_state(runs: Path, point: Point) -> State:
    """Where ``point`` stands. What is damaged, or rests on a run that is damaged or gone, counts as missing.

    Every file is compared with its hash each time; ``message`` then says what differs.
    """
    folder = point_folder(runs, point)
    if (folder / DONE).is_file():
        try:
            if problem := _damage(folder, point.id, (POINT, RESULT, NOTEBOOK)):
                return State(MISSING, message=problem)
            result = _read(folder / RESULT)
            made, seconds = tuple(map(str, result["runs"])), float(result["seconds"])
        except (DataError, KeyError, TypeError, ValueError):
            return State(MISSING, message=f"{folder / RESULT} is damaged")
        for name in made:
            if _text(runs / name / DONE) != name or run_problem(runs / name):
                return State(MISSING, message=f"the run {name} behind it is damaged or gone")
        return State(FINISHED, made, seconds)
    try:
        error = _read(folder / ERROR)
        return State(FAILED, **error)
    except (DataError, TypeError):  # none, or cut off while it was written
        return State(MISSING)


def _damage(folder: Path, name: str, needed: tuple[str, ...]) -> str:
    """What is wrong with a folder that says it is finished, in words; empty if nothing is."""
    if _text(folder / DONE) != name:
        return f"{folder / DONE} is damaged"
    # Without its manifest, or with one that leaves files out, nothing here could be checked.
    damaged = damaged_files(folder, needed)
    if damaged == [MANIFEST] or not (folder / MANIFEST).is_file():
        return f"{folder / MANIFEST} is missing or leaves files out"
    return f"{folder / damaged[0]} differs from its manifest" if damaged else ""


def point_lock(runs: Path, point: Point) -> FileLock:
    """Held by the one process that works on ``point``; the system frees it when that process ends, however it ends."""
    locks = runs / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"point-{point.id}.lock")


def clear(runs: Path, point: Point) -> Path:
    """An empty folder for ``point`` with its ``point.json``."""
    folder = point_folder(runs, point)
    remove_tree(folder)
    content = {key: value for key, value in point.to_plain().items() if key not in ("notebook", "unbuilt")}
    _write(folder / POINT, {**content, "notebook": Path(point.notebook).name})
    return folder


def record_success(runs: Path, point: Point, made: list[Path], seconds: float) -> State:
    """Write that ``point`` is finished, ``DONE`` last, and put its executed notebook beside the runs that it made."""
    folder = point_folder(runs, point)
    names = [path.name for path in made if path.parent == runs.resolve()]
    seconds = round(seconds, 3)
    for name in names:
        _link(folder / NOTEBOOK, runs / name / NOTEBOOK)
    _write(folder / RESULT, {"runs": names, "seconds": seconds})
    write_manifest(folder, [POINT, RESULT, NOTEBOOK])
    write_text(folder / DONE, point.id + "\n")
    return State(FINISHED, tuple(names), seconds)


def record_failure(runs: Path, point: Point, state: State) -> State:
    """Write why ``point`` failed."""
    facts = ("seconds", "cell", "source", "error", "message", "passing", "times")
    _write(point_folder(runs, point) / ERROR, {name: getattr(state, name) for name in facts})
    return state


def _link(source: Path, target: Path) -> None:
    """The executed notebook under a second name; a copy where the file system has no links."""
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(source.read_bytes())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(_text(path)))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged; delete its folder and repeat the sweep") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
