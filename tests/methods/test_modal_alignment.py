"""modal_alignment: the covariance branch, its switches, and its parent underneath."""

import math

import numpy as np
import pytest
import torch
from method_data import DIMS, TinyTextEncoder, build, changed, make_split, state, train_epochs, without_labels

from mmsa_lib.data.task import emotions
from mmsa_lib.methods import create
from mmsa_lib.methods.base import measured_gradients
from mmsa_lib.methods.modal_alignment import CovarianceBranch

COV = "covariance_audio-vision"
LITERAL = {"sequence": "lstm", "statistic": "covariance", "cov_batch": "micro"}
"""The plain reading, beside its weight of 1."""


@pytest.fixture
def train():
    return make_split()


def naive_distance(x, y, statistic=np.cov):
    x, y = x.detach().double().numpy(), y.detach().double().numpy()
    return ((statistic(x, rowvar=False) - statistic(y, rowvar=False)) ** 2).sum() / (4 * x.shape[1] ** 2)


def literal(train, **config):
    return build("modal_alignment", train, **(LITERAL | config))


def after_training(train, epochs=3, size=3, **config):
    method = literal(train, **config)
    steps, _ = train_epochs(method, train, epochs, size)
    return method, steps


@pytest.mark.parametrize("off", [{"lambda_cov": 0.0}, {"no_alignment": True}, {"pair_mode": "off"}, {"pairs": ()}])
def test_without_alignment_it_is_self_mm(train, off):
    plain = build("self_mm", train)
    train_epochs(plain, train, epochs=4, size=2)
    method, _ = after_training(train, epochs=4, size=2, **off)
    assert not changed(method.host, state(plain))
    assert torch.equal(plain.eval()(train.data).prediction, method.eval()(train.data).prediction)


def test_with_alignment_it_is_not_self_mm(train):
    off, on = (after_training(train, lambda_cov=weight)[0].host for weight in (0.0, 100.0))
    assert {"encoders.audio", "encoders.vision"} <= {name.rsplit(".", 2)[0] for name in changed(on, state(off))}


def test_loss_is_the_weighted_covariance_distance(train):
    method = literal(train, lambda_cov=10.0)
    output = method(train.data)
    weighted = method.losses(train.data, output)
    raw = weighted.raw
    expected = naive_distance(output.representations["audio/shared"], output.representations["vision/shared"])
    assert raw[COV].item() == pytest.approx(expected, rel=1e-4)
    assert weighted[COV].item() == pytest.approx(10 * expected, rel=1e-4)
    assert torch.equal(weighted["task"], raw["task"])


def test_shared_loss_reaches_audio_and_vision_but_not_text_nor_m_t(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = make_split(tokens=True)
    method = build("modal_alignment", train, text_encoder="bert")
    method.losses(train.data, method(train.data))[COV].backward()
    reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {name.rsplit(".", 2)[0] for name in reached} == {
        "host.encoders.audio", "host.encoders.vision", "branch.project.audio", "branch.project.vision",
    }  # fmt: skip


def test_m_t_never_receives_a_gradient_nor_a_step(train):
    before = [p.clone() for p in literal(train).branch.project["text"].parameters()]
    method, _ = after_training(train, update_epochs=2)
    for old, new in zip(before, method.branch.project["text"].parameters(), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("pairs", [("text-audio",), ("text-vision", "audio-vision"), ("vision-audio",)])
def test_pairs(train, pairs):
    method = literal(train, pairs=pairs)
    output = method(train.data)
    terms = method.losses(train.data, output).raw
    names = [pair if pair != "vision-audio" else "audio-vision" for pair in pairs]
    assert [name for name in terms if name.startswith("covariance")] == [f"covariance_{name}" for name in names]
    for name in names:
        x, y = (output.representations[f"{m}/shared"] for m in name.split("-"))
        assert terms[f"covariance_{name}"].item() == pytest.approx(naive_distance(x, y), rel=1e-4)


def test_pair_mode_per_pair(train):
    modes = {("audio", "vision"): "private", "text-audio": "off"}
    method = literal(train, pairs=("text-audio", "text-vision", "audio-vision"), pair_mode=modes, lambda_cov=2.0)
    output = method(train.data)
    terms = method.losses(train.data, output).raw
    m_a, m_v = (output.representations[f"{m}/shared"] for m in ("audio", "vision"))
    distance = naive_distance(m_a, m_v)
    assert "covariance_text-audio" not in terms
    assert terms["covariance_text-vision"].item() == pytest.approx(
        naive_distance(output.representations["text/shared"], m_v), rel=1e-4
    )
    assert terms[COV].item() == pytest.approx(math.log((1 + distance) / (distance + 1e-6)), rel=1e-3)


def test_shared_pulls_together_and_private_pushes_apart(train):
    ends = {}
    for mode in ("shared", "off", "private"):
        method, _ = after_training(train, epochs=15, size=12, pair_mode=mode, lambda_cov=30.0, update_epochs=1)
        shared = method.eval()(train.data).representations
        ends[mode] = naive_distance(shared["audio/shared"], shared["vision/shared"])
    assert ends["shared"] < ends["off"] < ends["private"]


def test_the_default_weighs_correlations_of_all_samples_of_a_step(train):
    """And the literal reading has its values by name: defaults changed once."""
    method = build("modal_alignment", train, post_text_dropout=0, post_audio_dropout=0)
    shared = method(train.data).representations
    expected = naive_distance(shared["audio/shared"], shared["vision/shared"], np.corrcoef)
    method.start_epoch(1)
    steps = [method.training_step(batch, method.optimizers()) for batch in train.batches(3)]
    assert [step.get(f"loss/{COV}") for step in steps[:3]] == [None] * 3
    assert steps[3][f"raw/{COV}"] == pytest.approx(expected, rel=1e-4)
    assert steps[3][f"loss/{COV}"] == pytest.approx(30 * expected, rel=1e-4)
    weights = [
        create("modal_alignment", DIMS, train.task, dataset=name).config
        for name in ("synthetic_redundant", "mosi", "mosei")
    ]
    assert [config.lambda_cov for config in weights] == [60.0, 10.0, 30.0]
    assert (weights[1].batch_size, weights[2].batch_size) == (16, 32), "the parent's values by data set stay"


def test_two_modalities_are_a_declared_variant(train):
    two = make_split(modalities=("text", "audio"))
    method = build("modal_alignment", two)
    assert method.variant
    assert "covariance_text-audio" in method.losses(two.data, method(two.data))
    assert build("modal_alignment", train).variant == ""


def test_log_holds_raw_weighted_and_norms(train):
    _, steps = after_training(train, epochs=1, size=12, lambda_cov=100.0)
    log = steps[0]
    assert log[f"loss/{COV}"] == pytest.approx(100 * log[f"raw/{COV}"], rel=1e-5)
    fresh = literal(train)
    norms = fresh(train.data).representations["vision/shared"].norm(dim=-1)
    assert log["norm/M_vision"] == pytest.approx(norms.mean().item(), rel=1e-5)
    assert {"norm/M_text", "norm/M_audio", "loss/total", "raw/label_text"} <= log.keys()
    assert log["loss/total"] == pytest.approx(
        sum(v for k, v in log.items() if k.startswith("loss/") and "total" not in k)
    )


def test_settings_reach_the_host(train):
    method, steps = after_training(train, no_ulgm=True)
    assert not any("label_" in name for step in steps for name in step)
    assert steps[-1][f"raw/{COV}"] > 0
    assert method.host.trained == ("fusion",)
    _, steps = after_training(train, epochs=1, no_weighting=True)
    assert steps[0]["raw/label_audio"] > 0


def test_accumulated_covariances_take_all_samples_of_a_step(train):
    """``sum over micro-batches of (L2 + L1 + lambda L3)``, each L3 over the whole group."""
    config = {"cov_batch": "accumulated", "update_epochs": 2, "post_text_dropout": 0, "post_audio_dropout": 0}
    method = literal(train, lambda_cov=50.0, **config)
    whole = method(train.data)
    expected = naive_distance(whole.representations["audio/shared"], whole.representations["vision/shared"])
    sum(method.losses(b, method(b))["task"] for b in train.batches(6)).add(
        2 * method.losses(train.data, whole)[COV]
    ).backward()
    gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.start_epoch(1)
    method.apply_gradients = lambda optimizers: None
    with measured_gradients(method.encoder_parameters()):
        steps = [method.training_step(batch, {}) for batch in train.batches(6)]
    assert not {f"raw/{COV}", f"gradient/{COV}"} & steps[0].keys()
    assert min(steps[1]["gradient/task"], steps[1][f"gradient/{COV}"]) > 0
    assert steps[1][f"raw/{COV}"] == pytest.approx(expected, rel=1e-4)
    total = sum(step["loss/total"] for step in steps)  # each micro-batch's loss has it, the last one logs it for all
    assert total == pytest.approx(2 * 50 * expected + sum(step["loss/task"] for step in steps), rel=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(method.get_parameter(name).grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cov_batch", ["micro", "accumulated", "ema"])
def test_a_shared_statistic_is_none_of_pairs(train, cov_batch):
    """Training with every M_a beside the M_v of another sample is training as it is."""
    ends = []
    for shuffled in (False, True):
        method, steps = after_training(
            train, size=6, cov_batch=cov_batch, shuffled_pairs=shuffled, lambda_cov=100.0, update_epochs=2
        )
        assert method.branch.shuffled is shuffled
        assert steps[-1][f"loss/{COV}"] > 0
        ends.append(state(method))
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pair_mode", ["shared", "private"])
def test_batches_that_are_too_small_have_no_covariance_loss(train, pair_mode):
    method = literal(train, pair_mode=pair_mode, min_cov_samples=5)
    small, large = (train.data.select(torch.arange(size)) for size in (4, 5))
    assert method.losses(small, method(small)).raw[COV].item() == 0
    assert method.losses(large, method(large)).raw[COV].item() > 0


@pytest.mark.parametrize("cov_batch", ["micro", "ema"])
def test_correlations_know_no_scale_of_m(train, cov_batch):
    method = build("modal_alignment", train, statistic="correlation", cov_batch=cov_batch)
    shared = {m: torch.randn(9, 32, dtype=torch.float64) for m in train.modalities}
    parts = [np.corrcoef(shared[m].numpy(), rowvar=False) for m in ("audio", "vision")]
    expected = pytest.approx(((parts[0] - parts[1]) ** 2).sum() / (4 * 32**2), rel=1e-4)
    assert method.branch.eval().distances(shared)["audio-vision"].item() == expected
    small = {m: 1e-2 * x for m, x in shared.items()}
    assert method.branch.distances(small)["audio-vision"].item() == expected


def test_unlabelled_samples_enter_the_covariances_and_no_label_term(train):
    hidden = without_labels(train, [1, 4, 5, 9])
    method = literal(hidden, post_text_dropout=0, post_audio_dropout=0, lambda_cov=3.0)
    output = method(hidden.data)
    x, y = (output.representations[f"{m}/shared"] for m in ("audio", "vision"))
    assert method.losses(hidden.data, output).raw[COV].item() == pytest.approx(naive_distance(x, y), rel=1e-4)
    _, steps = after_training(hidden)
    assert all(math.isfinite(value) for step in steps for value in step.values())


@pytest.mark.parametrize("width", [8, 768])
@pytest.mark.parametrize("method_id", ["modal_alignment", "self_mm", "late_fusion", "early_fusion", "text_only"])
def test_text_encoders_of_any_width(method_id, width, monkeypatch):
    monkeypatch.setattr(TinyTextEncoder, "width", width)
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = make_split(tokens=True)
    method = build(method_id, train, text_encoder="bert")
    before = method.text_encoder.embed.weight.clone()
    train_epochs(method, train, size=3)
    assert method.dims["text"] == width
    assert not torch.equal(method.text_encoder.embed.weight, before)


def test_accumulated_without_weight_follows_self_mm(train):
    plain = build("self_mm", train)
    train_epochs(plain, train, epochs=4, size=2)
    method, _ = after_training(train, epochs=4, size=2, cov_batch="accumulated", lambda_cov=0.0)
    for name, value in method.host.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_ema_averages_the_covariances_of_past_batches(train):
    method = literal(train, cov_batch="ema", ema_decay=0.8, update_epochs=100)
    average = {}
    for batch in train.batches(4):
        shared = {m: method(batch).representations[f"{m}/shared"] for m in ("audio", "vision")}
        for m, x in shared.items():
            current = np.cov(x.detach().double().numpy(), rowvar=False)
            average[m] = 0.8 * average[m] + 0.2 * current if m in average else current
        log = method.training_step(batch, method.optimizers())
        expected = ((average["audio"] - average["vision"]) ** 2).sum() / (4 * 32**2)
        assert log[f"raw/{COV}"] == pytest.approx(expected, rel=1e-3)
    saved = method.state_dict()
    assert saved["branch.covariance_audio"].abs().sum() > 0
    fresh = create("modal_alignment", train.dims, train.task, **(LITERAL | {"cov_batch": "ema"}))
    fresh.load_state_dict(saved)
    assert bool(fresh.branch.started)


def test_small_batches(train):
    _, steps = after_training(train, epochs=2, size=1)
    assert all(step[f"raw/{COV}"] == 0 for step in steps)
    _, skipped = after_training(train, epochs=1, size=7, min_cov_samples=6)
    assert skipped[0][f"raw/{COV}"] > 0
    assert skipped[1][f"raw/{COV}"] == 0  # five samples are left
    _, kept = after_training(train, epochs=1, size=7)
    assert kept[1][f"raw/{COV}"] > 0


def test_branch_switches():
    torch.manual_seed(0)
    features = {"audio": torch.randn(20, 4), "vision": torch.randn(20, 3)}

    def project(**switches):
        return CovarianceBranch({"audio": 4, "vision": 3}, {"audio-vision": "shared"}, 6, **switches)(features)

    assert project()["audio"].shape == (20, 6)
    assert (project()["audio"] < 0).any()
    assert (project(activation="relu")["audio"] >= 0).all()
    assert project(activation="tanh")["vision"].abs().max() < 1
    variance = project(norm="layernorm")["audio"].var(-1, unbiased=False)
    torch.testing.assert_close(variance, torch.ones(20), rtol=1e-3, atol=1e-3)
    train = make_split()
    assert build("modal_alignment", train, d_M=16)(train.data).representations["text/shared"].shape == (12, 16)


def test_late_fusion_as_host(train):
    plain = build("late_fusion", train)
    train_epochs(plain, train, epochs=3)
    method, _ = after_training(train, host="late_fusion", update_epochs=1, lambda_cov=0.0)
    assert not changed(method.host, state(plain))
    aligned, steps = after_training(train, host="late_fusion", update_epochs=1, lambda_cov=100.0)
    assert steps[-1][f"raw/{COV}"] > 0
    assert "encoders.audio.project.weight" in changed(aligned.host, state(plain))


def test_late_fusion_as_host_predicts_emotions():
    train = make_split(task=emotions(["happy", "sad"]))
    method, steps = after_training(train, host="late_fusion")
    assert method(train.data).prediction.shape == (12, 2, 2)
    assert steps[-1][f"raw/{COV}"] > 0


def test_one_parameter_group_each(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = make_split(tokens=True)
    method = create("modal_alignment", train.dims, train.task, text_encoder="bert")
    groups = method.parameter_groups()
    assert [g["name"] for g in groups] == ["text", "text, no decay", "audio", "vision", "other"]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(id(p) for p in method.parameters())
    assert DIMS["text"] != method.dims["text"] == TinyTextEncoder.width
