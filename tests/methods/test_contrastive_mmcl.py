"""contrastive_mmcl: its network, what reaches what, both schedules."""

import pytest
import torch
from contrastive_data import STAGES, changed, normalised_capsules, reached, small, terms_of
from method_data import TinyTextEncoder, make_split, train_epochs

import mmsa_lib.methods.contrastive_mmcl as module
from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.task import emotions
from mmsa_lib.losses.contrastive import cross_modal_decoupled, modulated_supcon
from mmsa_lib.nn.routing import DynamicRouting
from mmsa_lib.training import fit


@pytest.fixture
def train():
    return make_split(size=16)


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
    assert list(method.losses(train.data, output)) == ["task"]
    with pytest.raises(AssertionError, match="training-only"):
        method.train().losses(train.data, method(train.data))


def test_inference_needs_no_routing_weights(train):
    method, without = small(train), small(train, no_routing=True)
    without.load_state_dict({k: v for k, v in method.state_dict().items() if not k.startswith("routing")})
    assert torch.equal(without.eval()(train.data).prediction, method.eval()(train.data).prediction)


def test_two_phases(train):
    method = small(train, schedule="T2", finetune_epoch=3)
    assert method.phases == STAGES
    method.start_phase("specific", train)
    output = method(train.data)
    assert set(output.representations) == {f"{m}/specific" for m in MODALITIES}
    terms = method.losses(train.data, output).raw
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
    assert list(method.losses(train.data, method(train.data))) == ["task", "smc"]


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
