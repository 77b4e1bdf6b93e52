"""Where things live on disk. Notebooks and the command line ask here and never write a relative path of their own."""

from __future__ import annotations

import os
from pathlib import Path

from mmsa_lib.errors import ConfigError


def project_root() -> Path | None:
    """The folder of this project's checkout, or ``None`` when the library runs from an installed wheel."""
    candidate = Path(__file__).resolve().parent.parent
    return candidate if (candidate / "pyproject.toml").is_file() and (candidate / "notebooks").is_dir() else None


def public_path(path: Path) -> str:
    """``path`` as it may be shown: below the checkout without the checkout's own place, else as it is."""
    root, path = project_root(), path.resolve()
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else str(path)


def data_root() -> Path:
    """Folder of everything downloaded, built or cached.

    ``MMSA_LIB_DATA`` if set, else ``data/`` of the checkout, else the user's cache folder.

    Raises:
        ConfigError: the user has no home folder; names the variable to set.
    """
    if chosen := _chosen("MMSA_LIB_DATA"):
        return chosen
    if root := project_root():
        return root / "data"
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "mmsa_lib"
    try:
        return Path.home() / ".cache" / "mmsa_lib"
    except RuntimeError as error:
        raise ConfigError("this user has no home folder; set MMSA_LIB_DATA to a folder for data and runs") from error


def stores_folder() -> Path:
    """Where built and imported data sets (one HDF5 file each) are kept."""
    return data_root() / "stores"


def text_models_folder() -> Path:
    """Where text models are kept that belong to no installed package: a folder each, found by its name."""
    return data_root() / "text_models"


def masks_folder() -> Path:
    """Where frozen masks are kept: ``MMSA_LIB_MASKS``, else ``masks/`` of the data root."""
    return _chosen("MMSA_LIB_MASKS") or data_root() / "masks"


def tables_folder(kind: str = "results", chosen: Path | str = "", holding: str = "*.csv") -> Path:
    """Folder of the tables that come with the project.

    ``chosen`` if given, else ``kind`` below ``MMSA_LIB_TABLES``, else ``data/<kind>`` of the checkout.

    Args:
        kind: ``results`` (curated results) or ``published`` (published numbers, summaries of the data sets).
        chosen: a folder of such tables, for instance a notebook's parameter ``results``.
        holding: pattern of file names, of which one at least must be there.

    Raises:
        ConfigError: there is no such folder, or no such file in it; names what to set.
    """
    root, variable = project_root(), os.environ.get("MMSA_LIB_TABLES")
    if chosen:
        folder, by = Path(chosen).expanduser(), "the parameter results"
    elif variable:
        folder, by = Path(variable).expanduser() / kind, "MMSA_LIB_TABLES, a copy of the folder data of a checkout,"
    elif root is not None:
        return root / "data" / kind
    else:
        also = ", or give the parameter results" if kind == "results" else ""
        raise ConfigError(
            f"the tables of data/{kind} come with a checkout of the project, and the library is not in one; set "
            f"MMSA_LIB_TABLES to the full path of the folder data of a checkout{also}"
        )
    if not any(folder.glob(holding)):
        raise ConfigError(f"{folder.absolute()} holds no {holding}; set {by} to the full path of a folder that does")
    return folder


def runs_folder() -> Path:
    """Default folder of runs: ``MMSA_LIB_RUNS``, else ``runs/`` of the checkout, else ``runs`` below the data root."""
    return _chosen("MMSA_LIB_RUNS") or (project_root() or data_root()) / "runs"


def _chosen(variable: str) -> Path | None:
    """The folder that an environment variable names."""
    value = os.environ.get(variable)
    try:
        return Path(value).expanduser() if value else None
    except RuntimeError as error:
        raise ConfigError(f"{variable}={value}: there is no such home folder; give a full path") from error
