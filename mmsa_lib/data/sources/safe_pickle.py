"""Read pickles of arrays without running any code that they carry.

A pickle is a program: loading one from a stranger can run anything. The published feature files only hold numpy arrays,
scalars and builtin containers, so :func:`load` lets through exactly what rebuilds those, and nothing else.

How: every name that a pickle asks for is looked up in a closed table, ``pickle_pieces.ALLOWED`` (and, for tensors,
``torch_pieces.TORCH``). The table never gives out a class, a function or numpy's own reconstructors (a forged dtype
state makes these read raw bytes as object pointers). It gives out inert builders that collect pieces; arrays, dicts and
sets are made afterwards, from checked pieces, and any leftover that is not plain data is refused. One budget of nodes
and bytes, in proportion to the size of the file, bounds the work and the memory of a load and of every walk over what
it returns.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, NoReturn

import numpy as np

from mmsa_lib.data.formats import PICKLE, TABLE, TEXT, kind_of
from mmsa_lib.data.sources.pickle_pieces import (
    ALLOWED,
    Budget,
    Damaged,
    Dict,
    PlainCopy,
    Refused,
    Set,
    array_of,
    call,
    is_plain,
)
from mmsa_lib.data.sources.torch_pieces import TORCH
from mmsa_lib.errors import DataError, MMSAError

SMALL_ARCHIVE, SMALL_PICKLE = 2**28, 2**22
"""Bytes of arrays, and of one member's pickle, that any archive may unpack to."""

DENSEST_ARCHIVE = 100
"""Bytes of arrays for each byte of an archive; features reach 20, an array of zeros 1000."""

_NAMES = {**ALLOWED, **TORCH}


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
    path = Path(path)
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, not a pickle: it seems to be {kind_of(path)}; give the pickle file itself"
        )
    try:
        _refuse_other_formats(path)
        with path.open("rb") as stream:
            return _load(stream, path.stat().st_size, str(path))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error


def load_npz(path: Path | str) -> dict[str, Any]:
    """Load an ``.npz`` archive; members of object type (``allow_pickle`` files) go through the restricted loader.

    Returns:
        Member name to array. A member that holds a single object (``shape ()``) is returned as that object.

    Raises:
        UnsafePickleError: a member's pickle asks for anything but plain data.
        DataError: the file is missing, damaged, no ``.npz`` archive, holds a member twice, or announces far more than
            a file of its size holds.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            return {_name(info): _load_member(archive, info, f"{path}[{info.filename}]") for info in members}
    except MMSAError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not an .npz archive or is damaged ({error}); download it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory; close other programs or save fewer samples") from error
    except Exception as error:  # damaged streams, unknown compression, passwords
        raise DataError(f"{path} is damaged ({_one_line(error)}); download it again") from error


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive by its table of contents, before anything of it is unpacked."""
    names = [_name(info) for info in members]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{path} holds {twice!r} twice; keep one of the two")
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
            version = np.lib.format.read_magic(stream)
            read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else _read_header_2_0
            shape, fortran, dtype = read_header(stream)
        except (ValueError, EOFError, SyntaxError, TokenError, TypeError, RecursionError) as error:
            raise DataError(f"{where} is not a numpy array ({_one_line(error)}); download the file again") from error
        left = info.file_size - stream.tell()
        if dtype.hasobject:
            if left > SMALL_PICKLE + DENSEST_ARCHIVE * info.compress_size // 2:
                raise DataError(f"{where} announces {left / 1e6:.0f} MB and stores {info.compress_size / 1e6:.3g} MB")
            member = _load(stream, left, where)
            return member.item() if isinstance(member, np.ndarray) and member.shape == () else member
        if not is_plain(dtype):
            raise DataError(f"{where} has the type {dtype}; only numbers and strings are read")
        if math.prod(shape) * dtype.itemsize != left:
            raise DataError(f"{where} is damaged: {left} bytes do not make the shape {shape}; download the file again")
        try:
            return array_of(stream.read(left), dtype, shape, fortran)
        except Damaged as error:
            raise DataError(f"{where} is damaged: {error}; download the file again") from error


def _read_header_2_0(stream: BinaryIO):
    return np.lib.format.read_array_header_2_0(stream)


def _load(stream: BinaryIO, size: int, where: str) -> Any:
    """Unpickle and check a tree of at most ``size`` bytes; every failure is one line that starts with ``where``."""
    try:
        budget = Budget(size)
        tree = _Unpickler(_Bounded(stream, size), budget).load_all()
        return PlainCopy(budget)(tree)
    except Refused as error:
        raise UnsafePickleError(
            f"{where}: refused to load, because the pickle {error}; only numpy arrays and builtin containers are read. "
            "Save its contents as plain numpy arrays on a machine where you trust it"
        ) from None
    except MemoryError as error:
        raise DataError(f"{where}: not enough memory to load it, or the file is damaged") from error
    except EOFError as error:
        raise DataError(f"{where} is cut short: the pickle ends too early; download it again") from error
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can make the unpickler raise nearly anything
        if "truncated" in str(error) or "exhausted" in str(error):
            raise DataError(f"{where} is cut short: the pickle ends too early; download it again") from error
        raise DataError(f"{where} is not a pickle or is damaged ({_one_line(error)}); download it again") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _refuse_other_formats(path: Path) -> None:
    """Name the formats that users mistake for pickles, before the unpickler's own unclear message."""
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty; download it again")
    kind = kind_of(path)
    if kind not in ("", PICKLE, TABLE, TEXT):  # a pickle of protocol 0 is text as well
        raise DataError(f"{path} is not a pickle: it seems to be {kind}")


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
        self.append(Dict())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(Dict(zip(items[::2], items[1::2], strict=True)))

    def load_empty_set(self) -> None:
        self.append(Set())

    def load_frozenset(self) -> None:
        items = self.pop_mark()  # which also changes where self.append leads
        self.append(Set(items, frozenset))

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
