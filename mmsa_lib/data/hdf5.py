"""HDF5 files that appear whole or not at all, and that are byte-identical for equal content.

Writing goes through memory. The HDF5 library ends the whole process with a segmentation fault when the disk fills up
under an open file (seen with HDF5 2.0); plain file output raises an error that can be reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import h5py
import numpy as np

from mmsa_lib.errors import DataError, MMSAError
from mmsa_lib.files import atomic_path

CHUNK_BYTES = 2**18
"""Aim for compressed chunks of this size: large enough to compress, small enough to read a few samples."""


def write_hdf5(target: Path | str, fill: Callable[[h5py.File], None]) -> None:
    """Write the HDF5 file that ``fill`` describes to ``target``, atomically.

    Equal content gives equal bytes with the same h5py: no timestamps, a fixed file version, fixed compression.

    Args:
        target: the file to write or replace.
        fill: called once with an empty open file; adds groups, data sets and attributes.

    Raises:
        DataError: the folder can't be written or the disk is full; nothing is left behind.
    """
    name = uuid4().hex  # HDF5 refuses a second file of the same name, even in memory
    with h5py.File(name, "w", driver="core", backing_store=False, block_size=2**24, libver=("v110", "v110")) as file:
        fill(file)
        file.flush()
        image = file.id.get_file_image()
    with atomic_path(target) as temporary:
        temporary.write_bytes(image)


@contextmanager
def read_hdf5(path: Path | str, remedy: str) -> Iterator[h5py.File]:
    """Open ``path`` for reading; what HDF5 reports about a damaged file becomes one line that names it and ``remedy``.

    Raises:
        DataError: there is no such file, it isn't HDF5, it is truncated, or a part of it can't be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; {remedy}")
    try:
        # Files are replaced as a whole and never changed in place, so no lock is needed (locks fail on some networks).
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except MMSAError:
        raise  # of what the caller found in the file
    except PermissionError as error:
        raise DataError(
            f"cannot read {path}: permission denied; change its permissions or choose another file"
        ) from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} {_reason(path, error)}; {remedy}") from error


def add_array(group: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    """Add a compressed array to ``group``, little-endian and without a timestamp."""
    values = np.ascontiguousarray(values)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    options = {} if values.size == 0 or values.ndim == 0 else _compression(values)
    return group.create_dataset(name, data=values, track_times=False, **options)


def add_texts(group: h5py.Group, name: str, texts: list[str]) -> h5py.Dataset:
    """Add texts to ``group`` as UTF-8 of a common width, which compresses well and reads fast.

    Raises:
        DataError: a text ends in a NUL character, which such a data set can't hold.
    """
    encoded = [text.encode("utf-8") for text in texts]
    for position, text in enumerate(encoded):
        if text.endswith(b"\0"):
            raise DataError(f"{name}: text {position} ends in a NUL character; remove it")
    width = max((len(text) for text in encoded), default=1) or 1
    return add_array(group, name, np.array(encoded, dtype=h5py.string_dtype("utf-8", width)))


def read_texts(dataset: h5py.Dataset) -> list[str]:
    """The texts that :func:`add_texts` wrote."""
    return [text.decode("utf-8") for text in dataset[:].tolist()]


def _compression(values: np.ndarray) -> dict[str, object]:
    row_bytes = max(1, values.nbytes // len(values))
    rows = min(len(values), max(1, CHUNK_BYTES // row_bytes))
    return {"chunks": (rows, *values.shape[1:]), "compression": "gzip", "compression_opts": 4, "shuffle": True}


def _reason(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if path.stat().st_size == 0:
        return "is empty"
    if not h5py.is_hdf5(path):
        return "is not an HDF5 file"
    if "truncated" in text:
        return "is truncated (a copy or download was cut short)"
    return f"is damaged ({text[:160]})"
