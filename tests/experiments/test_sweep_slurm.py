"""Sweeps in batch jobs: the emitted array script, and Dask workers as jobs, on a real SLURM of one node."""

import os
import shlex
import subprocess
import sys

import psutil
import pytest
from slurm_node import slurm_node, why_not
from sweep_machinery import quiet_sweep, wait_for

from mmsa_lib.cli import main
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.clusters import slurm_script
from mmsa_lib.experiments.sweep_file import choose, read_points
from mmsa_lib.experiments.sweeps import FINISHED, MISSING, read_state

LAB = "my 100% sweep"  # a blank, and what SLURM takes for a pattern


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    with slurm_node(tmp_path_factory.mktemp("slurm")) as node:
        yield node


def emit(lab, *options):
    """Write the script of the lab's sweep as the command does."""
    path = lab.folder / "job.sh"
    command = ["sweep", str(lab.file), "--runs", str(lab.runs), "--emit-slurm", str(path), *options]
    assert main(command) == 0
    return path


def header(text):
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


def test_the_script_says_what_it_needs(lab, capsys, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", "/some where/data")
    monkeypatch.setenv("MMSA_LIB_PLUGINS", "/mine.py")
    lab.write(range(5), grid={"rate": [0.1, 0.2]})
    options = ["--tasks", "4", "--at-once", "2", "--threads", "3", "--sbatch=--partition=gpu", "--sbatch=--gres=gpu:1"]
    path = emit(lab, *options, "--cold", "--retry-failed", "--only", "rate=0.1")
    text = path.read_text()
    assert capsys.readouterr().out == f"{path}: 5 points; submit with: sbatch {path}\n"
    logs = str(lab.runs).replace("%", "%%")
    assert header(text) == [
        "--job-name=mmsa-s", "--array=0-3%2", "--cpus-per-task=3", f"--output='{logs}/slurm-%A_%a.log'",
        "--partition=gpu", "--gres=gpu:1",
    ]  # fmt: skip
    assert "export MMSA_LIB_DATA='/some where/data'\nexport MMSA_LIB_PLUGINS=/mine.py\n" in text
    last = shlex.split(text.replace("\\\n", "").splitlines()[-1])
    assert last[:6] == ["exec", sys.executable, "-m", "mmsa_lib", "sweep", str(lab.file)]
    assert last[last.index("--shard") + 1] == "$SLURM_ARRAY_TASK_ID/4"
    assert last[-4:] == ["--retry-failed", "--cold", "--only", "rate=0.1"]
    assert lab.runs.is_dir()  # for the logs
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
    assert main(["sweep", str(lab.file), "--runs", str(lab.runs), "--executor", "slurm-script"]) == 0
    assert (lab.runs / "s.slurm.sh").is_file()


def test_every_point_is_in_exactly_one_task(lab):
    lab.write(range(7))
    points = read_points(lab.file)
    for tasks in (1, 3, 7):
        shares = [choose(points, shard=(k, tasks)) for k in range(tasks)]
        assert sorted(point.id for share in shares for point in share) == sorted(point.id for point in points)


def test_what_makes_no_array_is_refused(lab, tmp_path, capsys):
    file, runs = tmp_path / "s.yaml", tmp_path / "runs"
    with pytest.raises(ConfigError, match="leaves no point to run"):
        slurm_script(file, runs, 0)
    for name in ("tasks", "at_once", "threads"):
        with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
            slurm_script(file, runs, 3, **{name: 0})
    with pytest.raises(ConfigError, match="'gpu' is no option of sbatch"):
        slurm_script(file, runs, 3, sbatch=["gpu"])
    assert "--array=0-999\n" in slurm_script(file, runs, 5000)  # SLURM takes no more unless it is told to
    assert "--array=0-2\n" in slurm_script(file, runs, 3, tasks=8)
    lab.write([0])
    lab.runs.touch()
    assert main(["sweep", str(lab.file), "--runs", str(lab.runs), "--emit-slurm", str(tmp_path / "job.sh")]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert not (tmp_path / "job.sh").exists()


def test_the_tasks_do_the_work_and_skip_what_is_finished(lab):
    """The script as SLURM runs it, without SLURM."""
    lab.write(range(3), name="good")
    script = emit(lab, "--tasks", "2", "--cold")

    def said(*tasks):
        running = [lab.start("bash", script, env={"SLURM_ARRAY_TASK_ID": str(k)}) for k in tasks]
        assert [task.wait(200) for task in running] == [0] * len(tasks), [lab.printed(task) for task in running]
        return [lab.printed(task)[0] for task in running]

    assert said(0, 1) == ["s.yaml: 2 ran\n", "s.yaml: 1 ran\n"]
    assert said(0) == ["s.yaml: 2 finished before\n"]
    assert sorted(lab.executed) == [0, 1, 2]


@pytest.mark.slurm
def test_a_killed_task_of_an_array_is_the_only_one_that_a_second_submission_repeats(lab, slurm):
    lab.write(range(5))
    script = emit(lab, "--cold", "--sbatch=--time=10")
    first = slurm.submit(script)
    _, kernel = lab.pids(1)
    task = psutil.Process(kernel).parents()[1]  # behind the worker of the notebook
    assert "--shard" in task.cmdline()
    task.kill()
    wait_for(lambda: not psutil.pid_exists(kernel), 30)
    lab.open_gate()
    slurm.wait()
    states = {point.varied["seed"]: read_state(lab.runs, point).state for point in read_points(lab.file)}
    assert states == {seed: MISSING if seed == 1 else FINISHED for seed in range(5)}
    assert sorted(lab.executed) == list(range(5))
    assert len(list(lab.runs.glob(f"slurm-{first}_*.log"))) == 5

    second = slurm.submit(script)
    slurm.wait()
    assert sorted(lab.executed) == sorted([*range(5), 1])
    assert quiet_sweep(lab.file, "local", lab.runs, warm=False).ok
    assert len(lab.executed) == 6
    said = {path.name: path.read_text().splitlines()[-1] for path in lab.runs.glob(f"slurm-{second}_*.log")}
    assert said == {
        f"slurm-{second}_{k}.log": "s.yaml: 1 ran" if k == 1 else "s.yaml: 1 finished before" for k in range(5)
    }


def in_jobs(folder, **changes):
    """Options of a sweep on a Dask cluster of two jobs."""
    options = {"interface": "lo", "walltime": "00:10:00", "memory": "1GB", "log_directory": folder / "logs", **changes}
    pairs = [f"{key}={value}" for key, value in options.items()]
    return "--executor", "dask", "--cluster", "slurm", "--workers", "2", "--cold", "--cluster-option", *pairs


@pytest.mark.slurm
def test_a_killed_job_of_a_dask_cluster_costs_no_point(lab, slurm, tmp_path):
    pytest.importorskip("dask_jobqueue")
    lab.write(range(6))
    driver = lab.program(*in_jobs(tmp_path), env=slurm.environment)
    victim = lab.started_seeds(2)[0]
    _, kernel = lab.pids(victim)
    worker = psutil.Process(kernel).parents()[1]
    slurm.ask("scancel", "--signal", "KILL", "--full", worker.environ()["SLURM_JOB_ID"])
    wait_for(lambda: not psutil.pid_exists(kernel), 30)
    lab.open_gate()
    assert driver.wait(240) == 0, lab.printed(driver)
    assert lab.printed(driver)[0] == "s.yaml: 6 ran\n"
    assert sorted(lab.executed) == sorted([victim, *range(6)])
    slurm.wait(60)  # the jobs end with the sweep


@pytest.mark.slurm
def test_a_job_that_the_batch_system_refuses_is_one_line(lab, slurm, tmp_path):
    pytest.importorskip("dask_jobqueue")
    lab.write([0], name="good")
    driver = lab.program(*in_jobs(tmp_path, queue="nowhere"), env=slurm.environment)
    assert driver.wait(120) == 2
    out, err = lab.printed(driver)
    assert out == ""
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("mmsa-lib: error: Dask, slurm cluster: ")
    assert "invalid partition specified: nowhere" in line
    assert lab.executed == []
