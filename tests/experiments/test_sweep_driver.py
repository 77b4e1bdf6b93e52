"""A sweep from its first run to its last: what is executed, skipped, repeated and reported."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import nbformat
import pandas as pd
import psutil
import pytest
from filelock import FileLock
from sweep_files import executions, write_notebook, write_sweep
from sweep_machinery import SharedLauncher, quiet_sweep

from mmsa_lib.errors import ConfigError, DataError, UnknownNameError
from mmsa_lib.experiments import collect, sweep, sweeps
from mmsa_lib.experiments.notebooks import CellFailure
from mmsa_lib.experiments.runs import RunConfig, run
from mmsa_lib.experiments.sweep_file import Point, choose, read_points
from mmsa_lib.experiments.sweeps import (
    FAILED,
    FINISHED,
    LocalExecutor,
    Outcome,
    Progress,
    State,
    duration,
    point_folder,
    point_lock,
    read_state,
)

COLD = {"workers": 2, "warm": False}


@pytest.fixture
def folder(tmp_path):
    write_notebook(tmp_path / "tiny.ipynb", "if name == 'bad':\n    raise ValueError('no\\nluck')", "print(seed)")
    return tmp_path


def quiet(line):
    """No progress."""


def go(folder, file, **options):
    return sweep(file, runs=folder / "runs", report=options.pop("report", quiet), **{**COLD, **options})


def test_a_sweep_is_executed_once_and_a_repetition_does_nothing(folder):
    marks = folder / "marks"
    file = write_sweep(folder / "s.yaml", parameters={"marks": str(marks), "rate": 0.3}, seeds=[1, 2, 3])
    lines = []
    first = go(folder, file, report=lines.append)
    assert first.ok
    assert [result.outcome for result in first.points] == ["ran"] * 3
    assert sorted(executions(marks)) == [f"{seed} 0.3 a {{}}" for seed in (1, 2, 3)]
    assert len([line for line in lines if line.startswith("[")]) == 3
    assert lines[-1].startswith("[3/3] ok")
    assert any("left" in line for line in lines)
    again = go(folder, file)
    assert [result.outcome for result in again.points] == ["finished before"] * 3
    assert len(executions(marks)) == 3
    for result in again.points:
        place = point_folder(again.runs, result.point)
        assert {path.name for path in place.iterdir()} == {
            "point.json", "notebook.ipynb", "result.json", "manifest.json", "DONE",
        }  # fmt: skip
        book = nbformat.read(place / "notebook.ipynb", as_version=4)
        assert book.cells[-1].outputs[0].text.strip() == str(result.point.parameters["seed"])
        assert json.loads((place / "point.json").read_text())["parameters"] == result.point.parameters


def test_only_and_shards_execute_their_part(folder):
    marks = folder / "marks"
    file = write_sweep(folder / "s.yaml", parameters={"marks": str(marks)}, seeds=[1, 2, 3, 4])
    go(folder, file, only=["seed=3"])
    assert [line.split()[0] for line in executions(marks)] == ["3"]
    shards = [[r.point.parameters["seed"] for r in go(folder, file, shard=(k, 3)).points] for k in range(3)]
    assert shards == [[1, 4], [2], [3]]
    assert sorted(line.split()[0] for line in executions(marks)) == ["1", "2", "3", "4"]
    with pytest.raises(ConfigError, match="shard 3/3 does not exist"):
        choose([], shard=(3, 3))
    with pytest.raises(UnknownNameError, match="seed=3"):
        go(folder, file, only=["seed=33"])


def test_mistakes_are_raised_before_anything_is_written(folder):
    with pytest.raises(UnknownNameError, match="did you mean local"):
        sweep(write_sweep(folder / "s.yaml"), "locl", runs=folder / "runs")
    with pytest.raises(ConfigError, match=r"executor local: .*unexpected"):
        go(folder, write_sweep(folder / "s.yaml"), gpus=1)
    with pytest.raises(ConfigError, match="at least 1"):
        go(folder, write_sweep(folder / "s.yaml"), workers=0)
    with pytest.raises(UnknownNameError, match="did you mean rate"):
        go(folder, write_sweep(folder / "s.yaml", grid={"rates": [1]}))
    assert not (folder / "runs").exists()


def test_threads_and_the_folder_of_runs_reach_the_notebook(folder):
    write_notebook(
        folder / "tiny.ipynb",
        "import os\nfrom mmsa_lib.paths import runs_folder\n"
        "open(marks, 'a').write(f\"{os.environ['OMP_NUM_THREADS']} {runs_folder()}\\n\")",
    )
    marks = folder / "marks"
    go(folder, write_sweep(folder / "s.yaml", parameters={"marks": str(marks)}), threads=3)
    assert executions(marks)[1] == f"3 {(folder / 'runs').resolve()}"


def test_a_file_in_the_place_of_the_folder_of_runs_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "runs").write_text("")
    file = write_sweep(tmp_path / "s.yaml", notebook="06_train", seeds=[1])
    with pytest.raises(DataError, match=r"cannot write runs to .*; choose another folder"):
        go(tmp_path, file)


class TestRunsOfTheLibrary:
    """A notebook that makes runs: they lie in the folder of runs, and the executed notebook lies with them."""

    @pytest.fixture(scope="class")
    def swept(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("swept")
        data = {"samples": [48, 24, 32], "dims": [12, 8, 8], "length": 6}
        file = write_sweep(
            folder / "s.yaml",
            notebook="06_train",
            parameters={"data": data, "config.max_epochs": 2, "settings.device": "cpu"},
            grid={"method": ["text_only", "late_fusion"]},
            seeds=[1],
        )
        return folder, file, go(folder, file)

    def test_each_point_made_a_run_with_its_notebook(self, swept):
        folder, _, result = swept
        assert result.ok, result.summary()
        for point in result.points:
            (run_id,) = point.state.runs
            place = folder / "runs" / run_id
            assert (place / "DONE").is_file()
            book = nbformat.read(place / "notebook.ipynb", as_version=4)
            shown = (place / "notebook.ipynb").read_text().replace(str(place), "")  # it says where its run lies
            assert str(folder) not in shown
            injected = next(cell for cell in book.cells if "injected-parameters" in cell.metadata.get("tags", []))
            assert f'method = "{point.point.parameters["method"]}"' in injected.source

    def test_collect_finds_the_runs_and_they_equal_those_of_the_library(self, swept, tmp_path):
        folder, _, result = swept
        found = collect(folder / "runs")
        assert set(found["method"]) >= {"text_only", "late_fusion"}
        parameters = result.points[0].point.parameters
        again = run(
            RunConfig(**{k: v for k, v in parameters.items() if k in RunConfig.model_fields}), tmp_path, progress="none"
        )
        assert again.run_id == result.points[0].state.runs[0]
        own = found[found["run_id"] == again.run_id].reset_index(drop=True)
        keys = ["split", "metric"]
        pd.testing.assert_frame_equal(
            own.sort_values(keys)[[*keys, "value"]].reset_index(drop=True),
            again.metrics.sort_values(keys)[[*keys, "value"]].reset_index(drop=True),
        )

    def test_a_run_that_is_gone_is_made_again(self, swept):
        folder, file, result = swept
        before = (folder / "runs" / result.points[1].state.runs[0] / "DONE").stat().st_mtime_ns
        shutil.rmtree(folder / "runs" / result.points[0].state.runs[0])
        again = go(folder, file)
        assert [r.outcome for r in again.points] == ["ran", "finished before"]
        assert (folder / "runs" / result.points[1].state.runs[0] / "DONE").stat().st_mtime_ns == before

    def test_a_finished_run_is_not_trained_again_by_another_sweep(self, swept):
        folder, _, result = swept
        done = folder / "runs" / result.points[0].state.runs[0] / "DONE"
        before = done.stat().st_mtime_ns
        parameters = {**result.points[0].point.parameters, "profile": "cpu"}  # changes the notebook, not the run
        other = go(folder, write_sweep(folder / "t.yaml", notebook="06_train", parameters=parameters))
        assert other.points[0].outcome == "ran"
        assert other.points[0].state.runs == result.points[0].state.runs
        assert done.stat().st_mtime_ns == before


def _point(number, group="a"):
    return Point(f"{number:012d}", "n.ipynb", {"name": group, "seed": number}, varied={"seed": number})


def test_time_left_follows_the_runs_that_are_alike():
    points = [_point(1), _point(2), _point(3, "b"), _point(4, "b")]
    lines = []
    progress = Progress(points, 1, lines.append)
    assert progress.seconds_left() is None
    progress.add(Outcome(points[0], State(FINISHED, seconds=10.0), True))
    assert progress.seconds_left() == pytest.approx(30)  # three others, as long as the only one known
    progress.add(Outcome(points[2], State(FINISHED, seconds=100.0), True))
    assert progress.seconds_left() == pytest.approx(110)
    assert "about 2 min left" in lines[-1]
    progress.add(Outcome(points[1], State(FAILED, error="E", message="m", cell=2, source="x"), True))
    assert lines[-1].strip() == "cell 2 (`x`): E: m"
    progress.add(Outcome(points[3], State(FINISHED), False))
    assert lines[-1] == "[4/4] ok  by another process seed=4"
    halved = Progress(points[:3], 2, quiet)  # by two workers, but for the longest run
    halved.add(Outcome(points[0], State(FINISHED, seconds=10.0), True))
    assert halved.seconds_left() == pytest.approx(10)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (60, "60 s"), (120, "2 min"), (3600, "60 min"), (5400, "1 h 30 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_a_point_that_another_process_holds_comes_last_and_counts_as_finished(folder, monkeypatch):
    marks = folder / "marks"
    file = write_sweep(folder / "s.yaml", parameters={"marks": str(marks)}, seeds=[1, 2, 3])
    points, runs = read_points(file), (folder / "runs").resolve()
    lock = FileLock(point_lock(runs, points[0]).lock_file, thread_local=False)
    lock.acquire()
    seen = []

    def first_others(point, *args, **options):
        seen.append((point.parameters["seed"], options["wait"]))
        if options["wait"] and lock.is_locked:  # what the other process had in hand is finished now
            lock.release()
        return original(point, *args, **options)

    original = sweeps.execute_point
    monkeypatch.setattr("mmsa_lib.experiments.sweeps.execute_point", first_others)
    result = go(folder, file, workers=1)
    assert seen == [(1, False), (2, False), (3, False), (1, True)]
    assert result.ok
    assert len(executions(marks)) == 3


def test_a_kernel_that_is_killed_before_its_first_cell_is_repeated_unasked(folder):
    marks = folder / "marks"
    file = write_sweep(folder / "s.yaml", parameters={"marks": str(marks)})
    killed, ended = [], threading.Event()

    def kill_first_kernel():
        while not killed and not ended.is_set():
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "ipykernel_launcher" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
            time.sleep(0.005)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(kill_first_kernel)
        first = go(folder, file)
        ended.set()
    (state,) = (result.state for result in first.points)
    assert killed
    assert (state.state, state.cell, state.passing, state.times) == (FAILED, None, True, 1)
    assert executions(marks) == []
    assert go(folder, file).ok
    assert len(executions(marks)) == 1


OWN_MISTAKES = {
    "a look-alike": "raise RuntimeError('Kernel died before replying to kernel_info')",
    "a namesake": "class DeadKernelError(Exception): pass\nraise DeadKernelError('Kernel died')",
    "memory": "raise MemoryError",
    "its own exit": "import os\nos._exit(3)",
}


def test_what_a_notebook_does_itself_waits_for_retry_failed(folder):
    marks = folder / "marks"
    code = "\n".join(
        f"if name == {name!r}:\n    " + cell.replace("\n", "\n    ") for name, cell in OWN_MISTAKES.items()
    )
    write_notebook(folder / "tiny.ipynb", code)
    file = write_sweep(folder / "s.yaml", parameters={"marks": str(marks)}, grid={"name": list(OWN_MISTAKES)})
    result = go(folder, file)
    assert [(r.point.varied["name"], r.state.passing) for r in result.failed] == [
        (name, False) for name in OWN_MISTAKES
    ]
    go(folder, file)
    assert len(executions(marks)) == len(OWN_MISTAKES)


def test_a_kernel_that_dies_always_is_not_repeated_for_ever(folder):
    killed = CellFailure(4, "x = 1", "DeadKernelError", "Kernel died", killed=True)
    file = write_sweep(folder / "s.yaml", parameters={"marks": str(folder / "marks")})

    class Dies:
        def run_worker(self, *request):
            return [{"event": "started", "cell": 3}], "the process ended with exit code -9: no message"

    outcomes = [quiet_sweep(file, SharedLauncher(Dies(), 1), folder / "runs") for _ in range(7)]
    times = [result.points[0].state.times for result in outcomes]
    assert times == [1, 2, 3, 4, 5, 5, 5]
    assert [result.points[0].state.passing for result in outcomes] == [True] * 4 + [False] * 3
    assert "killed 5 times, it is repeated only with --retry-failed" in outcomes[-1].summary()
    again = quiet_sweep(file, SharedLauncher(Dies(), 1), folder / "runs", retry_failed=True)
    assert again.points[0].state.times == 6
    assert sweeps.failed_state(replace(killed, killed=False), times=6).times == 0


def test_the_local_executor_fits_the_cores_to_the_threads(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert LocalExecutor(threads=2).workers == 4
    assert LocalExecutor(threads=16).workers == 1
    assert LocalExecutor(3, 2).workers == 3


def test_an_own_executor_can_be_given(folder):
    class Nobody:
        workers = 1

        def outcomes(self, points, runs, stop):
            assert isinstance(stop, threading.Event)
            yield from ()

    result = sweep(write_sweep(folder / "s.yaml", seeds=[1]), Nobody(), runs=folder / "runs", report=quiet)
    assert [r.outcome for r in result.points] == ["not run"]
    assert read_state(folder / "runs", result.points[0].point).state == "missing"
