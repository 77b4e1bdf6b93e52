"""The masks of pairs, entry by entry."""

import itertools

import pytest
import torch

from mmsa_lib.losses.contrastive import category_pairs, cross_modal_candidates, cross_modal_positives

CATEGORIES = [0, 1, 0, 2, 1]


def test_category_pairs():
    positives, negatives = category_pairs(torch.tensor(CATEGORIES))
    for i, j in itertools.product(range(5), repeat=2):
        assert positives[i, j].item() == (i != j and CATEGORIES[i] == CATEGORIES[j])
        assert negatives[i, j].item() == (CATEGORIES[i] != CATEGORIES[j])


def test_category_pairs_leave_absent_samples_out():
    present = torch.tensor([[True] * 5, [True, False, True, True, True]])
    positives, negatives = category_pairs(torch.tensor(CATEGORIES), present)
    full = category_pairs(torch.tensor(CATEGORIES))
    assert torch.equal(positives[0], full[0])
    assert torch.equal(negatives[0], full[1])
    for mask in (positives[1], negatives[1]):
        assert not mask[1].any()
        assert not mask[:, 1].any()
    assert negatives[1].sum() == full[1].sum() - 2 * full[1][1].sum()


def test_cross_modal_positives():
    assert torch.equal(cross_modal_positives(4), torch.eye(4, dtype=torch.bool))
    wide = cross_modal_positives(5, "instance_or_category", torch.tensor(CATEGORIES))
    assert wide.tolist() == [[a == b for b in CATEGORIES] for a in CATEGORIES]


@pytest.mark.parametrize("decouple", ["cross_only", "uniformity"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_cross_only_has_no_block_inside_a_modality_and_no_diagonal(decouple, modalities):
    candidates = cross_modal_candidates(torch.eye(4, dtype=torch.bool), modalities, decouple)
    for m, t, k in itertools.product(range(modalities), repeat=3):
        block = candidates[m, t, :, k]
        if m == t or k != t:
            assert not block.any()
        else:
            assert torch.equal(block, ~torch.eye(4, dtype=torch.bool))
    for m in range(modalities):
        assert not candidates[m, :, :, m].any()


@pytest.mark.parametrize("decouple", ["self_only", "keep_intra"])
@pytest.mark.parametrize("wide", [False, True])
def test_candidates_one_by_one(decouple, wide):
    same = cross_modal_positives(5, "instance_or_category", torch.tensor(CATEGORIES)) if wide else torch.eye(5).bool()
    candidates = cross_modal_candidates(same, 3, decouple)
    for m, t, i, k, j in itertools.product(range(3), range(3), range(5), range(3), range(5)):
        stands_against = (k, j) != (m, i) if decouple == "self_only" else k in (m, t) and not same[i, j]
        assert candidates[m, t, i, k, j].item() == bool(m != t and stands_against)
