"""Atomic writing: a file or folder appears whole under its final name or not at all, also after a loss of power."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmsa_lib.errors import DataError
from mmsa_lib.paths import data_root, masks_folder, runs_folder, stores_folder


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it to ``target`` on success, remove it on any failure.

    Raises:
        DataError: the folder can't be created or written, or the disk is full; names the path and the remedy.
    """
    target = Path(target)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        os.chmod(
            temporary, 0o666 & ~_umask()
        )  # mkstemp makes files private; a result should be as readable as any other
        yield temporary
        _flush(temporary)  # else a crash of the machine may keep the name and lose the content
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise DataError(f"cannot write {target}: {_reason(target, error)}") from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def write_text(target: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``target`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_tree(folder: Path) -> None:
    """Delete ``folder`` and what is in it; no error where there is none."""
    shutil.rmtree(folder, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until ``path`` is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS, errno.EBADF):  # file systems without fsync
            raise
    finally:
        os.close(descriptor)


def _reason(target: Path, error: OSError) -> str:
    """What stood in the way, and what to do."""
    blocking = next((folder for folder in target.parents if folder.is_file()), None)
    if blocking is not None:
        return f"{blocking} is a file, not a folder; choose another folder"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}; choose another folder{_variable(target)}"
    return f"{error.strerror or error}; free space or choose another folder"


def _variable(target: Path) -> str:
    """How the folder of ``target`` is chosen."""
    places = {"MMSA_LIB_MASKS": masks_folder, "MMSA_LIB_RUNS": runs_folder, "MMSA_LIB_DATA": data_root}
    for variable, place in places.items():
        if target.absolute().is_relative_to(place().absolute()):
            option = " or --out" if target.parent == stores_folder() else ""
            return f" with {variable}{option}"
    return ""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
