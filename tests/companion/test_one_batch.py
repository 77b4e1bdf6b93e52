"""One batch: trials are chosen on validation data alone, sweeps go on where they ended, tables agree."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from sweep_files import executions, write_notebook, write_sweep
from written_runs import result_frame, result_rows, write_run

from companion import batch, tuning
from companion.__main__ import main
from mmsa_lib.errors import DataError, UnknownNameError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.results import read_results
from mmsa_lib.experiments.sweeps import FAILED, FINISHED, MISSING, LocalExecutor, Outcome, State, SweepResult
from mmsa_lib.files import read_yaml
from mmsa_lib.paths import project_root

TRIALS = {"trial_01": (0.001, 1.0), "trial_02": (0.003, 0.8), "trial_03": (0.01, 0.9)}
"""Label to learning rate and validation MAE."""


@pytest.fixture
def runs(tmp_path):
    """Three trials of two methods with two seeds; on test data the ranks are reversed."""
    for method in ("self_mm", "text_only"):
        for label, (rate, error) in TRIALS.items():
            for seed in (1, 2):
                config = {"learning_rate": rate}
                run = tmp_path / "tuning" / write_run(tmp_path / "tuning", method, seed, config=config)
                rows = files.read_table(run / files.METRICS)
                rows = rows[rows["metric"] == "mae"].assign(label=label)
                valid = rows.assign(split="valid", value=error + 0.1 * seed)
                gaps = rows.assign(split="valid", protocol="stochastic", value=-error)
                files.write_table(run / files.METRICS, pd.concat([rows.assign(value=-error), valid, gaps]))
    return tmp_path


def chosen_by(runs, folder, capsys):
    folder.mkdir()
    given = ["tune", str(runs), "--out", str(folder), "--presets", str(folder / "tuned.yaml")]
    assert main(given) == 0
    return capsys.readouterr().out, (folder / "tuned.yaml").read_text(), (folder / "tuning.csv").read_text()


def test_the_trial_with_the_lowest_mean_validation_error_is_chosen(runs, tmp_path, capsys):
    told, _, _ = chosen_by(runs, tmp_path / "out", capsys)
    assert "toy self_mm: trial_02, validation MAE 0.950, best of 3" in told
    assert read_yaml(tmp_path / "out" / "tuned.yaml") == {
        "toy": {method: {"config": {"learning_rate": 0.003}} for method in ("self_mm", "text_only")}
    }
    rows = read_results(tmp_path / "out" / "tuning.csv")
    assert set(rows["split"]) == {"valid"}
    assert len(rows) == 12
    assert list(rows) == list(files.RESULT_COLUMNS)


def test_no_test_number_is_read(runs, tmp_path, capsys):
    before = chosen_by(runs, tmp_path / "before", capsys)
    for path in runs.glob(f"tuning/*/{files.METRICS}"):
        rows = files.read_table(path)
        files.write_table(path, rows.assign(value=rows["value"].where(rows["split"] != "test", float("nan"))))
        (path.parent / files.PREDICTIONS).unlink()
    assert chosen_by(runs, tmp_path / "after", capsys) == before


def test_a_trial_that_failed_with_a_seed_is_not_chosen_and_mixed_code_is_refused(runs, tmp_path, capsys):
    (runs / "tuning" / "self_mm-learning_rate0.0032" / files.DONE).unlink()
    told, *_ = chosen_by(runs, tmp_path / "out", capsys)
    assert "self_mm: trial_03, validation MAE 1.050, best of 2" in told
    mark = {"code_fingerprint": "a" * 64, files.CORE_CODE: "b" * 64}
    files.write_json(runs / "tuning" / "self_mm-learning_rate0.0011" / files.ENVIRONMENT, mark)
    assert main(["tune", str(runs), "--out", str(tmp_path)]) == 2
    assert "runs of different code on toy" in capsys.readouterr().err


def test_a_method_without_a_whole_trial_is_named(runs):
    rows = tuning.validation_rows(runs / "tuning")
    lost = (rows["method"] == "text_only") & (rows["seed"] == 1)
    with pytest.raises(DataError, match="no trial of text_only on toy finished with all 2 seeds"):
        tuning.choose_trials(rows[~lost])


def test_other_profiles_of_a_family_take_its_values_by_an_anchor(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "SAME_VALUES", {"other": ("toy",), "third": ("absent",)})
    _, text, _ = chosen_by(runs, tmp_path / "out", capsys)
    assert "toy: &id" in text.replace("other: &id", "toy: &id")
    assert "*id" in text
    found = read_yaml(tmp_path / "out" / "tuned.yaml")
    assert found["other"] == found["toy"]
    assert set(found) == {"other", "toy"}


@pytest.fixture
def sweeps(tmp_path, monkeypatch):
    """Two sweeps of a notebook that fails for one name, and a presets file."""
    write_notebook(tmp_path / "tiny.ipynb", "if name == 'bad':\n    raise ValueError('no luck')")
    marks = tmp_path / "marks"
    for name, values in (("main", ["a", "b"]), ("sensitivity_x", ["good", "bad"]), ("own", ["z"])):
        content = {"parameters": {"marks": str(marks)}, "grid": {"name": values}}
        write_sweep(tmp_path / f"{name}.yaml", **content, **({} if name == "own" else {"minutes": 10}))
    (tmp_path / batch.PRESETS).write_text("{}")
    monkeypatch.setattr(
        batch, "sweep", lambda file, runs, workers: SWEEP(file, LocalExecutor(1, warm=False), runs=runs)
    )
    return tmp_path


SWEEP = batch.sweep


def test_sweeps_are_run_in_their_order_and_only_what_is_missing(sweeps):
    assert [path.stem for path in batch.sweep_files(sweeps)] == ["main", "sensitivity_x"]
    found = batch.sweep_files(sweeps, ["sensitivity", "own", "main"])
    assert [path.stem for path in found] == ["main", "sensitivity_x", "own"]
    with pytest.raises(UnknownNameError, match="unknown sweep 'mian'; did you mean main"):
        batch.sweep_files(sweeps, ["mian"])
    runs, told = sweeps / "runs", []
    parts = [batch.part(path, runs) for path in found]
    assert str(parts[0]).split() == ["main", "0", "of", "2", "done,", "about", "10", "min", "left"]
    assert batch.total(parts) == "3 sweeps, 0 of 5 runs done, about 20 min left with two workers (without own)"
    assert batch.run_all(found[:2], runs, sweeps, 1, told.append) == [found[1]]
    assert "sensitivity_x.yaml: 1 ran, 1 failed" in told[3]
    again = [batch.part(path, runs) for path in found[:2]]
    assert [str(own).split(maxsplit=1)[1] for own in again] == [
        "2 of 2 done",
        "1 of 2 done, 1 failed, about 5 min left",
    ]
    assert {path.name for path in runs.iterdir()} == {"main", "sensitivity"}
    count = len(executions(sweeps / "marks"))
    assert batch.run_all(found[:1], runs, sweeps, 1, told.append) == []
    assert len(executions(sweeps / "marks")) == count


def test_the_plan_of_the_companion_names_every_sweep_and_runs_nothing(tmp_path, capsys):
    assert main(["run", str(tmp_path / "runs"), "--plan", "--only", "main", "sensitivity"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["main", "sensitivity"]
    assert lines[2].startswith("2 sweeps, 0 of ")
    assert not (tmp_path / "runs").exists()


def table(*parts, core="c", method="m"):
    return result_frame(*parts).assign(core_code=core, method_code=method)


ONE = result_rows("a", [0.5, 0.6])
PROBLEMS = {
    "equal values": ({"x": table(ONE), "y": table(ONE[:1])}, []),
    "rounded values": ({"x": table(ONE), "y": table(result_rows("a", [0.50004]))}, []),
    "another label": ({"x": table(ONE), "y": table(result_rows("a", [0.5], label="full"))}, []),
    "two values": (
        {"x": table(ONE), "y": table(result_rows("a", [0.7]))}, ["a {} toy 1 complete mae: 0.5 in x, 0.7 in y"]
    ),
    "other data options": ({"x": table(ONE), "y": table(result_rows("a", [0.7], data={"length": 3}))}, []),
    "two cores": ({"x": table(ONE), "y": table(ONE, core="d")}, ["all runs: different code: c (x), d (y)"]),
    "two codes of a method": ({"x": table(ONE), "y": table(ONE, method="n")}, ["a: different code: m (x), n (y)"]),
    "no codes": ({"x": result_frame(ONE), "y": result_frame(result_rows("a", [0.7]))}, []),
    "no results": ({"x": pd.DataFrame({"run_id": ["a"], "value": [1.0]})}, []),
}  # fmt: skip


@pytest.mark.parametrize(("tables", "expected"), PROBLEMS.values(), ids=PROBLEMS)
def test_contradictions_between_tables_are_found(tables, expected):
    assert batch.contradictions(tables) == expected


def test_the_committed_tables_are_one_batch():
    """README, figures and notebooks quote these tables, which tests of their own check."""
    folder = project_root() / "data" / "results"
    tables = {path.name: pd.read_csv(path, dtype={"seed": "Int64"}, low_memory=False) for path in folder.glob("*.csv")}
    coded = [name for name, own in tables.items() if "core_code" in own]
    assert batch.contradictions({name: read_results(Path(folder / name)) for name in coded}) == []


def test_presets_are_written_once_all_trials_have_ended(runs, tmp_path, monkeypatch):
    write_notebook(tmp_path / "tiny.ipynb")
    file, told = write_sweep(tmp_path / "tune.yaml", seeds=[1, 2]), []
    points = batch.part(file, tmp_path).points

    def ended(*states):
        outcomes = [Outcome(point, State(state)) for point, state in zip(points, states, strict=True)]
        monkeypatch.setattr(batch, "sweep", lambda file, runs, workers: SweepResult(file, runs, tuple(outcomes)))
        return batch.run_all([file], runs, tmp_path, 1, told.append)

    assert ended(FINISHED, MISSING) == [file]
    assert not (tmp_path / batch.PRESETS).exists()
    assert ended(FINISHED, FAILED) == []  # a trial that failed is not chosen
    assert set(read_yaml(tmp_path / batch.PRESETS)) == {"toy"}
    assert (tmp_path / "tuning.csv").is_file()
    assert told[-1] == "tuned.yaml: 2 presets chosen by validation MAE"
