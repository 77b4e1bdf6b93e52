"""The pieces that the restricted unpickler hands out in place of numpy's and Python's own names.

Nothing here is a class or a function that a pickle could get hold of: a pickle sees inert objects that can be called
with the arguments numpy's reconstructors take, check them and keep them. :func:`plain_copy` then makes the arrays.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

MAX_DEPTH = 100
"""Deepest nesting of containers that is followed; the published files need six."""

ARRAY_KINDS = "biufcSUO"
"""Kinds of numpy types that are read: numbers, strings, and objects that are plain data themselves."""

MAX_EMPTY_STRINGS = 10_000_000
"""Longest array of empty strings that is built; it costs memory and takes no byte in the file."""

_PLAIN_LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)


class Refused(Exception):
    """Something inside a pickle is not allowed; the message completes "the pickle ..."."""


class Damaged(Exception):
    """Array pieces that do not fit together."""


class _Inert:
    """A pickle's ``BUILD`` opcode sets attributes on whatever is on its stack; here there is nothing to set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("sets the state of something that has none")


class _Builder(_Inert):
    """Stands for one allowed name. It is no class and no function: it can be called, and that is all."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]):
        self._build = build

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)


class _Marker(_Inert):
    """Stands for ``numpy.ndarray``, which pickles name as an argument and never call."""

    __slots__ = ()

    def __call__(self, *args: Any) -> NoReturn:
        raise Refused("calls numpy.ndarray")


class _Dtype(_Inert):
    """Pieces of a dtype: its code, then its state."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: Any, *_: Any):
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or code.lstrip("<>|=")[:1] not in tuple(ARRAY_KINDS):
            raise Refused(f"holds an array of type {code!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, field names, fields, item size, alignment, flags): only the order is taken
        if not isinstance(state, tuple) or len(state) < 5 or any(piece is not None for piece in state[2:5]):
            raise Refused("holds an array of a structured type")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "="):
            raise Damaged(f"unknown byte order {order!r}")
        self._order = order

    def resolve(self) -> np.dtype:
        """The dtype, built by numpy from its code."""
        try:
            dtype = np.dtype(self._code)
        except TypeError as error:
            raise Damaged(f"unknown array type {self._code!r}") from error
        if dtype.kind not in ARRAY_KINDS:
            raise Refused(f"holds an array of type {dtype}")
        return dtype if self._order in ("|", "=") else dtype.newbyteorder(self._order)


class _Array(_Inert):
    """Pieces of an array; :func:`plain_copy` puts them together."""

    __slots__ = ("axes", "dtype", "fortran", "raw", "shape")
    __hash__ = None

    def __init__(self, shape: Any = (0,), dtype: Any = None, fortran: Any = False, raw: Any = b"", axes: Any = None):
        self.shape, self.dtype, self.fortran, self.raw, self.axes = shape, dtype, fortran, raw, axes

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Damaged("an array has an unknown state")
        self.shape, self.dtype, self.fortran, self.raw = state[-4:]
        if not isinstance(self.dtype, _Dtype):
            raise Damaged("an array has no type")


def _reconstruct(kind: Any, shape: Any = (0,), code: Any = b"b") -> _Array:
    if not isinstance(kind, _Marker):
        raise Refused("rebuilds an array of an unknown class")
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, *axes: Any) -> _Array:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F", "K"):
        raise Damaged("an array has no type or memory order")
    return _Array(shape, dtype, order == "F", raw, axes[0] if axes and order == "K" else None)


def _scalar(dtype: Any, raw: Any = None) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.resolve().kind == "O":
        raise Refused("holds a scalar of an unknown type")
    return array_of(_as_bytes(raw), dtype.resolve(), (), False)[()]


def _encode(text: Any, encoding: Any = None) -> bytes:
    # Python 3 writes bytes this way in protocols 0 to 2; other codecs could unpack or transform
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"asks for the codec {encoding!r}")
    return text.encode("latin1")


def _bytes(*args: Any) -> bytes:
    if args:
        raise Refused("calls bytes with arguments")
    return b""


def _bytearray(*args: Any) -> bytearray:
    if len(args) == 2:
        args = (_encode(*args),)
    if args and not isinstance(args[0], bytes):
        raise Refused("calls bytearray with something other than bytes")
    return bytearray(*args)


def _complex(*args: Any) -> complex:
    if len(args) != 2 or not all(isinstance(arg, float) for arg in args):
        raise Refused("calls complex with something other than two numbers")
    return complex(*args)


def _container(kind: Callable[..., Any]) -> Callable[..., Any]:
    def build(*args: Any) -> Any:
        if len(args) > 1 or not all(isinstance(arg, list | tuple) for arg in args):
            raise Refused(f"calls {kind.__name__} with something other than a list")
        return kind(*args)

    return build


ALLOWED: dict[tuple[str, str], _Inert] = {
    ("_codecs", "encode"): _Builder(_encode),
    ("collections", "OrderedDict"): _Builder(_container(dict)),
    ("numpy", "ndarray"): _Marker(),
    ("numpy", "dtype"): _Builder(_Dtype),
    **{
        (module, name): _Builder(build)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, build in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Builder(_frombuffer) for core in ("core", "_core")},
    **{
        (module, name): _Builder(build)
        for module in ("builtins", "__builtin__")
        for name, build in (
            ("bytes", _bytes),
            ("bytearray", _bytearray),
            ("complex", _complex),
            ("set", _container(set)),
            ("frozenset", _container(frozenset)),
        )
    },
}


def plain_copy(node: Any, done: dict[int, tuple[Any, Any]], open_nodes: set[int], depth: int) -> Any:
    """A copy of ``node`` made of plain types only.

    Args:
        done: finished nodes by identity (with the node itself, to keep its identity taken), so that shared parts stay
            shared and cost nothing twice.
        open_nodes: containers being copied; meeting one again means that the tree contains itself.
        depth: containers around ``node``.
    """
    if isinstance(node, _PLAIN_LEAVES):
        return node
    key = id(node)
    if key in done:
        return done[key][1]
    if key in open_nodes:
        raise Refused("holds a container that contains itself")
    if depth >= MAX_DEPTH:
        raise Refused(f"nests containers more than {MAX_DEPTH} deep")
    open_nodes.add(key)

    def inner(child: Any) -> Any:
        return plain_copy(child, done, open_nodes, depth + 1)

    if isinstance(node, dict):
        plain: Any = {inner(name): inner(value) for name, value in node.items()}
    elif isinstance(node, list | tuple | set | frozenset):
        plain = type(node)(inner(child) for child in node)
    elif isinstance(node, _Array):
        plain = _finish_array(node, inner)
    else:
        raise Refused(f"holds {type(node).__name__.lstrip('_')} where data should be")
    open_nodes.discard(key)
    done[key] = (node, plain)
    return plain


def _finish_array(node: _Array, inner: Callable[[Any], Any]) -> np.ndarray:
    if node.dtype is None:
        raise Damaged("an array was announced and never filled")
    dtype, raw, node.raw = node.dtype.resolve(), node.raw, b""  # the raw bytes can go as soon as the array exists
    if dtype.kind != "O":
        array = array_of(_as_bytes(raw), dtype, node.shape, bool(node.fortran))
        return array if node.axes is None else _permuted(array, node.axes)
    if not isinstance(raw, list):
        raise Refused("holds an array of objects without its objects")
    array = np.empty(len(raw), dtype=object)
    for position, item in enumerate(raw):
        array[position] = inner(item)
    _check_size(node.shape, len(raw))
    return array.reshape(node.shape)  # objects are always written in C order


def _permuted(array: np.ndarray, axes: Any) -> np.ndarray:
    if not isinstance(axes, list | tuple) or sorted(axes) != list(range(array.ndim)):
        raise Damaged("an array has a wrong order of axes")
    return array.transpose(axes)


def _as_bytes(raw: Any) -> Any:
    if isinstance(raw, str):  # Python 2
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray | memoryview | pickle.PickleBuffer):
        raise Damaged("an array has no bytes")
    return raw


def array_of(raw: Any, dtype: np.dtype, shape: Any, fortran: bool) -> np.ndarray:
    """A writable array in the machine's byte order, from bytes that must fit ``shape`` exactly."""
    size = len(memoryview(raw).cast("B"))
    if dtype.itemsize == 0:  # nothing but empty strings: no bytes bound their number
        if size or not isinstance(shape, tuple) or math.prod(shape) > MAX_EMPTY_STRINGS:
            raise Damaged(f"an array of empty strings has shape {shape}")
        return np.zeros(shape, dtype=f"{dtype.kind}1")
    _check_size(shape, size / dtype.itemsize)
    array = np.frombuffer(raw, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    array = array.astype(dtype.newbyteorder("="), copy=True)
    if dtype.kind == "U" and array.size and np.frombuffer(array.tobytes(), np.uint32).max() > 0x10FFFF:
        raise Damaged("a text array holds bytes that are no characters")
    return array


def _check_size(shape: Any, items: float) -> None:
    if not isinstance(shape, tuple) or not all(isinstance(length, int) and length >= 0 for length in shape):
        raise Damaged("an array has no shape")
    if math.prod(shape) != items:
        raise Damaged(f"an array of shape {shape} holds {items:g} values")
