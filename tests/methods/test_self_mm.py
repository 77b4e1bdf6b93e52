"""self_mm: its label bank against the equations in double precision, its losses, its loop and its switches."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from method_data import TinyTextEncoder, build, changed, make_split, pad, state, train_epochs, without_labels

from mmsa_lib.data.task import regression
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods import create
from mmsa_lib.methods.self_mm import UnimodalLabelBank

WIDTHS = {"fusion": 5, "text": 4, "audio": 3}
SIZE = 10
ROWS = torch.arange(SIZE)
BOUND = 3.0
LABEL_TERMS = ["label_text", "label_audio", "label_vision"]

# --- the label bank ---


def random_features(seed, rows=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(rows, width, generator=generator) + 0.5 for name, width in WIDTHS.items()}


def make_bank(seed=0, **switches):
    """A bank after a whole first epoch, and the multimodal labels."""
    labels = torch.rand(SIZE, generator=torch.Generator().manual_seed(seed)) * 6 - 3
    bank = UnimodalLabelBank(SIZE, WIDTHS, BOUND, **switches)
    bank.initialise(labels)
    bank.update(1, ROWS, random_features(seed), labels)
    return bank, labels


def naive_distance(x, center, kind):
    squared = sum((a - b) ** 2 for a, b in zip(x, center, strict=True))
    return math.sqrt(squared) if kind == "l2" else squared / math.sqrt(len(x))


def naive_labels(bank, features, labels, distance="l2", relative="pos"):
    """Generated labels before clipping, sample by sample."""
    result = {name: [] for name in ("text", "audio")}
    for i, y in enumerate(labels.tolist()):
        delta = {}
        for name, x in features.items():
            pos, neg = (center.double().tolist() for center in bank.centers[name])
            d_pos = naive_distance(x[i].double().tolist(), pos, distance)
            d_neg = naive_distance(x[i].double().tolist(), neg, distance)
            scale = d_pos if relative == "pos" else naive_distance(pos, neg, distance)
            delta[name] = (d_neg - d_pos) / (scale + 1e-8)
        for name in result:
            ratio = delta[name] / (delta["fusion"] + 1e-8)
            result[name].append(0.5 * ratio * y + 0.5 * (y + delta[name] - delta["fusion"]))
    return {name: torch.tensor(values) for name, values in result.items()}


@pytest.mark.parametrize("distance", ["l2", "scaled_sq"])
@pytest.mark.parametrize("relative", ["pos", "centers"])
def test_generated_labels(distance, relative):
    bank, labels = make_bank(distance=distance, relative=relative)
    features = random_features(7)
    expected = naive_labels(bank, features, labels, distance, relative)
    for name, value in bank.generate(features, labels).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3)


def test_closed_form():
    bank, labels = make_bank()
    bank = bank.double()
    features = {name: x.double() for name, x in random_features(3).items()}
    deltas = bank.relative_distances(torch.cat(list(features.values()), dim=1))
    delta = dict(zip(WIDTHS, deltas.unbind(dim=1), strict=True))
    for name, value in bank.generate(features, labels.double()).items():
        d_s, d_m = delta[name], delta["fusion"]
        expected = labels + (d_s - d_m) / 2 * (labels + d_m) / d_m
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)


def test_clip_rate_of_standard_gaussians():
    """Relative distances standard Gaussian, labels uniform on -3..3: an independent simulation of the closed form."""

    class GaussianBank(UnimodalLabelBank):
        def relative_distances(self, joined):
            return joined

    torch.manual_seed(0)
    size = 40_000
    bank = GaussianBank(size, {"fusion": 1, "text": 1}, BOUND)
    labels = torch.rand(size) * 6 - 3
    bank.update(2, torch.arange(size), {"fusion": torch.randn(size, 1), "text": torch.randn(size, 1)}, labels)

    generator = np.random.default_rng(0)
    d_m, d_s = generator.standard_normal((2, 1_000_000))
    y = generator.uniform(-3, 3, 1_000_000)
    expected = (np.abs(y + (d_s - d_m) / 2 * (y + d_m) / d_m) > BOUND).mean()
    assert 0.15 < expected < 0.2
    assert bank.clip_rate()["text"] == pytest.approx(expected, abs=0.006)


def test_momentum_is_the_weighted_mean_over_epochs_and_without_it_the_epoch_counts_alone():
    (bank, labels), (last, _) = make_bank(), make_bank(momentum=False)
    history = [labels]
    for epoch in range(2, 7):
        features = random_features(10 + epoch)
        history.append(bank.generate(features, labels)["text"].clamp(-BOUND, BOUND))
        bank.update(epoch, ROWS, features, labels)
        expected = last.generate(features, labels)["audio"].clamp(-BOUND, BOUND)
        last.update(epoch, ROWS, features, labels)
        torch.testing.assert_close(last.labels["audio"], expected)
    weights = [2 * k / (6 * 7) for k in range(1, 7)]
    assert sum(weights) == pytest.approx(1)
    expected = sum(w * y for w, y in zip(weights, history, strict=True))
    torch.testing.assert_close(bank.labels["text"], expected, rtol=1e-4, atol=1e-4)


def test_labels_stay_in_bounds_and_multimodal_ones_never_change():
    bank, labels = make_bank()
    for epoch in range(2, 30):
        bank.update(epoch, ROWS, random_features(epoch), labels)
        assert all(values.abs().max() <= BOUND for values in bank.labels.values())
    assert torch.equal(bank.labels["fusion"], labels)
    assert not torch.equal(bank.labels["text"], labels)


def test_first_epoch_sets_the_rows_to_the_multimodal_label():
    bank = UnimodalLabelBank(SIZE, WIDTHS, BOUND)
    rows, labels = torch.tensor([4, 2]), torch.tensor([1.5, -2.0])
    bank.update(1, rows, random_features(0, 2), labels)
    for values in bank.labels.values():
        assert torch.equal(values[rows], labels)
        assert values.count_nonzero() == 2


def test_labels_come_from_the_old_centres():
    bank, labels = make_bank()
    rows, features = torch.tensor([1, 5, 6]), random_features(20, 3)
    expected = naive_labels(bank, features, labels[rows])
    stored = {name: x.clone() for name, x in bank.features.items()}
    bank.update(2, rows, features, labels[rows])
    for name, generated in expected.items():
        new = labels[rows] / 3 + generated.clamp(-BOUND, BOUND) * 2 / 3
        torch.testing.assert_close(bank.labels[name][rows], new, rtol=1e-3, atol=1e-3)
    for name in WIDTHS:
        stored[name][rows] = features[name]
        assert torch.equal(bank.features[name], stored[name])


@pytest.mark.parametrize("exclude_zero", [True, False])
def test_centres_are_those_of_the_plain_path_after_many_updates(exclude_zero):
    """The plain path takes the means over all samples after each micro-batch; running sums agree to 1e-6.

    Rows that were not seen yet count as zeros; a class without a member keeps its centre.
    """
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(SIZE, generator=generator) * 6 - 3).round()
    assert (labels == 0).any()
    bank = UnimodalLabelBank(SIZE, WIDTHS, 0.5, exclude_zero)
    bank.initialise(labels)
    expected = {name: torch.zeros(2, width) for name, width in WIDTHS.items()}
    for step in range(200):
        if step % 40 == 20:
            bank.reset_counts()  # a new epoch
        rows = torch.randperm(SIZE, generator=generator)[:3]
        bank.update(1 + step // 20, rows, {n: 5 * x for n, x in random_features(step, 3).items()}, labels[rows])
        for name, stored in bank.features.items():
            y = bank.labels[name]
            for side, members in enumerate((y > 0 if exclude_zero else y >= 0, y < 0)):
                if members.any():
                    expected[name][side] = stored[members].double().mean(0)
            torch.testing.assert_close(bank.centers[name], expected[name], rtol=1e-6, atol=1e-6)


def test_a_class_without_members_keeps_its_centre():
    bank, _ = make_bank()
    old = {name: centers[1].clone() for name, centers in bank.centers.items()}
    bank.update(1, ROWS, random_features(2), torch.ones(SIZE))
    assert all(torch.equal(bank.centers[name][1], center) for name, center in old.items())
    empty = UnimodalLabelBank(SIZE, WIDTHS, BOUND)
    empty.initialise(torch.ones(SIZE))
    for epoch in (1, 2, 3):
        for one in (bank, empty):
            one.update(epoch, ROWS, random_features(epoch), torch.ones(SIZE))
            assert all(tensor.isfinite().all() for tensor in one.state_dict().values())


def test_clip_rate_and_shift():
    bank, labels = make_bank()
    features = random_features(5)
    raw = naive_labels(bank, features, labels)
    assert bank.clip_rate() == {"text": 0.0, "audio": 0.0}
    bank.update(2, ROWS, features, labels)
    for name in ("text", "audio"):
        assert bank.clip_rate()[name] == pytest.approx((raw[name].abs() > BOUND).double().mean().item())
        assert bank.shift()[name] == pytest.approx((bank.labels[name] - labels).abs().mean().item())
    assert max(bank.clip_rate().values()) > 0
    bank.reset_counts()
    assert bank.clip_rate() == {"text": 0.0, "audio": 0.0}


def test_order_of_a_batch_and_gradients_do_not_matter_to_the_bank():
    features = {name: x.requires_grad_() for name, x in random_features(9).items()}
    order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(3))
    (one, labels), (two, _) = make_bank(), make_bank()
    one.update(2, ROWS, features, labels)
    two.update(2, order, {name: x[order] for name, x in features.items()}, labels[order])
    for name, values in one.state_dict().items():
        assert not values.requires_grad
        torch.testing.assert_close(two.state_dict()[name], values)


def test_a_bank_of_another_size_goes_on_from_a_state():
    one, labels = make_bank()
    two = UnimodalLabelBank(0, WIDTHS, BOUND)
    two.initialise(torch.ones(3))
    two.update(1, torch.arange(3), random_features(1, 3), torch.ones(3))
    two.load_state_dict(one.state_dict())
    assert all(torch.equal(two.state_dict()[name], values) for name, values in one.state_dict().items())
    for bank in (one, two):
        bank.update(2, torch.arange(4), random_features(2, 4), labels[:4])
    for name, values in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], values, rtol=1e-6, atol=1e-6)


def test_what_a_bank_refuses():
    assert UnimodalLabelBank(2, {"m": 3, "text": 2}, 1.0).multimodal == "m"
    for wrong in ({"text": 2, "audio": 2}, {"m": 3, "n": 3, "text": 2}, {"m": 3}):
        with pytest.raises(ConfigError, match="multimodal"):
            UnimodalLabelBank(2, wrong, 1.0)
    with pytest.raises(RunError, match="holds 10 training samples and was asked for row 10"):
        make_bank()[0].update(2, torch.tensor([SIZE]), random_features(0, 1), torch.zeros(1))


@pytest.mark.parametrize("exclude_zero", [True, False])
def test_unlabelled_samples_get_no_label_and_belong_to_no_centre(exclude_zero):
    """A bank that never heard of them has the same labels, centres, clip rates and shifts."""
    known = torch.tensor([0, 2, 3, 6, 7, 9])
    unknown = torch.tensor([i for i in range(SIZE) if i not in known])
    _, labels = make_bank()
    hidden = labels.clone()
    hidden[unknown] = float("nan")
    whole = UnimodalLabelBank(SIZE, WIDTHS, BOUND, exclude_zero)
    whole.initialise(hidden)
    part = UnimodalLabelBank(len(known), WIDTHS, BOUND, exclude_zero)
    part.initialise(labels[known])
    for epoch in range(1, 5):
        features = random_features(epoch)
        whole.update(epoch, ROWS, features, hidden)
        part.update(epoch, torch.arange(len(known)), {n: x[known] for n, x in features.items()}, labels[known])
    for name in WIDTHS:
        assert whole.labels[name][unknown].isnan().all()
        torch.testing.assert_close(whole.labels[name][known], part.labels[name])
        torch.testing.assert_close(whole.centers[name], part.centers[name])
    assert whole.clip_rate() == pytest.approx(part.clip_rate())
    assert whole.shift() == pytest.approx(part.shift())
    assert max(whole.clip_rate().values()) > 0


# --- the method ---


@pytest.fixture
def train():
    return make_split()


def head_gradients(method, name):
    return [p.grad for p in (*method.heads[name].parameters(), *method.post[name].parameters())]


def trained(train, epochs=3, size=3, **config):
    method = build("self_mm", train, **config)
    steps, ends = train_epochs(method, train, epochs, size)
    return method, steps, ends


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
    ("dataset", "span", "bound"), [("mosi", (-3, 3), 3), ("sims", (-1, 1), 1), ("simsv2", (-1, 1), 3), ("", (1, 5), 2)]
)
def test_bound_of_each_dataset(train, dataset, span, bound):
    assert create("self_mm", train.dims, regression(span), dataset=dataset).bank.bound == bound


def test_losses_are_those_of_the_paper():
    train = make_split(task=regression((1, 5)))
    method, _, _ = trained(train, post_text_dropout=0, post_audio_dropout=0)
    output = method(train.data)
    losses = method.losses(train.data, output)
    y, centre = train.labels.double(), 3.0
    assert losses.keys() == losses.raw.keys() == {"task", *LABEL_TERMS}
    assert losses["task"].item() == pytest.approx((output.prediction.double() - y).abs().mean().item(), rel=1e-5)
    for name in ("text", "audio", "vision"):
        total = 0.0
        for i in range(len(train)):
            target = method.bank.labels[name][i].item() + centre
            weight = math.tanh(abs(target - y[i].item()))
            total += weight * abs(output.auxiliary[f"prediction/{name}"][i].item() - target)
        assert losses[f"label_{name}"].item() == pytest.approx(total / len(train), rel=1e-4)
        assert losses[f"label_{name}"].item() > 0


@pytest.mark.parametrize("switches", [{}, {"no_weighting": True}, {"lambda_label": 0.3}])
def test_losses_are_means_over_labelled_samples(switches):
    train = without_labels(make_split(task=regression((1, 5))), [0, 3, 4, 8])
    dropouts = {"post_text_dropout": 0, "post_audio_dropout": 0}
    method, steps, ends = trained(train, **dropouts, **switches)
    assert all(math.isfinite(value) for log in (*steps, *ends) for value in log.values())
    rows = train.data.labelled.nonzero().squeeze(1)
    known = train.data.select(rows)
    losses, expected = (method.losses(batch, method(batch)) for batch in (train.data, replace(known, labelled=None)))
    for name in losses:
        torch.testing.assert_close(losses[name], expected[name])
        weight = 1.0 if name == "task" else switches.get("lambda_label", 1.0)
        torch.testing.assert_close(losses[name], weight * losses.raw[name])
    assert losses["label_text"] > 0
    nothing = replace(train.data, labelled=torch.zeros(12, dtype=torch.bool))
    empty = method.losses(nothing, method(nothing))
    assert all(term.item() == 0 and term.requires_grad for term in empty.values())


@pytest.mark.parametrize("method_id", ["self_mm", "modal_alignment"])
def test_mean_read_out_is_that_of_late_fusion(train, method_id):
    method = build(method_id, train, sequence="mean", audio_out=5, vision_out=5).eval()
    encoders = method.encoders if method_id == "self_mm" else method.host.encoders
    late = build("late_fusion", train, width=5).eval()
    late.encoders.load_state_dict(encoders.state_dict())
    output = method(train.data)
    for m in ("audio", "vision"):
        feature = late(train.data).representations[f"{m}/feature"]
        assert torch.equal(output.representations[f"{m}/feature"], feature)
    trained_groups = {group["name"]: len(group["params"]) for group in method.parameter_groups()}
    assert trained_groups["audio"] == trained_groups["vision"] == 2


def test_epoch_one_leaves_unimodal_heads_without_gradient_and_later_ones_train_them(train):
    method, _, _ = trained(train, epochs=1, update_epochs=100)
    for name in ("text", "audio", "vision"):
        assert all(grad is None or (grad == 0).all() for grad in head_gradients(method, name))
        torch.testing.assert_close(method.bank.labels[name], train.labels)
    assert any((grad != 0).any() for grad in head_gradients(method, "fusion"))
    method, steps, ends = trained(train, update_epochs=100)
    assert all(steps[-1][f"raw/{name}"] > 0 for name in LABEL_TERMS)
    assert all((grad != 0).any() for name in ("text", "audio") for grad in head_gradients(method, name)[-2:])
    assert ends[0]["label_shift/text"] == 0
    assert ends[2]["label_shift/text"] > 0
    assert 0 <= ends[2]["clip_rate/vision"] <= 1


def test_epoch_one_weights_are_exactly_zero_also_off_centre():
    _, steps, _ = trained(make_split(task=regression((1, 5))), epochs=1)
    assert all(step[f"raw/{name}"] == 0 for step in steps for name in LABEL_TERMS)


def test_loss_reads_labels_and_labels_read_centres_from_before_the_batch(train, monkeypatch):
    method, _, _ = trained(train, epochs=1, update_epochs=100)
    with torch.no_grad():  # else the features of this step equal those of the bank, up to the processor's rounding
        for parameter in method.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    events = []
    bank, loss, step_update = method.bank, method.losses, method.bank.update
    before = state(bank)

    def spy_loss(batch, output):
        events.append(("loss", not changed(bank, before)))
        return loss(batch, output)

    def spy_update(epoch, index, features, labels):
        gradients = any(p.grad is not None for p in method.heads["fusion"].parameters())
        events.append(("update", gradients and not changed(bank, before)))
        step_update(epoch, index, features, labels)

    monkeypatch.setattr(method, "losses", spy_loss)
    monkeypatch.setattr(bank, "update", spy_update)
    method.start_epoch(2)
    method.training_step(next(train.batches(5)), method.optimizers())
    assert events == [("loss", True), ("update", True)]
    assert {"label_text", "feature_fusion", "center_audio"} <= changed(bank, before)


@pytest.mark.parametrize(("flush", "steps"), [(False, 2), (True, 3)])
@pytest.mark.parametrize(
    ("method_id", "config"),
    [("self_mm", {}), ("modal_alignment", {}), ("modal_alignment", {"cov_batch": "accumulated"})],
)
def test_steps_per_epoch(method_id, config, flush, steps):
    train = make_split(size=19)  # 10 micro-batches of 2, the last of 1
    method = build(method_id, train, flush_last_group=flush, **config)
    optimizers, counts = method.optimizers(), []
    optimizer = optimizers["all"]
    step = optimizer.step
    optimizer.step = lambda: (counts.append(1), step())
    train_epochs(method, train, epochs=2, size=2, optimizers=optimizers)
    assert len(counts) == 2 * steps


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
    method, _, _ = trained(train, epochs=1, size=5)  # three micro-batches: no step
    assert any(p.grad is not None for p in method.parameters())
    method.start_epoch(2)
    assert all(p.grad is None for p in method.parameters())


def test_accumulated_gradients_are_sums(train):
    method, _, _ = trained(train, 1, 6, post_text_dropout=0, post_audio_dropout=0, update_epochs=100)
    summed = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    method.zero_grad(set_to_none=True)
    for batch in train.batches(6):
        method.task.loss(method(batch).prediction, batch.labels).backward()
    for name, gradient in summed.items():
        other = method.get_parameter(name).grad
        torch.testing.assert_close(gradient, torch.zeros_like(gradient) if other is None else other)


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


def test_five_parameter_groups(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = make_split(tokens=True)
    method = create("self_mm", train.dims, train.task, dataset="mosei", text_encoder="bert", update_epochs=100)
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in method.parameter_groups()}
    assert rates == {
        "text": (5e-5, 1e-3), "text, no decay": (5e-5, 0.0),
        "audio": (5e-3, 0.0), "vision": (1e-4, 0.0), "other": (1e-3, 1e-2),
    }  # fmt: skip
    assert list(rates) == ["text", "text, no decay", "audio", "vision", "other"]
    grouped = [id(p) for group in method.parameter_groups() for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())
    method.start_phase("train", train)
    train_epochs(method, train)
    assert method.text_encoder.embed.weight.grad.abs().sum() > 0


def test_switch_no_ulgm_keeps_the_labels(train):
    method, steps, ends = trained(train, no_ulgm=True)
    assert torch.equal(method.bank.labels["text"], train.labels)
    assert all(step[f"raw/{name}"] == 0 for step in steps for name in LABEL_TERMS)
    assert ends[-1]["label_shift/text"] == 0


def test_switch_no_ulgm_equals_single_task(train):
    """With all weights at 0 only M is trained (weight decay off: Adam decays parameters whose gradient is 0)."""
    plain = {"no_ulgm": True, "weight_decay": 0.0, "weight_decay_audio": 0.0, "weight_decay_vision": 0.0}
    first = state(trained(train, **plain)[0])
    for switch in ({"single_task": True}, {"tasks": ("M",)}):
        assert not changed(trained(train, **switch, **plain)[0], first)


def test_switch_no_weighting(train):
    _, steps, _ = trained(train, epochs=1, no_weighting=True)
    assert all(steps[0][f"raw/{name}"] > 0 for name in LABEL_TERMS)


@pytest.mark.parametrize(
    "switch",
    [{"no_momentum": True}, {"distance": "scaled_sq"}, {"relative": "centers"}, {"label_bound": 0.5},
     {"exclude_zero": False}],
    ids=str,
)  # fmt: skip
def test_switches_of_the_bank_change_the_labels(switch):
    train = make_split(labels=torch.tensor([0.0, 0, 1, -1, 2, -2, 0, 0, 1, -1, 3, -3]))
    banks = [trained(train, **config)[0].bank.labels["text"] for config in ({}, switch)]
    assert not torch.equal(*banks)


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


def test_state_dict_fits_a_fresh_method_and_evaluation_needs_no_bank(train):
    method, _, _ = trained(train, epochs=2)
    fresh = create("self_mm", train.dims, train.task).eval()
    far = replace(train.data, index=train.data.index + 1000)
    assert set(fresh.losses(far, fresh(far))) == {"task"}
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(fresh.bank.labels["audio"], method.bank.labels["audio"])
    assert torch.equal(fresh(far).prediction, method.eval()(train.data).prediction)
