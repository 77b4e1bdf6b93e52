"""self_mm: its losses, its loop and its switches."""

from dataclasses import replace

import pytest
import torch
from method_data import TinyTextEncoder, build, make_split, pad, train_epochs

from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.methods import create
from mmsa_lib.methods.self_mm import SelfMM

LABEL_TERMS = ["label_text", "label_audio", "label_vision"]


@pytest.fixture
def train():
    return make_split()


def head_gradients(method, name):
    return [p.grad for p in (*method.heads[name].parameters(), *method.post[name].parameters())]


def state(method):
    return {name: value.clone() for name, value in method.state_dict().items()}


def differ(one, two):
    return {name for name in one if not torch.equal(one[name], two[name])}


def test_widths_follow_the_config(train):
    method = create("self_mm", train.dims, train.task, dataset="sims")
    output = method.eval()(train.data)
    shapes = {name: tuple(x.shape) for name, x in output.representations.items()}
    assert shapes == {
        "text/feature": (12, 6), "audio/feature": (12, 16), "vision/feature": (12, 32),
        "text/private": (12, 64), "audio/private": (12, 16), "vision/private": (12, 32), "fusion": (12, 128),
    }  # fmt: skip
    assert output.prediction.shape == (12,)
    assert method.encoders["vision"].lstm.hidden_size == 64


@pytest.mark.parametrize(
    ("dataset", "task", "bound"), [("mosi", (-3, 3), 3), ("sims", (-1, 1), 1), ("simsv2", (-1, 1), 3)]
)
def test_bound_of_each_dataset(train, dataset, task, bound):
    assert create("self_mm", train.dims, regression(task), dataset=dataset).bank.bound == bound
    assert create("self_mm", train.dims, regression((1, 5))).bank.bound == 2


def test_losses_are_those_of_the_paper():
    train = make_split(task=regression((1, 5)))
    method = build("self_mm", train, post_text_dropout=0, post_audio_dropout=0)
    train_epochs(method, train, epochs=3)
    output = method(train.data)
    terms = method.losses(train.data, output).raw
    y, centre = train.labels.double(), 3.0
    assert terms["task"].item() == pytest.approx((output.prediction.double() - y).abs().mean().item(), rel=1e-5)
    for name in ("text", "audio", "vision"):
        total = 0.0
        for i in range(len(train)):
            target = method.bank.labels[name][i].item() + centre
            weight = torch.tanh(torch.tensor(abs(target - y[i].item()))).item()
            total += weight * abs(output.auxiliary[f"prediction/{name}"][i].item() - target)
        assert terms[f"label_{name}"].item() == pytest.approx(total / len(train), rel=1e-4)
        assert terms[f"label_{name}"].item() > 0


def test_epoch_one_leaves_unimodal_heads_without_gradient(train):
    method = build("self_mm", train, update_epochs=100)
    train_epochs(method, train)
    for name in ("text", "audio", "vision"):
        assert all(grad is None or (grad == 0).all() for grad in head_gradients(method, name))
        torch.testing.assert_close(method.bank.labels[name], train.labels)
    assert any((grad != 0).any() for grad in head_gradients(method, "fusion"))


def test_epoch_one_weights_are_exactly_zero_also_off_centre():
    train = make_split(task=regression((1, 5)))
    steps, _ = train_epochs(build("self_mm", train), train)
    assert all(step[f"raw/{name}"] == 0 for step in steps for name in LABEL_TERMS)


def test_epoch_two_trains_the_unimodal_heads(train):
    method = build("self_mm", train, update_epochs=100)
    steps, ends = train_epochs(method, train, epochs=3)
    assert all(steps[-1][f"raw/{name}"] > 0 for name in LABEL_TERMS)
    assert all((grad != 0).any() for name in ("text", "audio") for grad in head_gradients(method, name)[-2:])
    assert ends[0]["label_shift/text"] == 0
    assert ends[2]["label_shift/text"] > 0
    assert 0 <= ends[2]["clip_rate/vision"] <= 1


def test_loss_reads_labels_and_labels_read_centres_from_before_the_batch(train, monkeypatch):
    method = build("self_mm", train, update_epochs=100)
    train_epochs(method, train)
    with torch.no_grad():  # else the features of this step equal those of the bank, up to the processor's rounding
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    events = []
    bank, loss, step_update = method.bank, method.losses, method.bank.update
    before = {name: x.clone() for name, x in bank.state_dict().items()}

    def spy_loss(batch, output):
        events.append(("loss", not differ(before, bank.state_dict())))
        return loss(batch, output)

    def spy_update(epoch, index, features, labels):
        gradients = any(p.grad is not None for p in method.heads["fusion"].parameters())
        events.append(("update", gradients and not differ(before, bank.state_dict())))
        step_update(epoch, index, features, labels)

    monkeypatch.setattr(method, "losses", spy_loss)
    monkeypatch.setattr(bank, "update", spy_update)
    method.start_epoch(2)
    method.training_step(next(train.batches(5)), method.optimizers())
    assert events == [("loss", True), ("update", True)]
    assert {"label_text", "feature_fusion", "center_audio"} <= differ(before, bank.state_dict())


@pytest.mark.parametrize(("flush", "steps"), [(False, 2), (True, 3)])
def test_steps_per_epoch(flush, steps):
    train = make_split(size=19)  # 10 micro-batches of 2, the last of 1
    method = build("self_mm", train, flush_last_group=flush)
    optimizers, counts = method.optimizers(), []
    optimizer = optimizers["all"]
    step = optimizer.step
    optimizer.step = lambda: (counts.append(1), step())
    train_epochs(method, train, size=2, optimizers=optimizers)
    assert len(counts) == steps


@pytest.mark.parametrize(
    ("size", "changes", "warned"), [(5, {}, True), (2, {}, False), (5, {"flush_last_group": True}, False)]
)
@pytest.mark.parametrize("method_id", ["self_mm", "modal_alignment"])
def test_an_epoch_without_any_step_is_said_once(train, caplog, method_id, size, changes, warned):
    method = build(method_id, train, **changes)
    train_epochs(method, train, epochs=2, size=size)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warned
    assert all(f"{method_id} learns nothing" in text and "update_epochs=4" in text for text in said)


def test_left_over_gradients_do_not_reach_the_next_epoch(train):
    method = build("self_mm", train)
    train_epochs(method, train, size=5)  # three micro-batches: no step
    assert any(p.grad is not None for p in method.parameters())
    method.start_epoch(2)
    assert all(p.grad is None for p in method.parameters())


def test_accumulated_gradients_are_sums(train):
    method = build("self_mm", train, post_text_dropout=0, post_audio_dropout=0, update_epochs=100)
    train_epochs(method, train, size=6)
    summed = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    for batch in train.batches(6):
        method.task.loss(method(batch).prediction, batch.labels).backward()
    for name, gradient in summed.items():
        other = method.get_parameter(name).grad
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if other is None else other)


def test_order_of_the_batch_is_only_an_order(train):
    method = build("self_mm", train).eval()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(1))
    plain, permuted = method(train.data), method(train.data.select(order))
    torch.testing.assert_close(permuted.prediction, plain.prediction[order])
    torch.testing.assert_close(permuted.representations["fusion"], plain.representations["fusion"][order])


def test_five_parameter_groups(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = make_split(tokens=True)
    method = create("self_mm", train.dims, train.task, dataset="mosei", text_encoder="bert", update_epochs=100)
    groups = {group["name"]: group for group in method.parameter_groups()}
    assert list(groups) == ["text", "text, no decay", "audio", "vision", "other"]
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert rates == {
        "text": (5e-5, 1e-3), "text, no decay": (5e-5, 0.0),
        "audio": (5e-3, 0.0), "vision": (1e-4, 0.0), "other": (1e-3, 1e-2),
    }  # fmt: skip
    grouped = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())
    method.start_phase("train", train)
    train_epochs(method, train)
    assert method.text_encoder.embed.weight.grad.abs().sum() > 0


def test_switch_no_ulgm_keeps_the_labels(train):
    method = build("self_mm", train, no_ulgm=True)
    steps, ends = train_epochs(method, train, epochs=3)
    assert torch.equal(method.bank.labels["text"], train.labels)
    assert all(step[f"raw/{name}"] == 0 for step in steps for name in LABEL_TERMS)
    assert ends[-1]["label_shift/text"] == 0


def test_switch_no_ulgm_equals_single_task(train):
    """With all weights at 0 only M is trained (weight decay off: Adam decays parameters whose gradient is 0)."""
    plain = {"weight_decay": 0.0, "weight_decay_audio": 0.0, "weight_decay_vision": 0.0}
    states = []
    for switch in ({"no_ulgm": True}, {"single_task": True, "no_ulgm": True}, {"tasks": ("M",), "no_ulgm": True}):
        method = build("self_mm", train, **switch, **plain)
        train_epochs(method, train, epochs=3)
        states.append(state(method))
    assert not differ(states[0], states[1])
    assert not differ(states[1], states[2])


def test_switch_no_weighting(train):
    steps, _ = train_epochs(build("self_mm", train, no_weighting=True), train)
    assert all(steps[0][f"raw/{name}"] > 0 for name in LABEL_TERMS)


@pytest.mark.parametrize(
    "switch",
    [
        {"no_momentum": True}, {"distance": "scaled_sq"}, {"relative": "centers"}, {"label_bound": 0.5},
    ],
)  # fmt: skip
def test_switches_of_the_bank_change_the_labels(train, switch):
    banks = []
    for config in ({}, switch):
        method = build("self_mm", train, **config)
        train_epochs(method, train, epochs=3)
        banks.append(method.bank.labels["text"])
    assert not torch.equal(*banks)


def test_switch_exclude_zero():
    train = make_split(labels=torch.tensor([0.0, 0, 1, -1, 2, -2, 0, 0, 1, -1, 3, -3]))
    centers = []
    for exclude in (True, False):
        method = build("self_mm", train, exclude_zero=exclude)
        train_epochs(method, train)
        centers.append(method.bank.centers["text"].positive)
    assert not torch.equal(*centers)


@pytest.mark.parametrize(
    ("tasks", "terms"),
    [
        (("M", "T"), {"task", "label_text"}),
        (("M", "A", "V"), {"task", "label_audio", "label_vision"}),
        (("V", "M", "T", "A"), {"task", *LABEL_TERMS}),
        (("T",), {"label_text"}),
    ],
)
def test_tasks_choose_the_heads(train, tasks, terms):
    method = build("self_mm", train, tasks=tasks)
    output = method(train.data)
    assert set(method.losses(train.data, output)) == terms
    reported = "fusion" if "M" in tasks else "text"
    assert torch.equal(output.prediction, output.auxiliary[f"prediction/{reported}"])


def test_tasks_that_train_nothing_are_errors():
    train = make_split(modalities=("text", "audio"))
    with pytest.raises(ConfigError, match="trains no head"):
        create("self_mm", train.dims, train.task, tasks=("V",))
    with pytest.raises(ConfigError, match="add M to tasks"):
        create("self_mm", train.dims, train.task, tasks=("T",), no_ulgm=True)
    with pytest.raises(ConfigError, match="tasks"):
        create("self_mm", train.dims, train.task, tasks=("X",))


def test_text_pooling_switch(train):
    mean, first = (build("self_mm", train, text_pooling=how).eval()(train.data) for how in ("mean", "first"))
    assert torch.equal(first.representations["text/feature"], train.data.features["text"][:, 0])
    assert not torch.equal(mean.prediction, first.prediction)


def test_emotions_are_refused():
    train = make_split(task=emotions(["happy", "sad"]))
    with pytest.raises(ConfigError, match="sentiment scale"):
        create("self_mm", train.dims, train.task)


def test_padding_changes_no_step(train):
    states = []
    for batch in (train.data, pad(train.data)):
        method = build("self_mm", train, update_epochs=1)
        optimizers = method.optimizers()
        for epoch in (1, 2, 3):
            method.start_epoch(epoch)
            torch.manual_seed(epoch)
            method.training_step(batch, optimizers)
        states.append(state(method))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


def test_state_dict_fits_a_fresh_method(train):
    method = build("self_mm", train)
    train_epochs(method, train, epochs=2)
    fresh = create("self_mm", train.dims, train.task)
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(fresh.bank.labels["audio"], method.bank.labels["audio"])
    assert torch.equal(fresh.eval()(train.data).prediction, method.eval()(train.data).prediction)


def test_evaluation_needs_no_bank(train):
    method = create("self_mm", train.dims, train.task).eval()
    far = replace(train.data, index=train.data.index + 1000)
    output = method(far)
    assert set(method.losses(far, output)) == {"task"}


def test_training_lowers_the_loss():
    train = make_split(size=32, seed=3)
    labels = (3 * train.data.features["text"][:, 0, 0]).tanh() * 3
    train = replace(train, data=replace(train.data, labels=labels))
    method = build("self_mm", train, update_epochs=2, text_pooling="first")
    steps, _ = train_epochs(method, train, epochs=40, size=8)
    first, last = (sum(step["raw/task"] for step in part) for part in (steps[:4], steps[-4:]))
    assert last < 0.5 * first
    assert isinstance(method, SelfMM)
