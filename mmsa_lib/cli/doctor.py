"""``mmsa-lib doctor``: is everything here that the library needs, and what is it?"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmsa_lib.cli.output import add_command, print_json
from mmsa_lib.errors import MMSAError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OK, READ_ONLY, REMARK, BROKEN = "ok", "READ-ONLY", "REMARK", "BROKEN"
"""What a check can come to. Only what is broken is a fault: of the others, what is needed works."""

LEAST_SPACE = 1e9
"""Bytes; with less, building a data set or a few runs would fill the disk."""


class Found(NamedTuple):
    """What a check found: a sentence, what it comes to, and the same as values for programs."""

    found: str
    state: str = OK
    details: dict[str, Any] = {}


def register(subparsers: argparse._SubParsersAction) -> None:
    """Add ``doctor``."""
    add_command(subparsers, "doctor", doctor, "show versions, devices, data and folders; find what is wrong")


def doctor(args: argparse.Namespace) -> int:
    """Examine everything; an error if something that is needed is broken."""
    report = {name: _examine(check) for name, check in CHECKS.items()}
    if args.json:
        print_json({name: {"ok": found.state != BROKEN, **found._asdict()} for name, found in report.items()})
    else:
        for name, found in report.items():
            print(f"{f'{found.state:<7} {name}':<26} {found.found}")
    broken = [name for name, found in report.items() if found.state == BROKEN]
    if broken:
        raise MMSAError(f"{', '.join(broken)}: {report[broken[0]].found}")
    return 0


def _examine(check: Callable[[], Found]) -> Found:
    # Whatever goes wrong in a check is its result; the other checks still run.
    try:
        return check()
    except Exception as error:
        kind = "" if isinstance(error, MMSAError) else f"{type(error).__name__}: "
        return Found(f"{kind}{' '.join(str(error).split())}", BROKEN)


def _asked() -> dict[str, list[Requirement]]:
    """What each extra asks for, and ``""`` what the library does; a checkout knows better than its own installation."""
    import tomllib
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    from mmsa_lib.paths import project_root

    if root := project_root():
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        lines = {"": project["dependencies"], **project["optional-dependencies"]}
        return {extra: [Requirement(line) for line in of] for extra, of in lines.items()}
    asked: dict[str, list[Requirement]] = {}
    for one in map(Requirement, requires("mmsa-lib") or ()):
        extra = str(one.marker).partition("extra == ")[2].strip("\"'") if one.marker else ""
        asked.setdefault(extra, []).append(one)
    return asked


def _install(extra: str = "") -> str:
    from mmsa_lib.paths import project_root

    name = f"[{extra}]" if extra else ""
    return f"pip install -e '.{name}'" if project_root() else f"pip install 'mmsa-lib{name}'"


def _versions() -> Found:
    import platform

    from mmsa_lib.experiments.files import package_version
    from mmsa_lib.experiments.fingerprint import RECORDED_PACKAGES

    asked = {one.name: one for one in _asked()[""]}
    found = {name: package_version(name) for name in dict.fromkeys((*RECORDED_PACKAGES, *asked))}
    if missing := [name for name, number in found.items() if number is None]:
        raise ImportError(f"not installed: {', '.join(missing)}; run: {_install()}")
    python = platform.python_version()
    words = [f"python {python}", *(f"{name} {found[name]}" for name in RECORDED_PACKAGES)]
    unfit = [str(one) for name, one in asked.items() if not one.specifier.contains(found[name], prereleases=True)]
    also = f"; of other versions than needed, run: pip install {' '.join(map(repr, unfit))}" if unfit else ""
    return Found(", ".join(words) + also, REMARK if unfit else OK, {"python": python, "packages": found})


def _threads() -> Found:
    import torch

    affinity = getattr(os, "sched_getaffinity", None)  # neither macOS nor Windows has it
    cores, used, chosen = len(affinity(0)) if affinity else os.cpu_count(), torch.get_num_threads(), "OMP_NUM_THREADS"
    value = os.environ.get(chosen)
    text = f"torch computes with {used}; {chosen} is {value or 'not set'}; cores that this process may use: {cores}"
    crowded = cores is not None and used > cores
    text += f"; more threads than cores are slow, set {chosen}={cores}" if crowded else ""
    return Found(text, REMARK if crowded else OK, {"torch": used, chosen: value, "cores": cores})


def _devices() -> Found:
    import torch

    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    named = [{"name": card.name, "memory_gb": round(card.total_memory / 1e9, 1)} for card in cards]
    driver = _driver() if torch.version.cuda else ""
    if named:
        text = ", ".join(f"{card['name']} with {card['memory_gb']} GB" for card in named)
        text += f"; driver {driver or 'unknown'}, CUDA {torch.version.cuda}"
    elif torch.version.cuda is None:
        text = f"none is used: torch {torch.__version__} is a CPU build (for an NVIDIA card: pytorch.org/get-started)"
    else:
        seen = f"driver {driver} shows no card" if driver else "no NVIDIA driver answers (nvidia-smi)"
        text = f"none is used: torch {torch.__version__} is a CUDA {torch.version.cuda} build, but {seen}"
    return Found(text, OK, {"gpus": named, "driver": driver or None, "cuda": torch.version.cuda})


def _driver() -> str:
    """Version of the NVIDIA driver; empty where none answers."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def _data() -> Found:
    """Every store, its checksum too: one that is damaged hides no other, and one that is gone breaks none."""
    from mmsa_lib.data.registry import GENERATED, SOURCES, store_path, stored
    from mmsa_lib.data.store import read_header

    found, wrong, sets = [f"{', '.join([*GENERATED, *SOURCES])} (generated)"], {}, {}
    for name, path in sorted(stored().items()):
        sets[name] = {"path": str(path), "state": "ok", "fingerprint": None}
        try:
            sets[name]["fingerprint"] = read_header(store_path(name))["fingerprint"]
            found.append(f"{name} {sets[name]['fingerprint'][:12]}")
        except MMSAError as error:
            wrong[name] = str(error)
            sets[name]["state"] = "damaged" if path.is_file() else "gone"
    found += [] if sets else ["no others built; see: mmsa-lib data list"]
    states = {one["state"] for one in sets.values()}
    state = BROKEN if "damaged" in states else REMARK if wrong else OK
    return Found("; ".join([*wrong.values(), ", ".join(found)]), state, {"sets": sets})


def _offered() -> Found:
    """What other packages offer; one that can't be loaded keeps nothing else from working."""
    from mmsa_lib.data.registry import SOURCES
    from mmsa_lib.methods import METHODS
    from mmsa_lib.plugins import package

    found, wrong = {}, []
    for registry in (METHODS, SOURCES):
        for name in registry:
            try:
                if (entry := registry.entry(name)) and registry[name]:
                    found[name] = package(entry)
            except MMSAError as error:
                wrong.append(str(error))
    words = [f"{name} of {place}" for name, place in found.items()] or ["no method or data source of other packages"]
    return Found("; ".join([*wrong, *words]), REMARK if wrong else OK, {"offered": found, "problems": wrong})


def _text_model() -> Found:
    from mmsa_lib.data.text import DEFAULT_TEXT_MODEL
    from mmsa_lib.nn.text_encoder import TextEncoder

    return Found(f"{DEFAULT_TEXT_MODEL}, {TextEncoder(DEFAULT_TEXT_MODEL).width} wide")


def _folders() -> Found:
    """A folder that may only be read is no fault: data can be shared, and runs can go elsewhere."""
    from mmsa_lib.paths import data_root, masks_folder, runs_folder

    words, states, details = [], {OK}, {}
    for kind, of, other in (
        ("data and caches", data_root, "MMSA_LIB_DATA"), ("masks", masks_folder, "MMSA_LIB_MASKS"),
        ("runs", runs_folder, "MMSA_LIB_RUNS or --runs"), ("temporary files", tempfile.gettempdir, "TMPDIR"),
    ):  # fmt: skip
        folder = Path(of()).absolute()
        existing = next(part for part in (folder, *folder.parents) if part.exists())
        free = shutil.disk_usage(existing).free
        state, remark = _writable(existing, free, other)
        words.append(f"{kind} in {folder} ({free / 1e9:,.1f} GB free{remark})")
        details[kind] = {"folder": str(folder), "state": state, "free_gb": round(free / 1e9, 1)}
        states.add(state)
    return Found(", ".join(words), next(s for s in (READ_ONLY, REMARK, OK) if s in states), details)


def _writable(existing: Path, free: float, other: str) -> tuple[str, str]:
    """Whether something new can be written to the folder ``existing``, and a remark where it can't."""
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file, not a folder; choose another folder with {other}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            little = free < LEAST_SPACE
            return (REMARK, f"; free space, or write elsewhere: {other}") if little else (OK, "")
    except OSError as error:
        return READ_ONLY, f"; {READ_ONLY}, {error.strerror}; to write elsewhere: {other}"


def _notebooks() -> Found:
    return _installed("lab")


def _optional() -> Found:
    """Extras that a command or two need; those of the project's own checks are nobody else's business."""
    return _installed(*(extra for extra in sorted(_asked()) if extra not in ("", "lab", "book", "test")))


def _installed(*extras: str) -> Found:
    """The packages of ``extras``; one that is not installed is no fault."""
    from mmsa_lib.experiments.files import package_version

    asked, words, details = _asked(), [], {}
    for extra in extras:
        details[extra] = found = {one.name: package_version(one.name) for one in asked.get(extra, ())}
        missing = [name for name, number in found.items() if number is None]
        there = ", ".join(f"{name} {number}" for name, number in found.items())
        words.append(f"{extra}: {', '.join(missing)} not installed ({_install(extra)})" if missing else there)
    return Found("; ".join(words), OK, details)


CHECKS: dict[str, Callable[[], Found]] = {
    "versions": _versions,
    "threads": _threads,
    "devices": _devices,
    "data": _data,
    "from packages": _offered,
    "text model": _text_model,
    "folders": _folders,
    "notebook tools": _notebooks,
    "optional": _optional,
}
