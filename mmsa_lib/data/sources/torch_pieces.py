"""Tensors inside pickles, as MMSA-FET writes them by default, read without torch's own loader.

A pickled tensor is a call of ``torch._utils._rebuild_tensor_v2`` on a storage and its strides; the storage is a call of
``torch.storage._load_from_bytes`` on what ``torch.save`` writes: five small pickles, and then the numbers. Of these
five the opcodes are read, and nothing of them is executed.
"""

from __future__ import annotations

import io
import math
import pickletools
from typing import Any, NoReturn

import numpy as np

from mmsa_lib.data.sources.pickle_pieces import Damaged, Refused, _Array, _Builder, _Dtype, _Inert

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


class _Storage(_Inert):
    """The numbers below a tensor."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers


class _Tensor(_Array):
    """A tensor: an array whose bytes are gathered from its storage when it is its turn."""

    __slots__ = ("_view",)

    def __init__(self, view: np.ndarray):
        super().__init__(view.shape, _Dtype(view.dtype.str))
        self._view = view

    @property
    def raw(self) -> bytes:
        return self._view.tobytes()

    @raw.setter
    def raw(self, raw: Any) -> None:
        """What an array lets go once it was built: the bytes, of which there are none yet."""

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("sets the state of a tensor")


def _storage(raw: Any = None) -> _Storage:
    """A storage from the bytes that ``torch.save`` gives it."""
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
    return _Storage(numbers)


def _tensor(storage: Any = None, offset: Any = None, size: Any = None, stride: Any = None, *_: Any) -> _Tensor:
    """A tensor as a view into its storage, which must hold all of it."""
    lists = all(isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value) for value in (size, stride))
    if not isinstance(storage, _Storage) or type(offset) is not int or offset < 0 or not lists:
        raise Damaged("a tensor has no storage, size and strides")
    if len(size) != len(stride) or len(size) > 32:
        raise Damaged("a tensor has not as many strides as axes")
    numbers, total = storage.numbers, math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if total and (last >= len(numbers) or total > len(numbers)):
        raise Damaged(f"a tensor of size {size} does not lie in its storage of {len(numbers)} numbers")
    if not total:
        return _Tensor(np.empty(size, numbers.dtype))
    strides = [step * numbers.itemsize for step in stride]
    return _Tensor(np.lib.stride_tricks.as_strided(numbers[offset:], size, strides, writeable=False))


TORCH: dict[tuple[str, str], _Inert] = {
    ("torch._utils", "_rebuild_tensor_v2"): _Builder(_tensor),
    ("torch.storage", "_load_from_bytes"): _Builder(_storage),
}
"""What the restricted loader hands out for torch's names, beside ``pickle_pieces.ALLOWED``."""
