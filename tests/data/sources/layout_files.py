"""The same ten samples in every layout that is imported, and the pieces to build others."""

import pickle
from pathlib import Path

import h5py
import numpy as np

from mmsa_lib.data.sources import mag_pickle, mfn_folder, mmsa_pickle, mult_pickle, table
from mmsa_lib.data.store import write_store
from mmsa_lib.errors import DataError

SIZES = {"train": 6, "valid": 2, "test": 2}
SPLITS = tuple(SIZES)
COUNT = sum(SIZES.values())
STANDARD = np.repeat(list(SIZES), list(SIZES.values()))
LABELS = np.array([-3.0, -1.8, 0, 0.4, 2, 3, -0.2, 1, 1.6, -2.4])
LENGTHS = [3, 5, 2, 4, 3, 5, 2, 3, 4, 5]
STEPS = 7
VIDEOS = [f"video{row // 2}" for row in range(COUNT)]
WORDS = [["it", "was", "not", "good", "enough"][:length] for length in LENGTHS]
WIDTHS = {"text": 300, "audio": 5, "vision": 20}
"""Those of MFN's joint files."""

READERS = {
    "mmsa": mmsa_pickle.read,
    "mult": mult_pickle.read,
    "mag": mag_pickle.read,
    "mfn": mfn_folder.read,
    "table": table.read,
}


def ragged_samples(seed: int, width: int, longest: int = 0, dtype=np.float64) -> list[np.ndarray]:
    """One array per sample, ``(T_i, width)``, no frame zero: as long as its words, or up to ``longest`` frames."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, COUNT) if longest else LENGTHS
    return [generator.uniform(0.5, 2, (length, width)).astype(dtype) for length in lengths]


FRAMES = {m: ragged_samples(seed, width) for seed, (m, width) in enumerate(WIDTHS.items())}


def padded(samples: list[np.ndarray], steps: int = STEPS, left: bool | list[bool] = False) -> np.ndarray:
    """``(N, steps, d)``, padded on the right, or on the left where ``left`` says so."""
    sides = [left] * len(samples) if isinstance(left, bool) else left
    array = np.zeros((len(samples), steps, samples[0].shape[1]), samples[0].dtype)
    for row, (values, on_left) in enumerate(zip(samples, sides, strict=True)):
        array[row, steps - len(values) if on_left else 0 :][: len(values)] = values
    return array


def by_split(column) -> dict:
    """Cut a column of all samples into train, valid and test."""
    rows = {split: np.flatnonzero(split == STANDARD) for split in SPLITS}
    return {s: column[r] if isinstance(column, np.ndarray) else [column[i] for i in r] for s, r in rows.items()}


def tree_of(columns: dict) -> dict:
    """Split to a dict of its part of each column; a column that is ``None`` is left out."""
    cut = {key: by_split(values) for key, values in columns.items() if values is not None}
    return {split: {key: values[split] for key, values in cut.items()} for split in SPLITS}


def mag_tree(columns: dict) -> dict:
    """The pickle of MAG-BERT."""
    pieces = [tuple(row) for row in zip(columns["words"], columns["vision"], columns["audio"], strict=True)]
    rows = by_split(list(zip(pieces, columns["labels"], columns["id"], strict=True)))
    return {"train": rows["train"], "dev": rows["valid"], "test": rows["test"]}


def write(folder: Path, tree, name: str = "file.pkl", protocol: int = 4) -> Path:
    """Pickle ``tree`` into ``folder``."""
    path = folder / name
    path.write_bytes(pickle.dumps(tree, protocol))
    return path


class Call:
    """Pickles to a call of ``function`` with ``args``."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def write_array(path: Path, values, key: str = "data") -> Path:
    """An HDF5 file of one array."""
    with h5py.File(path, "w") as file:
        file[key] = values
    return path


def columns_of(layout: str, left: bool | list[bool] = False, **changes) -> dict:
    """All columns of the ten samples as ``layout`` names and pads them; ``changes`` replace unpadded ones."""
    columns = {"id": [f"{v}$_${row % 2}" for row, v in enumerate(VIDEOS)], "labels": LABELS, "words": WORDS}
    if layout == "mag":
        columns["id"] = [f"{v}[{row % 2}]" for row, v in enumerate(VIDEOS)]
    columns |= FRAMES | changes
    if layout == "mag":
        return columns
    for m in FRAMES:
        frames = columns[m]
        equal = frames is not None and len({np.shape(values)[1:] for values in frames}) == 1
        columns[m] = padded(frames, left=left) if equal else frames
    words = columns.pop("words")
    columns |= {"raw_text": [" ".join(of) for of in words]} if layout in ("mmsa", "table") else {}
    if layout == "mmsa":
        columns["regression_labels"] = columns.pop("labels")
    return columns


def write_layout(layout: str, folder: Path, left: bool | list[bool] = False, **changes) -> Path:
    """The ten samples in one of :data:`READERS`; what to give its reader."""
    columns = columns_of(layout, left, **changes)
    if layout == "mfn":
        for name, column in (("text", "text"), ("audio", "audio"), ("video", "vision"), ("y", "labels")):
            for split, values in by_split(columns[column]).items():
                write_array(folder / f"{name}_{split}.h5", values)
        return folder
    if layout == "table":
        arrays = {key: np.array(values) if key != "labels" else values for key, values in columns.items()}
        arrays |= {"text_features": arrays.pop("text"), "label": arrays.pop("labels")}
        np.savez(folder / "file.npz", split=STANDARD, group=VIDEOS, **arrays)
        return folder / "file.npz"
    return write(folder, mag_tree(columns) if layout == "mag" else tree_of(columns))


def read_or_refuse(read, path: Path) -> None:
    """A file with anything in it is read and stored, or refused in one line that names a file; warnings are errors."""
    said = ""
    try:
        record = read(path, "mine")
        write_store(record, path.with_suffix(".h5"))
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    if said:
        assert said.startswith(str(path.with_suffix("")))
    else:
        assert not {"None", "nan"} & set(record.transcripts or [])
        assert np.isfinite(record.labels).all()


def frames_of(feature_set) -> list[np.ndarray]:
    """The frames of each sample of a FeatureSet."""
    return np.split(feature_set.values, feature_set.offsets[1:-1])


def observed_of(feature_set) -> list[np.ndarray]:
    """Which frames of each sample are observed."""
    return np.split(feature_set.observed, feature_set.offsets[1:-1])


def assert_frames(feature_set, samples) -> None:
    """The feature set holds exactly these samples, as float32."""
    assert feature_set.values.dtype == np.float32
    assert feature_set.lengths.tolist() == [len(values) for values in samples]
    for found, expected in zip(frames_of(feature_set), samples, strict=True):
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def changed(values, row: int, value) -> list:
    """A copy of a column with another value in one row."""
    return [value if i == row else old for i, old in enumerate(values)]


def notes_of(record, start: str) -> list[str]:
    """The notes of a record that begin in some way."""
    return [note for note in record.notes if note.startswith(start)]


ANYTHING = {
    "none": None,
    "number": 3,
    "nan": float("nan"),
    "text": "abc",
    "bytes": b"ab",
    "dict": {"a": 1},
    "set": {1},
    "texts": ["x", "y"],
    "number texts": ["0.5", "1"],
    "nones": [None, None],
    "mixed": [1, "a"],
    "empty": [],
    "empty array": np.zeros(0),
    "no columns": np.zeros((2, 0)),
    "zero-dimensional": np.array(1.0),
    "one object": np.array(None, dtype=object),
    "too many": [1.0, 2, 3],
    "four axes": np.ones((2, 2, 2, 2)),
    "complex": np.full(2, 1 + 2j),
    "complex frames": np.ones((2, 3, 4), complex),
    "true": np.ones(2, bool),
    "huge": np.full(2, 1e300),
    "huge integers": [10**400] * 2,
    "infinite": np.full(2, np.inf),
    "dicts": [{}, {}],
    "sets": [{1}, {1}],
    "ragged": [[1, 2], [3]],
    "deep": [[[[[1]]]]] * 2,
    "surrogates": ["\ud800", "\ud801"],
    "bytes of another encoding": [b"\xff\xfe", b"\xff\xfe"],
    "smallest integers": np.full(2, -(2**63)),
    "frames of unequal width": [np.ones((2, 3)), np.ones((2, 4))],
}
"""Two samples' worth of every kind of thing, to put in place of a field."""
