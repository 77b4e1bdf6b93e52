"""Statistics over seeds, against SciPy."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.statistics import (
    compare_seeds,
    holm,
    signed_rank,
    signed_rank_floor,
    signed_rank_pairs,
    summarise_seeds,
    verdict,
)


def runs(**values):
    return pd.DataFrame(
        [
            {"method": method, "metric": "mae", "seed": 1111 + i, "value": v}
            for method, column in values.items()
            for i, v in enumerate(column)
        ]
    )


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


class TestVerdict:
    """Direction, Holm's p, and the interval over items, which can object."""

    @pytest.mark.parametrize(
        ("facts", "said"),
        [
            ({}, "better"),
            ({"metric": "corr"}, "worse"),
            ({"difference": 0.1}, "worse"),
            ({"p_holm": 0.05}, "no difference shown"),
            ({"p_holm": np.nan}, "no difference shown"),
            ({"item_low": -0.2, "item_high": -0.01}, "better"),
            ({"item_low": -0.2, "item_high": 0.01}, "no difference shown"),
            ({"item_low": np.nan, "item_high": np.nan}, "better"),
            ({"n": 1}, "too few seeds (1, 2 needed)"),
        ],
    )
    def test_of_one_comparison(self, facts, said):
        assert verdict({"metric": "mae", "n": 5, "difference": -0.1, "p_holm": 0.04, **facts}) == said

    def test_of_a_table_by_families(self):
        base = np.array([0.90, 0.99, 0.85, 1.05, 0.94])
        frame = runs(ref=base, good=base - 0.05 + [0, 0.01, -0.01, 0, 0.005], noise=base[::-1])
        both = pd.concat([frame.assign(data="a"), frame.assign(data="b")])
        whole = compare_seeds(both, "ref", by=["data", "metric"])
        assert whole["p_holm"].tolist() == holm(whole["p"]).tolist()
        apart = compare_seeds(both, "ref", by=["data", "metric"], family=["data"])
        assert apart["p_holm"].tolist() == [*holm(whole["p"][:2]), *holm(whole["p"][2:])]
        assert apart["verdict"].tolist() == ["better", "no difference shown"] * 2
        assert apart["mean"].tolist() == pytest.approx([base.mean() - 0.049, base.mean()] * 2)
        assert set(compare_seeds(both, "ref", by=["data", "metric"], alpha=1e-9)["verdict"]) == {"no difference shown"}

    def test_there_must_be_something_to_compare(self):
        with pytest.raises(DataError, match="nothing to compare with 'ref'"):
            compare_seeds(runs(ref=[1.0, 2.0]), "ref")


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
