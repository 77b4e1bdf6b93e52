"""The contrastive losses against loops over anchors in double precision."""

import itertools
import math

import pytest
import torch
from naive_contrastive import T, dot, naive_smc, naive_supcon, plain_supcon, unit_rows, weigh

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.contrastive import (
    category_pairs,
    cross_modal_candidates,
    cross_modal_decoupled,
    cross_modal_positives,
    label_ranked_supcon,
    modulated_supcon,
    modulation_weights,
)

DECOUPLE = ("cross_only", "self_only", "keep_intra", "uniformity")
MODULATIONS = ("focal", "circle", "dclw", "none")


@pytest.fixture
def z():
    return unit_rows(11, 5)


@pytest.fixture
def categories():
    return torch.tensor([0, 2, 1, 0, 0, 2, 2, 0, 1, 2, 3])  # the last category is lonely


@pytest.fixture
def u():
    return {m: unit_rows(6, 5, seed=i) for i, m in enumerate(("text", "audio", "vision"))}


@pytest.mark.parametrize("temperature", [0.07, 0.1, 0.5])
def test_gamma_zero_is_supcon(z, categories, temperature):
    value = modulated_supcon(z, categories, temperature=temperature, gamma=0)
    torch.testing.assert_close(value, plain_supcon(z, categories, temperature), rtol=1e-12, atol=0)
    none = modulated_supcon(z, categories, temperature=temperature, gamma=3, modulation="none")
    torch.testing.assert_close(value, none, rtol=1e-14, atol=0)


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_cmc(z, categories, modulation, decoupled, gamma, normalise):
    options = {"modulation": modulation, "decoupled": decoupled, "gamma": gamma, "normalise": normalise}
    value = modulated_supcon(z, categories, **options)
    assert value.item() == pytest.approx(naive_supcon(z, categories, **options), rel=1e-10)


def test_cmc_of_several_modalities_is_the_mean(z, categories):
    both = torch.stack([z, unit_rows(11, 5, seed=7)])
    expected = sum(naive_supcon(rows, categories) for rows in both) / 2
    assert modulated_supcon(both, categories).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("decouple", DECOUPLE)
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("normalise", [True, False])
def test_smc(u, decouple, modulation, modalities, normalise):
    u = dict(list(u.items())[:modalities])
    options = {"modulation": modulation, "gamma": 2.0, "uniformity_weight": 0.7, "normalise": normalise}
    value = cross_modal_decoupled(u, decouple=decouple, **options)
    assert value.item() == pytest.approx(naive_smc(u, decouple, **options), rel=1e-10)


ALL_THERE = [[1] * 6] * 3
PRESENT = {
    "all": ALL_THERE,
    "no text": [[0] * 6, *ALL_THERE[1:]],
    "one sample without text": [[0, 1, 1, 1, 1, 1], *ALL_THERE[1:]],
    "few": [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 0]],
    "mixed": [[0, 1, 1, 0, 1, 1], [1, 1, 0, 0, 0, 1], [1, 0, 1, 1, 1, 1]],
}


@pytest.mark.parametrize("decouple", DECOUPLE)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("present", PRESENT.values(), ids=PRESENT)
def test_smc_with_categories_as_positives_and_absent_samples(u, decouple, wide, present):
    categories, same, options = [0, 1, 0, 2, 1, 0], None, {}
    if wide:
        same = [[j for j in range(6) if categories[i] == categories[j]] for i in range(6)]
        options = {"positives": "instance_or_category", "categories": torch.tensor(categories)}
    masks = {m: torch.tensor(row).bool() for m, row in zip(u, present, strict=True)}
    value = cross_modal_decoupled(u, decouple=decouple, uniformity_weight=0.7, present=masks, **options)
    rows = dict(zip(u, present, strict=True))
    expected = naive_smc(u, decouple, same=same, uniformity_weight=0.7, present=rows)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    if wide and present is ALL_THERE:
        assert value.item() != pytest.approx(cross_modal_decoupled(u, decouple=decouple).item(), rel=1e-3)


@pytest.mark.parametrize("modulation", ["focal", "circle"])
def test_factors(z, categories, modulation):
    similarity = (z @ z.T).requires_grad_()
    positives = (categories[:, None] == categories) & ~torch.eye(11, dtype=torch.bool)
    weights = modulation_weights(similarity, positives, gamma=2.0, modulation=modulation)
    assert not weights.requires_grad
    assert (weights >= 0).all()
    assert (weights[~positives] == 0).all()
    for row, cosines, chosen in zip(weights, similarity.detach(), positives, strict=True):
        if chosen.any():
            assert row[chosen].mean().item() == pytest.approx(1, rel=1e-12)
            assert (row[chosen][cosines[chosen].argsort()].diff() <= 0).all()


def test_factors_at_the_borders():
    chosen = torch.ones(1, 5, dtype=torch.bool)
    similarity = torch.tensor([[0.99, -0.9, -0.9, -0.9, -0.9]])
    low = {m: modulation_weights(similarity, chosen, modulation=m).min().item() for m in MODULATIONS}
    assert low["dclw"] < 0
    assert min(low["focal"], low["circle"], low["none"]) >= 0
    some = torch.tensor([[True, True, True, False]])
    for modulation in MODULATIONS:  # positives that coincide
        torch.testing.assert_close(modulation_weights(torch.ones(1, 4), some, modulation=modulation), some.float())
    # A cosine below -1 by rounding weighs as much as -1.
    beyond, at = (torch.tensor([[low, 0.0, 0.5]]).double() for low in (-1.5, -1.0))
    assert modulation_weights(beyond, chosen[:, :3]).equal(modulation_weights(at, chosen[:, :3]))


def test_the_gradient_leaves_the_factors_out(z, categories):
    """The gradient is that of the loss with the factors held constant."""
    rows = z.clone().requires_grad_()
    modulated_supcon(rows, categories, gamma=2.0).backward()
    others = ~torch.eye(11, dtype=torch.bool)
    positives = others & (categories[:, None] == categories)
    weights = modulation_weights(z @ z.T, positives, gamma=2.0)
    again = z.clone().requires_grad_()
    logits = again @ again.T / T
    log_probability = logits - logits.exp().masked_fill(~others, 0).sum(1, keepdim=True).log()
    anchors = positives.any(1)
    per_anchor = -(weights * log_probability).sum(1)[anchors] / positives.sum(1)[anchors]
    per_anchor.mean().backward()
    torch.testing.assert_close(rows.grad, again.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss", ["cmc", "smc", "ranked"])
@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 0},
        *({"detach": False, "modulation": name, "gamma": 0.5} for name in MODULATIONS),
        {"detach": False, "normalise": False},
    ],
    ids=str,
)
def test_gradient_agrees_with_differences_where_no_factor_is_held_constant(loss, options, z, categories):
    options = dict(options)
    forms = {
        "cmc": lambda x: modulated_supcon(x, categories[:5], **options),
        "smc": lambda x: cross_modal_decoupled({"text": x, "audio": x.flip(1)}, decouple="uniformity", **options),
        "ranked": lambda x: label_ranked_supcon(x, categories[:5].double(), **options),
    }
    rows = z[:5].clone().requires_grad_()
    assert torch.autograd.gradcheck(forms[loss], (rows,))
    through, options["detach"] = torch.autograd.grad(forms[loss](rows), rows)[0], True
    same = torch.allclose(through, torch.autograd.grad(forms[loss](rows), rows)[0])
    assert same is (options.get("gamma") == 0 or options.get("modulation") == "none")


@pytest.mark.parametrize("gamma", [0.5, 1.0])
@pytest.mark.parametrize("normalise", [True, False])
def test_coinciding_vectors_have_a_gradient(gamma, normalise):
    rows = unit_rows(4, 3)[[0, 0, 1, 2]].requires_grad_()
    loss = modulated_supcon(rows, torch.tensor([0, 0, 1, 1]), gamma=gamma, normalise=normalise, detach=False)
    assert torch.autograd.grad(loss, rows)[0].isfinite().all()


@pytest.mark.parametrize("categories", [[0, 1, 2, 3], [1, 1, 1, 1]])
@pytest.mark.parametrize("decoupled", [False, True])
def test_cmc_without_pairs_is_zero_with_a_graph(categories, decoupled):
    z = unit_rows(4, 3).requires_grad_()
    loss = modulated_supcon(z, torch.tensor(categories), decoupled=decoupled)
    loss.backward()
    assert loss.item() == 0
    assert (z.grad == 0).all()


@pytest.mark.parametrize("decouple", DECOUPLE)
def test_one_sample_gives_zero_with_a_graph(u, decouple):
    single = {m: rows[:1].clone().requires_grad_() for m, rows in u.items()}
    loss = cross_modal_decoupled(single, decouple=decouple)
    loss.backward()
    assert loss.item() == 0
    assert all((rows.grad == 0).all() for rows in single.values())
    one = single["text"].detach().requires_grad_()
    loss = modulated_supcon(one, torch.tensor([0])) + label_ranked_supcon(one, torch.tensor([0.5]))
    loss.backward()
    assert loss.item() == 0
    assert (one.grad == 0).all()


def test_smc_of_unrelated_vectors_is_near_the_log_of_the_candidates():
    u = {m: unit_rows(64, 256, seed=i) for i, m in enumerate(("text", "audio", "vision"))}
    assert cross_modal_decoupled(u, temperature=1.0).item() == pytest.approx(math.log(63), abs=0.1)


def test_absent_samples_take_no_part(z, categories):
    present = torch.tensor([True] * 8 + [False] * 3)
    expected = naive_supcon(z[:8], categories[:8])
    assert modulated_supcon(z, categories, present=present).item() == pytest.approx(expected, rel=1e-10)
    ranked = label_ranked_supcon(z[:8], categories[:8].double())
    torch.testing.assert_close(label_ranked_supcon(z, categories.double(), present=present), ranked)


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_label_ranking(z, modulation):
    labels = torch.tensor([0.0, 1.0, -2.0, 0.5, 0.0, 3.0, 1.0, -1.0, 2.0, -3.0, 0.2], dtype=torch.float64)
    total = 0.0
    for i in range(11):
        others = [j for j in range(11) if j != i]
        weights = weigh([dot(z[i], z[p]) for p in others], modulation, 2.0)
        for w, p in zip(weights, others, strict=True):
            far = [j for j in others if abs(labels[j] - labels[i]) > abs(labels[p] - labels[i])]
            below = sum(math.exp(dot(z[i], z[j]) / 0.5) for j in [p, *far])
            total += w * (math.log(below) - dot(z[i], z[p]) / 0.5) / 10 / 11
    value = label_ranked_supcon(z, labels, gamma=2.0, modulation=modulation)
    assert value.item() == pytest.approx(total, rel=1e-10)
    as_vectors = torch.stack([labels, torch.zeros_like(labels)], dim=1)
    torch.testing.assert_close(label_ranked_supcon(z, as_vectors, gamma=2.0, modulation=modulation), value)


def test_float32_under_autocast(z, categories, u):
    low = z.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        cmc, smc = modulated_supcon(low, categories), cross_modal_decoupled({m: x.float() for m, x in u.items()})
    assert cmc.dtype == smc.dtype == torch.float32
    assert torch.equal(cmc, modulated_supcon(low.float(), categories))
    assert torch.equal(smc, cross_modal_decoupled({m: x.float() for m, x in u.items()}))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, u: modulated_supcon(z, torch.zeros(3)), r"\(11, 5\) and \(3,\)"),
        (lambda z, u: modulated_supcon(z, torch.zeros(11), temperature=0), "temperature"),
        (lambda z, u: modulated_supcon(z, torch.zeros(11), gamma=-1), "gamma"),
        (lambda z, u: label_ranked_supcon(z[0], torch.zeros(5)), "rows"),
        (lambda z, u: cross_modal_decoupled({"text": z}), "two or more, got text"),
        (lambda z, u: cross_modal_decoupled({"text": z, "audio": z[:3]}), "one shape"),
        (lambda z, u: cross_modal_decoupled(u, temperature=-1), "temperature"),
        (lambda z, u: cross_modal_decoupled(u, present={"text": torch.ones(6).bool()}), "that of audio"),
        (
            lambda z, u: cross_modal_decoupled(u, present={m: torch.ones(5 + (m != "vision")).bool() for m in u}),
            "of vision",
        ),
        (lambda z, u: cross_modal_decoupled(u, positives="instance_or_category"), "categories"),
        (lambda z, u: modulated_supcon(z, torch.zeros(11), modulation="focall"), "did you mean focal"),
        (lambda z, u: cross_modal_decoupled(u, decouple="cross-only"), "did you mean cross_only"),
        (lambda z, u: cross_modal_decoupled(u, positives="instances"), "did you mean instance"),
    ],
)
def test_bad_input(z, u, call, message):
    with pytest.raises(ConfigError, match=message):
        call(z, u)


def test_the_exponent_is_one_unless_given(z, categories):
    pairs = categories.unsqueeze(1) == categories
    similarity = z @ z.T
    assert modulation_weights(similarity, pairs).equal(modulation_weights(similarity, pairs, gamma=1.0))
    assert label_ranked_supcon(z, categories.double()).equal(label_ranked_supcon(z, categories.double(), gamma=1.0))


def test_label_ranking_of_several_modalities_is_the_mean(z):
    labels, both = torch.arange(11).double(), torch.stack([z, z.flip(0)])
    present = torch.ones(2, 11, dtype=torch.bool)
    present[1, :5] = False
    each = [label_ranked_supcon(rows, labels, present=seen) for rows, seen in zip(both, present, strict=True)]
    torch.testing.assert_close(label_ranked_supcon(both, labels, present=present), sum(each) / 2)
    two = torch.stack([labels, labels**2], dim=1)
    one = (labels.unsqueeze(1) - labels).abs() + (labels.unsqueeze(1) ** 2 - labels**2).abs()
    assert not one.allclose(one[0, 0])
    torch.testing.assert_close(label_ranked_supcon(z, two), label_ranked_supcon(z, labels + labels**2))


# --- the masks of pairs, entry by entry ---

CATEGORIES = [0, 1, 0, 2, 1]


def test_category_pairs():
    present = torch.tensor([[True] * 5, [True, False, True, True, True]])
    masks = category_pairs(torch.tensor(CATEGORIES), present)
    for here, positives, negatives in zip(present, *masks, strict=True):
        for i, j in itertools.product(range(5), repeat=2):
            equal, there = CATEGORIES[i] == CATEGORIES[j], (here[i] & here[j]).item()
            assert positives[i, j].item() == (there and i != j and equal)
            assert negatives[i, j].item() == (there and not equal)
    for with_all, whole in zip(masks, category_pairs(torch.tensor(CATEGORIES)), strict=True):
        assert torch.equal(with_all[0], whole)


def test_cross_modal_positives():
    assert torch.equal(cross_modal_positives(4), torch.eye(4, dtype=torch.bool))
    wide = cross_modal_positives(5, "instance_or_category", torch.tensor(CATEGORIES))
    assert wide.tolist() == [[a == b for b in CATEGORIES] for a in CATEGORIES]


@pytest.mark.parametrize("decouple", DECOUPLE)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("modalities", [2, 3])
def test_candidates_one_by_one(decouple, wide, modalities):
    same = cross_modal_positives(5, "instance_or_category", torch.tensor(CATEGORIES)) if wide else torch.eye(5).bool()
    candidates = cross_modal_candidates(same, modalities, decouple)
    for m, t, k in itertools.product(range(modalities), repeat=3):
        blocks = (m, t) if decouple == "keep_intra" else (t,)
        for i, j in itertools.product(range(5), repeat=2):
            stands_against = (k, j) != (m, i) if decouple == "self_only" else k in blocks and not same[i, j]
            assert candidates[m, t, i, k, j].item() == bool(m != t and stands_against)
