"""Effects of switches from curated results."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.ablations import SEPARATOR, ablation_effects, baseline_effects, paired_effects
from mmsa_lib.experiments.files import VARIANT_SEPARATOR

FULL = np.array([0.70, 0.72, 0.71, 0.74, 0.73])
CHANGE = {"no_cmc=True": [0.10, 0.11, 0.09, 0.10, 0.12], "no_smc=True": [0.01, -0.02, 0.00, 0.02, -0.01]}


def results(base="", metric="mae"):
    values = {base: FULL} | {
        SEPARATOR.join(filter(None, (base, switch))): FULL + change for switch, change in CHANGE.items()
    }
    return pd.DataFrame(
        [
            {
                "run_id": f"{variant}{seed}", "method": "contrastive_mmcl", "variant": variant, "dataset": "synthetic",
                "fold": "standard", "seed": 1111 + seed, "protocol": "complete", "level": 0.0, "split": "test",
                "metric": metric, "value": value,
            }
            for variant, line in values.items() for seed, value in enumerate(line)
        ]
    )  # fmt: skip


def test_the_separator_is_that_of_the_results():
    assert SEPARATOR == VARIANT_SEPARATOR


@pytest.mark.parametrize("base", ["", "max_epochs=30"])
def test_paired_differences_intervals_and_verdicts(base):
    table = ablation_effects(results(base), "contrastive_mmcl").set_index("switch")
    assert list(table.index) == list(CHANGE)
    p = {}
    for switch, change in CHANGE.items():
        row = table.loc[switch]
        assert row["difference"] == pytest.approx(np.mean(change))
        low, high = stats.t.interval(0.95, 4, loc=np.mean(change), scale=stats.sem(change))
        assert (row["low"], row["high"]) == (pytest.approx(low), pytest.approx(high))
        assert row["reference"] == pytest.approx(FULL.mean())
        p[switch] = stats.ttest_1samp(change, 0).pvalue
    assert table.loc["no_cmc=True", "p_holm"] == pytest.approx(2 * p["no_cmc=True"])
    assert list(table["verdict"]) == ["worse", "no effect shown"]


def test_the_verdict_follows_the_direction_of_the_metric():
    table = ablation_effects(results(metric="corr"), "contrastive_mmcl", metric="corr").set_index("switch")
    assert table.loc["no_cmc=True", "verdict"] == "better"


def test_other_rows_do_not_count():
    frame = results()
    others = [
        frame.assign(method="self_mm", value=9.0),
        frame.assign(split="valid", value=9.0),
        frame.assign(protocol="frame", value=9.0),
        frame.assign(metric="corr", value=9.0),
    ]
    mixed = pd.concat([*others, frame], ignore_index=True)
    mixed["variant"] = mixed["variant"].replace("", None)  # as pandas reads an empty text
    pd.testing.assert_frame_equal(
        ablation_effects(mixed, "contrastive_mmcl"), ablation_effects(frame, "contrastive_mmcl")
    )


def test_a_missing_seed_is_counted():
    frame = results()
    kept = frame[(frame["variant"] != "no_smc=True") | (frame["seed"] < 1115)]
    assert ablation_effects(kept, "contrastive_mmcl").set_index("switch").loc[
        "no_smc=True", ["n", "unpaired"]
    ].tolist() == [4, 1]


def test_what_cannot_be_compared_is_said():
    frame = results()
    with pytest.raises(DataError, match="no test result of hrlf"):
        ablation_effects(frame, "hrlf")
    with pytest.raises(DataError, match="several datasets"):
        ablation_effects(pd.concat([frame, frame.assign(dataset="mosi")]), "contrastive_mmcl")
    with pytest.raises(DataError, match="nothing to compare with 'the default'"):
        ablation_effects(frame[frame["variant"] == ""], "contrastive_mmcl")
    with pytest.raises(DataError, match="no variant is the base of all others"):
        ablation_effects(frame[frame["variant"] != ""], "contrastive_mmcl")


def test_other_methods_are_compared_and_constants_left_out():
    ours = results()
    ours = ours[ours["variant"] == ""]
    others = ours.assign(method="text_only", value=FULL + CHANGE["no_cmc=True"])
    constant = ours[:1].assign(method="constant_mean", run_id="", seed=np.nan, value=1.4)
    table = baseline_effects(pd.concat([ours, others, constant], ignore_index=True), "contrastive_mmcl")
    assert list(table["method"]) == ["text_only"]
    assert table["difference"][0] == pytest.approx(np.mean(CHANGE["no_cmc=True"]))
    assert table["verdict"][0] == "worse"
    with pytest.raises(DataError, match="no test result of contrastive_mmcl"):
        baseline_effects(others, "contrastive_mmcl")


def test_two_variants_of_a_method_are_not_averaged():
    with pytest.raises(DataError, match="several rows"):
        baseline_effects(results(), "contrastive_mmcl")


def test_any_column_can_be_compared():
    """Rows that share a seed are paired; a failed run is simply not there."""
    frame = results().assign(switch=lambda f: f["variant"].replace("", "chosen"))
    table = paired_effects(frame.iloc[:-1], "switch", "chosen").set_index("switch")
    assert table["n"].tolist() == [5, 4]
    assert table["unpaired"].tolist() == [0, 1]
    assert table["difference"].tolist() == pytest.approx(
        [np.mean(v[: len(v) - i]) for i, v in enumerate(CHANGE.values())]
    )
    with pytest.raises(DataError, match="nothing to compare with 'chosen'"):
        paired_effects(frame[frame["switch"] == "chosen"], "switch", "chosen")
