"""What a method outside this package consists of: its code, and the values that its code uses.

A class may live in a notebook cell, in a script, in a module or in a package of one's own. Its functions are followed
as this process has them, not as a file says by now: a cell that ran again or a module that was loaded again counts at
once, an edited file when it is loaded. What counts of a function is its byte code (it knows no comments, docstrings or
line numbers), its defaults, what it encloses and what its globals are: code is followed, values are compared.
"""

from __future__ import annotations

import abc
import dis
import enum
import hashlib
import linecache
import logging
import sys
import types
import typing
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec, resolve_name
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.environment import PACKAGES
from mmsa_lib.experiments.fingerprint import LEFT_OUT, PACKAGE, digest

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range, slice, PurePath)
_TORCH_PLAIN = (torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format)
_FUNCTIONS = (types.FunctionType, classmethod, staticmethod, property)
_FIELD = ("annotation", "default", "default_factory", "alias", "metadata")
"""Of a field of a ``Config``; what it means and rests on decides no number."""


def own_code(cls: type) -> tuple[str, list[str]]:
    """SHA-256 of what ``cls`` uses outside this package, and names of the modules that it uses inside.

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

    def __init__(self, cls: type):
        self.cls = cls
        self.own_top = cls.__module__.partition(".")[0]  # own also where it is installed as other packages are
        self.package_modules: set[str] = set()
        self.met: dict[Any, int] = {}  # circles end where they come back
        self.kept: list[Any] = []  # alive, so that no other object gets the id of one that was met
        self.place = cls.__qualname__

    def describe(self, value: Any) -> Any:
        """``value`` as plain JSON, equal in two processes where code and values are."""
        if isinstance(value, enum.Enum):
            return ["enum", type(value).__qualname__, value.name, self.describe(value.value)]
        if isinstance(value, (*_PLAIN, *_TORCH_PLAIN)):
            return [type(value).__name__, repr(value)]
        if isinstance(value, types.CodeType):
            return self.code(value)
        if isinstance(value, tuple):
            return [type(value).__name__, [self.describe(item) for item in value]]
        if isinstance(value, frozenset | set):  # its order changes from process to process
            return ["set", sorted(digest(self.describe(item)) for item in value)]
        if isinstance(value, logging.Logger) or typing.get_origin(value) is not None:
            return [type(value).__name__, str(value)]
        if id(value) in self.met:
            return ["again", self.met[id(value)]]
        self.met[id(value)] = len(self.met)
        self.kept.append(value)
        return self.thing(value)

    def thing(self, value: Any) -> Any:
        """A value that has an identity: code, a module, an array, a container, any instance."""
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
        if isinstance(value, types.BuiltinFunctionType | types.WrapperDescriptorType | types.MethodDescriptorType):
            return ["builtin", value.__qualname__]
        if isinstance(value, torch.Tensor):
            content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            return ["tensor", str(value.dtype), list(value.shape), value.requires_grad, _sha(content)]
        if isinstance(value, np.ndarray) and value.dtype != object:
            return ["array", value.dtype.str, list(value.shape), _sha(np.ascontiguousarray(value))]
        if type(value) is list:
            return ["list", *map(self.describe, value)]
        if type(value) in (dict, OrderedDict, types.MappingProxyType):
            return ["dict", *([self.describe(key), self.describe(item)] for key, item in value.items())]
        return self.instance(value)

    def instance(self, value: Any) -> Any:
        """Any other object: what ``pickle`` would build it from."""
        if isinstance(getattr(value, "__wrapped__", None), types.FunctionType):  # functools.cache and its like
            return ["wrapper", type(value).__qualname__, self.describe(value.__wrapped__)]
        try:
            parts = value.__reduce_ex__(4)
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
        foreign = self.library(cls.__module__)
        if foreign and not (cls.__module__ == "abc" and not hasattr(abc, cls.__qualname__)):  # made by calling type()
            return ["class", foreign, cls.__qualname__]
        file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
        if file.endswith(tuple(EXTENSION_SUFFIXES)):
            raise self.no_source(cls.__qualname__, file)
        content = [self.describe(base) for base in (*cls.__mro__[1:], type(cls)) if base is not object]
        if issubclass(cls, BaseModel):
            fields = sorted(cls.model_fields.items())
            content += [[name, *(self.describe(getattr(field, part)) for part in _FIELD)] for name, field in fields]
        generated = "__dataclass_fields__" in vars(cls) or "_fields" in vars(cls)
        for name, value in sorted(vars(cls).items()):
            internal = name.startswith("__") and name.endswith("__") and not isinstance(value, _FUNCTIONS)
            if name == "__dataclass_fields__":
                content += [
                    [f.name, self.describe(f.default), self.describe(f.default_factory)] for f in value.values()
                ]
            elif internal or name.startswith(("_abc_", "__pydantic")):
                continue
            elif generated and _is_generated(value):
                continue  # follows from the fields
            else:
                outer, self.place = self.place, f"{cls.__qualname__}.{name}"
                content.append([name, self.describe(value)])
                self.place = outer
        return ["class", content]

    def function(self, function: types.FunctionType) -> Any:
        """Code, defaults, what is enclosed, and the globals that are named."""
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        foreign = self.library(function.__globals__.get("__name__", ""))
        if foreign:  # a decorator of another library encloses what it decorates
            inner = [cell for cell in cells if isinstance(cell, types.FunctionType | type)]
            return ["function", foreign, function.__qualname__, [self.describe(cell) for cell in inner]]
        code = function.__code__
        if not linecache.getlines(code.co_filename, function.__globals__):
            raise self.no_source(function.__qualname__, code.co_filename)
        outer, self.place = self.place, function.__qualname__
        values = [function.__defaults__, function.__kwdefaults__, cells, vars(function).get("__wrapped__")]
        content = [self.code(code), *map(self.describe, values), self.globals(function)]
        self.place = outer
        return ["function", content]

    def code(self, code: types.CodeType) -> Any:
        """Byte code with its constants and names in place."""
        arguments = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
        steps = [[step.opname, self.describe(step.argval)] for step in dis.get_instructions(code)]
        return [arguments, list(code.co_varnames), steps, code.co_exceptiontable.hex()]

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
        content = []
        for name, value in sorted(found.items()):
            outer, self.place = self.place, f"{self.place}, {name}"
            is_module = isinstance(value, types.ModuleType)
            content.append([name, self.module(value, attributes) if is_module else self.describe(value)])
            self.place = outer
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
        key = (id(module), tuple(sorted(found)))
        if key in self.met:
            return ["again", self.met[key]]
        self.met[key] = len(self.met)
        if foreign:  # what is in it counts as the source of its module does
            found = {
                name: value
                for name, value in found.items()
                if isinstance(value, types.ModuleType | types.FunctionType | type)
            }
        content = []
        for name, value in sorted(found.items()):
            is_module = isinstance(value, types.ModuleType)
            content.append([name, self.module(value, attributes) if is_module else self.describe(value)])
        return ["module", content]

    def library(self, module: str | None, file: str | None = None) -> str:
        """What a module belongs to: this package, Python or an installed package; empty for one's own code."""
        module = module or ""
        top = module.partition(".")[0]
        if top == PACKAGE:
            # ``create`` may make any method, so whoever uses it depends on all.
            if module == "mmsa_lib.methods" or not _is_left_out(module):
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
            "tell which code made it; put the class into a file or a notebook cell"
        )


@cache
def _distribution(top: str) -> str:
    """An installed package with its version; those that ``environment.json`` records without; empty for a mere file."""
    try:
        return top if top in PACKAGES else f"{top} {version(top)}"
    except PackageNotFoundError:  # a distribution of another name; looking them all up takes a second
        names = packages_distributions().get(top, ())
    return next((name if name in PACKAGES else f"{name} {version(name)}" for name in names), "")


def _is_left_out(module: str) -> bool:
    names = (module, f"{module.rpartition('.')[0]}.*")
    return module == PACKAGE or any(entry in names for entry in LEFT_OUT)


def _is_generated(value: Any) -> bool:
    """Whether a method was written by ``dataclass`` or ``namedtuple``."""
    inner = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if _is_filled(cell)]
    codes = [getattr(function, "__code__", None) for function in (value, *inner)]
    return any(code is not None and code.co_filename == "<string>" for code in codes)


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    """``code`` and the code of all functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _sha(content: np.ndarray) -> str:
    return hashlib.sha256(content.tobytes()).hexdigest()
