import numpy as np
import pytest

from mmsa_lib.data.loading import fit_scaling
from mmsa_lib.data.record import FeatureSet


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 6, size=700)
    observed = generator.random(lengths.sum()) > 0.3
    values = generator.normal(size=(lengths.sum(), 4)) * [1, 100, 0.01, 0] + [0, 1e4, -2, 0.1]
    values = np.where(observed[:, None], values, 0).astype(np.float32)
    return FeatureSet("audio", values, lengths, observed, level="frame")


def test_columns_have_mean_zero_and_deviation_one_over_observed_training_frames(features):
    train = np.arange(0, 700, 2)
    scaling = fit_scaling(features, train)
    seen = [
        features.values[frame].astype(np.float64)
        for sample in train
        for frame in range(features.offsets[sample], features.offsets[sample + 1])
        if features.observed[frame]
    ]
    mean = sum(seen) / len(seen)
    deviation = np.sqrt(sum((x - mean) ** 2 for x in seen) / len(seen))
    np.testing.assert_allclose(scaling.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(scaling.scale[:3], deviation[:3], rtol=1e-6)
    scaled = (np.array(seen) - mean)[:, :3] / deviation[:3]
    chosen = np.concatenate([np.arange(*features.offsets[i : i + 2]) for i in train])
    chosen = chosen[features.observed[chosen]]
    found = scaling.apply(features.values, features.observed)[chosen, :3]
    np.testing.assert_allclose(found, scaled, atol=1e-3)  # a deviation of 0.01 around -2 has 4 digits in float32


def test_a_constant_column_becomes_exactly_zero(features):
    scaling = fit_scaling(features, np.arange(700))
    assert scaling.scale[3] == 1
    assert not scaling.apply(features.values, features.observed)[:, 3].any()


def test_missing_frames_stay_zero(features):
    scaling = fit_scaling(features, np.arange(700))
    scaled = scaling.apply(features.values, features.observed)
    assert scaled.dtype == np.float32
    assert not scaled[~features.observed].any()
    assert scaled[features.observed][:, :3].any(axis=1).all()


def test_nothing_observed_leaves_everything_as_it_is(features):
    features.observed[:] = False
    scaling = fit_scaling(features, np.arange(10))
    assert scaling.mean.tolist() == [0] * 4
    assert scaling.scale.tolist() == [1] * 4
