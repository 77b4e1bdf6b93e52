"""contrastive_mmcl: its network, what reaches what, every switch, both schedules.

Switches are tested from the literal reading; the defaults have tests of their own.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from method_data import TinyTextEncoder, build, changed, make_split, reached, state, train_epochs
from torch.nn.functional import normalize

import mmsa_lib.methods.contrastive_mmcl as module
from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.losses.contrastive import cross_modal_decoupled, label_ranked_supcon, modulated_supcon
from mmsa_lib.methods.base import loss_sum
from mmsa_lib.nn.routing import DynamicRouting
from mmsa_lib.training import fit

SMALL = {
    "width": 8, "heads": 2, "feedforward": 16, "capsules": 3, "capsule_dim": 4, "layers_specific": 1, "dropout": 0.0,
}  # fmt: skip
LITERAL = {
    "decoupled_cmc": False, "temperature_cmc": 0.1, "lambda_cmc": 0.1, "normalise_factors": True,
    "contrasted": "capsules",
}  # fmt: skip
STAGES = ("specific", "shared")


@pytest.fixture
def train():
    return make_split(size=16)


@pytest.fixture
def tokens(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    return make_split(size=16, tokens=True)


def small(train, **config):
    return build("contrastive_mmcl", train, **{**SMALL, **LITERAL, **config})


def headline(train, **config):
    return build("contrastive_mmcl", train, **{**SMALL, **config})


def terms_of(train, **config):
    """A method in training mode and the raw terms of its first step."""
    method = small(train, **config)
    return method, method.losses(train.data, method(train.data)).raw


def contrasted(method, train, stage, states=None):
    """What a module contrasts, step by step from the states: normalised capsules, or masked means without routing."""
    output = method(train.data)
    vectors = {}
    for m in train.modalities:
        x, valid = output.auxiliary[f"states/{m}/{states or stage}"].detach(), train.data.valid[m]
        rows = torch.stack([row[keep].mean(0) for row, keep in zip(x, valid, strict=True)])
        if method.config.contrasted == "mlp":
            first, _, second = method.projection[stage]
            rows = ((rows @ first.weight.T + first.bias).clamp_min(0) @ second.weight.T + second.bias).detach()
        elif not method.config.no_routing:
            rows = method.routing[stage](x, valid).detach().reshape(len(train), -1)
        vectors[m] = normalize(rows.double(), dim=1)
    return vectors


def cmc_of(z, loss):
    return sum(loss(rows).item() for rows in z.values()) / len(z)


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


def test_loss_is_the_weighted_sum_of_the_pinned_losses(train):
    config = {"gamma": 2.0, "temperature_cmc": 0.2, "temperature_smc": 0.3, "lambda_cmc": 0.5, "lambda_smc": 0.25}
    method = small(train, **config)
    output = method(train.data)
    losses = method.losses(train.data, output)
    z, u = (contrasted(method, train, stage) for stage in STAGES)
    cmc = partial(modulated_supcon, categories=train.task.categories(train.labels), temperature=0.2, gamma=2.0)
    expected = {
        "task": (1, (output.prediction - train.labels).abs().mean().item()),
        "cmc": (0.5, cmc_of(z, cmc)),
        "smc": (0.25, cross_modal_decoupled(u, temperature=0.3, gamma=2.0).item()),
    }
    assert list(losses) == list(losses.raw) == list(expected)
    for name, (weight, value) in expected.items():
        assert losses.raw[name].item() == pytest.approx(value, rel=1e-4)
        assert losses[name].item() == pytest.approx(weight * value, rel=1e-4)


def test_the_defaults_contrast_what_the_head_reads_with_absolute_factors_and_other_categories_alone(train):
    method = headline(train)
    output = method(train.data)
    losses = method.losses(train.data, output)
    read = [{m: normalize(output.representations[f"{m}/{s}"].double(), dim=1) for m in MODALITIES} for s in STAGES]
    shared = {"gamma": 1.0, "normalise": False}
    categories = train.task.categories(train.labels)
    cmc = partial(modulated_supcon, categories=categories, temperature=0.5, decoupled=True, **shared)
    assert losses["cmc"].item() == pytest.approx(cmc_of(read[0], cmc), rel=1e-4)
    smc = cross_modal_decoupled(read[1], temperature=0.1, **shared).item()
    assert losses["smc"].item() == pytest.approx(0.1 * smc, rel=1e-4)
    specific, shared_too = {"project", "specific", "routing"}, {"shared", "routing"}
    assert reached(losses["cmc"], method) == specific
    assert reached(losses["smc"], method) == shared_too
    assert reached(losses["task"], method) == specific | shared_too | {"fuse", "predict"}


def test_each_module_reaches_its_own_stage_only(train):
    method, terms = terms_of(train)
    task, cmc, smc = terms.values()
    assert reached(cmc, method) == {"project", "specific", "routing"}
    assert method.routing["specific"].weight.grad is not None
    assert method.routing["shared"].weight.grad is None
    assert reached(smc, method) == {"shared", "routing"}
    assert method.routing["specific"].weight.grad is None
    assert reached(task, method) == {"project", "specific", "shared", "fuse", "predict"}
    method, terms = terms_of(train, no_stop_gradient=True)
    assert reached(terms["smc"], method) == {"project", "specific", "shared", "routing"}


@pytest.mark.parametrize(("term", "learns"), [("cmc", True), ("smc", False)])
def test_the_text_encoder_learns_from_cmc_and_not_from_smc(tokens, term, learns):
    method, terms = terms_of(tokens, text_encoder="bert")
    assert ("text_encoder" in reached(terms[term], method)) is learns


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
    assert list(method.losses(train.data, output)) == ["task"]
    with pytest.raises(AssertionError, match="training-only"):
        method.train().losses(train.data, method(train.data))


def test_inference_needs_no_routing_weights(train):
    method, without = small(train), small(train, no_routing=True)
    without.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("routing")})
    assert torch.equal(without.eval()(train.data).prediction, method.eval()(train.data).prediction)


# --- switches ---


@pytest.mark.parametrize(("switch", "left"), [("no_cmc", ["task", "smc"]), ("no_smc", ["task", "cmc"])])
def test_a_module_can_be_left_out(train, switch, left):
    method, terms = terms_of(train, **{switch: True})
    assert list(terms) == left
    same, _ = terms_of(train, **{switch.replace("no_", "lambda_"): 0.0})
    for one in (method, same):
        train_epochs(one, train, epochs=2, size=8)
    assert not changed(method, state(same))


@pytest.mark.parametrize(
    ("config", "options"),
    [
        *(({"modulation": name}, {"modulation": name}) for name in ("circle", "dclw", "none")),
        ({"no_modulation": True, "gamma": 2.0}, {"modulation": "none"}),
        ({"gamma": 0.0}, {"modulation": "none"}),
        ({"no_routing": True}, {}),
        ({"contrasted": "mlp"}, {}),
        ({"normalise_factors": False}, {"normalise": False}),
        *(
            ({"decouple": name, "uniformity_weight": 0.5}, {"decouple": name, "uniformity_weight": 0.5})
            for name in ("self_only", "keep_intra", "uniformity")
        ),
        ({"no_self_decoupling": True}, {"decouple": "self_only"}),
        ({"positives": "instance_or_category"}, {"positives": "instance_or_category"}),
    ],
    ids=str,
)
def test_switches_of_smc(train, config, options):
    method, terms = terms_of(train, **config)
    categories = train.task.categories(train.labels) if "positives" in options else None
    expected = cross_modal_decoupled(contrasted(method, train, "shared"), categories=categories, **options)
    assert terms["smc"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert terms["smc"].item() != pytest.approx(terms_of(train)[1]["smc"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        *(({"modulation": name}, {"modulation": name}) for name in ("circle", "dclw", "none")),
        ({"no_modulation": True, "gamma": 2.0}, {"modulation": "none"}),
        ({"no_routing": True}, {}),
        ({"contrasted": "mlp"}, {}),
        ({"normalise_factors": False}, {"normalise": False}),
        ({"normalise_factors": False, "decoupled_cmc": True}, {"normalise": False, "decoupled": True}),
        ({"decoupled_cmc": True}, {"decoupled": True}),
        ({"categories": "bins7"}, {}),
        ({"categories": "ranked", "temperature_cmc": 0.5}, None),
    ],
    ids=str,
)
def test_switches_of_cmc(train, config, options):
    method, terms = terms_of(train, **config)
    bins = "categories" in config
    categories = train.labels.round().long() if bins else train.task.categories(train.labels)
    loss = partial(label_ranked_supcon, labels=train.labels)
    if options is not None:
        loss = partial(modulated_supcon, categories=categories, **options)
    assert terms["cmc"].item() == pytest.approx(cmc_of(contrasted(method, train, "specific"), loss), rel=1e-4)
    assert terms["cmc"].item() != pytest.approx(terms_of(train)[1]["cmc"].item(), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"single_stage": True}, {"schedule": "T2"}], ids=str)
def test_capsules_that_the_head_reads_are_those_that_are_contrasted(train, options):
    method = small(train, contrasted="fused_capsules", **options)
    output = method(train.data)
    assert set(output.representations) == {f"{m}/{stage}" for m in MODALITIES for stage in STAGES} | {"fusion"}
    states = "feature" if "single_stage" in options else None
    read = [contrasted(method, train, stage, states) for stage in STAGES]
    for stage, vectors in zip(STAGES, read, strict=True):
        for m, x in method.contrast_vectors(stage, train.data, output).items():
            torch.testing.assert_close(x.double(), vectors[m], rtol=1e-4, atol=1e-6)
    joint = torch.cat([x for name, x in output.representations.items() if name != "fusion"], dim=1)
    hidden = (joint @ method.fuse.weight.T + method.fuse.bias).clamp_min(0)
    torch.testing.assert_close(output.prediction, (hidden @ method.predict.weight.T + method.predict.bias).squeeze(1))
    assert "routing" in reached(method.losses(train.data, output).raw["task"], method)
    switched_off = small(train, contrasted="fused_capsules", no_routing=True, **options)
    plain = small(train, no_routing=True, **options)
    assert torch.equal(switched_off(train.data).prediction, plain(train.data).prediction)


def test_the_gradient_of_the_factors_can_join(train):
    """The value stays; so do, without factors that move, the gradients."""
    found = {}
    plain = {"modulation": "none"}
    for config in ({}, {"factor_gradient": True}, plain, {**plain, "factor_gradient": True}):
        method, terms = terms_of(train, **config)
        slopes = torch.autograd.grad(terms["cmc"] + terms["smc"], list(method.routing.parameters()))
        found[str(config)] = [terms["cmc"].item() + terms["smc"].item(), slopes[0]]
    (value, off), (same, on), (first, none), (again, still) = found.values()
    assert (value, first) == pytest.approx((same, again), rel=1e-6)
    assert not torch.allclose(off, on)
    assert torch.equal(none, still)


def test_dropout_of_attention(train):
    """By default that of the layers; of its own it is in attention alone."""
    for config, inside, outside in (
        ({"dropout": 0.3}, 0.3, 0.3),
        ({"dropout": 0.3, "dropout_attention": 0.3}, 0.3, 0.3),
        ({"dropout": 0.3, "dropout_attention": 0.0}, 0.0, 0.3),
    ):
        method = small(train, **config)
        for layer in (layer for encoder in (*method.specific.values(), method.shared) for layer in encoder.layers):
            assert (layer.self_attn.dropout, layer.dropout.p, layer.dropout1.p) == (inside, outside, outside)


@pytest.mark.parametrize(
    "config", [{}, {"categories": "bins7"}, {"categories": "ranked"}, {"contrast_absent": True}], ids=str
)
def test_cmc_leaves_unlabelled_samples_out_and_smc_uses_them(train, config):
    labelled = torch.arange(16) % 3 != 1
    hidden = replace(train.data, labels=train.labels.masked_fill(~labelled, float("nan")), labelled=labelled)
    method = small(train, **config)
    terms = method.losses(hidden, method(hidden)).raw
    known = train.data.select(labelled.nonzero().flatten())
    assert terms["cmc"].item() == pytest.approx(method.losses(known, method(known)).raw["cmc"].item(), rel=1e-4)
    assert terms["smc"].item() == pytest.approx(terms_of(train, **config)[1]["smc"].item(), rel=1e-6)
    loss_sum(terms).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    nobody = replace(hidden, labelled=torch.zeros(16, dtype=torch.bool))
    assert method.losses(nobody, method(nobody)).raw["cmc"].item() == 0


def test_an_unlabelled_sample_has_itself_alone_as_positive_of_smc(train):
    labelled = torch.arange(16) != 3
    hidden = replace(train.data, labels=train.labels.masked_fill(~labelled, float("nan")), labelled=labelled)
    method = small(train, positives="instance_or_category")
    categories = train.task.categories(train.labels)
    categories[3] = 7
    expected = cross_modal_decoupled(
        contrasted(method, train, "shared"), categories=categories, positives="instance_or_category"
    )
    assert method.losses(hidden, method(hidden)).raw["smc"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_single_stage_gives_both_modules_the_same_states(train):
    method, terms = terms_of(train, single_stage=True)
    assert set(method(train.data).representations) == {f"{m}/feature" for m in MODALITIES} | {"fusion"}
    assert "shared" not in {name.split(".")[0] for name, _ in method.named_parameters()}
    assert method.fuse.in_features == 3 * 8
    for name in ("cmc", "smc"):
        assert reached(terms[name], method) == {"project", "specific", "routing"}
    u = contrasted(method, train, "shared", states="feature")
    assert terms["smc"].item() == pytest.approx(cross_modal_decoupled(u).item(), rel=1e-4)


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
    assert small(split, categories="bins7").categories(split.labels).tolist() == bins


def test_mean_squared_error(train):
    method, terms = terms_of(train, task_loss="mse")
    torch.testing.assert_close(terms["task"], (method(train.data).prediction - train.labels).square().mean())


def test_capsules_and_rounds(train):
    default = terms_of(train)[1]
    for config, term in (({"routing_iterations": 1}, "cmc"), ({"squash": "tanh"}, "smc")):
        assert terms_of(train, **config)[1][term].item() != pytest.approx(default[term].item(), rel=1e-6)
    method = small(train, capsules=5, capsule_dim=2)
    assert method.contrast_vectors("shared", train.data, method(train.data))["text"].shape == (16, 10)


@pytest.mark.parametrize(("encoder", "kind"), [("transformer", "FrameTransformer"), ("lstm", "FrameLSTM")])
def test_encoder(train, encoder, kind):
    method = small(train, encoder=encoder)
    assert {type(x).__name__ for x in (*method.specific.values(), method.shared)} == {kind}
    train_epochs(method, train, epochs=2, size=8)


def test_an_absent_modality_is_not_contrasted(train):
    absent = replace(train, data=train.data.hide({"text": torch.zeros_like(train.data.valid["text"])}))
    method, terms = terms_of(absent)
    z, u = (contrasted(method, absent, stage) for stage in STAGES)
    z, u = ({m: rows for m, rows in vectors.items() if m != "text"} for vectors in (z, u))
    cmc = partial(modulated_supcon, categories=train.task.categories(train.labels))
    assert terms["smc"].item() == pytest.approx(cross_modal_decoupled(u).item(), rel=1e-4)
    assert terms["cmc"].item() == pytest.approx(cmc_of(z, cmc) * 2 / 3, rel=1e-4)  # the absent one gives 0
    for name, term in terms_of(absent, contrast_absent=True)[1].items():
        if name != "task":
            assert term.item() != pytest.approx(terms[name].item(), rel=1e-3)


def test_emotions():
    split = make_split(size=16, task=emotions(("happy", "sad")))
    method, terms = terms_of(split)
    assert method(split.data).prediction.shape == (16, 2, 2)
    cmc = partial(modulated_supcon, categories=(split.labels * torch.tensor([1, 2])).sum(1))
    assert terms["cmc"].item() == pytest.approx(cmc_of(contrasted(method, split, "specific"), cmc), rel=1e-4)
    train_epochs(small(split, categories="ranked"), split, epochs=2, size=8)


# --- schedules and training ---


def test_two_phases(train):
    method = small(train, schedule="T2", finetune_epoch=3)

    def moved(epochs):
        before = state(method)
        train_epochs(method, train, epochs=epochs, size=8)
        return {name.split(".")[0] for name in changed(method, before)}

    assert method.phases == STAGES
    method.start_phase("specific", train)
    output = method(train.data)
    assert set(output.representations) == {f"{m}/specific" for m in MODALITIES}
    terms = method.losses(train.data, output).raw
    assert list(terms) == ["task", "cmc"]
    assert reached(terms["task"], method) == {"project", "specific", "specific_head"}
    assert moved(epochs=2) == {"project", "specific", "specific_head", "routing"}
    method.start_phase("shared", train)
    assert moved(epochs=2) == {"shared", "fuse", "predict", "routing"}
    assert moved(epochs=3) == {"project", "specific", "shared", "fuse", "predict", "routing"}
    assert list(method.losses(train.data, method(train.data))) == ["task", "smc"]


def test_a_frozen_stage_runs_without_dropout_and_the_text_encoder_is_frozen_with_it(tokens):
    method = small(tokens, schedule="T2", finetune_epoch=2, dropout=0.5, text_encoder="bert")
    frozen = [method.text_encoder, method.project, method.specific]
    method.start_phase("shared", tokens)
    for epoch, released in ((1, False), (2, True)):
        method.start_epoch(epoch)
        assert all(p.requires_grad is released for part in frozen for p in part.parameters())
        one, two = (method(tokens.data).representations for _ in range(2))
        assert torch.equal(one["text/specific"], two["text/specific"]) is not released
        assert not torch.equal(one["text/shared"], two["text/shared"])


@pytest.mark.parametrize("reading", [small, headline])
@pytest.mark.parametrize("schedule", ["T1", "T2"])
def test_fit_lowers_the_loss(schedule, reading, train):
    method = reading(train, schedule=schedule, finetune_epoch=2)
    settings = {"max_epochs": 8, "patience": 8, "batch_size": 8}
    result = fit(method, train, make_split(size=16, seed=1), settings=settings, seed=1, progress="none")
    history = result.history.query("split == 'train'")
    for phase in method.phases:
        values = history[(history["phase"] == phase) & (history["name"] == "loss/total")]["value"].tolist()
        assert len(values) == 8
        assert values[-1] < values[0]
    logged = set(history[history["phase"] == method.phases[-1]]["name"])
    assert {"raw/task", "raw/smc", "loss/task", "loss/smc"} <= logged
    assert ("raw/cmc" in logged) is (schedule == "T1")
