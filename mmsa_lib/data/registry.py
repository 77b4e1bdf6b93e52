"""Which data sets there are, and in which file each of them lies.

A built or imported data set is one file ``<name>.h5`` in :func:`mmsa_lib.paths.stores_folder`. Stores that were written
elsewhere are remembered in ``registry.json`` below the data root.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from filelock import FileLock, Timeout

from mmsa_lib.data.formats import kind_of
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, DataError, MMSAError, unknown_name
from mmsa_lib.files import write_text
from mmsa_lib.paths import data_root, stores_folder
from mmsa_lib.plugins import NAME, Registry, failure, package

SYNTHETIC = "synthetic"
GENERATED = {
    SYNTHETIC: "Sequences with planted factors, generated when loaded; no download",
    "synthetic_redundant": "The same with sentiment that all modalities see; nuisance of each modality its own",
    "synthetic_private": "As synthetic_redundant, with sentiment that each modality sees alone",
    "synthetic_synergy": "As synthetic_redundant, with sentiment in a product of audio and vision",
}
"""Name and description of every data set that is generated when it is loaded (:mod:`.sources.synthetic`)."""


def _check_source(name: str, source: Any, where: str) -> None:
    """Raise a ConfigError, with ``where`` it comes from, unless ``source`` is a function."""
    if not inspect.isfunction(inspect.unwrap(source)):
        raise ConfigError(f"{where} is {source!r}; give a function that returns a DatasetRecord")


SOURCES: Registry[Callable[..., DatasetRecord]] = Registry(
    "mmsa_lib.data_sources", {}, taken=lambda name: name in _ours(), check=_check_source
)
"""Data sources of others by name: functions that return a data set, of installed packages (docs/your_method.md). One of
a notebook joins with ``SOURCES["mine"] = function``."""
_WINDOWS_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)


def buildable() -> dict[str, str]:
    """Name and one-line description of every data set that ``mmsa-lib data build`` knows."""
    return _ours() | {name: f"Generated when loaded, by {origin(name)}" for name in SOURCES}


def _ours() -> dict[str, str]:
    from mmsa_lib.data.sources import PUBLIC_SETS  # h5py, which a mere look-up of a store doesn't need

    return GENERATED | {name: known.description for name, known in PUBLIC_SETS.items()}


def is_generated(name: str) -> bool:
    """Whether data set ``name`` is generated when it is loaded, by this library or by a source of others."""
    return name in GENERATED or name in SOURCES


def origin(name: str) -> str:
    """Where the source of ``name`` comes from, in words."""
    entry = SOURCES.entry(name)
    return f"package {package(entry)}" if entry else f"SOURCES[{name!r}]"


def generate(name: str, **options: Any) -> DatasetRecord:
    """A data set that is generated when it is loaded, whole and checked.

    Args:
        name: one for which :func:`is_generated` holds.
        **options: of its source.

    Raises:
        UnknownNameError: no such option.
        ConfigError: an option is missing or out of range, or the source can't be used.
        DataError: the source failed, or what it returned is no sound data set.
    """
    from mmsa_lib.data.validate import refuse_problems

    if name in GENERATED:
        from mmsa_lib.data.sources import synthetic

        return synthetic.build(name, **options)
    source, where = SOURCES[name], f"data set {name!r} of {origin(name)}"
    _check_source(name, source, where)
    try:
        inspect.signature(source).bind(**options)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; options are set with data.NAME=VALUE") from None
    try:
        record = source(**options)
    except MMSAError:
        raise
    except Exception as error:
        raise DataError(f"{where}: its function failed ({failure(error)}); mend it") from error
    if not (isinstance(record, DatasetRecord) and isinstance(record.task, Task)):
        raise DataError(f"{where}: its function returned {type(record).__name__}, not a DatasetRecord with a task")
    try:
        record = replace(record, name=name, labels=np.asarray(record.labels, np.float32))
        record.folds = {fold: np.asarray(splits, str) for fold, splits in record.folds.items()}
        for f in record.features.values():
            f.values, f.observed = np.asarray(f.values, np.float32), np.asarray(f.observed, bool)
            f.lengths = np.asarray(f.lengths)
        usual = {"text": "words"} if record.transcripts is not None else {}
        usual |= {f.modality: key for key, f in reversed(record.features.items())}
        record.defaults = record.defaults or {"*": usual}
        refuse_problems(record, where)
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MMSAError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: its function returned no sound data set ({reason}); mend it") from error
    return record


def source_options(name: str) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option of a data source of others; ``"**"`` is among them where it takes any.

    Raises:
        ConfigError: an option can't be given to :func:`mmsa_lib.data.load`, which has one of that name itself.
    """
    from mmsa_lib.data.loading import load

    _check_source(name, SOURCES[name], origin(name))
    source, found = inspect.unwrap(SOURCES[name]), {}
    try:
        types = get_type_hints(source)
    except Exception:  # a name that only a type checker sees
        types = {}
    for option in inspect.signature(source).parameters.values():
        if option.name in inspect.signature(load).parameters and option.kind is not option.VAR_KEYWORD:
            raise ConfigError(
                f"data set {name!r} of {origin(name)}: load has an option {option.name!r} itself; rename it"
            )
        default = None if option.default is option.empty else option.default
        found["**" if option.kind is option.VAR_KEYWORD else option.name] = (types.get(option.name, Any), default)
    return found


def known_names() -> list[str]:
    """Everything that can be named: the data sets that can be built, and all that were built or imported."""
    return sorted({*buildable(), *stored()})


def stored(folder: Path | None = None) -> dict[str, Path]:
    """Name and file of every store on this machine.

    A registered file comes before one of the same name in the default folder, and is listed even when it is gone.

    Args:
        folder: look only here instead of in the default folder and the registry.
    """
    found = {file.stem: file for file in sorted((folder or stores_folder()).glob("*.h5"))}
    elsewhere = {} if folder is not None else {name: Path(file) for name, file in _entries().items()}
    return found | {name: path for name, path in elsewhere.items() if path.is_file() or name not in found}


def store_path(name: str, folder: Path | None = None) -> Path:
    """The file in which data set ``name`` lies.

    Args:
        name: a data set, or the path of a store (it ends in ``.h5`` or names a folder).
        folder: look only here instead of in the default folder and the registry.

    Raises:
        UnknownNameError: nothing is called so.
        DataError: the data set is known but was not built, or its file is gone.
        ConfigError: the data set is generated when it is loaded and has no file.
    """
    if is_path(name):
        if not Path(name).is_file():
            raise _no_store(name)
        return Path(name)
    found = stored(folder)
    if name in found:
        if not found[name].is_file():
            raise DataError(f"the store of {name!r} is gone from {found[name]}; build or import the data set again")
        return found[name]
    if is_generated(name):
        raise ConfigError(f"data set {name!r} is generated when it is loaded; it has no file unless it is built")
    if name in buildable():
        raise DataError(f"data set {name!r} is not built; run: mmsa-lib data build {name}")
    if os.path.lexists(name):
        raise _no_store(name)
    raise unknown_name("data set", name, {*buildable(), *found})


def _no_store(path: str) -> DataError:
    kind = kind_of(path)
    remedy = f"it seems to be {kind}" if kind else f"check the path or name a data set: {', '.join(known_names())}"
    return DataError(f"{path} is not a file; {remedy}")


def is_path(name: str) -> bool:
    """Whether ``name`` is the path of a store rather than the name of a data set."""
    name = str(name)
    return name.endswith((".h5", ".hdf5")) or os.sep in name or ("." in name and os.path.lexists(name))


def register(name: str, path: Path | str) -> None:
    """Remember that data set ``name`` lies in ``path``; a store in the default folder needs no entry.

    Raises:
        DataError: the registry can't be written.
    """
    path = Path(path).resolve()
    in_default_folder = path.parent == stores_folder().resolve()
    if in_default_folder and name not in _entries():
        return
    try:
        stores_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(stores_folder() / ".registry.lock", timeout=30):  # keeps other processes from changing it
            entries = {other: file for other, file in _entries().items() if other != name}
            entries |= {} if in_default_folder else {name: str(path)}
            write_text(_file(), json.dumps(entries, indent=1, sort_keys=True) + "\n")
    except Timeout as error:
        raise DataError(f"{_file()} is locked by another process; try again") from error
    except OSError as error:
        what = f"cannot write {_file()}: {error.strerror}"
        raise DataError(f"{what}; choose another folder with MMSA_LIB_DATA") from error


def check_name(name: str) -> str:
    """``name`` if a data set of one's own may be called so.

    Raises:
        ConfigError: the name is taken by a data set that can be built, or can't be a file name on every system.
    """
    if name in buildable():
        raise ConfigError(f"the name {name!r} belongs to a data set that is built in; choose another with --name")
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} can't name a data set; use up to 64 letters, digits, _ and -")
    if _WINDOWS_DEVICE.fullmatch(name):
        raise ConfigError(f"{name!r} can't name a data set: on Windows it is a device, not a file; choose another name")
    return name


def _entries() -> dict[str, str]:
    if not _file().is_file():
        return {}
    try:
        entries = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{_file()} can't be read ({error}); delete it and register your stores again") from error
    if not isinstance(entries, dict) or not all(isinstance(path, str) for path in entries.values()):
        raise DataError(f"{_file()} does not map names to files; delete it and register your stores again")
    return entries


def _file() -> Path:
    return data_root() / "registry.json"
