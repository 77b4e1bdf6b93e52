"""Sweeps against what goes wrong: killed processes, failing notebooks, Ctrl-C, two sweeps at once.

After each of these a rerun executes exactly what is missing.
"""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sweep_machinery import SharedLauncher, quiet_sweep, wait_for

from mmsa_lib.cli import main
from mmsa_lib.experiments.kernels import Launcher, private_folder, read_journal, remove_leftovers
from mmsa_lib.experiments.sweep_file import read_points
from mmsa_lib.experiments.sweeps import (
    FAILED,
    FINISHED,
    MISSING,
    LocalExecutor,
    State,
    execute_point,
    point_folder,
    point_lock,
    read_state,
    sweep,
)


@pytest.fixture(scope="module")
def light():
    """A launcher of warm kernels that import nothing in advance."""
    with Launcher(()) as launcher:
        yield launcher


def states(lab):
    """State of each point by seed."""
    return {point.varied["seed"]: read_state(lab.runs, point) for point in read_points(lab.file)}


def finish(lab, light, missing):
    """A rerun executes exactly the seeds ``missing``; after it, another one executes nothing."""
    before = lab.executed
    lab.open_gate()
    result = quiet_sweep(lab.file, SharedLauncher(light), lab.runs)
    assert result.ok, result.summary()
    assert sorted(lab.executed[len(before) :]) == sorted(missing)
    assert {r.point.varied["seed"] for r in result.points if r.outcome == "ran"} == set(missing)
    again = quiet_sweep(lab.file, SharedLauncher(light), lab.runs)
    assert {r.outcome for r in again.points} == {"finished before"}
    assert len(lab.executed) == len(before) + len(missing)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_a_killed_worker_and_a_killed_kernel_cost_only_their_points(lab, light, warm):
    lab.write([0, 1, 2])
    executor = SharedLauncher(light, workers=3) if warm else LocalExecutor(3, warm=False)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(quiet_sweep, lab.file, executor, lab.runs)
        workers, kernels = zip(*map(lab.pids, range(3)), strict=True)
        os.kill(workers[0], signal.SIGKILL)
        os.kill(kernels[1], signal.SIGKILL)
        wait_for(lambda: not psutil.pid_exists(kernels[0]))
        lab.open_gate()
        result = running.result(300)
    assert [r.state.state for r in result.points] == [FAILED, FAILED, FINISHED]
    assert [(s.error, s.cell, s.passing) for s in (r.state for r in result.failed)] == [
        ("WorkerDied", 4, True),
        ("DeadKernelError", 4, True),
    ]
    finish(lab, light, [0, 1])


@pytest.mark.slow
def test_a_killed_server_of_kernels_is_replaced(lab):
    """Each of the two workers has one."""
    lab.write([0, 1, 2])
    with Launcher(()) as launcher, ThreadPoolExecutor(1) as thread:
        running = thread.submit(quiet_sweep, lab.file, SharedLauncher(launcher), lab.runs)
        for seed in (0, 1):
            psutil.Process(lab.pids(seed)[1]).parent().kill()
        lab.open_gate()
        result = running.result(300)
        assert [r.state.state for r in result.points] == [FAILED, FAILED, FINISHED]
        assert {(r.state.error, r.state.passing) for r in result.failed} == {("DeadKernelError", True)}
        assert launcher.reason == ""
        finish(lab, launcher, [0, 1])


@pytest.mark.parametrize("options", [pytest.param(["--cold"], marks=pytest.mark.slow), []], ids=["cold", "warm"])
def test_nothing_outlives_a_killed_sweep(lab, light, options, monkeypatch):
    lab.write([0, 1, 2])
    driver = lab.program("--workers", "2", *options)
    lab.pids(0), lab.pids(1)
    driver.kill()
    driver.wait()
    wait_for(lambda: not lab.processes())
    assert sorted(lab.executed) == [0, 1]
    monkeypatch.setattr("tempfile.tempdir", str(lab.temporary))
    with private_folder() as own:
        assert {name[:5] for name in lab.leftovers()} == {"mmsa-"}
        remove_leftovers()
        assert lab.leftovers() == [own.name]
    assert {state.state for state in states(lab).values()} == {MISSING}
    finish(lab, light, [0, 1, 2])


@pytest.mark.parametrize("options", [["--cold"], []], ids=["cold", "warm"])
def test_ctrl_c_ends_the_sweep_at_once(lab, light, options):
    """Cold: as `kill -INT` does, the sweep only. Warm: as a terminal does, its whole process group."""
    lab.write([0, 1, 2])
    driver = lab.program("--workers", "2", *options, start_new_session=True)
    lab.pids(0), lab.pids(1)
    if options:
        driver.send_signal(signal.SIGINT)
    else:
        os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(300) == 130
    wait_for(lambda: not lab.processes())
    assert lab.leftovers() == []
    out, err = lab.printed(driver)
    assert out == ""
    assert err.splitlines()[-1] == "interrupted; repeat the command to resume"
    assert "Traceback" not in err
    assert {state.state for state in states(lab).values()} == {MISSING}
    finish(lab, light, [0, 1, 2])


def test_failures_are_told_with_their_cell_and_repeated_only_when_asked(lab, light, monkeypatch, capsys):
    grid = {"name": ["raise", "exit", "good"]}
    lab.write([7], name="good", grid=grid)
    monkeypatch.setattr(LocalExecutor, "launcher", SharedLauncher(light).launcher)
    command = ["sweep", str(lab.file), "--runs", str(lab.runs), "--workers", "3"]
    assert main(command) == 1
    out, err = capsys.readouterr()
    points = {point.varied["name"]: point for point in read_points(lab.file)}
    found = {name: read_state(lab.runs, point) for name, point in points.items()}
    assert {name: (state.cell, state.error) for name, state in found.items()} == {
        "raise": (5, "ValueError"),
        "exit": (5, "SystemExit"),
        "good": (None, ""),
    }
    assert not any(state.passing for state in found.values())
    assert out.splitlines()[0] == "s.yaml: 1 ran, 2 failed"
    told = "cell 5 (`if not gate.exists():`): ValueError: no luck"
    assert f"          {told}; see {point_folder(lab.runs, points['raise'])}" in out.splitlines()
    assert f"        {told}" in err.splitlines()
    assert "--retry-failed" in out
    place = {path.name for path in point_folder(lab.runs, points["raise"]).iterdir()}
    assert place >= {"point.json", "error.json", "notebook.failed.ipynb"}
    assert "DONE" not in place
    assert len(lab.executed) == 3

    assert main(command) == 1
    assert capsys.readouterr().out == out.replace("1 ran", "1 finished before")
    assert len(lab.executed) == 3

    lab.open_gate()
    assert main([*command, "--retry-failed"]) == 0
    assert capsys.readouterr().out == "s.yaml: 2 ran, 1 finished before\n"
    assert len(lab.executed) == 5
    assert not (point_folder(lab.runs, points["raise"]) / "notebook.failed.ipynb").exists()


def test_what_took_too_long_is_repeated_only_when_asked(lab, light):
    lab.write([0, 1], name="sleep", timeout=1)
    result = quiet_sweep(lab.file, SharedLauncher(light), lab.runs)
    assert [(r.state.error, r.state.message) for r in result.failed] == [("Timeout", "not finished after 1 s")] * 2
    assert not any(r.state.passing for r in result.failed)
    lab.write([0, 1], name="sleep", timeout=600)  # time is no part of what a point is
    before = lab.executed
    assert [r.outcome for r in quiet_sweep(lab.file, SharedLauncher(light), lab.runs).points] == ["failed"] * 2
    assert lab.executed == before
    lab.open_gate()
    assert quiet_sweep(lab.file, SharedLauncher(light), lab.runs, retry_failed=True).ok
    assert sorted(lab.executed[len(before) :]) == [0, 1]


def test_after_a_failure_nothing_new_is_started_if_so_wished(lab, light):
    lab.write([0, 1, 2], name="raise")
    lines, options = [], {"runs": lab.runs, "keep_going": False}
    result = sweep(lab.file, SharedLauncher(light, 1), report=lines.append, **options)
    assert [r.outcome for r in result.points] == ["failed", "not run", "not run"]
    assert lab.executed == [0]
    assert any("stopping after a failure" in line for line in lines)


def test_two_sweeps_share_the_work(lab, light):
    lab.write(range(6), name="good")
    drivers = [lab.program("--workers", "2", "--json") for _ in range(2)]
    assert [driver.wait(600) for driver in drivers] == [0, 0], [lab.printed(driver) for driver in drivers]
    assert sorted(lab.executed) == list(range(6))
    first, second = (lab.printed(driver)[0] for driver in drivers)
    assert first.count('"ran"') + second.count('"ran"') == 6
    assert first.replace('"ran"', '"finished before"') == second.replace('"ran"', '"finished before"')
    finish(lab, light, [])


def test_a_point_of_another_process_does_not_hold_up_the_end_of_a_sweep(lab, light):
    lab.write([0], name="good")
    (point,) = read_points(lab.file)
    with point_lock(lab.runs, point):
        driver = lab.program("--workers", "1")
        wait_for(lambda: "1 to run" in lab.printed(driver)[1])
        driver.send_signal(signal.SIGINT)
        assert driver.wait(300) == 130
    assert lab.executed == []
    finish(lab, light, [0])


def test_what_failed_in_another_sweep_meanwhile_is_not_repeated(lab, light):
    lab.write([0], name="raise")
    (point,) = read_points(lab.file)
    failed, executed = execute_point(point, lab.runs, launcher=light)
    assert (failed.error, executed) == ("ValueError", True)
    on_disk = read_state(lab.runs, point)
    assert execute_point(point, lab.runs, launcher=light, known=State(MISSING)) == (on_disk, False)
    assert lab.executed == [0]
    assert execute_point(point, lab.runs, launcher=light, known=on_disk)[1]  # the failure that was to be repeated
    assert lab.executed == [0, 0]


def test_a_worker_killed_while_it_wrote_leaves_no_copy_and_no_traceback(lab):
    """The executed notebook and the journal end in the middle."""

    class Killed:
        def run_worker(self, notebook, parameters, folder, timeout, environment):
            (folder / "executed.ipynb").write_text('{"cells": [')
            (folder / "journal.jsonl").write_text('{"event": "started", "cell": 3}\n{"event": "repl')
            return read_journal(folder), "the process ended with exit code -9"

    lab.write([0], name="good")
    result = quiet_sweep(lab.file, SharedLauncher(Killed()), lab.runs)
    (state,) = (r.state for r in result.points)
    assert (state.state, state.error, state.cell, state.passing) == (FAILED, "WorkerDied", 3, True)


@pytest.mark.slow
def test_a_sweep_of_training_runs_that_is_killed_again_and_again_gives_the_same_results(lab, tmp_path):
    from sweep_machinery import WithoutKernel, write_training

    from mmsa_lib.experiments import collect

    write_training(lab.file, range(3))
    program = (sys.executable, "-m", "mmsa_lib", "sweep", lab.file, "--runs", lab.runs, "--workers")

    def started_runs():
        return len(list(lab.runs.glob("*/config.json")))

    for _ in range(3):
        before, driver = started_runs(), lab.start(*program, "1")
        while started_runs() == before and driver.poll() is None:
            time.sleep(0.02)
        driver.kill()
        driver.wait()
        wait_for(lambda: not lab.processes())
    stamps = {path: path.stat().st_mtime_ns for path in lab.runs.glob("sweep/*/DONE")}
    driver = lab.start(*program, "2")
    assert driver.wait(300) == 0, lab.printed(driver)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    quiet_sweep(lab.file, SharedLauncher(WithoutKernel(), 1), tmp_path / "undisturbed")
    assert collect(lab.runs).equals(collect(tmp_path / "undisturbed"))
