"""hrlf: every switch changes what it should."""

import pytest
import torch
from hrlf_data import FRF, STUDENT_TERMS, small, terms_of
from method_data import make_split, train_epochs
from torch import nn

from mmsa_lib.losses.adversarial import nonsaturating_adversarial
from mmsa_lib.methods import METHODS, provenance


@pytest.fixture
def train():
    return make_split(size=10)


def without(*names):
    return [name for name in STUDENT_TERMS if name not in names]


@pytest.mark.parametrize("term", ["hmi", "hal", "kl"])
def test_a_term_can_be_left_out(train, term):
    method, terms = terms_of(train, **{f"no_{term}": True})
    assert list(terms) == without(term)
    logs, methods = [], []
    for config in ({f"no_{term}": True}, {f"lambda_{term}": 0.0}):
        methods.append(small(train, **config))
        logs.append(train_epochs(methods[-1], train, epochs=2, size=5)[0][-1])
    assert logs[0] == logs[1]
    method, same = methods
    one, two = method.state_dict(), same.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (method.statistics is None) is (term == "hmi")
    assert (method.discriminators is None) is (term == "hal")
    assert list(method.optimizers()) == (["network"] if term == "hal" else ["network", "discriminators"])


def test_no_frf_leaves_two_plain_projections(train):
    method, terms = terms_of(train, no_frf=True)
    assert list(terms) == without(*FRF)
    assert list(terms_of(train, "teacher", no_frf=True)[1]) == ["task"]
    for network in (method.teacher, method.student):
        assert network.decoder is None
        assert {type(x) for part in (network.sentiment, network.specific) for x in part.values()} == {nn.Linear}
    output = method(train.data)
    z = output.representations["audio/state"]
    torch.testing.assert_close(output.representations["audio/sentiment"], method.student.sentiment["audio"](z))


def test_no_teacher_is_the_student_with_gaps(train):
    method, terms = terms_of(train, no_teacher=True)
    assert list(terms) == ["task", *FRF]
    assert method.phases == ("student",)
    assert method.teacher is method.statistics is method.discriminators is None
    assert list(method.optimizers()) == ["network"]
    seen = []
    method.register_forward_pre_hook(lambda module, args: seen.append(args[0].observed["text"].clone()))
    train_epochs(method, train, size=5)
    assert not torch.equal(torch.cat(seen), train.data.observed["text"])
    assert not torch.equal(
        method.prepare_validation("student", train).data.observed["text"], train.data.observed["text"]
    )


def test_msm(train):
    method = small(train, msm="none")
    assert method._incomplete(train.data) is train.data
    assert method.prepare_validation("student", train) is train
    one, two = (train_epochs(small(train, msm=msm), train, size=5)[0] for msm in ("none", "stochastic"))
    assert one[0]["raw/task"] != two[0]["raw/task"]


@pytest.mark.parametrize("name", ["frf", "hmi", "hal", "kl"])
def test_weights(train, name):
    method = small(train, **{f"lambda_{name}": 0.25})
    weighted = method.losses(train.data, method(train.data))
    terms = weighted.raw
    own = FRF if name == "frf" else [name]
    for term in STUDENT_TERMS:
        assert weighted[term].item() == pytest.approx((0.25 if term in own else 1) * terms[term].item(), rel=1e-6)


@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_warm_up_of_frf(train, phase):
    method = small(train, phase, lambda_frf=2.0, frf_warmup=4)
    weights = []
    for epoch in range(1, 8):
        method.start_epoch(epoch)
        weights.append(method.lambdas()["frf"])
    assert weights == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    steps, _ = train_epochs(method, train, epochs=2, size=10)
    assert "raw/translation" not in steps[0]
    assert steps[1]["loss/translation"] == pytest.approx(0.5 * steps[1]["raw/translation"], rel=1e-6)


@pytest.mark.parametrize("merge", ["concat", "mean"])
def test_scale_merge(train, merge):
    method = small(train, scale_merge=merge)
    output = method.with_teacher(train.data, method(train.data))
    widths = [48, 32, 8] if merge == "concat" else [24, 16, 8]
    for who in ("", "teacher/"):
        assert [output.auxiliary[f"{who}scale/{i}"].shape[1] for i in (1, 2, 3)] == widths
    assert [critic[0].in_features for critic in method.discriminators] == widths
    assert [critic[0].in_features for critic in method.statistics] == [2 * width for width in widths]


def test_qu_dim(train):
    method = small(train, qu_dim=8)
    assert method(train.data).representations["text/sentiment"].shape == (10, 8)
    assert (method.student.join.in_features, method.student.join.out_features) == (48, 24)
    train_epochs(method, train, size=5)


def test_frf_detach(train):
    kept, detached = terms_of(train, frf_detach=False), terms_of(train)
    gradients = []
    for method, terms in (kept, detached):
        weight = method.student.encoders["text"].convolve.weight
        gradients.append(torch.autograd.grad(terms["translation"], weight)[0])
    torch.testing.assert_close(kept[1]["translation"], detached[1]["translation"])
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


def test_nonsaturating_student(train):
    method, terms = terms_of(train, hal="nonsaturating")
    output = method(train.data)
    logits = method.discriminators([output.auxiliary[f"scale/{i}"] for i in (1, 2, 3)])
    torch.testing.assert_close(terms["hal"], nonsaturating_adversarial(logits))
    assert terms["hal"] > 0
    log = method.training_step(train.data, method.optimizers())
    assert log["raw/discriminators"] > 0


def test_depth_and_widths(train):
    method = small(train, layers=3, feedforward=10, critic_hidden=5, dropout=0.3)
    block = method.student.encoders["text"].blocks[2]
    assert block.feedforward[0].out_features == 10
    assert block.dropout.p == block.attention.dropout == 0.3
    assert method.statistics[0][0].out_features == 5
    one, two = (method(train.data).prediction for _ in range(2))
    assert not torch.equal(one, two)
    assert len(small(train, layers=1).student.encoders["text"].blocks) == 1


@pytest.mark.parametrize(("given", "used"), [(None, 0.3), (0.0, 0.0), (0.2, 0.2)])
def test_dropout_of_attention(train, given, used):
    method = small(train, dropout=0.3, dropout_attention=given)
    for network in (method.teacher, method.student):
        for encoder in network.encoders.values():
            for block in encoder.blocks:
                assert (block.attention.dropout, block.dropout.p, block.feedforward[2].p) == (used, 0.3, 0.3)


def test_optimizer_values(train):
    method = small(train, learning_rate=0.02, weight_decay=0.5)
    for optimizer in method.optimizers().values():
        assert {(g["lr"], g["weight_decay"]) for g in optimizer.param_groups} == {(0.02, 0.5)}


@pytest.mark.parametrize(
    ("dataset", "values"),
    [("mosi", (1e-3, 128, 50, 10)), ("mosei", (2e-3, 16, 20, 8)), ("iemocap", (4e-3, 32, 30, 10))],
)
def test_values_of_the_paper(dataset, values):
    names = ["learning_rate", "batch_size", "max_epochs", "heads"]
    table = provenance(METHODS["hrlf"].Config, dataset).set_index("setting")
    assert tuple(table.loc[names, "value"]) == tuple(map(str, values))
    assert set(table.loc[names, "tag"]) == {"P"}
    assert set(provenance(METHODS["hrlf"].Config, "sims").set_index("setting").loc[names, "tag"]) == {"R"}
