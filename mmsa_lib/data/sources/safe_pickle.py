"""Read pickles of arrays without running any code that they carry.

A pickle is a program: loading one from a stranger can run anything. The published feature files only hold numpy arrays,
scalars and builtin containers, so :func:`load` lets through exactly what rebuilds those, and nothing else.

How: every name that a pickle asks for is looked up in two closed tables, :data:`ALLOWED` and, for tensors as MMSA-FET
writes them by default, :data:`TORCH`. They never give out a class, a function or numpy's own reconstructors (a forged
dtype state makes these read raw bytes as object pointers). They give out inert builders that collect pieces; arrays,
dicts and sets are made afterwards, from checked pieces, and any leftover that is not plain data is refused. One budget
of nodes and bytes, in proportion to the size of the file, bounds the work and the memory of a load and of every walk
over what it returns.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NoReturn

import numpy as np

from mmsa_lib.data.formats import PICKLE, TABLE, TEXT, kind_of
from mmsa_lib.errors import DataError, MMSAError

SMALL_ARCHIVE, SMALL_PICKLE = 2**28, 2**22
"""Bytes of arrays, and of one member's pickle, that any archive may unpack to."""

DENSEST_ARCHIVE = 100
"""Bytes of arrays for each byte of an archive; features reach 20, an array of zeros 1000."""

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
    """Stands for one allowed name. It is no class and no function: it can be called, and that is all.

    Args:
        build: what is called.
        what: the name and its arguments, to say what does not fit.
        fits: whether these are arguments for it.
    """

    __slots__ = ("_build", "_fits", "_what")

    def __init__(self, build: Callable[..., Any], what: str = "", fits: Callable[..., bool] = lambda *_: True):
        self._build, self._what, self._fits = build, what, fits

    def __call__(self, *args: Any) -> Any:
        try:
            fit = self._fits(*args)
        except TypeError:
            fit = False  # another number of arguments
        if not fit:
            name, _, expected = self._what.partition(" of ")
            raise Refused(f"calls {name} with something other than {expected}")
        return self._build(*args)


_NDARRAY = _Inert()
"""Stands for ``numpy.ndarray``, which pickles name as an argument and never call."""


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
    """Pieces of an array; :class:`PlainCopy` puts them together."""

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


class _Pieces(_Inert):
    """Pieces of a dict (its items are pairs), a set or a frozenset. Nothing is hashed before its cost is known."""

    __slots__ = ("items", "kind")
    __hash__ = None

    def __init__(self, kind: type, items: Iterable[Any] = ()):
        self.kind, self.items = kind, list(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        if self.kind is not dict:
            raise Damaged("a set has keys")
        self.items.append((key, value))

    def add(self, item: Any) -> None:
        """What the unpickler calls for a set."""
        if self.kind is dict:
            raise Damaged("a dict has items without keys")
        self.items.append(item)


def _reconstruct(kind: Any, shape: Any = (0,), code: Any = b"b") -> _Array:
    if kind is not _NDARRAY:
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


def _bytearray(raw: Any = b"", encoding: Any = None) -> bytearray:
    return bytearray(raw if isinstance(raw, bytes) and encoding is None else _encode(raw, encoding))


def _is_list(items: Any = ()) -> bool:
    return isinstance(items, list | tuple)


def _are_pairs(items: Any = ()) -> bool:
    return _is_list(items) and all(_is_list(pair) and len(pair) == 2 for pair in items)


def call(budget: Budget, function: Any, args: Any) -> Any:
    """``function(*args)`` for what the table hands out; the arguments are paid for, since all of them may be copied."""
    if not isinstance(function, _Builder):
        raise Refused("calls something that is no function")
    if not isinstance(args, list | tuple):
        raise Damaged("a call has no arguments")
    if len(args) > MAX_ARGUMENTS:
        raise Refused(f"calls something with {len(args)} arguments")
    budget.spend(sum(len(arg) for arg in args if isinstance(arg, list | tuple)))
    budget.spend(size=sum(len(arg) for arg in args if isinstance(arg, str | bytes | bytearray)))
    return function(*args)


_BUILTINS = {
    "bytes": _Builder(bytes, "bytes of nothing", lambda: True),
    "bytearray": _Builder(_bytearray, "bytearray of bytes", lambda raw=b"", _=None: isinstance(raw, bytes | str)),
    "complex": _Builder(complex, "complex of two numbers", lambda x, y: type(x) is type(y) is float),
    "set": _Builder(partial(_Pieces, set), "set of a list", _is_list),
    "frozenset": _Builder(partial(_Pieces, frozenset), "frozenset of a list", _is_list),
}
ALLOWED: dict[tuple[str, str], _Inert] = {
    ("_codecs", "encode"): _Builder(_encode),
    ("collections", "OrderedDict"): _Builder(partial(_Pieces, dict), "OrderedDict of pairs", _are_pairs),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Builder(_Dtype),
    **{
        (module, name): _Builder(build)
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
        for name, build in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Builder(_frombuffer) for core in ("core", "_core")},
    **{(module, name): builder for module in ("builtins", "__builtin__") for name, builder in _BUILTINS.items()},
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

    def copy(self, node: Any, depth: int = 0) -> tuple[Any, int, int]:
        """The copy of ``node``, with ``depth`` containers around it, and the nodes and bytes that a walk over it meets.

        Raises:
            Refused: something in it is no plain data, contains itself, is nested too deep or repeated too often.
            Damaged: array pieces don't fit together.
        """
        self._budget.spend(1)
        if isinstance(node, _PLAIN_LEAVES):
            if type(node) is int and node.bit_length() > LONGEST_INTEGER:
                raise Refused(f"holds a whole number of {node.bit_length():,} bits")
            if isinstance(node, np.generic):
                return node, 1, node.nbytes
            return node, 1, len(node) if isinstance(node, str | bytes | bytearray) else 0
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

    def _container(self, node: Any, depth: int) -> tuple[Any, int, int]:
        if isinstance(node, list | tuple):
            items, nodes, size = self._all(node, depth)
            return (items if isinstance(node, list) else tuple(items)), nodes, size
        if isinstance(node, _Pieces):
            is_dict = node.kind is dict
            keys, of_keys, key_bytes = self._all((item[0] if is_dict else item for item in node.items), depth)
            values, of_values, value_bytes = self._all((item[1] for item in node.items if is_dict), depth)
            self._pay_hashes(keys, of_keys, key_bytes)
            copied = dict(zip(keys, values, strict=True)) if is_dict else node.kind(keys)
            return copied, of_keys + of_values, key_bytes + value_bytes
        if isinstance(node, _Array):
            return self._array(node, depth)
        raise Refused(f"holds {type(node).__name__.lstrip('_')} where data should be")

    def _all(self, nodes: Iterable[Any], depth: int) -> tuple[list[Any], int, int]:
        """Copies of some nodes; the nodes and bytes of all of them, and one for what holds them."""
        copies, count, size = [], 1, 0
        for node in nodes:
            copy, below, in_it = self.copy(node, depth)
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
            if node.axes is not None:
                whole = isinstance(node.axes, list | tuple) and all(type(axis) is int for axis in node.axes)
                if not whole or sorted(node.axes) != list(range(array.ndim)):
                    raise Damaged("an array has a wrong order of axes")
                array = array.transpose(node.axes)
            return array, 1, array.nbytes
        if not isinstance(raw, list):
            raise Refused("holds an array of objects without its objects")
        items, nodes, size = self._all(raw, depth)
        array = np.empty(len(items), dtype=object)
        array[:] = items if items else []
        _check_size(node.shape, len(items))
        return array.reshape(node.shape), nodes, size  # objects are always written in C order


def _as_bytes(raw: Any) -> Any:
    if isinstance(raw, np.ndarray):  # of a tensor
        return raw.tobytes()
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


STORAGES = {
    "Float": "<f4",
    "Double": "<f8",
    "Half": "<f2",
    "BFloat16": "<u2",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "<i1",
    "Byte": "|u1",
    "Bool": "|b1",
}
"""Names of torch's storages, without the word storage, and what their numbers are; bfloat16 becomes float32."""


def _storage(raw: Any = None) -> _Array:
    """The numbers below a tensor, from the bytes that ``torch.save`` gives them."""
    if not isinstance(raw, bytes | bytearray):
        raise Damaged("a tensor has no bytes")
    stream = io.BytesIO(raw)
    try:
        _, _, system, described, _ = ([(op.name, arg) for op, arg, _ in pickletools.genops(stream)] for _ in range(5))
    except ValueError as error:
        raise Damaged(f"a tensor has unknown bytes ({error})") from error
    kind = next((arg for name, arg in described if name == "GLOBAL"), "")
    name = kind.removeprefix("torch ").removesuffix("Storage")
    if name not in STORAGES or ("NEWTRUE", None) not in system:  # little-endian
        raise Refused(f"holds a tensor of {kind or 'an unknown type'}")
    count, body = int.from_bytes(stream.read(8), "little"), stream.read()
    dtype = np.dtype(STORAGES[name])
    if count * dtype.itemsize != len(body):
        raise Damaged(f"a tensor of {count} numbers has {len(body)} bytes")
    numbers = np.frombuffer(body, dtype)
    if name == "BFloat16":
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    return _Array(numbers.shape, _Dtype(numbers.dtype.str), raw=numbers)


def _tensor(storage: Any = None, offset: Any = None, size: Any = None, stride: Any = None, *_: Any) -> _Array:
    """A tensor as a view into its storage, which must hold all of it."""
    lists = all(isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value) for value in (size, stride))
    numbers = storage.raw if isinstance(storage, _Array) else None
    if not isinstance(numbers, np.ndarray) or type(offset) is not int or offset < 0 or not lists:
        raise Damaged("a tensor has no storage, size and strides")
    if len(size) != len(stride) or len(size) > 32:
        raise Damaged("a tensor has not as many strides as axes")
    total = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if total and (last >= len(numbers) or total > len(numbers)):
        raise Damaged(f"a tensor of size {size} does not lie in its storage of {len(numbers)} numbers")
    strides = [step * numbers.itemsize for step in stride]
    view = np.empty(size, numbers.dtype)
    if total:
        view = np.lib.stride_tricks.as_strided(numbers[offset:], size, strides, writeable=False)
    return _Array(size, _Dtype(numbers.dtype.str), raw=view)  # its bytes are gathered when it is its turn


TORCH: dict[tuple[str, str], _Inert] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Builder(_tensor),
    ("torch.storage", "_load_from_bytes"): _Builder(_storage),
}
"""What the restricted loader hands out for torch's names, beside :data:`ALLOWED`."""

_NAMES = {**ALLOWED, **TORCH}


_WAYS = {
    "pandas": "It is a table of pandas: write it as table.to_csv('samples.csv', index=False)",
    "torch": "Turn its tensors into arrays, x.detach().cpu().numpy() each, and save it again",
    "tensor": "Turn its tensors into arrays, x.detach().cpu().float().numpy() each, and save it again",
}
"""What to do about some of the names that are refused."""


class UnsafePickleError(DataError):
    """A pickle asks for something other than plain arrays and builtin containers; nothing of it was run."""


def load(path: Path | str) -> Any:
    """Load a pickle (of Python 2 or 3, any protocol) that holds plain data only.

    Returns:
        A tree of dict, list, tuple, set, str, bytes, numbers, ``None``, numpy scalars and writable numpy arrays of
        numbers, strings or objects that are themselves such trees. ``OrderedDict`` becomes ``dict``, tensors of torch
        become arrays; arrays get the machine's byte order. Text of Python 2 files is decoded as latin-1, as numpy's own
        loader asks for.

    Raises:
        UnsafePickleError: the pickle asks for any other name; the message gives the name. No code of it has run.
        DataError: the file is missing, cut short, or no pickle at all; the message says what it seems to be.
    """
    path, kind = Path(path), kind_of(path)
    with _one_line(str(path), "is not a pickle or is damaged"):
        if path.is_dir():
            raise DataError(f"{path} is a folder, not a pickle: it seems to be {kind}; give the pickle file itself")
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{path} is empty; download it again")
        if kind not in ("", PICKLE, TABLE, TEXT):  # a pickle of protocol 0 is text as well
            raise DataError(f"{path} is not a pickle: it seems to be {kind}")
        with path.open("rb") as stream:
            return _load(stream, path.stat().st_size)


def load_npz(path: Path | str) -> dict[str, Any]:
    """Load an ``.npz`` archive; members of object type (``allow_pickle`` files) go through the restricted loader.

    Returns:
        Member name to array. A member that holds a single object (``shape ()``) is returned as that object.

    Raises:
        UnsafePickleError: a member's pickle asks for anything but plain data.
        DataError: the file is missing, damaged, no ``.npz`` archive, holds a member twice, or announces far more than
            a file of its size holds.
    """
    path, loaded = Path(path), {}
    with _one_line(str(path), "is damaged"):  # damaged streams, unknown compression
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            for info in members:
                where = f"{path}[{info.filename}]"
                with _one_line(where, "is damaged"):
                    loaded[info.filename.removesuffix(".npy")] = _load_member(archive, info, where)
        return loaded


@contextmanager
def _one_line(where: str, what: str) -> Iterator[None]:
    """Turn whatever goes wrong on reading into one line that begins with ``where`` (and ``what``)."""
    try:
        yield
    except MMSAError:
        raise
    except Refused as error:
        way = next(
            (way for word, way in _WAYS.items() if word in str(error)), "Save its contents as plain numpy arrays"
        )
        raise UnsafePickleError(
            f"{where}: refused to load, because the pickle {error}; only numpy arrays and builtin containers are read. "
            f"{way} on a machine where you trust it"
        ) from None
    except zipfile.BadZipFile as error:
        raise DataError(f"{where} is not an .npz archive or is damaged ({error}); download it again") from error
    except MemoryError as error:
        raise DataError(f"{where}: not enough memory to load it, or the file is damaged") from error
    except OSError as error:
        raise DataError(f"cannot read {where}: {error.strerror or error}; check the path") from error
    except Exception as error:  # a damaged pickle can make the unpickler raise nearly anything
        if isinstance(error, EOFError) or "truncated" in str(error) or "exhausted" in str(error):
            raise DataError(f"{where} is cut short: it ends too early; download it again") from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise DataError(f"{where} {what} ({reason}); download it again") from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive by its table of contents, before anything of it is unpacked."""
    for name, times in Counter(info.filename.removesuffix(".npy") for info in members).items():
        if times > 1:
            raise DataError(f"{path} holds {name!r} twice; keep one of the two")
    for info in members:
        if info.flag_bits & 1:
            raise DataError(f"{path}[{info.filename}] is locked by a password; save it without one")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}[{info.filename}] is packed in an unusual way; save it with numpy.savez_compressed")
    announced, size = sum(info.file_size for info in members), path.stat().st_size
    if announced > SMALL_ARCHIVE + DENSEST_ARCHIVE * size:
        what = f"announces {announced / 1e9:.1f} GB and has {size / 1e6:.3g} MB"
        raise DataError(f"{path} {what}; if that is right, save it with numpy.savez (not compressed)")


def _load_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Any:
    with archive.open(info) as stream:
        try:
            shape, fortran, dtype = read_npy_header(stream)
        except (ValueError, EOFError, SyntaxError, TokenError, TypeError, RecursionError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise DataError(f"{where} is not a numpy array ({reason}); download the file again") from error
        left = info.file_size - stream.tell()
        if dtype.hasobject:
            if left > SMALL_PICKLE + DENSEST_ARCHIVE * info.compress_size // 2:
                raise DataError(f"{where} announces {left / 1e6:.0f} MB and stores {info.compress_size / 1e6:.3g} MB")
            member = _load(stream, left)
            return member.item() if isinstance(member, np.ndarray) and member.shape == () else member
        if not is_plain(dtype):
            raise DataError(f"{where} has the type {dtype}; only numbers and strings are read")
        if math.prod(shape) * dtype.itemsize != left:
            raise DataError(f"{where} is damaged: {left} bytes do not make the shape {shape}; download the file again")
        return array_of(stream.read(left), dtype, shape, fortran)


def read_npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and type that an ``.npy`` stream announces; numpy raises anything on a damaged one."""
    version = np.lib.format.read_magic(stream)
    return getattr(np.lib.format, f"read_array_header_{'1_0' if version == (1, 0) else '2_0'}")(stream)


def _load(stream: BinaryIO, size: int) -> Any:
    """Unpickle and check a tree of at most ``size`` bytes."""
    budget = Budget(size)
    return PlainCopy(budget).copy(_Unpickler(_Bounded(stream, size), budget).load_all())[0]


class _Bounded:
    """A stream that never asks for more than is there, so that a forged length reserves no memory."""

    def __init__(self, stream: BinaryIO, size: int):
        self._stream, self.left = stream, size

    def read(self, count: int) -> bytes:
        self._take(count)
        return self._stream.read(count)

    def readinto(self, buffer: bytearray) -> int:
        self._take(len(buffer))
        return self._stream.readinto(buffer)

    def readline(self) -> bytes:
        line = self._stream.readline()
        self._take(len(line))
        return line

    def _take(self, count: int) -> None:
        if not 0 <= count <= self.left:
            raise EOFError
        self.left -= count


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, the one written in Python.

    The one written in C sizes its memo by numbers in the file, so a few forged bytes could fill the memory.
    """

    def __init__(self, stream: _Bounded, budget: Budget):
        super().__init__(stream, encoding="latin1")
        self._stream, self._budget = stream, budget

    def load_all(self) -> Any:
        """What the pickle holds; nothing may follow it."""
        tree = self.load()
        frame = self._unframer.current_frame
        if self._stream.left or (frame is not None and frame.read(1)):
            raise Damaged("something follows the end of the pickle, which would be lost")
        return tree

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
                raise Damaged(f"{module}.{name} is no name") from None  # most likely a text file
            raise Refused(f"asks for {module}.{name}") from None

    def persistent_load(self, identifier: Any) -> NoReturn:
        raise Refused("refers to objects outside the file")

    def get_extension(self, code: int) -> NoReturn:
        raise Refused(f"asks for the registered extension {code}")

    def _instantiate(self, klass: Any, args: list) -> None:
        self.append(call(self._budget, klass, args))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = call(self._budget, self.stack[-1], args)

    def load_newobj(self) -> NoReturn:
        raise Refused("makes an object of a class")

    def load_build(self) -> None:
        state = self.stack.pop()
        if not hasattr(self.stack[-1], "__setstate__"):
            raise Refused("sets the state of something that has none")
        self.stack[-1].__setstate__(state)

    def load_empty_dictionary(self) -> None:
        self.append(_Pieces(dict))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(_Pieces(dict, zip(items[::2], items[1::2], strict=True)))

    def load_empty_set(self) -> None:
        self.append(_Pieces(set))

    def load_frozenset(self) -> None:
        items = self.pop_mark()  # which also changes where self.append leads
        self.append(_Pieces(frozenset, items))

    def load_bytearray8(self) -> None:
        # the original reserves the announced length before it looks whether so much is there
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    dispatch = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_newobj,
        pickle.NEWOBJ_EX[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        pickle.EMPTY_DICT[0]: load_empty_dictionary,
        pickle.DICT[0]: load_dict,
        pickle.EMPTY_SET[0]: load_empty_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }
