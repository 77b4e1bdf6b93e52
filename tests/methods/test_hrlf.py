"""hrlf: terms of both phases against slow computations, who is trained by what, the discriminators' game."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hrlf_data import FRF, arrays, hidden_relu, small, terms_of
from method_data import changed, make_split, reached, state, train_epochs

import mmsa_lib.methods.hrlf as module
from mmsa_lib.data.batch import MODALITIES
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.data.task import classes, emotions
from mmsa_lib.losses.factorization import reconstruction_loss, translation_loss
from mmsa_lib.methods.hrlf import HRLFNetwork


@pytest.fixture
def train():
    return make_split(size=10)


@pytest.fixture
def cyclic(monkeypatch):
    """Shuffle by one place, so that slow computations know the partners."""
    monkeypatch.setattr(module, "derangement", lambda count, device=None: torch.arange(count).roll(1))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def scales(method, network, batch):
    return [e.detach().double().numpy() for e in network(batch).scales(method.config.scale_merge)]


def incomplete(train):
    return train.data.hide({"text": torch.zeros_like(train.data.valid["text"])})


@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_task_and_factorization_of_the_network_of_the_phase(train, phase):
    method, terms = terms_of(train, phase)
    network = getattr(method, phase)
    encoding = network(train.data)
    parts = (encoding.states, encoding.sentiment, encoding.specific, network.decoder)
    assert method.config.frf_distance == "mse"
    torch.testing.assert_close(terms["translation"], translation_loss(*parts, distance="mse"))
    expected = reconstruction_loss(*parts, network.sentiment, distance="mse")
    torch.testing.assert_close(terms["reconstruction"], expected)
    expected = sum((p - y) ** 2 for p, y in zip(encoding.raw.flatten().tolist(), train.labels.tolist(), strict=True))
    assert terms["task"].item() == pytest.approx(expected / 10, rel=1e-4)


def test_hmi_and_hal_and_kl_sample_by_sample(train, cyclic):
    """The student sees the samples without text, the teacher sees them whole."""
    method = small(train)
    hidden = incomplete(train)
    terms = method.losses(train.data, method(hidden)).raw
    t, s = scales(method, method.teacher.eval(), train.data), scales(method, method.student, hidden)
    pairs, judges = arrays(method.statistics), arrays(method.discriminators)
    hmi = hal = 0.0
    for i in range(3):
        for row in range(10):
            together = hidden_relu(pairs, str(i), np.concatenate([t[i][row], s[i][row]])).item()
            apart = hidden_relu(pairs, str(i), np.concatenate([t[i][row], s[i][row - 1]])).item()
            hmi += (softplus(-together) + softplus(apart)) / 10
            for vector, sign in ((s[i][row], 1), (t[i][row], -1)):
                hal -= softplus(sign * hidden_relu(judges, str(i), vector).item()) / 10
    assert terms["hmi"].item() == pytest.approx(hmi, rel=1e-5)
    assert terms["hal"].item() == pytest.approx(hal, rel=1e-5)
    difference = (method.teacher(train.data).raw - method.student(hidden).raw).double()
    assert terms["kl"].item() == pytest.approx((difference**2).mean().item() / 2, rel=1e-3)
    assert terms["kl"].item() > 0


@pytest.mark.parametrize("task", [classes(("neg", "neu", "pos")), emotions(("happy", "sad"))])
def test_task_and_kl_of_classes_and_emotions(task):
    """Means over samples, and over emotions, of the divergence of softmax outputs, term by term."""
    split = make_split(size=6, task=task)
    method = small(split, student_init="random")
    for network in (method.teacher, method.student):
        network.predict.weight.data.mul_(20)
    p, q = (
        task.shape_prediction(n(split.data).raw).double().softmax(-1).flatten(0, -2)
        for n in (method.teacher, method.student)
    )
    truth = split.labels.long().flatten().tolist()
    divergence = sum(a * (a.log() - b.log()) for t, s in zip(p, q, strict=True) for a, b in zip(t, s, strict=True))
    terms = method.losses(split.data, method(split.data))
    assert terms["kl"].item() == pytest.approx(divergence.item() / len(truth), rel=1e-4)
    cross_entropy = -sum(row[answer].log() for row, answer in zip(q, truth, strict=True))
    assert terms["task"].item() == pytest.approx(cross_entropy.item() / len(truth), rel=1e-4)


def test_what_each_term_reaches(train):
    method, terms = terms_of(train)
    assert reached(terms["hmi"], method) == {"student", "statistics"}
    assert reached(terms["hal"], method) == {"student", "discriminators"}
    for name in ("task", "kl", *FRF):
        assert reached(terms[name], method) == {"student"}
    method, terms = terms_of(train, "teacher")
    for term in terms.values():
        assert reached(term, method) == {"teacher"}


def test_each_step_changes_its_own_networks(train):
    method = small(train, "teacher")
    before = state(method)
    train_epochs(method, train, size=5)
    assert {name.split(".")[0] for name in changed(method, before)} == {"teacher"}
    method.start_phase("student", train)
    before = state(method)
    train_epochs(method, train, size=5)
    assert {name.split(".")[0] for name in changed(method, before)} == {"student", "statistics", "discriminators"}


def test_the_frozen_teacher_runs_without_dropout(train):
    method = small(train, dropout=0.5)
    for module_ in (method.train(), method.eval().train()):
        assert module_.student.training
        assert not any(part.training for part in method.teacher.modules())
    one, two = (method.with_teacher(train.data, method(train.data)).auxiliary for _ in range(2))
    assert torch.equal(one["teacher/prediction"], two["teacher/prediction"])
    assert not torch.equal(one["scale/1"], two["scale/1"])
    assert not any(p.requires_grad for p in method.teacher.parameters())
    method.start_phase("teacher", train)
    assert all(part.training for part in method.teacher.modules())


def test_the_student_sees_gaps_and_the_teacher_none(train, monkeypatch):
    seen = {"teacher": [], "student": []}
    method = small(train)
    plain = HRLFNetwork.forward

    def noting(network, batch):
        seen["teacher" if network is method.teacher else "student"].append(batch)
        return plain(network, batch)

    monkeypatch.setattr(HRLFNetwork, "forward", noting)
    optimizers = method.optimizers()
    for _ in range(3):
        method.training_step(train.data, optimizers)
    assert len(seen["teacher"]) == len(seen["student"]) == 3
    for whole in seen["teacher"]:
        assert all(torch.equal(whole.observed[m], train.data.observed[m]) for m in MODALITIES)
    masks = [torch.cat([b.observed[m] for m in MODALITIES], 1) for b in seen["student"]]
    assert all(mask.any(1).all() for mask in masks)
    assert not torch.equal(masks[0], masks[1])
    for m in MODALITIES:
        for b in seen["student"]:
            assert (b.features[m][~b.observed[m]] == 0).all()
            assert torch.equal(b.valid[m], train.data.valid[m])


def test_evaluation_runs_the_student_alone(train, monkeypatch):
    method = small(train).eval()
    expected = method.student(train.data).raw.squeeze(-1)

    def forbidden(*args, **kwargs):
        raise AssertionError("training-only code ran")

    monkeypatch.setattr(method.teacher, "forward", forbidden)
    for name in ("statistics", "discriminators"):
        monkeypatch.setattr(getattr(method, name), "forward", forbidden)
    monkeypatch.setattr(HRLFNetwork, "factorization", forbidden)
    output = method(train.data)
    torch.testing.assert_close(output.prediction, expected)
    assert output.auxiliary == {}
    assert list(method.losses(train.data, output).raw) == ["task"]
    names = {f"{m}/{part}" for m in MODALITIES for part in ("state", "sentiment", "specific")}
    assert set(output.representations) == {*names, "fusion"}
    with pytest.raises(AssertionError, match="training-only"):
        method.train().losses(train.data, method(train.data))


def test_the_teacher_predicts_in_its_own_phase(train):
    method = small(train, "teacher").eval()
    torch.testing.assert_close(method(train.data).prediction, method.teacher(train.data).raw.squeeze(-1))
    assert not torch.allclose(method(train.data).prediction, method.student(train.data).raw.squeeze(-1))


def test_on_a_fixed_batch_discriminators_raise_equation_9_and_the_student_lowers_it(train):
    only_hal = {"no_frf": True, "no_hmi": True, "no_kl": True}
    method = small(train, msm="none", student_init="random", learning_rate=1e-2, **only_hal)
    optimizers = method.optimizers()

    def equation_9():
        return method.losses(train.data, method(train.data)).raw["hal"].item()

    values = [equation_9()]
    for _ in range(20):
        method.discriminator_step(method.with_teacher(train.data, method(train.data)), optimizers["discriminators"])
        values.append(equation_9())
    assert values[1] > values[0]
    assert values[-1] > values[0] + 0.1
    for _ in range(20):
        optimizers["network"].zero_grad()
        method.losses(train.data, method(train.data)).raw["hal"].backward()
        optimizers["network"].step()
        values.append(equation_9())
    assert values[21] < values[20]
    assert values[-1] < values[20] - 0.1


def test_the_discriminators_step_leaves_the_student_alone(train):
    method = small(train)
    before = state(method)
    loss = method.discriminator_step(
        method.with_teacher(train.data, method(train.data)), method.optimizers()["discriminators"]
    )
    assert {name.split(".")[0] for name in changed(method, before)} == {"discriminators"}
    method.load_state_dict(before)
    assert loss.item() == pytest.approx(-method.losses(train.data, method(train.data)).raw["hal"].item(), rel=1e-6)


def test_one_student_step_by_hand(train, cyclic):
    """Plain Adam on the sum of the weighted terms, after the discriminators' step, from the same state."""
    fast, slow = (small(train, msm="none", lambda_frf=0.5, lambda_kl=2.0) for _ in range(2))
    log = fast.training_step(train.data, fast.optimizers())
    output = slow.with_teacher(train.data, slow(train.data))
    first = torch.optim.Adam(slow.discriminators.parameters(), lr=1e-3)
    fooled, known = (
        [d(output.auxiliary[f"{who}scale/{i}"].detach()) for i, d in enumerate(slow.discriminators, start=1)]
        for who in ("", "teacher/")
    )
    sum(-(-x).sigmoid().log().mean() - y.sigmoid().log().mean() for x, y in zip(fooled, known, strict=True)).backward()
    first.step()
    second = torch.optim.Adam([*slow.student.parameters(), *slow.statistics.parameters()], lr=1e-3)
    t = slow.losses(train.data, slow(train.data)).raw
    total = t["task"] + 0.5 * (t["translation"] + t["reconstruction"]) + t["hmi"] + t["hal"] + 2 * t["kl"]
    total.backward()
    second.step()
    assert log["loss/total"] == pytest.approx(total.item(), rel=1e-5)
    for name, value in fast.state_dict().items():
        torch.testing.assert_close(value, slow.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_a_single_sample_has_no_hmi(train):
    method = small(train)
    one = train.data.select(torch.tensor([3]))
    log = method.training_step(one, method.optimizers())
    assert "raw/hmi" not in log
    assert "raw/hal" in log


def test_validation_samples(train):
    method = small(train)
    assert method.prepare_validation("teacher", train) is train
    found, again = (method.prepare_validation("student", train) for _ in range(2))
    shared = stochastic_validation(train)
    for m in MODALITIES:
        assert torch.equal(found.data.observed[m], again.data.observed[m])
        assert torch.equal(found.data.observed[m], shared.data.observed[m])
    assert any(not torch.equal(found.data.observed[m], train.data.observed[m]) for m in MODALITIES)
    assert method.own_missing


def test_gaps_differ_between_seeds_and_repeat_for_equal_ones(train):
    def masks(seed):
        method = small(train) if seed is None else module_seeded(seed)
        return method._incomplete(train.data).observed["text"]

    def module_seeded(seed):
        torch.manual_seed(seed)
        method = small(train)
        torch.manual_seed(seed)
        method.start_phase("student", train)
        return method

    assert torch.equal(masks(1), masks(1))
    assert not torch.equal(masks(1), masks(2))


def test_text_that_is_absent_everywhere(train):
    absent = replace(train, data=incomplete(train))
    method = small(absent)
    steps, ends = train_epochs(method, absent, epochs=2, size=5)
    assert all(math.isfinite(v) for step in steps for v in step.values())
    assert set(ends[-1]) == {"z_sd", "z_sd/audio", "z_sd/vision"}
