"""Frozen masks: drawn once per split, protocol and mask seed, written to HDF5 and read by every method.

One file per split, protocol and mask seed; its name holds a digest of the split's identifiers and frames. Its groups
``/<protocol>/<level>/<mask seed>`` have one bool array ``(N, T_m)`` per modality (True is observed), or one array
``available`` ``(N, 3)`` in the order text, audio, vision (evaluation.md, section 5).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

import mmsa_lib
from mmsa_lib.data.batch import MODALITIES, Modality, Utterances
from mmsa_lib.data.hdf5 import add_array, read_hdf5, write_hdf5
from mmsa_lib.data.missing import stochastic_masks, subset_mask
from mmsa_lib.errors import DataError
from mmsa_lib.paths import masks_folder

MASK_SEED = 1111
"""The mask seed of MMSA; all methods are tested under the same masks."""

AVAILABLE = "available"

Mask = Mapping[Modality, Tensor] | Tensor
"""Per modality ``(N, T_m)``, or available modalities ``(N, 3)``."""

Draw = Callable[[Utterances, str, torch.Generator], Mask]
"""Draws the mask of one level."""


@dataclass(frozen=True, eq=False)
class MaskSet:
    """The masks of one split under one protocol.

    Attributes:
        protocol, mask_seed: what was drawn.
        levels: level to its mask, in the order of the protocol.
    """

    protocol: str
    mask_seed: int
    levels: dict[str, Mask]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all masks; equal masks have equal fingerprints on every machine."""
        digest = hashlib.sha256()
        for level, mask in self.levels.items():
            for name, values in _arrays(mask).items():
                digest.update(f"{level}/{name}/{values.shape}".encode() + np.packbits(values).tobytes())
        return digest.hexdigest()

    def apply(self, data: Utterances, level: str) -> Utterances:
        """``data`` with what this ``level`` hides; other samples than the masks were drawn for are an error."""
        mask = self.levels[level]
        if isinstance(mask, Tensor):
            mask = subset_mask({m: valid.cpu() for m, valid in data.data.valid.items()}, mask)
        return data.hide(mask)


def level_name(level: float | str) -> str:
    """A level as files and tables spell it: a rate as ``0.1``, else its name, such as ``text+audio``."""
    try:
        return str(round(float(level), 6))
    except ValueError:
        return str(level)


def frozen_masks(
    data: Utterances,
    protocol: str,
    levels: Sequence[str],
    draw: Draw,
    *,
    mask_seed: int = MASK_SEED,
    folder: Path | str | None = None,
) -> MaskSet:
    """The masks of ``data`` under ``protocol``: read from their file, or drawn and written first.

    Several processes may ask at once; one draws, all read the same file.

    Args:
        data: the split.
        protocol: name of the protocol.
        levels: its levels, as :func:`level_name` spells them.
        draw: called with the split, a level and a generator that is seeded from data set, fold, split, protocol, level
            and mask seed.
        folder: where mask files lie, by default :func:`mmsa_lib.paths.masks_folder`.

    Raises:
        DataError: the file is damaged, of other samples, lacks a level or can't be written.
    """
    path = mask_path(data, protocol, mask_seed, folder)
    if not path.is_file():
        with _locked(path):
            if not path.is_file():
                drawn = {level: draw(data, level, _generator(data, protocol, level, mask_seed)) for level in levels}
                write_masks(path, data, MaskSet(protocol, mask_seed, drawn))
    return read_masks(path, data, protocol, levels, mask_seed=mask_seed)


def mask_path(data: Utterances, protocol: str, mask_seed: int, folder: Path | str | None = None) -> Path:
    """Where the masks of ``data`` under ``protocol`` belong."""
    parts = (data.name, data.fold, data.split, _layout(data)[:12], protocol, str(mask_seed))
    name = "-".join(re.sub(r"[^A-Za-z0-9_.+]", "_", part) for part in parts)
    return Path(folder or masks_folder()) / f"{name}.h5"


def stochastic_validation(valid: Utterances, mask_seed: int = MASK_SEED) -> Utterances:
    """A validation split made incomplete once by :func:`mmsa_lib.data.missing.stochastic_missing`.

    The masks are those of protocol ``stochastic``. They depend on the split and ``mask_seed`` alone: all methods
    that train on incomplete samples are selected on the same validation samples (evaluation.md, 5.1).
    """
    generator = _generator(valid, "stochastic", "msm", mask_seed)
    return valid.hide(stochastic_masks(valid.data.observed, generator))


def write_masks(path: Path, data: Utterances, masks: MaskSet) -> None:
    """Write a mask file, whole or not at all; equal masks give equal bytes."""
    text = f"token {data.data.unknown_token}" if data.data.tokens is not None else "zero vectors"

    def fill(file: h5py.File) -> None:
        for level, mask in masks.levels.items():
            group = file.create_group(f"{masks.protocol}/{level}/{masks.mask_seed}")
            for name, values in _arrays(mask).items():
                add_array(group, name, values)
            group.attrs.update({
                "dataset": data.name, "fold": data.fold, "split": data.split, "ids_sha256": ids_digest(data.ids),
                "protocol": masks.protocol, "level": level, "mask_seed": masks.mask_seed,
                "missing": "zero vectors", "missing_text": text, "joint": masks.protocol == "frames_joint",
                "library": mmsa_lib.__version__,
            })  # fmt: skip

    write_hdf5(path, fill)


def read_masks(
    path: Path | str, data: Utterances, protocol: str, levels: Sequence[str], *, mask_seed: int = MASK_SEED
) -> MaskSet:
    """Read a mask file and check that it belongs to ``data``.

    Raises:
        DataError: the file is missing or damaged, or of other samples, another protocol or other frames; says which.
    """
    again = "delete it, and it is drawn again"
    found: dict[str, Mask] = {}
    with read_hdf5(path, again) as file:
        for level in levels:
            name = f"{protocol}/{level}/{mask_seed}"
            if name not in file:
                raise DataError(f"{path} holds no masks {name}; {again}")
            group = file[name]
            if group.attrs["ids_sha256"] != ids_digest(data.ids):
                of = "/".join(str(group.attrs[key]) for key in ("dataset", "fold", "split"))
                here = f"{data.name}/{data.fold}/{data.split}"
                raise DataError(f"{path} was drawn for other samples ({of}) than those of {here}; {again}")
            mask = {key: torch.from_numpy(group[key][:].astype(bool)) for key in group}
            _check_shapes(path, name, mask, data, again)
            found[level] = mask.get(AVAILABLE, {m: mask[m] for m in MODALITIES if m in mask})
    return MaskSet(protocol, mask_seed, found)


def ids_digest(ids: Sequence[str]) -> str:
    """SHA-256 of sample identifiers in their order."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def _check_shapes(path: Path | str, name: str, mask: dict[str, Tensor], data: Utterances, remedy: str) -> None:
    if AVAILABLE in mask:
        expected = {AVAILABLE: (len(data), len(MODALITIES))}
    else:
        expected = {m: tuple(data.data.valid[m].shape) for m in data.modalities}
    found = {key: tuple(values.shape) for key, values in mask.items()}
    if found != expected:
        raise DataError(f"{path} {name} has arrays {found}, the data need {expected}; {remedy}")


def _layout(data: Utterances) -> str:
    """SHA-256 of what masks depend on: identifiers, valid and observed frames, and whether text is tokens."""
    digest = hashlib.sha256(ids_digest(data.ids).encode() + str(data.data.tokens is not None).encode())
    for modality in data.modalities:
        for mask in (data.data.valid[modality], data.data.observed[modality]):
            digest.update(f"{modality}{tuple(mask.shape)}".encode() + np.packbits(mask.cpu().numpy()).tobytes())
    return digest.hexdigest()


def _generator(data: Utterances, protocol: str, level: str, mask_seed: int) -> torch.Generator:
    parts = json.dumps([data.name, data.fold, data.split, protocol, level, mask_seed])
    return torch.Generator().manual_seed(int(hashlib.sha256(parts.encode()).hexdigest()[:8], 16))


def _arrays(mask: Mask) -> dict[str, np.ndarray]:
    by_name = {AVAILABLE: mask} if isinstance(mask, Tensor) else mask
    return {name: values.cpu().numpy().astype(bool) for name, values in by_name.items()}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        (path.parent / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / ".locks" / f"{path.name}.lock")
        lock.acquire()
    except OSError as error:
        raise DataError(f"cannot write masks to {path.parent}: {error.strerror}; set MMSA_LIB_MASKS") from error
    try:
        yield
    finally:
        lock.release()
