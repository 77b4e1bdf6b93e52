"""Sweeps against lost power and full disks: what is damaged is made again, and nothing else.

The runs are those of ``06_train``, made without a kernel. Whatever happened, they are those of an undisturbed sweep.
"""

import json
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from sweep_machinery import SharedLauncher, WithoutKernel, quiet_sweep, write_training

from mmsa_lib.cli import main
from mmsa_lib.experiments import collect, files, runs, sweep
from mmsa_lib.experiments import sweeps as store
from mmsa_lib.experiments.files import MANIFEST
from mmsa_lib.experiments.sweeps import LocalExecutor

IN_POINT = (files.DONE, MANIFEST, store.NOTEBOOK, store.POINT, store.RESULT)
IN_RUN = (files.DONE, MANIFEST, store.NOTEBOOK, *files.RESULTS)
PLACES = [("point", name) for name in IN_POINT] + [("run", name) for name in IN_RUN]
SEEDS = range(len(PLACES) + 1)
INTACT = len(PLACES)
"""The seed whose files are left alone."""


def half(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def zeros(path):
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)


def missing(path):
    path.unlink()


class Sweep:
    """A sweep of tiny runs in a folder, executed in this process."""

    def __init__(self, folder, seeds):
        self.folder, self.runs = folder, folder / "runs"
        folder.mkdir(exist_ok=True)
        self.file = write_training(folder / "s.yaml", seeds)

    def run(self):
        """Result, and the seeds that were executed."""
        launcher = WithoutKernel()
        return quiet_sweep(self.file, SharedLauncher(launcher, 1), self.runs), launcher.made

    def completes(self, executed):
        """A rerun executes exactly ``executed``, and the next one nothing."""
        result, made = self.run()
        assert result.ok, result.summary()
        assert sorted(made) == sorted(executed)
        assert self.run()[1] == []
        assert not list(self.runs.glob("*/.*.part"))
        return result


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An undisturbed sweep with a run for each place of damage."""
    sweep = Sweep(tmp_path_factory.mktemp("finished"), SEEDS)
    assert sweep.completes(SEEDS)
    return sweep


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the undisturbed sweep, hard links included; each point with the folder of its run."""
    sweep = Sweep(tmp_path / "copy", SEEDS)
    shutil.copytree(finished.runs, sweep.runs)
    result, made = sweep.run()
    assert made == []
    sweep.folders = {}
    for r in result.points:
        (name,) = r.state.runs
        seed, point, run = r.point.varied["seed"], store.point_folder(sweep.runs, r.point), sweep.runs / name
        (run / store.NOTEBOOK).unlink()
        os.link(point / store.NOTEBOOK, run / store.NOTEBOOK)
        sweep.folders[seed] = {"point": point, "run": run}
    return sweep


@pytest.fixture(scope="module")
def expected(finished):
    """What a sweep of the first seeds collects."""
    table = collect(finished.runs)

    def rows(seeds):
        return table[table["seed"].isin(list(seeds)) | table["seed"].isna()].reset_index(drop=True)

    return rows


def same(found, wanted):
    pd.testing.assert_frame_equal(found, wanted)


@pytest.mark.parametrize("damage", [half, empty, zeros, missing])
def test_what_lost_its_content_is_made_again_and_nothing_else(copy, expected, damage):
    for seed, (folder, name) in enumerate(PLACES):
        damage(copy.folders[seed][folder] / name)
    damaged = set(SEEDS) - {INTACT}
    if damage is missing:
        damaged -= {PLACES.index(("run", store.NOTEBOOK))}  # the notebook is there, in its point
    copy.completes(damaged)
    same(collect(copy.runs), expected(SEEDS))


def test_what_was_changed_is_made_again_with_one_line(copy, expected):
    point, other = copy.folders[0]["point"], copy.folders[1]["point"]
    result = json.loads((point / store.RESULT).read_text())
    (point / store.RESULT).write_text(json.dumps({**result, "seconds": 0.1}))
    manifest = json.loads((other / MANIFEST).read_text())  # what is not listed could be anything
    (other / MANIFEST).write_text(json.dumps({name: manifest[name] for name in manifest if name != store.RESULT}))
    (copy.folders[2]["run"] / "metrics.csv").write_text("split,metric,value\n")
    lines = []
    launcher = WithoutKernel()
    outcome = sweep(copy.file, SharedLauncher(launcher, 1), runs=copy.runs, report=lines.append)
    assert outcome.ok
    assert launcher.made == [0, 1, 2]
    told = [line for line in lines if line.endswith("; it is made again")]
    assert len(told) == 3
    assert "result.json differs from its manifest" in told[0]
    assert "manifest.json is missing or leaves files out" in told[1]
    assert f"the run {copy.folders[2]['run'].name} behind it is damaged or gone" in told[2]
    same(collect(copy.runs), expected(SEEDS))


def test_leftovers_of_a_crash_do_no_harm(copy, expected):
    point, run = copy.folders[0]["point"], copy.folders[0]["run"]
    for folder in (point, run, copy.runs, copy.runs / "sweep"):
        (folder / ".metrics.csv.abc.part").write_bytes(b"\0" * 10)
    for lock in (copy.runs / ".locks").iterdir():
        lock.write_bytes(b"")
    (copy.runs / ".locks" / "point-0123456789ab.lock").write_bytes(b"\0" * 5)
    (copy.runs / "sweep" / "0123456789ab").mkdir()
    (copy.runs / "0123456789ab").mkdir()
    (point / files.ERROR).write_text('{"cell": 5, "err')  # of an earlier failure, in a finished folder
    half_written = {1: '{"cell": 5, "err', 2: "", 3: "\0" * 20, 4: "[1]", 5: '{"cell": 5, "other": 1}'}
    for seed, text in half_written.items():
        (copy.folders[seed]["point"] / files.DONE).unlink()
        (copy.folders[seed]["point"] / files.ERROR).write_text(text)
    shutil.rmtree(copy.folders[6]["run"])
    result, made = copy.run()
    assert result.ok
    assert made == [*half_written, 6]
    same(collect(copy.runs), expected(SEEDS))


@pytest.mark.parametrize("damage", [None, half, empty, zeros, missing])
def test_an_interrupted_run_goes_on_from_a_whole_checkpoint_only(tmp_path, expected, monkeypatch, damage):
    sweep = Sweep(tmp_path / "cut", [0])

    def cut(*_):
        raise SystemExit  # as sudden as a kill: no `except Exception` sees it

    with monkeypatch.context() as patch:
        patch.setattr(runs, "_write_results", cut)
        with pytest.raises(SystemExit):
            sweep.run()
    (checkpoint,) = sweep.runs.glob("*/checkpoint.pt")
    if damage is not None:
        damage(checkpoint)
    sweep.completes([0])
    same(collect(sweep.runs), expected([0]))
    training = files.read_json(checkpoint.with_name(files.ENVIRONMENT))["training"]
    assert training["resumed_after"] == (2 if damage is None else 0)
    assert not checkpoint.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@contextmanager
def filled(place, room):
    """Nothing but ``room`` KiB is left on the disk."""
    filler = place / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(place).free - room * 1024))
    yield
    filler.unlink()


def whole(folder, name):
    """Whether a folder says that it is finished; then everything in it is there."""
    if not (folder / files.DONE).is_file():
        return False
    assert (folder / files.DONE).read_text().strip() == folder.name
    assert (folder / name).stat().st_size > 0
    return True


def test_a_full_disk_is_said_in_one_line_and_a_rerun_completes(small_disk, tmp_path, expected, monkeypatch, capsys):
    sweep = Sweep(tmp_path / "full", [0, 1])
    sweep.runs = small_disk / "runs"
    monkeypatch.setattr(LocalExecutor, "launcher", SharedLauncher(WithoutKernel()).launcher)
    command = ["sweep", str(sweep.file), "--runs", str(sweep.runs), "--workers", "1"]
    met = set()
    for room in (0, 8, 24, 64):  # a point with its run needs about 230
        with filled(small_disk, room):
            assert main(command) == 1
            out, err = capsys.readouterr()
            (told,) = [line for line in err.splitlines() if line.startswith("the disk")]
            assert (
                told == f"the disk of {sweep.runs} is full; nothing new is started; free space and repeat the command"
            )
            assert out.splitlines()[0] == "s.yaml: 1 failed, 1 not run"
            assert out.count("No space left on device") == 1
            assert "Traceback" not in out + err
            assert not any(whole(folder, store.NOTEBOOK) for folder in sweep.runs.glob("sweep/*"))
            for done in sweep.runs.glob("*/DONE"):
                assert whole(done.parent, files.MODEL)
            met.add(out.partition(": No space")[0].rpartition("/")[2].partition(":")[0])
    assert len(met) >= 3, met  # it was full at different moments
    assert main(command) == 0
    same(collect(sweep.runs), expected([0, 1]))
    sweep.completes([])


def test_files_that_may_not_grow_are_no_results(tmp_path, expected):
    sweep = Sweep(tmp_path / "limited", [0, 1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, started in ((4_000, []), (10_000, [0, 1])):  # the copy that is executed; what the run writes
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            result, made = sweep.run()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert made == started
        assert not result.ok
        assert [r.state.passing for r in result.failed] == [True, True]
        assert all("File too large" in r.state.message for r in result.failed), result.summary()
        assert not list(sweep.runs.glob("sweep/*/DONE"))
    sweep.completes([0, 1])
    same(collect(sweep.runs), expected([0, 1]))
