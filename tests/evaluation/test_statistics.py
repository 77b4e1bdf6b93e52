"""Statistics over seeds and over items, against SciPy and against plain loops."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from mmsa_lib.data.task import classes, emotions, regression
from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.evaluation.statistics import (
    bootstrap_difference,
    bootstrap_items,
    compare_seeds,
    holm,
    signed_rank,
    signed_rank_floor,
    signed_rank_pairs,
    summarise_seeds,
)

TASKS = [
    regression(),
    regression((-1, 1)),
    regression((1, 5)),
    emotions(["a", "b"]),
    classes(["a", "b", "c"]),
    regression((0, 1), "plain"),
]


def runs(**values):
    return pd.DataFrame(
        [
            {"method": method, "metric": "mae", "seed": 1111 + i, "value": v}
            for method, column in values.items()
            for i, v in enumerate(column)
        ]
    )


def items(task, count=60, seed=0):
    generator = np.random.default_rng(seed)
    if task.kind == "emotions":
        labels = np.eye(2)[generator.integers(2, size=count)]
        return generator.normal(size=(count, 2, 2)), labels, [f"v{i // 5}" for i in range(count)]
    if task.kind == "classes":  # so few of the last class that some resamples lack it
        labels = np.where(np.arange(count) < 3, 2, generator.integers(2, size=count))
        return generator.normal(size=(count, 3)), labels, [f"v{i // 5}" for i in range(count)]
    labels = np.round(generator.uniform(*task.range, count) * 5) / 5
    labels[:6] = task.center
    guess = labels + generator.normal(0, task.bound / 2, count)
    return guess, labels, [f"v{i // 5}" for i in range(count)]


def test_summary_agrees_with_scipy():
    values = [0.91, 0.95, 0.93, 1.02, 0.90]
    found = summarise_seeds(runs(self_mm=values), ["method", "metric"]).iloc[0]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found["method"], found["metric"], found["n"], found["undefined"]) == ("self_mm", "mae", 5, 0)
    assert found[["mean", "sd", "low", "high"]].tolist() == pytest.approx(
        [np.mean(values), np.std(values, ddof=1), low, high]
    )


def test_level_and_column_names_are_free():
    frame = runs(a=[1.0, 2.0, 4.0]).rename(columns={"value": "score"})
    wide, narrow = (summarise_seeds(frame, "method", "score", level=c).iloc[0] for c in (0.99, 0.5))
    assert wide["high"] > narrow["high"] > narrow["mean"]


def test_one_run_has_no_spread_and_undefined_values_are_counted():
    one = summarise_seeds(runs(a=[1.5]), "method").iloc[0]
    assert one["mean"] == 1.5
    assert one[["sd", "low", "high"]].isna().all()
    holes = summarise_seeds(runs(a=[1.0, np.nan, 3.0], b=[np.nan] * 3), "method")
    assert holes["n"].tolist() == [2, 0]
    assert holes["undefined"].tolist() == [1, 3]
    assert holes["mean"][0] == 2
    assert np.isnan(holes["mean"][1])


def test_two_runs_have_a_spread():
    two = summarise_seeds(runs(a=[1.0, 3.0]), "method").iloc[0]
    assert two["sd"] == pytest.approx(2**0.5)
    assert two[["low", "high"]].tolist() == pytest.approx(list(stats.t.interval(0.95, 1, loc=2, scale=1)))
    pair = compare_seeds(runs(ref=[1.0, 2.0], a=[1.5, 2.2]), "ref").iloc[0]
    assert pair["p"] == pytest.approx(stats.ttest_rel([1.5, 2.2], [1.0, 2.0]).pvalue)
    assert pair["wilcoxon"] == 0.5


def test_groups_keep_their_order_and_one_without_a_name_is_kept():
    frame = pd.concat([runs(a=[1.0, 2.0], ref=[0.0, 0.5]).assign(metric=name) for name in ("mae", "acc", None)])
    for found in (summarise_seeds(frame.query("method == 'a'"), "metric"), compare_seeds(frame, "ref")):
        assert found["metric"].iloc[:2].tolist() == ["mae", "acc"]
        assert found["metric"].isna().tolist() == [False, False, True]
    kinds = frame.assign(metric=pd.Categorical(frame["metric"], categories=["acc", "mae", "never"]))
    assert len(summarise_seeds(kinds.query("method == 'a'"), "metric")) == 3
    assert len(compare_seeds(kinds, "ref")) == 3


def test_a_difference_without_spread_is_certain():
    found = compare_seeds(runs(ref=[1.0, 2.0, 3.0], a=[1.5, 2.5, 3.5], b=[2.0, 3.0, 4.0]), "ref")
    assert found["p"].tolist() == [0, 0]
    assert compare_seeds(runs(ref=[1.0, 2.0], same=[1.0, 2.0]), "ref")["p"].tolist() == [1]


def test_mixed_up_rows_are_refused():
    frame = pd.concat([runs(a=[1.0, 2.0]), runs(a=[3.0, 4.0]).assign(metric="corr")])
    with pytest.raises(DataError, match=r"method=a, seed=1111.*by"):
        summarise_seeds(frame, "method")
    assert len(summarise_seeds(frame, ["method", "metric"])) == 2
    with pytest.raises(DataError, match="no column protocol"):
        summarise_seeds(frame, ["method", "protocol"])
    with pytest.raises(DataError, match="no column"):
        summarise_seeds(frame, [])
    with pytest.raises(DataError, match="no column"):
        compare_seeds(frame, "a", by=())
    with pytest.raises(DataError, match="no column seed"):
        compare_seeds(frame.drop(columns="seed"), "a", by="metric")
    with pytest.raises(DataError, match="by"):
        compare_seeds(frame.assign(metric="mae"), "a")


def test_coverage_of_the_t_interval():
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"trial": np.repeat(np.arange(2000), 5), "value": generator.normal(3, 2, 10_000)})
    found = summarise_seeds(frame, "trial")
    assert ((found["low"] < 3) & (found["high"] > 3)).mean() == pytest.approx(0.95, abs=0.015)


def test_comparison_is_paired_and_corrected():
    base = np.array([0.90, 0.99, 0.85, 1.05, 0.94])
    frame = runs(ref=base, good=base - 0.05 + [0, 0.01, -0.01, 0, 0.005], noise=base[::-1], same=base)
    found = compare_seeds(frame, "ref").set_index("method")
    expected = stats.ttest_rel(frame.query("method == 'good'")["value"].to_numpy(), base)
    assert found.loc["good", "p"] == pytest.approx(expected.pvalue)
    assert found.loc["good", ["low", "high"]].tolist() == pytest.approx(list(expected.confidence_interval()))
    assert found.loc["good", "difference"] == pytest.approx(-0.049)
    assert found.loc["good", "p_holm"] == pytest.approx(3 * found.loc["good", "p"])
    assert found.loc["same", "p"] == 1
    assert found.loc["noise", "p_holm"] == 1
    # Unpaired, the same difference would drown in the spread over seeds.
    assert stats.ttest_ind(frame.query("method == 'good'")["value"], base).pvalue > 0.05


def test_runs_without_a_partner_are_counted():
    frame = pd.concat([runs(ref=[1.0, 2.0, 3.0]), runs(a=[0.5, 1.0, 2.0, 9.0])])
    found = compare_seeds(frame, "ref").iloc[0]
    assert (found["n"], found["unpaired"]) == (3, 1)
    assert found["difference"] == pytest.approx(-2.5 / 3)
    lonely = compare_seeds(runs(ref=[1.0], a=[2.0]), "ref").iloc[0]
    assert lonely["difference"] == 1
    assert np.isnan(lonely["p"])
    with pytest.raises(DataError, match="reference"):
        compare_seeds(frame, "missing")


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, np.nan]).tolist() == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert holm([0.5, 0.6]).tolist() == [1, 1]
    assert holm([]).tolist() == []


def assert_agrees_with_a_loop(task, guess, labels, groups):
    names = np.array(groups)
    units = np.unique(names)
    generator = np.random.default_rng(7)
    counts = generator.multinomial(len(units), np.full(len(units), 1 / len(units)), size=40)
    for key, whole in task_metrics(task, guess, labels).items():
        with np.errstate(invalid="raise"):
            found = bootstrap_items(guess, labels, groups, key, resamples=40, seed=7, task=task)
        assert found.estimate == pytest.approx(whole, nan_ok=True), key
        for draw, count in zip(found.draws, counts, strict=True):
            rows = np.concatenate([np.tile(np.flatnonzero(names == u), n) for u, n in zip(units, count, strict=True)])
            slow = task_metrics(task, guess[rows], labels[rows])[key]
            assert draw == pytest.approx(slow, nan_ok=True), key


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.metrics)
def test_every_metric_agrees_with_a_loop_over_resamples(task):
    assert_agrees_with_a_loop(task, *items(task))


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.metrics)
def test_every_metric_of_few_items_agrees_with_a_loop_over_resamples(task):
    """Most resamples lack a class, many hold one alone."""
    guess, labels, _ = items(task, 12)
    assert_agrees_with_a_loop(task, guess[[0, 1, 7, 9]], labels[[0, 1, 7, 9]], list("abcd"))


@pytest.mark.parametrize(("guess", "truth"), [([0, 1, 1, 0], [0, 1, 0, 0]), ([0, 1, 2, 1], [0, 1, 0, 1])])
def test_classes_that_occur_never_or_once_agree_with_a_loop_over_resamples(guess, truth):
    assert_agrees_with_a_loop(TASKS[4], np.eye(3)[guess], np.array(truth), list("abcd"))


def test_single_classes_of_three_agree_with_a_loop_over_resamples():
    assert_agrees_with_a_loop(TASKS[4], np.eye(3)[[0, 1, 2]], np.array([0, 1, 2]), list("abc"))


def test_a_tie_of_logits_means_no_in_resamples():
    labels = np.eye(2)[[0, 1, 0, 1]]
    guess = np.zeros((4, 2, 2))
    guess[0, 0, 1] = 1
    assert_agrees_with_a_loop(TASKS[3], guess, labels, list("abcd"))


def test_means_leave_out_emotions_that_a_resample_lacks():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 1]])
    guess = np.random.default_rng(0).normal(size=(4, 2, 2))
    assert_agrees_with_a_loop(TASKS[3], guess, labels, list("abcd"))


@pytest.mark.parametrize(("scale", "shift"), [(1e-7, 0), (1, 1e4)])
def test_the_correlation_of_any_scale_loses_no_digits(scale, shift):
    guess, labels, groups = items(regression())
    plain = bootstrap_items(guess, labels, groups, "corr", resamples=20).draws
    assert bootstrap_items(guess * scale + shift, labels, groups, "corr", resamples=20).draws == pytest.approx(
        plain, rel=1e-10
    )


def test_two_groups_are_enough():
    assert bootstrap_items([1.0, 2.0], [0.0, 0.0], None, "mae", resamples=1).groups == 2


def test_a_function_gives_the_same_as_the_key():
    guess, labels, groups = items(regression())
    by_key = bootstrap_items(guess, labels, groups, "mae", resamples=200)
    by_function = bootstrap_items(guess, labels, groups, lambda g, t: float(np.abs(g - t).mean()), resamples=200)
    assert np.allclose(by_key.draws, by_function.draws)


def test_interval_of_a_mean_agrees_with_theory():
    generator = np.random.default_rng(1)
    labels = np.zeros(400)
    guess = torch.tensor(np.abs(generator.normal(1, 0.3, 400)))
    found = bootstrap_items(guess, labels, None, "mae", resamples=4000)
    error = float(guess.std()) / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert found.groups == 400
    assert len(found.draws) == 4000
    assert bootstrap_items(guess, labels, None, "mae", resamples=4000, level=0.5).high < found.high


def test_dependent_items_widen_the_interval():
    generator = np.random.default_rng(2)
    video = np.repeat(np.arange(20), 10)
    guess = np.abs(1 + generator.normal(0, 0.5, 20)[video] + generator.normal(0, 0.1, 200))
    labels = np.zeros(200)
    by_item = bootstrap_items(guess, labels, None, "mae", resamples=2000)
    by_video = bootstrap_items(guess, labels, video.tolist(), "mae", resamples=2000)
    assert by_video.high - by_video.low > 2 * (by_item.high - by_item.low)
    assert by_video.groups == 20


def test_difference_is_paired():
    generator = np.random.default_rng(3)
    labels = generator.normal(size=200)
    error = generator.normal(size=200)
    first, second = labels + error * 0.9, labels + error
    found = bootstrap_difference(first, second, labels, None, "mae", resamples=2000)
    assert found.estimate == pytest.approx(-0.1 * np.abs(error).mean())
    assert found.high < 0
    single = bootstrap_items(first, labels, None, "mae", resamples=2000)
    assert found.high - found.low < 0.2 * (single.high - single.low)
    same = bootstrap_difference(first, first, labels, None, "corr", resamples=50)
    assert np.allclose(same.draws, 0)


def test_undefined_resamples_are_counted():
    labels, guess = np.array([1.0, 1.0, 1.0, -1.0]), np.array([0.5, 0.7, 0.2, -0.4])
    with np.errstate(invalid="raise"):
        found = bootstrap_items(guess, labels, list("aabc"), "corr", resamples=500)
    last = np.random.default_rng(0).multinomial(3, np.full(3, 1 / 3), size=500)[:, 2]
    assert np.isnan(found.draws).tolist() == ((last == 0) | (last == 3)).tolist()
    assert found.undefined == int(np.isnan(found.draws).sum()) > 0
    assert np.isfinite([found.low, found.high]).all()
    constant = bootstrap_items(np.ones(4), labels, list("aabc"), "corr", resamples=10)
    assert constant.undefined == 10
    assert np.isnan(constant.estimate)
    assert np.isnan(constant.low)


def test_reproducible():
    guess, labels, groups = items(regression())
    first, again = (bootstrap_items(guess, labels, groups, "corr", resamples=100, seed=1) for _ in range(2))
    other = bootstrap_items(guess, labels, groups, "corr", resamples=100, seed=2)
    assert np.array_equal(first.draws, again.draws)
    assert not np.array_equal(first.draws, other.draws)


def test_limits_of_resampling_and_its_defaults():
    guess, labels, groups = items(regression())
    for options in ({"level": 0.0}, {"level": 1.0}, {"resamples": 0}):
        with pytest.raises(ConfigError, match="level in"):
            bootstrap_items(guess, labels, groups, "mae", **options)
    assert len(bootstrap_items(guess, labels, groups, "mae", resamples=1).draws) == 1
    first, second = (
        bootstrap_items(guess, labels, groups, "mae"),
        bootstrap_difference(guess, labels, labels, groups, "mae"),
    )
    for found in (first, second):
        assert len(found.draws) == 10_000
        assert found.draws.tolist() == first.draws.tolist()
    assert (
        first.draws[:50].tolist() == bootstrap_items(guess, labels, groups, "mae", resamples=50, seed=0).draws.tolist()
    )


def test_bad_input_is_named():
    guess, labels, groups = items(regression())
    with pytest.raises(UnknownNameError, match="did you mean"):
        bootstrap_items(guess, labels, groups, "acc2_neg_po")
    with pytest.raises(UnknownNameError, match="did you mean f1_neg_pos"):
        bootstrap_items(guess, labels, groups, "f1_neg_po")
    with pytest.raises(UnknownNameError, match="metric"):
        bootstrap_items(*items(TASKS[3]), "c_f1", task=TASKS[3])
    with pytest.raises(DataError, match="59 groups for 60"):
        bootstrap_items(guess, labels, groups[1:], "mae")
    with pytest.raises(ConfigError, match="one group"):
        bootstrap_items(guess, labels, ["v"] * 60, "mae")
    with pytest.raises(ConfigError, match="level"):
        bootstrap_items(guess, labels, groups, "mae", level=95)
    with pytest.raises(DataError, match="not finite"):
        bootstrap_items(guess * np.nan, labels, groups, "mae")


class TestSignedRank:
    @staticmethod
    def by_signs(difference):
        """Every combination of signs of the sizes that are not 0."""
        values = np.array([d for d in difference if d != 0])
        ranks = stats.rankdata(np.abs(values))
        sums = [
            sum(r for r, up in zip(ranks, signs, strict=True) if up)
            for signs in itertools.product([0, 1], repeat=len(ranks))
        ]
        observed = ranks[values > 0].sum()
        return min(1, 2 * min(np.mean(np.array(sums) <= observed), np.mean(np.array(sums) >= observed)))

    @pytest.mark.parametrize("n", [2, 5, 9, 30])
    def test_agrees_with_scipy_without_ties(self, n):
        difference = np.random.default_rng(n).normal(0.3, 1, n)
        assert signed_rank(difference) == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue)

    @pytest.mark.parametrize(
        "difference",
        [
            [1, 1, -2],
            [1, 1, -2, -3],
            [1, 1, -1, 2, 0],
            [0.02, 0.02, 0.02, 0.02],
            [1, -1],
            [1, 2, -2, -3],
            [3, -3, 1, 1, -1, 5, 5, 0, 0],
        ],
    )
    def test_ties_and_zeros_agree_with_all_signs(self, difference):
        assert signed_rank(difference) == pytest.approx(self.by_signs(difference))

    def test_rounding_of_floats_breaks_no_tie(self):
        first, second = np.array([0.3, 0.2, 0.5]), np.array([0.1, 0.0, 0.7])
        assert len(set(np.abs(first - second))) > 1
        assert signed_rank(first - second) == pytest.approx(self.by_signs([0.2, 0.2, -0.2]))

    def test_what_differs_in_the_thirteenth_digit_is_equal(self):
        assert signed_rank([0.2 + 3e-13, -0.2, 0.1]) == self.by_signs([0.2, -0.2, 0.1]) == 1.0

    def test_the_floor_and_the_pairs_that_it_takes(self):
        for n in range(1, 9):
            assert signed_rank(np.arange(1, n + 1)) == signed_rank_floor(n)
        assert signed_rank_floor(5) == 0.0625
        assert signed_rank_floor(0) == 1
        assert signed_rank_pairs(1.0) == 1
        for alpha in (0.1, 0.05, 0.01, 0.0625):
            n = signed_rank_pairs(alpha)
            assert signed_rank_floor(n) <= alpha < signed_rank_floor(n - 1)

    def test_nothing_and_no_difference(self):
        assert np.isnan(signed_rank([]))
        assert signed_rank([0.0, 0.0]) == 1

    def test_a_comparison_has_it(self):
        found = compare_seeds(runs(ref=[1.0, 2.0, 3.0, 5.0, 9.0], a=[0.9, 1.8, 2.5, 4.0, 7.0]), "ref").iloc[0]
        assert found["wilcoxon"] == 0.0625
        assert np.isnan(compare_seeds(runs(ref=[1.0], a=[2.0]), "ref").iloc[0]["wilcoxon"])
