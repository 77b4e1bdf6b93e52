"""Files that are whole, and files that people write.

Writing is atomic: a file appears whole under its final name or not at all, also after a loss of power. YAML is read as
its writers mean it: ``3e-4`` is a number, ``no`` and ``1:30`` are words, a key given twice is a mistake.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.paths import data_root, masks_folder, runs_folder, stores_folder

MOST_BYTES, MOST_VALUES, MOST_DEPTH = 100_000, 20_000, 50
"""Of a YAML file: far more than a configuration needs, and read within seconds."""

_YAML = "tag:yaml.org,2002:"
_PLAIN = {_YAML + name for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


def refuse_special(path: Path) -> None:
    """Raise a DataError where ``path`` is neither file nor folder, such as a pipe: reading it may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{path} is neither a file nor a folder; save what it gives to a file")


def file_sha256(path: Path) -> str:
    """SHA-256 of the content of a file, 64 hexadecimal digits.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; rename it to ``target`` on success, remove it on any failure.

    Raises:
        DataError: the folder can't be created or written, or the disk is full; names the path and the remedy.
    """
    target = Path(target)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"  # the folder "." has no name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        yield temporary
        _flush(temporary)  # else a crash of the machine may keep the name and lose the content
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise DataError(f"cannot write {target}: {_reason(target, error)}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(target: Path | str) -> Iterator[Path]:
    """Yield a new folder beside ``target``; put it in the place of ``target`` on success, remove it on any failure.

    Raises:
        DataError: as :func:`atomic_path`.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in (*temporary.rglob("*"), temporary):
            _flush(path)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
        _flush(target.parent)
    except OSError as error:
        raise DataError(f"cannot write {target}: {_reason(target, error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``target`` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, as :func:`parse_yaml` reads it.

    Raises:
        ConfigError: no such file, too large, no text, or not YAML; names file and line.
    """
    try:
        refuse_special(path)
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= MOST_BYTES else ""
    except FileNotFoundError:
        raise ConfigError(f"no file {path}; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} can't be read as text ({error.reason}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} can't be read as text: {error}") from None
    if size > MOST_BYTES:
        raise ConfigError(f"{path} has more than {MOST_BYTES:,} bytes; is it the right file?")
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Any:
    """YAML 1.2 as plain values; dates and ``=`` are text, ``<<`` takes over another mapping.

    What aliases repeat is counted before anything is built, so that a short text cannot fill the memory.

    Args:
        text: the YAML.
        name: what error messages call it.

    Raises:
        ConfigError: not YAML, a key twice or that is no text, a tag that is no plain value, or too large; names the
            line.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.resolver import VersionedResolver

    class PlainResolver(VersionedResolver):
        @property
        def versioned_resolver(self) -> dict:
            every = super().versioned_resolver.items()
            return {first: [found for found in resolvers if found[0] in _PLAIN] for first, resolvers in every}

    yaml = YAML(typ="safe", pure=True)
    yaml.Resolver = PlainResolver
    try:
        node = yaml.compose(text)
        if node is None:
            return None
        _count_values(node, {}, 0)
        return yaml.constructor.construct_document(node)
    except RecursionError:
        raise ConfigError(f"{name} is nested too deeply; no more than {MOST_DEPTH} levels are read") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}, line {mark.line + 1}" if mark else name
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{place}: {' '.join(str(reason).split())}") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{name}: {' '.join(str(error).split())[:200]}") from None


def _count_values(node: Any, known: dict[int, int], depth: int) -> int:
    """How many values a YAML ``node`` stands for, aliases written out; each node is looked at once."""
    from ruamel.yaml.error import MarkedYAMLError

    def refuse(problem: str, at: Any = node) -> None:
        raise MarkedYAMLError(problem=problem, problem_mark=at.start_mark)

    if id(node) in known:
        if not known[id(node)]:
            refuse("an alias stands inside of what it repeats")
        return known[id(node)]
    known[id(node)] = 0  # not finished
    if depth > MOST_DEPTH:
        refuse(f"nested too deeply; no more than {MOST_DEPTH} levels are read")
    if node.tag not in _PLAIN:
        refuse(f"could not determine a constructor for the tag {node.tag!r}; write a plain value")
    parts = node.value if isinstance(node.value, list) else []
    keys = [pair[0] for pair in parts if isinstance(pair, tuple) and pair[0].tag != _YAML + "merge"]
    seen: set[str] = set()
    for key in keys:
        if key.tag != _YAML + "str":
            refuse(f"key {key.value if isinstance(key.value, str) else '[…]'} is no text; put it in quotes", key)
        if key.value in seen:
            refuse(f"key {key.value!r} is given twice; keep one", key)
        seen.add(key.value)
    inside = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
    known[id(node)] = count = 1 + sum(_count_values(part, known, depth + 1) for part in inside)
    if count > MOST_VALUES:
        refuse(f"more than {MOST_VALUES:,} values, aliases written out; write fewer")
    return count


def level_name(level: float | str) -> str:
    """A level as files and tables spell it: a rate as ``0.1``, else its name, such as ``text+audio``."""
    try:
        return str(round(float(level), 6))
    except ValueError:
        return str(level)


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
        places = {"MMSA_LIB_MASKS": masks_folder, "MMSA_LIB_RUNS": runs_folder, "MMSA_LIB_DATA": data_root}
        ways = (f" with {name}" for name, of in places.items() if target.absolute().is_relative_to(of().absolute()))
        option = " or --out" if target.parent == stores_folder() else ""
        return f"{error.strerror}; choose another folder{next(ways, '')}{option}"
    return f"{error.strerror or error}; free space or choose another folder"
