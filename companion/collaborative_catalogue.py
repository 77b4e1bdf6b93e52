"""The committed figures of ``collaborative_mmcl``: inside its two variants, its switches, and baselines beside it."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.collaborative_panels import distance_from_uniform, oracle_dumbbells, policy_curves, weight_matrices
from companion.contrastive_panels import difference_forest
from mmsa_lib.evaluation.ablations import SEPARATOR, ablation_effects
from mmsa_lib.figures.registry import figure
from mmsa_lib.figures.results import method_intervals

RESULTS = "data/results"
METHOD = "collaborative_mmcl"
SENTIMENT = {"mae": ("mean absolute error ↓", 1.0), "corr": ("correlation ↑", 1.0)}
EMOTIONS = {"mean_acc": ("mean accuracy (%) ↑", 100.0), "mean_f1": ("mean F1 (%) ↑", 100.0)}
SETS = {"synthetic": "synthetic", "mosi": "MOSI", "mmmo": "ICT-MMMO"}


@figure("collaborative_utterance", sources=[f"{RESULTS}/collaborative_utterance.csv"])
def collaborative_utterance(found: pd.DataFrame) -> Figure:
    """Similarity and weights of the text of one MOSI utterance in a trained run of each variant."""
    named = found.assign(variant=named_variant(found["variant"]))
    words = named[(named["quantity"] == "gate") & (named["modality"] == "text")].drop_duplicates("row")["word"]
    return weight_matrices(named.sort_values("variant", ascending=False, kind="stable"), list(words))


@figure("collaborative_weights", sources=[f"{RESULTS}/collaborative_weights.csv"])
def collaborative_weights(weights: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Entropy of the weights of all trained runs on their test samples, against the bound of each variant."""
    drawn = entropy_lines(weights)
    return distance_from_uniform(drawn), drawn


@figure("collaborative_curves", sources=[f"{RESULTS}/collaborative_curves.csv"])
def collaborative_curves(curves: pd.DataFrame) -> Figure:
    """What actor and critic learn on the synthetic set, all seeds of both variants."""
    named = curves.assign(variant=named_variant(curves["variant"]))
    return policy_curves(named.sort_values("variant", ascending=False, kind="stable"))


@figure("collaborative_oracle", sources=[f"{RESULTS}/collaborative_oracle.csv"])
def collaborative_oracle(oracle: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """What selection on the test set would have claimed, on the sets with sentiment labels."""
    drawn = oracle_lines(oracle)
    return oracle_dumbbells(drawn, {metric: label for metric, (label, _) in SENTIMENT.items()}), drawn


@figure(
    "collaborative_ablations",
    sources=[f"{RESULTS}/collaborative_synthetic.csv", f"{RESULTS}/collaborative_ablations.csv"],
)
def collaborative_ablations(main: pd.DataFrame, ablations: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Each switch of ``collaborative_mmcl`` against the default on the synthetic set, paired over seeds."""
    rows = pd.concat([main, ablations], ignore_index=True).drop_duplicates()
    effects = ablation_effects(rows, METHOD, "mae")
    title = "collaborative_mmcl, synthetic test split, 95 % intervals"
    return difference_forest(effects, "switch", "MAE, switch − default", title=title), effects


@figure("collaborative_synthetic", sources=[f"{RESULTS}/collaborative_synthetic.csv"])
def collaborative_synthetic(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on the synthetic set, beside the constant median."""
    return _intervals(results, SENTIMENT, "constant_median")


@figure("collaborative_mosi", sources=[f"{RESULTS}/collaborative_mosi.csv"])
def collaborative_mosi(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on MOSI's words and their timing, beside the constant median."""
    return _intervals(results, SENTIMENT, "constant_median")


@figure("collaborative_mmmo", sources=[f"{RESULTS}/collaborative_mmmo.csv"])
def collaborative_mmmo(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on ICT-MMMO, beside the constant median."""
    return _intervals(results, SENTIMENT, "constant_median")


@figure("collaborative_emotions", sources=[f"{RESULTS}/collaborative_emotions.csv"])
def collaborative_emotions(results: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on the synthetic emotions, beside the constant majority."""
    return _intervals(results, EMOTIONS, "constant_majority")


def named_variant(variant: pd.Series) -> pd.Series:
    """``"reference"`` or ``"corrected"``, from the variant of a run."""
    reference = variant.fillna("").str.contains("decoupling=reference", regex=False)
    return reference.map({True: "reference", False: "corrected"})


def entropy_lines(weights: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``collaborative_weights.csv`` as :func:`distance_from_uniform` draws them, the reference first."""
    named = weights.assign(variant=named_variant(weights["variant"]), place=weights["dataset"].map(list(SETS).index))
    named = named.sort_values(["variant", "part", "place"], ascending=[False, True, True], kind="stable")
    group = named["dataset"].map(SETS) + ", " + named["variant"]
    return named.assign(group=group)[["group", "part", "run_id", "modality", "entropy", "bound"]]


def oracle_lines(oracle: pd.DataFrame) -> pd.DataFrame:
    """The two named variants in ``collaborative_oracle.csv``, on the sets with sentiment labels, one group each."""
    own = oracle[(oracle["method"] == METHOD) & oracle["metric"].isin(SENTIMENT)]
    own = own[_own_changes(own).isin(["", "decoupling=reference"])]
    named = own.assign(variant=named_variant(own["variant"]), place=own["dataset"].map(list(SETS).index))
    named = named.sort_values(["place", "variant"], ascending=[True, False], kind="stable")
    group = named["dataset"].map(SETS) + ", " + named["variant"]
    return named.assign(group=group)[["group", "run_id", "seed", "metric", "value", "oracle", "gap"]]


def _intervals(
    results: pd.DataFrame, metrics: dict[str, tuple[str, float]], constant: str
) -> tuple[Figure, pd.DataFrame]:
    """One line per method and variant; what all runs of a data set share is not repeated."""
    test = results[(results["split"] == "test") & (results["protocol"] == "complete") & results["metric"].isin(metrics)]
    runs = test[test["seed"].notna()]
    runs = runs.assign(variant=_own_changes(runs))[["method", "variant", "seed", "metric", "value"]]
    runs = runs.sort_values(["method", "variant"], kind="stable")
    floor = test[test["method"] == constant].dropna(subset=["value"])
    floors = floor[["metric", "value"]].assign(baseline=f"constant (train {constant.removeprefix('constant_')})")
    return method_intervals(runs, metrics, floors), pd.concat([runs, floors])


def _own_changes(rows: pd.DataFrame) -> pd.Series:
    """The variant of each row without what all rows of its data set have in common."""
    changes = rows["variant"].fillna("").map(lambda text: [part for part in text.split(SEPARATOR) if part])
    shared = {name: set.intersection(*map(set, group)) for name, group in changes.groupby(rows["dataset"])}
    kept = [
        SEPARATOR.join(part for part in parts if part not in shared[name])
        for parts, name in zip(changes, rows["dataset"], strict=True)
    ]
    return pd.Series(kept, index=rows.index, dtype=object)
