"""Reading text tables, one's own and the original ones, and original HDF5 files, with one-line errors."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from mmsa_lib.data.formats import TABLE, TEXT, kind_of
from mmsa_lib.data.hdf5 import read_array, read_hdf5
from mmsa_lib.data.sources.layouts import DOUBT
from mmsa_lib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_MARKS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass
class Cells:
    """A text table as it is written.

    Attributes:
        columns: name to the cells below it.
        lines: the line of the file in which each row begins.
        remarks: what a user should know of how it was read.
    """

    columns: dict[str, list[str]]
    lines: list[int]
    remarks: list[str]


def read_cells(path: Path) -> Cells:
    """The cells of a table: UTF-8 (or UTF-16 that says so), separated by commas, tabs, semicolons or bars.

    Every row must have as many cells as the header: a short row is what a broken copy or download leaves.

    Raises:
        DataError: another kind of file or another encoding, a row of another length, two columns of one name, quotation
            marks that do not close; names the line.
    """
    text, remarks = _text_of(path)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    if text[:4] == "sep=" and text[5:6] in ("\r", "\n"):  # how spreadsheets say it
        mark, text = text[4], text[5:]
    else:
        mark = _separator(text, usual)
    rows = _rows(text, mark, path, remarks)
    if mark != usual:
        remarks.append(f"{path.name} is separated by {_MARKS.get(mark, repr(mark))}")
    if not text.endswith(("\n", "\r")):
        remarks.append(f"{DOUBT}{path.name} does not end in a line end; was it copied or downloaded as a whole?")
    names = [name.strip() for name in rows.pop(0)[1]]
    if not rows:
        raise DataError(f"{path}: there is a header and no row below it; give every sample a row")
    columns: dict[str, list[str]] = {}
    for i, name in enumerate(names):
        cells = [row[i] for _, row in rows]
        if name in columns:
            raise DataError(f"{path}: two columns are called {name!r}; remove or rename one of them")
        if name or any(cells):  # a spreadsheet may write an empty column behind the last one
            columns[name or f"column {i + 1} without a name"] = cells
    return Cells(columns, [line for line, _ in rows], remarks)


def _text_of(path: Path) -> tuple[str, list[str]]:
    """The text of a file, and a remark where it is not UTF-8."""
    kind = kind_of(path)
    if kind not in ("", TABLE, TEXT):
        raise DataError(f"{path} is not a readable table: it seems to be {kind}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    encoding = next((name for mark, name in _ENCODINGS.items() if raw.startswith(mark)), "utf-8")
    remedy = (
        "save it as UTF-8 ('CSV UTF-8' in a spreadsheet), or convert it by 'iconv -f GB18030 -t UTF-8' where it is "
        "Chinese, 'iconv -f WINDOWS-1252 -t UTF-8' where it is Western European"
    )
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
        raise DataError(
            f"{path} is not a readable table: line {line} is not {encoding.removesuffix('-sig').upper()} (byte "
            f"{byte:#04x}); {remedy}"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path} is not a readable table: line {line} holds NUL characters; {remedy}")
    return text, [f"{path.name} is UTF-16"] if encoding == "utf-16" else []


def _separator(text: str, usual: str) -> str:
    """The usual mark, unless the header holds another one and not this."""
    header = text.strip().partition("\n")[0]
    others = [mark for mark in _MARKS if mark in header]
    return others[0] if usual not in header and len(others) == 1 else usual


def _rows(text: str, mark: str, path: Path, remarks: list[str]) -> list[tuple[int, list[str]]]:
    """The line number and the cells of the header and of every row.

    Tab-separated tables are written with quotation marks that quote, and with such that are text: where both ways give
    rows of equal length, but not equally many, a quotation mark may have swallowed rows.
    """
    plain = _parsed(text, mark, csv.QUOTE_NONE, path)
    if '"' not in text:
        return _or_raise(plain)
    quoted = _parsed(text, mark, csv.QUOTE_MINIMAL, path)
    if isinstance(plain, list) and isinstance(quoted, list) and len(plain) != len(quoted):
        line = max(one for (one, _), (other, _) in zip(quoted, plain, strict=False) if one == other)
        raise DataError(
            f"{path} is not a readable table: a quotation mark in line {line} may have swallowed the lines below it; "
            "double it, or remove it"
        )
    if isinstance(quoted, DataError) and isinstance(plain, list) and mark == "\t":
        remarks.append(f"{path.name}: quotation marks are read as text")
        return plain
    return _or_raise(quoted)


def _or_raise(found: list[tuple[int, list[str]]] | DataError) -> list[tuple[int, list[str]]]:
    if isinstance(found, DataError):
        raise found
    return found


def _parsed(text: str, mark: str, quoting: int, path: Path) -> list[tuple[int, list[str]]] | DataError:
    """The rows, or what is wrong with them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if cells and len(cells) != len(rows[0][1] if rows else cells):
                return _wrong_length(path, line, len(cells), len(rows[0][1]), mark)
            if cells:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        return DataError(f"{path} is not a readable table: line {line}: {error}; check the quotation marks from there")
    return rows or DataError(f"{path} is not a readable table: it holds no line; download or write it again")


def _wrong_length(path: Path, line: int, found: int, expected: int, mark: str) -> DataError:
    if found < expected:
        remedy = "the row is cut short; copy or download the file again, or complete the row"
    else:
        remedy = f"put cells that hold {_MARKS.get(mark, repr(mark))} into quotation marks"
        remedy += ", and write decimals with a point" if mark == "," else ""
    where = f"{path} is not a readable table: line {line}"
    return DataError(f"{where} has {found} cells, and the header has {expected}; {remedy}")


def original(files: Mapping[str, Path], name: str) -> Path:
    """The path of the original file ``name``.

    Raises:
        DataError: ``files`` does not have it.
    """
    if name not in files:
        raise DataError(f"the original file {name} is needed and was not given; got {', '.join(sorted(files))}")
    return Path(files[name])


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, separator: str = ",", quoted: bool = True
) -> pd.DataFrame:
    """Read a text table; empty cells stay empty texts.

    Args:
        columns: column names that the header must hold; without them the table has no header.
        separator: between cells.
        quoted: whether cells may be quoted; False keeps quotation marks as text.

    Raises:
        DataError: the file can't be parsed or lacks a column.
    """
    import pandas as pd

    try:
        table = pd.read_csv(
            path,
            sep=separator,
            header=None if columns is None else 0,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            keep_default_na=False,
            encoding="utf-8",
        )
    except Exception as error:  # pandas raises nearly anything on a damaged file
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a readable table ({reason}); fetch the original again") from error
    missing = [name for name in columns or () if name not in table.columns]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; fetch the original again")
    return table


def read_numbers(path: Path) -> np.ndarray:
    """A comma-separated file of numbers, without a header, as float64 ``(rows, columns)``.

    Raises:
        DataError: a cell is not a number or rows differ in length.
    """
    try:
        return np.loadtxt(path, delimiter=",", quotechar='"', ndmin=2)
    except Exception as error:  # numpy raises nearly anything on a damaged file
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: not a table of numbers ({reason}); fetch the original again") from error


def read_dataset(path: Path, key: str) -> np.ndarray:
    """The array ``key`` of an HDF5 file.

    Raises:
        DataError: not an HDF5 file, or without that array.
    """
    with read_hdf5(path, "fetch the original again", verified=True) as file:
        if not isinstance(file.get(key), h5py.Dataset):
            raise DataError(f"{path}: array {key!r} can't be read (there is none); fetch the original again")
        return read_array(file[key])
