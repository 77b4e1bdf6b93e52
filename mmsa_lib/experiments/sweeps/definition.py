"""A sweep as its YAML file says it: a notebook, fixed parameters, a grid, named ablations, seeds; in blocks if need be.

notebook: 06_train            # a notebook of the project, or a path seen from the YAML file
parameters:                   # the same for every run; a dot reaches into a parameter that is a mapping
  dataset: synthetic
  config.max_epochs: 30
grid:                         # every combination
  method: [early_fusion, late_fusion]
ablations:                    # each a name and the parameters that it changes
  full: {}
  no_cmc: {config.no_cmc: true}
seeds: [1111, 1112, 1113]     # values of the notebook's parameter `seed`
blocks:                       # optional: parts that add to what stands above
  - name: mosi
    parameters: {dataset: mosi}
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmsa_lib.errors import ConfigError, UnknownNameError, unknown_name
from mmsa_lib.experiments.notebooks import notebook_paths
from mmsa_lib.experiments.parameters import merge
from mmsa_lib.files import read_yaml

SEED = "seed"
MOST_POINTS = 10_000
"""Of one sweep; each is a notebook, so that even this many take days."""

Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    ablations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seeds: list[Seed] | None = None


class Block(_Part):
    """A part of a sweep. What it gives is added to what the file gives for all; equal names are replaced."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")


class SweepFile(_Part):
    """The content of a sweep's YAML file.

    Attributes:
        notebook: name of a notebook of the project, or a path seen from the file.
        description: what the sweep is for, in one line.
        timeout: seconds after which a run is ended and counts as failed.
        parameters, grid, ablations, seeds, blocks: see above.
    """

    notebook: str
    description: str = ""
    timeout: float = Field(default=3600, gt=0, le=10_000_000, strict=True)
    blocks: list[Block] = Field(default_factory=list)


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
    """Read a sweep's YAML file.

    Raises:
        ConfigError: not readable, an unknown key (answered with the nearest), an empty list, a seed twice, two blocks
            of one name; names the file and the key.
    """
    path = Path(path)
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds no sweep; it must be a mapping with at least `notebook`")
    try:
        sweep = SweepFile(**content)
    except ValidationError as error:
        raise _one_line(path, content, error) from None
    for name, times in Counter(block.name for block in sweep.blocks).items():
        if times > 1:
            raise ConfigError(f"{path}: two blocks are named {name!r}; give each a name of its own")
    count = sum(_count(_parts(sweep, block)) for block in sweep.blocks or [None])
    if count > MOST_POINTS:
        raise ConfigError(f"{path} asks for {count:,} runs; one sweep makes at most {MOST_POINTS:,}")
    for where, part in [("", sweep), *((f"block {block.name}: ", block) for block in sweep.blocks)]:
        _check_lists(path, where, part)
    for block in sweep.blocks or [None]:
        grid, ablations, seeds = _varied(_parts(sweep, block))
        if seeds is not None and (SEED in grid or any(SEED in changes for changes in ablations.values())):
            raise ConfigError(f"{path}: {SEED} stands in seeds and in grid or ablations; keep one")
    return sweep


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
        ConfigError: a dotted key reaches into something that is no mapping.
    """
    for block in sweep.blocks or [None]:
        parts = _parts(sweep, block)
        parameters: dict[str, Any] = {}
        for part in parts:
            parameters = merge(parameters, part.parameters)
        grid, ablations, seeds = _varied(parts)
        steps = [{}] if seeds is None else [{SEED: seed} for seed in seeds]
        combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        for (ablation, changes), combination, seed in itertools.product(ablations.items(), combinations, steps):
            varied = {**combination, **changes, **seed}
            merged = merge(parameters, varied)
            yield Choice(block.name if block is not None else "", ablation, merged, varied)


def _parts(sweep: SweepFile, block: Block | None) -> list[_Part]:
    return [sweep] if block is None else [sweep, block]


def _varied(parts: list[_Part]) -> tuple[dict[str, list[Any]], dict[str, dict[str, Any]], list[int] | None]:
    """Grid, ablations and seeds of a block, what the file gives for all included."""
    grid = {key: values for part in parts for key, values in part.grid.items()}
    ablations = {name: changes for part in parts for name, changes in part.ablations.items()} or {"": {}}
    return grid, ablations, next((part.seeds for part in reversed(parts) if part.seeds is not None), None)


def _count(parts: list[_Part]) -> int:
    """How many runs a block asks for, before any of them is built."""
    grid, ablations, seeds = _varied(parts)
    return len(ablations) * math.prod(map(len, grid.values())) * (1 if seeds is None else len(seeds))


def _check_lists(path: Path, where: str, part: _Part) -> None:
    for key, values in part.grid.items():
        if not values:
            raise ConfigError(f"{path}: {where}grid.{key} is empty; give at least one value or leave it out")
        if len(set(map(_spelled, values))) < len(values):
            raise ConfigError(f"{path}: {where}grid.{key} has a value twice")
    if part.seeds is not None and (not part.seeds or len(set(part.seeds)) < len(part.seeds)):
        raise ConfigError(f"{path}: {where}seeds must be one or more different numbers, not {part.seeds}")


def _spelled(value: Any) -> str:
    """Equal text for equal values; 1 and 1.0 are equal."""
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value, sort_keys=True)


def _one_line(path: Path, content: Mapping[str, Any], error: ValidationError) -> ConfigError:
    problem = error.errors()[0]
    *parents, key = problem["loc"]
    if problem["type"] == "extra_forbidden":
        known = Block.model_fields if parents[:1] == ["blocks"] else SweepFile.model_fields
        return ConfigError(f"{path}: {unknown_name('key', str(key), known)}")
    place = ".".join(map(str, problem["loc"]))
    return ConfigError(f"{path}: {place}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
