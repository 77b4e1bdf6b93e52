"""Original files of the public data sets: fetched at a pinned commit or taken from a local mirror, always verified.

The manifest ``sources/data_sources.csv`` names every file with its repository, commit, path and checksum. A file is
used only after its SHA-256 (or, where none is known, its git blob id) was compared with the manifest.
"""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from mmsa_lib.errors import DataError, unknown_name
from mmsa_lib.files import file_sha256
from mmsa_lib.paths import data_root

RAW_HOST = "https://raw.githubusercontent.com"
MIRROR_VARIABLE = "MMSA_LIB_MIRROR"
ATTEMPTS = 3
_CHUNK = 1 << 20


@dataclass(frozen=True)
class SourceFile:
    """One original file, as the manifest describes it.

    Attributes:
        dataset: folder of the data set in a mirror, for instance ``cmu-mosi``.
        owner, repo, commit, path: where the file is on GitHub.
        local_path: its place in a mirror and below the downloads folder.
        size: bytes, or ``None`` where it is not known beforehand.
        sha256: SHA-256 of the content, or ``""`` where only the git blob id is known.
        git_blob_sha1: SHA-1 of ``blob <size>``, a zero byte and the content: git's name for the file.
        licence: what the repository says; content: what is in the file.
    """

    dataset: str
    owner: str
    repo: str
    commit: str
    path: str
    local_path: str
    size: int | None
    sha256: str
    git_blob_sha1: str
    licence: str
    content: str

    @property
    def name(self) -> str:
        """The local file name."""
        return Path(self.local_path).name

    @property
    def url(self) -> str:
        """Address of the raw file at the pinned commit."""
        return f"{RAW_HOST}/{self.owner}/{self.repo}/{self.commit}/{quote(self.path)}"

    @property
    def checksum(self) -> str:
        """The checksum that the file is verified against, with its kind."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git-blob:{self.git_blob_sha1}"

    def line(self) -> str:
        """Where the file comes from, in one line, for the ``sources`` of a record."""
        return f"{self.name}: github.com/{self.owner}/{self.repo} @ {self.commit} {self.path} ({self.checksum})"


@cache
def manifest() -> tuple[SourceFile, ...]:
    """All original files that the library knows, in the order of the manifest."""
    text = (resources.files("mmsa_lib.data.sources") / "data_sources.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    for row in rows:
        del row["status"]  # tells nothing that a download needs
    return tuple(SourceFile(size=int(size) if (size := row.pop("bytes")) else None, **row) for row in rows)


def source(local_path: str) -> SourceFile:
    """The manifest's entry for ``local_path``, for instance ``cmu-mosi/original/mosi_train.tsv``.

    Raises:
        UnknownNameError: the manifest has no such file.
    """
    by_path = {entry.local_path: entry for entry in manifest()}
    if local_path not in by_path:
        raise unknown_name("original file", local_path, by_path)
    return by_path[local_path]


def fetch(
    required: Iterable[SourceFile],
    *,
    optional: Collection[SourceFile] = (),
    mirror: Path | str | None = None,
    progress: bool = True,
) -> dict[str, Path]:
    """Verified local paths of original files, by file name.

    Files that were fetched before are verified and not fetched again; a damaged one is fetched anew.

    Args:
        required: files to have; their names must differ.
        optional: files to add only where they are at hand already (in the mirror, or downloaded before).
        mirror: folder laid out like the manifest's ``local_path`` column; nothing is downloaded then. By default the
            environment variable ``MMSA_LIB_MIRROR``, and without it the files come from GitHub.
        progress: show a progress bar on stderr for each download.

    Raises:
        DataError: a file is absent from the mirror, has a wrong checksum, or can't be downloaded.
    """
    mirror = mirror or os.environ.get(MIRROR_VARIABLE) or None
    if mirror is not None:
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise DataError(f"the mirror {folder} is not a folder; give one laid out like cmu-mosi/original/…")
        paths = {entry.name: _from_mirror(entry, folder) for entry in required}
    else:
        folder = data_root() / "downloads"
        paths = {entry.name: _from_network(entry, folder, progress) for entry in required}
    for entry in optional:
        if (folder / entry.local_path).is_file():
            paths[entry.name] = _from_mirror(entry, folder)
    return paths


def git_blob_sha1(path: Path) -> str:
    """Git's object id of a file: SHA-1 of ``blob <size>``, a zero byte and the content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _checksum(path: Path, entry: SourceFile) -> str:
    """The checksum of ``path``, of the kind that the manifest has for it."""
    if entry.sha256:
        return f"sha256:{file_sha256(path)}"
    return f"git-blob:{git_blob_sha1(path)}"


def _from_mirror(entry: SourceFile, mirror: Path) -> Path:
    path = mirror / entry.local_path
    if not path.is_file():
        raise DataError(
            f"{path} is missing in the mirror; put {entry.url} there, or build without a mirror "
            f"(no --mirror, {MIRROR_VARIABLE} unset)"
        )
    found = _checksum(path, entry)
    if found != entry.checksum:
        raise DataError(
            f"{path}: wrong checksum, expected {entry.checksum}, found {found} ({path.stat().st_size} bytes); "
            f"replace it by {entry.url}"
        )
    return path


def _from_network(entry: SourceFile, folder: Path, progress: bool) -> Path:
    """The file below ``folder``, fetched where it is missing or damaged; it has its name only once it was verified."""
    import pooch
    import requests
    from tqdm import tqdm

    remedy = f"download it by other means and give its folder by --mirror (or {MIRROR_VARIABLE})"
    path, found = folder / entry.local_path, []
    if path.is_file() and _checksum(path, entry) == entry.checksum:
        return path

    def transfer(url: str, target: str, _: pooch.Pooch) -> None:
        """Failed connections, server errors and wrong content are tried again; a refusal is final."""
        # pooch asks for a total at once and replaces it by what the server says.
        shown = {"desc": entry.name, "unit": "B", "unit_scale": True, "file": sys.stderr, "leave": False}
        with tqdm(total=entry.size or 1, disable=not progress, **shown) as bar:
            try:
                pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK)(url, target, None)
            except requests.HTTPError as error:
                if (status := error.response.status_code) < 500 and status != 429:
                    raise RuntimeError(f"the server answers {status}") from error
                raise
        found.append(_checksum(Path(target), entry))
        if found[-1] != entry.checksum:
            raise ValueError("wrong checksum")

    pooch.get_logger().setLevel("ERROR")
    path.unlink(missing_ok=True)
    known = {"registry": {entry.local_path: None}, "urls": {entry.local_path: entry.url}}
    try:
        pooch.create(folder, base_url="", retry_if_failed=ATTEMPTS - 1, **known).fetch(
            entry.local_path, downloader=transfer
        )
    except RuntimeError as error:
        raise DataError(f"{entry.url}: {error}; {remedy}") from error
    except requests.RequestException as error:
        answer = getattr(error.response, "status_code", None)
        reason = f"the server answers {answer}" if answer else f"no connection ({type(error).__name__})"
        raise DataError(f"cannot download {entry.url}: {reason} after {ATTEMPTS} attempts; {remedy}") from error
    except ValueError as error:
        raise DataError(
            f"{entry.url}: wrong checksum, expected {entry.checksum}, found {found[-1]}; nothing was kept, "
            "try again or give a folder with the verified file by --mirror"
        ) from error
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; choose another folder with MMSA_LIB_DATA") from error
    return path
