"""Missing-modality protocols: what is hidden from a trained method, at which levels.

A is frames at a common rate, B fixed subsets of modalities, C a rate of missing modalities (docs/evaluation.md,
Missing-modality protocols). Every method meets the same frozen masks (:mod:`mmsa_lib.data.missing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import torch

from mmsa_lib.data.batch import MODALITIES, Modality, Utterances
from mmsa_lib.data.missing import (
    MASK_SEED,
    Draw,
    Mask,
    MaskSet,
    Sampling,
    frame_masks,
    frozen_masks,
    presence,
    rate_available,
    stochastic_masks,
    subset_mask,
)
from mmsa_lib.errors import ConfigError, unknown_name
from mmsa_lib.evaluation.levels import COMPLETE, LEVEL_SEPARATOR, STOCHASTIC, auilc
from mmsa_lib.files import level_name

__all__ = ["COMPLETE", "LEVEL_SEPARATOR", "PROTOCOLS", "STOCHASTIC", "Protocol", "auilc", "cells", "masks", "protocol"]

FRAME_RATES = tuple(round(0.1 * step, 1) for step in range(11))
MODALITY_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2 / 3)


@dataclass(frozen=True)
class Protocol:
    """One way to make a split incomplete.

    Attributes:
        name: what runs and tables call it.
        description: one line for readers.
        levels: the levels for a split, as text.
        draw: masks of one level.
    """

    name: str
    description: str
    levels: Callable[[Utterances], list[str]]
    draw: Draw


def protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def masks(data: Utterances, name: str, *, mask_seed: int = MASK_SEED, folder: Path | str | None = None) -> MaskSet:
    """The frozen masks of ``data`` under protocol ``name``; drawn and stored where there are none yet.

    Raises:
        UnknownNameError, ConfigError: no such protocol, or it doesn't suit the data. DataError: an unusable mask file.
    """
    chosen = protocol(name)
    return frozen_masks(data, name, chosen.levels(data), chosen.draw, mask_seed=mask_seed, folder=folder)


def cells(
    data: Utterances, name: str, *, mask_seed: int = MASK_SEED, folder: Path | str | None = None
) -> Iterator[tuple[str, Utterances]]:
    """Each level of protocol ``name`` with the incomplete split, made when it is asked for.

    ``complete``, rate 0 and the subset of all modalities give ``data`` unchanged.
    """
    if name == COMPLETE:
        yield level_name(0), data
        return
    drawn = masks(data, name, mask_seed=mask_seed, folder=folder)
    for level in drawn.levels:
        yield level, drawn.apply(data, level)


def _frame_levels(data: Utterances) -> list[str]:
    return [level_name(rate) for rate in FRAME_RATES]


def _frames(
    data: Utterances, level: str, generator: torch.Generator, sampling: Sampling = "exact", joint: bool = False
) -> Mask:
    return frame_masks(data.data.valid, float(level), generator, sampling=sampling, joint=joint)


def _joint_levels(data: Utterances) -> list[str]:
    valid = data.data.valid
    first, *others = data.modalities
    if not all(torch.equal(valid[first], valid[other]) for other in others):
        raise ConfigError(
            f"protocol frames_joint hides the same steps in all modalities; those of {data.name} have different lengths"
        )
    return _frame_levels(data)


def _levels_of_one(modality: Modality, data: Utterances) -> list[str]:
    if modality not in data.modalities:
        raise ConfigError(
            f"protocol frames_{modality} needs {modality}; {data.name} carries {', '.join(data.modalities)}"
        )
    return _frame_levels(data)


def _frames_of_one(modality: Modality, data: Utterances, level: str, generator: torch.Generator) -> Mask:
    own = frame_masks({modality: data.data.valid[modality]}, float(level), generator)
    return {**data.data.valid, **own}


def _subset_levels(data: Utterances) -> list[str]:
    """Names of all non-empty subsets, the single modalities first, for instance ``text+audio``."""
    ordered = [m for m in MODALITIES if m in data.modalities]
    sizes = range(1, len(ordered) + 1)
    return [LEVEL_SEPARATOR.join(chosen) for size in sizes for chosen in combinations(ordered, size)]


def _subset(data: Utterances, level: str, generator: torch.Generator) -> Mask:
    available = level.split(LEVEL_SEPARATOR)
    return presence(subset_mask({m: valid.cpu() for m, valid in data.data.valid.items()}, available))


def _rate_levels(data: Utterances) -> list[str]:
    """Rates up to (U-1)/U that are not below what is missing by nature."""
    kinds = len(data.modalities)
    limit = (kinds - 1) / kinds
    natural = 1 - presence(data.data.observed).sum().item() / (len(data) * kinds)
    reached = [rate for rate in MODALITY_RATES if natural <= rate <= limit]
    if not reached:
        why = "with one modality none can be missing" if kinds == 1 else f"{natural:.0%} are missing by nature"
        raise ConfigError(f"protocol rate has no level for {data.name}: {why}")
    return [level_name(round(rate, 3)) for rate in reached]


_FRAMES = "frames missing at one rate in all modalities"
PROTOCOLS: dict[str, Protocol] = {
    entry.name: entry
    for entry in (
        Protocol(COMPLETE, "nothing is hidden", lambda data: [level_name(0)], lambda data, *_: data.data.valid),
        Protocol("frames", f"A: {_FRAMES}, exact counts", _frame_levels, _frames),
        *(
            Protocol(
                f"frames_{m}", f"A: frames missing in {m} alone", partial(_levels_of_one, m), partial(_frames_of_one, m)
            )
            for m in MODALITIES
        ),
        Protocol(
            "frames_joint", f"A: {_FRAMES}, whole time steps at once", _joint_levels, partial(_frames, joint=True)
        ),
        Protocol(
            "frames_bernoulli", f"A as published: {_FRAMES}, each frame on its own", _frame_levels,
            partial(_frames, sampling="bernoulli"),
        ),
        Protocol("burst", f"{_FRAMES}, in one piece", _frame_levels, partial(_frames, sampling="burst")),
        Protocol("subsets", "B: only the named modalities are available", _subset_levels, _subset),
        Protocol(
            "rate", "C: modalities missing per sample at one rate, one at least is left", _rate_levels,
            lambda data, level, generator: rate_available(data.data.observed, float(level), generator),
        ),
        Protocol(
            STOCHASTIC, "the recipe of training: subsets and frames at once", lambda data: ["msm"],
            lambda data, level, generator: stochastic_masks(data.data.observed, generator),
        ),
    )
}  # fmt: skip
"""Every protocol by its name."""
