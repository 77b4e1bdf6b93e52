"""Constants against published cells: golden values of the spec, scikit-learn, and the committed table itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score as sklearn_f1

from companion.missing import IEMOCAP_COUNTS, against_constants, always_one_sign, never_this_emotion
from mmsa_lib.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "data" / "published" / "published_results.csv"
SPLITS = ROOT / "data" / "published" / "dataset_summary" / "splits.csv"


def test_never_this_emotion_has_the_golden_values():
    found = (100 * never_this_emotion()).round(2)
    assert found["weighted"].to_dict() == {"happy": 80.59, "sad": 65.44, "angry": 64.87, "neutral": 47.41}
    assert found["macro"].to_dict() == {"happy": 46.45, "sad": 43.14, "angry": 43.00, "neutral": 38.26}
    assert found["swapped"].to_dict() == {"happy": 92.90, "sad": 86.27, "angry": 86.00, "neutral": 76.51}
    assert (found["positive"] == 0).all()


@pytest.mark.parametrize("counts", [{"a": 3, "b": 5, "c": 4}, IEMOCAP_COUNTS])
def test_never_this_emotion_is_that_of_scikit_learn(counts):
    found, total = never_this_emotion(counts), sum(counts.values())
    for name, count in counts.items():
        truth = np.array([1] * count + [0] * (total - count))
        never = np.zeros(total, int)
        for average in ("weighted", "macro"):
            assert found.loc[name, average] == pytest.approx(sklearn_f1(truth, never, average=average))
        assert found.loc[name, "swapped"] == pytest.approx(sklearn_f1(never, truth, average="weighted"))


@pytest.mark.parametrize(
    ("dataset", "answer", "right", "swapped"),
    [("mosi", "always negative", 42.31, 73.24), ("mosei_text", "always positive", 48.51, 77.19)],
)
def test_one_sign_on_the_counts_of_the_real_test_splits(dataset, answer, right, swapped):
    splits = pd.read_csv(SPLITS).query("fold == 'standard' and split == 'test'").set_index("dataset")
    found = 100 * always_one_sign(*splits.loc[dataset, ["negative", "positive"]]).loc[answer]
    assert found["weighted"] == pytest.approx(right, abs=0.005)
    assert found["swapped"] == pytest.approx(swapped, abs=0.005)
    assert found["accuracy"] > 50


def test_printed_cells_are_counted_against_their_own_column():
    table = pd.DataFrame(
        {"method": "m", "setting": ["a", "b", "a", "a"], "metric": ["f1_x", "f1_x", "f1_y", "mae"],
         "value": [49.9, 50.0, 80.0, 1.0]}
    )  # fmt: skip
    found = against_constants(table, {"f1_x": 0.5, "f1_y": 0.9})
    assert found["below"].tolist() == [True, False, True]
    assert found["floor"].tolist() == [50, 50, 90]
    with pytest.raises(DataError, match="no published row"):
        against_constants(table, {"f1_z": 0.5})


def test_hrlf_happy_without_language_is_below_the_constant():
    rows = pd.read_csv(PUBLISHED).query("quoted_from == 'HRLF Table 2' and method == 'hrlf'")
    floors = {f"f1_{name}": row["weighted"] for name, row in never_this_emotion().iterrows()}
    found = against_constants(rows, floors).query("metric == 'f1_happy'").set_index("setting")
    assert found.index[found["below"]].tolist() == ["subset={a}", "subset={v}", "subset={a,v}", "subset_avg6"]
