"""Published files and sets (``public_sets.toml``), recognised by checksum and by the sizes of their splits."""

from __future__ import annotations

import hashlib
import logging
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mmsa_lib.data.download import SourceFile, git_blob_sha1, manifest, source
from mmsa_lib.errors import DataError

log = logging.getLogger(__name__)


class OfficialFile(NamedTuple):
    """An official feature file: its set and path as the owners name them, and its two published checksums."""

    dataset: str
    path: str
    sha256: str
    sha1: str


class KnownSet(NamedTuple):
    """A published data set: sizes of train, valid and test, and what to cite."""

    name: str
    sizes: tuple[int, int, int]
    citation: str


class PublicSet(NamedTuple):
    """A set that can be built from public files.

    Attributes:
        description: the data set in one line.
        folder: folder of the originals, in a mirror and below the downloads folder.
        required: names of the files that are needed.
        terms: what is known about the terms of use; citation: what to cite; notes: facts for users.
        optional: names of files that complete the set.
    """

    description: str
    folder: str
    required: list[str]
    terms: str
    citation: str
    notes: list[str] = []
    optional: list[str] = []

    def sources(self, names: Iterable[str]) -> list[SourceFile]:
        """The manifest's entries of some of the files."""
        return [source(f"{self.folder}/{name}") for name in names]


_TABLES = tomllib.loads((resources.files(__package__) / "public_sets.toml").read_text(encoding="utf-8"))
OFFICIAL_FILES = tuple(OfficialFile(**file) for file in _TABLES["official_files"])
KNOWN_SETS = tuple(KnownSet(**known | {"sizes": tuple(known["sizes"])}) for known in _TABLES["known_sets"])
PUBLIC_SETS = {name: PublicSet(**known) for name, known in _TABLES["public_sets"].items()}
MOSI_DIGESTS: dict[str, str] = _TABLES["digests"]


def known_set(sizes: tuple[int, ...]) -> KnownSet | None:
    """The published set with these sizes of train, valid and test, or ``None``."""
    return next((known for known in KNOWN_SETS if known.sizes == sizes), None)


def identify(path: Path, sizes: tuple[int, ...]) -> tuple[str, list[str]]:
    """Name an imported file by its checksums.

    Args:
        path: the file.
        sizes: samples in train, valid and test, to tell which official file it should be.

    Returns:
        A line for ``DatasetRecord.sources`` (name and SHA-256), and remarks for ``notes``: which published file it is,
        or both checksums where name and set are those of an official file and the checksum is not. That case is also
        logged as a warning, because older releases exist and results may differ.

    Raises:
        DataError: the file can't be read.
    """
    digests = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                for digest in digests:
                    digest.update(chunk)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    sha256, sha1 = (digest.hexdigest() for digest in digests)
    line = f"{path.name}: SHA-256 {sha256}"
    for official in OFFICIAL_FILES:
        if sha256 == official.sha256 or sha1 == official.sha1:
            kind = "SHA-256 of the MMSA readme" if sha256 == official.sha256 else "SHA-1 of the Self-MM readme"
            return line, [f"{path.name} is the official {official.path} ({kind})"]
    blob = git_blob_sha1(path)
    for entry in manifest():
        if sha256 == entry.sha256 or blob == entry.git_blob_sha1:
            return line, [f"{path.name} is {entry.path} of github.com/{entry.owner}/{entry.repo} @ {entry.commit}"]
    known = known_set(sizes)
    for official in OFFICIAL_FILES:
        if known and known.name == official.dataset and path.name == Path(official.path).name:
            remark = (
                f"{path.name} has the name and the sizes of the official {official.path}, and another content: SHA-256 "
                f"expected {official.sha256}, found {sha256}; SHA-1 expected {official.sha1}, found {sha1}. It may be "
                "an older release; results may differ from those on the official file"
            )
            log.warning("%s", remark)
            return line, [remark]
    return line, [f"{path.name}: the checksum is not that of a published file"]
