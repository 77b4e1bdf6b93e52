"""``mmsa-lib doctor``: what is broken is told from what merely is not here, and each with what to do."""

import errno
import json
import tomllib
from types import SimpleNamespace

import pytest
import torch

from mmsa_lib import paths
from mmsa_lib.cli import doctor, main
from mmsa_lib.data.registry import register
from mmsa_lib.data.store import write_store

CARD = SimpleNamespace(name="A card", total_memory=80e9)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMSA_LIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MMSA_LIB_MASKS", raising=False)


@pytest.fixture
def told(capsys, monkeypatch):
    """Run some of the checks: the exit code, the JSON, and the lines for people."""

    def run(*names):
        monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in names or doctor.CHECKS})
        code = main(["doctor", "--json"])
        report = json.loads(capsys.readouterr().out)
        assert main(["doctor"]) == code
        return code, report, capsys.readouterr()

    return run


def stores(tmp_path, record, *names):
    for name in names:
        record.name = name
        write_store(record, tmp_path / "data" / "stores" / f"{name}.h5")
    return [tmp_path / "data" / "stores" / f"{name}.h5" for name in names]


@pytest.fixture
def record():
    from test_bad_input import record

    return record()


def test_everything_is_reported_and_nothing_is_left_behind(told, tmp_path):
    checks = set(doctor.CHECKS)
    code, report, said = told()
    assert code == 0
    assert set(report) == checks
    assert all(found["ok"] for found in report.values())
    assert "384 wide" in report["text model"]["found"]
    assert report["versions"]["details"]["packages"]["torch"] == torch.__version__
    assert len(said.out.splitlines()) == len(checks)
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_broken(told, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMSA_LIB_RUNS", str(tmp_path / "file" / "runs"))
    code, report, said = told("folders")
    assert (code, report["folders"]["ok"]) == (2, False)
    assert said.out.startswith("BROKEN  folders")
    assert "is a file, not a folder; choose another folder with MMSA_LIB_RUNS or --runs" in said.err


def test_a_folder_that_may_only_be_read_is_no_fault(told, monkeypatch, tmp_path):
    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)  # permissions don't stop root
    code, _, said = told("folders")
    assert code == 0
    assert said.out.startswith("READ-ONLY folders")
    for variable in ("MMSA_LIB_DATA", "MMSA_LIB_RUNS or --runs"):
        assert f"READ-ONLY, Permission denied; to write elsewhere: {variable})" in said.out


def test_free_space_is_told_and_too_little_of_it(told, monkeypatch):
    for free, state in ((5e9, "ok"), (2e8, "REMARK")):
        monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        code, report, said = told("folders")
        assert (code, report["folders"]["state"]) == (0, state)
        assert report["folders"]["details"]["runs"]["free_gb"] == round(free / 1e9, 1)
        assert f"{free / 1e9:.1f} GB free" in said.out
    assert "free space, or write elsewhere: MMSA_LIB_DATA" in said.out


def test_stores_are_named_with_their_fingerprints(told, tmp_path, record):
    stores(tmp_path, record, "one", "two")
    code, report, said = told("data")
    found = report["data"]["details"]["sets"]
    assert code == 0
    assert list(found) == ["one", "two"]
    for name, one in found.items():
        assert f"{name} {one['fingerprint'][:12]}" in said.out
        assert len(one["fingerprint"]) == 64


def test_a_damaged_store_is_named_with_what_to_do_and_hides_no_other(told, tmp_path, record):
    first, _, third = stores(tmp_path, record, "one", "two", "zwei")
    first.write_bytes(first.read_bytes()[:-300])
    third.write_bytes(b"id,label\n")
    code, report, said = told("data")
    states = {name: one["state"] for name, one in report["data"]["details"]["sets"].items()}
    assert (code, states) == (2, {"one": "damaged", "two": "ok", "zwei": "damaged"})
    for path in (first, third):
        assert str(path) in said.out
    assert said.out.count("build or import the data set again") == 2
    assert "two " in said.out


def test_a_store_that_is_gone_breaks_nothing(told, tmp_path, record):
    stores(tmp_path, record, "one")
    write_store(record, tmp_path / "elsewhere" / "lost.h5")
    register("lost", tmp_path / "elsewhere" / "lost.h5")
    (tmp_path / "elsewhere" / "lost.h5").unlink()
    code, report, said = told("data")
    assert (code, report["data"]["state"]) == (0, "REMARK")
    assert report["data"]["details"]["sets"]["lost"]["state"] == "gone"
    assert "the store of 'lost' is gone from" in said.out
    assert "build or import the data set again" in said.out


def test_a_registry_that_is_no_json_says_what_to_do(told, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.json").write_text("{")
    code, _, said = told("data")
    assert code == 2
    assert "delete it and register your stores again" in said.err


@pytest.mark.parametrize(
    ("cuda", "cards", "driver", "words"),
    [
        (None, [], "", "is a CPU build"),
        ("12.8", [], "", "is a CUDA 12.8 build, but no NVIDIA driver answers"),
        ("12.8", [], "550.1", "is a CUDA 12.8 build, but driver 550.1 shows no card"),
        ("12.8", [CARD, CARD], "550.1", "A card with 80.0 GB, A card with 80.0 GB; driver 550.1, CUDA 12.8"),
    ],
)
def test_a_gpu_or_why_there_is_none(told, monkeypatch, cuda, cards, driver, words):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: cards[i])
    monkeypatch.setattr(doctor, "_driver", lambda: driver)
    code, report, said = told("devices")
    assert (code, report["devices"]["state"]) == (0, "ok")
    assert words in said.out
    assert len(report["devices"]["details"]["gpus"]) == len(cards)


def test_more_threads_than_cores_are_a_remark(told, monkeypatch):
    monkeypatch.setattr(doctor.os, "sched_getaffinity", lambda pid: {3}, raising=False)
    for threads, state in ((1, "ok"), (8, "REMARK")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        code, report, said = told("threads")
        assert (code, report["threads"]["state"]) == (0, state)
        assert report["threads"]["details"]["cores"] == 1
    assert "set OMP_NUM_THREADS=1" in said.out


@pytest.fixture
def versions(monkeypatch):
    """Pretend that packages are of other versions, or absent."""
    from mmsa_lib.experiments import files

    real = files.package_version

    def pretend(**changed):
        monkeypatch.setattr(files, "package_version", lambda name: changed.get(name, real(name)))

    return pretend


def test_what_is_optional_is_no_fault_and_what_is_needed_is(told, versions):
    versions(dask=None, papermill=None)
    code, report, said = told("notebook tools", "optional")
    assert code == 0
    assert all(found["state"] == "ok" for found in report.values())
    assert "cluster: dask not installed (pip install -e '.[cluster]')" in said.out
    assert "lab: papermill not installed (pip install -e '.[lab]')" in said.out
    assert report["optional"]["details"]["cluster"]["dask"] is None


def test_a_needed_package_that_is_absent_or_old(told, versions):
    versions(h5py=None)
    code, _, said = told("versions")
    assert code == 2
    assert "not installed: h5py; run: pip install -e '.'" in said.err
    versions(torch="1.9")
    code, report, said = told("versions")
    assert (code, report["versions"]["state"]) == (0, "REMARK")
    assert "run: pip install 'torch>=2.11'" in said.out


def test_what_is_asked_for_is_found_without_a_checkout_too(monkeypatch):
    from importlib import metadata

    project = tomllib.loads((paths.project_root() / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(f'{one}; extra == "{extra}"' for extra, of in
             project["optional-dependencies"].items() for one in of)]  # fmt: skip
    expected = {extra: [one.name for one in of] for extra, of in doctor._asked().items()}
    monkeypatch.setattr(paths, "project_root", lambda: None)
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert {extra: [one.name for one in of] for extra, of in doctor._asked().items()} == expected
    assert doctor._install("lab") == "pip install 'mmsa-lib[lab]'"
