from __future__ import annotations

import errno
import json
import math
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from threading import Thread
from unittest.mock import Mock

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from mmsa_lib import experiments
from mmsa_lib.data.batch import Utterances
from mmsa_lib.errors import DataError, RunError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.experiments import files, runs
from mmsa_lib.experiments.files import RUN_LOG, logged_runs, write_manifest
from mmsa_lib.experiments.results import collect
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.methods.base import Method
from mmsa_lib.methods.fusion_baselines import TextOnly

WRITTEN = {
    "config.json", "environment.json", "history.csv", "metrics.csv", "constants.csv", "spread.csv", "terms.csv",
    "predictions.h5", "model.safetensors", "inputs.safetensors", "manifest.json", "DONE",
}  # fmt: skip


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def finished(small_config, tmp_path):
    return run(small_config(), tmp_path, progress="none")


def test_a_finished_run_leaves_exactly_its_files(finished):
    assert names(finished.folder) == WRITTEN
    assert finished.folder.name == (finished.folder / "DONE").read_text().strip()
    modes = {path.stat().st_mode & 0o777 for path in finished.folder.iterdir()}
    assert len(modes) == 1


def test_metrics_follow_from_the_predictions_on_disk(finished):
    frame = finished.metrics
    assert list(pd.read_csv(finished.folder / files.METRICS)) == list(files.METRIC_COLUMNS)
    for split, count in (("valid", 24), ("test", 32)):
        stored = finished.predictions(split)
        data = finished.load_data()[split]
        assert stored.ids == data.ids
        assert len(stored.ids) == count
        assert stored.groups == data.groups
        expected = task_metrics(data.task, stored.predictions, stored.labels)
        np.testing.assert_array_equal(stored.clean, data.factors["sentiment"][:, 0])
        if split == "test":  # nothing is chosen by what nobody has: noise-free labels
            expected["mae_clean"] = np.abs(stored.predictions - stored.clean).mean()
            expected["corr_clean"] = np.corrcoef(stored.predictions, stored.clean)[0, 1]
        found = frame[frame["split"] == split].set_index("metric")["value"]
        assert found.to_dict() == pytest.approx(expected, nan_ok=True)


def test_the_validation_metric_is_the_best_value_of_the_history(finished):
    history = finished.history.query("split == 'valid' and name == 'loss/task'")
    mae = finished.metrics.query("split == 'valid' and metric == 'mae'")["value"].item()
    assert mae == pytest.approx(history["value"].min(), rel=1e-6)
    assert finished.environment["training"]["best_epoch"] == history.loc[history["value"].idxmin(), "epoch"]


def test_constants_are_fitted_to_the_training_labels(finished):
    data = finished.load_data()
    clean = data["test"].factors["sentiment"][:, 0]
    expected = constant_metrics(data["test"].task, data["train"].labels, data["test"].labels, clean)
    found = finished.constants.pivot_table(index="method", columns="metric", values="value", dropna=False)
    for key in ("mae", "mae_clean", "acc7"):
        assert found[key].to_dict() == pytest.approx(expected[key].to_dict())
    middle = float(data["train"].labels.mean())
    assert found.loc["constant_mean", "mae_clean"] == pytest.approx(float((clean - middle).abs().mean()))
    drawn = (data["train"].labels[:, None] - clean).abs().mean()
    assert found.loc["constant_prior", "mae_clean"] == pytest.approx(float(drawn))
    assert (finished.constants["run_id"] == "").all()
    assert finished.constants["seed"].isna().all()


def test_constants_know_the_labelled_samples_alone(small_config, tmp_path):
    done = run(small_config(data={**small_config().data, "labelled": 7}), tmp_path)
    labels = done.load_data()["train"].labels
    test = done.load_data()["test"].labels
    known = labels[~labels.isnan()]
    assert len(known) == 7
    found = done.constants.query("method == 'constant_mean' and metric == 'mae'")["value"].item()
    assert found == pytest.approx(float((test - known.mean()).abs().mean()))
    assert done.config.data_changes["labelled"] == 7
    assert np.isfinite(done.history["value"]).all()


def test_config_and_environment_say_what_was_run_and_name_no_path(finished, small_config, tmp_path):
    stored = json.loads((finished.folder / "config.json").read_text())
    assert stored["config"] == small_config().model_dump(mode="json")
    assert stored["resolved"]["config"]["learning_rate"] > 0
    environment = finished.environment
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["determinism"]["threads"] == 1
    assert set(environment) >= {"git", "platform", "python", "device", "code_fingerprint", "data_fingerprint"}
    assert str(tmp_path) not in (finished.folder / "environment.json").read_text()


def test_a_finished_run_is_not_repeated_and_force_repeats_it(finished, small_config, tmp_path, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in finished.folder.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(runs, "fit", None)  # training now would be an error
        again = run(small_config(), tmp_path)
    assert again.finished_before
    assert {path.name: path.stat().st_mtime_ns for path in finished.folder.iterdir()} == before
    forced = run(small_config(), tmp_path, force=True, progress="none")
    assert not forced.finished_before
    assert forced.folder == finished.folder
    assert (forced.folder / "DONE").stat().st_mtime_ns > before["DONE"]
    elsewhere = shutil.move(forced.folder, tmp_path.with_name("elsewhere"))
    forced.folder.symlink_to(elsewhere)
    assert not run(small_config(), tmp_path, force=True, progress="none").finished_before


@pytest.mark.parametrize("name", [*files.RESULTS, "manifest.json", "DONE"])
@pytest.mark.parametrize("damage", ["empty", "half", "zeros"])
def test_a_finished_run_that_lost_content_is_made_again(finished, small_config, tmp_path, capsys, name, damage):
    """What a machine leaves that lost its power: the names are there, the content is not."""
    path = finished.folder / name
    good = path.read_bytes()
    path.write_bytes({"empty": b"", "half": good[: len(good) // 2], "zeros": bytes(len(good))}[damage])
    again = run(small_config(), tmp_path, progress="none")
    assert not again.finished_before
    assert f"{name} in {finished.folder} lost its content" in capsys.readouterr().err
    assert names(again.folder) == WRITTEN
    assert run(small_config(), tmp_path, progress="none").finished_before
    if name not in ("environment.json", "manifest.json"):
        assert path.read_bytes() == good


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def forge(folder, name, change):
    """Change a JSON file of a run and let its manifest agree."""
    edit(folder / name, change)
    write_manifest(folder, files.RESULTS)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


TAMPERED = {
    "weights": lambda run: flip(run / "model.safetensors"),
    "predictions": lambda run: flip(run / "predictions.h5"),
    "metrics": lambda run: (run / "metrics.csv").write_text((run / "metrics.csv").read_text().replace("0.", "0.1")),
    "no DONE content": lambda run: (run / "DONE").write_text(""),
    "DONE of another": lambda run: (run / "DONE").write_text("0123456789ab\n"),
    "a file less": lambda run: (run / "spread.csv").unlink(),
    "empty manifest": lambda run: (run / "manifest.json").write_text("{}"),
    "manifest of a list": lambda run: (run / "manifest.json").write_text("[1]"),
    "a deep manifest": lambda run: (run / "manifest.json").write_text("[" * 10**5),
    "no manifest": lambda run: (run / "manifest.json").unlink(),
    "another seed": lambda run: forge(run, "config.json", lambda c: c["config"].update(seed=5)),
    "another setting": lambda run: forge(run, "config.json", lambda c: c["resolved"]["config"].update(dropout=0.9)),
    "another rate": lambda run: forge(run, "config.json", lambda c: c["config"]["config"].update(dropout=0.9)),
    "another code": lambda run: forge(run, "environment.json", lambda c: c.update(code_fingerprint="0" * 64)),
    "no fingerprint": lambda run: forge(run, "environment.json", lambda c: c.pop("data_fingerprint")),
    "a list of facts": lambda run: forge(run, "environment.json", lambda c: c.update(training=[])),
    "no config": lambda run: forge(run, "config.json", lambda c: c.pop("config")),
}  # fmt: skip


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_run_that_was_tampered_with_is_neither_used_nor_shown(small_config, tmp_path, capsys, kind):
    config = small_config(config={"max_epochs": 1, "batch_size": 16, "dropout": 0.1})
    good, bad = (run(small_config(seed=1), tmp_path, progress="none"), run(config, tmp_path, progress="none"))
    TAMPERED[kind](bad.folder)
    for use in (find_run, collect):
        with pytest.raises(DataError, match=f"{bad.folder.name}|no finished run") as caught:
            use(bad.folder)
        assert "\n" not in str(caught.value)
    capsys.readouterr()
    assert set(collect(tmp_path)["run_id"]) == {good.run_id, ""}
    assert not run(config, tmp_path, progress="none").finished_before
    assert set(collect(tmp_path)["run_id"]) == {good.run_id, bad.run_id, ""}


def test_what_is_left_out_is_said_in_one_line_with_the_remedy(finished, tmp_path, capsys):
    flip(finished.folder / "metrics.csv")
    with pytest.raises(DataError, match="1 left out"):
        collect(tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"left out: metrics.csv in {finished.folder} lost its content or was changed; repeat the run"
    )


def test_a_copy_under_another_name_is_left_out(finished, tmp_path, capsys):
    shutil.copytree(finished.folder, tmp_path / "copy")
    assert set(collect(tmp_path)["run_id"]) == {finished.run_id, ""}
    assert f"copy is not named as the run in it, {finished.run_id}" in capsys.readouterr().err


def test_runs_of_the_first_release_are_taken_with_a_warning(finished, tmp_path, capsys):
    (finished.folder / "manifest.json").unlink()
    edit(finished.folder / "environment.json", lambda facts: facts.pop("machine"))
    assert set(collect(tmp_path)["run_id"]) == {finished.run_id, ""}
    assert find_run(finished.run_id, tmp_path).run_id == finished.run_id
    assert "1 runs in" in (err := capsys.readouterr().err)
    assert err.count("manifest.json") == 1


def test_a_finished_run_is_returned_from_where_nobody_can_write(finished, small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(runs.FileLock, "acquire", Mock(side_effect=OSError(errno.EROFS, "Read-only file system")))
    assert run(small_config(), tmp_path, progress="none").finished_before
    with pytest.raises(DataError, match="Read-only file system; choose another folder"):
        run(small_config(seed=5), tmp_path, progress="none")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 7.45 GiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["fit", "load"])
def test_too_little_memory_is_one_line_with_what_to_do(small_config, tmp_path, monkeypatch, error, where):
    monkeypatch.setattr(runs, where, Mock(side_effect=error))
    with pytest.raises(RunError, match=r"out of memory.*choose a smaller batch_size") as caught:
        run(small_config(), tmp_path, progress="none")
    assert "\n" not in str(caught.value)
    written = list(tmp_path.glob("*/error.json"))
    assert len(written) == (where == "fit")
    assert not list(tmp_path.glob("*/DONE"))


def test_equal_configurations_give_equal_files_everywhere_whatever_torch_computes_with(
    finished, small_config, tmp_path
):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        other = run(small_config(), tmp_path / "elsewhere", progress="none")
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert other.run_id == finished.run_id
    for name in WRITTEN - {"environment.json", "manifest.json"}:
        assert (other.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name
    two = run(small_config(settings={"device": "cpu", "threads": 2}), tmp_path, progress="none")
    assert two.run_id != finished.run_id
    assert two.environment["determinism"]["threads"] == 2


def test_runs_are_logged_where_the_environment_asks_for_it(small_config, tmp_path, monkeypatch):
    log = tmp_path / "log"
    monkeypatch.setenv(RUN_LOG, str(log))
    first = run(small_config(), tmp_path / "runs", progress="none")
    run(small_config(), tmp_path / "runs", progress="none")
    assert logged_runs(log) == [first.folder.resolve()]
    assert logged_runs(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"seed": 1112}, False),
        ({"config": {"max_epochs": 2, "batch_size": 12}}, False),
        ({"data": {"samples": (48, 24, 33), "dims": (12, 8, 8), "length": 6}}, False),
        ({"settings": {"device": "cpu", "patience": 2}}, False),
        ({"method": "early_fusion"}, False),
        ({"settings": {"device": "cpu", "checkpoint_every": 2}}, True),
        ({"data": {"samples": [48, 24, 32], "dims": [12, 8, 8], "length": 6, "in_memory": True}}, True),
    ],
)
def test_the_identifier_depends_on_what_can_change_a_number(small_config, change, same, tmp_path):
    def identifier(config):
        data = runs.load(config.dataset, config.fold, **config.load_options)
        return runs._identify(config, runs._create(config, data["train"]), data)["run_id"]

    assert (identifier(small_config(**change)) == identifier(small_config())) is same


class Interrupted(BaseException):
    """Stands for a kill: like KeyboardInterrupt, it is no Exception."""


def interrupt_in_epoch(monkeypatch, epoch, error=Interrupted):
    original = Method.start_epoch

    def start_epoch(self, number):
        if number == epoch:
            raise error("in the middle")
        original(self, number)

    monkeypatch.setattr(Method, "start_epoch", start_epoch)


@pytest.mark.parametrize("more", [{}, {"method": "early_fusion", "missing": "stochastic", "protocols": ("rate",)}])
def test_an_interrupted_run_is_resumed_and_equals_an_uninterrupted_one(small_config, tmp_path, monkeypatch, more):
    monkeypatch.setenv("MMSA_LIB_MASKS", str(tmp_path / "masks"))
    config = small_config(config={"max_epochs": 4, "batch_size": 16}, **more)
    whole = run(config, tmp_path / "whole", progress="none")
    with monkeypatch.context() as patch:
        interrupt_in_epoch(patch, 3)
        with pytest.raises(Interrupted):
            run(config, tmp_path / "broken", progress="none")
    folder = tmp_path / "broken" / whole.run_id
    left = sorted(name.partition("-")[0] for name in names(folder))
    assert left == ["checkpoint.best", "checkpoint.pt", "config.json", "environment.json"]
    resumed = run(config, tmp_path / "broken", progress="none")
    assert resumed.environment["training"]["resumed_after"] == 2
    assert names(folder) == WRITTEN
    for name in ("history.csv", "metrics.csv", "predictions.h5", "spread.csv"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_leftovers_of_anything_else_are_removed_first(small_config, tmp_path, monkeypatch):
    config = small_config()
    with monkeypatch.context() as patch:
        interrupt_in_epoch(patch, 2)
        with pytest.raises(Interrupted):
            run(config, tmp_path, progress="none")
    (folder,) = tmp_path.glob("[!.]*")
    edit(folder / "config.json", lambda stored: stored.update(run_id="another"))
    (folder / "metrics.csv").write_text("from another run")
    (folder / "stray").mkdir()
    result = run(config, tmp_path, progress="none")
    assert result.environment["training"]["resumed_after"] == 0
    assert names(folder) == WRITTEN


def test_a_failed_run_says_why_and_can_be_repeated(small_config, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        original = TextOnly.losses
        patch.setattr(TextOnly, "losses", lambda s, b, o: {k: v * math.nan for k, v in original(s, b, o).items()})
        with pytest.raises(RunError, match=r"raw/task is nan.*epoch 1, step 1"):
            run(small_config(), tmp_path, progress="none")
    (folder,) = tmp_path.glob("[!.]*")
    assert names(folder) == {"config.json", "environment.json", "error.json"}
    error = json.loads((folder / "error.json").read_text())
    assert error["type"] == "RunError"
    assert "raw/task is nan" in error["message"]
    assert names(run(small_config(), tmp_path, progress="none").folder) == WRITTEN


def test_a_failure_is_reported_even_where_it_cannot_be_written_down(small_config, tmp_path, monkeypatch):
    write_json = runs.files.write_json

    def full_disk(path, content):
        if path.name == "error.json":
            raise DataError("no space left")
        write_json(path, content)

    monkeypatch.setattr(runs.files, "write_json", full_disk)
    interrupt_in_epoch(monkeypatch, 2, RunError)
    with pytest.raises(RunError, match="in the middle"):
        run(small_config(), tmp_path, progress="none")


def test_the_test_split_is_evaluated_once_after_training(small_config, tmp_path, monkeypatch):
    calls = []
    for name, given in (("predict", runs.predict), ("fit", runs.fit)):

        def spied(method, *rest, name=name, given=given, **more):
            calls.append((name, [part.split for part in rest if isinstance(part, Utterances)]))
            return given(method, *rest, **more)

        monkeypatch.setattr(runs, name, spied)
    run(small_config(), tmp_path, progress="none")
    assert calls == [("fit", ["train", "valid"]), ("predict", ["valid"]), ("predict", ["test"])]


def test_the_oracle_is_recorded_beside_the_run_and_changes_no_other_number(finished, small_config, tmp_path):
    watched = run(small_config(oracle=True), tmp_path, progress="none")
    assert watched.run_id != finished.run_id
    history = watched.history
    oracle = history[history["split"] == "oracle"]
    assert oracle.groupby("name").size().eq(2).all()
    pd.testing.assert_frame_equal(history[history["split"] != "oracle"].reset_index(drop=True), finished.history)
    pd.testing.assert_series_equal(watched.metrics["value"], finished.metrics["value"])
    at_best = oracle[oracle["epoch"] == watched.environment["training"]["best_epoch"]].set_index("name")["value"]
    reported = watched.metrics.query("split == 'test'").set_index("metric")["value"]
    assert at_best["mae"] == reported["mae"]


def test_two_processes_do_not_make_the_same_run_twice(small_config, tmp_path):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        made = [pool.submit(run, small_config(), tmp_path, progress="none") for _ in range(2)]
        assert sorted(result.result(timeout=600).finished_before for result in made) == [False, True]


def test_a_folder_that_cannot_be_written(small_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another folder"):
        run(small_config(), tmp_path / "file" / "runs", progress="none")


def test_find_run_by_folder_and_by_identifier(finished, tmp_path):
    assert find_run(finished.folder).config.load_options == finished.config.load_options
    assert find_run(finished.run_id, tmp_path).folder == finished.folder.resolve()
    with pytest.raises(DataError, match="no finished run"):
        find_run("nothing", tmp_path)


def test_tables_survive_csv(tmp_path):
    frame = pd.DataFrame(
        [["0012", "m", "no_a", '{"a": 1}', "{}", "d", "f", 1111, "frames", "0.1", "test", "mae", 0.1 + 0.2],
         ["", "constant_mean", "", "{}", "{}", "d", "f", pd.NA, "complete", "0.0", "test", "corr", math.nan]],
        columns=list(files.METRIC_COLUMNS),
    ).astype({"seed": "Int64"})  # fmt: skip
    files.write_table(tmp_path / "t.csv", frame)
    again = files.read_table(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(again[frame.columns], frame, check_dtype=False, check_exact=True)


def test_a_folder_of_an_older_version_is_described_by_its_configuration(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "old" / finished.run_id)
    old = finished.metrics.drop(columns=["label", "changes", "data_options"]).assign(variant="whatever=it said")
    files.write_table(folder / files.METRICS, old)
    again = files.read_table(folder / files.METRICS, files.METRIC_COLUMNS)
    names = {column: again[column].unique().tolist() for column in ("label", "changes", "data_options")}
    assert names == {key: [value] for key, value in finished.config.described().items()}


def test_levels_are_spelled_in_one_way_whoever_wrote_them(finished):
    """Older files of predictions name level 0 ``0``, a table that pandas wrote may hold ``0`` or ``0.0``."""
    path = finished.folder / files.PREDICTIONS
    with h5py.File(path, "r+") as file:
        file.move("complete/0.0", "complete/0")
    assert finished.predictions(level="0.0").ids == finished.predictions(level=0).ids
    with pytest.raises(DataError, match=r"it has complete/0\.0/test, complete/0\.0/valid"):
        finished.predictions(level="none")
    table = finished.folder / files.METRICS
    table.write_text(table.read_text().replace(",0.0,", ",0,"))
    assert set(files.read_table(table)["level"]) == {"0.0"}


def test_waiting_for_another_process_is_said(finished, small_config, tmp_path, capsys):
    lock = runs.FileLock(tmp_path / ".locks" / f"{finished.run_id}.lock", thread_local=False)
    lock.acquire()
    waiting = Thread(target=run, args=(small_config(), tmp_path), kwargs={"progress": "none"})
    waiting.start()
    err, last_resort = "", time.monotonic() + 300
    while "waiting for it" not in err and time.monotonic() < last_resort:
        err += capsys.readouterr().err
        time.sleep(0.05)
    lock.release()
    waiting.join(timeout=300)
    assert f"run {finished.run_id} is being made by another process" in err
    assert not waiting.is_alive()
    assert (finished.folder / "DONE").exists()


def test_the_package_gives_the_function_also_after_its_modules_were_imported():
    assert experiments.run is run
    assert set(experiments.__all__) == {name for name in experiments.__all__ if hasattr(experiments, name)}
    with pytest.raises(AttributeError):
        _ = experiments.nothing
