"""The benchmark's tables hold the means of their cells, constants in every column, failed runs, and printed numbers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from companion.missing_tables import (
    PAPER_ORDER,
    benchmark_table,
    printed_metrics,
    printed_subsets,
    subset_table,
)
from mmsa_lib.errors import DataError

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "published" / "published_results.csv"
SUBSETS = ["text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"]
RATES = [str(step / 10) for step in range(11)]
SHARED = "audio=audio73; "


def cells(method, variant, height, subsets=SUBSETS, metric="f1_neg_pos"):
    """Two seeds; frames fall by .02 a step, subsets rise by .05, rates are level."""
    levels = [("complete", "0.0", height)]
    levels += [("frames", rate, height - 0.02 * i) for i, rate in enumerate(RATES)]
    levels += [("subsets", name, height - 0.3 + 0.05 * i) for i, name in enumerate(subsets)]
    levels += [("rate", rate, height - 0.1) for rate in ("0.2", "0.4")]
    return [
        {"run_id": f"{method}{variant}{seed}", "method": method, "variant": variant, "dataset": "mosi",
         "fold": "standard", "seed": seed, "protocol": protocol, "level": level, "split": "test", "metric": metric,
         "value": value + 0.01 * seed}
        for seed in (1, 3) for protocol, level, value in levels
    ]  # fmt: skip


def frame(subsets=SUBSETS):
    constant = {**cells("constant_mean", "", 0.4)[0], "run_id": "", "seed": None, "value": 0.42}
    rows = [
        *cells("early_fusion", SHARED + "missing=stochastic", 0.8, subsets),
        *cells("early_fusion", SHARED[:-2], 0.9, subsets), *cells("hrlf", SHARED + "lambda_frf=0.1", 0.7, subsets),
        constant, {**constant, "method": "oracle_test_majority"},
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"seed": "Int64"})


def by_label(table):
    return {row.label: (row.seeds, *row.cells) for row in table.rows}


def test_each_protocol_in_one_number():
    table = benchmark_table(frame(), "f1_neg_pos")
    assert table.header[2:] == ("AUILC % ↑", "AUILC / range % ↑", "Avg. % ↑", "complete % ↑", "mean over MR % ↑")
    mean = 0.82  # .80 and the mean of the seeds' .01 and .03
    row = table.frame.query("variant == 'missing=stochastic'").set_index("metric")["mean"]
    assert row["AUILC / range"] == pytest.approx(mean - 0.09)  # a line that falls by .18 over 0 … .9
    assert row["AUILC"] == pytest.approx(0.9 * (mean - 0.09))
    assert row["Avg."] == pytest.approx(mean - 0.3 + 0.125)
    assert row["complete"] == pytest.approx(mean)
    assert row["mean over MR"] == pytest.approx(mean - 0.1)
    # Two seeds .02 apart: half of the interval is t(1, .975) = 12.706 times .01.
    assert by_label(table)["early_fusion"][:3] == ("2", "74.7 ± 11.4", "83.0 ± 12.7")
    assert by_label(table)["constant_mean"] == ("", "37.8", "42.0", "42.0", "42.0", "42.0")


def test_rows_name_the_training_and_own_changes_plain_first():
    table = benchmark_table(frame(), "f1_neg_pos")
    assert [row.label for row in table.rows] == [
        "early_fusion", "early_fusion (missing=stochastic)", "hrlf (lambda_frf=0.1)", "constant_mean",
    ]  # fmt: skip
    assert table.title.startswith("mosi, fold standard, test samples, audio=audio73, F1 (neg/pos)")


def test_the_layout_of_the_paper():
    table = subset_table(frame(), "f1_neg_pos")
    assert tuple(m.label for m in table.metrics) == PAPER_ORDER
    rows = {label: [cell.split()[0] for cell in cells[1:]] for label, cells in by_label(table).items()}
    assert rows["early_fusion"] == ["62.0", "67.0", "72.0", "77.0", "82.0", "87.0", "74.5", "92.0"]
    assert rows["constant_mean"] == ["42.0"] * 8


def test_two_modalities_have_fewer_columns():
    table = subset_table(frame(["text", "audio", "text+audio"]), "f1_neg_pos")
    assert [m.label for m in table.metrics] == ["{l}", "{a}", "Avg.", "{l,a}"]
    assert [cell.split()[0] for cell in by_label(table)["early_fusion"][1:]] == ["62.0", "67.0", "64.5", "72.0"]


def test_failed_runs_are_counted_beside_the_finished_ones():
    failed = pd.DataFrame(
        {"method": ["hrlf", "self_mm", "self_mm"], "variant": [SHARED + "lambda_frf=0.1", SHARED[:-2], SHARED[:-2]],
         "dataset": "mosi", "fold": "standard", "seed": [5, 1, 3]}
    )  # fmt: skip
    rows = by_label(subset_table(frame(), "f1_neg_pos", failed))
    assert rows["hrlf (lambda_frf=0.1)"][0] == "2, 1 failed"
    assert rows["self_mm"] == ("0, 2 failed", *["–"] * 8)
    assert rows["early_fusion"][0] == "2"


def test_printed_numbers_stand_apart_and_are_those_of_the_paper():
    published = pd.read_csv(PUBLISHED)
    table = printed_subsets(published, "HRLF Table 1", "mosi", {"f1": "F1"})
    assert table.header == ("method", *PAPER_ORDER)
    assert table.rows[-1] == ("hrlf", "83.36", "69.47", "64.59", "83.82", "83.56", "75.62", "76.74", "84.15")
    assert "never compared" in table.title
    assert "GloVe 300" in table.title
    page = table._repr_html_()
    assert page.count("color:#767676") == 10
    assert "<small><i>69.47</i></small>" in page
    assert "font-weight" not in page
    four = printed_subsets(published, "HRLF Table 2", "iemocap", {"f1_happy": "happy", "f1_sad": "sad"})
    assert four.rows[-1][1] == "84.9/83.7"
    assert repr(four).splitlines()[1].split() == ["method", *PAPER_ORDER]


def test_a_printed_table_of_metrics_has_a_dash_where_nothing_is_printed():
    published = pd.read_csv(PUBLISHED)
    table = printed_metrics(published, "EMT-DLFR Table 6", "mosi")
    source = published.query("quoted_from == 'EMT-DLFR Table 6' and dataset == 'mosi'")
    assert table.header == ("method", *source["metric"].unique())
    cells = {(row[0], m): text for row in table.rows for m, text in zip(table.header[1:], row[1:], strict=True)}
    for row in source.itertuples():
        assert float(cells[row.method, row.metric]) == row.value
    assert "auilc" in table.title
    few = source[~((source["method"] == source["method"].iloc[0]) & (source["metric"] == "mae"))]
    assert "–" in printed_metrics(few, "EMT-DLFR Table 6", "mosi").rows[0]
    with pytest.raises(DataError, match="several settings on mosi"):
        printed_metrics(published, "HRLF Table 1", "mosi")


def test_mistakes_are_named():
    with pytest.raises(DataError, match="no run has test results of 'acc7'"):
        benchmark_table(frame(), "acc7")
    two = pd.concat([frame(), frame().assign(dataset="mmmo")])
    with pytest.raises(DataError, match=r"several datasets \(mmmo, mosi\)"):
        subset_table(two, "f1_neg_pos")
    with pytest.raises(DataError, match="no published value on mosi is quoted from 'Table 9'"):
        printed_subsets(pd.read_csv(PUBLISHED), "Table 9", "mosi", {"f1": "F1"})
    with pytest.raises(DataError, match="--protocols subsets"):
        subset_table(frame().query("protocol != 'subsets'"), "f1_neg_pos")
