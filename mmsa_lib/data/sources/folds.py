"""Folds by group (whole videos), the same on every machine and for every library version.

Groups are put in the order of the SHA-256 of a fold name and the group's name: an arbitrary but fixed order that
depends on no random number generator.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmsa_lib.data.record import SPLITS
from mmsa_lib.data.sources.layouts import DOUBT
from mmsa_lib.errors import ConfigError, DataError

WIDE = 0.05
"""Share of all samples by which a split may miss what was asked for before a warning says so."""


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


@dataclass(frozen=True)
class Splitting:
    """How the fold ``standard`` of an imported file is made, where its own splits are not simply taken.

    Attributes:
        split: shares of train, valid and test to be cut, as ``70/10/20`` or ``0.7/0.1/0.2``; empty cuts nothing.
        groups: column or field that names the group (video, speaker) of each sample; empty for the usual one.
        seed: of the cut.
        cut_valid: share of the training groups that become ``valid``, for a file without such a split.
        unlabelled: the samples are to be predicted: any splits will do, and labels are only shown.

    Raises:
        ConfigError: a value is no such thing.
    """

    split: str = ""
    groups: str = ""
    seed: int = 0
    cut_valid: float = 0.0
    unlabelled: bool = False

    def __post_init__(self) -> None:
        if self.split and self.cut_valid:
            raise ConfigError("--split cuts all splits and --cut-valid one; give one of them")
        if self.seed < 0 or (self.seed and not self.split):
            raise ConfigError(f"--seed {self.seed}: give a whole number from 0 up, together with --split")
        _ = self.shares

    @property
    def shares(self) -> dict[str, float]:
        """Split to the share that is asked for; empty where nothing is cut."""
        if not self.split:
            return {}
        try:
            parts = [float(part) for part in re.split("[/,:]", self.split.replace("%", ""))]
        except ValueError:
            parts = []
        total = sum(parts)
        if len(parts) != 3 or not min(parts) > 0 or min(abs(total - 1), abs(total - 100)) > 1e-6:
            what = "give three shares above 0, of train, valid and test, that add up to 100, as 70/10/20"
            raise ConfigError(f"--split {self.split}: {what}")
        return {split: part / total for split, part in zip(SPLITS, parts, strict=True)}

    def folds(self, given: np.ndarray, groups: Sequence[str], where: str) -> tuple[dict[str, np.ndarray], list[str]]:
        """The folds of a file, and remarks on how they came about.

        Args:
            given: ``(N,)`` splits of the file, empty where it has none; all three stay as the fold ``given``.
            groups: ``(N,)`` group of each sample.
            where: begins the message.

        Raises:
            ConfigError: no validation split can be cut.
            DataError: there are fewer than three groups.
        """
        if self.unlabelled:
            return {}, []
        if not self.split:
            standard, said = with_valid(given, groups, self.cut_valid, where)
            return {"standard": standard}, said
        standard, said = cut_groups(groups, self.shares, self.seed, where)
        if len(set(groups)) == len(groups):
            said.append(
                f"{DOUBT}each sample is a group of its own, so that samples of one video may lie in several splits; "
                "name the column of videos or speakers (--groups COLUMN)"
            )
        if not set(SPLITS) <= set(given):
            return {"standard": standard}, said
        return {"standard": standard, "given": given}, [*said, f"{DOUBT}the file's own splits are the fold 'given' now"]


def cut_groups(
    groups: Sequence[str], shares: Mapping[str, float], seed: int, where: str
) -> tuple[np.ndarray, list[str]]:
    """Splits of whole groups, the same on every machine, and remarks on what was reached.

    Groups come in the order of the hashes of their names and the seed, each for the split that lacks most samples; then
    single groups move for as long as that brings the sizes closer to what was asked for.

    Args:
        groups: ``(N,)`` group of each sample.
        shares: split to its share of the samples; together 1.
        where: begins the message.

    Raises:
        DataError: there are fewer groups than splits.
    """
    sizes, members, split_of = Counter(groups), dict.fromkeys(shares, 0), {}
    if len(sizes) < len(shares):
        names = ", ".join(map(repr, sizes))
        what = f"{len(sizes)} groups ({names}) can't be cut into {len(shares)} splits without sharing one"
        raise DataError(f"{where}: {what}; choose another column (--groups COLUMN)")
    lacking = {split: share * len(groups) for split, share in shares.items()}
    order = hash_order(sizes, f"split:{seed}")
    for left, group in zip(range(len(sizes), 0, -1), order, strict=True):
        empty = [split for split in shares if not members[split]]
        split_of[group] = split = max(empty if left <= len(empty) else shares, key=lacking.__getitem__)
        members[split] += sizes[group]
        lacking[split] -= sizes[group]
    counts, moved = Counter(split_of.values()), True
    while moved:
        moved = False
        for group in order:
            here, there, size = split_of[group], max(shares, key=lacking.__getitem__), sizes[group]
            if counts[here] > 1 and lacking[here] - lacking[there] + size < -1e-9:  # a smaller sum of squares
                moved, split_of[group] = True, there
                for split, step in ((here, -1), (there, 1)):
                    counts[split] += step
                    members[split] += step * size
                    lacking[split] -= step * size
    asked = "/".join(f"{100 * share:g}" for share in shares.values())
    each = ", ".join(f"{split} {members[split]} samples of {counts[split]} groups" for split in shares)
    reached = f"{'/'.join(f'{100 * number / len(groups):.3g}' for number in members.values())} %"
    said = [f"splits cut {asked} by whole groups with seed {seed}, reached {reached}: {each}"]
    if max(map(abs, lacking.values())) > WIDE * len(groups):
        group, size = sizes.most_common(1)[0]
        why = f"groups stay whole, and the largest, {group!r}, has {size} of {len(groups)} samples"
        said.append(f"{DOUBT}the splits reached {reached} where {asked} was asked for: {why}")
    return np.array([split_of[group] for group in groups]), said


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
