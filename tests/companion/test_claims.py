"""Each verdict of the ledger from constructed results; every mistake in it is one clear line."""

import pandas as pd
import pytest
from written_runs import result_frame, result_rows

from companion import claims
from companion.claims import COLUMNS, NO_VERDICT, NOT_SUPPORTED, NOT_YET, SUPPORTED, UNTESTABLE
from mmsa_lib.errors import DataError
from mmsa_lib.experiments.summaries import COMPARISON_COLUMNS, NOT_EXERCISED, compare
from mmsa_lib.paths import project_root

ROOT = project_root()
FULL = [0.80, 0.82, 0.81, 0.79, 0.80]
WITHOUT = {
    "no_frf": [0.90, 0.93, 0.91, 0.88, 0.91],
    "no_hmi": [0.805, 0.826, 0.814, 0.796, 0.804],
    "no_hal": [0.70, 0.71, 0.72, 0.68, 0.70],
    "no_gaps": [0.81, 0.85, 0.815, 0.81, 0.815],
    "no_kl": [0.70, 0.93, 0.80, 0.85, 0.75],
}
TESTED = {"id": "a", "method": "hrlf", "claim": "it helps", "tested": "without - with", "data": "toy",
          "results": "rows.csv", "metric": "mae", "reference": "full", "direction": "higher", "smallest": "0.01",
          "sweep": "ablations_hrlf"}  # fmt: skip


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    parts = [
        result_rows("hrlf", values, changes={label: True}, label=label)
        for label, values in {"full": FULL, **WITHOUT}.items()
    ]
    parts += [result_rows("hrlf", [0.9] * 5, label="full", changes={"full": True}, protocol="subsets", level="average")]
    parts += [result_rows("early_fusion", [0.9, 0.91, 0.92, 0.9, 0.91])]
    parts += [result_rows("constant_median", [1.2], constant=True)]
    result_frame(*parts).to_csv(folder / "rows.csv", index=False)
    probes = [
        {"run_id": f"r{seed}", "label": "full", "dataset": "toy", "seed": seed, "part": part, "modality": m,
         "r2": base + 0.01 * seed + shift}
        for seed in range(5) for part, base in (("shared", 0.5), ("private", 0.1))
        for m, shift in (("text", 0.1 + 0.01 * seed), ("audio", -0.1))
    ]  # fmt: skip
    pd.DataFrame(probes).to_csv(folder / "probes.csv", index=False)
    return folder


def told(results, *rows):
    table = pd.DataFrame([{**dict.fromkeys(COLUMNS, ""), **TESTED, **row} for row in rows])
    table.to_csv(results.parent / "claims.csv", index=False)
    return claims.ledger(claims.read_claims(results.parent / "claims.csv"), results)


@pytest.mark.parametrize(
    ("row", "verdict", "detail"),
    [
        ({"label": "no_frf"}, SUPPORTED, ""),
        ({"label": "no_frf", "direction": "lower"}, NOT_SUPPORTED, "the opposite is shown"),
        ({"label": "no_hal"}, NOT_SUPPORTED, "the opposite is shown"),
        ({"label": "no_hmi"}, NOT_SUPPORTED, "in the claimed direction, but smaller than 0.01"),
        ({"label": "no_kl"}, NOT_SUPPORTED, "no difference shown; an effect of 0.01 is not excluded"),
        ({"label": "no_kl", "smallest": "0.3"}, NOT_SUPPORTED, "no difference shown; an effect of 0.3 is excluded"),
        ({"label": "full", "reference": "early_fusion", "direction": "lower"}, SUPPORTED, ""),
        ({"label": "full", "reference": "constant_median", "direction": "lower", "smallest": "0.3"}, SUPPORTED, ""),
        ({"label": "full", "reference": "0.5", "direction": "lower"}, NOT_SUPPORTED, "the opposite is shown"),
        ({"label": "no_frf", "protocol": "subsets", "where": "level=average"}, NOT_YET, "ablations_hrlf"),
        ({"label": "full", "results": "probes.csv", "metric": "r2", "where": "part=shared", "reference": "part=private",
          "smallest": "0.2"}, SUPPORTED, ""),
        ({"label": "full", "results": "probes.csv", "metric": "r2", "where": "part=private", "reference": "0"},
         SUPPORTED, ""),
        ({"label": "no_teacher"}, NOT_YET, "python -m companion run runs --only ablations_hrlf"),
        ({"label": "no_frf", "data": "other"}, NOT_YET, "ablations_hrlf"),
        ({"label": "no_frf", "results": "later.csv"}, NOT_YET, "ablations_hrlf"),
        ({"results": "", "reason": "no number is at hand"}, UNTESTABLE, "because no number is at hand"),
    ],
)  # fmt: skip
def test_verdicts(results, row, verdict, detail):
    found = told(results, row).iloc[0]
    assert found["verdict"] == verdict
    assert detail in found["detail"]
    assert bool(detail) == bool(found["detail"])


def test_numbers_are_those_of_compare_and_corrected_within_a_paper(results):
    found = told(results, {"label": "no_frf"}, {"id": "b", "label": "no_hmi"}).set_index("id")
    whole = compare(
        pd.read_csv(results / "rows.csv", dtype={"level": str}), "hrlf:full", ["mae"], method="hrlf", items=False
    )
    whole = whole.set_index("label").loc["no_frf"]
    for name in ("difference", "low", "high", "n"):
        assert found.loc["a", name] == pytest.approx(whole[name])
    # p is .02 alone, and .08 as the smallest of four
    small = {"label": "no_gaps", "smallest": "0.001"}
    others = [{"id": f"c{k}", "label": "no_kl"} for k in range(3)]
    assert told(results, small)["verdict"].tolist() == [SUPPORTED]
    assert told(results, small, *others)["verdict"].iloc[0] == NOT_SUPPORTED
    others = [{**row, "method": "self_mm", "label": "hrlf:no_kl", "reference": "hrlf:full"} for row in others]
    assert told(results, small, *others)["verdict"].iloc[0] == SUPPORTED  # of another paper


@pytest.mark.parametrize(
    ("own", "verdict", "shown"),
    [
        ({"verdict": "worse"}, SUPPORTED, (0.02, 0.2, True)),
        ({"verdict": "no difference shown", "item_low": -0.1}, NOT_SUPPORTED, (-0.1, 0.2, True)),
        ({"verdict": NOT_EXERCISED}, NOT_EXERCISED, (0.02, 0.2, True)),
        ({"verdict": "worse", "item_low": float("nan"), "item_high": float("nan")}, SUPPORTED, (0.05, 0.15, False)),
        ({"verdict": "too few seeds (1, 2 needed)", "n": 1}, NOT_YET, (0.02, 0.2, True)),
        ({"verdict": "exploratory"}, NO_VERDICT, (0.02, 0.2, True)),
    ],
)
def test_a_table_of_comparisons_keeps_its_verdict(results, own, verdict, shown):
    row = {**dict.fromkeys(COMPARISON_COLUMNS, ""), "method": "hrlf", "label": "no_frf", "reference_method": "hrlf",
           "reference_label": "full", "dataset": "toy", "metric": "mae", "protocol": "complete", "split": "test",
           "n": 5, "difference": 0.1, "low": 0.05, "high": 0.15, "item_low": 0.02, "item_high": 0.2, **own}  # fmt: skip
    pd.DataFrame([row]).to_csv(results / "comparison.csv", index=False)
    found = told(results, {"label": "no_frf", "results": "comparison.csv"}).iloc[0]
    assert found["verdict"] == verdict
    assert (found["low"], found["high"], bool(found["items"])) == shown


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"label": "no_frv"},
            "a: unknown label 'no_frv'; did you mean no_frf?.*neither in rows.csv nor in ablations_hrlf",
        ),
        ({"label": "no_kl", "reference": "all"}, "unknown label 'all'"),
        ({"label": "no_hal", "data": "other", "sweep": "ablation"}, "a: there is no sweep ablation.yaml"),
        ({"label": "full", "results": "probes.csv", "metric": "r3", "reference": "0"}, "unknown column 'r3'"),
        (
            {"label": "full", "results": "probes.csv", "metric": "r2", "where": "parts=a", "reference": "0"},
            "column 'parts'",
        ),
        ({"direction": "up"}, "direction is lower or higher"),
        ({"smallest": "a bit"}, "smallest is a number"),
        ({"data": ""}, "a: give data, or a reason"),
        ({"method": "hrlv"}, "unknown method 'hrlv'"),
    ],
)
def test_mistakes_are_one_line(results, row, reason):
    with pytest.raises(DataError, match=reason) as caught:
        told(results, row)
    assert "\n" not in str(caught.value)


def test_a_ledger_that_is_missing_or_says_a_thing_twice_is_refused(results):
    with pytest.raises(DataError, match=r"claims\.csv is missing"):
        claims.page(results)
    with pytest.raises(DataError, match="a occurs twice"):
        told(results, {"label": "no_frf"}, {"label": "no_hal"})
    pd.DataFrame([{"id": "a"}]).to_csv(results.parent / "claims.csv", index=False)
    with pytest.raises(DataError, match="no column method"):
        claims.page(results)


def test_the_committed_ledger_covers_each_paper_and_can_be_read_in_short():
    table = claims.read_claims(ROOT / "data" / "claims.csv")
    assert table.groupby("method").size().min() >= 5
    assert set(table["method"]) == {"contrastive_mmcl", "collaborative_mmcl", "modal_alignment", "hrlf"}
    lines = claims.claims_table(claims.ledger(table, ROOT / "data" / "results")).splitlines()
    assert len(lines) == len(table) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_a_notebook_shows_the_claims_of_its_paper(monkeypatch):
    monkeypatch.delenv("MMSA_LIB_TABLES", raising=False)
    table = claims.read_claims(ROOT / "data" / "claims.csv")
    shown = claims.told("hrlf").data
    assert shown.count("\n") == 1 + (table["method"] == "hrlf").sum()
    assert all(line in (ROOT / claims.PAGE).read_text() for line in shown.splitlines())
    monkeypatch.setenv("MMSA_LIB_TABLES", str(ROOT / "data"))
    monkeypatch.setattr(claims, "project_root", lambda: None)  # the library and its tables, without a checkout
    assert claims.told("hrlf").data == shown
    assert ["missing" in line for line in claims.told("hrlf", "missing").data.splitlines()[2:]] == [True] * 3
