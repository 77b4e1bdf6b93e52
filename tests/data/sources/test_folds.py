"""Folds by whole groups."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from mmsa_lib.data.sources.folds import Splitting, cross_validation, cut_groups, hash_order, hold_out, with_valid
from mmsa_lib.errors import ConfigError, DataError

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


SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_takes_whole_groups_and_comes_close_to_what_was_asked_for(seed):
    generator = np.random.default_rng(seed)
    groups = [f"v{i}" for i in generator.integers(0, 80, 400)]
    splits, (said,) = cut_groups(groups, SHARES, seed, "file")
    assert all(len({s for s, g in zip(splits, groups, strict=True) if g == name}) == 1 for name in set(groups))
    largest = Counter(groups).most_common(1)[0][1]
    for split, share in SHARES.items():
        assert abs((splits == split).sum() - share * 400) <= largest
        assert f"{split} {(splits == split).sum()} samples" in said
    assert f"with seed {seed}" in said
    again = dict(zip(reversed(groups), cut_groups(groups[::-1], SHARES, seed, "file")[0], strict=True))
    assert [again[group] for group in groups] == splits.tolist()  # whatever the order of the rows
    assert (cut_groups(groups, SHARES, seed + 1, "file")[0] != splits).any()


def test_a_cut_is_the_same_on_every_machine():
    splits, _ = cut_groups([f"video{i}" for i in range(10)], SHARES, 3, "file")
    assert "".join(split[1] for split in splits) == "arrrreerrr"
    assert Counter(splits) == {"train": 7, "valid": 1, "test": 2}


def test_groups_of_any_size_come_as_close_as_single_moves_can():
    groups = [name for name, size in {"a": 6, "b": 6, "c": 5, "d": 5, "e": 5, "f": 3}.items() for _ in range(size)]
    for seed in range(20):
        splits, _ = cut_groups(groups, {"train": 0.6, "valid": 0.2, "test": 0.2}, seed, "file")
        sizes = Counter(splits)
        assert max(abs(sizes[s] - n) for s, n in {"train": 18, "valid": 6, "test": 6}.items()) <= 3


def test_a_huge_group_is_said_and_no_split_stays_empty():
    splits, said = cut_groups(["talk"] * 90 + ["a"] * 5 + ["b"] * 5, SHARES, 0, "file")
    assert set(splits) == set(SHARES)
    assert any(note.startswith("check: the splits reached") and "'talk', has 90 of 100" in note for note in said)
    with pytest.raises(DataError, match=r"file: 2 groups \('a', 'b'\) can't be cut into 3 splits"):
        cut_groups(["a", "b"] * 9, SHARES, 0, "file")


@pytest.mark.parametrize(
    "text", ["70/10", "70/10/10", "0/50/50", "a/b/c", "1/1/1", "-10/90/20", "nan/1/1", "70/10/20/0", " "]
)
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match="add up to 100, as 70/10/20"):
        _ = Splitting(split=text)


def test_shares_may_be_fractions_and_options_must_fit():
    assert Splitting(split="0.7/0.1/0.2").shares == pytest.approx(SHARES)
    assert Splitting(split="70%,10%,20%").shares == pytest.approx(SHARES)
    with pytest.raises(ConfigError, match="together with --split"):
        Splitting(seed=1)
    with pytest.raises(ConfigError, match="give one of them"):
        Splitting(split="70/10/20", cut_valid=0.1)


def test_the_splits_of_a_file_stay_beside_those_that_are_cut():
    given = np.array(["train", "valid", "test"] * 20)
    folds, said = Splitting(split="70/10/20").folds(given, GROUPS, "file")
    assert list(folds) == ["standard", "given"]
    assert folds["given"] is given
    assert any("fold 'given'" in note for note in said)
    folds, said = Splitting(split="70/10/20").folds(np.full(60, ""), [str(i) for i in range(60)], "file")
    assert list(folds) == ["standard"]
    assert any("each sample is a group of its own" in note for note in said)
