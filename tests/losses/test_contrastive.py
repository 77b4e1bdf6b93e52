"""The contrastive losses against loops over anchors in double precision."""

import math

import pytest
import torch
from naive_contrastive import T, dot, naive_smc, naive_supcon, plain_supcon, unit_rows, weigh

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.losses.contrastive import (
    cross_modal_decoupled,
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
def test_cmc(z, categories, modulation, decoupled, gamma):
    value = modulated_supcon(z, categories, modulation=modulation, decoupled=decoupled, gamma=gamma)
    expected = naive_supcon(z, categories, decoupled=decoupled, modulation=modulation, gamma=gamma)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_cmc_of_several_modalities_is_the_mean(z, categories):
    both = torch.stack([z, unit_rows(11, 5, seed=7)])
    expected = sum(naive_supcon(rows, categories) for rows in both) / 2
    assert modulated_supcon(both, categories).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("decouple", DECOUPLE)
@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("modalities", [2, 3])
def test_smc(u, decouple, modulation, modalities):
    u = dict(list(u.items())[:modalities])
    value = cross_modal_decoupled(u, decouple=decouple, modulation=modulation, gamma=2.0, uniformity_weight=0.7)
    expected = naive_smc(u, decouple, modulation=modulation, gamma=2.0, uniformity_weight=0.7)
    assert value.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("decouple", DECOUPLE)
def test_smc_with_categories_as_positives(u, decouple):
    categories = torch.tensor([0, 1, 0, 2, 1, 0])
    same = [[j for j in range(6) if categories[i] == categories[j]] for i in range(6)]
    value = cross_modal_decoupled(u, decouple=decouple, positives="instance_or_category", categories=categories)
    assert value.item() == pytest.approx(naive_smc(u, decouple, same=same), rel=1e-10)
    assert value.item() != pytest.approx(cross_modal_decoupled(u, decouple=decouple).item(), rel=1e-3)


def test_every_reading_of_decoupling_and_every_modulation_differs(u, z, categories):
    assert len({round(cross_modal_decoupled(u, decouple=d).item(), 9) for d in DECOUPLE}) == 4
    assert len({round(cross_modal_decoupled(u, modulation=m, gamma=2).item(), 9) for m in MODULATIONS}) == 4
    assert len({round(modulated_supcon(z, categories, modulation=m, gamma=2).item(), 9) for m in MODULATIONS}) == 4


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


def test_factors_can_turn_negative_only_with_dclw():
    similarity, chosen = torch.tensor([[0.99, -0.9, -0.9, -0.9, -0.9]]), torch.ones(1, 5, dtype=torch.bool)
    low = {m: modulation_weights(similarity, chosen, modulation=m).min().item() for m in MODULATIONS}
    assert low["dclw"] < 0
    assert min(low["focal"], low["circle"], low["none"]) >= 0


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_factors_of_coinciding_positives_are_one(modulation):
    similarity, chosen = torch.ones(1, 4), torch.tensor([[True, True, True, False]])
    weights = modulation_weights(similarity, chosen, modulation=modulation)
    torch.testing.assert_close(weights, chosen.float())


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
def test_gradient_agrees_with_differences_when_nothing_is_modulated(loss, z, categories):
    forms = {
        "cmc": lambda x: modulated_supcon(x, categories[:5], gamma=0),
        "smc": lambda x: cross_modal_decoupled({"text": x, "audio": x.flip(1)}, gamma=0, decouple="uniformity"),
        "ranked": lambda x: label_ranked_supcon(x, categories[:5].double(), gamma=0),
    }
    assert torch.autograd.gradcheck(forms[loss], (z[:5].clone().requires_grad_(),))


@pytest.mark.parametrize("categories", [[0, 1, 2, 3], [1, 1, 1, 1]])
@pytest.mark.parametrize("decoupled", [False, True])
def test_cmc_without_pairs_is_zero_with_a_graph(categories, decoupled):
    z = unit_rows(4, 3).requires_grad_()
    loss = modulated_supcon(z, torch.tensor(categories), decoupled=decoupled)
    loss.backward()
    assert loss.item() == 0
    assert (z.grad == 0).all()


def test_a_lonely_category_is_a_negative_but_no_anchor(z, categories):
    value = modulated_supcon(z, categories)
    assert value.isfinite()
    assert value.item() != pytest.approx(modulated_supcon(z[:-1], categories[:-1]).item(), rel=1e-6)


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


@pytest.mark.parametrize("decouple", DECOUPLE)
def test_order_of_the_samples_does_not_matter(u, z, categories, decouple):
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(modulated_supcon(z[order], categories[order]), modulated_supcon(z, categories))
    order = order[order < 6]
    shuffled = {m: rows[order] for m, rows in u.items()}
    torch.testing.assert_close(
        cross_modal_decoupled(shuffled, decouple=decouple), cross_modal_decoupled(u, decouple=decouple)
    )


def test_smc_of_unrelated_vectors_is_near_the_log_of_the_candidates():
    u = {m: unit_rows(64, 256, seed=i) for i, m in enumerate(("text", "audio", "vision"))}
    assert cross_modal_decoupled(u, temperature=1.0).item() == pytest.approx(math.log(63), abs=0.1)


def test_absent_samples_take_no_part(z, categories):
    present = torch.tensor([True] * 8 + [False] * 3)
    expected = naive_supcon(z[:8], categories[:8])
    assert modulated_supcon(z, categories, present=present).item() == pytest.approx(expected, rel=1e-10)
    ranked = label_ranked_supcon(z[:8], categories[:8].double())
    torch.testing.assert_close(label_ranked_supcon(z, categories.double(), present=present), ranked)


@pytest.mark.parametrize("decouple", DECOUPLE)
def test_an_absent_modality_leaves_the_loss_of_the_others(u, decouple):
    present = {m: torch.full((6,), m != "text") for m in u}
    others = {m: rows for m, rows in u.items() if m != "text"}
    value = cross_modal_decoupled(u, decouple=decouple, present=present)
    assert value.item() == pytest.approx(naive_smc(others, decouple), rel=1e-10)


def test_a_sample_without_one_modality_still_counts_in_the_others():
    u = {m: unit_rows(4, 5, seed=i) for i, m in enumerate(("text", "audio"))}
    present = {"text": torch.tensor([False, True, True, True]), "audio": torch.ones(4, dtype=torch.bool)}
    value = cross_modal_decoupled(u, gamma=0, present=present)
    s = (u["text"] @ u["audio"].T / T).tolist()
    terms = []
    for i in (1, 2, 3):
        terms.append(-s[i][i] + math.log(sum(math.exp(s[i][j]) for j in range(4) if j != i)))  # text to audio
        terms.append(-s[i][i] + math.log(sum(math.exp(s[j][i]) for j in (1, 2, 3) if j != i)))  # audio to text
    assert value.item() == pytest.approx(sum(terms) / 6, rel=1e-10)


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


def test_label_ranking_of_equal_labels_is_zero(z):
    assert label_ranked_supcon(z, torch.ones(11)).item() == pytest.approx(0, abs=1e-12)


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
        (lambda z, u: cross_modal_decoupled(u, positives="instance_or_category"), "categories"),
    ],
)
def test_bad_input(z, u, call, message):
    with pytest.raises(ConfigError, match=message):
        call(z, u)


def test_unknown_names(z, u):
    with pytest.raises(UnknownNameError, match="did you mean focal"):
        modulated_supcon(z, torch.zeros(11), modulation="focall")
    with pytest.raises(UnknownNameError, match="did you mean cross_only"):
        cross_modal_decoupled(u, decouple="cross-only")
    with pytest.raises(UnknownNameError, match="did you mean instance"):
        cross_modal_decoupled(u, positives="instances")


def test_the_exponent_is_one_unless_given(z, categories):
    pairs = categories.unsqueeze(1) == categories
    similarity = z @ z.T
    assert modulation_weights(similarity, pairs).equal(modulation_weights(similarity, pairs, gamma=1.0))
    assert label_ranked_supcon(z, categories.double()).equal(label_ranked_supcon(z, categories.double(), gamma=1.0))


def test_similarities_below_minus_one_by_rounding_weigh_as_much_as_minus_one():
    pairs = torch.tensor([[True, True, True]])
    beyond, at = (torch.tensor([[low, 0.0, 0.5]]).double() for low in (-1.5, -1.0))
    assert modulation_weights(beyond, pairs).equal(modulation_weights(at, pairs))


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


def test_an_anchor_without_negatives_is_none():
    u = {m: unit_rows(2, 5, seed=i) for i, m in enumerate(("text", "audio"))}
    present = {"text": torch.tensor([True, True]), "audio": torch.tensor([True, False])}
    s = u["text"] @ u["audio"].T / T
    value = cross_modal_decoupled(u, gamma=0, present=present)  # only the first sound sees another text
    assert value.item() == pytest.approx((s[1, 0] - s[0, 0]).item(), rel=1e-10)


def test_uniformity_leaves_absent_samples_out():
    u = {m: unit_rows(4, 5, seed=i) for i, m in enumerate(("text", "audio"))}
    present = {"text": torch.tensor([False, True, True, True]), "audio": torch.ones(4, dtype=torch.bool)}
    with_it, without = (
        cross_modal_decoupled(u, decouple="uniformity", uniformity_weight=w, present=present).item() for w in (1, 0)
    )
    terms = [
        math.log(sum(math.exp(dot(rows[i], rows[j]) / T) for j in range(4) if j != i and present[m][j]))
        for m, rows in u.items() for i in range(4) if present[m][i]
    ]  # fmt: skip
    assert with_it - without == pytest.approx(sum(terms) / len(terms), rel=1e-10)


def test_a_mask_of_the_wrong_length_is_named(u):
    present = {m: torch.ones(5 if m == "vision" else 6, dtype=torch.bool) for m in u}
    with pytest.raises(ConfigError, match="that of vision"):
        cross_modal_decoupled(u, present=present)


def test_an_absent_sample_of_a_category_is_no_anchor():
    u = {m: unit_rows(3, 5, seed=i) for i, m in enumerate(("text", "audio"))}
    present = {"text": torch.tensor([False, True, True]), "audio": torch.ones(3, dtype=torch.bool)}
    options = {"positives": "instance_or_category", "categories": torch.tensor([0, 0, 1]), "gamma": 0.0}
    s = (u["text"] @ u["audio"].T / T).tolist()
    terms = [
        s[1][2] - (s[1][0] + s[1][1]) / 2,  # texts as anchors
        math.log(math.exp(s[2][0]) + math.exp(s[2][1])) - s[2][2],
        s[2][0] - s[1][0],  # sounds as anchors
        s[2][1] - s[1][1],
        s[1][2] - s[2][2],
    ]
    assert cross_modal_decoupled(u, present=present, **options).item() == pytest.approx(sum(terms) / 5, rel=1e-10)
