"""Probes: known answers, a fold by hand, the control, and the planted factors of the synthetic data."""

import itertools

import numpy as np
import pytest
import torch

from mmsa_lib.data.sources.synthetic import build
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.probes import STRENGTHS, probe


def row(table, representation, factor):
    return table[(table["representation"] == representation) & (table["factor"] == factor)].iloc[0]


def test_known_variance_shares():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3000, 4))
    noise = generator.normal(size=3000)
    factors = {
        "exact": x[:, 0] - 2 * x[:, 1],
        "half": x[:, 2] + noise,
        "none": generator.normal(size=3000),
        "square": x[:, 3] ** 2,
    }
    table = probe({"x": torch.tensor(x)}, factors)
    assert row(table, "x", "exact")["r2"] == pytest.approx(1, abs=1e-3)
    assert row(table, "x", "half")["r2"] == pytest.approx(0.5, abs=0.04)
    assert row(table, "x", "none")["r2"] == pytest.approx(0, abs=0.01)
    assert row(table, "x", "square")["r2"] == pytest.approx(0, abs=0.02)  # a linear probe sees no square
    assert table["control_r2"].abs().max() < 0.01
    assert row(table, "x", "half")["sd"] > 0


def test_a_vector_factor_averages_its_columns():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(2000, 3))
    factor = np.column_stack([x[:, 0] * 100, generator.normal(size=2000)])
    found = row(probe({"x": x}, {"v": factor, "w": x[:, 1]}), "x", "v")
    assert found["r2"] == pytest.approx(0.5, abs=0.03)  # the scale of a column gives it no more weight


def test_more_columns_than_samples_do_not_break_the_control():
    generator = np.random.default_rng(2)
    x = generator.normal(size=(120, 300))
    table = probe({"x": x}, {"first": x[:, 0]})
    assert -0.2 < table["control_r2"][0] < 0.1


def test_r2_by_hand():
    """One fold after the other: standardised on the training part, ridge by the normal equations, any strength."""
    generator = np.random.default_rng(3)
    x, group = generator.normal(size=(60, 4)) * 5 + 2, np.repeat(np.arange(6), 10)
    y = x @ [0.5, -1, 0, 2] + generator.normal(size=60)
    found = row(probe({"x": x}, {"f": y}, groups=group, folds=3), "x", "f")
    scores = []
    for own in itertools.combinations(range(6), 2):  # every way to hold out two of the six groups
        test = np.isin(group, own)
        mean, scale = x[~test].mean(axis=0), x[~test].std(axis=0)
        inside, outside, centre = (x[~test] - mean) / scale, (x[test] - mean) / scale, y[~test].mean()
        for strength in STRENGTHS:
            weight = np.linalg.solve(inside.T @ inside + strength * np.eye(4), inside.T @ (y[~test] - centre))
            error = ((y[test] - centre - outside @ weight) ** 2).sum()
            scores.append((own, 1 - error / ((y[test] - centre) ** 2).sum()))
    means = {
        np.mean(values): 0
        for pairs in itertools.combinations(itertools.combinations(range(6), 2), 3)
        if len({g for pair in pairs for g in pair}) == 6
        for values in itertools.product(*([s for own, s in scores if own == pair] for pair in pairs))
    }
    assert min(abs(mean - found["r2"]) for mean in means) < 1e-9


def test_a_constant_and_a_huge_column_are_harmless():
    generator = np.random.default_rng(4)
    x = generator.normal(size=(400, 2))
    wide = np.column_stack([x, np.full(400, 7.0), 1e9 * generator.normal(size=400)])
    plain, padded = (probe({"x": v}, {"f": x[:, 0]})["r2"][0] for v in (x, wide))
    assert padded == pytest.approx(plain, abs=0.01)


def test_groups_prevent_reading_a_factor_off_the_group():
    generator = np.random.default_rng(5)
    group = np.repeat(np.arange(20), 15)
    code = generator.normal(size=(20, 40))[group] + 0.01 * generator.normal(size=(300, 40))
    factor = generator.normal(size=20)[group]  # carried by nothing but the identity of the group
    mixed = probe({"x": code}, {"f": factor})["r2"][0]
    apart = probe({"x": code}, {"f": factor}, groups=[str(g) for g in group])["r2"][0]
    assert mixed > 0.9
    assert apart < 0.2


def test_the_seed_decides_about_folds_and_nothing_else_does():
    generator = np.random.default_rng(6)
    x, groups = generator.normal(size=(200, 3)), [f"g{i % 17}" for i in range(200)]
    factors = {"f": x[:, 0] + generator.normal(size=200)}
    first, again, other = (probe({"x": x}, factors, groups=groups, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_planted_factors_are_found_where_they_were_planted():
    record = build(samples=(400, 10, 10), dims=(16, 12, 12), missing=0.0, absent=0.0, focus=0.0)
    pooled = {
        m: np.add.reduceat(f.values, f.offsets[:-1]) / f.lengths[:, None]
        for m, f in ((name.removeprefix("planted_"), f) for name, f in record.features.items())
    }
    names = ("shared", "private_text", "private_audio", "synergy", "speaker", "recording")
    table = probe(pooled, {n: record.factors[n] for n in names}, groups=record.groups)
    for modality in pooled:
        assert row(table, modality, "shared")["r2"] > 0.8
        assert row(table, modality, "recording")["r2"] > 0.8
    assert row(table, "text", "private_text")["r2"] > 0.8
    assert row(table, "audio", "private_text")["r2"] < 0.05
    assert row(table, "text", "private_audio")["r2"] < 0.05
    assert table[table["factor"] == "synergy"]["r2"].max() < 0.05  # a product is not linear in any modality


@pytest.mark.parametrize(
    ("representations", "factors", "options", "error", "word"),
    [
        ({"x": np.zeros((5, 2, 2))}, {"f": np.arange(5)}, {}, DataError, "'x'"),
        ({"x": np.full((5, 2), np.nan)}, {"f": np.arange(5)}, {}, DataError, "sample 0"),
        ({"x": np.ones((4, 2))}, {"f": np.arange(5)}, {}, DataError, "4 samples"),
        ({"x": np.ones((5, 2))}, {"f": np.ones(5)}, {}, DataError, "constant"),
        ({}, {"f": np.arange(5)}, {}, DataError, "at least one"),
        ({"x": np.ones((5, 2))}, {"f": np.arange(5)}, {"folds": 6}, ConfigError, "6 folds of 5"),
        ({"x": np.ones((5, 2))}, {"f": np.arange(5)}, {"folds": 3, "groups": list("aabba")}, ConfigError, "2 groups"),
    ],
)
def test_bad_input_is_named(representations, factors, options, error, word):
    with pytest.raises(error, match=word):
        probe(representations, factors, **options)
