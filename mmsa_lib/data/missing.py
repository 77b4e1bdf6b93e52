"""Missing frames and missing modalities as bool masks: True where something is still observed.

A mask only ever hides. What a sample lacks by nature stays missing, whatever a mask says of it. Random recipes keep at
least one observed frame of a sample that has any (:func:`stochastic_missing`), or one modality (:func:`rate_mask`).
Exact ones do what they are asked for: ``frame_mask`` at rate 1, or the subset ``{audio}`` of a sample without audio,
leave nothing, and a method then predicts from nothing.

All draws come from a CPU generator, so that they are the same on every device. Each modality draws from a stream of its
own: audio loses the same frames whether text is words, tokens or absent.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

import mmsa_lib
from mmsa_lib.data.batch import MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.hdf5 import add_array, read_hdf5, write_hdf5
from mmsa_lib.errors import ConfigError, DataError, unknown_name
from mmsa_lib.paths import masks_folder

Sampling = Literal["exact", "bernoulli", "burst"]

DROP_STEPS = 10
"""The stochastic recipe draws its frame-drop ratio from 0, .1, … .9."""

RATE_TOLERANCE = 5e-4
"""How far a missing rate may exceed (U-1)/U: two thirds are commonly written as .667."""


def frame_mask(valid: Tensor, rate: float, generator: torch.Generator, *, bernoulli: bool = False) -> Tensor:
    """Hide exactly ``round(rate * L)`` of the ``L`` valid frames of each sample, chosen at random.

    Halves are rounded to even, as Python does. Source: protocol A of TFR-Net, EMT-DLFR and MMSA [C]; the exact count
    is ours [R] and takes the noise of the count out of a curve over rates.

    Args:
        valid: ``(B, T)`` bool.
        rate: share of frames to hide, 0 … 1.
        generator: CPU generator.
        bernoulli: the published form instead: each frame is hidden on its own with probability ``rate``.

    Returns:
        ``(B, T)`` bool on the device of ``valid``, a subset of it.

    Raises:
        ConfigError: the rate is not in 0 … 1.
    """
    _check_rate(rate)
    frames = valid.cpu()
    score = torch.rand(frames.shape, generator=generator)
    if bernoulli:  # >= and not >: rate 0 hides nothing even where a draw is exactly 0
        kept = score >= rate
    else:
        order = score.masked_fill(~frames, 2.0).argsort(dim=-1).argsort(dim=-1)
        kept = order >= _hidden_counts(frames, rate)
    return (frames & kept).to(valid.device)


def burst_mask(valid: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Hide ``round(rate * L)`` valid frames of each sample in one contiguous piece that starts anywhere it fits [R].

    Args and returns as :func:`frame_mask`.
    """
    _check_rate(rate)
    frames = valid.cpu()
    hidden = _hidden_counts(frames, rate)
    places = frames.sum(-1, keepdim=True) - hidden + 1
    start = (torch.rand(hidden.shape, generator=generator, dtype=torch.float64) * places).floor()
    position = frames.cumsum(-1) - 1
    return (frames & ((position < start) | (position >= start + hidden))).to(valid.device)


def frame_masks(
    valid: Mapping[Modality, Tensor],
    rate: float,
    generator: torch.Generator,
    *,
    sampling: Sampling = "exact",
    joint: bool = False,
) -> dict[Modality, Tensor]:
    """Frames of all modalities hidden at one rate.

    A modality with a single frame per sample (features of a whole utterance) can't lose a share of its frames: of its
    samples, ``round(rate * N)`` lose it altogether.

    Args:
        valid: per modality ``(B, T_m)`` bool.
        rate, generator: as for :func:`frame_mask`.
        sampling: ``"exact"``, ``"bernoulli"`` (published form) or ``"burst"`` (one contiguous piece).
        joint: modalities whose valid frames agree lose the same frames, so that whole time steps vanish; by default
            modalities are independent. (With one mask seed for all, published code does this unasked on aligned data.)

    Returns:
        Per modality a mask ``(B, T_m)``.
    """
    if sampling not in ("exact", "bernoulli", "burst"):
        raise unknown_name("sampling of frames", sampling, ("exact", "bernoulli", "burst"))
    streams = _streams(generator)
    masks: dict[Modality, Tensor] = {}
    for modality in _ordered(valid):
        twin = next((m for m in masks if joint and torch.equal(valid[m], valid[modality])), None)
        frames, stream = valid[modality], streams[modality]
        if twin:
            masks[modality] = masks[twin].clone()
        elif sampling == "bernoulli":
            masks[modality] = frame_mask(frames, rate, stream, bernoulli=True)
        elif int(frames.sum(-1).max()) <= 1:
            masks[modality] = frame_mask(frames.flatten().unsqueeze(0), rate, stream).view_as(frames)
        else:
            masks[modality] = (burst_mask if sampling == "burst" else frame_mask)(frames, rate, stream)
    return masks


def subset_mask(valid: Mapping[Modality, Tensor], available: Iterable[Modality] | Tensor) -> dict[Modality, Tensor]:
    """Hide whole modalities.

    Args:
        valid: per modality ``(N, T_m)`` bool; with what is observed instead, natural gaps are part of the result.
        available: names of the modalities that stay, the same for all samples, or ``(N, 3)`` bool in the order text,
            audio, vision.

    Returns:
        Per modality a mask ``(N, T_m)``.

    Raises:
        UnknownNameError: a name that ``valid`` lacks. DataError: ``available`` has another shape.
    """
    count = len(next(iter(valid.values())))
    if not isinstance(available, Tensor):
        names = [available] if isinstance(available, str) else list(available)
        for name in names:
            if name not in valid:
                raise unknown_name("modality", name, valid)
        available = torch.tensor([m in names for m in MODALITIES]).expand(count, -1)
    if available.shape != (count, len(MODALITIES)):
        raise DataError(f"available has shape {tuple(available.shape)}, expected ({count}, {len(MODALITIES)})")
    columns = {m: available[:, MODALITIES.index(m), None].bool() for m in valid}
    return {m: valid[m] & columns[m].to(valid[m].device) for m in _ordered(valid)}


def rate_mask(
    valid_by_modality: Mapping[Modality, Tensor], missing_rate: float, generator: torch.Generator
) -> dict[Modality, Tensor]:
    """Hide whole modalities per sample, so that their missing rate over all samples is ``missing_rate`` (protocol C).

    ``MR = 1 - sum_i n_i / (N U)``, with ``n_i >= 1`` the modalities that sample ``i`` has left (CPM-Net, GCNet, DiCMoR,
    IMDer [C]). Each sample keeps one modality, drawn uniformly; of all others as many are hidden as the rate asks for.

    Args:
        valid_by_modality: per modality ``(N, T_m)`` bool. A row without any True is a modality that is missing by
            nature; it counts as missing and a sample never keeps it as its only one.
        missing_rate: 0 … (U-1)/U for U modalities.
        generator: CPU generator.

    Returns:
        Per modality a mask ``(N, T_m)``.

    Raises:
        ConfigError: a rate that leaves some sample without a modality, or less than is missing by nature.
    """
    return subset_mask(valid_by_modality, rate_available(valid_by_modality, missing_rate, generator))


def rate_available(
    valid_by_modality: Mapping[Modality, Tensor], missing_rate: float, generator: torch.Generator
) -> Tensor:
    """Which modalities :func:`rate_mask` leaves, ``(N, 3)`` bool in the order text, audio, vision."""
    has = presence(valid_by_modality)
    kinds = len(valid_by_modality)
    limit, natural = (kinds - 1) / kinds, 1 - float(has.sum()) / (len(has) * kinds)
    if not 0 <= missing_rate <= limit + RATE_TOLERANCE:
        raise ConfigError(
            f"missing rate {missing_rate:g} is not in 0 … {limit:.3g}: with {kinds} modalities, more would leave a "
            "sample without any"
        )
    cells = len(has) * kinds
    hidden = round(missing_rate * cells) - (cells - int(has.sum()))
    if hidden < 0:
        raise ConfigError(
            f"missing rate {missing_rate:g} is below the {natural:.3g} that is missing by nature; choose a higher one"
        )
    score = torch.rand(has.shape, generator=generator)
    kept = torch.zeros_like(has)
    kept[torch.arange(len(has)), score.masked_fill(~has, -1.0).argmax(-1)] = True
    free = (has & ~kept).flatten().nonzero().squeeze(-1)
    lost = free[torch.randperm(len(free), generator=generator)[:hidden]]
    left = has.flatten().clone()
    left[lost] = False
    return left.view_as(has)


def stochastic_missing(batch: Batch, generator: torch.Generator) -> Batch:
    """Make a batch incomplete by HRLF's stochastic missing strategy, which drops modalities and frames at once.

    The paper says no more than that both kinds happen together [P]; the distribution is ours [R]
    (docs/methods/hrlf.md): per sample a set of available modalities, uniform over the non-empty subsets of what it has;
    per available modality a drop ratio, uniform over 0, .1, … .9; frames drop independently. A sample that would lose
    everything keeps one random frame of its available modalities.

    Args:
        batch: any batch; its natural gaps stay.
        generator: CPU generator; its state moves on by the same amount for every batch.

    Returns:
        The batch with more missing: zero vectors, unknown tokens.
    """
    return batch.hide(stochastic_masks(batch.observed, generator))


def stochastic_masks(observed: Mapping[Modality, Tensor], generator: torch.Generator) -> dict[Modality, Tensor]:
    """The masks of :func:`stochastic_missing`, per modality ``(B, T_m)``, for what is ``observed``."""
    streams = _streams(generator)
    frames = {m: observed[m].cpu() for m in _ordered(observed)}
    chosen = _draw_subsets(presence(frames), streams["subset"])
    available = subset_mask(frames, chosen)
    masks = {m: mask & ~_drops(mask.shape, streams[m]) for m, mask in available.items()}
    masks = _keep_one_frame(masks, available, streams["rescue"])
    return {m: mask.to(observed[m].device) for m, mask in masks.items()}


def presence(observed: Mapping[Modality, Tensor]) -> Tensor:
    """Which modalities each sample has at least one frame of, ``(N, 3)`` bool on the CPU: text, audio, vision."""
    count = len(next(iter(observed.values())))
    absent = torch.zeros(count, dtype=torch.bool)
    return torch.stack([observed[m].any(-1).cpu() if m in observed else absent for m in MODALITIES], dim=-1)


def _streams(generator: torch.Generator) -> dict[str, torch.Generator]:
    """Independent generators by name, whatever modalities the data carry and however long they are."""
    names = (*MODALITIES, "subset", "rescue")
    seeds = torch.randint(2**32, (len(names),), generator=generator).tolist()
    return {name: torch.Generator().manual_seed(seed) for name, seed in zip(names, seeds, strict=True)}


def _draw_subsets(has: Tensor, generator: torch.Generator) -> Tensor:
    """Per row a uniformly drawn non-empty subset of its True columns, ``(B, 3)``; nothing for a row without any."""
    subsets = torch.tensor([[code >> bit & 1 for bit in range(has.shape[1])] for code in range(1, 2 ** has.shape[1])])
    subsets = subsets.bool()
    impossible = (subsets & ~has.unsqueeze(1)).any(-1)
    score = torch.rand(impossible.shape, generator=generator).masked_fill(impossible, -1.0)
    return subsets[score.argmax(-1)] & has


def _drops(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Frames to drop: one ratio per row, then each frame on its own."""
    ratio = torch.randint(DROP_STEPS, (shape[0], 1), generator=generator) / DROP_STEPS
    return torch.rand(shape, generator=generator) < ratio


def _keep_one_frame(
    masks: dict[Modality, Tensor], available: Mapping[Modality, Tensor], generator: torch.Generator
) -> dict[Modality, Tensor]:
    """The masks, where each sample that lost everything has one of its available frames back."""
    kept, before = torch.cat(list(masks.values()), -1), torch.cat(list(available.values()), -1)
    score = torch.rand(before.shape, generator=generator).masked_fill(~before, -1.0)
    rescued = before & (torch.arange(before.shape[-1]) == score.argmax(-1, keepdim=True))
    kept = torch.where(kept.any(-1, keepdim=True), kept, rescued)
    return dict(zip(masks, kept.split([mask.shape[-1] for mask in masks.values()], dim=-1), strict=True))


def _hidden_counts(frames: Tensor, rate: float) -> Tensor:
    """``round(rate * L)`` per row, ``(B, 1)``."""
    return (rate * frames.sum(-1, keepdim=True).double()).round().long()


def _ordered(by_modality: Mapping[Modality, Tensor]) -> list[Modality]:
    return [m for m in MODALITIES if m in by_modality]


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise ConfigError(f"rate={rate!r} is not in 0 … 1; it is the share of frames to hide")


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
        try:
            (path.parent / ".locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.parent / ".locks" / f"{path.name}.lock").acquire()
        except OSError as error:
            raise DataError(f"cannot write masks to {path.parent}: {error.strerror}; set MMSA_LIB_MASKS") from error
        with lock:
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
    that train on incomplete samples are selected on the same validation samples (docs/evaluation.md).
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
            expected = {m: tuple(data.data.valid[m].shape) for m in data.modalities}
            expected = {AVAILABLE: (len(data), len(MODALITIES))} if AVAILABLE in mask else expected
            shapes = {key: tuple(values.shape) for key, values in mask.items()}
            if shapes != expected:
                raise DataError(f"{path} {name} has arrays {shapes}, the data need {expected}; {again}")
            found[level] = mask.get(AVAILABLE, {m: mask[m] for m in MODALITIES if m in mask})
    return MaskSet(protocol, mask_seed, found)


def ids_digest(ids: Sequence[str]) -> str:
    """SHA-256 of sample identifiers in their order."""
    return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


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
