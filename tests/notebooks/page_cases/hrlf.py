"""Notebook 05: encoder, factorization, hierarchy, network, the losses between teacher and student, and their sum."""

from dataclasses import replace
from unittest.mock import patch

import torch
from page_definitions import assert_same, case, copy_weights

from mmsa_lib.data import load
from mmsa_lib.data.missing import stochastic_masks
from mmsa_lib.losses.adversarial import hierarchical_adversarial
from mmsa_lib.losses.factorization import reconstruction_loss, translate, translation_loss
from mmsa_lib.losses.mutual_information import jsd_mutual_information
from mmsa_lib.methods import create
from mmsa_lib.methods.base import loss_sum
from mmsa_lib.methods.hrlf import HRLFConfig, HRLFNetwork, ScaleCritics, StateEncoder, scale_widths

PAGE = "05_hrlf"
DIMS = {"text": 10, "audio": 9, "vision": 8}
CONFIG = HRLFConfig()


def frames(dims=DIMS, count=6, steps=8):
    """Features of some samples whose padding holds numbers that nothing may read."""
    valid = {m: torch.arange(steps) < torch.randint(2, steps + 1, (count, 1)) for m in dims}
    return {m: torch.randn(count, steps, width) for m, width in dims.items()}, valid


def shuffle(count, **_):
    """A shuffle that both sides know."""
    return torch.arange(count).roll(1)


@case(PAGE, "Encoder")
def encoder(page):
    library, ours = StateEncoder(10, CONFIG).eval(), page.Encoder(10).eval()
    weights = copy_weights(library, ours)
    x, valid = frames()
    assert_same(ours, library, x["text"], valid["text"], weights=weights)
    valid["text"][:2] = False  # a sample without a frame; padding at the left
    valid["text"][1, -3:] = True
    assert_same(ours, library, x["text"], valid["text"], weights=weights)


def encoded(library, batch):
    """What the library's network computes, in the form of the page."""
    found = library(batch)
    translations = translate(found.sentiment, found.specific, library.decoder)
    parts = (found.states, found.sentiment, found.specific, translations)
    return found.raw.squeeze(-1), found.scales("concat"), parts


@case(PAGE, "Net", "Factorization", "Hierarchy")
def network(page):
    library, ours = HRLFNetwork(DIMS, 1, CONFIG).eval(), page.Net(DIMS).eval()
    weights = copy_weights(library, ours)
    batch = next(load("synthetic", samples=(6, 4, 4), dims=(10, 9, 8), length=8)["train"].batches(6))
    x, valid = batch.features, batch.valid
    assert_same(lambda x: ours(x, valid), lambda x: encoded(library, replace(batch, features=x)), x, weights=weights)


@case(PAGE, "frf", "Factorization")
def factorization(page):
    parts = page.Factorization(DIMS)
    Z = {m: torch.randn(5, 40) for m in DIMS}

    def library(Z, kind):
        Q, U = ({m: nets[m](z) for m, z in Z.items()} for nets in (parts.E_S, parts.E_M))
        given = (Z, Q, U, lambda q, u: parts.D(torch.cat([q, u], -1)))
        reading = {"distance": kind, "detach_targets": kind == "mse"}
        return translation_loss(*given, **reading) + reconstruction_loss(*given, parts.E_S, **reading)

    def ours(Z, kind):
        Q, _, Zbar = parts(Z)
        return page.frf(Z, Q, Zbar, parts.E_S, kind)

    weights = [(p, p) for p in parts.parameters()]
    for kind in ("norm", "mse"):
        assert_same(lambda Z, kind=kind: ours(Z, kind), lambda Z, kind=kind: library(Z, kind), Z, weights=weights)
    two = dict(list(Z.items())[:2])  # n = 2
    assert_same(lambda Z: ours(Z, "norm"), lambda Z: library(Z, "norm"), two, weights=weights[:0])


@case(PAGE, "Critics", "hmi", "hal")
def critics(page):
    widths = scale_widths(3, CONFIG)
    E_t, E_s = ([torch.randn(6, width) for width in widths] for _ in range(2))
    library, ours = ScaleCritics([2 * width for width in widths], 64), page.Critics([2 * width for width in widths])
    weights, other = copy_weights(library, ours), shuffle(6)

    def mutual_information(E_t, E_s):
        joint = library([torch.cat(pair, -1) for pair in zip(E_t, E_s, strict=True)])
        apart = library([torch.cat([t, s[other]], -1) for t, s in zip(E_t, E_s, strict=True)])
        return -sum(jsd_mutual_information(*scores) for scores in zip(joint, apart, strict=True))

    assert_same(lambda t, s: page.hmi(ours, t, s, other), mutual_information, E_t, E_s, weights=weights)
    library, ours = ScaleCritics(widths, 64), page.Critics(widths)
    weights = copy_weights(library, ours)
    assert_same(
        lambda t, s: page.hal(ours, t, s), lambda t, s: hierarchical_adversarial(library(s), library(t)), E_t, E_s,
        weights=weights,
    )  # fmt: skip


@case(PAGE, "total", "Net", "Critics", gaps=lambda valid, generator: hidden(valid), derangement=shuffle)
def total(page):
    """Both phases: the sum of all terms, in the second after one step of the discriminators."""
    train = load("synthetic", samples=(6, 4, 4), dims=(10, 9, 8), length=8)["train"]
    batch = next(train.batches(6))
    method = create("hrlf", train.dims, train.task, dropout=0.0)
    teacher, student = (page.Net(train.dims, train.task.center).eval() for _ in range(2))
    method.start_phase("teacher", train)
    method.train()
    weights = copy_weights(method.teacher, teacher)
    assert_same(
        lambda: page.total(teacher, batch, "mse"),
        lambda: loss_sum(method.losses(batch, method(batch))),
        weights=weights,
    )
    method.start_phase("student", train)
    widths = scale_widths(3, CONFIG)
    T, D_e = page.Critics([2 * width for width in widths]), page.Critics(widths)
    weights = copy_weights(method.student, student) + copy_weights(method.statistics, T)
    copy_weights(method.discriminators, D_e)
    judge, optimizers = torch.optim.Adam(D_e.parameters(), lr=1e-3), method.optimizers()

    def library():
        output = method.with_teacher(batch, method(batch.hide(hidden(batch.valid))))
        method.discriminator_step(output, optimizers["discriminators"])
        with patch("mmsa_lib.methods.hrlf.derangement", shuffle):
            return loss_sum(method.losses(batch, output))

    assert_same(lambda: page.total(student, batch, "mse", teacher, T, D_e, judge), library, weights=weights)


def hidden(valid):
    """Gaps that both sides know."""
    draws = torch.Generator().manual_seed(0)
    return {m: frame & (torch.rand(frame.shape, generator=draws) < 0.6) for m, frame in valid.items()}


@case(PAGE, "gaps")
def missing_strategy(page):
    """The recipe of `stochastic_masks`: each set of modalities equally often, .55 of the frames of what is there."""
    whole = dict.fromkeys(DIMS, torch.ones(7000, 20, dtype=torch.bool))
    for draw in (page.gaps, stochastic_masks):
        seen = draw(whole, torch.Generator().manual_seed(0))
        there = torch.stack([mask.any(1) for mask in seen.values()], 1)
        count = torch.unique(there.long() @ torch.tensor([1, 2, 4]), return_counts=True)[1] / 7000
        assert torch.allclose(count[-7:], torch.tensor(1 / 7), atol=0.03)
        kept = torch.cat([mask[mask.any(1)] for mask in seen.values()]).float().mean()
        assert abs(float(kept) - 0.55) < 0.03
    padded = frames()[1]
    seen = page.gaps(padded, torch.Generator().manual_seed(0))
    assert not any((seen[m] & ~padded[m]).any() for m in DIMS)
