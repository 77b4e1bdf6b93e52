"""A sweep's YAML file, and its points: a notebook with all its parameters, named by what can change what comes out.

::

    notebook: 06_train            # a notebook of the project, or a path seen from the YAML file
    parameters:                   # the same for every run; a dot reaches into a parameter that is a mapping
      dataset: synthetic
      config.max_epochs: 30
    grid:                         # every combination
      method: [early_fusion, late_fusion]
    ablations:                    # each a name and the parameters that it changes
      full: {}
      no_cmc: {config.no_cmc: true}
    random:                       # also draws from a space, as ablations trial_01, trial_02, …
      n: 12
      seed: 1
      space: {config.learning_rate: {low: 3e-4, high: 3e-3, log: true}, config.width: [32, 64]}
    seeds: [1111, 1112, 1113]     # values of the notebook's parameter `seed`
    presets: tuned.yaml           # values by data set and method, below those of this file
    minutes: 35                   # about how long all of it takes with two workers
    blocks:                       # optional: parts that add to what stands above
      - name: mosi
        parameters: {dataset: mosi}
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmsa_lib.errors import ConfigError, DataError, MMSAError, UnknownNameError, unknown_name
from mmsa_lib.experiments.draws import TRIAL, Random
from mmsa_lib.experiments.fingerprint import (
    PACKAGE,
    PACKAGE_FOLDER,
    code_fingerprint,
    digest,
    imported_modules,
    own_code,
    parse,
)
from mmsa_lib.experiments.notebooks import MOST_SECONDS, notebook_paths
from mmsa_lib.experiments.parameters import PARAMETERS_TAG, merge, parameters_model, read_notebook, typed_parameters
from mmsa_lib.files import read_yaml

SEED, LABEL = "seed", "label"
"""Parameters of a notebook: the seed, and what its run is called. A name changes no number, and no point."""

RUN_PARAMETERS = frozenset({"method", "dataset", "config", "data", "settings", SEED})
"""A notebook with these parameters makes one run of the library from them; they are checked as a ``RunConfig``."""

MOST_POINTS = 10_000
"""Of one sweep; each is a notebook, so that even this many take days."""

REGISTRIES = ("METHODS", "SOURCES", "RECIPES", "PROTOCOLS")
ONLY_EXECUTE = (
    *(f"mmsa_lib.experiments.{name}" for name in ("sweep_file", "draws", "sweeps", "clusters", "notebooks", "kernels")),
    "mmsa_lib.errors", "mmsa_lib.files", "mmsa_lib.paths",
)  # fmt: skip
"""Modules that decide how something is executed or where it lies, not what comes out."""

PRESET_SECTIONS = ("config", "settings")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    ablations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    random: Random = Field(default_factory=Random)
    seeds: list[Annotated[int, Field(strict=True, ge=0, lt=2**32)]] | None = None


class Block(_Part):
    """A part of a sweep. What it gives is added to what the file gives for all.

    Attributes:
        preset: the entry of the presets that is taken, by default that of the point's data set.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    preset: str = ""


class SweepFile(_Part):
    """The content of a sweep's YAML file.

    Attributes:
        notebook: name of a notebook of the project, or a path seen from the file.
        description: what the sweep is for, in one line.
        timeout: seconds after which a run is ended and counts as failed.
        minutes: about how long the whole sweep takes with two workers.
        presets: in the file the name of another one, seen from it; here its content: name of a data set (or what a
            block calls its ``preset``) to method to ``config`` and ``settings``. They stand below a point's own
            parameters, and each point must have some; ``{}`` are the defaults.
        parameters, grid, ablations, random, seeds, blocks: see above.
    """

    notebook: str
    description: str = ""
    timeout: float = Field(default=3600, gt=0, le=MOST_SECONDS, strict=True)
    minutes: float | None = Field(default=None, gt=0)
    presets: dict[str, dict[str, dict[str, dict[str, Any]]]] = Field(default_factory=dict)
    blocks: list[Block] = Field(default_factory=list)

    def varied(self, block: Block | None) -> _Part:
        """Grid, ablations, draws and seeds of ``block`` added to those of the file; equal names are replaced.

        Raises:
            ConfigError: the draws can't be made, or vary what the grid or an ablation's name stands for.
        """
        block = block or Block(name="all")
        grid, ablations = {**self.grid, **block.grid}, {**self.ablations, **block.ablations}
        asked = {**self.random.model_dump(exclude_unset=True), **block.random.model_dump(exclude_unset=True)}
        if asked:
            drawn = Random(**{**asked, "space": {**self.random.space, **block.random.space}})
            if both := set(drawn.space) & set(grid):
                raise ConfigError(f"{min(both)} stands in grid and in random.space; keep one")
            trials = drawn.trials()
            if both := set(trials) & set(ablations):
                raise ConfigError(f"ablation {min(both)} has the name of a draw; give it another")
            ablations |= trials
        return _Part(grid=grid, ablations=ablations, seeds=self.seeds if block.seeds is None else block.seeds)


@dataclass(frozen=True)
class Choice:
    """One run as the file asks for it, before its parameters are checked.

    Attributes:
        block, ablation: names, empty where the file gives none.
        parameters: what is given to the notebook, mappings merged.
        varied: those parameters that the grid, the ablation or the seeds vary, as the file spells them.
    """

    block: str
    ablation: str
    parameters: dict[str, Any]
    varied: dict[str, Any] = field(default_factory=dict)


def read_sweep(path: Path | str) -> SweepFile:
    """The content of a sweep's YAML file.

    Raises:
        ConfigError: not readable, an unknown key (answered with the nearest), an empty list, a seed twice, two blocks
            of one name, too many runs; names the file and the key.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds no sweep; it must be a mapping with at least `notebook`")
    if isinstance(file := content.get("presets"), str):
        content = {**content, "presets": read_yaml(path.parent / file)}
    try:
        sweep = SweepFile(**content)
    except ValidationError as error:
        problem = error.errors()[0]
        *parents, key = problem["loc"]
        if problem["type"] == "extra_forbidden":
            within = Block if parents[:1] == ["blocks"] else SweepFile
            known = (Random if parents[-1:] == ["random"] else within).model_fields
            raise ConfigError(f"{path}: {unknown_name('key', str(key), known)}") from None
        place, words = ".".join(map(str, problem["loc"])), problem["msg"]
        raise ConfigError(f"{path}: {place}: {words[0].lower()}{words[1:]}") from None
    _check(sweep, path)
    return sweep


def _check(sweep: SweepFile, path: Path) -> None:
    """Raise a :class:`ConfigError` for what no field alone can see."""
    for name, times in Counter(block.name for block in sweep.blocks).items():
        if times > 1:
            raise ConfigError(f"{path}: two blocks are named {name!r}; give each a name of its own")
    for where, part in [("", sweep), *((f"block {block.name}: ", block) for block in sweep.blocks)]:
        for key, values in part.grid.items():
            if not values:
                raise ConfigError(f"{path}: {where}grid.{key} is empty; give at least one value or leave it out")
            if len(set(map(_spelled, values))) < len(values):
                raise ConfigError(f"{path}: {where}grid.{key} has a value twice")
        if part.seeds is not None and (not part.seeds or len(set(part.seeds)) < len(part.seeds)):
            raise ConfigError(f"{path}: {where}seeds must be one or more different numbers, not {part.seeds}")
    count = 0
    for block in sweep.blocks or [None]:  # counted before anything is built
        try:
            whole = sweep.varied(block)
        except ConfigError as error:
            raise type(error)(f"{path}: {f'block {block.name}: ' if block else ''}{error}") from None
        seeds = 1 if whole.seeds is None else len(whole.seeds)
        count += max(1, len(whole.ablations)) * math.prod(map(len, whole.grid.values())) * seeds
        if whole.seeds is not None and any(SEED in part for part in (whole.grid, *whole.ablations.values())):
            raise ConfigError(f"{path}: {SEED} stands in seeds and in grid or ablations; keep one")
    if count > MOST_POINTS:
        raise ConfigError(f"{path} asks for {count:,} runs; one sweep makes at most {MOST_POINTS:,}")


def _spelled(value: Any) -> str:
    """Equal text for equal values; 1 and 1.0 are equal."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)


def find_notebook(sweep: SweepFile, path: Path | str) -> Path:
    """The notebook that the sweep in file ``path`` executes.

    Raises:
        ConfigError: there is no such notebook.
    """
    beside = Path(path).resolve().parent / sweep.notebook
    if beside.suffix == ".ipynb" and beside.is_file():
        return beside
    if Path(sweep.notebook).name != sweep.notebook:
        raise ConfigError(f"{path}: no notebook {beside}; give a path seen from the sweep's file, ending in .ipynb")
    try:
        (found,) = notebook_paths([sweep.notebook])
    except UnknownNameError as error:
        raise ConfigError(f"{path}: {error} Or give a path seen from the sweep's file, ending in .ipynb") from None
    return found


def choices(sweep: SweepFile) -> Iterator[Choice]:
    """Every run of the sweep, seed after seed innermost, in the order of the file.

    Raises:
        ConfigError: a dotted key reaches into something that is no mapping, or the presets have nothing for a run.
    """
    for block in sweep.blocks or [None]:
        part = sweep.varied(block)
        parameters = merge(merge({}, sweep.parameters), block.parameters if block else {})
        steps = [{}] if part.seeds is None else [{SEED: seed} for seed in part.seeds]
        combinations = [dict(zip(part.grid, values, strict=True)) for values in itertools.product(*part.grid.values())]
        ablations = (part.ablations or {"": {}}).items()
        for (ablation, changes), combination, seed in itertools.product(ablations, combinations, steps):
            varied = {**combination, **changes, **seed}
            asked = merge(parameters, varied)
            if sweep.presets:
                asked = merge(_preset(sweep, block, asked), asked)
            yield Choice(block.name if block else "", ablation, asked, varied)


def _preset(sweep: SweepFile, block: Block | None, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the presets for one run."""
    name = (block.preset if block else "") or asked.get("dataset")
    method = asked.get("method")
    if name not in sweep.presets or method not in sweep.presets[name]:
        raise ConfigError(f"the presets have nothing for {method} on {name}; add it ({{}}: the defaults)")
    return sweep.presets[name][method]


@dataclass(frozen=True)
class Point:
    """One execution of one notebook. All fields are plain JSON values, so that a point can go to another machine.

    What was executed stays valid as long as the identifier is the same. That covers the notebook's code, its
    parameters, the modules of this library and of one's own that it imports, and the data set that it names.

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
        named = self.ablation and not self.ablation.startswith(TRIAL)
        shown = {key: value for key, value in self.varied.items() if not named or not key.startswith("config.")}
        words = [self.block, self.ablation, *(f"{key.rpartition('.')[2]}={_short(v)}" for key, v in shown.items())]
        return " ".join(word for word in words if word) or Path(self.notebook).stem

    @property
    def group(self) -> str:
        """What points share that differ in their seed alone; they take about the same time."""
        return digest([self.notebook, {k: v for k, v in self.parameters.items() if k not in (SEED, LABEL)}])


def read_points(path: Path | str) -> list[Point]:
    """All points of the sweep in file ``path``, each once, in the order of the file, checked before anything runs.

    Raises:
        ConfigError, UnknownNameError: the file is no sweep, a parameter is unknown or ill-typed, or a run that it asks
            for can't exist (unknown method, setting or data option) or stands there under two names; names the point.
    """
    sweep = read_sweep(path)
    notebook = find_notebook(sweep, path)
    source = read_notebook(notebook, lessons=False)
    model = parameters_model(source, notebook.name)
    labelled = model.model_fields.keys() >= RUN_PARAMETERS | {LABEL}
    defaults, code = model().model_dump(), _read_code(source)
    points: dict[str, Point] = {}
    data_sets: dict[tuple[str, str | None], tuple[str, str]] = {}
    where = f"{path}: "
    try:
        _check_presets(sweep, code)
        for choice in choices(sweep):
            names = {"block": choice.block, "ablation": choice.ablation}
            told = ", ".join(f"{kind} {name}" for kind, name in names.items() if name)
            where = f"{path}: {told}{': ' if told else ''}"
            given = {LABEL: choice.ablation} if labelled and choice.ablation else {}
            values = typed_parameters(model, {**given, **choice.parameters}, notebook.name)
            _check_run(values, code)
            data, unbuilt = _data_identity(values, data_sets, code)
            decisive = {key: value for key, value in values.items() if not (labelled and key == LABEL)}
            own = _own_identity(values.get("method"))
            point_id = digest({"notebook": code.identity, "parameters": decisive, "data": data, **own})[:12]
            changed = {key: value for key, value in values.items() if value != defaults[key]}
            known = points.setdefault(point_id, Point(
                point_id, str(notebook), changed, **names, varied=choice.varied, timeout=sweep.timeout, unbuilt=unbuilt,
            ))  # fmt: skip
            both = {known.ablation, choice.ablation}
            if len(both) > 1 and not any(not name or name.startswith(TRIAL) for name in both):
                raise ConfigError(f"the same run as ablation {known.ablation}; change one of them or leave it out")
            where = f"{path}: "
    except MMSAError as error:
        raise type(error)(f"{where}{error}") from None
    return list(points.values())


def choose(points: Sequence[Point], only: Sequence[str] = (), shard: tuple[int, int] | None = None) -> list[Point]:
    """Those of ``points`` that ``only`` and ``shard`` leave.

    Args:
        points: of one sweep.
        only: names of blocks or ablations, ``key=value``, or the start of an id. Several values of one kind (two
            blocks, two values of one key) are alternatives; different kinds must all fit.
        shard: ``(k, n)``: of these only every n-th, from the k-th on.

    Raises:
        UnknownNameError: something fits no point.
        ConfigError: a shard that does not exist.
    """
    number, count = shard or (0, 1)
    if not 0 <= number < count:
        last = f"{count - 1}/{count}"
        raise ConfigError(f"shard {number}/{count} does not exist; the first is 0/{count}, the last {last}")
    wanted: dict[str, set[str]] = {}
    for item in only:
        key, equals, value = item.partition("=")
        kind = next((kind for kind in ("block", "ablation") if item in {getattr(p, kind) for p in points}), "id")
        kind, value = (f"={key}", value) if equals else (kind, item)
        if not any(_fits(point, kind, {value}) for point in points):
            known = {name for p in points for name in (p.block, p.ablation) if name}
            known |= {f"{key}={_short(value)}" for p in points for key, value in p.varied.items()}
            raise unknown_name("part of this sweep", item, known or {points[0].id})
        wanted.setdefault(kind, set()).add(value)
    fitting = [point for point in points if all(_fits(point, kind, values) for kind, values in wanted.items())]
    return fitting[number::count]


def _fits(point: Point, kind: str, values: set[str]) -> bool:
    if kind.startswith("="):
        return _short(_reach({**point.parameters, **point.varied}, kind[1:])) in values
    if kind == "id":
        return any(point.id.startswith(value) for value in values if value)
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


class _Code(NamedTuple):
    """What the code of a notebook holds, read without running it.

    Attributes:
        identity: hash of its cells and of the modules that they import, of this library and of one's own.
        names: registered by name, as in ``METHODS["mine"] = Mine``.
        unseen: whether it may register others, whose names can't be read here.
        lost: modules that it imports and that are not found.
    """

    identity: str
    names: frozenset[str] = frozenset()
    unseen: bool = True
    lost: tuple[str, ...] = ()


def _check_run(values: Mapping[str, Any], code: _Code) -> None:
    """Check the parameters of a notebook that makes one run, so that a misspelt setting is refused before a kernel.

    Names that the notebook brings are known.

    Raises:
        ConfigError: the run can't exist.
    """
    method = values.get("method")
    if not values.keys() >= RUN_PARAMETERS or (isinstance(method, str) and method in code.names):
        return
    from mmsa_lib.experiments.config import RunConfig

    try:
        known = {key: value for key, value in values.items() if key in RunConfig.model_fields}
        RunConfig(**known).method_config  # noqa: B018 (checks the method's values)
    except UnknownNameError as error:
        asked = {value for value in values.values() if isinstance(value, str)} | set(values.get("protocols") or ())
        if code.unseen or asked & code.names:
            return
        if code.lost:
            lost = f"the notebook imports {code.lost[0]}, which is not found"
            raise ConfigError(f"{error}; {lost}; see that it is installed or on PYTHONPATH") from None
        if code.names and str(method) in str(error):
            from mmsa_lib.methods import METHODS

            raise unknown_name("method", str(method), {*METHODS, *code.names}) from None
        raise


def _check_presets(sweep: SweepFile, code: _Code) -> None:
    """Check every entry of the presets, also those that this sweep does not use.

    Raises:
        ConfigError: a data set, method, section or value that is unknown or ill-typed.
    """
    if not sweep.presets:
        return
    from mmsa_lib.data.registry import known_names
    from mmsa_lib.experiments.config import RunConfig
    from mmsa_lib.methods import METHODS

    named = {*known_names(), *(block.preset for block in sweep.blocks)} - {""}
    for name, methods in sweep.presets.items():
        # An entry of its own (mosi_timed) need not be taken by each sweep that shares the file.
        if not any(name == known or name.startswith(f"{known}_") for known in named):
            raise unknown_name("data set of the presets", name, named)
        for method, values in methods.items():
            if method not in METHODS:
                if method in code.names:
                    continue
                raise unknown_name("method of the presets", method, METHODS)
            if unknown := set(values) - set(PRESET_SECTIONS):
                raise unknown_name(f"section of the presets of {method} on {name}", min(unknown), PRESET_SECTIONS)
            try:
                RunConfig(method=method, dataset=name, **values).method_config  # noqa: B018 (checks the values)
            except MMSAError as error:
                raise type(error)(f"presets of {method} on {name}: {error}") from None


def _read_code(source: Any) -> _Code:
    """What the code of a notebook holds; the parameters cell is no part of it."""
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    cells = [cell.source for cell in code if PARAMETERS_TAG not in cell.metadata.get("tags", [])]
    python = "\n".join(re.sub(r"^\s*[%!].*$", "pass", cell, flags=re.MULTILINE) for cell in cells)
    try:
        tree, roots = parse(python), imported_modules(python)
    except SyntaxError:  # a cell magic, say; then all of the library counts
        files = [path for path in PACKAGE_FOLDER.rglob("*.py") if path.name != "__init__.py"]
        roots = {".".join([PACKAGE, *path.relative_to(PACKAGE_FOLDER).with_suffix("").parts]) for path in files}
        return _Code(digest([cells, _modules(tuple(sorted(roots)))]))
    identity, keys = digest([cells, _modules(tuple(sorted(roots)))]), _registered(tree)
    own, lost = _own_modules(tree)
    names = frozenset(key.value for key in keys if isinstance(key, ast.Constant))
    unseen = bool(own) or any(not isinstance(key, ast.Constant) for key in keys)
    return _Code(digest([identity, own]) if own else identity, names, unseen, lost)


@cache
def _modules(roots: tuple[str, ...]) -> str:
    # Read once per process: what is edited afterwards is not what this process executes.
    return code_fingerprint(roots, left_out=ONLY_EXECUTE)


def _registered(tree: ast.AST) -> list[ast.AST | None]:
    """Keys that are put into one of :data:`REGISTRIES`; ``None`` for those that can't be read."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    aliases = {alias.asname: alias.name for node in imports for alias in node.names if alias.asname}

    def is_registry(part: ast.AST) -> bool:
        name = getattr(part, "attr", None) or getattr(part, "id", "")
        return aliases.get(name, name) in REGISTRIES

    def keys_of(*given: ast.AST) -> list[ast.AST | None]:
        return [key for part in given for key in (part.keys if isinstance(part, ast.Dict) else [None])]

    keys: list[ast.AST | None] = []
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(ctx=ast.Store(), value=into, slice=key) if is_registry(into):
                keys.append(key)
            case ast.AugAssign(target=into, value=given) if is_registry(into):
                keys += keys_of(given)
            case ast.Call(func=ast.Attribute(value=into, attr="setdefault" | "__setitem__"), args=[key, *_]) if (
                is_registry(into)
            ):
                keys.append(key)
            case ast.Call(func=ast.Attribute(value=into, attr="update"), args=args, keywords=words) if is_registry(
                into
            ):
                keys += keys_of(*args) + [ast.Constant(word.arg) if word.arg else None for word in words]
    return keys


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
        installed = {"site-packages", "dist-packages"} & {part for root in roots for part in root.parts}
        if installed and not _extends_us(top):
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


def _own_identity(method: Any) -> dict[str, str]:
    """The code of a method that a package or a file brings; that of the notebook itself is known already."""
    from mmsa_lib.methods import METHODS

    known = isinstance(method, str) and method not in METHODS.ours and method in METHODS
    return {"method": own_code(METHODS[method])[0]} if known else {}


def _data_identity(
    values: Mapping[str, Any], known: dict[tuple[str, str | None], tuple[str, str]], code: _Code
) -> tuple[str, str]:
    """Fingerprint of the data set that ``values`` name, and why it can't be read; looked up once per sweep."""
    name, data = values.get("dataset"), values.get("data")
    if not isinstance(name, str):
        return "", ""
    folder = data.get("folder") if isinstance(data, Mapping) else None
    folder = folder if isinstance(folder, str) and folder else None
    if (name, folder) not in known:
        from mmsa_lib.data.registry import SOURCES, is_generated, store_path
        from mmsa_lib.data.store import read_header

        try:
            if name in SOURCES:  # what it makes enters the runs; to make it here would take its time
                known[name, folder] = own_code(SOURCES[name])[0], ""
                return known[name, folder]
            known[name, folder] = read_header(store_path(name, folder and Path(folder)))["fingerprint"], ""
        except DataError as error:
            known[name, folder] = "", str(error)
        except ConfigError:
            if not (is_generated(name) or name in code.names or code.unseen):
                raise
            known[name, folder] = "", ""  # generated by code, of the library or one's own
    return known[name, folder]
