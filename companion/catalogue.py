"""The figures that are committed: which tables each is drawn from."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from companion.data_panels import label_histograms, length_distribution
from mmsa_lib.figures import palette
from mmsa_lib.figures.registry import figure
from mmsa_lib.figures.results import method_intervals

METRICS = {
    "mae": ("mean absolute error ↓", 1.0),
    "corr": ("correlation ↑", 1.0),
    "acc2_neg_pos": ("Acc-2 (%) ↑", 100.0),
}
SUMMARY = "data/published/dataset_summary"


@figure("dataset_labels", sources=[f"{SUMMARY}/labels.csv"])
def dataset_labels(labels: pd.DataFrame) -> Figure:
    """Label histograms of the real sets by split."""
    return label_histograms(labels)


@figure("dataset_lengths", sources=[f"{SUMMARY}/lengths.csv"])
def dataset_lengths(lengths: pd.DataFrame) -> Figure:
    """Words (steps) per sample of the real sets by split."""
    return length_distribution(lengths)


@figure("mosi_leak", sources=["data/results/leak_check.csv"])
def mosi_leak(leak: pd.DataFrame) -> Figure:
    """Training and test accuracy of a linear model on each segment feature of MOSI: a leak turns them round."""
    picture = Figure(figsize=(6.2, 2.6), layout="constrained")
    axis = picture.subplots()
    names = list(dict.fromkeys(leak["features"]))
    for offset, split in ((-0.18, "train"), (0.18, "test")):
        rows = leak[leak["split"] == split].set_index("features").loc[names]
        places = [i + offset for i in range(len(names))]
        axis.barh(places, 100 * rows["accuracy"], height=0.34, color=palette.SPLIT[split], label=split)
        for place, value in zip(places, rows["accuracy"], strict=True):
            axis.annotate(
                f"{100 * value:.1f}", (100 * value, place), xytext=(3, 0), textcoords="offset points", va="center",
                fontsize="small", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    majority = 100 * leak.loc[leak["split"] == "test", "majority"].iloc[0]
    axis.axvline(majority, color=palette.GREY, ls="--", label="larger class of the test split")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(
        xlabel="accuracy of label ≥ 0 (%)", xlim=(0, 109), title="MOSI, standard fold: linear models per feature set"
    )
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    return picture


@figure("mosi_results", sources=["data/results/mosi_standard.csv", "data/results/ridge.csv"])
def mosi_results(results: pd.DataFrame, ridge: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Test results on MOSI's standard fold with frozen and fine-tuned text, beside what needs no method."""
    test = results[(results["split"] == "test") & results["metric"].isin(METRICS)]
    runs = test[test["run_id"].notna()].copy()
    runs["variant"] = encoder_of(runs["variant"])
    runs = runs.sort_values(["variant", "method", "seed"], key=_order)
    constant = test[test["method"] == "constant_median"][["metric", "value"]].assign(baseline="constant (train median)")
    linear = ridge[(ridge["dataset"] == "mosi") & (ridge["input"] == "text") & ridge["metric"].isin(METRICS)]
    floors = pd.concat([linear[["metric", "value"]].assign(baseline="ridge on frozen text"), constant.dropna()])
    columns = ["method", "variant", "seed", "metric", "value"]
    return method_intervals(runs[columns], METRICS, floors), pd.concat([runs[columns], floors])


def encoder_of(variant: pd.Series) -> pd.Series:
    """``"fine-tuned text"`` or ``"frozen text"``, from the variant of a run."""
    tuned = variant.fillna("").str.contains("text_encoder=bert", regex=False)
    return tuned.map({True: "fine-tuned text", False: "frozen text"})


def _order(column: pd.Series) -> pd.Series:
    """Sort key: frozen before fine-tuned, methods as the palette names them."""
    if column.name == "variant":
        return column.map({"frozen text": 0, "fine-tuned text": 1})
    if column.name == "method":
        return column.map({name: i for i, name in enumerate(palette.METHOD)})
    return column
