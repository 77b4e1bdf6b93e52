"""``mmsa-lib doctor``: is everything here that the library needs, and what is it?"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmsa_lib.cli.output import add_command, print_json
from mmsa_lib.errors import MMSAError

READ_ONLY = "READ-ONLY"


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``doctor``."""
    add_command(subparsers, "doctor", doctor, "show versions, devices, data and folders; find what is wrong")


def doctor(args: argparse.Namespace) -> int:
    """Examine everything; an error if something that is needed is broken."""
    report = {name: _examine(check) for name, check in CHECKS.items()}
    if args.json:
        print_json(report)
    else:
        for name, found in report.items():
            label = f"{found['state']:<7} {name}"
            print(f"{label:<26} {found['found']}")
    broken = [name for name, found in report.items() if not found["ok"]]
    if broken:
        raise MMSAError(f"{', '.join(broken)}: {report[broken[0]]['found']}")
    return 0


def _examine(check: Callable[[], str]) -> dict[str, Any]:
    # Whatever goes wrong in a check is its result; the other checks still run.
    try:
        found = check()
        return {"ok": True, "state": READ_ONLY if READ_ONLY in found else "ok", "found": found}
    except Exception as error:
        kind = "" if isinstance(error, MMSAError) else f"{type(error).__name__}: "
        return {"ok": False, "state": "BROKEN", "found": f"{kind}{' '.join(str(error).split())}"}


def _versions() -> str:
    import platform

    from mmsa_lib.experiments.files import package_version
    from mmsa_lib.experiments.fingerprint import RECORDED_PACKAGES

    found = {name: package_version(name) for name in RECORDED_PACKAGES}
    missing = [name for name, number in found.items() if number is None]
    if missing:
        raise ImportError(f"not installed: {', '.join(missing)}; run: pip install -e .")
    return f"python {platform.python_version()}, " + ", ".join(f"{name} {number}" for name, number in found.items())


def _devices() -> str:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"cpu with {torch.get_num_threads()} threads; cuda: {', '.join(names) or 'none'}"


def _data() -> str:
    from mmsa_lib.data.registry import GENERATED, stored
    from mmsa_lib.data.store import read_header

    found = stored()
    for path in found.values():
        read_header(path)
    return (
        f"{', '.join(GENERATED)} (generated), {', '.join(sorted(found)) or 'no others built; see: mmsa-lib data list'}"
    )


def _text_model() -> str:
    from mmsa_lib.data.text import DEFAULT_TEXT_MODEL
    from mmsa_lib.nn.text_encoder import TextEncoder

    return f"{DEFAULT_TEXT_MODEL}, {TextEncoder(DEFAULT_TEXT_MODEL).width} wide"


def _folders() -> str:
    """A folder that may only be read is no fault: data can be shared, and runs can go elsewhere."""
    from mmsa_lib.paths import data_root, runs_folder

    folders = {"data": (data_root(), "MMSA_LIB_DATA"), "runs": (runs_folder(), "MMSA_LIB_RUNS or --runs")}
    return ", ".join(f"{kind} in {folder}{_unwritable(folder, other)}" for kind, (folder, other) in folders.items())


def _unwritable(folder: Path, other: str) -> str:
    """A remark where nothing new can be written to ``folder``; empty where it can, or could be made."""
    existing = next(part for part in (folder, *folder.absolute().parents) if part.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file, not a folder; choose another folder with {other}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return f" ({READ_ONLY}, {error.strerror}; to write elsewhere: {other})"


def _notebooks() -> str:
    from mmsa_lib.experiments.files import package_version

    found = {name: package_version(name) for name in ("papermill", "ipykernel")}
    if None in found.values():
        return "papermill and ipykernel are not installed (needed for notebooks: pip install -e '.[lab]')"
    return ", ".join(f"{name} {number}" for name, number in found.items())


CHECKS: dict[str, Callable[[], str]] = {
    "versions": _versions,
    "devices": _devices,
    "data": _data,
    "text model": _text_model,
    "folders": _folders,
    "notebook tools": _notebooks,
}
