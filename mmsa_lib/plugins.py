"""Methods and data sources from outside: what installed packages offer, and files of one's own.

A package names them in its ``pyproject.toml``, so that they are known without being imported::

    [project.entry-points."mmsa_lib.methods"]
    my_method = "my_package:MyMethod"

A file that registers something itself (``METHODS["mine"] = Mine``) is run where ``MMSA_LIB_PLUGINS`` names it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib.metadata import EntryPoint, distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar

from mmsa_lib.errors import ConfigError, warn_once

FILES = "MMSA_LIB_PLUGINS"
"""Environment variable: Python files, separated as the folders in ``PATH`` are."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

T = TypeVar("T")


class Registry(dict[str, T]):
    """Things by name: those of this library, those that were put in, those of packages; imported when asked for.

    ``items()`` and ``values()`` leave out what can't be imported, with a warning.

    Args:
        group: of entry points.
        ours: name to ``module:attribute`` of what this library has.
        taken: whether a package may not use a name, beside those of ``ours``.
        check: raises ConfigError unless a thing may be used; is given its name, the thing and where it comes from.
    """

    def __init__(
        self, group: str, ours: Mapping[str, str], taken: Callable[[str], bool], check: Callable[[str, Any, str], Any]
    ):
        super().__init__(dict.fromkeys(ours))
        self.group, self.ours, self.taken, self.check = group, ours, taken, check

    def entry(self, name: str) -> EntryPoint | None:
        """What a package offers as ``name``; ``None`` where this library or this process has something of that name.

        Raises:
            ConfigError: two packages offer it.
        """
        found = [] if super().__contains__(name) else self._offered().get(name, [])
        if len(found) > 1:
            raise ConfigError(f"{name!r} is offered twice, by {_listed(found)}; uninstall one, or give it another name")
        return found[0] if found else None

    def _offered(self) -> dict[str, list[EntryPoint]]:
        """Entry points by name, without those whose names can't be used."""
        found: dict[str, list[EntryPoint]] = {}
        for entry in _entry_points(tuple(sys.path)):
            if entry.group == self.group and entry not in found.setdefault(entry.name, []):
                found[entry.name].append(entry)
        for name, entries in list(found.items()):
            if not NAME.fullmatch(name) or name in self.ours or self.taken(name):
                why = "is a name of mmsa_lib's own" if NAME.fullmatch(name) else "is no name of letters, digits, _, -"
                warn_once(f"{_listed(entries)} is left out: {name!r} {why}; choose another name for it")
                del found[name]
        return found

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise KeyError(name)
        if (entry := self.entry(name)) is not None:
            with _one_line(described(entry)):
                thing = entry.load()
            self.check(name, thing, described(entry))
            return thing
        if super().__getitem__(name) is None:
            module, _, attribute = self.ours[name].partition(":")
            self[name] = getattr(importlib.import_module(module), attribute)
        return super().__getitem__(name)

    def __setitem__(self, name: str, thing: T) -> None:
        if self.taken(name):
            raise ConfigError(f"{name!r} is a name of mmsa_lib's own; register yours under another one")
        super().__setitem__(name, thing)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.keys()

    def __iter__(self) -> Iterator[str]:  # with it, dict(METHODS) asks for the things too
        run_files()
        return iter(dict.fromkeys([*super().__iter__(), *self._offered()]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401

    def keys(self) -> KeysView:
        return dict.fromkeys(self).keys()

    def items(self) -> ItemsView:
        found = {}
        for name in self:
            try:
                found[name] = self[name]
            except ConfigError as error:
                warn_once(str(error))
        return found.items()

    def values(self) -> ValuesView:
        return dict(self.items()).values()


def package(entry: EntryPoint) -> str:
    """Name and version of the package that offers ``entry``."""
    return f"{entry.dist.name} {entry.dist.version}"


def described(entry: EntryPoint) -> str:
    """Package and entry point, for messages."""
    return f"package {package(entry)} (entry point {entry.name} = {entry.value})"


def _listed(entries: list[EntryPoint]) -> str:
    return " and ".join(map(described, entries))


@cache
def _entry_points(path: tuple[str, ...]) -> list[EntryPoint]:
    """Those for this library; of two installations of one package the first counts, as for imports."""
    found: dict[str, list[EntryPoint]] = {}
    for distribution in distributions(path=list(path)):
        try:
            if "mmsa_lib." in (distribution.read_text("entry_points.txt") or ""):
                entries = [entry for entry in distribution.entry_points if entry.group.startswith("mmsa_lib.")]
                found.setdefault(re.sub(r"[-_.]+", "-", distribution.name).lower(), entries)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            warn_once(f"entry_points.txt of package {distribution.name} can't be read ({what}); install it again")
    return [entry for entries in found.values() for entry in entries]


_done: set[Path] = set()


def run_files() -> None:
    """Run the files of ``MMSA_LIB_PLUGINS`` that this process has not run yet; kernels find them by absolute paths.

    Raises:
        ConfigError: one is no Python file, has the name of a module, or fails.
    """
    files = [Path(name).expanduser().absolute() for name in os.environ.get(FILES, "").split(os.pathsep) if name]
    for file in files:
        if file in _done:
            continue
        os.environ[FILES] = os.pathsep.join(map(str, files))
        if file.suffix != ".py" or not file.is_file():
            raise ConfigError(f"{FILES} names {file}, which is no Python file; correct it")
        if file.stem in sys.modules or not file.stem.isidentifier():
            raise ConfigError(f"{FILES}: {file} can't be imported as {file.stem!r}; give the file another name")
        _done.add(file)
        spec = spec_from_file_location(file.stem, file)
        sys.modules[file.stem] = module_from_spec(spec)
        sys.path.append(str(file.parent))  # for modules beside it
        try:
            with _one_line(f"{FILES}: {file}"):
                spec.loader.exec_module(sys.modules[file.stem])
        except ConfigError:
            _done.discard(file)
            del sys.modules[file.stem]
            raise


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Meanwhile code of others may fail, and print: stdout is for the answer of a command."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where} can't be loaded ({failure(error)}); mend it, or take it away") from error


_LOADING = ("<", __file__)
_IMPORTERS = {"importlib", "importlib_metadata"}
"""Folders of what imports: Python's own, and its backport, which takes over the finding of entry points."""


def failure(error: BaseException) -> str:
    """What went wrong in code of others, and in which line of which file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_LOADING)]
    own = [frame for frame in frames if not _IMPORTERS & {*Path(frame.filename).parts}]
    place = f", {Path(own[-1].filename).name} line {own[-1].lineno}" if own else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{place}"
