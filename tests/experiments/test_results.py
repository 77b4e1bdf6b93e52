from __future__ import annotations

import contextlib
import math
import os

import pandas as pd
import pytest
from written_runs import result_frame
from written_runs import result_rows as rows

from mmsa_lib.errors import DataError, UnknownNameError, warn_once
from mmsa_lib.experiments import files
from mmsa_lib.experiments.files import write_manifest
from mmsa_lib.experiments.results import collect, curate, failures, read_results
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.experiments.summaries import open_source, summarise
from mmsa_lib.experiments.tables import results_table


@pytest.fixture
def frame():
    """Two methods, three seeds, two metrics, one constant."""
    return result_frame(
        rows("a", (1.0, 0.9, 1.1)), rows("a", (0.70, 0.72, 0.74), metric="acc2"), rows("b", (0.8, 0.8, 0.95)),
        rows("b", (0.6, 0.6, 0.6), metric="acc2"), rows("constant_mean", (0.1,), constant=True),
        rows("constant_mean", (math.nan,), constant=True, metric="acc2"),
    )  # fmt: skip


class TestCurate:
    def test_chosen_rows_are_rounded_sorted_and_always_the_same_bytes(self, frame, tmp_path):
        frame.loc[0, "value"] = 1 / 3
        first = curate(frame, tmp_path / "a.csv", split="test", metric="mae")
        curate(frame.sample(frac=1, random_state=1), tmp_path / "b.csv", split="test", metric=["mae"])
        assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
        assert first["value"].iloc[0] == 0.333333
        assert first["method"].tolist() == ["a"] * 3 + ["b"] * 3 + ["constant_mean"]

    def test_constants_stay_when_methods_are_chosen(self, frame, tmp_path):
        kept = curate(frame, tmp_path / "a.csv", method="b")
        assert set(kept["method"]) == {"b", "constant_mean"}

    def test_the_table_of_a_curated_file_is_the_table_of_the_frame(self, frame, tmp_path):
        curate(frame, tmp_path / "a.csv")
        assert repr(results_table(read_results(tmp_path / "a.csv"))) == repr(results_table(frame))

    def test_mistakes_write_nothing(self, frame, tmp_path):
        with pytest.raises(DataError, match="no run is left"):
            curate(frame, tmp_path / "a.csv", method="c")
        with pytest.raises(UnknownNameError, match="did you mean method"):
            curate(frame, tmp_path / "a.csv", metod="a")
        assert not list(tmp_path.iterdir())

    def test_a_table_of_version_0_1_0_keeps_its_configurations_apart(self, frame, tmp_path):
        old = frame.drop(columns=["label", "changes", "data_options"]).assign(variant="")
        more = old[old["method"] == "b"].assign(variant="x=1; y=2", run_id="old")
        pd.concat([old, more]).to_csv(tmp_path / "old.csv", index=False)
        found = results_table(read_results(tmp_path / "old.csv"))
        assert [line.cells[0] for line in found.lines] == ["a", "b", "b (x=1; y=2)", "constant_mean"]

    def test_a_csv_of_something_else(self, tmp_path):
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        with pytest.raises(DataError, match="no table of results"):
            read_results(tmp_path / "x.csv")


class TestCollect:
    def test_all_finished_runs_and_each_constant_once(self, small_config, tmp_path):
        results = [run(small_config(seed=seed), tmp_path, progress="none") for seed in (1, 2)]
        (tmp_path / "unfinished").mkdir()
        (tmp_path / "unfinished" / files.METRICS).write_text("never read")
        found = collect(tmp_path)
        assert set(found["run_id"]) == {results[0].run_id, results[1].run_id, ""}
        constants = found[found["run_id"] == ""]
        assert not constants.duplicated(["method", "metric"]).any()
        assert set(found.loc[found["run_id"] != "", "split"]) == {"valid", "test"}
        table = results_table(found)
        assert table.lines[0].cells[1] == "2"
        assert len(collect(results[0].folder)) < len(found)

    def test_of_runs_made_with_different_code_the_newest_counts(self, small_config, tmp_path, monkeypatch):
        from mmsa_lib.experiments import runs

        old = run(small_config(), tmp_path, progress="none")
        monkeypatch.setattr(runs, "_code", lambda module: "another")
        new = run(small_config(), tmp_path, progress="none")
        os.utime(new.folder / files.DONE, (1, 1))  # a copy of a folder has other times
        assert set(collect(tmp_path)["run_id"]) == {new.run_id, ""}
        assert set(collect(tmp_path, superseded=True)["run_id"]) == {old.run_id, new.run_id, ""}

    @pytest.mark.parametrize(
        ("section", "change", "said"),
        [
            ("machine", {"processor": "Another CPU"}, "processor (Another CPU, "),
            ("machine", {"settings": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}, "ONEDNN_MAX_CPU_ISA=AVX2: 1 runs"),
            ("determinism", {"threads": 8}, "threads (1: 1 runs; 8: 1 runs)"),
            ("packages", {"torch": "1.0"}, "torch (1.0: 1 runs"),
            (None, {"text_digest": "0" * 64}, "computed text features"),
        ],
    )
    def test_runs_of_different_machines_in_one_table_are_said(
        self, small_config, tmp_path, capsys, section, change, said
    ):
        for seed in (1, 2):
            result = run(small_config(seed=seed), tmp_path, progress="none")
        collect(tmp_path)
        assert "these runs differ" not in capsys.readouterr().err
        content = files.read_json(result.folder / files.ENVIRONMENT)
        (content if section is None else content[section]).update(change)
        files.write_json(result.folder / files.ENVIRONMENT, content)
        write_manifest(result.folder, files.RESULTS)
        table = collect(tmp_path)
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert line.endswith("equal seeds then give other numbers; see docs/reproducibility.md")
        collect(tmp_path)  # said once
        assert not capsys.readouterr().err
        warn_once.cache_clear()
        curate(table, tmp_path / "a.csv")
        open_source(tmp_path / "a.csv", tmp_path)
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize("manifest", [True, False])
    @pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "\0" * 50, ",".join(files.METRIC_COLUMNS) + "\n"])
    def test_a_run_with_a_damaged_table_is_left_out_with_one_line(
        self, small_config, tmp_path, capsys, content, manifest
    ):
        bad, good = (run(small_config(seed=seed), tmp_path, progress="none") for seed in (1, 2))
        (bad.folder / files.METRICS).write_text(content)
        if manifest:
            write_manifest(bad.folder, files.RESULTS)  # whoever tampers may know of it
        capsys.readouterr()
        assert set(collect(tmp_path)["run_id"]) == {good.run_id, ""}
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("left out: ")
        assert str(bad.folder) in line

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            (files.PREDICTIONS, b"\0" * 100), (files.ENVIRONMENT, b"3"), (files.ENVIRONMENT, b"null"),
            (files.CONFIG, b"[]"), (files.CONFIG, b"[" * 10**5), (files.CONFIG, b"\xff\xfe"), (files.HISTORY, b""),
        ],
    )  # fmt: skip
    def test_damaged_files_without_a_manifest_are_one_line(self, small_config, tmp_path, file, content):
        result = run(small_config(), tmp_path, progress="none")
        (result.folder / "manifest.json").unlink()
        files.write_json(result.folder / files.ENVIRONMENT, {"training": {}})  # as version 0.1.0 left it
        (result.folder / file).write_bytes(content)
        for use in (lambda: collect(tmp_path), lambda: find_run(result.folder).history,
                    lambda: summarise(tmp_path, items=True, resamples=20)):  # fmt: skip
            with contextlib.suppress(DataError):
                use()

    def test_an_empty_folder_says_what_to_do(self, tmp_path):
        with pytest.raises(DataError, match="mmsa-lib train METHOD"):
            collect(tmp_path)

    def test_failures_are_listed(self, small_config, tmp_path, monkeypatch):
        from mmsa_lib.errors import RunError
        from mmsa_lib.experiments import runs

        def fail(*args, **kwargs):
            raise RunError("it went wrong")

        monkeypatch.setattr(runs, "fit", fail)
        with pytest.raises(RunError):
            run(small_config(seed=5), tmp_path)
        (found,) = failures(tmp_path).to_dict("records")
        assert (found["seed"], found["error"], found["message"]) == (5, "RunError", "it went wrong")
