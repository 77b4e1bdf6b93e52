"""Agreement and factorization against plain loops, and on networks whose answers are known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from companion import hrlf
from mmsa_lib.data import load
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.losses.mutual_information import derangement
from mmsa_lib.methods import create
from mmsa_lib.methods.hrlf import HRLFConfig, HRLFNetwork

SMALL = {"width": 8, "heads": 2, "feedforward": 16, "qu_dim": 4, "critic_hidden": 8}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_cka(x, y):
    """Correlation of the centred Gram matrices, entry by entry."""
    grams = []
    for z in (x, y):
        n = len(z)
        gram = [
            [sum(a * b for a, b in zip(z[i].tolist(), z[j].tolist(), strict=True)) for j in range(n)] for i in range(n)
        ]
        rows = [sum(line) / n for line in gram]
        whole = sum(rows) / n
        grams.append([[gram[i][j] - rows[i] - rows[j] + whole for j in range(n)] for i in range(n)])
    k, other = grams
    n = len(k)

    def inner(p, q):
        return sum(p[i][j] * q[i][j] for i in range(n) for j in range(n))

    return inner(k, other) / math.sqrt(inner(k, k) * inner(other, other))


def test_cka_against_gram_matrices():
    x, y = normal(7, 3), normal(7, 4, seed=1)
    assert hrlf.linear_cka(x, y) == pytest.approx(slow_cka(x, y), rel=1e-9)
    assert hrlf.linear_cka(y, x) == pytest.approx(hrlf.linear_cka(x, y), rel=1e-9)


def test_cka_sees_no_rotation_scale_or_shift_but_chance():
    x = normal(50, 4)
    turned = 3 * x @ torch.linalg.qr(normal(4, 4, seed=2))[0] + 5
    assert hrlf.linear_cka(x, turned) == pytest.approx(1, abs=1e-9)
    stretched = x * torch.tensor([10.0, 1, 1, 1])
    assert hrlf.linear_cka(x, stretched) < 0.9
    assert 0 < hrlf.linear_cka(x, normal(50, 4, seed=3)) < 0.3


def test_cka_of_a_constant_and_of_other_shapes():
    assert math.isnan(hrlf.linear_cka(normal(5, 2), torch.ones(5, 3)))
    for x, y in ((normal(5, 2), normal(4, 2)), (normal(5), normal(5)), (normal(1, 2), normal(1, 2))):
        with pytest.raises(DataError, match="CKA compares"):
            hrlf.linear_cka(x, y)


def test_agreement_of_known_cases():
    t = normal(40, 3)
    same = hrlf.agreement(t, t)
    assert (same["cka"], same["cosine"], same["distance"]) == pytest.approx((1, 1, 0))
    assert same["cka_shuffled"] < 0.3
    constant = hrlf.agreement(t, t.mean(0).expand_as(t) + 1e-9 * normal(40, 3, seed=1))
    assert constant["distance"] == pytest.approx(1, abs=1e-6)
    assert hrlf.agreement(t, -t)["cosine"] == pytest.approx(-1, abs=1e-2)
    assert hrlf.agreement(t, -t)["cka"] == pytest.approx(1)


def test_agreement_row_by_row():
    t, s = normal(6, 3), normal(6, 3, seed=1)
    middle, other = t.mean(0).tolist(), s.mean(0).tolist()
    cosines, far, spread = [], [], []
    for x, y in zip(t.tolist(), s.tolist(), strict=True):
        u, v = [a - m for a, m in zip(x, middle, strict=True)], [a - m for a, m in zip(y, other, strict=True)]
        cosines.append(sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v))
        far.append(math.dist(x, y))
        spread.append(math.hypot(*u))
    found = hrlf.agreement(t, s)
    assert found["cosine"] == pytest.approx(sum(cosines) / 6)
    assert found["distance"] == pytest.approx(sum(far) / sum(spread))


@pytest.fixture(scope="module")
def valid():
    return load("synthetic", samples=(8, 24, 8), dims=(12, 8, 8), length=6)["valid"]


@pytest.fixture
def method(valid):
    torch.manual_seed(0)
    return create("hrlf", valid.dims, valid.task, **SMALL)


def test_scales_are_compared_sample_by_sample(method, valid):
    inputs = {"complete": valid, "incomplete": stochastic_validation(valid)}
    found = hrlf.scale_agreement(method, valid, inputs)
    assert found[["input", "scale"]].to_numpy().tolist() == [[name, i] for name in inputs for i in (1, 2, 3)]
    method.eval()
    with torch.no_grad():
        for row in found.itertuples():
            t = method.teacher(valid.data).scales("concat")[row.scale - 1]
            s = method.student(inputs[row.input].data).scales("concat")[row.scale - 1]
            assert row.cka == pytest.approx(hrlf.linear_cka(t, s), rel=1e-4)
            assert row.distance == pytest.approx(hrlf.agreement(t, s)["distance"], rel=1e-4)


def test_a_copy_of_the_teacher_agrees_until_input_is_missing(method, valid):
    method.student.load_state_dict(method.teacher.state_dict())
    found = hrlf.scale_agreement(method, valid, {"complete": valid, "incomplete": stochastic_validation(valid)})
    by = found.groupby("input")[["cka", "distance"]].mean()
    assert by.loc["complete"].tolist() == pytest.approx([1, 0], abs=1e-5)
    assert by.loc["incomplete", "distance"] > 0.1


def test_a_trace_through_a_history(method, valid):
    table = hrlf.scale_agreement(method, valid, {"complete": valid})
    rows = [
        {"phase": "student", "epoch": 4, "split": "oracle", "name": k, "value": v} for k, v in hrlf.flat(table).items()
    ]
    rows += [{"phase": "student", "epoch": 4, "split": "train", "name": "z_sd/text", "value": 0.5}]
    found = hrlf.agreement_trace(pd.DataFrame(rows), ["cka"])
    assert found.columns.tolist() == ["epoch", "input", "scale", "measure", "value"]
    assert found["value"].tolist() == table["cka"].tolist()
    assert found["scale"].tolist() == [1, 2, 3]


def test_no_teacher_and_other_samples(valid):
    torch.manual_seed(0)
    alone = create("hrlf", valid.dims, valid.task, no_teacher=True, **SMALL)
    with pytest.raises(ConfigError, match="no_teacher=True"):
        hrlf.scale_agreement(alone, valid, {})
    method = create("hrlf", valid.dims, valid.task, **SMALL)
    with pytest.raises(DataError, match="'few' holds other samples"):
        hrlf.scale_agreement(method, valid, {"few": valid.select(torch.arange(5))})


NETWORK = {"width": 8, "heads": 2, "feedforward": 16, "qu_dim": 4}
MODALITIES = ("text", "audio", "vision")
PAIRS = [(a, b) for a in MODALITIES for b in MODALITIES]


@pytest.fixture(scope="module")
def data():
    return load("synthetic", samples=(40, 24, 8), dims=(12, 8, 8), length=6)


@pytest.fixture
def network(data):
    torch.manual_seed(0)
    return HRLFNetwork(data["train"].dims, 1, HRLFConfig(**NETWORK)).train()


@pytest.fixture
def encoding(network, data):
    return hrlf.encode(network, data["valid"])


class Only(torch.nn.Module):
    """A decoder that repeats one of its inputs and doesn't read the other."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, sentiment, specific):
        return (sentiment if self.part == "sentiment" else specific).repeat(1, 2)


def by_pair(table):
    return {(row.source, row.target): row for row in table.itertuples()}


def mean_distance(x, y):
    return sum(math.dist(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True)) / len(x)


def test_batches_are_joined_in_order_and_without_dropout(network, data, encoding):
    again = hrlf.encode(network, data["valid"], batch_size=7)
    torch.testing.assert_close(again.states, encoding.states)
    torch.testing.assert_close(again.inner, encoding.inner)
    torch.testing.assert_close(again.raw, encoding.raw)
    assert encoding.states["text"].shape == (24, 8)
    assert network.training
    assert not encoding.raw.requires_grad


def test_translation_and_reconstruction_pair_by_pair(network, encoding):
    found = by_pair(hrlf.translation_errors(network, encoding))
    assert list(found) == PAIRS
    with torch.no_grad():
        for (a, b), row in found.items():
            for name, part in (("translation", encoding.states), ("reconstruction", encoding.sentiment)):
                z = network.decoder(encoding.sentiment[a], encoding.specific[b])
                made, target = z if name == "translation" else network.sentiment[b](z), part[b]
                middle = target.mean(0).expand_as(target)
                expected = mean_distance(made, target) / mean_distance(target, middle)
                assert getattr(row, name) == pytest.approx(expected, rel=1e-4)


def test_a_constant_answer_has_an_error_of_one(network, encoding):
    class Constant(torch.nn.Module):
        def forward(self, sentiment, specific):
            return encoding.states["audio"].mean(0).expand(len(sentiment), -1)

    network.decoder = Constant()
    found = by_pair(hrlf.translation_errors(network, encoding))
    assert found["text", "audio"].translation == pytest.approx(1, rel=1e-5)
    assert found["text", "vision"].translation > 1


def test_states_that_coincide_have_no_error(network, data):
    torch.nn.init.zeros_(network.encoders["text"].blocks[-1].norms[1].weight)
    found = by_pair(hrlf.translation_errors(network, hrlf.encode(network, data["valid"])))
    assert math.isnan(found["audio", "text"].translation)
    assert not math.isnan(found["text", "audio"].translation)


def test_shares_against_a_loop(network, encoding):
    found = by_pair(hrlf.decoder_shares(network, encoding, samples=6))
    assert list(found) == PAIRS
    chosen = range(0, 24, 4)
    with torch.no_grad():
        for (a, b), row in found.items():
            q, u = encoding.sentiment[a], encoding.specific[b]
            grid = np.array([[network.decoder(q[i], u[j]).double().numpy() for j in chosen] for i in chosen])
            mean = grid.mean((0, 1))
            total = sum(((x - mean) ** 2).sum() for line in grid for x in line) / 36
            by_q = sum(((line.mean(0) - mean) ** 2).sum() for line in grid) / 6 / total
            by_u = sum(((grid[:, j].mean(0) - mean) ** 2).sum() for j in range(6)) / 6 / total
            assert (row.sentiment, row.specific) == pytest.approx((by_q, by_u), rel=1e-4)
            assert row.sentiment + row.specific + row.interaction == pytest.approx(1)


@pytest.mark.parametrize("part", ["sentiment", "specific"])
def test_a_decoder_that_reads_one_part_follows_it(network, data, part):
    """Its translation also carries the sentiment of the sample that this part came from."""
    network.decoder = Only(part)
    train, valid = hrlf.encode(network, data["train"]), hrlf.encode(network, data["valid"])
    shares = hrlf.decoder_shares(network, valid)
    assert shares[part].min() == pytest.approx(1)
    assert shares["interaction"].abs().max() < 1e-9
    follows = hrlf.swapped_sentiment(network, train, data["train"].labels, valid)
    other = {"sentiment": "specific", "specific": "sentiment"}[part]
    own = follows[follows["source"] == follows["target"]]
    assert own[f"follows_{part}"].abs().mean() > own[f"follows_{other}"].abs().mean()


def test_swapped_readings_against_a_loop(network, data, encoding):
    train, labels = hrlf.encode(network, data["train"]), data["train"].labels
    found = by_pair(hrlf.swapped_sentiment(network, train, labels, encoding, seed=3))
    other = derangement(24, generator=torch.Generator().manual_seed(3)).tolist()
    assert all(i != j for i, j in enumerate(other))
    one = torch.ones(40, 1, dtype=torch.float64)
    weights = {}
    for m in MODALITIES:
        x = torch.cat([train.sentiment[m].double(), one], 1)
        weights[m] = torch.linalg.solve(x.T @ x, x.T @ labels.double())

    def read(m, q):
        return sum(w * v for w, v in zip(weights[m].tolist(), [*q.tolist(), 1.0], strict=True))

    with torch.no_grad():
        for (a, b), row in found.items():
            made, by_q, by_u = [], [], []
            for i, j in enumerate(other):
                z = network.decoder(encoding.sentiment[a][i], encoding.specific[b][j])
                made.append(read(b, network.sentiment[b](z)))
                by_q.append(read(a, encoding.sentiment[a][i]))
                by_u.append(read(b, encoding.sentiment[b][j]))
            assert row.follows_sentiment == pytest.approx(np.corrcoef(made, by_q)[0, 1], abs=1e-3)
            assert row.follows_specific == pytest.approx(np.corrcoef(made, by_u)[0, 1], abs=1e-3)


def test_without_a_decoder_there_is_nothing_to_measure(data):
    network = HRLFNetwork(data["train"].dims, 1, HRLFConfig(**NETWORK, no_frf=True))
    encoding = hrlf.encode(network, data["valid"])
    for measure in (hrlf.translation_errors, hrlf.decoder_shares):
        with pytest.raises(ConfigError, match="no_frf=True"):
            measure(network, encoding)


def test_wrong_sizes(network, data, encoding):
    with pytest.raises(DataError, match=r"sentiment has shape \(3,\).*24 samples"):
        hrlf.swapped_sentiment(network, encoding, torch.zeros(3), encoding)
    with pytest.raises(DataError, match="two samples or more, got 1"):
        hrlf.decoder_shares(network, encoding, samples=1)


def test_factorization_alone_collapses_and_detached_targets_slow_it():
    widths = {"text": 6, "audio": 5, "vision": 4}
    printed, detached = (
        hrlf.frf_alone((0, 40, 80), detach_targets=flag, widths=widths, batch_size=32, length=3)
        for flag in (False, True)
    )
    assert printed["step"].tolist() == [0, 40, 80]
    assert set(printed["targets"]) == {"as printed"}
    assert set(detached["targets"]) == {"detached"}
    for name in ("loss", "z_norm", "z_sd", "q_sd"):
        assert printed[name][0] == pytest.approx(detached[name][0], rel=1e-6)
    assert printed["z_norm"][0] == pytest.approx(40**0.5, rel=1e-3)  # normalised to unit variance at the start
    assert printed["loss"].iloc[-1] < 0.05 * printed["loss"][0]
    assert printed["z_sd"].iloc[-1] < 0.02 * printed["z_sd"][0]
    assert printed["z_norm"].iloc[-1] > 0.5 * printed["z_norm"][0]  # a constant, and not zero
    assert detached["z_sd"].iloc[-1] > 2 * printed["z_sd"].iloc[-1]


def test_factorization_alone_leaves_the_random_state_alone_and_repeats():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one = hrlf.frf_alone((1,), widths={"text": 3, "audio": 3}, batch_size=4, length=2)
    assert torch.equal(torch.rand(2), expected)
    assert one.equals(hrlf.frf_alone((1,), widths={"text": 3, "audio": 3}, batch_size=4, length=2))
    assert not one.equals(hrlf.frf_alone((1,), widths={"text": 3, "audio": 3}, batch_size=4, length=2, seed=1))
