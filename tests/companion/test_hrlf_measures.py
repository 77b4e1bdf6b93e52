"""Factorization against plain loops, and on networks whose answers are known."""

import math

import numpy as np
import pytest
import torch

from companion import hrlf
from mmsa_lib.data import load
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.losses.mutual_information import derangement
from mmsa_lib.methods.hrlf import HRLFConfig, HRLFNetwork

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
