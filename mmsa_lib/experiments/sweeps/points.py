"""Points of a sweep: a notebook with all its parameters, named by everything that can change what comes out.

The identifier covers the notebook's code, its parameters, the library modules that it imports and the data set that it
names. What was executed under it stays valid as long as the identifier is the same, and is executed anew otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mmsa_lib.errors import ConfigError, DataError, MMSAError, unknown_name
from mmsa_lib.experiments.fingerprint import PACKAGE, PACKAGE_FOLDER, code_fingerprint, digest, imported_modules
from mmsa_lib.experiments.parameters import PARAMETERS_TAG, parameters_model, read_notebook, typed_parameters
from mmsa_lib.experiments.sweeps.definition import SEED, Choice, choices, find_notebook, read_sweep

RUN_PARAMETERS = frozenset({"method", "dataset", "config", "data", "settings", "seed"})
"""A notebook with these parameters makes one run of the library from them; they are checked as a ``RunConfig``."""

ONLY_EXECUTE = ("mmsa_lib.experiments.sweeps.*", "mmsa_lib.errors", "mmsa_lib.files", "mmsa_lib.paths")
"""Modules that decide how something is executed or where it lies, not what comes out."""


@dataclass(frozen=True)
class Point:
    """One execution of one notebook. All fields are plain JSON values, so that a point can go to another machine.

    Attributes:
        id: identifier, 12 hexadecimal digits.
        notebook: absolute path.
        parameters: what is given to the notebook, typed; the others keep their defaults.
        block, ablation: where it stands in the sweep's file; empty without names.
        varied: what tells it apart from the others.
        timeout: seconds.
        unbuilt: why its data set can't be read yet, and what to do; empty if it is there.
    """

    id: str
    notebook: str
    parameters: dict[str, Any]
    block: str = ""
    ablation: str = ""
    varied: dict[str, Any] = field(default_factory=dict)
    timeout: float = 3600
    unbuilt: str = ""

    @property
    def label(self) -> str:
        """Block, ablation and varied parameters, for people."""
        shown = {key: value for key, value in self.varied.items() if not self.ablation or not key.startswith("config.")}
        words = [self.block, self.ablation, *(f"{key.rpartition('.')[2]}={_short(v)}" for key, v in shown.items())]
        return " ".join(word for word in words if word) or Path(self.notebook).stem

    @property
    def group(self) -> str:
        """What points share that differ in their seed alone; they take about the same time."""
        rest = {key: value for key, value in self.parameters.items() if key != SEED}
        return digest([self.notebook, rest])

    def to_plain(self) -> dict[str, Any]:
        """As plain values; ``Point(**values)`` is the point again."""
        return asdict(self)


def read_points(path: Path | str) -> list[Point]:
    """All points of the sweep in file ``path``, each once, in the order of the file, checked before anything runs.

    Raises:
        ConfigError, UnknownNameError: the file is no sweep, a parameter is unknown or ill-typed, or a run that it asks
            for can't exist (unknown method, setting or data option); names the point.
    """
    sweep = read_sweep(path)
    notebook = find_notebook(sweep, path)
    source = read_notebook(notebook)
    model = parameters_model(source, notebook.name)
    defaults = model().model_dump()
    code = _code_of(source)
    points: dict[str, Point] = {}
    data_sets: dict[str, tuple[str, str]] = {}
    for choice in choices(sweep):
        where = f"{path}: {_where(choice)}"
        try:
            values = typed_parameters(model, choice.parameters, notebook.name)
            check_run(values)
            data, unbuilt = _data_identity(values.get("dataset"), data_sets)
        except MMSAError as error:
            raise type(error)(f"{where}{error}") from None
        identity = {"notebook": code, "parameters": values, "data": data}
        point_id = digest(identity)[:12]
        given = {key: value for key, value in values.items() if value != defaults[key]}
        names = {"block": choice.block, "ablation": choice.ablation, "varied": choice.varied}
        point = Point(point_id, str(notebook), given, **names, timeout=sweep.timeout, unbuilt=unbuilt)
        points.setdefault(point_id, point)
    return list(points.values())


def choose(points: Sequence[Point], only: Sequence[str]) -> list[Point]:
    """Those of ``points`` that fit ``only``: names of blocks or ablations, ``key=value``, or the start of an id.

    Several values of one kind (two blocks, two values of one key) are alternatives; different kinds must all fit.

    Raises:
        UnknownNameError: something fits no point.
    """
    wanted: dict[str, set[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        kind = f"={key}" if equals else _kind(points, item)
        if not any(_fits(point, kind, {value if equals else item}) for point in points):
            known = {name for p in points for name in (p.block, p.ablation) if name}
            known |= {f"{key}={_short(value)}" for p in points for key, value in p.varied.items()}
            raise unknown_name("part of this sweep", item, known or {points[0].id})
        wanted.setdefault(kind, set()).add(value if equals else item)
    return [point for point in points if all(_fits(point, kind, values) for kind, values in wanted.items())]


def check_run(values: Mapping[str, Any]) -> None:
    """Check the parameters of a notebook that makes one run, so that a misspelt setting is refused before a kernel.

    Raises:
        ConfigError: the run can't exist.
    """
    if not values.keys() >= RUN_PARAMETERS:
        return
    from mmsa_lib.experiments.config import RunConfig

    known = {key: value for key, value in values.items() if key in RunConfig.model_fields}
    RunConfig(**known).method_config  # noqa: B018 (checks the method's values)


def _kind(points: Sequence[Point], item: str) -> str:
    for kind in ("block", "ablation"):
        if any(getattr(point, kind) == item for point in points):
            return kind
    return "id"


def _fits(point: Point, kind: str, values: set[str]) -> bool:
    if kind == "id":
        return any(point.id.startswith(value) for value in values if value)
    if kind.startswith("="):
        return _short(_reach({**point.parameters, **point.varied}, kind[1:])) in values
    return getattr(point, kind) in values


def _reach(values: Mapping[str, Any], key: str) -> Any:
    """``values["a"]["b"]`` for ``a.b``; a plain name is also looked for inside the mappings."""
    if key in values:
        return values[key]
    name, _, inner = key.partition(".")
    if inner:
        return values[name].get(inner) if isinstance(values.get(name), Mapping) else None
    return next((part[key] for part in values.values() if isinstance(part, Mapping) and key in part), None)


def _short(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _where(choice: Choice) -> str:
    names = [f"{kind} {name}" for kind, name in (("block", choice.block), ("ablation", choice.ablation)) if name]
    return f"{', '.join(names)}: " if names else ""


def _code_of(source: Any) -> str:
    """Hash of the notebook's code, the parameters cell left out, and of the library modules that it imports."""
    cells = [
        cell.source
        for cell in source.cells
        if cell.cell_type == "code" and PARAMETERS_TAG not in cell.metadata.get("tags", [])
    ]
    text = "\n".join(re.sub(r"^\s*[%!].*$", "pass", cell, flags=re.MULTILINE) for cell in cells)
    try:
        roots = imported_modules(text)
    except SyntaxError:  # a cell magic, say; then all of the library counts
        roots = {
            ".".join([PACKAGE, *path.relative_to(PACKAGE_FOLDER).with_suffix("").parts])
            for path in PACKAGE_FOLDER.rglob("*.py")
            if path.name != "__init__.py"
        }
    return digest([cells, _modules(tuple(sorted(roots)))])


@cache
def _modules(roots: tuple[str, ...]) -> str:
    # Read once per process: what is edited afterwards is not what this process executes.
    return code_fingerprint(roots, left_out=ONLY_EXECUTE)


def _data_identity(name: Any, known: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """Fingerprint of the data set ``name``, and why it can't be read; looked up once per sweep."""
    if not isinstance(name, str):
        return "", ""
    if name not in known:
        known[name] = _fingerprint(name)
    return known[name]


def _fingerprint(name: str) -> tuple[str, str]:
    from mmsa_lib.data.registry import SYNTHETIC, store_path
    from mmsa_lib.data.store import read_header

    try:
        return read_header(store_path(name))["fingerprint"], ""
    except ConfigError:
        if name != SYNTHETIC:
            raise
        return "", ""  # generated by code, which is covered by the modules
    except DataError as error:
        return "", str(error)
