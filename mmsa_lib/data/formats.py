"""What a file is that lies where another one should: told from its first bytes, with the way to what was wanted."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmsa_lib.files import refuse_special

COMPUTATIONAL_SEQUENCE = (
    "a computational sequence (.csd) of the CMU-Multimodal SDK, one part of a data set; 'mmsa-lib data build mosi' "
    "reads the labels and words of CMU-MOSI from such files; align others with the SDK and save ids, splits, labels "
    "and features as an .npz for 'mmsa-lib data import table'"
)
_HEAD = 4096
PICKLE = "a pickle; 'mmsa-lib data import mmsa' (or mult, mag) reads it"
MFN_FOLDER = "a folder in the MFN layout; 'mmsa-lib data import mfn' reads it"
NPY = "a single .npy array"
TABLE = "a table of text; 'mmsa-lib data import table' reads it if it has id, split and label"
TEXT = "a text file"
ARCHIVE = "a numpy archive; 'mmsa-lib data import table' reads it if it holds id, split and label"
TORCH = (
    "a file of torch.save; if it holds data, make a pickle of it: "
    "pickle.dump(torch.load('FILE', weights_only=True), open('FILE.pkl', 'wb'))"
)
_BEGINNINGS = (
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the data; fetch the file itself with 'git lfs pull'"),
    (b"/annex/objects/", "a git-annex pointer, not the data; fetch the file itself with 'git annex get'"),
    (b"outs:", "a DVC pointer, not the data; fetch the file itself with 'dvc pull'"),
    (b"\x93NUMPY", NPY),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", TORCH),  # its older format
    (b"\x80", PICKLE),
    (b"PAR1", "a Parquet table; save it as CSV"),
    (b"ARROW1", "a Feather table; save it as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office document (.xls); save the sheet as 'CSV UTF-8'"),
    (b"MATLAB 5.0", "a MATLAB file; save its arrays with numpy.savez"),
    (b"%PDF", "a PDF document"),
    (b"\x00\x00\x00\x00", "zeros at its start: a download that did not finish; download it again"),
)
_WEB_PAGE = (
    "a web page, saved in place of the download (a login or a warning page); open the link in a browser and save the "
    "file again"
)


def kind_of(path: Path | str) -> str:
    """What a file or folder seems to be and the way on, to follow "it seems to be"; "" where nothing is known of it.

    Raises:
        DataError: it is neither, and reading it may never end.
    """
    path = Path(path)
    if is_dangling(path):
        return f"a link to {os.readlink(path)}, which is not here; fetch the data itself (git annex get, dvc pull)"
    try:
        if path.is_dir():
            return _folder(path)
        refuse_special(path)
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return ""
    if not head:
        return "an empty file; download it again"
    return _binary(path, head) or _text(head)


def is_dangling(path: Path) -> bool:
    """Whether ``path`` is a link whose target is not there: lost, not missing."""
    return path.is_symlink() and not path.exists()


def unread(names: Iterable[str]) -> list[str]:
    """The names that no system or editor puts into a folder by itself, sorted."""
    return sorted(name for name in names if not name.startswith((".", "~$")) and name not in _BY_THEMSELVES)


_BY_THEMSELVES = {"Thumbs.db", "desktop.ini", "__MACOSX"}


def _folder(path: Path) -> str:
    names = {child.name for child in path.iterdir()}
    if any(name.endswith(".csd") for name in names):
        return f"a folder that holds {COMPUTATIONAL_SEQUENCE}"
    if any(name.startswith("y_") and name.endswith(".h5") for name in names):
        return MFN_FOLDER
    if names & {"samples.csv", "samples.tsv"}:
        return "a folder of samples; 'mmsa-lib data import table' reads it"
    return f"a folder with {', '.join(sorted(names)[:5])}" if names else "an empty folder"


def _binary(path: Path, head: bytes) -> str:
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return _hdf5(path)
    return next((meaning for beginning, meaning in _BEGINNINGS if head.startswith(beginning)), "")


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return "a damaged zip archive; download it again"
    if any(name.startswith("xl/") for name in names):
        return "a spreadsheet (.xlsx); save the sheet as 'CSV UTF-8'"
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    if names and all(name.endswith(".npy") for name in names):
        return ARCHIVE
    return "a zip archive; unpack it first"


def _hdf5(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            roots = [file[name] for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
            if path.suffix.lower() == ".csd" or any(map(_is_computational_sequence, roots)):
                return COMPUTATIONAL_SEQUENCE
    except Exception:  # HDF5 raises nearly anything for a damaged file; what it is was asked, not whether it is sound
        return "a damaged HDF5 file; download it again"
    return "an HDF5 file; for the MFN layout give its folder to 'mmsa-lib data import mfn'"


def _is_computational_sequence(root: Any) -> bool:
    """Whether it has what the SDK writes: ``data``, a group per video with features and intervals, and ``metadata``."""
    if not hasattr(root, "keys") or not hasattr(data := root.get("data"), "keys"):
        return False
    video = data.get(next(iter(data), ""), None)
    return "metadata" in root or (hasattr(video, "keys") and {"features", "intervals"} <= set(video))


def _text(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return _WEB_PAGE
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 3:  # else a character that is cut where reading stopped
            return ""
        text = head[: error.start].decode("utf-8")
    if not all(character.isprintable() or character in "\t\r\n\ufeff" for character in text):
        return ""
    return TABLE if any(mark in text.partition("\n")[0] for mark in ",;\t") else TEXT
