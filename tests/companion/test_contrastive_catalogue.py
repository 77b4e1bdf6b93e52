"""The committed figures of contrastive_mmcl show the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest

from companion import contrastive_catalogue as catalogue


def rows(method, variant, offset):
    return [
        {
            "run_id": f"{method}{variant}{seed}", "method": method, "variant": variant or None, "dataset": "synthetic",
            "fold": "standard", "seed": seed, "protocol": "complete", "level": 0.0, "split": "test", "metric": metric,
            "value": 0.7 + offset + 0.01 * seed + 0.001 * (seed * len(variant or method) % 3),
        }
        for seed in range(5) for metric in ("mae", "corr")
    ]  # fmt: skip


@pytest.fixture
def main():
    constant = {**rows("constant_median", "", 0)[0], "run_id": None, "seed": None, "value": 1.4}
    return pd.DataFrame([*rows("contrastive_mmcl", "", 0), *rows("text_only", "", 0.1), constant])


def test_ablations_are_compared_with_the_full_method_of_the_main_table(main):
    _, effects = catalogue.contrastive_ablations(main, pd.DataFrame(rows("contrastive_mmcl", "no_cmc=True", 0.2)))
    assert effects["switch"].tolist() == ["no_cmc=True"]
    assert effects["difference"][0] == pytest.approx(0.2, abs=0.005)


@pytest.mark.parametrize("name", ["synthetic", "mosi", "mmmo"])
def test_runs_and_the_constant_are_drawn(main, name):
    picture, drawn = getattr(catalogue, f"contrastive_{name}")(main)
    axis = picture.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["contrastive_mmcl", "text_only"]
    ours = main[(main["method"] == "contrastive_mmcl") & (main["metric"] == "mae")]["value"]
    np.testing.assert_allclose(axis.collections[0].get_offsets()[:, 0], ours)
    assert drawn.loc[drawn["baseline"].notna(), "value"].tolist() == [1.4]
