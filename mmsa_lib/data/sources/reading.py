"""Reading original text tables and HDF5 files, with one-line errors."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from mmsa_lib.errors import DataError


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
    try:
        table = pd.read_csv(
            path,
            sep=separator,
            header=None if columns is None else 0,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            keep_default_na=False,
            encoding="utf-8",
        )
    except (ValueError, OSError) as error:  # pandas' parser errors and broken UTF-8 are ValueErrors
        reason = str(error).strip().splitlines()[0]
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
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a table of numbers ({error}); fetch the original again") from error


def read_dataset(path: Path, key: str) -> np.ndarray:
    """The array ``key`` of an HDF5 file.

    Raises:
        DataError: not an HDF5 file, or without that array.
    """
    try:
        with h5py.File(path, "r") as file:
            return file[key][()]
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: array {key!r} can't be read ({error}); fetch the original again") from error
