"""Folds by group (whole videos), the same on every machine and for every library version.

Groups are put in the order of the SHA-256 of a fold name and the group's name: an arbitrary but fixed order that
depends on no random number generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from mmsa_lib.errors import ConfigError


def hash_order(names: Iterable[str], salt: str) -> list[str]:
    """The distinct ``names``, ordered by the SHA-256 of ``salt:name``."""
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).hexdigest())


def hold_out(groups: Sequence[str], candidates: np.ndarray, share: float, salt: str) -> np.ndarray:
    """Mark whole groups, about ``share`` of those that have ``candidates``.

    Args:
        groups: ``(N,)`` group of each sample.
        candidates: ``(N,)`` bool, the samples that may be held out.
        share: share of the candidates' groups, rounded to a whole number of groups.
        salt: name of the fold.

    Returns:
        ``(N,)`` bool.
    """
    pool = hash_order((group for group, is_one in zip(groups, candidates, strict=True) if is_one), salt)
    held = set(pool[: round(share * len(pool))])
    return candidates & np.array([group in held for group in groups])


def with_valid(splits: np.ndarray, groups: Sequence[str], share: float, where: str) -> tuple[np.ndarray, list[str]]:
    """Splits of a file, with a validation split cut from whole groups of its training split where it has none.

    Args:
        splits: ``(N,)`` train, valid or test.
        groups: ``(N,)`` video of each sample.
        share: share of the training videos; 0 cuts nothing.
        where: begins the message.

    Returns:
        ``(N,)`` splits, and a remark on what was cut.

    Raises:
        ConfigError: the share leaves one of the two splits without a video.
    """
    if not share:
        return splits, []
    train = splits == "train"
    valid = hold_out(groups, train, share, "valid") if 0 < share < 1 else train
    videos = len({group for group, is_one in zip(groups, valid, strict=True) if is_one})
    if not valid.any() or (valid == train).all():
        raise ConfigError(f"{where}: a share of {share:g} leaves train or valid without a video; choose another one")
    what = f"{int(valid.sum())} samples of {videos} videos of train, in the order of the hashes of their names"
    return np.where(valid, "valid", splits), [f"the file has no split valid: cut {what} (share {share:g})"]


def cross_validation(groups: Sequence[str], members: np.ndarray, parts: int, name: str) -> dict[str, np.ndarray]:
    """Cross-validation by group over the samples marked in ``members``.

    The groups are dealt out to ``parts`` parts. In fold ``<name>-<k>`` part ``k`` is the test split, the next part
    (cyclically) the validation split, the rest the training split; samples outside ``members`` have split ``""``.

    Args:
        groups: ``(N,)`` group of each sample.
        members: ``(N,)`` bool.
        parts: number of folds, at least 3.
        name: name of the fold, also the salt of the order.
    """
    order = hash_order((group for group, is_one in zip(groups, members, strict=True) if is_one), name)
    if not 3 <= parts <= len(order):
        raise ConfigError(f"fold {name}: {parts} parts of {len(order)} groups; use 3 to {len(order)} parts")
    part_of = {group: position % parts for position, group in enumerate(order)}
    part = np.array([part_of.get(group, -1) for group in groups])
    part[~members] = -1
    folds = {}
    for k in range(parts):
        splits = np.where(part == k, "test", np.where(part == (k + 1) % parts, "valid", "train"))
        folds[f"{name}-{k}"] = np.where(part == -1, "", splits)
    return folds
