"""One batch: runs of different code are not compared unless asked, and what did nothing is said to be so."""

from __future__ import annotations

import pandas as pd
import pytest
from written_runs import SEEDS, result_frame, result_rows, write_run

from mmsa_lib.cli import main
from mmsa_lib.errors import DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.fingerprint import code_fingerprint, import_closure
from mmsa_lib.experiments.results import collect, collect_terms, curate, named, read_results
from mmsa_lib.experiments.runs import run
from mmsa_lib.experiments.summaries import compare, summarise
from mmsa_lib.experiments.tables import results_table
from mmsa_lib.methods import METHODS


def coded(method, values, method_code="", core_code="", **options):
    return [
        {**row, "method_code": method_code, "core_code": core_code} for row in result_rows(method, values, **options)
    ]


VALUES = [0.9, 0.8, 0.7]
SAME = coded("a", VALUES, "a1", "c1")
CASES = {
    "one core, each method its code": ([SAME, coded("b", VALUES, "b1", "c1")], ""),
    "two cores": ([SAME, coded("b", VALUES, "b1", "c2")], "what methods share is c1 in 3 runs, c2 in 3 runs"),
    "two codes of a method": (
        [SAME, coded("a", VALUES, "a2", "c1", changes={"x": 1})],
        "a is a1 in 3 runs, a2 in 3 runs; repeat the older runs, or compare all the same with --across-code",
    ),
    "two codes inside a configuration": (
        [SAME[:2], coded("a", [0.5], "a2", "c1", seeds=[3]), coded("b", VALUES, "b1", "c1")],
        "a is a1 in 2 runs, a2 in 1 runs",
    ),
    "unknown is one batch": ([coded("a", VALUES), coded("b", VALUES)], ""),
    "unknown beside known": ([SAME, coded("b", VALUES)], "what methods share is c1 in 3 runs, unknown in 3 runs"),
    "constants have no code": ([SAME, coded("constant_mean", [1.0], constant=True)], ""),
}


@pytest.mark.parametrize(("parts", "message"), CASES.values(), ids=CASES)
def test_only_runs_of_one_code_are_put_side_by_side(parts, message):
    frame = result_frame(*parts)
    ways = [lambda **options: summarise(frame, **options), lambda **options: results_table(frame, ["mae"], **options)]
    if len(set(frame["method"])) > 1:
        reference = frame["method"].iloc[-1]
        ways.append(lambda **options: compare(frame, reference, **options))
    for way in ways:
        if message:
            with pytest.raises(DataError, match=message) as caught:
                way()
            assert "\n" not in str(caught.value)
            assert "on toy" in str(caught.value)
            way(across_code=True)
        else:
            assert way() is not None


def test_data_sets_are_judged_apart():
    frame = result_frame(SAME, coded("a", VALUES, "a2", "c2", dataset="other"))
    assert len(summarise(frame)) == 2


def test_tables_without_codes_are_read_as_unknown(tmp_path):
    old = result_frame(result_rows("a", VALUES), result_rows("b", VALUES))
    files.write_table(tmp_path / "old.csv", old)
    rows = read_results(tmp_path / "old.csv")
    assert set(rows["method_code"]) == set(rows["core_code"]) == {""}
    assert len(compare(tmp_path / "old.csv", "b")) == 1
    both = pd.concat([rows, result_frame(coded("c", VALUES, "c9", "k"))], ignore_index=True)
    with pytest.raises(DataError, match="k in 3 runs, unknown in 6 runs"):
        compare(both, "b")


FULL = {"task": (0.5, 1.0), "hal": (0.3, 0.004), "kl": (0.004, 0.3), "critic": (0.005, None), "actor": (0.2, None)}
"""Term to its share of the loss and its gradient over the task's, of the full configuration."""

SWITCHES = {
    "no_hal": (("hal",), "hal is 30 % of the loss and 0.4 % of the task's gradient"),
    "no_kl": (("kl",), ""),
    "no_hmi": (("critic",), "critic is 0.5 % of the loss"),
    "no_frf": (("critic", "actor"), ""),
    "no_teacher": (("hal", "teacher"), ""),
    "frf_detach": ((), ""),
}
"""Switch to what it leaves out (terms, or a phase), and what is said where that was not exercised."""


def changed(switch):
    """The configuration that a switch makes of the full one, of which ``frf_detach`` is a part."""
    return {switch: switch != "frf_detach"} if switch else {}


def terms_without(*gone):
    rows = []
    for phase in [phase for phase in ("teacher", "student") if phase not in gone]:
        for term, (share, relative) in FULL.items():
            share = 0.0 if term in gone else share  # as a term that is watched with weight 0
            rows.append(
                {"phase": phase, "term": term, "weight": 1, "share": share, "gradient": 1, "relative": relative}
            )
    return pd.DataFrame(rows)


@pytest.fixture
def folder(tmp_path):
    """Runs of a full configuration and of some with a switch, all by one code."""
    folder = tmp_path / "runs"
    for seed in SEEDS:
        for switch, (gone, _) in {"": ((), ""), **SWITCHES}.items():
            target = folder / write_run(folder, "hrlf", seed, 1.0, config=changed(switch))
            files.write_table(target / files.TERMS, terms_without(*gone))
            files.write_json(target / files.ENVIRONMENT, {"code_fingerprint": "h" * 64, "core_code": "k" * 64})
    return folder


def test_a_term_that_did_nothing_is_not_exercised(folder, tmp_path, capsys):
    found = compare(folder, "hrlf", ["mae"])
    collect_terms(folder).to_csv(tmp_path / "terms.csv", index=False)
    pd.testing.assert_frame_equal(compare(folder, "hrlf", ["mae"], terms=tmp_path / "terms.csv"), found)
    found = found.set_index("changes")
    for switch, (_, said) in SWITCHES.items():
        row = found.loc[files.as_json(changed(switch))]
        assert row["verdict"] == ("not exercised" if said else "no difference shown"), switch
        assert said in row["note"]
        assert said or "of the loss" not in row["note"]
    assert set(compare(collect(folder), "hrlf", ["mae"])["verdict"]) == {"no difference shown"}  # no terms
    assert main(["results", "compare", str(folder), "--reference", "hrlf", "--metric", "mae"]) == 0
    assert "or not exercised: the terms left out pulled less than 1 % as hard as the task's" in capsys.readouterr().out


def test_a_difference_stays_one_whatever_the_terms_were(folder):
    frame = collect(folder)
    frame["value"] += (frame["changes"] == '{"no_hal": true}') * (0.1 + 0.001 * (frame["seed"] - 1111).astype(float))
    found = compare(frame, "hrlf", ["mae"], terms=collect_terms(folder), items=False).set_index("changes")
    assert found.loc['{"no_hal": true}', "verdict"] == "worse"
    assert found.loc['{"no_hmi": true}', "verdict"] == "not exercised"


def test_curated_tables_carry_the_codes(folder, tmp_path, capsys):
    rows = curate(folder, tmp_path / "a.csv", split="test")
    assert list(rows) == list(files.RESULT_COLUMNS)
    runs = rows[rows["run_id"] != ""]
    assert (set(runs["method_code"]), set(runs["core_code"])) == ({"h" * 12}, {"k" * 12})
    assert set(rows.loc[rows["run_id"] == "", "core_code"]) == {""}
    assert read_results(tmp_path / "a.csv").equals(rows)
    files.write_json(next(folder.iterdir()) / files.ENVIRONMENT, {"code_fingerprint": "g" * 64, "core_code": "k" * 64})
    assert main(["results", "table", str(folder), "--metric", "mae"]) == 2
    assert "hrlf is gggggggggggg in 1 runs, hhhhhhhhhhhh in 20 runs" in capsys.readouterr().err
    assert main(["results", "table", str(folder), "--metric", "mae", "--across-code"]) == 0


def test_a_label_names_one_configuration_on_each_data_set():
    rows = [("a", {"x": 1}, "toy"), ("a", {"x": 2}, "other"), ("b", {"x": 1}, "toy"), ("b", {"x": 2}, "toy")]
    parts = [result_rows(m, [0.5], changes=changes, dataset=data, label="tuned") for m, changes, data in rows]
    assert named(result_frame(*parts))["name"].tolist() == ["tuned", "tuned", "x=1", "x=2"]


def test_a_run_records_the_code_that_all_methods_share(small_config, tmp_path):
    shared = set(import_closure(["mmsa_lib.experiments.runs"]))
    assert {"mmsa_lib.training.fit", "mmsa_lib.methods.base", "mmsa_lib.evaluation.metrics"} <= shared
    assert not shared & {method.__module__ for method in METHODS.values()}
    for method in ("text_only", "early_fusion"):
        run(small_config(method=method), tmp_path, progress="none")
    rows = collect(tmp_path).query("run_id != ''")
    assert set(rows["core_code"]) == {code_fingerprint(["mmsa_lib.experiments.runs"])[:12]}
    assert rows.groupby("method")["method_code"].nunique().tolist() == [1, 1]
    assert len(compare(tmp_path, "text_only", ["mae"])) == 1
