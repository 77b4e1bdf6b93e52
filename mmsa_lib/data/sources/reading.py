"""Reading text tables, one's own and the original ones, with one-line errors."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsa_lib.data.formats import TABLE, TEXT, kind_of
from mmsa_lib.data.sources.layouts import DOUBT
from mmsa_lib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_MARKS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_REMEDY = (
    "save it as UTF-8 ('CSV UTF-8' in a spreadsheet), or convert it by 'iconv -f GB18030 -t UTF-8' where it is "
    "Chinese, 'iconv -f WINDOWS-1252 -t UTF-8' where it is Western European"
)
_Row = tuple[int, list[str]]


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
    text, remarks = text_of(path)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    if text[:4] == "sep=" and text[5:6] in ("\r", "\n"):  # how spreadsheets say it
        mark, text = text[4], text[5:]
    else:
        header = text.strip().partition("\n")[0]
        others = [mark for mark in _MARKS if mark in header]
        mark = others[0] if usual not in header and len(others) == 1 else usual
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


def _unreadable(path: Path, said: str, what: str = "table") -> DataError:
    return DataError(f"{path} is not a readable {what}: {said}")


def text_of(path: Path, what: str = "table") -> tuple[str, list[str]]:
    """The text of a file (UTF-8, or UTF-16 that says so), and a remark where it is not UTF-8.

    Raises:
        DataError: it can't be read or decoded; calls it a ``what`` and names the line.
    """
    kind = kind_of(path)
    if kind not in ("", TABLE, TEXT):
        raise _unreadable(path, f"it seems to be {kind}", what)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the path") from error
    encoding = next((name for mark, name in _ENCODINGS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
        said = f"line {line} is not {encoding.removesuffix('-sig').upper()} (byte {byte:#04x}); {_REMEDY}"
        raise _unreadable(path, said, what) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise _unreadable(path, f"line {line} holds NUL characters; {_REMEDY}", what)
    return text, [f"{path.name} is UTF-16"] if encoding == "utf-16" else []


def _rows(text: str, mark: str, path: Path, remarks: list[str]) -> list[_Row]:
    """The line number and the cells of the header and of every row.

    Tab-separated tables are written with quotation marks that quote, and with such that are text: where both ways give
    rows of equal length, but not equally many, a quotation mark may have swallowed rows.
    """
    plain = _parsed(text, mark, csv.QUOTE_NONE, path)
    found = _parsed(text, mark, csv.QUOTE_MINIMAL, path) if '"' in text else plain
    if isinstance(plain, list) and isinstance(found, list) and len(plain) != len(found):
        line = max(one for (one, _), (other, _) in zip(found, plain, strict=False) if one == other)
        swallowed = f"a quotation mark in line {line} may have swallowed the lines below it; double it, or remove it"
        raise _unreadable(path, swallowed)
    if isinstance(found, DataError) and isinstance(plain, list) and mark == "\t":
        remarks.append(f"{path.name}: quotation marks are read as text")
        return plain
    if isinstance(found, DataError):
        raise found
    return found


def _parsed(text: str, mark: str, quoting: int, path: Path) -> list[_Row] | DataError:
    """The rows, or what is wrong with them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting, strict=True)
    rows: list[_Row] = []
    line = 1
    try:
        for cells in reader:
            width = len(rows[0][1]) if rows else len(cells)
            if cells and len(cells) != width:
                remedy = "the row is cut short; copy or download the file again, or complete the row"
                if len(cells) > width:
                    remedy = f"put cells that hold {_MARKS.get(mark, repr(mark))} into quotation marks"
                    remedy += ", and write decimals with a point" if mark == "," else ""
                found = f"line {line} has {len(cells)} cells, and the header has {width}"
                return _unreadable(path, f"{found}; {remedy}")
            if cells:
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        return _unreadable(path, f"line {line}: {error}; check the quotation marks from there")
    return rows or _unreadable(path, "it holds no line; download or write it again")


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

    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    options = {"sep": separator, "header": None if columns is None else 0, "quoting": quoting}
    with _original_again(path, "not a readable table"):
        table = pd.read_csv(path, keep_default_na=False, encoding="utf-8", **options)
    missing = [name for name in columns or () if name not in table.columns]
    if missing:
        raise DataError(f"{path}: column {missing[0]!r} is missing; fetch the original again")
    return table


def read_numbers(path: Path) -> np.ndarray:
    """A comma-separated file of numbers, without a header, as float64 ``(rows, columns)``.

    Raises:
        DataError: a cell is not a number or rows differ in length.
    """
    with _original_again(path, "not a table of numbers"):
        return np.loadtxt(path, delimiter=",", quotechar='"', ndmin=2)


@contextmanager
def _original_again(path: Path, what: str) -> Iterator[None]:
    """Turn what pandas and numpy raise on a damaged file, which is nearly anything, into one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path}: {what} ({reason}); fetch the original again") from error
