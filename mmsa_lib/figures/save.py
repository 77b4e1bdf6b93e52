"""Figures on disk: SVG and PNG, the numbers that were drawn, and where they come from; same data, same bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib import __version__
from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.figures.style import style
from mmsa_lib.files import atomic_path, write_text
from mmsa_lib.paths import project_root, public_path, runs_folder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png", ".csv", ".json")
DEFAULT_FORMATS = ("svg", "png")
_METADATA = {
    "svg": {"Date": None, "Creator": "mmsa-lib"},
    "png": {"Software": "mmsa-lib"},
    "pdf": {"CreationDate": None, "Creator": "mmsa-lib", "Producer": None},
}
"""Formats of pictures, and what each says beside its title: no date and no folder of this machine."""


def save(
    figure: Figure,
    name: str,
    sources: Iterable[Path | str],
    data: pd.DataFrame | None = None,
    folder: Path | str | None = None,
    *,
    formats: Iterable[str] = DEFAULT_FORMATS,
) -> list[Path]:
    """Write ``<name>.svg`` and ``<name>.png`` (or other ``formats``), the numbers ``<name>.csv`` and a ``<name>.json``.

    The record names the source files with their SHA-256, the runs behind them and the version of matplotlib. Neither
    holds a date or a folder of this machine, so the same data give the same bytes (under one version of matplotlib).

    Args:
        figure: what to save.
        name: file name without suffix: small letters, digits, ``_`` and ``-``.
        sources: CSV files whose numbers are drawn. Ids in a column ``run_id`` go into the record.
        data: the numbers as drawn, one row per mark or line point; floats are written with 8 significant digits.
        folder: default ``figures/`` of the checkout, or ``figures`` in the folder of runs.
        formats: of ``svg``, ``png`` and ``pdf``.

    Returns:
        The files, in the order of ``formats``, then csv (with ``data``) and json.

    Raises:
        ConfigError: the name is no plain file name; UnknownNameError: a format is unknown.
        DataError: a source is missing, or a file cannot be written.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ConfigError(f"figure name {name!r} may only have small letters, digits, '_' and '-'")
    for kind in (formats := list(dict.fromkeys(formats))):
        if kind not in _METADATA:
            raise unknown_name("format of figures", kind, _METADATA)
    folder = Path(folder) if folder is not None else figures_folder()
    record = _record(name, [Path(source) for source in sources])
    files = {f".{kind}": folder / f"{name}.{kind}" for kind in (*formats, "csv", "json")}
    with style():
        for kind in formats:
            with atomic_path(files[f".{kind}"]) as temporary:
                figure.savefig(temporary, format=kind, metadata={**_METADATA[kind], "Title": name})
    if data is None:
        files.pop(".csv").unlink(missing_ok=True)  # of an earlier version of this figure
    else:
        write_text(files[".csv"], data.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(files[".json"], json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return list(files.values())


def figures_folder() -> Path:
    """Where committed figures are: ``figures/`` of the checkout; without one, ``figures`` in the folder of runs."""
    return (project_root() or runs_folder()) / "figures"


def _record(name: str, sources: list[Path]) -> dict[str, Any]:
    """What stands in ``<name>.json``."""
    import matplotlib
    import pandas as pd

    files, ids = [], set()
    for path in sources:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"source {path} of figure {name} cannot be read: {error.strerror}") from None
        files.append({"file": _public_name(path), "sha256": hashlib.sha256(content).hexdigest()})
        if path.suffix == ".csv" and "run_id" in pd.read_csv(path, nrows=0):
            ids |= set(pd.read_csv(path, usecols=["run_id"], dtype=str)["run_id"].dropna())
    versions = {"mmsa-lib": __version__, "matplotlib": matplotlib.__version__}
    return {"figure": name, "sources": files, "runs": sorted(ids), "versions": versions}


def _public_name(path: Path) -> str:
    """``path`` below the checkout, or else just its file name: records name no folder of this machine."""
    shown = public_path(path)
    return Path(shown).name if Path(shown).is_absolute() else shown
