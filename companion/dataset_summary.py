"""Facts of the public data sets as small tables: counts and histograms, no transcript and no single sample.

Notebooks and figures read the committed tables, so that they can show the real sets without having them.
``python -m companion.dataset_summary --mirror DIR`` writes the tables anew from the original files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.sources import build
from mmsa_lib.data.store import read_store
from mmsa_lib.errors import DataError, MMSAError, unknown_name
from mmsa_lib.files import write_text
from mmsa_lib.paths import tables_folder

DATASETS = ("mosi", "mmmo", "mosei_text", "sims_text", "simsv2_text")
SPLITS = ("train", "valid", "test")
TABLES = {
    "splits": "samples, videos, class counts and label moments per fold and split",
    "labels": "label histogram of the standard fold; a label counts for the nearest multiple of the step",
    "lengths": "samples of the standard fold by number of words (steps, for ICT-MMMO)",
    "durations": "samples of the standard fold by segment duration; bins of one second, named by their beginning",
    "availability": "valid and observed frames per fold, split and feature set",
}


def summarise(record: DatasetRecord) -> dict[str, pd.DataFrame]:
    """The tables of :data:`TABLES` for one data set.

    Class counts compare the label with the middle of its range: negative below, neutral at it, positive above.
    """
    rows = {"splits": _splits, "labels": _labels, "lengths": _lengths, "durations": _durations}
    tables = {name: pd.DataFrame(function(record)) for name, function in rows.items()}
    tables["availability"] = pd.DataFrame(_availability(record))
    for table in tables.values():
        table.insert(0, "dataset", record.name)
    return tables


def write_summary(folder: Path | str, mirror: Path | str | None = None, progress: bool = True) -> list[Path]:
    """Build the public data sets and write one CSV file per table of :data:`TABLES` into ``folder``.

    Args:
        mirror, progress: as for :func:`mmsa_lib.data.sources.build`.

    Raises:
        DataError: originals are missing or damaged, or ``folder`` can't be written.
    """
    tables = _joined(build(name, mirror, progress) for name in DATASETS)
    written = []
    for name, table in tables.items():
        path = Path(folder) / f"{name}.csv"
        write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        written.append(path)
    return written


def count_stores(names: Sequence[str] = DATASETS) -> dict[str, pd.DataFrame]:
    """The tables of :data:`TABLES`, counted again from the built stores.

    Raises:
        DataError: a store is not built or damaged.
    """
    return _joined(read_store(store_path(name)) for name in names)


def read_summary(table: str, folder: Path | str | None = None) -> pd.DataFrame:
    """One of the committed tables, a key of :data:`TABLES`.

    Args:
        folder: where the CSV files are, by default the checkout's ``data/published/dataset_summary``.

    Raises:
        UnknownNameError: no such table.
        DataError: the file is not there.
    """
    if table not in TABLES:
        raise unknown_name("summary table", table, TABLES)
    path = Path(folder or default_folder()) / f"{table}.csv"
    if not path.is_file():
        raise DataError(f"{path} is missing; write it by python -m companion.dataset_summary")
    return pd.read_csv(path)


def _joined(records: Iterable[DatasetRecord]) -> dict[str, pd.DataFrame]:
    parts = [summarise(record) for record in records]
    # pandas warns about empty frames, which have no types to agree on.
    filled = {name: [part[name] for part in parts if not part[name].empty] for name in TABLES}
    return {name: pd.concat(some, ignore_index=True) if some else pd.DataFrame() for name, some in filled.items()}


def default_folder() -> Path:
    """The checkout's folder of these tables.

    Raises:
        ConfigError: the library does not run from a checkout.
    """
    return tables_folder("published") / "dataset_summary"


def _splits(record: DatasetRecord) -> Iterator[dict]:
    category = record.task.categories(torch.as_tensor(record.labels)).numpy()
    groups = np.array(record.groups)
    for fold, split, rows in _all_splits(record.folds):
        label = record.labels[rows].astype(np.float64)
        negative, neutral, positive = np.bincount(category[rows], minlength=3).tolist()
        yield {
            "fold": fold,
            "split": split,
            "samples": int(rows.sum()),
            "videos": len(np.unique(groups[rows])),
            "negative": negative,
            "neutral": neutral,
            "positive": positive,
            "label_mean": label.mean(),
            "label_sd": label.std(ddof=1),
            "label_median": np.median(label),
        }


def _labels(record: DatasetRecord) -> Iterator[dict]:
    low, high = record.task.range
    step = 0.2 if high - low <= 2 else 0.5
    nearest = _whole(record.labels / step + 0.5) * step
    yield from _histogram(record, "label", np.round(nearest, 6), step=step)


def _lengths(record: DatasetRecord) -> Iterator[dict]:
    if record.words is not None:
        words, unit = np.diff(record.words.offset), "words"
    elif record.transcripts is not None:
        words, unit = np.array([len(text.split()) for text in record.transcripts]), "words"
    else:
        words, unit = next(iter(record.features.values())).lengths, "steps"
    yield from _histogram(record, "length", words, unit=unit)


def _durations(record: DatasetRecord) -> Iterator[dict]:
    if record.times is not None:
        seconds = record.times[:, 1].astype(np.float64) - record.times[:, 0]
        yield from _histogram(record, "seconds", _whole(seconds))


def _availability(record: DatasetRecord) -> Iterator[dict]:
    for fold, split, rows in _all_splits(record.folds):
        for name, features in record.features.items():
            starts = features.offsets[:-1]
            observed = np.add.reduceat(features.observed, starts, dtype=np.int64)[rows]
            lengths = features.lengths[rows]
            yield {
                "fold": fold,
                "split": split,
                "modality": features.modality,
                "features": name,
                "level": features.level,
                "label_trained_on": features.label_trained_on,
                "width": features.width,
                "samples": int(rows.sum()),
                "samples_without": int((observed == 0).sum()),
                "frames": int(lengths.sum()),
                "observed_frames": int(observed.sum()),
                "mean_length": lengths.mean(),
                "longest": int(lengths.max()),
            }
        if record.transcripts is not None:
            empty = sum(not record.transcripts[row].strip() for row in np.flatnonzero(rows))
            yield {
                "fold": fold,
                "split": split,
                "modality": "text",
                "features": "transcripts",
                "samples": int(rows.sum()),
                "samples_without": empty,
            }


def _all_splits(folds: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Fold, split and the rows ``(N,)`` bool that lie in it."""
    for fold, splits in folds.items():
        for split in SPLITS:
            yield fold, split, splits == split


def _histogram(record: DatasetRecord, name: str, values: np.ndarray, **extra) -> Iterator[dict]:
    """Counts of each distinct one of ``values`` ``(N,)``, per split of the standard fold."""
    for split in SPLITS:
        distinct, counts = np.unique(values[record.folds["standard"] == split], return_counts=True)
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            yield {"split": split, **extra, name: value, "samples": count}


def _whole(values: np.ndarray) -> np.ndarray:
    """The integer below; float32 noise of 1e-5 under an integer counts as that integer."""
    return np.floor(np.asarray(values, dtype=np.float64) + 1e-5).astype(np.int64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of this module; 0 on success, 2 on bad input with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m companion.dataset_summary", description=__doc__.splitlines()[0])
    parser.add_argument("--mirror", help="folder with the original files; by default they are downloaded")
    parser.add_argument("--out", help="folder to write, by default data/published/dataset_summary of the checkout")
    options = parser.parse_args(arguments)
    try:
        for path in write_summary(options.out or default_folder(), options.mirror):
            print(path, file=sys.stderr)
    except MMSAError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
