"""Small files in the published layouts, built from ragged samples that the tests know."""

import pickle
from pathlib import Path

import numpy as np

from mmsa_lib.data.store import write_store
from mmsa_lib.errors import DataError

SIZES = {"train": 6, "valid": 2, "test": 2}
SPLITS = tuple(SIZES)
COUNT = sum(SIZES.values())
STANDARD = np.repeat(list(SIZES), list(SIZES.values()))
LABELS = np.array([-3.0, -1.8, 0, 0.4, 2, 3, -0.2, 1, 1.6, -2.4])


def ragged_samples(seed: int, width: int, longest: int, dtype=np.float32) -> list[np.ndarray]:
    """One array per sample, ``(T_i, width)``; first and last frame never zero, the second of longer ones zero."""
    generator = np.random.default_rng(seed)
    samples = []
    for length in generator.integers(1, longest + 1, COUNT):
        values = generator.uniform(0.5, 2, (length, width)).astype(dtype)
        if length > 2:
            values[1] = 0
        samples.append(values)
    return samples


def padded(samples: list[np.ndarray], steps: int, left: bool | list[bool] = False) -> np.ndarray:
    """``(N, steps, d)``, padded on the right, or on the left where ``left`` says so."""
    sides = [left] * len(samples) if isinstance(left, bool) else left
    array = np.zeros((len(samples), steps, samples[0].shape[1]), samples[0].dtype)
    for row, (values, on_left) in enumerate(zip(samples, sides, strict=True)):
        place = slice(steps - len(values), steps) if on_left else slice(0, len(values))
        array[row, place] = values
    return array


def by_split(column) -> dict:
    """Cut a column of all samples into train, valid and test."""
    return {split: column[np.flatnonzero(split == STANDARD)] for split in SPLITS}


def write(folder: Path, tree, name: str = "file.pkl", protocol: int = 4) -> Path:
    """Pickle ``tree`` into ``folder``."""
    path = folder / name
    path.write_bytes(pickle.dumps(tree, protocol))
    return path


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


def assert_frames(feature_set, samples) -> None:
    """The feature set holds exactly these samples, as float32."""
    assert feature_set.values.dtype == np.float32
    assert feature_set.lengths.tolist() == [len(values) for values in samples]
    for found, expected in zip(frames_of(feature_set), samples, strict=True):
        np.testing.assert_array_equal(found, expected.astype(np.float32))


def mmsa_ids(prefix: str = "video") -> np.ndarray:
    """``video0$_$0``, ``video0$_$1``, ``video1$_$0``, ..."""
    return np.array([f"{prefix}{row // 2}$_${row % 2}" for row in range(COUNT)])


def text_bert(lengths, steps: int, dtype=np.float64) -> np.ndarray:
    """``(N, 3, steps)``: ids 101, 1000, ..., 102, then the mask, then segment ids."""
    array = np.zeros((len(lengths), 3, steps), dtype)
    for row, length in enumerate(lengths):
        array[row, 0, :length] = [101, *range(1000, 1000 + length - 2), 102]
        array[row, 1, :length] = 1
    return array


def mmsa_tree(columns: dict) -> dict:
    """A pickle's content in the MMSA layout from columns of all samples."""
    cut = {key: by_split(values) for key, values in columns.items()}
    return {split: {key: values[split] for key, values in cut.items()} for split in SPLITS}


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
