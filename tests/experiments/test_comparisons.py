"""Paired comparisons: against SciPy, against loops over the same draws, and what is said of too few pairs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from written_runs import ITEMS, SEEDS, labels_of, predictions_of, write_failure, write_run
from written_runs import result_frame as table
from written_runs import result_rows as rows

from mmsa_lib.data.task import regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.evaluation.bootstrap import interval_over_runs, score_resamples
from mmsa_lib.evaluation.statistics import holm
from mmsa_lib.experiments.results import collect, curate
from mmsa_lib.experiments.summaries import compare, protocol_summaries, read_comparison, write_numbers
from mmsa_lib.experiments.tables import comparison_table

SIX = tuple(range(1, 7))


BASE = np.array([0.90, 0.99, 0.85, 1.05, 0.94, 0.97])
GOOD = BASE - 0.05 + np.array([0, 0.01, -0.01, 0.002, 0.006, -0.004])
NOISE = BASE[::-1]


@pytest.fixture
def frame():
    return table(
        rows("ref", BASE), rows("good", GOOD), rows("noise", NOISE), rows("bad", BASE + (BASE - GOOD) * 2),
        rows("constant_mean", [1.5], constant=True),
    )  # fmt: skip


def test_tests_over_seeds_agree_with_scipy(frame):
    found = compare(frame, "ref").set_index("method")
    assert list(found.index) == ["bad", "good", "noise"]
    p = []
    for name, values in (("bad", BASE + (BASE - GOOD) * 2), ("good", GOOD), ("noise", NOISE)):
        test = stats.ttest_rel(values, BASE)
        own = found.loc[name]
        assert own["p"] == pytest.approx(test.pvalue)
        assert (own["low"], own["high"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert own["difference"] == pytest.approx((values - BASE).mean())
        assert (own["mean"], own["reference"]) == pytest.approx((values.mean(), BASE.mean()))
        p.append(test.pvalue)
    assert found["p_holm"].tolist() == pytest.approx(holm(p).tolist())
    assert found.loc["good", "wilcoxon"] == pytest.approx(stats.wilcoxon(GOOD, BASE, method="exact").pvalue)
    assert found["verdict"].tolist() == ["worse", "better", "no difference shown"]
    assert found.loc["good", "note"] == "no item interval: it needs the run folders"


def test_all_metrics_count_as_comparisons(frame):
    both = pd.concat([frame, frame.assign(metric="corr"), frame.assign(metric="f1_macro")])
    found = compare(both, "ref")
    assert sorted(found["metric"].unique()) == ["corr", "mae"]
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"]).tolist())
    alone = compare(both, "ref", ["mae"])
    assert (alone["p_holm"] <= found.loc[found["metric"] == "mae", "p_holm"].to_numpy()).all()


def test_alpha_decides_about_verdicts_and_coverage(frame):
    strict = compare(frame, "ref", alpha=1e-6)
    assert set(strict["verdict"]) == {"no difference shown"}
    wide = compare(frame, "ref", alpha=0.5).set_index("method").loc["good"]
    assert (wide["low"], wide["high"]) == pytest.approx(tuple(stats.ttest_rel(GOOD, BASE).confidence_interval(0.5)))


@pytest.mark.parametrize(("n", "floor"), [(2, 0.5), (5, 0.0625)])
def test_the_floor_of_wilcoxon_is_said(n, floor):
    found = compare(table(rows("ref", BASE[:n]), rows("good", GOOD[:n])), "ref").iloc[0]
    assert found["wilcoxon_floor"] == floor == found["wilcoxon"]
    assert f"Wilcoxon can't fall below p={floor:g} with {n} pairs: it takes 6 that differ" in found["note"]


def test_six_pairs_are_enough_and_equal_ones_do_not_count():
    assert "Wilcoxon" not in compare(table(rows("ref", BASE), rows("good", GOOD)), "ref").iloc[0]["note"]
    tied = GOOD.copy()
    tied[0] = BASE[0]
    found = compare(table(rows("ref", BASE), rows("good", tied)), "ref").iloc[0]
    assert found["wilcoxon_floor"] == 0.0625


def test_too_few_seeds_are_said_in_words():
    one = compare(table(rows("ref", BASE), rows("a", [0.5])), "ref").iloc[0]
    assert one["verdict"] == "too few seeds (1, 2 needed)"
    assert "1 pair of seeds: a test over seeds needs 2" in one["note"]
    assert np.isnan(one["p"])
    none = compare(table(rows("ref", [0.9]), rows("a", [0.5], seeds=[7])), "ref").iloc[0]
    assert (none["n"], none["unpaired"]) == (0, 2)
    assert none["verdict"] == "too few seeds (0, 2 needed)"
    assert "no pair of seeds" in none["note"]
    assert "without a partner: seed 7 of the method; without a partner: seed 1 of the reference" in none["note"]


def test_unpaired_and_undefined_seeds_are_named():
    values = [0.5, np.nan, 0.6, 0.4]
    found = compare(table(rows("ref", [0.3, 0.3, 0.4]), rows("a", values)).assign(metric="corr"), "ref").iloc[0]
    assert (found["n"], found["unpaired"]) == (2, 2)
    assert "without a partner: seed 4 of the method; undefined: seed 2 of the method" in found["note"]


def test_a_constant_difference_is_said():
    found = compare(table(rows("ref", BASE), rows("a", BASE - 0.1)), "ref").iloc[0]
    assert "every pair differs by the same amount: p says nothing of seeds" in found["note"]


def test_a_constant_baseline_as_the_reference(frame):
    found = compare(frame, "constant_mean").set_index("method")
    assert list(found.index) == ["bad", "good", "noise", "ref"]
    assert found.loc["good", "p"] == pytest.approx(stats.ttest_1samp(GOOD, 1.5).pvalue)
    assert set(found["verdict"]) == {"better"}
    assert set(found["reference_runs"]) == {""}
    masked = frame.assign(protocol=frame["protocol"].where(frame["run_id"] == "", "frames"))
    assert compare(masked, "constant_mean", protocol="frames")["p"].tolist() == found["p"].tolist()


class TestReference:
    def many(self):
        data = {"audio": "x"}
        return table(
            rows("a", BASE, data=data), rows("a", GOOD, data=data, changes={"k": 1}),
            rows("a", NOISE, data=data, changes={"k": 1, "z": 2}, label="both"), rows("b", GOOD, data=data),
            rows("b", BASE, data=data, changes={"k": 1}),
        )  # fmt: skip

    def names(self, reference, **chosen):
        found = compare(self.many(), reference, **chosen)
        columns = ["method", "changes", "reference_method", "reference_changes"]
        return [tuple(row) for row in found[columns].itertuples(index=False)]

    def test_a_method_is_its_configuration_that_all_others_extend(self):
        assert {row[2:] for row in self.names("a")} == {("a", "{}")}
        assert len(self.names("a")) == 4

    def test_a_configuration_of_a_method_in_full_or_without_what_all_share(self):
        for text in ("a:k=1", "a:audio=x; k=1", "a:k=1; audio=x"):
            assert {row[2:] for row in self.names(text)} == {("a", '{"k": 1}')}
        assert {row[2:] for row in self.names("a:default")} == {("a", "{}")}
        for text in ("a:both", "a:k=1; z=2"):
            assert {row[2:] for row in self.names(text)} == {("a", '{"k": 1, "z": 2}')}

    def test_a_configuration_alone_is_found_in_each_method(self):
        assert self.names("k=1") == [
            ("a", "{}", "a", '{"k": 1}'), ("a", '{"k": 1, "z": 2}', "a", '{"k": 1}'), ("b", "{}", "b", '{"k": 1}'),
        ]  # fmt: skip
        assert {row[0] for row in self.names("both")} == {"a"}

    def test_what_is_compared_can_be_chosen_and_the_reference_stays(self):
        assert [row[:2] for row in self.names("a", method="b")] == [("b", "{}"), ("b", '{"k": 1}')]
        assert [row[:2] for row in self.names("a", label="both")] == [("a", '{"k": 1, "z": 2}')]

    def test_mistakes_are_answered_by_the_nearest(self, frame):
        with pytest.raises(UnknownNameError, match=r"configuration of a 'k=2'; did you mean k=1.*toy, fold standard"):
            compare(self.many(), "a:k=2")
        with pytest.raises(UnknownNameError, match="did you mean good"):
            compare(frame, "goood")
        with pytest.raises(UnknownNameError, match="did you mean constant_mean"):
            compare(frame, "constant_men")
        split = table(rows("a", BASE, changes={"k": 1}), rows("a", GOOD, changes={"z": 2}))
        with pytest.raises(ConfigError, match="none is the base of the others; say 'a:k=1' or 'a:z=2'"):
            compare(split, "a")


def test_comparisons_are_corrected_by_families(frame):
    both = pd.concat([frame, frame.assign(dataset="other", run_id=frame["run_id"].where(frame["run_id"] == "", "x"))])
    apart = compare(both, "ref", family=["dataset"])
    alone = compare(frame, "ref")
    assert apart["p_holm"].tolist() == alone["p_holm"].tolist() * 2
    assert compare(both, "ref")["p_holm"].tolist() == holm(apart["p"]).tolist()


def test_summaries_of_protocols_are_compared_like_results():
    levels = {"0.0": 0, "0.5": 0.2}
    frames = table(*(
        rows(name, values + shift, protocol="frames", level=level)
        for level, shift in levels.items() for name, values in (("ref", BASE), ("good", GOOD))
    ))  # fmt: skip
    found = compare(protocol_summaries(frames), "ref", protocol="frames", level="auilc_normalised").iloc[0]
    assert (found["level"], found["verdict"]) == ("auilc_normalised", "better")
    assert found["difference"] == pytest.approx((GOOD - BASE).mean())
    assert found["reference"] == pytest.approx(BASE.mean() + 0.1)


def test_item_intervals_are_paired_by_seed_and_item(folder):
    found = compare(folder, "text_only", ["mae", "corr"], resamples=25).set_index("metric")
    labels, videos, task = labels_of(regression()), [f"v{i // 4}" for i in range(ITEMS)], regression()
    own, base = (
        score_resamples({s: predictions_of(labels, s, noise, task) for s in SEEDS}, labels, videos, ["mae", "corr"],
                        resamples=25) for noise in (1.0, 1.3)
    )  # fmt: skip
    for key in ("mae", "corr"):
        interval = interval_over_runs(own, key, base)
        assert tuple(found.loc[key, ["item_low", "item_high"]]) == pytest.approx((interval.low, interval.high))
    assert found.loc["mae", "runs"] == "self_mm-1111 self_mm-1112 self_mm-1113"
    assert found.loc["mae", "reference_runs"] == "text_only-1111 text_only-1112 text_only-1113"


def test_the_item_interval_can_object(tmp_path):
    """Seeds agree, but two videos decide everything."""
    labels = labels_of(regression())
    for seed in SIX:
        shift = 0.001 * seed
        base = labels + 0.5 + shift
        other = base.copy()
        other[:4] -= 0.3  # better on one video
        other[4:8] += 0.2 + shift / 10  # worse on another
        write_run(tmp_path, "text_only", seed, prediction=base)
        write_run(tmp_path, "self_mm", seed, prediction=other)
    found = compare(tmp_path, "text_only", ["mae"], resamples=500).iloc[0]
    assert found["p_holm"] < 0.05
    assert found["item_low"] < 0 < found["item_high"]
    assert found["verdict"] == "no difference shown"
    assert "seeds differ, but the interval over test items holds 0" in found["note"]
    assert compare(tmp_path, "text_only", ["mae"], items=False).iloc[0]["verdict"] == "better"


def test_runs_on_different_items_are_named(folder):
    for seed in SEEDS:
        write_run(folder, "hrlf", seed, ids=[f"x{i}" for i in range(ITEMS)])
    with pytest.raises(DataError, match="runs hrlf-1111 and text_only-1111 were tested on different items"):
        compare(folder, "text_only", ["mae"], resamples=20)
    chosen = compare(folder, "text_only", ["mae"], resamples=20, method="self_mm")
    assert chosen["item_low"].notna().all()


def test_failed_runs_of_both_sides_are_told(folder):
    write_failure(folder, "self_mm", 7)
    write_failure(folder, "text_only", 8)
    write_failure(folder, "text_only", 9)
    note = compare(folder, "text_only", ["mae"], resamples=20).iloc[0]["note"]
    assert "1 failed run of the method" in note
    assert "2 failed runs of the reference" in note


def test_the_curated_file_is_always_the_same_and_reads_back(folder, tmp_path):
    written = write_numbers(compare(folder, "text_only", ["mae", "corr"], resamples=30), tmp_path / "a.csv")
    shuffled = collect(folder).sample(frac=1, random_state=2)
    again = compare(shuffled, "text_only", ["mae", "corr"], runs=folder, resamples=30)
    write_numbers(again, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    back = read_comparison(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(back, written, check_dtype=False)
    assert repr(comparison_table(back)) == repr(comparison_table(written))
    names = ["label", "changes", "data_options"]  # as version 0.1.0 wrote them
    old = written.drop(columns=[*names, *(f"reference_{name}" for name in names)]).assign(
        variant="x=1", reference_variant=""
    )
    old.to_csv(tmp_path / "old.csv", index=False)
    assert "self_mm (x=1)" in repr(comparison_table(read_comparison(tmp_path / "old.csv")))
    curate(folder, tmp_path / "rows.csv")
    with pytest.raises(DataError, match="no comparison of results"):
        read_comparison(tmp_path / "rows.csv")


def test_mistakes_are_named(frame):
    with pytest.raises(ConfigError, match="alpha"):
        compare(frame, "ref", alpha=5)
    with pytest.raises(UnknownNameError, match="unknown metric 'mea'"):
        compare(frame, "ref", ["mea"])
    with pytest.raises(UnknownNameError, match="unknown dataset 'toi'; did you mean toy"):
        compare(frame, "ref", dataset="toi")
    with pytest.raises(DataError, match="nothing to compare with 'ref'"):
        compare(frame[frame["method"] == "ref"], "ref")
    with pytest.raises(DataError, match="several runs with seed 1"):
        compare(pd.concat([frame, table(rows("good", [0.1])).assign(run_id="later")]), "ref")
    with pytest.raises(DataError, match="no comparison: column"):
        comparison_table(frame)


GOLDEN = """\
toy, fold standard, test samples: MAE ↓ against ref
method  n  mean   reference  difference [95 % over seeds]  p       p (Holm)  Wilcoxon p  verdict
------------------------------------------------------------------------------------------------------------
bad     6  1.049  0.950      +0.099 [+0.084, +0.114]       <0.001  <0.001    0.031       worse
good    6  0.901  0.950      -0.049 [-0.057, -0.042]       <0.001  <0.001    0.031       better
noise   6  0.950  0.950      +0.000 [-0.145, +0.145]       1.000   1.000     1.000       no difference shown
no item interval: it needs the run folders
better or worse: p (Holm) is below 0.05; else no difference shown"""


def test_the_text_of_a_comparison(frame):
    assert repr(comparison_table(compare(frame, "ref"))) == GOLDEN
    several = comparison_table(compare(TestReference().many(), "k=1", ["mae"]))
    assert "against" in several.blocks[0].header
    assert several.blocks[0].title.endswith("with audio=x: MAE ↓")
    assert several.to_csv().count("\n") == 4
    assert "\\toprule" in several.to_latex()
