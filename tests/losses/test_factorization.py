"""FRF against loops over samples in double precision."""

import numpy as np
import pytest
import torch

from mmsa_lib.errors import ConfigError
from mmsa_lib.losses.factorization import reconstruction_loss, translate, translation_loss, translation_parts

NAMES = ("text", "audio", "vision")
WIDTH, PART, BATCH = 6, 4, 5
DISTANCES = pytest.mark.parametrize("distance", ["norm", "mse", "rms"])


class Weights:
    """A decoder and one sentiment encoder per modality, each a linear map and a tanh, also for single numpy rows."""

    def __init__(self, names):
        torch.manual_seed(0)
        self.names = names
        self.decoder_weight = torch.randn(WIDTH, 2 * PART, dtype=torch.float64)
        self.encoder_weights = {m: torch.randn(PART, WIDTH, dtype=torch.float64) for m in names}
        self.z, self.u = ({m: torch.randn(BATCH, d, dtype=torch.float64) for m in names} for d in (WIDTH, PART))
        self.q = {m: self.encoder(m)(self.z[m]) for m in names}
        self.calls = 0

    def decoder(self, q, u):
        self.calls += 1
        return torch.tanh(torch.cat([q, u], dim=-1) @ self.decoder_weight.T)

    def encoder(self, m):
        return lambda x: torch.tanh(x @ self.encoder_weights[m].T)

    @property
    def encoders(self):
        return {m: self.encoder(m) for m in self.names}

    def translated(self, a, b, i):
        joined = np.concatenate([self.q[a][i].numpy(), self.u[b][i].numpy()])
        return np.tanh(self.decoder_weight.numpy() @ joined)

    def slow(self, distance="norm"):
        """Equations 1, 2 and 3, sample by sample."""
        length = {
            "norm": lambda x: np.sqrt(sum(v * v for v in x)),
            "mse": lambda x: sum(v * v for v in x) / len(x),
            "rms": lambda x: np.sqrt(sum(v * v for v in x) / len(x)),
        }[distance]
        n, names = len(self.names), self.names
        own = cross = again = 0.0
        for a in names:
            for b in names:
                for i in range(BATCH):
                    far = length(self.translated(a, b, i) - self.z[b][i].numpy())
                    if a == b:
                        own += far / BATCH / n
                    else:
                        cross += far / BATCH / (n * n - n)
                    # The sentiment of b in the form of a, encoded again, must be Q_a.
                    back = np.tanh(self.encoder_weights[a].numpy() @ self.translated(b, a, i))
                    again += length(back - self.q[a][i].numpy()) / BATCH / n**2
        return own, cross, again


@pytest.fixture(params=[2, 3])
def weights(request):
    return Weights(NAMES[: request.param])


@DISTANCES
def test_equations_1_to_3(weights, distance):
    own, cross, again = weights.slow(distance)
    parts = (weights.z, weights.q, weights.u, weights.decoder)
    found = translation_parts(*parts, distance=distance)
    assert [x.item() for x in found] == pytest.approx([own, cross], rel=1e-12)
    assert translation_loss(*parts, distance=distance).item() == pytest.approx(own + cross, rel=1e-12)
    found = reconstruction_loss(*parts, weights.encoders, distance=distance)
    assert found.item() == pytest.approx(again, rel=1e-12)


def test_ready_translations_give_the_same_without_the_decoder(weights):
    parts = (weights.z, weights.q, weights.u, weights.decoder)
    expected = translation_loss(*parts), reconstruction_loss(*parts, weights.encoders)
    weights.calls = 0
    ready = translate(weights.q, weights.u, weights.decoder)
    assert weights.calls == 1
    assert torch.equal(translation_loss(*parts, translations=ready), expected[0])
    assert torch.equal(reconstruction_loss(*parts, weights.encoders, translations=ready), expected[1])
    assert weights.calls == 1


def test_a_modality_enters_a_translation_by_one_part_only(weights):
    """Perturbing modality a changes Z_ab through Q_a alone, and Z_ba through U_a alone."""
    a, b = weights.names[:2]
    before = translate(weights.q, weights.u, weights.decoder)
    moved_q = {m: x + (m == a) for m, x in weights.q.items()}
    moved_u = {m: x + (m == a) for m, x in weights.u.items()}
    by_q = translate(moved_q, weights.u, weights.decoder)
    by_u = translate(weights.q, moved_u, weights.decoder)
    assert not torch.equal(by_q[a, b], before[a, b])
    assert torch.equal(by_u[a, b], before[a, b])
    assert torch.equal(by_q[b, a], before[b, a])
    assert not torch.equal(by_u[b, a], before[b, a])


@pytest.mark.parametrize("detach", [False, True])
def test_detached_targets_get_no_gradient(weights, detach):
    z, q, u = ({m: x.clone().requires_grad_() for m, x in part.items()} for part in (weights.z, weights.q, weights.u))
    value = translation_loss(z, q, u, weights.decoder, detach_targets=detach)
    value.backward()
    assert all((x.grad is None) is detach for x in z.values())
    assert all(x.grad.abs().sum() > 0 for x in (*q.values(), *u.values()))
    assert value.item() == pytest.approx(translation_loss(z, q, u, weights.decoder).item())
    gradients = []
    for flag in (detach, False):
        loss = reconstruction_loss(z, q, u, weights.decoder, weights.encoders, detach_targets=flag)
        gradients.append(torch.autograd.grad(loss, list(q.values())))
    same = all(torch.equal(x, y) for x, y in zip(*gradients, strict=True))
    assert same is not detach


def test_targets_are_in_the_graph_unless_told_otherwise(weights):
    z, q = ({m: x.clone().requires_grad_() for m, x in part.items()} for part in (weights.z, weights.q))
    sum(translation_parts(z, q, weights.u, weights.decoder)).backward()
    assert all(x.grad.abs().sum() > 0 for x in z.values())
    losses = [
        reconstruction_loss(z, q, weights.u, weights.decoder, weights.encoders, **options)
        for options in ({}, {"detach_targets": False})
    ]
    found = [torch.autograd.grad(loss, list(q.values())) for loss in losses]
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@DISTANCES
def test_no_distance_has_no_gradient_and_is_no_nan(distance):
    z = {m: torch.zeros(3, 2, requires_grad=True) for m in NAMES}
    q, u = ({m: torch.zeros(3, 1) for m in NAMES} for _ in range(2))

    def decoder(sentiment, specific):
        return torch.cat([sentiment, specific], dim=-1)

    loss = translation_loss(z, q, u, decoder, distance=distance)
    loss.backward()
    assert loss.item() == 0
    assert all(torch.equal(x.grad, torch.zeros(3, 2)) for x in z.values())


def test_float32_under_autocast(weights):
    z, q, u = ({m: x.float() for m, x in part.items()} for part in (weights.z, weights.q, weights.u))
    weights.decoder_weight = weights.decoder_weight.float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = translation_loss({m: x.bfloat16() for m, x in z.items()}, q, u, weights.decoder)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(translation_loss(z, q, u, weights.decoder).item(), rel=0.02)


def test_what_does_not_fit():
    one = {"text": torch.zeros(2, 3)}
    with pytest.raises(ConfigError, match="two or more, got text"):
        translation_loss(one, one, one, torch.add)
    two = {**one, "audio": one["text"]}
    with pytest.raises(ConfigError, match="different modalities"):
        reconstruction_loss(two, two, one, torch.add, {})
