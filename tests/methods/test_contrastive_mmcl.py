"""contrastive_mmcl: what reaches what, every switch, both schedules."""

from dataclasses import replace

import pytest
import torch
from method_data import TinyTextEncoder, build, make_split, train_epochs

import mmsa_lib.methods.contrastive_mmcl as module
from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.contrastive import cross_modal_decoupled, label_ranked_supcon, modulated_supcon
from mmsa_lib.nn.routing import DynamicRouting
from mmsa_lib.training import fit

SMALL = {
    "width": 8, "heads": 2, "feedforward": 16, "capsules": 3, "capsule_dim": 4, "layers_specific": 1, "dropout": 0.0,
}  # fmt: skip
STAGES = ("specific", "shared")


@pytest.fixture
def train():
    return make_split(size=16)


def small(train, **config):
    return build("contrastive_mmcl", train, **{**SMALL, **config})


def terms_of(train, **config):
    """A method in training mode and the raw terms of its first step."""
    method = small(train, **config)
    return method, method.loss_terms(train.data, method(train.data))


def reached(method, loss):
    """First parts of the names of the parameters that ``loss`` reaches."""
    method.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}


def normalised_capsules(method, train, stage):
    """What a module contrasts, step by step from the states."""
    output = method(train.data)
    vectors = {}
    for m in train.modalities:
        capsules = method.routing[stage](output.auxiliary[f"states/{m}/{stage}"], train.data.valid[m])
        rows = capsules.detach().double().reshape(len(train), -1)
        vectors[m] = rows / rows.norm(dim=1, keepdim=True)
    return vectors


def test_prediction_step_by_step(train):
    method = small(train).eval()
    output = method(train.data)
    specific, shared = [], []
    for m in MODALITIES:
        valid = train.data.valid[m]
        states = method.specific[m](method.project[m](train.data.features[m]), valid)
        above = method.shared(states, valid)
        for store, x in ((specific, states), (shared, above)):
            store.append(torch.stack([row[keep].mean(0) for row, keep in zip(x, valid, strict=True)]))
    hidden = torch.cat([*specific, *shared], dim=1) @ method.fuse.weight.T + method.fuse.bias
    hidden = hidden.clamp_min(0)
    expected = (hidden @ method.predict.weight.T + method.predict.bias).squeeze(1)
    torch.testing.assert_close(output.prediction, expected)
    torch.testing.assert_close(output.representations["fusion"], hidden)
    for m, x, y in zip(MODALITIES, specific, shared, strict=True):
        torch.testing.assert_close(output.representations[f"{m}/specific"], x)
        torch.testing.assert_close(output.representations[f"{m}/shared"], y)


def test_terms_are_the_pinned_losses_on_normalised_capsules(train):
    method, terms = terms_of(train, gamma=2.0, temperature_cmc=0.2, temperature_smc=0.3)
    categories = train.task.categories(train.labels)
    z, u = (normalised_capsules(method, train, stage) for stage in STAGES)
    cmc = sum(modulated_supcon(rows, categories, temperature=0.2, gamma=2.0) for rows in z.values()) / 3
    smc = cross_modal_decoupled(u, temperature=0.3, gamma=2.0)
    assert list(terms) == ["task", "cmc", "smc"]
    assert terms["cmc"].item() == pytest.approx(cmc.item(), rel=1e-4)
    assert terms["smc"].item() == pytest.approx(smc.item(), rel=1e-4)
    prediction = method(train.data).prediction
    assert terms["task"].item() == pytest.approx((prediction - train.labels).abs().mean().item(), rel=1e-6)


def test_weights_of_the_terms(train):
    method, terms = terms_of(train, lambda_cmc=0.5, lambda_smc=0.25)
    weighted = method.losses(train.data, method(train.data))
    for name, weight in (("task", 1), ("cmc", 0.5), ("smc", 0.25)):
        assert weighted[name].item() == pytest.approx(weight * terms[name].item(), rel=1e-5)


def test_each_module_reaches_its_own_stage_only(train):
    method, terms = terms_of(train)
    task, cmc, smc = terms.values()
    assert reached(method, cmc) == {"project", "specific", "routing"}
    assert method.routing["specific"].weight.grad is not None
    assert method.routing["shared"].weight.grad is None
    assert reached(method, smc) == {"shared", "routing"}
    assert method.routing["specific"].weight.grad is None
    assert reached(method, task) == {"project", "specific", "shared", "fuse", "predict"}


def test_no_stop_gradient_lets_smc_reach_the_first_stage(train):
    method, terms = terms_of(train, no_stop_gradient=True)
    assert reached(method, terms["smc"]) == {"project", "specific", "shared", "routing"}


def test_the_text_encoder_learns_from_cmc_and_not_from_smc(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    method, terms = terms_of(make_split(size=16, tokens=True), text_encoder="bert")
    assert "text_encoder" in reached(method, terms["cmc"])
    method, terms = terms_of(make_split(size=16, tokens=True), text_encoder="bert")
    assert "text_encoder" not in reached(method, terms["smc"])


@pytest.mark.parametrize("single_stage", [False, True])
def test_inference_runs_neither_routing_nor_contrast(train, monkeypatch, single_stage):
    method = small(train, single_stage=single_stage)
    before = method.eval()(train.data).prediction

    def forbidden(*args, **kwargs):
        raise AssertionError("training-only code ran")

    monkeypatch.setattr(DynamicRouting, "forward", forbidden)
    for name in ("modulated_supcon", "cross_modal_decoupled", "label_ranked_supcon"):
        monkeypatch.setattr(module, name, forbidden)
    output = method(train.data)
    assert torch.equal(output.prediction, before)
    assert list(method.loss_terms(train.data, output)) == ["task"]
    with pytest.raises(AssertionError, match="training-only"):
        method.train().loss_terms(train.data, method(train.data))


def test_inference_needs_no_routing_weights(train):
    method, without = small(train), small(train, no_routing=True)
    without.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("routing")})
    assert torch.equal(without.eval()(train.data).prediction, method.eval()(train.data).prediction)


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
        assert reached(method, method.loss_terms(train.data, method(train.data))[name]) == {
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


def test_two_phases(train):
    method = small(train, schedule="T2", finetune_epoch=3)
    assert method.phases == STAGES
    method.start_phase("specific", train)
    output = method(train.data)
    assert set(output.representations) == {f"{m}/specific" for m in MODALITIES}
    terms = method.loss_terms(train.data, output)
    assert list(terms) == ["task", "cmc"]
    assert reached(method, terms["task"]) == {"project", "specific", "specific_head"}
    before = {k: v.clone() for k, v in method.state_dict().items()}
    train_epochs(method, train, epochs=2, size=8)
    assert changed(method, before) == {"project", "specific", "specific_head", "routing"}

    method.start_phase("shared", train)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    train_epochs(method, train, epochs=2, size=8)
    assert changed(method, before) == {"shared", "fuse", "predict", "routing"}
    before = {k: v.clone() for k, v in method.state_dict().items()}
    train_epochs(method, train, epochs=3, size=8)
    assert changed(method, before) == {"project", "specific", "shared", "fuse", "predict", "routing"}
    assert list(method.loss_terms(train.data, method(train.data))) == ["task", "smc"]


def changed(method, before):
    return {name.split(".")[0] for name, x in method.state_dict().items() if not torch.equal(x, before[name])}


def test_a_frozen_stage_runs_without_dropout_and_the_text_encoder_is_frozen_with_it(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = make_split(size=16, tokens=True)
    method = small(train, schedule="T2", finetune_epoch=2, dropout=0.5, text_encoder="bert")
    method.start_phase("shared", train)
    method.start_epoch(1)
    frozen = [method.text_encoder, method.project, method.specific]
    assert all(not p.requires_grad for part in frozen for p in part.parameters())
    one, two = (method(train.data).representations for _ in range(2))
    assert torch.equal(one["text/specific"], two["text/specific"])
    assert not torch.equal(one["text/shared"], two["text/shared"])
    method.start_epoch(2)
    assert all(p.requires_grad for part in frozen for p in part.parameters())
    one, two = (method(train.data).representations for _ in range(2))
    assert not torch.equal(one["text/specific"], two["text/specific"])


@pytest.mark.parametrize("schedule", ["T1", "T2"])
def test_fit_lowers_the_loss(schedule, train):
    method = small(train, schedule=schedule, finetune_epoch=2)
    valid = make_split(size=16, seed=1)
    settings = {"max_epochs": 8, "patience": 8, "batch_size": 8}
    result = fit(method, train, valid, settings=settings, seed=1, progress="none")
    history = result.history.query("split == 'train'")
    for phase in method.phases:
        values = history[(history["phase"] == phase) & (history["name"] == "loss/total")]["value"].tolist()
        assert len(values) == 8
        assert values[-1] < values[0]
    logged = set(history[history["phase"] == method.phases[-1]]["name"])
    assert {"raw/task", "raw/smc", "loss/task", "loss/smc"} <= logged
    assert ("raw/cmc" in logged) is (schedule == "T1")


def test_emotions():
    split = make_split(size=16, task=emotions(("happy", "sad")))
    method, terms = terms_of(split)
    assert method(split.data).prediction.shape == (16, 2, 2)
    z = normalised_capsules(method, split, "specific")
    categories = (split.labels * torch.tensor([1, 2])).sum(1)
    expected = sum(modulated_supcon(rows, categories).item() for rows in z.values()) / 3
    assert terms["cmc"].item() == pytest.approx(expected, rel=1e-4)
    train_epochs(small(split, categories="ranked"), split, epochs=2, size=8)


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
