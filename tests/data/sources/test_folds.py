"""Folds by whole groups."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from mmsa_lib.data.sources.folds import cross_validation, hash_order, hold_out, with_valid
from mmsa_lib.errors import ConfigError

GROUPS = [f"video{i % 13}" for i in range(60)]
MEMBERS = np.array([int(group[5:]) < 11 for group in GROUPS])


def test_hash_order_is_fixed_and_depends_on_the_salt():
    digests = {name: hashlib.sha256(b"fold:" + name.encode()).hexdigest() for name in "abc"}
    assert hash_order(["c", "a", "b", "a"], "fold") == [name for _, name in sorted((d, n) for n, d in digests.items())]
    assert hash_order(map(str, range(9)), "one") != hash_order(map(str, range(9)), "two")


def test_hold_out_takes_whole_groups_of_the_candidates():
    held = hold_out(GROUPS, MEMBERS, 0.27, "fold")
    held_groups = {group for group, is_held in zip(GROUPS, held, strict=True) if is_held}
    assert len(held_groups) == round(0.27 * 11)
    assert not (held & ~MEMBERS).any()
    assert all(is_held == (group in held_groups) for group, is_held in zip(GROUPS, held, strict=True))
    assert (hold_out(GROUPS, MEMBERS, 0.27, "other") != held).any()


def test_cross_validation_tests_and_validates_each_group_once():
    folds = cross_validation(GROUPS, MEMBERS, 5, "cv")
    assert list(folds) == [f"cv-{k}" for k in range(5)]
    tested, validated = Counter(), Counter()
    for splits in folds.values():
        assert ((splits == "") == ~MEMBERS).all()
        by_split = {s: {g for g, x in zip(GROUPS, splits, strict=True) if x == s} for s in ("train", "valid", "test")}
        assert sum(map(len, by_split.values())) == 11
        assert set.union(*by_split.values()) == {f"video{i}" for i in range(11)}
        tested.update(by_split["test"])
        validated.update(by_split["valid"])
    assert set(tested.values()) == set(validated.values()) == {1}
    assert len(tested) == len(validated) == 11


def test_validation_is_the_next_folds_test():
    folds = cross_validation(GROUPS, MEMBERS, 4, "cv")
    for k in range(4):
        assert ((folds[f"cv-{k}"] == "valid") == (folds[f"cv-{(k + 1) % 4}"] == "test")).all()


@pytest.mark.parametrize("parts", [2, 12])
def test_impossible_number_of_parts(parts):
    with pytest.raises(ConfigError, match="11 groups"):
        cross_validation(GROUPS, MEMBERS, parts, "cv")


def test_a_validation_split_is_cut_from_whole_videos_of_train():
    splits = np.repeat(["train", "test"], [20, 6])
    groups = [f"v{i // 2}" for i in range(26)]
    cut, remarks = with_valid(splits, groups, 0.2, "f")
    assert (cut[20:] == "test").all()
    assert (cut == "valid").sum() == 4
    assert all(cut[2 * i] == cut[2 * i + 1] for i in range(13))
    assert (with_valid(splits, groups, 0.2, "f")[0] == cut).all()
    assert "4 samples of 2 videos" in remarks[0]
    assert with_valid(splits, groups, 0, "f")[1] == []
    for share in (-0.1, 0.01, 0.99, 1, 2):
        with pytest.raises(ConfigError, match="f: a share of"):
            with_valid(splits, groups, share, "f")
