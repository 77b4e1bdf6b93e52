from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.missing_summary import floors, level_means, over_seeds, run_summaries

RATES = [step / 10 for step in range(11)]
SUBSETS = ["text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"]
MODALITY_RATES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.667]


def row(method, seed, protocol, level, value, metric="acc2", dataset="toy", variant="", split="test"):
    return {
        "run_id": "" if seed is None else f"{method}-{seed}", "method": method, "variant": variant, "dataset": dataset,
        "fold": "standard", "seed": pd.NA if seed is None else seed, "protocol": protocol, "level": level,
        "split": split, "metric": metric, "value": value,
    }  # fmt: skip


def frame(seeds=(1, 2, 3), **options):
    rows = []
    for seed in seeds:
        rows += [row("hrlf", seed, "complete", "0.0", 0.8 + seed / 100, **options)]
        rows += [row("hrlf", seed, "frames", r, 0.8 + seed / 100 - 0.35 * r**2, **options) for r in RATES]
        rows += [row("hrlf", seed, "subsets", s, 0.5 + 0.05 * i + seed / 100, **options) for i, s in enumerate(SUBSETS)]
        rows += [row("hrlf", seed, "rate", r, 0.9 - r + seed / 100, **options) for r in MODALITY_RATES]
    rows += [row("constant_majority", None, "complete", 0.0, 0.55, **options)]
    rows += [row("oracle_test_majority", None, "complete", 0.0, 0.6, **options)]
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def value(summary, protocol, name, method="hrlf", seed=1, column="value"):
    rows = summary[(summary["protocol"] == protocol) & (summary["summary"] == name) & (summary["method"] == method)]
    if seed is not None:
        rows = rows[rows["seed"] == seed]
    return rows[column].item()


def test_numbers_of_one_run_by_hand():
    summary = run_summaries(frame())
    heights = [0.81 - 0.35 * r**2 for r in RATES[:10]]
    area = sum((a + b) / 2 * 0.1 for a, b in itertools.pairwise(heights))
    assert value(summary, "frames", "auilc") == pytest.approx(area)
    assert value(summary, "frames", "auilc_normalised") == pytest.approx(area / 0.9)
    assert value(summary, "subsets", "average") == pytest.approx(np.mean([0.51 + 0.05 * i for i in range(6)]))
    assert value(summary, "subsets", "complete") == pytest.approx(0.51 + 0.3)
    assert value(summary, "rate", "mean") == pytest.approx(0.91 - np.mean(MODALITY_RATES))


def test_the_area_up_to_rate_1_is_the_published_one():
    summary = run_summaries(frame(), upto=1.0)
    assert value(summary, "frames", "auilc") == pytest.approx(0.68275 + 0.01)


def test_constants_score_the_same_under_every_mask():
    summary = run_summaries(frame())
    constants = summary[summary["method"] == "constant_majority"]
    assert constants["seed"].isna().all()
    for protocol, name in (("frames", "auilc_normalised"), ("subsets", "average"), ("rate", "mean")):
        assert value(summary, protocol, name, "constant_majority", None) == pytest.approx(0.55)
    assert value(summary, "frames", "auilc", "constant_majority", None) == pytest.approx(0.55 * 0.9)


def test_mean_and_interval_over_seeds():
    table = over_seeds(run_summaries(frame()))
    mean = value(table, "rate", "mean", seed=None, column="mean")
    half = t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert mean == pytest.approx(0.92 - np.mean(MODALITY_RATES))
    assert value(table, "rate", "mean", seed=None, column="high") - mean == pytest.approx(half)
    assert value(table, "rate", "mean", "constant_majority", None, "n") == 1
    assert math.isnan(value(table, "rate", "mean", "constant_majority", None, "low"))


def test_variants_data_sets_and_validation_rows_are_kept_apart():
    other = pd.concat([frame(), frame(dataset="other"), frame(variant="missing=stochastic"), frame(split="valid")])
    found = run_summaries(other)
    assert len(found[found["seed"].notna()]) == 3 * len(run_summaries(frame()).query("seed == seed"))
    assert len(run_summaries(other, ["rate"])["protocol"].unique()) == 1


def test_a_table_read_without_types_gives_the_same(tmp_path):
    frame().to_csv(tmp_path / "t.csv", index=False)
    plain = run_summaries(pd.read_csv(tmp_path / "t.csv"))
    pd.testing.assert_frame_equal(plain, run_summaries(frame()))


def test_an_undefined_level_makes_the_number_undefined():
    broken = frame()
    broken.loc[(broken["protocol"] == "subsets") & (broken["level"] == "vision") & (broken["seed"] == 2), "value"] = (
        np.nan
    )
    summary = run_summaries(broken)
    assert math.isnan(value(summary, "subsets", "average", seed=2))
    assert value(summary, "subsets", "complete", seed=2) == pytest.approx(0.82)
    assert over_seeds(summary).query("summary == 'average' and method == 'hrlf'")["undefined"].item() == 1


def test_missing_levels_and_mixed_runs_are_refused():
    whole = frame()
    lacking = whole[~((whole["protocol"] == "frames") & (whole["level"] == 0.3) & (whole["seed"] == 2))]
    with pytest.raises(DataError, match=r"hrlf, seed 2, toy has no result under protocol frames at 0\.3"):
        run_summaries(lacking)
    with pytest.raises(DataError, match="several results under protocol"):
        run_summaries(pd.concat([whole, whole]))
    with pytest.raises(DataError, match="no test results under protocol 'burst'"):
        run_summaries(whole, ["burst"])


def test_level_means_and_floors():
    means = level_means(frame(), "frames", "acc2").set_index("level")
    assert means.loc["0.5", "mean"] == pytest.approx(0.82 - 0.35 * 0.25)
    assert means.loc["0.5", "n"] == 3
    found = floors(frame(), "acc2")
    assert list(zip(found["baseline"], found["value"], strict=True)) == [("constant_majority", 0.55)]
    with pytest.raises(DataError, match="no test result of 'mae'"):
        level_means(frame(), "frames", "mae")
