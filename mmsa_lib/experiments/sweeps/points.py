"""Points of a sweep: a notebook with all its parameters, named by everything that can change what comes out.

The identifier covers the notebook's code, its parameters, the library modules that it imports and the data set that it
names. What was executed under it stays valid as long as the identifier is the same, and is executed anew otherwise.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mmsa_lib.errors import ConfigError, DataError, MMSAError, UnknownNameError, unknown_name
from mmsa_lib.experiments.fingerprint import PACKAGE, PACKAGE_FOLDER, code_fingerprint, digest, imported_modules, parse
from mmsa_lib.experiments.parameters import PARAMETERS_TAG, parameters_model, read_notebook, typed_parameters
from mmsa_lib.experiments.sweeps.definition import SEED, Choice, choices, find_notebook, read_sweep

RUN_PARAMETERS = frozenset({"method", "dataset", "config", "data", "settings", "seed"})
"""A notebook with these parameters makes one run of the library from them; they are checked as a ``RunConfig``."""

LABEL = "label"
"""Parameter of such a notebook that takes the name of an ablation; what a run is called changes no number of it."""

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
        rest = {key: value for key, value in self.parameters.items() if key not in (SEED, LABEL)}
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
    code, brought = _code_of(source), _brought(source)
    if brought.files:
        code = digest([code, brought.files])
    points: dict[str, Point] = {}
    data_sets: dict[str, tuple[str, str]] = {}
    for choice in _with_file(path, choices(sweep)):
        where = f"{path}: {_where(choice)}"
        try:
            given = choice.parameters
            labelled = model.model_fields.keys() >= RUN_PARAMETERS | {LABEL}
            if labelled and choice.ablation:
                given = {LABEL: choice.ablation, **given}
            values = typed_parameters(model, given, notebook.name)
            _check(values, brought)
            data, unbuilt = _data_identity(values.get("dataset"), data_sets, brought)
        except MMSAError as error:
            raise type(error)(f"{where}{error}") from None
        decisive = {key: value for key, value in values.items() if not (labelled and key == LABEL)}
        identity = {"notebook": code, "parameters": decisive, "data": data}
        point_id = digest(identity)[:12]
        given = {key: value for key, value in values.items() if value != defaults[key]}
        names = {"block": choice.block, "ablation": choice.ablation, "varied": choice.varied}
        point = Point(point_id, str(notebook), given, **names, timeout=sweep.timeout, unbuilt=unbuilt)
        points.setdefault(point_id, point)
    return list(points.values())


def _with_file(path: Path | str, found: Iterator[Choice]) -> Iterator[Choice]:
    try:
        yield from found
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


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


class _Brought(NamedTuple):
    """What a notebook adds to the library itself, read from its code.

    Attributes:
        names: registered by name, as in ``METHODS["mine"] = Mine``.
        unseen: whether it may register others, whose names can't be read here.
        files: modules of one's own that it imports, directly or not, with their hashes.
        lost: modules that it imports and that are not found.
    """

    names: frozenset[str]
    unseen: bool
    files: dict[str, str]
    lost: tuple[str, ...]


REGISTRIES = ("METHODS", "RECIPES", "PROTOCOLS")


def _check(values: Mapping[str, Any], brought: _Brought) -> None:
    """As :func:`check_run`, except that names which the notebook brings are known."""
    method = values.get("method")
    if isinstance(method, str) and method in brought.names:
        return
    from mmsa_lib.methods import METHODS

    try:
        check_run(values)
    except UnknownNameError as error:
        asked = {value for value in values.values() if isinstance(value, str)} | set(values.get("protocols") or ())
        if brought.unseen or asked & brought.names:
            return
        if brought.lost:
            where = "is installed or on PYTHONPATH"
            raise ConfigError(
                f"{error}; the notebook imports {brought.lost[0]}, which is not found; see that it {where}"
            ) from None
        if brought.names and str(method) in str(error):
            raise unknown_name("method", str(method), {*METHODS, *brought.names}) from None
        raise


def _brought(source: Any) -> _Brought:
    """What the code of a notebook registers and imports."""
    try:
        tree = parse("\n".join(_python_cells(source)))
    except SyntaxError:  # a cell magic, say
        return _Brought(frozenset(), True, {}, ())
    nodes = list(ast.walk(tree))
    aliases = {a.asname: a.name for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names if a.asname}
    names: set[str] = set()
    unseen = False
    for keys in (_registered(node, aliases) for node in nodes):
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                names.add(key.value)
            else:
                unseen = True
    files, lost = _own_modules(tree)
    return _Brought(frozenset(names), unseen or bool(files), files, lost)


def _own_modules(tree: ast.AST) -> tuple[dict[str, str], tuple[str, ...]]:
    """Source files, with their hashes, of modules that are neither Python's, ours nor installed; and what is lost."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    places = [node.args[-1] for node in calls if ast.unparse(node.func) in ("sys.path.insert", "sys.path.append")]
    search = [place.value for place in places if isinstance(place, ast.Constant) and isinstance(place.value, str)]
    files: dict[str, str] = {}
    lost, waiting, seen = [], sorted(_tops(tree)), {PACKAGE, *sys.stdlib_module_names}
    while waiting:
        top = waiting.pop()
        if top in seen:
            continue
        seen.add(top)
        spec = None
        with suppress(ImportError, ValueError):
            spec = PathFinder.find_spec(top, search) or find_spec(top)
        if spec is None:
            lost.append(top)
            continue
        roots = [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
        if {"site-packages", "dist-packages"} & {part for root in roots for part in root.parts} and not _extends_us(
            top
        ):
            continue
        for root in roots:
            for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
                with suppress(OSError, SyntaxError, ValueError):
                    content = path.read_bytes()
                    files[f"{top}/{path.relative_to(root) if root.is_dir() else ''}"] = sha256(content).hexdigest()
                    waiting.extend(_tops(parse(content.decode("utf-8"))))
    return dict(sorted(files.items())), tuple(lost)


def _tops(tree: ast.AST) -> set[str]:
    """First parts of the modules that ``tree`` imports by absolute names."""
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.partition(".")[0] for name in names} - {""}


def _extends_us(top: str) -> bool:
    """Whether an installed package needs this library, as one that brings methods does."""
    try:
        return any(re.match(r"mmsa[-_.]lib\b", line, re.IGNORECASE) for line in requires(top) or ())
    except PackageNotFoundError:
        return False


def _registered(node: ast.AST, aliases: Mapping[str, str]) -> list[Any]:
    """Keys that a statement puts into one of :data:`REGISTRIES`; ``None`` for those that can't be read."""

    def is_registry(part: ast.AST) -> bool:
        name = getattr(part, "attr", None) or getattr(part, "id", "")
        return aliases.get(name, name) in REGISTRIES

    def keys(part: ast.AST) -> list[Any]:
        return list(part.keys) if isinstance(part, ast.Dict) else [None]

    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        found = [part.slice for part in targets if isinstance(part, ast.Subscript) and is_registry(part.value)]
        return found + (keys(node.value) if isinstance(node, ast.AugAssign) and is_registry(node.target) else [])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_registry(node.func.value):
        if node.func.attr in ("setdefault", "__setitem__"):
            return node.args[:1]
        if node.func.attr == "update":
            given = [ast.Constant(keyword.arg) if keyword.arg else None for keyword in node.keywords]
            return [key for part in node.args for key in keys(part)] + given
    return []


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
    cells = _cells(source)
    try:
        roots = imported_modules("\n".join(_python_cells(source)))
    except SyntaxError:  # a cell magic, say; then all of the library counts
        roots = {
            ".".join([PACKAGE, *path.relative_to(PACKAGE_FOLDER).with_suffix("").parts])
            for path in PACKAGE_FOLDER.rglob("*.py")
            if path.name != "__init__.py"
        }
    return digest([cells, _modules(tuple(sorted(roots)))])


def _cells(source: Any) -> list[str]:
    """The notebook's code, the parameters cell left out."""
    return [
        cell.source
        for cell in source.cells
        if cell.cell_type == "code" and PARAMETERS_TAG not in cell.metadata.get("tags", [])
    ]


def _python_cells(source: Any) -> list[str]:
    """The same without magics of IPython."""
    return [re.sub(r"^\s*[%!].*$", "pass", cell, flags=re.MULTILINE) for cell in _cells(source)]


@cache
def _modules(roots: tuple[str, ...]) -> str:
    # Read once per process: what is edited afterwards is not what this process executes.
    return code_fingerprint(roots, left_out=ONLY_EXECUTE)


def _data_identity(name: Any, known: dict[str, tuple[str, str]], brought: _Brought) -> tuple[str, str]:
    """Fingerprint of the data set ``name``, and why it can't be read; looked up once per sweep."""
    if not isinstance(name, str):
        return "", ""
    if name not in known:
        try:
            known[name] = _fingerprint(name)
        except ConfigError:
            if not brought.unseen:
                raise
            known[name] = "", ""  # one's own code may make it
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
