"""What few seeds can show, against simulations and a table of the t distribution."""

import math

import numpy as np
import pytest
from scipy import stats

from companion.sweeps import detectable_difference, paired_power
from mmsa_lib.errors import ConfigError


@pytest.mark.parametrize(("effect", "n"), [(0.5, 5), (1.5, 5), (2.0, 3), (0.8, 20)])
def test_power_is_the_share_of_simulated_tests_that_find_the_difference(effect, n):
    draws = np.random.default_rng(0).normal(effect, 1.0, size=(40_000, n))
    p = stats.ttest_1samp(draws, 0.0, axis=1).pvalue
    assert paired_power(effect, 1.0, n) == pytest.approx((p < 0.05).mean(), abs=0.008)


def test_without_a_difference_power_is_the_level_of_the_test():
    assert paired_power(0.0, 2.0, 5, alpha=0.01) == pytest.approx(0.01)


def test_power_depends_on_the_ratio_alone_and_on_neither_sign():
    assert paired_power(0.3, 0.2, 5) == pytest.approx(paired_power(-3.0, 2.0, 5))


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_detectable_difference_has_that_power(power):
    found = detectable_difference(0.02, 5, power=power)
    assert paired_power(found, 0.02, 5) == pytest.approx(power, abs=1e-6)


def test_more_seeds_detect_smaller_differences_about_with_their_square_root():
    few, many = detectable_difference(1.0, 50), detectable_difference(1.0, 200)
    assert few / many == pytest.approx(2.0, rel=0.03)
    normal = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert many * math.sqrt(200) == pytest.approx(normal, rel=0.02)


@pytest.mark.parametrize(("sd", "n", "alpha"), [(1.0, 1, 0.05), (0.0, 5, 0.05), (math.nan, 5, 0.05), (1.0, 5, 0.0)])
def test_what_cannot_be_tested_is_refused(sd, n, alpha):
    with pytest.raises(ConfigError, match="paired t-test needs"):
        paired_power(1.0, sd, n, alpha)
    with pytest.raises(ConfigError, match="power must lie"):
        detectable_difference(1.0, 5, power=0.01)
