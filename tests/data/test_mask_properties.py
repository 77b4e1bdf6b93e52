"""What holds of every mask, whatever the batch: it only hides, by the exact count, and each sample for itself."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmsa_lib.data.batch import MODALITIES, Batch, Utterances
from mmsa_lib.data.missing import (
    burst_mask,
    frame_mask,
    frame_masks,
    presence,
    rate_available,
    rate_mask,
    stochastic_masks,
    stochastic_missing,
    subset_mask,
)
from mmsa_lib.data.task import regression

SEEDS = st.integers(0, 2**32)
RATES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def masks(draw, scattered=True):
    """``(B, T)`` bool: frames of each sample, in one run from the start or anywhere."""
    samples, steps = draw(st.integers(1, 7)), draw(st.integers(1, 12))
    if scattered and draw(st.booleans()):
        return torch.tensor(draw(st.lists(st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=samples,
                                          max_size=samples)))  # fmt: skip
    lengths = draw(st.lists(st.integers(1, steps), min_size=samples, max_size=samples))
    return torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)


@st.composite
def batches(draw):
    """A batch of one to three modalities of their own lengths, with natural gaps; a sample may have nothing at all."""
    samples, seed = draw(st.integers(1, 7)), draw(SEEDS)
    modalities = [m for m in MODALITIES if draw(st.booleans())] or [draw(st.sampled_from(MODALITIES))]
    generator = seeded(seed)
    features, valid, observed = {}, {}, {}
    for m in modalities:
        steps = draw(st.integers(1, 9))
        valid[m] = torch.arange(steps) < torch.randint(1, steps + 1, (samples, 1), generator=generator)
        gone = torch.rand(samples, 1, generator=generator) < draw(st.sampled_from([0.0, 0.4, 1.0]))
        observed[m] = valid[m] & (torch.rand(valid[m].shape, generator=generator) < 0.8) & ~gone
        features[m] = torch.randn(samples, steps, 2, generator=generator) * observed[m].unsqueeze(-1)
    ids = tuple(f"s{i}" for i in range(samples))
    return Batch(features, valid, observed, torch.zeros(samples), torch.arange(samples), ids)


@given(masks(), RATES, SEEDS)
def test_an_exact_mask_hides_as_many_frames_as_it_says_and_adds_none(valid, rate, seed):
    for draw in (frame_mask, burst_mask):
        mask = draw(valid, rate, seeded(seed))
        assert not (mask & ~valid).any()
        hidden = (valid & ~mask).sum(-1).tolist()
        assert hidden == [round(rate * int(count)) for count in valid.sum(-1)]
        assert draw(valid, rate, seeded(seed)).equal(mask)


@given(masks(), RATES, SEEDS)
def test_a_burst_is_one_run_of_valid_frames(valid, rate, seed):
    for row, kept in zip(valid, burst_mask(valid, rate, seeded(seed)), strict=True):
        among = kept[row]
        gone = (~among).nonzero().flatten().tolist()
        assert gone == list(range(gone[0], gone[-1] + 1)) if gone else True


@given(masks(), RATES, SEEDS, st.sampled_from(["exact", "bernoulli", "burst"]), st.integers(0, 6))
def test_a_sample_loses_the_same_frames_whatever_its_neighbours_are(valid, rate, seed, sampling, row):
    assume(int(valid.sum(-1).max()) > 1 or sampling == "bernoulli")  # single frames vanish from a share of the samples
    row %= len(valid)
    others = torch.ones_like(valid)
    others[row] = valid[row]
    assume(int(others.sum(-1).max()) > 1 or sampling == "bernoulli")
    alone, among = (frame_masks({"audio": v}, rate, seeded(seed), sampling=sampling)["audio"] for v in (others, valid))
    assert alone[row].equal(among[row])


@given(batches(), SEEDS, st.integers(0, 6))
def test_a_sample_is_made_incomplete_alike_whatever_its_neighbours_are(batch, seed, row):
    row %= len(batch)
    whole = {m: torch.where(torch.arange(len(batch)).unsqueeze(1) == row, batch.observed[m], batch.valid[m])
             for m in batch.modalities}  # fmt: skip
    among, alone = (stochastic_masks(observed, seeded(seed)) for observed in (batch.observed, whole))
    for m in batch.modalities:
        assert among[m][row].equal(alone[m][row])


@given(batches(), SEEDS)
def test_stochastic_missing_only_hides_and_leaves_each_sample_something(batch, seed):
    left = stochastic_missing(batch, seeded(seed))
    for m in batch.modalities:
        assert not (left.observed[m] & ~batch.observed[m]).any()
        assert left.valid[m].equal(batch.valid[m])
        assert left.features[m].equal(batch.features[m] * left.observed[m].unsqueeze(-1))
        assert left.observed[m].equal(stochastic_missing(batch, seeded(seed)).observed[m])
    assert presence(left.observed).any(-1).equal(presence(batch.observed).any(-1))


@given(batches(), st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=7, max_size=7))
def test_a_subset_is_what_is_asked_for_and_what_is_there(batch, rows):
    available = torch.tensor(rows)[: len(batch)]
    mask = subset_mask(batch.observed, available)
    assert presence(mask).equal(presence(batch.observed) & available)
    again = subset_mask(mask, available)
    for m in batch.modalities:
        assert mask[m].equal(again[m])
        assert mask[m].equal(batch.observed[m] & available[:, MODALITIES.index(m), None])


@given(batches(), st.floats(0, 1), SEEDS)
def test_a_missing_rate_is_hit_and_each_sample_keeps_a_modality(batch, share, seed):
    has, kinds = presence(batch.observed), len(batch.modalities)
    cells, natural = len(batch) * kinds, len(batch) * kinds - int(has.sum())
    limit = (kinds - 1) / kinds
    rate = share * limit
    assume(round(rate * cells) >= natural)
    left = rate_available(batch.observed, rate, seeded(seed))
    most = int(has.sum()) - int(has.any(-1).sum())  # what can be hidden at all
    assert not (left & ~has).any()
    assert left.any(-1).equal(has.any(-1))
    assert int(has.sum()) - int(left.sum()) == min(round(rate * cells) - natural, most)
    drawn = rate_mask(batch.observed, rate, seeded(seed))
    for m in batch.modalities:
        assert drawn[m].equal(subset_mask(batch.observed, left)[m])


@settings(max_examples=40)
@given(batches(), SEEDS, st.integers(1, 8))
def test_what_is_hidden_of_a_split_does_not_depend_on_the_order_and_size_of_batches(batch, seed, size):
    hidden = Utterances(batch, regression(), split="test").hide(stochastic_masks(batch.observed, seeded(seed)))
    found = {}
    for part in hidden.batches(size, shuffle=True, generator=seeded(seed)):
        for i, name in enumerate(part.ids):
            found[name] = {m: int(part.observed[m][i].sum()) for m in part.modalities}
            for m in part.modalities:
                kept = part.observed[m].shape[1]
                assert part.observed[m][i].equal(hidden.data.observed[m][hidden.ids.index(name), :kept])
    assert found == {name: {m: int(hidden.data.observed[m][i].sum()) for m in hidden.modalities}
                     for i, name in enumerate(hidden.ids)}  # fmt: skip
