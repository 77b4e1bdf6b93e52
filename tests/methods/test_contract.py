"""What every method must do, checked on all of them."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from method_data import TinyTextEncoder, build, make_split, pad, train_epochs

from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError, RunError, UnknownNameError
from mmsa_lib.methods import METHODS, create, provenance
from mmsa_lib.methods.base import Losses, backward
from mmsa_lib.training import TrainSettings, fit
from mmsa_lib.training.settings import bfloat16_lstm

ALL = pytest.mark.parametrize("method_id", sorted(METHODS))
PHASES = pytest.mark.parametrize(
    ("method_id", "phase"), [(m, phase) for m in sorted(METHODS) for phase in METHODS[m].phases]
)
WITH_TEXT_ENCODER = [
    m for m in sorted(METHODS) if "bert" in get_args(METHODS[m].Config.model_fields["text_encoder"].annotation)
]
WORD_ALIGNED = {"collaborative_mmcl"}
DATASETS = ("", "mosi", "mosei", "sims", "simsv2", "synthetic")


def split_for(method_id, **options):
    return make_split(aligned=method_id in WORD_ALIGNED, **options)


@ALL
def test_every_value_has_evidence(method_id):
    config = METHODS[method_id].Config
    for dataset in DATASETS:
        table = provenance(config, dataset)
        assert table["tag"].isin(list("APCRTX")).all()
        assert table["source"].str.len().gt(3).all()
        assert table["meaning"].str.len().gt(3).all()


@ALL
def test_a_changed_value_becomes_our_choice(method_id):
    table = provenance(METHODS[method_id].Config.for_dataset("mosi", patience=3), "mosi").set_index("setting")
    assert table.loc["patience", "tag"] == "R"


def test_mmsa_values_are_evidence_only_where_mmsa_has_them():
    rows = {name: provenance(METHODS["self_mm"].Config, name).set_index("setting") for name in ("mosei", "synthetic")}
    assert tuple(rows["mosei"].loc["learning_rate_vision", ["value", "tag"]]) == ("0.0001", "C")
    assert tuple(rows["synthetic"].loc["learning_rate_vision", ["value", "tag"]]) == ("0.005", "R")
    parent = provenance(METHODS["modal_alignment"].Config, "mosei").set_index("setting")
    assert tuple(parent.loc["learning_rate_vision", ["value", "tag"]]) == ("0.0001", "P")
    assert parent.loc["distance", "tag"] == "P"
    assert rows["mosei"].loc["distance", "tag"] == "C"


def test_per_dataset_values_are_fields():
    for method in METHODS.values():
        for known in method.Config.per_dataset.values():
            assert set(known) <= set(method.Config.model_fields)


@ALL
def test_config_survives_json(method_id):
    config = METHODS[method_id].Config.for_dataset("sims")
    assert type(config).model_validate_json(config.model_dump_json()) == config


@ALL
def test_permuted_samples_give_permuted_predictions(method_id):
    train = split_for(method_id)
    method = build(method_id, train).eval()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(method(train.data.select(order)).prediction, method(train.data).prediction[order])


@ALL
def test_padding_changes_nothing(method_id):
    train = split_for(method_id)
    method = build(method_id, train).eval()
    plain, padded = method(train.data), method(pad(train.data))
    torch.testing.assert_close(padded.prediction, plain.prediction)
    for name, value in plain.representations.items():
        torch.testing.assert_close(padded.representations[name], value)


@PHASES
def test_a_batch_of_one(method_id, phase):
    train = split_for(method_id)
    steps, _ = train_epochs(build(method_id, train, phase=phase), train, epochs=2, size=1)
    assert all(torch.tensor(list(step.values())).isfinite().all() for step in steps)


@PHASES
@pytest.mark.parametrize("absent", ["text", "audio", "vision"])
def test_a_batch_without_one_modality(method_id, phase, absent):
    train = split_for(method_id)
    nothing = torch.zeros_like(train.data.valid[absent])
    train = replace(train, data=train.data.hide({absent: nothing}))
    method = build(method_id, train, phase=phase)
    steps, _ = train_epochs(method, train, epochs=3)
    assert all(torch.tensor(list(step.values())).isfinite().all() for step in steps)
    assert method.eval()(train.data).prediction.isfinite().all()


@PHASES
@pytest.mark.parametrize("modalities", [("text", "audio"), ("text", "vision")])
def test_two_modalities(method_id, phase, modalities):
    train = split_for(method_id, modalities=modalities)
    method = build(method_id, train, phase=phase)
    train_epochs(method, train, epochs=2)
    assert method.eval()(train.data).prediction.shape == (len(train),)


@pytest.mark.parametrize("method_id", ["self_mm", "early_fusion", "late_fusion"])
@pytest.mark.parametrize("modality", ["text", "audio"])
def test_one_modality(method_id, modality):
    train = split_for(method_id, modalities=(modality,))
    method = build(method_id, train)
    train_epochs(method, train, epochs=3)
    assert method.eval()(train.data).prediction.isfinite().all()


@pytest.mark.parametrize("method_id", WITH_TEXT_ENCODER)
def test_fine_tuned_text_encoder(method_id, monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    train = split_for(method_id, tokens=True)
    method = build(method_id, train, text_encoder="bert")
    before = method.text_encoder.embed.weight.clone()
    train_epochs(method, train)
    assert not torch.equal(before, method.text_encoder.embed.weight)
    with pytest.raises(ConfigError, match="text_encoder='bert'"):
        create(method_id, train.dims, train.task)


@pytest.mark.parametrize("method_id", ["text_only", "late_fusion", "self_mm", "contrastive_mmcl", "misa"])
def test_text_pooling(method_id):
    train = split_for(method_id)
    config = {"contrasted": "capsules"} if method_id == "contrastive_mmcl" else {}  # its default pools nothing
    method = build(method_id, train, text_pooling="first", **config).eval()
    first, mean = method(train.data), build(method_id, train, **config).eval()(train.data)
    assert not torch.allclose(first.prediction, mean.prediction)
    if "text/feature" in first.representations:
        assert torch.equal(first.representations["text/feature"], train.data.features["text"][:, 0])


@pytest.mark.parametrize(
    "method_id", ["text_only", "early_fusion", "late_fusion", "self_mm", "contrastive_mmcl", "mult", "misa"]
)
def test_training_lowers_the_loss(method_id):
    train = make_split(size=32, seed=3)
    labels = train.data.features["text"].sum(1)[:, 0] / train.data.valid["text"].sum(1)
    train = replace(train, data=replace(train.data, labels=labels))
    rate = 3e-3 if method_id == "contrastive_mmcl" else 1e-2
    steps, _ = train_epochs(build(method_id, train, learning_rate=rate), train, epochs=60, size=8)
    first, last = (sum(step["raw/task"] for step in part) for part in (steps[:4], steps[-4:]))
    assert last < 0.6 * first


@pytest.mark.parametrize("method_id", sorted(set(METHODS) - {"self_mm", "modal_alignment"}))
def test_emotions(method_id):
    train = split_for(method_id, task=emotions(["happy", "sad", "angry"]))
    method = build(method_id, train)
    train_epochs(method, train)
    assert method(train.data).prediction.shape == (12, 3, 2)


@PHASES
def test_equal_seeds_give_equal_training(method_id, phase):
    train, states = split_for(method_id), []
    for _ in range(2):
        method = build(method_id, train, seed=5, phase=phase)
        train_epochs(method, train, epochs=2)
        states.append(method.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@PHASES
def test_every_trained_parameter_is_in_one_group(method_id, phase):
    train = split_for(method_id)
    method = build(method_id, train, phase=phase)
    grouped = [id(p) for optimizer in method.optimizers().values() for g in optimizer.param_groups for p in g["params"]]
    # The gates of collaborative_mmcl answer to two: the task, and the reward.
    shared = set() if method_id != "collaborative_mmcl" else {id(p) for p in method.policy.gates.parameters()}
    assert {p for p in grouped if grouped.count(p) > 1} == shared
    assert set(grouped) == {id(p) for p in method.parameters() if p.requires_grad}


@ALL
def test_every_parameter_is_trained_in_some_phase(method_id):
    train, trained = split_for(method_id), set()
    method = build(method_id, train)
    for phase in method.phases:
        method.start_phase(phase, train)
        trained |= {id(p) for p in method.parameters() if p.requires_grad}
    assert trained == {id(p) for p in method.parameters()}


@PHASES
def test_frozen_parameters_stay(method_id, phase):
    train = split_for(method_id)
    method = build(method_id, train, phase=phase)
    frozen = {name: p.clone() for name, p in method.named_parameters() if not p.requires_grad}
    train_epochs(method, train, epochs=2)
    for name, before in frozen.items():
        assert torch.equal(method.get_parameter(name), before), name


@PHASES
def test_bfloat16_training_is_finite(method_id, phase):
    train = split_for(method_id)
    method = build(method_id, train, phase=phase)
    if not bfloat16_lstm() and any(isinstance(module, torch.nn.LSTM) for module in method.modules()):
        with pytest.raises(ConfigError, match=f"{method_id} has an LSTM.*use precision=float32"):
            TrainSettings(precision="bfloat16", device="cpu").resolve(method)
        return
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        steps, _ = train_epochs(method, train, epochs=3)
    assert all(torch.tensor(list(step.values())).isfinite().all() for step in steps)


MOODS = {"task": emotions(["happy", "sad"])}


@pytest.mark.parametrize(
    ("method_id", "data", "config", "message"),
    [
        ("text_only", {"modalities": ("audio",)}, {}, "text_only uses text"),
        ("contrastive_mmcl", {}, {"single_stage": True, "schedule": "T2"}, "schedule"),
        ("contrastive_mmcl", {}, {"single_stage": True, "no_stop_gradient": True}, "no_stop_gradient"),
        ("contrastive_mmcl", {}, {"no_self_decoupling": True, "decouple": "uniformity"}, "decouple='uniformity'"),
        ("contrastive_mmcl", {}, {"categories": "ranked", "positives": "instance_or_category"}, "ranked"),
        ("contrastive_mmcl", {}, {"categories": "ranked"}, "set decoupled_cmc=False"),
        ("contrastive_mmcl", {}, {"modulation": "dclw"}, "set normalise_factors=True"),
        ("contrastive_mmcl", {}, {"width": 8, "heads": 3}, "divisor"),
        ("contrastive_mmcl", {}, {"decouple": "D1"}, "decouple"),
        ("contrastive_mmcl", {}, {"gamma": -1.0}, "gamma"),
        ("contrastive_mmcl", {"modalities": ("text",)}, {}, "has only text"),
        ("contrastive_mmcl", MOODS, {"task_loss": "mse"}, "emotions"),
        ("contrastive_mmcl", MOODS, {"categories": "bins7"}, "emotions"),
        ("collaborative_mmcl", {}, {"width": 9}, "multiple of heads"),
        ("collaborative_mmcl", {}, {"decoupling": "reference", "unaligned": "compose"}, "compose"),
        ("collaborative_mmcl", {}, {"no_policy": True, "no_rl": True}, "leave no_rl out"),
        ("collaborative_mmcl", {}, {"no_rl": True, "reward": "per_modality"}, "no reward"),
        ("collaborative_mmcl", {}, {"no_policy": True, "exploration": 0.1}, "no reward"),
        ("collaborative_mmcl", {}, {"no_rl": True, "gamma": 0.5}, "no reward"),
        ("collaborative_mmcl", {"modalities": ("text",)}, {}, "only text"),
        ("mult", {"modalities": ("text",)}, {}, "only text"),
        ("mult", {}, {"width": 8}, "width=8 can't have heads=5"),
        ("mult", {}, {"kernel": 2}, "odd"),
        ("misa", {"modalities": ("audio",)}, {}, "only audio"),
        ("misa", {}, {"heads": 3}, "width=128 can't have heads=3"),
        ("hrlf", {}, {"no_teacher": True, "no_hmi": True, "no_kl": True}, "leave no_hmi, no_kl out"),
        ("hrlf", {}, {"no_frf": True, "frf_warmup": 3}, "frf_warmup"),
        ("hrlf", {}, {"no_teacher_phases": 2}, "no_teacher_phases=2 is for no_teacher"),
        ("hrlf", {}, {"no_teacher": True, "no_teacher_phases": 3}, "no_teacher_phases"),
        ("hrlf", {}, {"frf_distance": "l1"}, "frf_distance"),
        ("hrlf", {}, {"dropout_attention": 1.0}, "dropout_attention"),
        ("hrlf", {}, {"msm": "off"}, "msm"),
        ("hrlf", {}, {"hal": "minimax"}, "hal"),
        ("hrlf", {}, {"collapse_guard": 1.0}, "collapse_guard"),
        ("hrlf", {}, {"qu_dim": 0}, "qu_dim"),
        ("hrlf", {}, {"width": 8, "heads": 3}, "width=8 can't have heads=3"),
        ("hrlf", {"modalities": ("audio",)}, {}, "has only audio"),
        ("self_mm", {"modalities": ("text", "audio")}, {"tasks": ("V",)}, "trains no head"),
        ("self_mm", {}, {"tasks": ("T",), "no_ulgm": True}, "add M to tasks"),
        ("self_mm", {}, {"tasks": ("X",)}, "tasks"),
        ("self_mm", MOODS, {}, "sentiment scale"),
        ("modal_alignment", {"modalities": ("text", "audio")}, {"pairs": ("audio-vision",)}, "needs vision"),
        ("modal_alignment", {}, {"pair_mode": {"text-audio": "private"}}, "not in pairs"),
        ("modal_alignment", {}, {"pairs": (("a", "b"),)}, "pairs"),
        ("modal_alignment", {"modalities": ("text",)}, {}, "only text"),
        ("modal_alignment", MOODS, {}, "sentiment scale"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(method_id, data, config, message):
    train = make_split(**data)
    with pytest.raises(ConfigError, match=message) as raised:
        create(method_id, train.dims, train.task, **config)
    assert "\n" not in str(raised.value)


def test_unknown_names_are_answered_with_near_ones():
    dims, task = {"text": 3}, regression()
    with pytest.raises(UnknownNameError, match="did you mean self_mm"):
        create("self_m", dims, task)
    with pytest.raises(UnknownNameError, match="learning_rate"):
        create("text_only", dims, task, learning_rat=1)
    with pytest.raises(ConfigError, match="hidden"):
        create("text_only", dims, task, hidden=0)


@pytest.mark.parametrize("name", ["constant", "constant_mean"])
def test_constants_are_no_methods(name):
    with pytest.raises(ConfigError, match="constant_metrics"):
        create(name, {"text": 3}, regression())


def test_a_loss_is_the_weighted_sum_of_its_terms():
    x = torch.tensor(2.0, requires_grad=True)
    losses = Losses(task=(1.0, x), twice=(3.0, lambda: x * x), zero=(0.0, x + 1), off=(0.0, lambda: 1 / 0))
    assert {name: term.item() for name, term in losses.raw.items()} == {"task": 2, "twice": 4, "zero": 3}
    assert {name: term.item() for name, term in losses.items()} == {"task": 2, "twice": 12, "zero": 0}
    joint = losses | {"side": x / 2} | Losses(more=(0.5, x))
    log = backward(joint, apart=torch.tensor(7.0))
    assert x.grad == 1 + 3 * 2 * 2 + 0.5 + 0.5
    assert log["loss/total"] == 2 + 12 + 0 + 1 + 1
    assert (log["raw/more"], log["loss/more"], log["raw/side"], log["raw/apart"]) == (2, 1, 1, 7)
    with pytest.raises(RunError, match="raw/task is nan"):
        backward(Losses(task=(1.0, x * float("nan"))))


@pytest.mark.parametrize("flush", [False, True])
@ALL
def test_a_budget_counts_the_steps_of_the_first_optimiser(method_id, flush):
    """21 samples in batches of 4, of which accumulating methods take groups of 4."""
    train = split_for(method_id, size=21)
    accumulates = "update_epochs" in METHODS[method_id].Config.model_fields
    method = build(method_id, train, **({"flush_last_group": flush} if accumulates else {}))
    made = []

    def optimizers():
        found = type(method).optimizers(method)
        made.append(0)
        first = next(iter(found.values()))
        inner = first.step

        def step(*arguments):
            made[-1] += 1
            return inner(*arguments)

        first.step = step
        return found

    method.optimizers = optimizers
    settings = {"max_steps": 5, "batch_size": 4, "patience": 9}
    result = fit(method, train, train, seed=1, settings=settings, progress="none")
    assert made == [5] * len(method.phases)
    assert [(found["phase"], found["steps"]) for found in result.phases] == [(phase, 5) for phase in method.phases]
    batches = 6 if not accumulates else 2 if flush else 1
    assert result.phases[-1]["epoch"] == -(-5 // batches)


@ALL
def test_every_term_has_a_share_and_a_gradient_on_the_encoders(method_id):
    train = split_for(method_id, size=16)
    method = build(method_id, train, batch_size=4)
    history = fit(method, train, train, seed=1, settings={"max_epochs": 2}, progress="none").history
    apart = {"actor", "critic"}  # they reach no encoder
    for _, rows in history[history["split"] == "train"].groupby("phase"):
        parts = rows["name"].str.partition("/")
        terms = set(parts[2][parts[0] == "loss"]) - {"total"}
        assert set(parts[2][parts[0] == "gradient"]) == terms - apart
        shares = rows[parts[0] == "share"]
        assert set(shares["name"].str.removeprefix("share/")) <= terms
        assert shares.groupby("epoch")["value"].sum().tolist() == pytest.approx([1, 1])
        assert (rows.loc[rows["name"] == "gradient/task", "value"] > 0).all()


@ALL
def test_encoders_are_some_of_the_trained_parameters(method_id):
    train = split_for(method_id)
    method = build(method_id, train)
    encoders, own = method.encoder_parameters(), {id(p) for p in method.parameters()}
    assert {id(p) for p in encoders} <= own
    assert len(encoders) == len({id(p) for p in encoders}) > 0
