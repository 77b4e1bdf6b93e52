"""Sweeps on Dask clusters: on this machine, at a scheduler's address, with resources, with workers that are killed."""

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sweep_machinery import (
    SWEEP_DRIVER,
    Lab,
    SharedLauncher,
    WithoutKernel,
    quiet_sweep,
    wait_for,
    write_training,
)

from mmsa_lib.cli import main
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments import clusters, collect
from mmsa_lib.experiments.clusters import DaskExecutor
from mmsa_lib.experiments.kernels import remove_leftovers

pytest.importorskip("distributed")

LIGHT = {"preload": [str(SWEEP_DRIVER)]}
"""Options of a local cluster whose warm kernels import nothing in advance."""


INTERRUPTED = "interrupted; repeat the command to resume"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Path of the scheduler file of a running cluster: worker ``gpu`` with a resource GPU, worker ``plain`` without."""
    machine = Lab(tmp_path_factory.mktemp("dask"))
    yield start_cluster(machine, gpu=["--resources", "GPU=1"], plain=[])
    machine.close()


def start_cluster(machine, **workers):
    """Start a scheduler and workers with these options by name; the scheduler file. The scheduler is started first."""
    file = machine.folder / "scheduler.json"
    own = ("--host", "127.0.0.1", "--no-dashboard")
    machine.start(sys.executable, "-m", "distributed.cli.dask_scheduler", *own, "--port", "0", "--scheduler-file", file)
    options = ("--scheduler-file", file, "--nthreads", "1", *own, "--preload", SWEEP_DRIVER)
    for name, more in workers.items():
        command = (sys.executable, "-m", "distributed.cli.dask_worker", *options, "--name", name, *more)
        machine.start(*command, env={"MMSA_LIB_TEST_WORKER": name})
    wait_for(file.exists)
    return file


def on(running, **options):
    return DaskExecutor(scheduler=str(running), **options)


@pytest.mark.slow
def test_a_local_cluster_gives_the_results_of_the_local_executor(tmp_path):
    file = write_training(tmp_path / "s.yaml", range(2))
    runs = tmp_path / "dask"
    result = quiet_sweep(file, "dask", runs, workers=2)
    assert [r.outcome for r in result.points] == ["ran", "ran"], result.summary()
    assert quiet_sweep(file, "local", runs).ok
    local = quiet_sweep(file, SharedLauncher(WithoutKernel(), 1), tmp_path / "local")
    assert [r.state.runs for r in result.points] == [r.state.runs for r in local.points]
    assert collect(runs).equals(collect(tmp_path / "local"))


def test_a_killed_worker_costs_no_point(lab):
    lab.write(range(8))
    executor = DaskExecutor(2, cluster_options=LIGHT)
    with ThreadPoolExecutor(1) as thread:
        sweep = thread.submit(quiet_sweep, lab.file, executor, lab.runs)
        victim = lab.started_seeds(2)[0]
        _, kernel = lab.pids(victim)
        worker = psutil.Process(kernel).parents()[2]  # behind the server of kernels and its worker
        worker.kill()
        wait_for(lambda: not psutil.pid_exists(kernel))
        wait_for(lambda: len(lab.executed) == 3)  # the other worker is busy, so this one is back
        lab.open_gate()
        result = sweep.result(600)
    assert [r.outcome for r in result.points] == ["ran"] * 8, result.summary()
    assert sorted(lab.executed) == sorted([victim, *range(8)])
    assert executor.workers == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_nothing_outlives_a_sweep_on_a_local_cluster(lab, number, monkeypatch):
    lab.write(range(3))
    option = f"preload={json.dumps(LIGHT['preload'])}"
    arguments = ("--executor", "dask", "--workers", "2", "--cluster-option", option)
    driver = lab.program(*arguments, start_new_session=True)
    started = lab.started_seeds(2)
    os.killpg(driver.pid, number) if number == signal.SIGINT else driver.kill()
    assert driver.wait(300) == (130 if number == signal.SIGINT else -number)
    wait_for(lambda: not lab.processes())
    out, err = lab.printed(driver)
    assert out == ""
    if number == signal.SIGINT:
        assert [line for line in err.splitlines() if "to run" not in line] == [INTERRUPTED]
    else:
        monkeypatch.setattr("tempfile.tempdir", str(lab.temporary))
        remove_leftovers()
    assert lab.leftovers() == []
    lab.open_gate()
    result = quiet_sweep(lab.file, "local", lab.runs, workers=2, warm=False)
    assert [r.outcome for r in result.points] == ["ran"] * 3
    assert sorted(lab.executed) == sorted([*started, *range(3)])


@pytest.mark.slow
def test_ctrl_c_while_a_local_cluster_starts_is_one_line(lab):
    lab.write(range(2))
    driver = lab.program("--executor", "dask", "--workers", "2", start_new_session=True)
    wait_for(lambda: len(lab.processes()) > 2 or driver.poll() is not None)  # the driver and the first of the others
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(300) == 130
    wait_for(lambda: not lab.processes())
    assert [line for line in lab.printed(driver)[1].splitlines() if "to run" not in line] == [INTERRUPTED]
    assert lab.leftovers() == []
    assert lab.executed == []


def test_a_running_scheduler_is_used_by_its_address(lab, running):
    lab.write(range(2))
    address = json.loads(running.read_text())["address"]
    executor = DaskExecutor(scheduler=address)
    with ThreadPoolExecutor(1) as thread:
        sweep = thread.submit(quiet_sweep, lab.file, executor, lab.runs)
        lab.started_seeds(2)
        lab.open_gate()
        assert sweep.result(300).ok
    assert {worker for _, _, worker in lab.events} == {"gpu", "plain"}
    assert executor.workers == 2


def test_points_with_a_resource_go_one_at_a_time_to_workers_that_have_it(lab, running):
    lab.write(range(4), name="good")
    executor = on(running, resources={"GPU": 1})
    assert quiet_sweep(lab.file, executor, lab.runs).ok
    assert [(word, worker) for word, _, worker in lab.events] == [("start", "gpu"), ("end", "gpu")] * 4
    assert executor.workers == 1


def test_a_resource_that_no_worker_has_is_waited_for_and_then_an_error(lab, running, monkeypatch, capsys):
    lab.write([0], name="good")
    monkeypatch.setattr(clusters, "WAIT_FOR_WORKERS", 1)
    with pytest.raises(ConfigError, match=r"no worker with GPU=2 came within 1 s"):
        quiet_sweep(lab.file, on(running, resources={"GPU": 2}), lab.runs)
    assert capsys.readouterr().err.count("waiting for a worker with GPU=2") == 1
    assert lab.executed == []


def test_after_a_failure_nothing_new_is_started_on_a_cluster_if_so_wished(lab, running):
    lab.write(range(6), name="raise")
    result = quiet_sweep(lab.file, on(running), lab.runs, keep_going=False)
    outcomes = [r.outcome for r in result.points]
    assert outcomes.count("failed") == len(lab.executed) < 6
    assert outcomes.count("not run") == 6 - len(lab.executed)
    assert all(r.state.cell == 5 for r in result.failed)
    lab.open_gate()
    assert quiet_sweep(lab.file, on(running), lab.runs, retry_failed=True).ok


def test_sweeps_on_one_scheduler_keep_their_folders_apart(lab, running, tmp_path):
    lab.write(range(2), name="good")
    with ThreadPoolExecutor(2) as threads:
        folders = [tmp_path / name for name in ("a", "b")]
        results = list(threads.map(lambda folder: quiet_sweep(lab.file, on(running), folder), folders))
    assert all(r.outcome == "ran" for result in results for r in result.points)
    assert sorted(lab.executed) == [0, 0, 1, 1]


def test_what_the_workers_of_a_killed_sweep_still_finish_is_not_repeated(lab, running):
    lab.write(range(4))
    driver = lab.program("--executor", "dask", "--scheduler", running)
    lab.started_seeds(2)
    driver.kill()
    driver.wait()
    with ThreadPoolExecutor(1) as thread:
        sweep = thread.submit(quiet_sweep, lab.file, on(running), lab.runs)
        lab.open_gate()
        assert sweep.result(300).ok
    assert sorted(lab.executed) == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_scheduler_that_is_killed_costs_what_it_was_executing(lab, tmp_path_factory, capfd):
    machine = Lab(tmp_path_factory.mktemp("lost"))
    try:
        file = start_cluster(machine, one=[])
        lab.write(range(3))
        with ThreadPoolExecutor(1) as thread:
            sweep = thread.submit(quiet_sweep, lab.file, on(file), lab.runs)
            lab.pids(0)
            machine.started[0].kill()
            result = sweep.result(300)
    finally:
        machine.close()
    assert [r.outcome for r in result.points] == ["not run"] * 3
    err = capfd.readouterr().err
    assert err.splitlines()[-1] == "Dask: the scheduler is gone; repeat the command to run what is missing"
    assert "Traceback" not in err
    lab.open_gate()
    assert quiet_sweep(lab.file, "local", lab.runs, workers=2, warm=False).ok
    assert sorted(lab.executed) == [0, 0, 1, 2]


def refused(lab, capsys, *arguments):
    """The one line with which the command refuses."""
    lab.write([0], name="good")
    assert main(["sweep", str(lab.file), "--runs", str(lab.runs), "--executor", "dask", *arguments]) == 2
    out, err = capsys.readouterr()
    line = err.splitlines()[-1]
    assert out == ""
    assert line.startswith("mmsa-lib: error: ")
    assert "Traceback" not in err
    assert lab.executed == []
    return line.removeprefix("mmsa-lib: error: ")


def test_a_scheduler_that_is_not_there_is_one_line(lab, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(clusters, "WAIT_FOR_SCHEDULER", 0.3)
    said = refused(lab, capsys, "--scheduler", "tcp://127.0.0.1:9")
    assert said.startswith("Dask, scheduler tcp://127.0.0.1:9: [Errno 111] Connection refused")
    assert "missing port" in refused(lab, capsys, "--scheduler", "somewhere")
    assert "there is no such scheduler file" in refused(lab, capsys, "--scheduler", str(tmp_path / "no.json"))
    (tmp_path / "half.json").write_text('{"addr')
    assert "no scheduler file" in refused(lab, capsys, "--scheduler", str(tmp_path / "half.json"))


def test_what_is_not_installed_is_said_in_one_line(lab, capsys, monkeypatch):
    remedy = 'run: pip install "mmsa-lib[cluster]"'
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "distributed", None)
        assert refused(lab, capsys) == f"executor dask needs dask[distributed]; {remedy}"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "dask_jobqueue", None)
        assert refused(lab, capsys, "--cluster", "slurm") == f"cluster slurm needs dask-jobqueue; {remedy}"
    monkeypatch.setenv("PATH", "/nowhere")
    assert "submits jobs with qsub, which is not on this machine" in refused(lab, capsys, "--cluster", "pbs")


def test_options_that_contradict_each_other_are_refused(lab, capsys):
    assert "choose one" in refused(lab, capsys, "--scheduler", "tcp://a:1", "--cluster", "slurm")
    assert "unknown cluster 'slrum'; did you mean slurm?" in refused(lab, capsys, "--cluster", "slrum")
    assert "GPU=0 must be a positive number" in refused(lab, capsys, "--resources", "GPU=0")
    assert "at least 1" in refused(lab, capsys, "--workers", "0")
    with pytest.raises(ConfigError, match=r"Dask, local cluster: .*unexpected keyword argument 'colour'"):
        quiet_sweep(lab.file, DaskExecutor(1, cluster_options={"colour": "red"}), lab.runs)
