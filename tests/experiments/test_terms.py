"""The table of a run's loss terms: computed by hand, written by runs, collected."""

import math

import pandas as pd
import pytest

from mmsa_lib.experiments import RunConfig, collect_terms, files, run
from mmsa_lib.experiments.terms import TERM_COLUMNS, term_table
from mmsa_lib.training.fit import HISTORY_COLUMNS

SMALL = {"samples": [24, 12, 12], "dims": [10, 9, 8], "length": 5, "speaker_size": 6}


def history(**names):
    """Rows of one phase ``train``: name to values of epochs 1, 2, …; ``None`` where there is no row."""
    rows = [
        ("train", epoch, "train", name, value)
        for name, values in names.items()
        for epoch, value in enumerate(values, start=1)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def test_means_over_the_epochs_up_to_the_best_one():
    rows = history(
        **{"loss/task": [2, 2, 2, 9], "raw/task": [2, 2, 2, 9], "share/task": [1, 0.8, 0.6, 0.1]},
        **{"gradient/task": [3, 1, None, 7], "gradient/late": [None, 0.5, None, 7]},
        **{"loss/late": [None, 0.5, 1.3, 9], "raw/late": [None, 1, 2, 9], "share/late": [None, 0.2, 0.4, 0.9]},
        **{"loss/critic": [-1, 0, 0, 1], "raw/critic": [0, 0, 0, 0], "loss/total": [9, 9, 9, 9]},
    )
    table = term_table(rows, [{"phase": "train", "best_epoch": 3}]).set_index("term")
    assert list(table.index) == ["task", "late", "critic"]
    assert table.loc["task", ["weight", "share", "gradient", "relative"]].tolist() == pytest.approx([1, 0.8, 2, 1])
    late = [1.8 / 3, 0.2, 0.25, 0.125]  # a warm-up: no such term in epoch 1
    assert table.loc["late", ["weight", "share", "gradient", "relative"]].tolist() == pytest.approx(late)
    assert table.loc["critic", "share"] == 0
    assert table.loc["critic", ["weight", "gradient", "relative"]].isna().all()


def test_each_phase_has_rows_of_its_own():
    rows = pd.concat([history(**{"loss/task": [1, 5]}).assign(phase=phase) for phase in ("teacher", "student")])
    table = term_table(rows, [{"phase": "teacher", "best_epoch": 1}, {"phase": "student", "best_epoch": 2}])
    assert table[["phase", "term"]].to_numpy().tolist() == [["teacher", "task"], ["student", "task"]]
    assert math.isnan(table["weight"].iloc[0])
    assert list(table.columns) == list(TERM_COLUMNS)


def test_runs_write_it_and_it_is_collected(tmp_path):
    config = {"lambda_frf": 0.5, "lambda_hmi": 0.01}
    settings = {"max_epochs": 2, "batch_size": 6}
    result = run(RunConfig(method="hrlf", config=config, data=SMALL, settings=settings), tmp_path, progress="none")
    terms = result.terms.set_index(["phase", "term"])
    assert terms.groupby("phase")["share"].sum().tolist() == pytest.approx([1, 1])
    assert terms.loc[("teacher", "translation"), "weight"] == pytest.approx(0.5)
    assert terms.loc[("student", "hmi"), "weight"] == pytest.approx(0.01)
    assert ("teacher", "hmi") not in terms.index
    found = collect_terms(tmp_path)
    pd.testing.assert_frame_equal(found[list(TERM_COLUMNS)], result.terms)
    assert set(found["run_id"]) == {result.run_id}
    assert set(found["method"]) == {"hrlf"}
    (result.folder / files.TERMS).write_text("phase\n")
    assert files.run_problem(result.folder)  # its manifest knows the file
