"""Probes: known answers, agreement with scikit-learn, the control, and the planted factors of the synthetic data."""

import numpy as np
import pytest
import torch

from mmsa_lib.data.sources.synthetic import build
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.evaluation.probes import STRENGTHS, _ridge_path, assign_folds, probe


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


def test_ridge_path_agrees_with_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(3)
    x, y, new = generator.normal(size=(50, 8)) * 5 + 2, generator.normal(size=(50, 2)), generator.normal(size=(7, 8))
    x[:, 3] = 1.5  # constant
    path = _ridge_path(x, y, new)
    scale = np.where(x.std(0) > 0, x.std(0), np.inf)
    for strength, found in zip(STRENGTHS, path, strict=True):
        model = linear_model.Ridge(alpha=strength).fit((x - x.mean(0)) / scale, y)
        assert np.allclose(found, model.predict((new - x.mean(0)) / scale))


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


def test_folds_keep_groups_whole_and_balanced():
    groups = [f"g{i % 17}" for i in range(200)]
    folds = assign_folds(groups, 4, seed=0)
    assert len({(g, f) for g, f in zip(groups, folds, strict=True)}) == 17
    assert np.bincount(folds).min() >= 40
    assert np.array_equal(folds, assign_folds(groups, 4, seed=0))
    assert not np.array_equal(folds, assign_folds(groups, 4, seed=1))
    assert np.bincount(assign_folds(11, 5, seed=0)).tolist() == [3, 2, 2, 2, 2]


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
