"""``mmsa-lib results``: formats, files, JSON, exit codes and one-line reasons."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from written_runs import SEEDS, write_failure, write_run

from mmsa_lib.cli import main

FEW = ["--resamples", "20"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    for seed in SEEDS:
        write_run(runs, "self_mm", seed, 1.0)
        write_run(runs, "text_only", seed, 1.3)
        write_run(runs, "text_only", seed, 1.6, config={"hidden": 7})
    write_failure(runs, "hrlf", 5, message="loss is\nnan")
    return str(runs)


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused by one line, with exit code 2 and nothing on stdout."""

    def run(*words):
        assert main(["results", *words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    return run


class TestTable:
    def test_text_with_failed_runs(self, folder, capsys):
        assert main(["results", "table", folder, "--metrics", "mae"]) == 0
        out, err = capsys.readouterr()
        lines = {line.split("  ")[0]: line.split()[1:] for line in out.splitlines()[3:]}
        assert lines["hrlf"] == ["0,", "1", "failed", "–"]
        assert lines["text_only (hidden=7)"][1] == "3"
        assert err.endswith("failed: failed-hrlf-5 (hrlf, seed 5): RunError: loss is nan\n")

    @pytest.mark.parametrize(
        ("name", "sign"),
        [
            ("csv", "method,label,changes,data_options,"),
            ("latex", "\\toprule"),
            ("html", "<b>"),
            ("markdown", "| --- |"),
            ("text", "----"),
        ],
    )
    def test_formats_on_stdout_and_in_files(self, name, sign, folder, tmp_path, capsys):
        words = ["results", "table", folder, "--metrics", "mae"]
        assert main([*words, "--format", name]) == 0
        printed = capsys.readouterr().out
        assert sign in printed
        suffix = {"csv": "csv", "latex": "tex", "html": "html", "markdown": "md", "text": "txt"}[name]
        target = tmp_path / f"deep/t.{suffix}"
        assert main([*words, "--out", str(target)]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert target.read_text(encoding="utf-8") == printed
        assert f"table written to {target}" in err

    def test_json_is_one_document_with_failures(self, folder, capsys):
        assert main(["results", "table", folder, "--json", "--intervals", "items", *FEW]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["failed"][0]["error"] == "RunError"
        rows = [r for r in report["rows"] if r["method"] == "self_mm" and r["metric"] == "mae"]
        assert rows[0]["item_low"] < rows[0]["mean"] < rows[0]["item_high"]
        assert rows[0]["runs"].split() == [f"self_mm-{seed}" for seed in SEEDS]
        assert "interval over seeds and test items" in report["title"]

    def test_intervals_over_items_from_a_table_need_the_runs(self, folder, tmp_path, capsys, refused):
        assert main(["results", "export", folder, str(tmp_path / "r.csv")]) == 0
        capsys.readouterr()
        words = ["table", str(tmp_path / "r.csv"), "--intervals", "items", *FEW]
        assert "--runs" in refused(*words)
        assert main(["results", *words, "--runs", folder]) == 0
        assert "over seeds and test items" in capsys.readouterr().out

    def test_published_numbers_in_json_and_text(self, capsys):
        source = Path(__file__).resolve().parents[2] / "data/results/mosi_standard.csv"
        assert main(["results", "table", str(source), "--metrics", "mae", "--published"]) == 0
        out = capsys.readouterr().out
        assert "not accessible to us" in out
        assert "HRLF Table 1" in out
        assert main(["results", "table", str(source), "--metrics", "mae", "--published", "--json"]) == 0
        published = json.loads(capsys.readouterr().out)["published"]
        assert ["contrastive_mmcl", "not accessible to us"] in published[-1]["rows"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    runs = tmp_path_factory.mktemp("swept")
    for seed in SEEDS:
        write_run(runs, "text_only", seed, 1.3)
        for hidden, dropout in ((16, 0.1), (128, 0.1), (9, 0.2)):
            write_run(runs, "text_only", seed, 1.0 + hidden / 100, config={"hidden": hidden, "dropout": dropout})
    return str(runs)


class TestColumnsOfSweptParameters:
    def test_each_has_a_column_in_order_of_its_value(self, swept, capsys):
        assert main(["results", "table", swept, "--metrics", "mae", "--by", "hidden", "dropout"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split()[:4] == ["method", "hidden", "dropout", "n"]
        assert [line.split()[1:4] for line in lines[3:7]] == [
            ["default", "default", "3"], ["9", "0.2", "3"], ["16", "0.1", "3"], ["128", "0.1", "3"]
        ]  # fmt: skip
        assert "hidden=" not in "".join(lines)

    def test_without_names_all_that_differ(self, swept, capsys):
        assert main(["results", "table", swept, "--metrics", "mae", "--format", "csv", "--by"]) == 0
        frame = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False, dtype=str)
        rows = frame[frame["method"] == "text_only"]
        assert sorted(zip(rows["dropout"], rows["hidden"], strict=True)) == [
            ("", ""), ("0.1", "128"), ("0.1", "16"), ("0.2", "9")
        ]  # fmt: skip

    def test_one_alone_leaves_the_others_in_brackets(self, swept, capsys):
        assert main(["results", "table", swept, "--metrics", "mae", "--format", "markdown", "--by", "hidden"]) == 0
        assert "| text\\_only (dropout=0.2) | 9 | 3 |" in capsys.readouterr().out

    def test_exported_rows_have_them_too_and_can_be_read_again(self, swept, tmp_path, capsys):
        target = tmp_path / "r.csv"
        assert main(["results", "export", swept, str(target), "--metric", "mae", "--by"]) == 0
        frame = pd.read_csv(target, dtype=str, keep_default_na=False)
        assert list(frame.columns[-2:]) == ["dropout", "hidden"]
        assert set(frame.loc[frame["method"] == "text_only", "hidden"]) == {"", "9", "16", "128"}
        assert main(["results", "table", str(target), "--by", "hidden", "dropout"]) == 0
        assert "128" in capsys.readouterr().out

    def test_an_unknown_one_is_answered_with_the_nearest(self, swept, refused):
        assert "unknown swept parameter 'hiden'; did you mean hidden?" in refused("table", swept, "--by", "hiden")


def test_a_table_of_a_csv_starts_without_torch(folder, tmp_path):
    target = str(tmp_path / "rows.csv")
    assert main(["results", "export", folder, target, "--metric", "mae"]) == 0
    code = "import sys; from mmsa_lib.cli import main; sys.exit(main(sys.argv[1:]) or 3 * ('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, "results", "table", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self_mm" in done.stdout


class TestCompare:
    def test_text_and_json(self, folder, capsys):
        words = ["results", "compare", folder, "--reference", "text_only", "--metric", "mae", *FEW]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "against text_only" in out
        assert "Wilcoxon can't fall below p=0.25 with 3 pairs" in out
        assert main([*words, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert {(r["method"], r["changes"]) for r in report["rows"]} == {
            ("self_mm", "{}"),
            ("text_only", '{"hidden": 7}'),
        }
        assert all(r["item_low"] is not None for r in report["rows"])
        assert report["reference"] == "text_only"
        assert report["failed"]

    def test_metrics_are_chosen_as_in_the_other_commands(self, folder, capsys):
        words = ["compare", folder, "--reference", "text_only", "--no-items", "--json"]
        assert main(["results", *words, "--metrics", "mae"]) == 0
        assert {row["metric"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"mae"}

    def test_seeds_alone_and_alpha(self, folder, capsys):
        words = ["results", "compare", folder, "--reference", "text_only:hidden=7", "--no-items", "--alpha", "0.1"]
        assert main([*words, "--method", "self_mm", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert {r["method"] for r in rows} == {"self_mm"}
        assert {r["alpha"] for r in rows} == {0.1}
        assert all(r["item_low"] is None for r in rows)

    def test_a_file_of_each_format(self, folder, tmp_path, capsys):
        for suffix in ("csv", "tex", "html", "md", "txt"):
            target = tmp_path / f"c.{suffix}"
            words = ["results", "compare", folder, "--reference", "default", "--metric", "mae", *FEW]
            assert main([*words, "--out", str(target)]) == 0
            assert "hidden" in target.read_text(encoding="utf-8")
        assert len(pd.read_csv(tmp_path / "c.csv")) == 1
        assert capsys.readouterr().out == ""


class TestExport:
    def test_rows_a_summary_and_tables(self, folder, tmp_path, capsys):
        assert (
            main(["results", "export", folder, str(tmp_path / "r.csv"), "--metric", "mae", "--method", "self_mm"]) == 0
        )
        rows = pd.read_csv(tmp_path / "r.csv")
        assert set(rows["method"]) == {"self_mm", "constant_mean"}
        words = ["results", "export", folder, str(tmp_path / "s.csv"), "--summary", "--metric", "mae", *FEW]
        assert main(words) == 0
        summary = pd.read_csv(tmp_path / "s.csv")
        assert summary.query("method == 'self_mm'")["item_low"].notna().all()
        assert summary.query("method == 'hrlf'")["failed"].tolist() == [1]
        for suffix, sign in (("tex", "\\midrule"), ("html", "<table>"), ("md", "| --- |")):
            target = tmp_path / f"t.{suffix}"
            assert main(["results", "export", folder, str(target), "--metric", "mae"]) == 0
            assert sign in target.read_text(encoding="utf-8")
        assert main(["results", "export", str(tmp_path / "s.csv"), str(tmp_path / "x"), "--format", "markdown"]) == 0
        assert "self\\_mm" in (tmp_path / "x").read_text(encoding="utf-8")
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("table RUNS --metrics mea", "did you mean mae?"),
        ("table RUNS --protocol compete", "did you mean complete?"),
        ("table RUNS --dataset toi", "did you mean toy?"),
        ("table RUNS --json --format csv", "leave --format out"),
        ("table RUNS --json --out OUT/t.csv", "leave --out out"),
        ("table RUNS --format pdf", "invalid choice"),
        ("compare OUT --reference x --runs OUT/none", "is no folder"),
        ("compare RUNS --reference self_m", "did you mean self_mm"),
        ("compare RUNS --reference text_only:hiden=7", "did you mean hidden=7?"),
        ("compare RUNS --reference text_only --metric mea", "did you mean mae?"),
        ("compare RUNS --reference text_only --method selfmm", "did you mean self_mm?"),
        ("compare RUNS --reference text_only --alpha 5", "alpha must lie in (0, 1)"),
        ("export RUNS OUT/x.pdf", "suffix of"),
        ("export RUNS OUT/x.csv --method selfmm", "did you mean self_mm?"),
        ("export RUNS OUT/x.tex --method selfmm", "did you mean self_mm?"),
        ("export RUNS OUT/x.tex --split valid test", "a table shows one split"),
        ("export RUNS OUT/x.tex --summary", "leave --summary out"),
        ("export RUNS OUT/x.tex --label a", "leave --label out"),
        ("export RUNS OUT/x.csv --summary --by", "leave --by out"),
        ("export RUNS OUT/x.csv --resamples 20", "leave --resamples out"),
        ("export RUNS OUT/x.tex --resamples 20", "leave --resamples out"),
        ("export RUNS OUT/x.csv --across-code", "leave --across-code out"),
    ],
)
def test_mistakes_are_one_line(words, reason, folder, tmp_path, refused):
    filled = [word.replace("RUNS", folder).replace("OUT", str(tmp_path)) for word in words.split()]
    assert reason in refused(*filled)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file(folder, tmp_path, refused):
    (tmp_path / "t.csv").mkdir()
    assert "is a folder" in refused("table", folder, "--metrics", "mae", "--out", str(tmp_path / "t.csv"))
