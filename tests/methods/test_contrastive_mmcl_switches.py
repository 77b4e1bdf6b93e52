"""contrastive_mmcl: every switch changes what it should."""

from dataclasses import replace

import pytest
import torch
from contrastive_data import STAGES, normalised_capsules, reached, small, terms_of
from method_data import make_split, train_epochs

from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.contrastive import cross_modal_decoupled, label_ranked_supcon, modulated_supcon


@pytest.fixture
def train():
    return make_split(size=16)


@pytest.mark.parametrize(("switch", "left"), [("no_cmc", ["task", "smc"]), ("no_smc", ["task", "cmc"])])
def test_a_module_can_be_left_out(train, switch, left):
    method, terms = terms_of(train, **{switch: True})
    assert list(terms) == left
    same, _ = terms_of(train, **{switch.replace("no_", "lambda_"): 0.0})
    states = []
    for m in (method, same):
        train_epochs(m, train, epochs=2, size=8)
        states.append(m.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_no_modulation_is_plain_supcon_in_both_modules(train):
    method, off = terms_of(train, no_modulation=True)
    zero = terms_of(train, gamma=0.0)[1]
    on = terms_of(train, gamma=2.0)[1]
    z, u = (normalised_capsules(method, train, stage) for stage in STAGES)
    categories = train.task.categories(train.labels)
    plain = sum(modulated_supcon(rows, categories, modulation="none").item() for rows in z.values()) / 3
    assert off["cmc"].item() == pytest.approx(plain, rel=1e-4)
    assert off["smc"].item() == pytest.approx(cross_modal_decoupled(u, modulation="none").item(), rel=1e-4)
    for name in ("cmc", "smc"):
        torch.testing.assert_close(off[name], zero[name], rtol=1e-5, atol=1e-6)
        assert on[name].item() != pytest.approx(off[name].item(), rel=1e-4)


@pytest.mark.parametrize("modulation", ["circle", "dclw", "none"])
def test_modulation(train, modulation):
    default = terms_of(train)[1]
    method, terms = terms_of(train, modulation=modulation)
    u = normalised_capsules(method, train, "shared")
    assert terms["smc"].item() == pytest.approx(cross_modal_decoupled(u, modulation=modulation).item(), rel=1e-4)
    assert terms["cmc"].item() != pytest.approx(default["cmc"].item(), rel=1e-5)


def test_no_routing_contrasts_masked_means(train):
    method, terms = terms_of(train, no_routing=True)
    assert not list(method.routing.parameters())
    pooled = method(train.data).representations
    u = {m: torch.nn.functional.normalize(pooled[f"{m}/shared"].detach(), dim=1) for m in MODALITIES}
    assert terms["smc"].item() == pytest.approx(cross_modal_decoupled(u).item(), rel=1e-4)
    assert terms["cmc"].item() != pytest.approx(terms_of(train)[1]["cmc"].item(), rel=1e-4)


@pytest.mark.parametrize("decouple", ["self_only", "keep_intra", "uniformity"])
def test_decouple(train, decouple):
    default = terms_of(train)[1]
    method, terms = terms_of(train, decouple=decouple, uniformity_weight=0.5)
    u = normalised_capsules(method, train, "shared")
    expected = cross_modal_decoupled(u, decouple=decouple, uniformity_weight=0.5)
    assert terms["smc"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["smc"].item() != pytest.approx(default["smc"].item(), rel=1e-3)
    assert torch.equal(terms["cmc"], default["cmc"])


def test_no_self_decoupling_is_self_only(train):
    one, two = terms_of(train, no_self_decoupling=True)[1], terms_of(train, decouple="self_only")[1]
    assert torch.equal(one["smc"], two["smc"])


def test_single_stage_gives_both_modules_the_same_states(train):
    method, terms = terms_of(train, single_stage=True)
    output = method(train.data)
    assert set(output.representations) == {f"{m}/feature" for m in MODALITIES} | {"fusion"}
    assert "shared" not in {name.split(".")[0] for name, _ in method.named_parameters()}
    assert method.fuse.in_features == 3 * 8
    for name in ("cmc", "smc"):
        assert reached(method, method.losses(train.data, method(train.data))[name]) == {
            "project", "specific", "routing",
        }  # fmt: skip
    u = {m: method.routing["shared"](output.auxiliary[f"states/{m}/feature"], train.data.valid[m]) for m in MODALITIES}
    u = {m: torch.nn.functional.normalize(x.flatten(1), dim=1) for m, x in u.items()}
    assert terms["smc"].item() == pytest.approx(cross_modal_decoupled(u).item(), rel=1e-4)


def test_positives(train):
    method, terms = terms_of(train, positives="instance_or_category")
    u = normalised_capsules(method, train, "shared")
    categories = train.task.categories(train.labels)
    expected = cross_modal_decoupled(u, positives="instance_or_category", categories=categories)
    assert terms["smc"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["smc"].item() != pytest.approx(terms_of(train)[1]["smc"].item(), rel=1e-4)


def test_decoupled_cmc(train):
    method, terms = terms_of(train, decoupled_cmc=True)
    categories = train.task.categories(train.labels)
    z = normalised_capsules(method, train, "specific")
    expected = sum(modulated_supcon(rows, categories, decoupled=True).item() for rows in z.values()) / 3
    assert terms["cmc"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["cmc"].item() != pytest.approx(terms_of(train)[1]["cmc"].item(), rel=1e-3)


@pytest.mark.parametrize(
    ("span", "labels", "bins"),
    [
        ((-3, 3), [-3.0, -2.4, -0.2, 0.0, 0.6, 1.4, 2.6, 3.0], [0, 1, 3, 3, 4, 4, 6, 6]),
        ((-1, 1), [-1.0, -0.6, 0.0, 0.2, 1.0], [0, 1, 3, 4, 6]),
        ((1, 5), [1.0, 2.0, 3.0, 4.4, 5.0], [0, 1, 3, 5, 6]),
    ],
)
def test_seven_bins(span, labels, bins):
    split = make_split(size=len(labels), task=regression(span), labels=torch.tensor(labels))
    method = small(split, categories="bins7")
    assert method.categories(split.labels).tolist() == bins


def test_categories(train):
    default = terms_of(train)[1]
    method, terms = terms_of(train, categories="bins7")
    z = normalised_capsules(method, train, "specific")
    bins = train.labels.round().long()
    expected = sum(modulated_supcon(rows, bins).item() for rows in z.values()) / 3
    assert terms["cmc"].item() == pytest.approx(expected, rel=1e-4)
    ranked = terms_of(train, categories="ranked", temperature_cmc=0.5)[1]
    expected = sum(label_ranked_supcon(rows, train.labels).item() for rows in z.values()) / 3
    assert ranked["cmc"].item() == pytest.approx(expected, rel=1e-4)
    assert len({round(t["cmc"].item(), 5) for t in (default, terms, ranked)}) == 3


def test_mean_squared_error(train):
    method, terms = terms_of(train, task_loss="mse")
    expected = (method(train.data).prediction - train.labels).square().mean()
    torch.testing.assert_close(terms["task"], expected)


def test_capsules_and_rounds(train):
    one, two = terms_of(train, routing_iterations=1)[1], terms_of(train)[1]
    assert one["cmc"].item() != pytest.approx(two["cmc"].item(), rel=1e-6)
    squashed, tanh = terms_of(train)[1], terms_of(train, squash="tanh")[1]
    assert squashed["smc"].item() != pytest.approx(tanh["smc"].item(), rel=1e-6)
    method = small(train, capsules=5, capsule_dim=2)
    assert method.contrast_vectors("shared", train.data, method(train.data))["text"].shape == (16, 10)


@pytest.mark.parametrize("encoder", ["transformer", "lstm"])
def test_encoder(train, encoder):
    method = small(train, encoder=encoder)
    kinds = {type(x).__name__ for x in (*method.specific.values(), method.shared)}
    assert kinds == {"FrameTransformer" if encoder == "transformer" else "FrameLSTM"}
    train_epochs(method, train, epochs=2, size=8)


def test_text_pooling(train):
    first, mean = small(train, text_pooling="first").eval(), small(train).eval()
    one, two = first(train.data).representations, mean(train.data).representations
    assert not torch.allclose(one["text/specific"], two["text/specific"])
    assert torch.equal(one["audio/specific"], two["audio/specific"])
    torch.testing.assert_close(one["text/specific"], first.encode(train.data)["text/specific"][:, 0])


def test_an_absent_modality_is_not_contrasted(train):
    hidden = train.data.hide({"text": torch.zeros_like(train.data.valid["text"])})
    absent = replace(train, data=hidden)
    method, terms = terms_of(absent)
    z, u = (normalised_capsules(method, absent, stage) for stage in STAGES)
    u = {m: rows for m, rows in u.items() if m != "text"}
    categories = train.task.categories(train.labels)
    cmc = sum(modulated_supcon(z[m], categories).item() for m in ("audio", "vision")) / 3
    assert terms["smc"].item() == pytest.approx(cross_modal_decoupled(u).item(), rel=1e-4)
    assert terms["cmc"].item() == pytest.approx(cmc, rel=1e-4)
    all_in = terms_of(absent, contrast_absent=True)[1]
    assert all_in["smc"].item() != pytest.approx(terms["smc"].item(), rel=1e-3)
    assert all_in["cmc"].item() != pytest.approx(terms["cmc"].item(), rel=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"single_stage": True, "schedule": "T2"}, "schedule"),
        ({"single_stage": True, "no_stop_gradient": True}, "no_stop_gradient"),
        ({"no_self_decoupling": True, "decouple": "uniformity"}, "decouple='uniformity'"),
        ({"categories": "ranked", "positives": "instance_or_category"}, "ranked"),
        ({"categories": "ranked", "decoupled_cmc": True}, "decoupled_cmc"),
        ({"width": 8, "heads": 3}, "divisor"),
        ({"decouple": "D1"}, "decouple"),
        ({"gamma": -1.0}, "gamma"),
    ],
)
def test_settings_that_do_not_fit(train, config, message):
    with pytest.raises(ConfigError, match=message):
        small(train, **config)


def test_data_that_does_not_fit():
    with pytest.raises(ConfigError, match="has only text"):
        small(make_split(modalities=("text",)))
    for config in ({"task_loss": "mse"}, {"categories": "bins7"}):
        with pytest.raises(ConfigError, match="emotions"):
            small(make_split(task=emotions(("happy", "sad"))), **config)
