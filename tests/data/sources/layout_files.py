"""Small files in the published layouts, built from ragged samples that the tests know."""

import pickle
from pathlib import Path

import numpy as np

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
