"""Recognise the published layouts, and fetch fields from them with errors that say what was found instead.

A wrong file is the commonest mistake (a CMU-MOSI file of one code base fed to another one): the message names the
layout that the file has and the command that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.errors import DataError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "val", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class Layout:
    """A published layout: its name, the command that reads it, and what it looks like in one line."""

    name: str
    command: str
    shape: str


LAYOUTS = {
    "mmsa": Layout(
        "the MMSA layout",
        "mmsa-lib data import mmsa",
        "a dict train/valid/test of dicts with id, regression_labels, text, text_bert, audio, vision, ...",
    ),
    "mult": Layout(
        "the MulT layout",
        "mmsa-lib data import mult",
        "a dict train/valid/test of dicts with text, audio, vision, labels and perhaps id",
    ),
    "mag": Layout(
        "the MAG-BERT layout",
        "mmsa-lib data import mag",
        "a dict train/dev/test of lists of ((words, visual, acoustic), label, segment)",
    ),
}


def recognise(tree: Any) -> str | None:
    """The key in :data:`LAYOUTS` of the layout that a loaded pickle has, or ``None``."""
    parts = [part for part in _find_splits(tree).values() if isinstance(part, Mapping | list | tuple) and len(part)]
    if not parts:
        return None
    part = parts[0]
    if isinstance(part, Mapping):
        if {"regression_labels", "classification_labels", "text_bert", "raw_text"} & part.keys():
            return "mmsa"
        return "mult" if "labels" in part else None
    sample = part[0]
    return "mag" if isinstance(sample, list | tuple) and len(sample) == 3 else None


def splits_of(tree: Any, expected: str, path: Path) -> dict[str, Any]:
    """The three splits of a pickle that must have the layout ``expected``.

    Returns:
        ``train``, ``valid`` and ``test``, whatever the file calls them.

    Raises:
        DataError: the pickle has another layout, or a split is missing or empty.
    """
    found, layout = recognise(tree), LAYOUTS[expected]
    if found is not None and found != expected:
        other = LAYOUTS[found]
        raise DataError(f"{path}: this looks like {other.name}, not {layout.name}; use: {other.command} {path}")
    if found is None:
        raise DataError(f"{path}: not in {layout.name}; expected {layout.shape}, found {describe(tree)}")
    splits = _find_splits(tree)
    for split, names in SPLIT_NAMES.items():
        if split not in splits:
            raise DataError(f"{path}: split {split} is missing (looked for {', '.join(names)}), found {describe(tree)}")
    return splits


def check_sizes(sizes: tuple[int, ...], path: Path) -> None:
    """Raise where a split has no sample; ``sizes`` are those of train, valid and test."""
    for split, size in zip(SPLIT_NAMES, sizes, strict=True):
        if size == 0:
            raise DataError(f"{path}: split {split} is empty; all of train, valid and test need samples")


def describe(tree: Any) -> str:
    """What a loaded pickle holds, in a few words."""
    if isinstance(tree, Mapping):
        names = ", ".join(map(str, list(tree)[:8]))
        first = next(iter(tree.values()), None)
        inner = f" of dicts with {', '.join(map(str, list(first)[:8]))}" if isinstance(first, Mapping) else ""
        return f"a dict with the keys {names}{inner}" if names else "an empty dict"
    if isinstance(tree, np.ndarray):
        return f"an array of shape {tree.shape} and type {tree.dtype}"
    if isinstance(tree, list | tuple):
        return f"a {type(tree).__name__} of {len(tree)} entries"
    return f"a single {type(tree).__name__}"


def take(part: Any, key: str, where: str, expected: str) -> Any:
    """Remove the field ``key`` from a split and return it, so that its memory can go once it was read.

    Raises:
        DataError: there is no such field; names the ones there are.
    """
    if key not in part:
        raise DataError(
            f"{where}: field {key!r} is missing, found {', '.join(map(str, part))}; {LAYOUTS[expected].name} is "
            f"{LAYOUTS[expected].shape}"
        )
    return part.pop(key)


def texts(values: Any) -> list[str]:
    """A column of texts, whatever holds it: list or array of str, bytes, numpy text or numbers."""
    column = values.reshape(-1).tolist() if isinstance(values, np.ndarray) else list(values)
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in column]


def column(values: Any, count: int, where: str) -> list[str]:
    """:func:`texts` with one entry for each of ``count`` samples.

    Raises:
        DataError: another number of entries.
    """
    found = texts(values)
    if len(found) != count:
        raise DataError(f"{where}: {len(found)} entries for {count} samples; the file is damaged or mixed up")
    return found


def frames_array(values: Any, count: int, where: str) -> np.ndarray:
    """An array of frames ``(N, T, d)``; ``(N, d)`` becomes one frame per sample.

    Raises:
        DataError: no array of numbers, or another number of samples.
    """
    try:
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
        array = array.astype(np.float64) if array.dtype.kind == "O" else array
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: not an array ({error}); pad the samples to one length") from error
    array = array[:, None, :] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[1] == 0 or array.shape[2] == 0 or array.dtype.kind not in "biuf":
        raise DataError(f"{where}: shape {array.shape} and type {array.dtype}, expected numbers of shape (N, T, d)")
    if len(array) != count:
        raise DataError(f"{where}: {len(array)} rows for {count} samples; the file is damaged or mixed up")
    return array


def _find_splits(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {}
    by_name = {str(key).lower(): value for key, value in tree.items()}
    return {split: by_name[name] for split, names in SPLIT_NAMES.items() for name in reversed(names) if name in by_name}
