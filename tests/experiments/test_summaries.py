"""Summaries of run folders: every number against a loop over the same draws, in float64."""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from written_runs import ITEMS, SEEDS, labels_of, predictions_of, result_frame, result_rows, write_failure, write_run

from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.evaluation.bootstrap import interval_over_runs, score_resamples
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import collect, curate, failures
from mmsa_lib.experiments.summaries import curate_summary, protocol_summaries, read_summary, summarise
from mmsa_lib.experiments.tables import results_table

TASKS = [regression(), regression((-1, 1)), regression((1, 5)), emotions(["calm", "happy"])]


def row(table, **wanted):
    found = table
    for column, value in wanted.items():
        found = found[found[column] == value]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.metrics)
def test_every_metric_of_a_task_over_seeds_and_items(task, tmp_path):
    """Videos are resampled, runs by their seeds; the bootstrap itself is tested against loops."""
    for seed in SEEDS:
        write_run(tmp_path, "self_mm", seed, 0.7, task=task)
    table = summarise(tmp_path, resamples=25)
    labels, videos = labels_of(task), [f"v{i // 4}" for i in range(ITEMS)]
    runs = {seed: predictions_of(labels, seed, 0.7, task) for seed in SEEDS}
    keys = list(task_metrics(task, runs[1111], labels))
    assert set(table.loc[~table["constant"], "metric"]) == set(keys)
    scores = score_resamples(runs, labels, videos, keys, resamples=25, task=task)
    for key in keys:
        found, own = row(table, method="self_mm", metric=key), interval_over_runs(scores, key)
        assert (found["n"], found["undefined"], found["groups"]) == (3, 0, ITEMS // 4)
        by_seed = [task_metrics(task, guess, labels)[key] for guess in runs.values()]
        half = stats.t.ppf(0.975, 2) * stats.sem(by_seed)
        assert found["mean"] == pytest.approx(np.mean(by_seed))
        assert (found["low"], found["high"]) == pytest.approx((found["mean"] - half, found["mean"] + half))
        assert (found["item_low"], found["item_high"]) == pytest.approx((own.low, own.high))


def test_columns_name_runs_cells_and_constants(folder):
    table = summarise(folder, resamples=20, metric=["mae", "corr"])
    found = row(table, method="self_mm", metric="mae")
    assert found["runs"] == "self_mm-1111 self_mm-1112 self_mm-1113"
    assert (found["dataset"], found["fold"], found["protocol"], found["level"], found["split"]) == (
        "toy", "standard", "complete", "0.0", "test",
    )  # fmt: skip
    constant = row(table, method="constant_mean", metric="mae")
    assert (constant["runs"], constant["note"]) == ("", "a constant: no seeds")
    assert np.isnan(constant["item_low"])
    assert table["constant"].tolist() == [False] * 4 + [True] * 2


def test_each_cell_has_its_own_line(tmp_path):
    cells = (("complete", "0.0"), ("subsets", "text"), ("subsets", "text+audio"))
    for seed in SEEDS:
        write_run(tmp_path, "self_mm", seed, protocols=cells)
    table = summarise(tmp_path, resamples=20, metric="mae")
    own = table[~table["constant"]]
    assert list(zip(own["protocol"], own["level"], strict=True)) == list(cells)
    assert own["item_low"].notna().all()
    few = summarise(tmp_path, resamples=20, metric="mae", protocol="subsets", level="text")
    pd.testing.assert_frame_equal(few[~few["constant"]], own.iloc[[1]].reset_index(drop=True))


def test_an_undefined_correlation_is_counted_and_said(tmp_path):
    for seed in SEEDS:
        constant = np.full(ITEMS, 0.5) if seed == 1112 else None
        write_run(tmp_path, "self_mm", seed, prediction=constant)
    found = row(summarise(tmp_path, resamples=50, metric="corr"), method="self_mm")
    assert (found["n"], found["undefined"]) == (2, 1)
    weights = np.random.default_rng([0, 3]).multinomial(3, np.full(3, 1 / 3), size=50)
    assert found["item_undefined"] == (weights[:, 1] > 0).sum()
    assert found["note"] == "undefined in 1 of 3 runs"
    assert results_table(tmp_path, ["corr"]).lines[0].cells[-1].endswith("(n=2)")


def test_one_run_has_an_interval_over_items_alone(tmp_path):
    write_run(tmp_path, "self_mm", 1111)
    found = row(summarise(tmp_path, resamples=50, metric="mae"), method="self_mm")
    assert np.isnan(found["low"])
    assert found["item_low"] < found["mean"] < found["item_high"]
    assert found["note"] == "one run: no spread over seeds"


def test_items_are_resampled_singly_where_the_data_know_no_groups(tmp_path):
    for seed in SEEDS:
        write_run(tmp_path, "self_mm", seed, groups=False)
    assert row(summarise(tmp_path, resamples=20, metric="mae"), method="self_mm")["groups"] == ITEMS


def test_failed_runs_are_counted_unless_they_were_repeated(folder):
    write_failure(folder, "self_mm", 1114)
    write_failure(folder, "self_mm", 1111)  # finished with other code
    write_failure(folder, "hrlf", 1111)
    write_failure(folder, "hrlf", 1112)
    assert set(failures(folder)["run_id"]) == {"failed-self_mm-1114", "failed-hrlf-1111", "failed-hrlf-1112"}
    assert len(failures(folder, superseded=True)) == 4
    table = summarise(folder, items=False, metric="mae")
    assert row(table, method="self_mm")["failed"] == 1
    never = row(table, method="hrlf")
    assert (never["n"], never["failed"], never["note"]) == (0, 2, "2 failed")
    printed = {r.cells[0]: r.cells[1] for r in results_table(folder, ["mae"]).lines}
    assert printed == {"hrlf": "0, 2 failed", "self_mm": "3, 1 failed", "text_only": "3", "constant_mean": ""}
    chosen = results_table(folder, ["mae"], methods=["self_mm"], intervals="items", resamples=20)
    assert [r.cells[:2] for r in chosen.lines] == [("self_mm", "3, 1 failed"), ("constant_mean", "")]
    assert [r.cells[1] for r in results_table(table).lines][:2] == ["0, 2 failed", "3, 1 failed"]


def test_a_failure_with_a_damaged_configuration_is_still_told(folder):
    name = write_failure(folder, "self_mm", 1114)
    (folder / name / files.CONFIG).write_text("{")
    found = failures(folder).iloc[0]
    assert (found["method"], found["message"]) == ("unknown", "it went wrong")
    assert ("unknown", "0, 1 failed") in [r.cells[:2] for r in results_table(folder, ["mae"]).lines]


def test_only_failures_is_an_error_that_says_so(tmp_path):
    write_failure(tmp_path, "self_mm", 1)
    with pytest.raises(DataError, match=r"no finished run in .* \(1 failed, see"):
        summarise(tmp_path)


def test_the_curated_file_is_always_the_same_and_reads_back(folder, tmp_path):
    written = curate_summary(folder, tmp_path / "a.csv", resamples=30)
    curate_summary(collect(folder).sample(frac=1, random_state=1), tmp_path / "b.csv", runs=folder, resamples=30)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    pd.testing.assert_frame_equal(read_summary(tmp_path / "a.csv"), written, check_dtype=False)
    from_file = results_table(tmp_path / "a.csv", intervals="items")
    assert repr(from_file) == repr(results_table(written, intervals="items"))
    assert from_file.lines[0].cells[:3] == results_table(folder, intervals="items", resamples=30).lines[0].cells[:3]
    assert repr(results_table(tmp_path / "a.csv", ["mae"])) == repr(results_table(folder, ["mae"]))


def test_a_curated_table_has_no_item_intervals_unless_it_is_told_where_runs_are(folder, tmp_path):
    curate(folder, tmp_path / "rows.csv")
    bare = summarise(tmp_path / "rows.csv", metric="mae")
    assert bare["item_low"].isna().all()
    assert "no item interval: it needs the run folders" in bare["note"].iloc[0]
    with pytest.raises(DataError, match="runs="):
        summarise(tmp_path / "rows.csv", items=True)
    with pytest.raises(DataError, match="folder of the runs"):
        results_table(tmp_path / "rows.csv", intervals="items")
    with pytest.raises(DataError, match="no intervals over test items"):
        results_table(bare, intervals="items")
    known = summarise(tmp_path / "rows.csv", runs=folder, metric="mae", resamples=30)
    whole = summarise(folder, metric="mae", resamples=30)
    assert known["item_low"].to_numpy() == pytest.approx(whole["item_low"].to_numpy(), nan_ok=True)


def test_predictions_are_opened_only_for_item_intervals(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("HDF5 was opened")

    monkeypatch.setattr(h5py, "File", refuse)
    assert len(results_table(folder).lines) == 3
    assert len(summarise(folder, items=False, metric="mae")) == 3
    with pytest.raises(AssertionError):
        summarise(folder, metric="mae")


def test_a_run_is_a_source_from_inside_its_folder(folder, monkeypatch):
    run = next(folder.glob("*/DONE")).parent
    monkeypatch.chdir(run)
    assert summarise(".", items=True)["item_low"].notna().any()


def test_absent_predictions_are_said_or_refused(folder):
    (folder / "self_mm-1112" / files.PREDICTIONS).unlink()
    found = row(summarise(folder, resamples=20, metric="mae"), method="self_mm")
    assert found["note"] == "no item interval: no predictions of self_mm-1112"
    assert np.isnan(found["item_low"])
    with pytest.raises(DataError, match="self_mm-1112 has no predictions"):
        summarise(folder, items=True)


def test_predictions_of_something_else_are_refused(folder, tmp_path):
    frame = collect(folder)
    chosen = (frame["run_id"] == "self_mm-1112") & (frame["metric"] == "mae")
    frame.loc[chosen, "value"] += 0.01
    with pytest.raises(DataError, match=r"run self_mm-1112: mae of its predictions is .*, its table says"):
        summarise(frame, runs=folder, resamples=20)
    for seed in SEEDS:
        names = [f"x{i}" for i in range(ITEMS)] if seed == 1112 else None
        write_run(tmp_path / "other", "self_mm", seed, ids=names)
    with pytest.raises(
        DataError, match=r"runs self_mm-1111 and self_mm-1112 were tested on different items \(80 items"
    ):
        summarise(tmp_path / "other")


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="no run is left after choosing"):
        summarise(folder, method="nothing")
    with pytest.raises(UnknownNameError, match="did you mean method"):
        summarise(folder, metod="self_mm")
    with pytest.raises(ConfigError, match="coverage"):
        summarise(folder, coverage=95)
    frame = collect(folder)
    with pytest.raises(DataError, match=r"several runs with seed 1111 \(later, self_mm-1111\)"):
        summarise(pd.concat([frame, frame[frame["run_id"] == "self_mm-1111"].assign(run_id="later")]))
    (tmp_path / "x.csv").write_text("mean,metric,runs\n1,mae,a\n")
    with pytest.raises(DataError, match="no summary of results: column 'method' is missing"):
        read_summary(tmp_path / "x.csv")
    with pytest.raises(DataError, match="can't be read"):
        read_summary(tmp_path / "absent.csv")


class TestProtocols:
    """One number per protocol, on made-up curves whose areas and means are known."""

    RATES = tuple(step / 10 for step in range(11))
    SUBSETS = ("text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision")
    MODALITY_RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.667)

    def rows(self, seeds=(1, 2, 3), **options):
        def cell(protocol, level, values):
            return result_rows("hrlf", values, seeds=seeds, protocol=protocol, level=level, metric="acc2", **options)

        own = np.array(seeds) / 100
        parts = [cell("complete", "0.0", 0.8 + own)]
        parts += [cell("frames", rate, 0.8 + own - 0.35 * rate**2) for rate in self.RATES]
        parts += [cell("subsets", name, 0.5 + 0.05 * i + own) for i, name in enumerate(self.SUBSETS)]
        parts += [cell("rate", rate, 0.9 - rate + own) for rate in self.MODALITY_RATES]
        constants = {"constant_majority": 0.55, "oracle_test_majority": 0.6}
        same = {name: options[name] for name in ("dataset", "split") if name in options}
        parts += [result_rows(n, [v], metric="acc2", constant=True, **same) for n, v in constants.items()]
        return result_frame(*parts)

    def value(self, found, protocol, name, method="hrlf", seed=1):
        rows = found[(found["protocol"] == protocol) & (found["level"] == name) & (found["method"] == method)]
        return rows[rows["seed"] == seed]["value"].item() if seed else rows["value"].item()

    def test_numbers_of_one_run_by_hand(self):
        found = protocol_summaries(self.rows())
        heights = [0.81 - 0.35 * r**2 for r in self.RATES[:10]]
        area = sum((a + b) / 2 * 0.1 for a, b in itertools.pairwise(heights))
        assert self.value(found, "frames", "auilc") == pytest.approx(area)
        assert self.value(found, "frames", "auilc_normalised") == pytest.approx(area / 0.9)
        assert self.value(found, "subsets", "average") == pytest.approx(np.mean([0.51 + 0.05 * i for i in range(6)]))
        assert self.value(found, "subsets", "complete") == pytest.approx(0.51 + 0.3)
        assert self.value(found, "rate", "mean") == pytest.approx(0.91 - np.mean(self.MODALITY_RATES))
        published = protocol_summaries(self.rows(), upto=1.0)
        assert self.value(published, "frames", "auilc") == pytest.approx(0.68275 + 0.01)

    def test_constants_score_the_same_under_every_mask(self):
        found = protocol_summaries(self.rows())
        assert found.loc[found["method"] == "constant_majority", "seed"].isna().all()
        for protocol, name in (("frames", "auilc_normalised"), ("subsets", "average"), ("rate", "mean")):
            assert self.value(found, protocol, name, "constant_majority", None) == pytest.approx(0.55)
        assert self.value(found, "frames", "auilc", "constant_majority", None) == pytest.approx(0.55 * 0.9)

    def test_mean_and_interval_over_seeds(self):
        table = summarise(protocol_summaries(self.rows()), items=False, protocol="rate")
        own = row(table, method="hrlf")
        half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
        assert own["mean"] == pytest.approx(0.92 - np.mean(self.MODALITY_RATES))
        assert own["high"] - own["mean"] == pytest.approx(half)
        constant = row(table, method="constant_majority")
        assert constant["n"] == 1
        assert np.isnan(constant["low"])

    def test_configurations_data_sets_and_validation_rows_are_kept_apart(self):
        one = self.rows()
        other = [self.rows(dataset="other"), self.rows(changes={"missing": "stochastic"}), self.rows(split="valid")]
        found = protocol_summaries(pd.concat([one, *other]))
        assert len(found[found["seed"].notna()]) == 3 * protocol_summaries(one)["seed"].notna().sum()
        assert set(protocol_summaries(one, ["rate"])["protocol"]) == {"rate"}

    def test_an_undefined_level_makes_the_number_undefined(self):
        broken = self.rows()
        broken.loc[(broken["level"] == "vision") & (broken["seed"] == 2), "value"] = np.nan
        found = protocol_summaries(broken)
        assert np.isnan(self.value(found, "subsets", "average", seed=2))
        assert self.value(found, "subsets", "complete", seed=2) == pytest.approx(0.82)
        assert row(summarise(found, items=False, level="average"), method="hrlf")["undefined"] == 1

    def test_missing_levels_and_mixed_runs_are_refused(self):
        whole = self.rows()
        lacking = whole[~((whole["protocol"] == "frames") & (whole["level"] == 0.3) & (whole["seed"] == 2))]
        with pytest.raises(DataError, match=r"hrlf, seed 2, toy has no result under protocol frames at 0\.3"):
            protocol_summaries(lacking)
        with pytest.raises(DataError, match="several results under protocol"):
            protocol_summaries(pd.concat([whole, whole]))
        with pytest.raises(DataError, match="no test results under protocol 'burst'"):
            protocol_summaries(whole, ["burst"])
