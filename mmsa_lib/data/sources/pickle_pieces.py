"""The pieces that the restricted unpickler hands out in place of numpy's and Python's own names.

Nothing here is a class or a function that a pickle could get hold of: a pickle sees inert objects that can be called
with the arguments numpy's reconstructors take, check them and keep them. :class:`PlainCopy` then makes the arrays,
dicts and sets, and counts what they cost: the work and the memory are bounded by the size of the file.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

MAX_DEPTH = 100
"""Deepest nesting of containers that is followed; the published files need six."""

ARRAY_KINDS = "biufcSUO"
"""Kinds of numpy types that are read: numbers, strings, and objects that are plain data themselves."""

MAX_EMPTY_STRINGS = 10_000_000
"""Longest array of empty strings that is built; it costs memory and takes no byte in the file."""

MAX_ARGUMENTS = 8
"""Most arguments of a call; numpy's reconstructors take five."""

LONGEST_INTEGER = 4096
"""Bits of the largest whole number; Python does not even print much longer ones."""

_PLAIN_LEAVES = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic)


class Refused(Exception):
    """Something inside a pickle is not allowed; the message completes "the pickle ..."."""


class Damaged(Exception):
    """Array pieces that do not fit together."""


class Budget:
    """What one load may cost, in proportion to the size of the file; honest files stay far below.

    Args:
        size: bytes of the pickle.
    """

    def __init__(self, size: int):
        self._size, self._visited, self._copied = size, 0, 0
        self.nodes = 2_000_000 + 8 * size
        """Most values that the tree may have when shared parts are counted each time they occur."""
        self.bytes = 2**27 + 8 * size
        """The same for the bytes of texts and arrays."""

    def spend(self, nodes: int = 0, size: int = 0) -> None:
        """Count values that are visited and bytes that are copied; refuse what is too much for the size of the file."""
        self._visited += nodes
        self._copied += size
        if self._visited > self.nodes or self._copied > self.bytes:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raise :class:`Refused`."""
        raise Refused(f"uses parts of its {self._size:,} bytes again and again, which would fill the memory")


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
        if not isinstance(code, str) or not re.fullmatch(rf"[<>|=]?[{ARRAY_KINDS}][0-9]{{0,9}}", code):
            raise Refused(f"holds an array of type {str(code)[:40]!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subarray, field names, fields, item size, alignment, flags): only the order is taken
        if not isinstance(state, tuple) or len(state) < 5 or any(piece is not None for piece in state[2:5]):
            raise Refused("holds an array of a structured type")
        order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if not isinstance(order, str) or order not in ("<", ">", "|", "="):
            raise Damaged(f"unknown byte order {str(order)[:40]!r}")
        self._order = order

    def resolve(self) -> np.dtype:
        """The dtype, built by numpy from its code."""
        try:
            dtype = np.dtype(self._code)
        except TypeError as error:
            raise Damaged(f"unknown array type {self._code!r}") from error
        if not is_plain(dtype):
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


class Dict(_Inert):
    """Pieces of a dict. Nothing is hashed before it is known what that costs."""

    __slots__ = ("items",)
    __hash__ = None

    def __init__(self, items: Iterable[tuple[Any, Any]] = ()):
        self.items = list(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


class Set(_Inert):
    """Pieces of a set; ``kind`` is ``set`` or ``frozenset``."""

    __slots__ = ("items", "kind")
    __hash__ = None

    def __init__(self, items: Iterable[Any] = (), kind: type = set):
        self.items, self.kind = list(items), kind

    def add(self, item: Any) -> None:
        self.items.append(item)


def _reconstruct(kind: Any, shape: Any = (0,), code: Any = b"b") -> _Array:
    if not isinstance(kind, _Marker):
        raise Refused("rebuilds an array of an unknown class")
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, *axes: Any) -> _Array:
    if not isinstance(dtype, _Dtype) or not isinstance(order, str) or order not in ("C", "F", "K"):
        raise Damaged("an array has no type or memory order")
    return _Array(shape, dtype, order == "F", raw, axes[0] if axes and order == "K" else None)


def _scalar(dtype: Any, raw: Any = None) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.resolve().kind == "O":
        raise Refused("holds a scalar of an unknown type")
    return array_of(_as_bytes(raw), dtype.resolve(), (), False)[()]


def _encode(text: Any, encoding: Any = None) -> bytes:
    # Python 3 writes bytes this way in protocols 0 to 2; other codecs could unpack or transform
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused(f"asks for the codec {str(encoding)[:40]!r}")
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


def _ordered_dict(*args: Any) -> Dict:
    if len(args) > 1 or not all(isinstance(arg, list | tuple) for arg in args):
        raise Refused("calls OrderedDict with something other than a list")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for arg in args for pair in arg):
        raise Damaged("an OrderedDict is made of something other than pairs")
    return Dict((key, value) for arg in args for key, value in arg)


def _set_of(kind: type) -> Callable[..., Set]:
    def build(*args: Any) -> Set:
        if len(args) > 1 or not all(isinstance(arg, list | tuple) for arg in args):
            raise Refused(f"calls {kind.__name__} with something other than a list")
        return Set(*args, kind=kind)

    return build


def call(budget: Budget, function: Any, args: Any) -> Any:
    """``function(*args)`` for what the table hands out; the arguments are paid for, since all of them may be copied."""
    if not isinstance(function, _Builder | _Marker):
        raise Refused("calls something that is no function")
    if not isinstance(args, list | tuple):
        raise Damaged("a call has no arguments")
    if len(args) > MAX_ARGUMENTS:
        raise Refused(f"calls something with {len(args)} arguments")
    budget.spend(sum(len(arg) for arg in args if isinstance(arg, list | tuple)))
    budget.spend(size=sum(len(arg) for arg in args if isinstance(arg, str | bytes | bytearray)))
    return function(*args)


ALLOWED: dict[tuple[str, str], _Inert] = {
    ("_codecs", "encode"): _Builder(_encode),
    ("collections", "OrderedDict"): _Builder(_ordered_dict),
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
            ("set", _set_of(set)),
            ("frozenset", _set_of(frozenset)),
        )
    },
}


class PlainCopy:
    """Copies a tree of pieces into plain types only.

    Shared parts stay shared and cost nothing twice here. But whoever walks over the copy meets them each time, so their
    repetitions are counted too: such a walk takes no more steps than the budget has nodes.
    """

    def __init__(self, budget: Budget):
        self._budget = budget
        # Finished nodes by identity: the node (to keep its identity taken), its copy, and the nodes and bytes below it.
        self._done: dict[int, tuple[Any, Any, int, int]] = {}
        self._open: set[int] = set()  # containers being copied; meeting one again: the tree contains itself

    def __call__(self, tree: Any) -> Any:
        """The copy of ``tree``.

        Raises:
            Refused: something in it is no plain data, contains itself, is nested too deep or repeated too often.
            Damaged: array pieces don't fit together.
        """
        return self._copy(tree, 0)[0]

    def _copy(self, node: Any, depth: int) -> tuple[Any, int, int]:
        """The copy of ``node``, with ``depth`` containers around it, and what a walk over it meets."""
        self._budget.spend(1)
        if isinstance(node, _PLAIN_LEAVES):
            return self._leaf(node)
        key = id(node)
        if key in self._done:
            return self._done[key][1:]
        if key in self._open:
            raise Refused("holds a container that contains itself")
        if depth >= MAX_DEPTH:
            raise Refused(f"nests containers more than {MAX_DEPTH} deep")
        self._open.add(key)
        copied = self._container(node, depth + 1)
        self._open.discard(key)
        if copied[1] > self._budget.nodes or copied[2] > self._budget.bytes:
            self._budget.refuse()
        self._done[key] = (node, *copied)
        return copied

    def _leaf(self, node: Any) -> tuple[Any, int, int]:
        if type(node) is int and node.bit_length() > LONGEST_INTEGER:
            raise Refused(f"holds a whole number of {node.bit_length():,} bits")
        if isinstance(node, np.generic):
            return node, 1, node.nbytes
        return node, 1, len(node) if isinstance(node, str | bytes | bytearray) else 0

    def _container(self, node: Any, depth: int) -> tuple[Any, int, int]:
        if isinstance(node, list | tuple):
            items, nodes, size = self._all(node, depth)
            return (items if isinstance(node, list) else tuple(items)), nodes, size
        if isinstance(node, Dict):
            names, of_names, name_bytes = self._all((name for name, _ in node.items), depth)
            values, of_values, value_bytes = self._all((value for _, value in node.items), depth)
            self._pay_hashes(names, of_names, name_bytes)
            return dict(zip(names, values, strict=True)), of_names + of_values, name_bytes + value_bytes
        if isinstance(node, Set):
            items, nodes, size = self._all(node.items, depth)
            self._pay_hashes(items, nodes, size)
            return node.kind(items), nodes, size
        if isinstance(node, _Array):
            return self._array(node, depth)
        raise Refused(f"holds {type(node).__name__.lstrip('_')} where data should be")

    def _all(self, nodes: Iterable[Any], depth: int) -> tuple[list[Any], int, int]:
        """Copies of some nodes; the nodes and bytes of all of them, and one for what holds them."""
        copies, count, size = [], 1, 0
        for node in nodes:
            copy, below, in_it = self._copy(node, depth)
            copies.append(copy)
            count, size = count + below, size + in_it
        return copies, count, size

    def _pay_hashes(self, keys: list[Any], nodes: int, size: int) -> None:
        """Pay for hashing ``keys``, which walks over all of them, and for comparing those with equal hashes."""
        self._budget.spend(nodes, size)
        equal = sum(count * count for count in Counter(map(hash, keys)).values() if count > 1)
        self._budget.spend(equal * nodes // max(1, len(keys)))

    def _array(self, node: _Array, depth: int) -> tuple[np.ndarray, int, int]:
        if node.dtype is None:
            raise Damaged("an array was announced and never filled")
        dtype, raw, node.raw = node.dtype.resolve(), node.raw, b""  # the raw bytes can go as soon as the array exists
        if dtype.kind != "O":
            raw = _as_bytes(raw)
            self._budget.spend(size=len(raw))
            array = array_of(raw, dtype, node.shape, bool(node.fortran))
            self._budget.spend(size=array.nbytes if dtype.itemsize == 0 else 0)
            return (array if node.axes is None else _permuted(array, node.axes)), 1, array.nbytes
        if not isinstance(raw, list):
            raise Refused("holds an array of objects without its objects")
        items, nodes, size = self._all(raw, depth)
        array = np.empty(len(items), dtype=object)
        array[:] = items if items else []
        _check_size(node.shape, len(items))
        return array.reshape(node.shape), nodes, size  # objects are always written in C order


def _permuted(array: np.ndarray, axes: Any) -> np.ndarray:
    if not isinstance(axes, list | tuple) or not all(type(axis) is int for axis in axes):
        raise Damaged("an array has no order of axes")
    if sorted(axes) != list(range(array.ndim)):
        raise Damaged("an array has a wrong order of axes")
    return array.transpose(axes)


def _as_bytes(raw: Any) -> Any:
    if isinstance(raw, str):  # Python 2
        return raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise Damaged("an array has no bytes")
    return raw


def is_plain(dtype: np.dtype) -> bool:
    """Whether arrays of ``dtype`` are read; long doubles are not, since they differ between machines."""
    return dtype.kind in ARRAY_KINDS and not (dtype.kind in "fc" and dtype.itemsize > (8 if dtype.kind == "f" else 16))


def array_of(raw: Any, dtype: np.dtype, shape: Any, fortran: bool) -> np.ndarray:
    """A writable array in the machine's byte order, from bytes that must fit ``shape`` exactly."""
    size = len(memoryview(raw).cast("B"))
    if dtype.itemsize == 0:  # nothing but empty strings: no bytes bound their number
        if size or not isinstance(shape, tuple) or len(shape) > 32 or math.prod(shape) > MAX_EMPTY_STRINGS:
            raise Damaged("an array of empty strings has bytes or too many entries")
        return np.zeros(shape, dtype=f"{dtype.kind}1")
    _check_size(shape, size / dtype.itemsize)
    array = np.frombuffer(raw, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    array = array.astype(dtype.newbyteorder("="), copy=True)
    if dtype.kind == "U" and array.size and np.frombuffer(array.tobytes(), np.uint32).max() > 0x10FFFF:
        raise Damaged("a text array holds bytes that are no characters")
    return array


def _check_size(shape: Any, items: float) -> None:
    if not isinstance(shape, tuple) or len(shape) > 32:
        raise Damaged("an array has no shape")
    if not all(isinstance(length, int) and 0 <= length < 2**48 for length in shape):
        raise Damaged("an array has no shape")
    if math.prod(shape) != items:
        raise Damaged(f"an array of shape {shape} holds {items:g} values")
