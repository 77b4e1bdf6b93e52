"""hrlf: readings beside the default, the head on Q, a text encoder per network, samples without labels."""

from dataclasses import replace

import pytest
import torch
from hrlf_data import FRF, SMALL, STUDENT_TERMS, small, terms_of
from method_data import TinyTextEncoder, build, changed, make_split, reached, state, train_epochs

from mmsa_lib.data.batch import BERT_UNKNOWN
from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.losses.factorization import reconstruction_loss, translation_loss
from mmsa_lib.methods import create
from mmsa_lib.methods.hrlf import HRLFConfig, HRLFNetwork
from mmsa_lib.training import fit


@pytest.fixture
def train():
    return make_split(size=10)


@pytest.fixture
def tokens(monkeypatch):
    monkeypatch.setattr("mmsa_lib.methods.base.TextEncoder", TinyTextEncoder)
    return make_split(size=10, tokens=True)


def equal(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


# --- distance ---


@pytest.mark.parametrize("distance", ["norm", "rms"])
@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_distance_of_the_factorization(train, phase, distance):
    method, terms = terms_of(train, phase, frf_distance=distance)
    encoding = method.network(train.data)
    parts = (encoding.states, encoding.sentiment, encoding.specific, method.network.decoder)
    torch.testing.assert_close(terms["translation"], translation_loss(*parts, distance=distance))
    expected = reconstruction_loss(*parts, method.network.sentiment, distance=distance)
    torch.testing.assert_close(terms["reconstruction"], expected)
    default = terms_of(train, phase)[1]
    assert not any(torch.allclose(terms[name], default[name], rtol=0.01) for name in FRF)
    assert torch.equal(terms["task"], default["task"])


# --- a constant Q ---


def with_constant_sentiment(split, **config):
    """A network whose Q is the same in every sample, whose U is Z, and whose decoder answers with U."""
    width = 8
    network = HRLFNetwork(split.dims, 1, HRLFConfig(**{**SMALL, "qu_dim": width, **config}))
    shift = torch.full((width,), 4.0)  # Z comes from a LayerNorm: no feature is below -sqrt(width)
    with torch.no_grad():
        for encoder in network.sentiment.values():
            encoder[2].weight.zero_()
        for encoder in network.specific.values():
            encoder[0].weight.copy_(torch.eye(width))
            encoder[0].bias.copy_(shift)
            encoder[2].weight.copy_(torch.eye(width))
            encoder[2].bias.copy_(-shift)
        first, second = network.decoder.layers[0], network.decoder.layers[2]
        first.weight.copy_(torch.cat([torch.zeros(width, width), torch.eye(width)], dim=1))
        first.bias.copy_(shift)
        second.weight.copy_(torch.eye(width))
        second.bias.copy_(-shift)
    return network.double()


@pytest.mark.parametrize("distance", ["norm", "mse", "rms"])
def test_a_constant_q_satisfies_equations_1_to_3(train, distance):
    """The proposition of docs/methods/hrlf.md, on the network itself: FRF is 0, Z varies, and U alone holds it."""
    network = with_constant_sentiment(train)
    features = {m: x.double() for m, x in train.data.features.items()}
    encoding = network(replace(train.data, features=features))
    parts = network.factorization(encoding.states, encoding.sentiment, encoding.specific, distance=distance)
    assert all(part.abs() < 1e-12 for part in parts.values())
    for m in train.modalities:
        assert torch.equal(encoding.sentiment[m], encoding.sentiment[m][:1].expand(10, -1))
        torch.testing.assert_close(encoding.specific[m], encoding.states[m])
        assert encoding.states[m].std(dim=0).min() > 0.05
    assert encoding.raw.std() > 0  # the classifier reads U too, so that the task loss is not in the way either


def test_a_head_on_q_does_not_allow_a_constant_q(train):
    """From a constant Q the head can do no better than the mean label; its gradient reaches Q."""
    method = small(train, sentiment_head="q", qu_dim=8)
    method.student = with_constant_sentiment(train, sentiment_head="q").float()
    best = train.labels.var(correction=0).item()
    for bias in torch.linspace(-3, 3, 61):
        method.student.predict_sentiment.bias.data.fill_(bias)
        term = method.losses(train.data, method(train.data)).raw["sentiment"]
        assert term.item() >= best - 1e-5
    term.backward()
    assert all(encoder[2].weight.grad.abs().sum() > 0 for encoder in method.student.sentiment.values())


# --- the head on Q ---


@pytest.mark.parametrize("task", [regression(), classes(("neg", "neu", "pos")), emotions(("happy", "sad"))])
@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_the_head_on_q_is_the_mean_task_loss_over_modalities(task, phase):
    split = make_split(size=8, task=task)
    method = small(split, phase, sentiment_head="q", lambda_sentiment=0.25)
    losses = method.losses(split.data, method(split.data))
    encoding, total = method.network(split.data), 0.0
    head = method.network.predict_sentiment
    for q in encoding.sentiment.values():
        for row, label in zip(q.double(), split.labels.double(), strict=True):
            raw = head.weight.double() @ row + head.bias.double()
            if task.kind == "regression":
                total += (raw[0] - label).item() ** 2 / 8 / 3
            elif task.kind == "classes":
                total -= raw.log_softmax(0)[int(label)].item() / 8 / 3
            else:
                pairs = zip(raw.view(2, 2), label.tolist(), strict=True)
                total -= sum(x.log_softmax(0)[int(y)].item() for x, y in pairs) / 2 / 8 / 3
    assert losses.raw["sentiment"].item() == pytest.approx(total, rel=1e-4)
    assert losses["sentiment"].item() == pytest.approx(0.25 * total, rel=1e-4)
    assert reached(losses.raw["sentiment"], method) == {phase}
    own = {name for name, p in method.network.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in own} == {"encoders", "sentiment", "predict_sentiment"}


def test_the_head_on_q_is_there_only_where_it_is_asked_for(train):
    method, terms = terms_of(train)
    assert "sentiment" not in terms
    assert not any("predict_sentiment" in name for name in method.state_dict())
    method, terms = terms_of(train, sentiment_head="q")
    assert list(terms) == [*STUDENT_TERMS[:3], "sentiment", *STUDENT_TERMS[3:]]
    assert "sentiment" not in terms_of(train, sentiment_head="q", lambda_sentiment=0.0)[1]
    assert "sentiment" in terms_of(train, no_frf=True, sentiment_head="q")[1]
    method.eval()
    assert list(method.losses(train.data, method(train.data)).raw) == ["task"]


# --- where the student starts, and how many steps it has ---


def test_student_init(train):
    for start, same in (("random", False), ("teacher", True)):
        method = small(train, "teacher", student_init=start)
        train_epochs(method, train, size=5)
        before = state(method)
        method.start_phase("student", train)
        assert equal(method.student, method.teacher) is same
        assert {name.split(".")[0] for name in changed(method, before)} == ({"student"} if same else set())
        assert float(method.guard.first) == pytest.approx(
            sum(method.guard.measure(method.student).values()) / 3, rel=1e-6
        )
        train_epochs(method, train, size=5)
        assert not equal(method.student, method.teacher)
        assert not any(name.startswith("teacher.") for name in changed(method, before))


def test_a_student_alone_starts_at_random(train):
    assert equal(small(train, no_teacher=True, student_init="teacher"), small(train, no_teacher=True))


@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_steps": 6, "patience_steps": 6, "validate_every": 2}])
def test_a_student_alone_can_have_the_steps_of_both(train, monkeypatch, limits):
    """Two phases of the student: as many steps as teacher and student, the second from the best state of the first."""

    def course(**config):
        method = create("hrlf", train.dims, train.task, **SMALL, batch_size=5, **config)
        taken, starts, step, start = [], [], method.training_step, method.start_phase

        def counting(batch, optimizers):
            taken.append(method.phase)
            return step(batch, optimizers)

        def noting(phase, split):
            starts.append((state(method.student), list(taken)))
            start(phase, split)

        monkeypatch.setattr(method, "training_step", counting)
        monkeypatch.setattr(method, "start_phase", noting)
        found = {}

        def keep(progress):
            if progress.best_epoch == progress.epoch:
                found[progress.phase] = state(method.student)

        valid = make_split(size=6, seed=1)
        fit(method, train, valid, settings={"device": "cpu", **limits}, seed=1, progress="none", on_epoch=keep)
        return method, taken, starts, found

    _, with_teacher, _, _ = course()
    method, alone, starts, found = course(no_teacher=True, no_teacher_phases=2)
    assert with_teacher == ["teacher"] * 6 + ["student"] * 6
    assert alone == ["student_first"] * 6 + ["student"] * 6
    assert all(torch.equal(value, found[0][name]) for name, value in starts[1][0].items())
    assert course(no_teacher=True)[1] == ["student"] * 6
    assert method.prepare_validation("student_first", train) is not train


# --- a text encoder of its own for each network ---


@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_each_network_fine_tunes_its_own_text_encoder(tokens, phase):
    method = build("hrlf", tokens, phase=phase, text_encoder="bert", **SMALL)
    stored = {name.rsplit(".text_encoder.")[0] for name in method.state_dict() if "text_encoder" in name}
    assert stored == {"teacher", "student"}
    assert method.text_encoder is getattr(method, phase).text_encoder
    assert method.teacher.text_encoder is not method.student.text_encoder
    groups = {g["name"]: g for g in method.optimizers()["network"].param_groups}
    assert (groups["text"]["lr"], groups["text"]["weight_decay"]) == (5e-5, 1e-3)
    assert (groups["text, no decay"]["weight_decay"], groups["rest"]["lr"]) == (0, method.config.learning_rate)
    before = state(method)
    train_epochs(method, tokens, size=5)
    assert {n.split(".")[0] for n in changed(method, before) if "text_encoder" in n} == {phase}


@pytest.mark.parametrize("start", ["random", "teacher"])
def test_where_the_student_s_text_encoder_starts(tokens, start):
    method = build("hrlf", tokens, phase="teacher", text_encoder="bert", student_init=start, **SMALL)
    pretrained = state(method.teacher.text_encoder)
    assert equal(method.teacher.text_encoder, method.student.text_encoder)
    train_epochs(method, tokens, size=5)
    method.start_phase("student", tokens)
    assert equal(method.student.text_encoder, method.teacher.text_encoder) is (start == "teacher")
    kept = all(torch.equal(x, pretrained[name]) for name, x in method.student.text_encoder.state_dict().items())
    assert kept is (start == "random")


def test_the_teacher_reads_whole_texts_and_the_student_unknown_tokens(tokens, monkeypatch):
    method = build("hrlf", tokens, text_encoder="bert", **SMALL)
    seen = {}
    for who in ("teacher", "student"):
        encoder = getattr(method, who).text_encoder
        encoder.register_forward_pre_hook(lambda module, args, who=who: seen.update({who: args[0]}))
    method.training_step(tokens.data, method.optimizers())
    assert torch.equal(seen["teacher"], tokens.data.tokens)
    differs = seen["student"] != tokens.data.tokens
    assert differs.any()
    assert (seen["student"][differs] == BERT_UNKNOWN).all()
    assert not method.teacher.text_encoder.training


def test_a_student_alone_owns_one_text_encoder(tokens):
    method = build("hrlf", tokens, text_encoder="bert", no_teacher=True, **SMALL)
    assert {n.split(".")[0] for n in method.state_dict() if "text_encoder" in n} == {"student"}


# --- samples without labels ---


@pytest.mark.parametrize("phase", ["teacher", "student"])
def test_only_the_losses_of_labels_leave_unlabelled_samples_out(train, phase):
    method = small(train, phase, sentiment_head="q")
    known = torch.arange(10) % 3 > 0
    hidden = replace(train.data, labels=train.labels.masked_fill(~known, float("nan")), labelled=known)
    torch.manual_seed(0)  # of the shuffle behind HMI
    whole = method.losses(train.data, method(train.data)).raw
    torch.manual_seed(0)
    found = method.losses(hidden, method(hidden)).raw
    part = train.data.select(known.nonzero().flatten())
    torch.manual_seed(0)
    labelled = method.losses(part, method(part)).raw
    for name, value in found.items():
        torch.testing.assert_close(value, (labelled if name in ("task", "sentiment") else whole)[name])
    assert not torch.isclose(found["translation"], labelled["translation"])


def test_a_batch_without_labels_still_teaches(train):
    method = small(train, sentiment_head="q")
    nothing = torch.zeros(10, dtype=torch.bool)
    batch = replace(train.data, labels=torch.full((10,), float("nan")), labelled=nothing)
    before = state(method.student)
    log = method.training_step(batch, method.optimizers())
    assert log["raw/task"] == log["raw/sentiment"] == 0
    assert log["raw/kl"] > 0
    assert changed(method.student, before)
    assert all(p.isfinite().all() for p in method.parameters())
