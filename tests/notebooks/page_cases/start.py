"""Notebooks 00 and 01: early fusion, and the generator of the synthetic data."""

import numpy as np
from page_definitions import assert_same, case, copy_weights

from mmsa_lib.data import load
from mmsa_lib.data.record import MODALITIES
from mmsa_lib.data.sources import synthetic
from mmsa_lib.methods import create


@case("00_start_here", "EarlyFusion")
def early_fusion(page):
    train = load("synthetic", samples=(24, 8, 8), dims=(12, 9, 8), length=6)["train"]
    library = create("early_fusion", train.dims, train.task, width=10, hidden=7)
    ours = page.EarlyFusion(train.dims, neutral=train.task.center, width=10, hidden=7)
    weights = copy_weights(library, ours)
    batch = next(iter(train.batches(20)))
    # Dropout is at work on both sides and draws the same; the loss is that of both training loops.
    assert_same(
        lambda: (ours(batch), (ours(batch) - batch.labels).abs().mean()),
        lambda: (library(batch).prediction, library.losses(batch, library(batch))["task"]),
        weights=weights,
    )


@case("01_data", "label", "hidden", "rotation")
def generator(page):
    """Labels and features of every utterance of the default data set, from the page's functions and the same draws."""
    settings, record = synthetic.settings_for("synthetic", samples=(30, 5, 5)), synthetic.build(samples=(30, 5, 5))
    count, lengths = 40, record.features["planted_audio"].lengths
    factors = {name: settings.stream("factor", name).standard_normal(count) for name in synthetic.FACTORS}
    noise = settings.stream("label").standard_normal((count, 2))[:, 0]
    assert {**settings.weights, "synergy": settings.synergy, "noise": settings.label_noise} == page.WEIGHTS
    np.testing.assert_array_equal(page.label(factors, noise).astype("f4"), record.labels)
    nuisance = np.concatenate([record.factors["speaker"], record.factors["recording"]], axis=1)
    assert settings.gains["audio"] == page.GAINS
    for m in MODALITIES:
        features, gains = record.features[f"planted_{m}"], settings.gains[m]
        drawn = settings.stream("noise", m).standard_normal((lengths.sum(), features.width))
        normal = settings.stream("mixing", m).standard_normal((features.width, features.width))
        mixing = page.rotation(normal)
        np.testing.assert_allclose(mixing, synthetic.mixing(settings, m))
        for one, start in enumerate(features.offsets[:-1]):
            rows = slice(start, start + lengths[one])
            own = {name: values[one] for name, values in factors.items()}
            peak = {name: int(record.factors[f"peak_{name}"][one, 0]) for name in factors}
            found = page.hidden(own, peak, nuisance[one], drawn[rows], gains) @ mixing.T
            found[~features.observed[rows]] = 0
            np.testing.assert_allclose(found, features.values[rows], atol=1 / synthetic.RESOLUTION)  # as it is rounded
