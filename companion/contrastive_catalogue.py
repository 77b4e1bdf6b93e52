"""The committed figures of ``contrastive_mmcl``: what its switches change, and how it stands beside baselines."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.contrastive_panels import difference_forest
from mmsa_lib.evaluation.ablations import ablation_effects
from mmsa_lib.figures.registry import figure
from mmsa_lib.figures.results import method_intervals

RESULTS = "data/results"
MAE = {"mae": ("mean absolute error ↓", 1.0), "corr": ("correlation ↑", 1.0)}


@figure(
    "contrastive_ablations", sources=[f"{RESULTS}/contrastive_synthetic.csv", f"{RESULTS}/contrastive_ablations.csv"]
)
def contrastive_ablations(main: pd.DataFrame, ablations: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each switch of ``contrastive_mmcl`` against the full method on the synthetic set, paired over seeds."""
    rows = pd.concat([main, ablations], ignore_index=True).drop_duplicates()
    effects = ablation_effects(rows, "contrastive_mmcl", "mae")
    title = "contrastive_mmcl, synthetic test split, 95 % intervals"
    return difference_forest(effects, "switch", "MAE, switch − full method", title=title), effects


@figure("contrastive_synthetic", sources=[f"{RESULTS}/contrastive_synthetic.csv"])
def contrastive_synthetic(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on the synthetic set, beside the constant median."""
    return _intervals(results)


@figure("contrastive_mosi", sources=[f"{RESULTS}/contrastive_mosi.csv"])
def contrastive_mosi(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on MOSI's fold A with frozen text, beside the constant median."""
    return _intervals(results)


@figure("contrastive_mmmo", sources=[f"{RESULTS}/contrastive_mmmo.csv"])
def contrastive_mmmo(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on ICT-MMMO, beside the constant median."""
    return _intervals(results)


def _intervals(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """One line per method; variants are what all methods of a table share, so they are not repeated."""
    test = results[(results["split"] == "test") & (results["protocol"] == "complete") & results["metric"].isin(MAE)]
    runs = test[test["seed"].notna()].assign(variant="")[["method", "variant", "seed", "metric", "value"]]
    constant = test[test["method"] == "constant_median"].dropna(subset=["value"])
    floors = constant[["metric", "value"]].assign(baseline="constant (train median)")
    return method_intervals(runs, MAE, floors), pd.concat([runs, floors])
