"""Notebook 02: encoders, routing, both contrasts, the network and its losses in both readings, who learns when."""
# ruff: noqa: B023 (each function is called before its loop goes on)

from page_definitions import assert_same, case, copy_weights
from torch import arange, randint, randn
from torch.nn.functional import normalize

from mmsa_lib.data import load
from mmsa_lib.losses.contrastive import cross_modal_decoupled, modulated_supcon, modulation_weights
from mmsa_lib.methods import create
from mmsa_lib.nn.encoders import FrameTransformer
from mmsa_lib.nn.routing import DynamicRouting

PAGE = "02_contrastive_mmcl"
WORDS = arange(7) < arange(3, 8).unsqueeze(1)  # lengths 3 to 7
READINGS = {
    "headline": {"decoupled": True, "normalised": False, "tau": 0.5, "lambda_1": 1.0, "lambda_2": 0.1, "fused": True},
    "literal": {"decoupled": False, "normalised": True, "tau": 0.1, "lambda_1": 0.1, "lambda_2": 0.1, "fused": False},
}
LITERAL = {
    "decoupled_cmc": False, "temperature_cmc": 0.1, "lambda_cmc": 0.1, "normalise_factors": True,
    "contrasted": "capsules",
}  # fmt: skip


@case(PAGE, "Encoder")
def encoder(page):
    for positions in (True, False):
        library, ours = FrameTransformer(8, 2, 4, 16, 0.1, positions), page.Encoder(8, 2, positions)
        weights = copy_weights(library, ours)
        assert_same(ours, library, randn(5, 7, 8), WORDS, weights=weights)


@case(PAGE, "Routing")
def routing(page):
    for rounds in (1, 3):
        library, ours = DynamicRouting(5, 3, 4, rounds), page.Routing(5, 3, 4, rounds)
        weights = copy_weights(library, ours, {"W": "weight"})
        assert_same(ours, lambda h, v: library(h, v, return_coupling=True), randn(5, 7, 5), WORDS, weights=weights)


@case(PAGE, "factors")
def weights_of_pairs(page):
    pairs = randn(6, 6) > 0
    for gamma in (0.5, 2.0):
        for scaled in (True, False):
            assert_same(
                lambda s: page.factors(s, pairs, gamma, scaled) * s,
                lambda s: modulation_weights(s, pairs, gamma=gamma, normalise=scaled) * s,
                randn(6, 6).tanh(),
            )


@case(PAGE, "cmc")
def inside_a_modality(page):
    c = randint(-1, 2, (12,))
    for decoupled in (True, False):
        for scaled in (True, False):
            assert_same(
                lambda z: page.cmc(normalize(z, dim=-1), c, 0.3, decoupled, scaled),
                lambda z: modulated_supcon(
                    normalize(z, dim=-1), c, temperature=0.3, decoupled=decoupled, normalise=scaled
                ),
                randn(12, 6),
            )


@case(PAGE, "smc")
def across_modalities(page):
    here = {m: arange(9) != place for place, m in enumerate(("text", "audio", "vision"))}
    for scaled in (True, False):
        assert_same(
            lambda u: page.smc({m: normalize(x, dim=-1) for m, x in u.items()}, here, 0.2, scaled),
            lambda u: cross_modal_decoupled(
                {m: normalize(x, dim=-1) for m, x in u.items()}, temperature=0.2, normalise=scaled, present=here
            ),
            {m: randn(9, 6) for m in here},
        )


def samples():
    return load("synthetic", samples=[16, 4, 4], dims=[10, 9, 8], length=5)["train"]


def network(train, **config):
    sizes = {"width": 8, "feedforward": 16, "capsules": 3, "capsule_dim": 4}
    return create("contrastive_mmcl", train.dims, train.task, **sizes, **config)


@case(PAGE, "Net", "TwoStages", "losses")
def network_and_losses(page):
    train = samples()
    names = {f"stages.{part}": part for part in ("project", "specific", "shared")} | {"fuse": "fuse"}
    names |= {"predict": "predict"} | {f"route.{s}.W": f"routing.{s}.weight" for s in ("specific", "shared")}
    for reading, config in (("headline", {}), ("literal", LITERAL)):
        for stop in (True, False):
            library = network(train, no_stop_gradient=not stop, **config)
            ours = page.Net(train.dims, 8, 3, 4, READINGS[reading]["fused"])
            weights = copy_weights(library, ours, names)
            assert_same(
                lambda batch: page.losses(ours, batch, READINGS[reading], stop),
                lambda batch: dict(library.losses(batch, library(batch))),
                train.data,
                weights=weights,
            )
            assert_same(
                lambda batch: ours(batch.features, batch.valid, stop)[::2],
                lambda batch: [(output := library(batch)).prediction, list(output.representations.values())[:-1]],
                train.data,
                weights=weights,
            )


@case(PAGE, "Net", "freeze")
def who_learns_in_the_second_phase(page):
    train = samples()
    ours, library = page.Net(train.dims), network(train, schedule="T2")
    library.start_phase("shared", train)
    for epoch in (1, library.config.finetune_epoch):
        library.start_epoch(epoch)
        page.freeze(ours, epoch == 1)
        for part in ("project", "specific", "shared"):
            one, other = getattr(ours.stages, part), getattr(library, part)
            assert one.training is other.training is (part == "shared" or epoch > 1)
            assert {p.requires_grad for p in one.parameters()} == {p.requires_grad for p in other.parameters()}
