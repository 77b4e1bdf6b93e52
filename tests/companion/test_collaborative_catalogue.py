"""The committed figures of collaborative_mmcl show the numbers of their tables."""

import numpy as np
import pandas as pd
import pytest

from companion import collaborative_catalogue as catalogue

OWN = "collaborative_mmcl"


def rows(method, variant, offset, metrics=("mae", "corr"), dataset="synthetic"):
    return [
        {
            "run_id": f"{method}{variant}{seed}", "method": method, "variant": variant or None, "dataset": dataset,
            "fold": "standard", "seed": seed, "protocol": "complete", "level": 0.0, "split": "test", "metric": metric,
            "value": 0.7 + offset + 0.01 * seed + 0.001 * (seed * len(variant or method) % 3),
        }
        for seed in range(5) for metric in metrics
    ]  # fmt: skip


def labels(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


@pytest.fixture
def main():
    constant = {**rows("constant_median", "", 0)[0], "run_id": None, "seed": None, "value": 1.4}
    return pd.DataFrame([*rows(OWN, "", 0), *rows(OWN, "decoupling=reference", 0.1), constant])


def test_ablations_are_compared_with_the_default_of_the_main_table(main):
    _, effects = catalogue.collaborative_ablations(main, pd.DataFrame(rows(OWN, "no_rl=True", 0.2)))
    assert effects["switch"].tolist() == ["decoupling=reference", "no_rl=True"]
    assert effects["difference"].tolist() == pytest.approx([0.1, 0.2], abs=0.005)


@pytest.mark.parametrize("name", ["synthetic", "mosi", "mmmo"])
def test_variants_and_the_constant_are_drawn(main, name):
    picture, drawn = getattr(catalogue, f"collaborative_{name}")(main)
    axis = picture.axes[0]
    assert labels(axis) == [OWN, f"{OWN}, decoupling=reference"]
    ours = main[(main["variant"].isna()) & (main["metric"] == "mae") & main["seed"].notna()]["value"]
    np.testing.assert_allclose(axis.collections[0].get_offsets()[:, 0], ours)
    assert drawn.loc[drawn["baseline"].notna(), "value"].tolist() == [1.4]


def test_what_all_runs_share_is_not_repeated():
    metrics = ("mean_acc", "mean_f1")
    content = [*rows(OWN, "task=emotions", 0, metrics), *rows(OWN, "no_rl=True; task=emotions", 0.1, metrics)]
    constant = {**content[0], "method": "constant_majority", "variant": None, "run_id": None, "seed": None}
    constants = [{**constant, "metric": metric, "value": 0.5} for metric in metrics]
    picture, drawn = catalogue.collaborative_emotions(pd.DataFrame([*content, *constants]))
    assert labels(picture.axes[0]) == [OWN, f"{OWN}, no_rl=True"]
    assert set(drawn["baseline"].dropna()) == {"constant (train majority)"}


def test_entropies_are_named_by_data_and_variant_the_reference_first():
    frame = pd.DataFrame(
        {
            "run_id": list("abcd"), "variant": [None, "decoupling=reference"] * 2, "modality": "text",
            "part": "common", "dataset": ["mmmo", "mmmo", "synthetic", "synthetic"],
            "entropy": [0.5, 0.99, 0.6, 0.98], "bound": [0.1, 0.8, 0.1, 0.8],
        }
    )  # fmt: skip
    picture, drawn = catalogue.collaborative_weights(frame)
    assert drawn["run_id"].tolist() == ["d", "b", "c", "a"]
    assert labels(picture.axes[0])[0] == "synthetic, reference, common"


def test_the_oracle_keeps_the_named_variants_of_the_method_on_sentiment():
    shared = "audio=timing"
    frame = pd.DataFrame(
        [
            {"run_id": f"{method}{dataset}{variant}", "method": method, "variant": variant, "dataset": dataset,
             "seed": 1, "metric": metric, "value": 0.5, "oracle": 0.4, "gap": 0.1}
            for method, dataset, variant in (
                (OWN, "mosi", shared), (OWN, "mosi", f"{shared}; decoupling=reference"),
                (OWN, "mosi", f"{shared}; no_rl=True"), ("self_mm", "mosi", shared),
                (OWN, "synthetic", ""), (OWN, "synthetic", "no_rl=True"),
            )
            for metric in ("mae", "corr", "acc7")
        ]
    )  # fmt: skip
    picture, drawn = catalogue.collaborative_oracle(frame)
    assert list(dict.fromkeys(drawn["group"])) == ["synthetic, corrected", "MOSI, reference", "MOSI, corrected"]
    assert set(drawn["metric"]) == {"mae", "corr"}
    assert len(picture.axes) == 2


def test_the_utterance_and_the_curves_are_drawn_by_variant():
    quantities = {"similarity": 2, "common": 2, "specific": 2, "gate": 1}
    found = pd.DataFrame(
        [
            {"variant": v, "modality": "text", "quantity": q, "row": i, "column": j, "value": 0.5, "word": "ab"[i]}
            for v in (None, "decoupling=reference") for q, columns in quantities.items()
            for i in range(2) for j in range(columns)
        ]
    )  # fmt: skip
    axes = catalogue.collaborative_utterance(found).axes
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["reference", "corrected"]
    assert labels(axes[0]) == ["a", "b"]
    curves = pd.DataFrame({"variant": [None], "seed": 1, "epoch": 1, "name": "raw/critic", "value": 0.5})
    assert catalogue.collaborative_curves(curves).legends[0].get_texts()[0].get_text() == "corrected"
