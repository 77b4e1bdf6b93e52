"""Effects of augmentation and over the control, against paired t-tests written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.missing_effects import OWN_RECIPE, augmentation_effects, control_effects, with_training
from mmsa_lib.methods import METHODS

SHARED = "audio=audio73; text=words"
SEEDS = range(5)


def rows(dataset="synthetic", method="early_fusion", variant="", height=1.0, spread=0.01, metric="mae"):
    """One run per seed; the value moves with the seed and, a little, with what the row is."""
    noise = np.random.default_rng(len(method) + 7 * len(variant)).normal(size=len(SEEDS))
    noise -= noise.mean()
    return [
        {
            "dataset": dataset, "fold": "standard", "method": method, "variant": variant, "seed": seed,
            "protocol": "frames", "summary": "auilc_normalised", "metric": metric,
            "value": height + 0.1 * seed + spread * noise[seed],
        }
        for seed in SEEDS
    ]  # fmt: skip


@pytest.fixture
def summaries():
    constant = {**rows(method="constant_median")[0], "seed": None, "value": 1.4}
    return pd.DataFrame(
        [
            *rows(), *rows(variant="missing=stochastic", height=0.9), *rows(method="late_fusion"),
            *rows(method="late_fusion", variant="missing=stochastic", height=1.001, spread=0.1),
            *rows(method="self_mm", variant="missing=stochastic", height=1.2), *rows(method="hrlf", height=0.8),
            *rows(method="hrlf", variant="lambda_frf=0.1; lambda_hal=0.1", height=0.7), constant,
        ]
    ).astype({"seed": "Int64"})  # fmt: skip


def values(frame, method, variant):
    chosen = frame[(frame["method"] == method) & (frame["variant"] == variant)].sort_values("seed")
    return chosen["value"].to_numpy(float)


def test_hrlf_is_the_one_method_with_a_recipe_of_its_own():
    assert set(OWN_RECIPE) == {name for name, method in METHODS.items() if method.own_missing}


def test_training_is_read_from_the_variant_without_what_all_runs_share():
    frame = pd.DataFrame(
        [
            *rows("mosi", variant=SHARED), *rows("mosi", variant="audio=audio73; missing=stochastic; text=words"),
            *rows("mosi", "hrlf", "audio=audio73; lambda_frf=0.1; text=words"), *rows("mmmo", "hrlf"),
            {**rows("mosi", "constant_mean")[0], "seed": None, "variant": np.nan},
        ]
    )  # fmt: skip
    found = with_training(frame.astype({"seed": "Int64"})).iloc[[0, 5, 10, 15, 20]]
    assert found["training"].tolist() == ["plain", "augmented", "augmented", "augmented", ""]
    assert found["changes"].tolist() == ["", "", "lambda_frf=0.1", "", ""]


def test_augmentation_is_a_paired_difference_corrected_inside_a_data_set(summaries):
    table = augmentation_effects(summaries, "mae").set_index("method")
    assert list(table.index) == ["early_fusion", "late_fusion"]
    expected = {}
    for method in table.index:
        plain, augmented = (values(summaries, method, v) for v in ("", "missing=stochastic"))
        assert table.loc[method, "difference"] == pytest.approx((augmented - plain).mean())
        assert table.loc[method, "reference"] == pytest.approx(plain.mean())
        expected[method] = ttest_rel(augmented, plain).pvalue
    assert table["p"].to_dict() == pytest.approx(expected)
    low, high = sorted(expected.values())
    assert sorted(table["p_holm"]) == pytest.approx([2 * low, max(2 * low, high)])
    assert table["verdict"].to_dict() == {"early_fusion": "better", "late_fusion": "no effect shown"}


def test_the_control_is_the_augmented_baseline(summaries):
    table = control_effects(summaries, "mae").set_index(["method", "changes"])
    control = values(summaries, "early_fusion", "missing=stochastic")
    assert set(table.index) == {
        ("late_fusion", ""), ("self_mm", ""), ("hrlf", ""), ("hrlf", "lambda_frf=0.1; lambda_hal=0.1"),
    }  # fmt: skip
    for method, variant in (("hrlf", ""), ("self_mm", "missing=stochastic")):
        own = values(summaries, method, variant)
        line = table.loc[(method, "")]
        assert line["difference"] == pytest.approx((own - control).mean())
        assert line["p"] == pytest.approx(ttest_rel(own, control).pvalue)
        assert line["reference"] == pytest.approx(control.mean())
    assert table.loc[("hrlf", ""), "verdict"] == "better"
    assert table.loc[("self_mm", ""), "verdict"] == "worse"


def test_the_direction_of_the_metric_decides_on_the_verdict(summaries):
    rising = summaries.assign(metric="corr")
    assert control_effects(rising, "corr").set_index("method").loc["self_mm", "verdict"] == "better"


def test_data_sets_are_corrected_apart(summaries):
    alone = augmentation_effects(summaries, "mae")
    more = pd.concat([summaries, summaries.assign(dataset="mmmo")], ignore_index=True)
    both = augmentation_effects(more, "mae")
    assert both.groupby("dataset")["p_holm"].apply(list).to_dict() == {
        "mmmo": pytest.approx(alone["p_holm"].tolist()), "synthetic": pytest.approx(alone["p_holm"].tolist()),
    }  # fmt: skip


def test_mistakes_are_named(summaries):
    with pytest.raises(DataError, match="no summary of a run with metric 'acc7'"):
        augmentation_effects(summaries, "acc7")
    mixed = pd.concat([summaries, summaries.assign(protocol="rate")])
    with pytest.raises(DataError, match="several kinds in column 'protocol'"):
        control_effects(mixed, "mae")
    with pytest.raises(DataError, match="text_only"):
        control_effects(summaries, "mae", control="text_only")
