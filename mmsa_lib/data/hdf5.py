"""HDF5 files that appear whole or not at all, and that are byte-identical for equal content.

Writing goes through memory. The HDF5 library ends the whole process with a segmentation fault when the disk fills up
under an open file (seen with HDF5 2.0); plain file output raises an error that can be reported.

Reading a damaged file can keep the HDF5 library busy for ever, and nothing can interrupt it. So a file ends with the
SHA-256 of what comes before (HDF5 ignores it), which is compared before the library sees the file. A file without it
(of another program, of an earlier release, or changed since) is first read in a process of its own with a limited time.
"""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import h5py
import numpy as np

from mmsa_lib.errors import DataError, MMSAError
from mmsa_lib.files import atomic_path

DENSEST = 1100
"""Bytes that one stored byte can hold at the most: DEFLATE reaches 1032, and a file has its own tables."""

SMALL = 2**24
"""An array of at most so many bytes is read whatever is stored for it."""

_SEAL = b"\nmmsa_lib sha256 "
_SEAL_BYTES = len(_SEAL) + 65  # 64 digits and a line feed
_PROBE_SECONDS, _PROBE_BYTES_PER_SECOND = 5, 10**7  # of processor time, whatever else the machine does
_sound: dict[tuple, bool] = {}  # files that were looked at: whether they had a checksum
_examined: set[tuple] = set()  # files whose objects were looked at: batches of a streamed set open one again and again


def write_hdf5(target: Path | str, fill: Callable[[h5py.File], None]) -> None:
    """Write the HDF5 file that ``fill`` describes to ``target``, atomically, with its SHA-256 at the end.

    Equal content gives equal bytes with the same h5py: no timestamps, a fixed file version, fixed compression.

    Args:
        target: the file to write or replace.
        fill: called once with an empty open file; adds groups, data sets and attributes.

    Raises:
        DataError: the folder can't be written or the disk or the memory is full; nothing is left behind.
    """
    name = uuid4().hex  # HDF5 refuses a second file of the same name, even in memory
    try:
        with h5py.File(name, "w", driver="core", backing_store=False, block_size=2**24, libver=("v110", "v110")) as f:
            fill(f)
            f.flush()
            image = f.id.get_file_image()
    except MemoryError as error:
        raise DataError(
            f"cannot write {target}: not enough memory; close other programs or use a smaller set"
        ) from error
    with atomic_path(target) as temporary:
        temporary.write_bytes(image)
        with temporary.open("ab") as file:
            file.write(_SEAL + hashlib.sha256(image).hexdigest().encode() + b"\n")


@contextmanager
def read_hdf5(path: Path | str, remedy: str, *, verified: bool = False) -> Iterator[h5py.File]:
    """Open ``path`` for reading; whatever is wrong with the file becomes one line that names it and ``remedy``.

    Args:
        verified: the file's checksum was compared already, so that it needs no look from another process.

    Raises:
        DataError: there is no such file, it isn't HDF5, it is damaged or truncated, refers to other files, announces
            more than it can hold or than fits in memory, or a part of it can't be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not a file; {remedy}")
    try:
        if not verified:
            is_sealed(path)
        # Files are replaced as a whole and never changed in place, so no lock is needed (locks fail on some networks).
        with h5py.File(path, "r", locking=False) as file:
            if (key := identity(path)) not in _examined:
                examine(file, path.stat().st_size)
                _examined.add(key)
            yield file
    except MMSAError:
        raise  # of what the caller found in the file
    except PermissionError as error:
        raise DataError(
            f"cannot read {path}: permission denied; change its permissions or choose another file"
        ) from error
    except _Unfit as error:
        raise DataError(f"{path} {error}; {remedy}") from error
    except MemoryError as error:
        what = f" ({error})" if str(error) else ""
        raise DataError(f"{path} does not fit in memory{what}; close other programs or use a smaller set") from error
    except Exception as error:  # HDF5 and numpy raise nearly anything on a damaged file
        raise DataError(f"{path} {_reason(path, error)}; {remedy}") from error


def is_sealed(path: Path) -> bool:
    """Whether ``path`` ends with its SHA-256, and nothing changed it; each file is read once per process.

    A file without checksum is read by another process first, since HDF5 can't be interrupted.

    Raises:
        _Unfit: the checksum is that of another content, or reading the file comes to no end.
    """
    key = identity(path)
    if key not in _sound:
        size = path.stat().st_size
        sealed = _read_seal(path, size)
        if not sealed and size and h5py.is_hdf5(path) and not _probe([path]):
            raise _Unfit("is damaged (reading it comes to no end)")
        _sound[key] = sealed
    return _sound[key]


def look_at_all(paths: Iterable[Path]) -> None:
    """Have another process read several files of other programs at once, before :func:`read_hdf5` opens each."""
    unknown = [path for path in paths if path.is_file() and identity(path) not in _sound and h5py.is_hdf5(path)]
    if len(unknown) > 1 and _probe(unknown):  # else each is looked at when it is opened, and the damaged one is named
        _sound.update({identity(path): False for path in unknown})


def identity(path: Path) -> tuple:
    """What changes when another file takes the place of ``path``."""
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino


def examine(file: h5py.File, size: int) -> None:
    """Look at every object of an open file before any array is read.

    Args:
        size: bytes of the file.

    Raises:
        _Unfit: it refers to other files, names a group twice, or announces more than what is stored could hold.
    """
    groups, total, links = [file["/"]], 0, []
    seen = {h5py.h5o.get_info(groups[0].id).addr}
    while groups:
        group = groups.pop()
        for name in group:
            where, link = f"{group.name.rstrip('/')}/{name}", group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                links.append(where)
                continue
            if not isinstance(link, h5py.HardLink):
                raise _Unfit(f"refers to another file at {where}")
            node = group[name]
            if isinstance(node, h5py.Dataset):
                total += _check_array(node, where, size)  # again for each of its names, by which it may be read
            elif isinstance(node, h5py.Group):
                address = h5py.h5o.get_info(node.id).addr
                if address in seen:
                    raise _Unfit(f"gives a group a second name, {where}")
                seen.add(address)
                groups.append(node)
    for where in links:  # followed only now: none of the groups on the way leaves the file
        node = file.get(where)
        if not isinstance(node, h5py.Dataset):
            raise _Unfit(f"has a link at {where} that leads to no array")
        total += _check_array(node, where, size)
    if total > SMALL + DENSEST * size:
        raise _Unfit(f"announces {total / 1e9:.1f} GB of arrays and has {size / 1e6:.3g} MB")


def scalars(attributes: h5py.AttributeManager, names: Iterable[str]) -> dict[str, object]:
    """Some attributes; ``None`` for those that are no single value, which are not read."""
    there = [name for name in names if name in attributes]
    found = {name: attributes[name] if attributes.get_id(name).shape == () else None for name in there}
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}


def read_array(dataset: h5py.Dataset) -> np.ndarray:
    """The values of ``dataset``.

    Raises:
        MemoryError: they take more than there is.
        TypeError: they are of no fixed size, so that nobody knows what they would take.
    """
    if dataset.dtype.hasobject:
        raise TypeError(f"{dataset.name} holds values of variable length")
    free = available_memory()
    if free is not None and dataset.nbytes > free:
        raise MemoryError(f"{dataset.name} takes {dataset.nbytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    return dataset[()]


def read_objects(dataset: h5py.Dataset) -> np.ndarray:
    """``(N,)`` texts, or arrays of unequal length, of a file of another program.

    Raises:
        _Unfit: many entries share what is stored once, so that they would fill the memory.
    """
    found, total = np.empty(dataset.shape[:1], dtype=object), 0
    source = dataset.asstr() if h5py.check_string_dtype(dataset.dtype) else dataset
    for start in range(0, len(found), 256):
        found[start : start + 256] = source[start : start + 256]
        total += sum(np.asarray(entry).nbytes for entry in found[start : start + 256])
        if total > SMALL + DENSEST * os.path.getsize(dataset.file.filename):
            raise _Unfit(f"announces more at {dataset.name} than it can hold")
    return found


def available_memory() -> int | None:
    """Bytes that can be had without swapping, by the kernel and by the limit of the container; ``None`` if unknown."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    elif hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
        found.append(max(0, int(text) - int(used.read_text())))
    return min(found) if found else None


def add_array(group: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    """Add an array to ``group``, little-endian and without a timestamp.

    Real numbers lie in the file as they are: features hardly shrink, and unpacking costs most of a load. Everything
    else is compressed.
    """
    values = np.ascontiguousarray(values)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    options = {}
    if values.ndim and values.size and values.dtype.kind != "f":
        rows = min(len(values), max(1, 2**18 * len(values) // values.nbytes))  # chunks of 256 KiB
        options = {"chunks": (rows, *values.shape[1:]), "compression": "gzip", "compression_opts": 4, "shuffle": True}
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
    """The texts that :func:`add_texts` wrote.

    Raises:
        TypeError: the array holds something else.
    """
    if dataset.ndim != 1 or dataset.dtype.kind != "S":
        raise TypeError(f"{dataset.name} holds {dataset.dtype} of shape {dataset.shape}, not texts")
    return [text.decode("utf-8") for text in read_array(dataset).tolist()]


def probe(seconds: str, *paths: str) -> None:
    """Read everything in ``paths``, in small pieces; run in a process of its own, which ends after ``seconds``."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # the one who started us has a clock too
    for path in paths:
        try:
            with h5py.File(path, "r", locking=False) as file:
                _touch("/", file)
                examine(file, os.path.getsize(path))
                file.visititems(_touch)
        except Exception:
            pass  # found again, and told, by the one who started us


def _touch(_: str, node: h5py.Group | h5py.Dataset) -> None:
    scalars(node.attrs, list(node.attrs))
    if isinstance(node, h5py.Dataset) and node.ndim and node.size and not node.dtype.hasobject:
        step = max(1, SMALL * len(node) // max(1, node.nbytes))
        for start in range(0, len(node), step):
            node[start : start + step]
    elif isinstance(node, h5py.Dataset) and node.ndim == 1:
        read_objects(node)


class _Unfit(Exception):
    """What makes a file unfit to be read; completes the sentence "<path> ..."."""


def _check_array(node: h5py.Dataset, where: str, size: int) -> int:
    """The bytes that ``node`` takes once it is read."""
    settings = node.id.get_create_plist()
    if settings.get_external_count():
        raise _Unfit(f"keeps {where} in another file")
    if node.is_virtual:
        raise _Unfit(f"puts {where} together from other places")
    announced = math.prod(node.shape or ()) * node.id.get_type().get_size()
    stored = min(node.id.get_storage_size(), size)
    if announced > SMALL + DENSEST * stored:
        raise _Unfit(f"announces {announced / 1e9:.1f} GB at {where} and stores {stored / 1e6:.3g} MB there")
    return announced


def _read_seal(path: Path, size: int) -> bool:
    """Whether there is a checksum at the end of ``path``, which is compared with the content."""
    with path.open("rb") as file:
        file.seek(max(0, size - _SEAL_BYTES))
        seal = file.read()
        if not seal.startswith(_SEAL):
            return False
        file.seek(0)
        digest, left, block = hashlib.sha256(), size - _SEAL_BYTES, memoryview(bytearray(2**18))
        while left and (count := file.readinto(block[:left])):
            digest.update(block[:count])
            left -= count
    if digest.hexdigest().encode() != seal[len(_SEAL) : -1]:
        raise _Unfit("is damaged (its SHA-256 is not the one that was written with it)")
    return True


def _probe(paths: list[Path]) -> bool:
    """Whether another process comes to an end when it reads ``paths``, and does not crash."""
    seconds = _PROBE_SECONDS + sum(path.stat().st_size for path in paths) // _PROBE_BYTES_PER_SECOND
    here = Path(__file__).resolve()
    # As a file, not as a module of the package, which would take seconds to import.
    code = "import sys, runpy as r; sys.path.insert(0, sys.argv[1]); r.run_path(sys.argv[2])['probe'](*sys.argv[3:])"
    command = [sys.executable, "-c", code, here.parents[2], here, str(seconds), *(path.resolve() for path in paths)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30 * seconds, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode >= 0


def _reason(path: Path, error: Exception) -> str:
    text = " ".join(str(error).split())
    if path.stat().st_size == 0:
        return "is empty"
    if not h5py.is_hdf5(path):
        from mmsa_lib.data.formats import kind_of  # not at the top: probing imports this file without the package

        kind = kind_of(path)
        return f"is not an HDF5 file: it seems to be {kind}" if kind else "is not an HDF5 file"
    if "truncated" in text:
        return "is truncated (a copy or download was cut short)"
    return f"is damaged ({text[:160]})"
