"""Notebook 05's tables from real runs of a few samples, finished and failed."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from companion import hrlf
from companion.__main__ import main
from companion.hrlf import agreement, called, chosen_values, collapse, encode, ended_runs, grid_of, spread_trace
from companion.names import CHOSEN, PRINTED
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.errors import RunError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import collect
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.methods import create
from mmsa_lib.methods.hrlf import state_std
from mmsa_lib.training import predict

CHOICE = {"lambda_frf": 0.1, "lambda_hal": 0.1}
PROTOCOLS = ("frames", "subsets")


def made(folder, protocols=PROTOCOLS, seed=1, label="", **config):
    settings = {"device": "cpu", "max_epochs": 2, "batch_size": 16}
    data = {"samples": (48, 24, 40), "dims": (12, 8, 8), "length": 6, "speaker_size": 4}
    common = {"data": data, "settings": settings, "protocols": protocols}
    asked = RunConfig(method="hrlf", config=config, seed=seed, label=label, **common)
    return run(asked, folder, progress="none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made(folder / "tune", (), **hrlf.LITERAL)
    made(folder / "tune", (), **CHOICE)
    with pytest.raises(RunError, match="collapsed"):
        made(folder / "tune", (), **CHOICE, collapse_guard=0.99)
    made(folder / "missing", **hrlf.LITERAL)
    made(folder / "missing", **CHOICE)
    made(folder / "ablations", **CHOICE, no_frf=True, label="no_frf")
    made(folder / "ablations", **CHOICE, no_teacher=True, label="no_teacher")
    (folder / "CHOICE").write_text("lambda_frf=0.1 lambda_hal=0.1\n")
    return folder


@pytest.fixture(scope="module")
def target(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hrlf, "collapse", lambda: pd.DataFrame({"step": [0]}))
        assert main(["results", str(runs), "--only", "hrlf", "--out", str(target)]) == 0
    return target


def read(target, name):
    return pd.read_csv(target / f"hrlf_{name}.csv", keep_default_na=False, na_values={"value": [""]})


def run_of(table, label):
    return table.loc[table["label"] == label, "run_id"].iloc[0]


def test_what_is_written_and_what_runs_are_called(runs, target):
    names = ["collapse", "failed", "weights", "curves", "named", "ablations", "inside", "agreement", "probes"]
    assert sorted(p.name for p in target.iterdir()) == sorted(f"hrlf_{name}.csv" for name in names)
    chosen = chosen_values(runs)
    assert chosen == CHOICE
    assert {found.label for found in ended_runs(runs / "tune", chosen) if not found.error} == {PRINTED, CHOSEN}
    assert {found.label for found in ended_runs(runs / "ablations", chosen)} == {"no_frf", "no_teacher"}
    rows = pd.DataFrame({"label": ["no_frf", None], "changes": ["{}", '{"lambda_frf": 0.01, "frf_warmup": 5}']})
    assert called(rows).tolist() == ["no frf", "FRF 0.01, warm-up 5"]


def test_the_newest_of_equal_runs_counts(tmp_path):
    first = made(tmp_path, (), **CHOICE)
    second = made(tmp_path, PROTOCOLS, **CHOICE)
    assert first.run_id != second.run_id
    assert [found.folder.name for found in ended_runs(tmp_path, {})] == [second.run_id]
    (first.folder / "DONE").unlink()
    (second.folder / "DONE").unlink()
    assert ended_runs(tmp_path, {}) == []


def test_the_grid_holds_validation_numbers_and_failed_runs(runs, target):
    table = read(target, "weights")
    assert len(table) == 3
    assert table["chosen"].tolist() == [label == CHOSEN for label in table["label"]] != [False] * 3
    bad = table[table["error"] != ""].iloc[0]
    assert "collapsed" in bad["error"]
    assert bad["stochastic_mae"] == ""
    failed = read(target, "failed")
    assert (failed["run_id"].tolist(), failed["folder"].tolist()) == ([bad["run_id"]], ["tune"])
    for row in table[table["error"] == ""].itertuples():
        done = find_run(row.run_id, runs / "tune")
        valid = done.load_data()["valid"]
        method = done.load_method(valid)
        for name, split in (("complete", valid), ("stochastic", stochastic_validation(valid))):
            error = (predict(method, split) - valid.labels).abs().mean().item()
            assert float(getattr(row, f"{name}_mae")) == pytest.approx(error, abs=1e-5)
        middle = float(np.median(done.load_data()["train"].labels))
        assert row.constant == pytest.approx((valid.labels - middle).abs().mean().item(), abs=1e-5)


def test_runs_of_the_sets_join_the_grid_once(runs, tmp_path):
    """Those of tune are not repeated, and a run with another change than weights stays out."""
    for seed, config in ((1, CHOICE), (2, CHOICE), (3, {**CHOICE, "no_hmi": True})):
        made(tmp_path, (), seed=seed, **config)
    found = grid_of({"tune": ended_runs(runs / "tune", CHOICE), "missing": ended_runs(tmp_path, CHOICE)})
    assert [run.folder.parent.name for run in found] == ["tune", "tune", "tune", tmp_path.name]
    assert found[-1].config.seed == 2


def test_spread_is_relative_to_the_start(runs):
    """The reference that is rebuilt from the seed is that of the run."""
    found = next(f for f in ended_runs(runs / "tune", CHOICE) if f.label == PRINTED)
    train = found.result.load_data()["train"]
    starts, trace = hrlf.start_spreads(found.config, train), spread_trace(found)
    method = found.result.load_method(train)
    for phase in ("teacher", "student"):
        own = trace[trace["phase"] == phase]
        assert own["epoch"].tolist() == [0, 1, 2]
        assert own["share"].iloc[0] == 1
        history = found.history.query("phase == @phase and name == 'z_sd'")["value"].iloc[-1]
        assert own["share"].iloc[-1] == pytest.approx(history / starts[phase])
    best = found.history.query("phase == 'teacher' and split == 'valid'").set_index("epoch")["value"].idxmin()
    kept = np.mean(
        [state_std(z[train.data.observed[m].any(1)]) for m, z in encode(method.teacher, train).states.items()]
    )
    by_epoch = trace.query("phase == 'teacher'").set_index("epoch")["share"]
    assert kept / starts["teacher"] == pytest.approx(by_epoch[best], rel=1e-4)
    failed = next(f for f in ended_runs(runs / "tune", CHOICE) if f.error)
    start = hrlf.start_spreads(failed.config, train)["teacher"]
    assert f"fell from {start:.3g}" in failed.error
    assert "student" not in set(spread_trace(failed)["phase"])


def test_a_failed_run_keeps_the_epochs_before(tmp_path):
    """Its last checkpoint holds them."""
    with pytest.raises(RunError, match="collapsed"):
        made(tmp_path, (), lambda_frf=1e4, collapse_guard=0.75)
    (found,) = ended_runs(tmp_path, {})
    phase, epoch = re.search(r"(teacher|student), epoch (\d+)\)", found.error).groups()
    before = [("teacher", e) for e in (1, 2)] if phase == "student" else []
    before += [(phase, e) for e in range(1, int(epoch))]
    assert list(dict.fromkeys(zip(found.history["phase"], found.history["epoch"], strict=True))) == before
    trace = spread_trace(found)
    assert trace.loc[trace["epoch"] > 0, "epoch"].max() == max(e for _, e in before)


def test_summaries_are_those_of_the_runs(runs, target):
    table = read(target, "ablations")
    assert set(table["label"]) == {CHOSEN, "no_frf", "no_teacher"}
    cells = collect(runs / "ablations")
    for run_id, rows in table[table["label"] != CHOSEN].groupby("run_id"):
        mae = cells[(cells["run_id"] == run_id) & (cells["metric"] == "mae") & (cells["split"] == "test")]
        own = rows[rows["metric"] == "mae"].set_index(["protocol", "level"])["value"]
        subsets = mae[(mae["protocol"] == "subsets") & (mae["level"] != "text+audio+vision")]["value"]
        assert own["subsets", "average"] == pytest.approx(subsets.mean(), abs=1e-5)
        assert len(subsets) == 6
        complete = mae[mae["protocol"] == "complete"]["value"].item()
        assert own["complete", "0.0"] == own["subsets", "complete"] == pytest.approx(complete, abs=1e-5)
        rates = mae[mae["protocol"] == "frames"].assign(rate=lambda f: f["level"].astype(float)).sort_values("rate")
        area = np.trapezoid(rates["value"].iloc[:-1], rates["rate"].iloc[:-1]) / 0.9
        assert own["frames", "auilc_normalised"] == pytest.approx(area, abs=1e-5)
    named = read(target, "named")
    assert set(named["label"]) == set(read(target, "curves")["label"]) == {PRINTED, CHOSEN}
    data = find_run(named["run_id"].iloc[0], runs / "missing").load_data()
    constant = (data["test"].labels - float(np.median(data["train"].labels))).abs().mean().item()
    assert named.loc[named["metric"] == "mae", "constant"].astype(float).unique() == [pytest.approx(constant)]


def test_inside_tables_are_those_of_the_trained_networks(runs, target):
    inside, agreed, probes = (read(target, name) for name in ("inside", "agreement", "probes"))
    assert set(inside["label"]) == {CHOSEN, PRINTED}
    assert inside["run_id"].nunique() == 2  # the chosen weights are in the grid as well, and count once
    assert set(agreed["label"]) == {CHOSEN, "no_frf", "no_teacher"}
    assert set(probes["label"]) == {CHOSEN, "no_frf"}
    run_id = run_of(inside, CHOSEN)
    done = find_run(run_id, runs / "missing")
    test = done.load_data()["test"]
    method, hidden = done.load_method(test), stochastic_validation(test)
    seen = encode(method.student, hidden)
    own = inside[(inside["run_id"] == run_id) & (inside["network"] == "student") & (inside["input"] == "incomplete")]
    expected = hrlf.translation_errors(method.student, seen)
    assert own["translation"].astype(float).tolist() == pytest.approx(expected["translation"].tolist(), abs=1e-5)
    assert len(own) == 9
    after = agreed[(agreed["run_id"] == run_id) & (agreed["when"] == "after") & (agreed["input"] == "incomplete")]
    t, s = encode(method.teacher, test).scales("concat")[1], seen.scales("concat")[1]
    assert after[after["scale"] == 2]["cka"].astype(float).item() == pytest.approx(agreement(t, s)["cka"], abs=1e-5)
    q = {"sentiment": seen.sentiment["audio"], "specific": seen.specific["audio"]}
    direct = probe(q, {"private": test.factors["private_audio"]}, groups=test.groups).set_index("representation")["r2"]
    rows = probes[(probes["run_id"] == run_id) & (probes["network"] == "student") & (probes["input"] == "incomplete")]
    found = rows[(rows["modality"] == "audio") & (rows["factor"] == "private")].set_index("part")["r2"].astype(float)
    assert found.to_dict() == pytest.approx(direct.to_dict(), abs=1e-5)


def test_a_student_without_a_teacher_is_compared_with_the_one_it_never_met(runs, target):
    agreed = read(target, "agreement")
    teachers = find_run(run_of(agreed, CHOSEN), runs / "missing")
    students = find_run(run_of(agreed, "no_teacher"), runs / "ablations")
    test = teachers.load_data()["test"]
    t = encode(teachers.load_method(test).teacher, test).scales("concat")[2]
    s = encode(students.load_method(test).student, test).scales("concat")[2]
    row = agreed.query("label == 'no_teacher' and when == 'after' and input == 'complete' and scale == 3")
    assert row["cka"].astype(float).item() == pytest.approx(agreement(t, s)["cka"], abs=1e-5)


def test_before_training_the_student_is_the_one_the_run_started_from(runs, target):
    agreed = read(target, "agreement")
    assert (agreed["when"] == "before").sum() == len(agreed) / 2
    run_id = run_of(agreed, CHOSEN)
    done = find_run(run_id, runs / "missing")
    test = done.load_data()["test"]
    torch.manual_seed(done.config.seed)
    fresh = create("hrlf", test.dims, test.task, dataset="synthetic", **done.config.config)
    t, s = (encode(n, test).scales("concat")[0] for n in (done.load_method(test).teacher, fresh.student))
    row = agreed.query("run_id == @run_id and when == 'before' and scale == 1 and input == 'complete'")
    assert row["cka"].astype(float).item() == pytest.approx(agreement(t, s)["cka"], abs=1e-5)


def test_collapse_is_shown_relative_to_the_start():
    table = collapse((0, 2), widths={"text": 4, "audio": 3}, batch_size=8, length=2)
    assert table["targets"].tolist() == ["as printed"] * 2 + ["detached"] * 2
    assert table.loc[table["step"] == 0, "share"].tolist() == [1, 1]
    assert table["share"].iloc[1] == pytest.approx(table["z_sd"].iloc[1] / table["z_sd"].iloc[0])


def test_folders_that_are_not_there_are_left_out(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hrlf, "collapse", lambda: pd.DataFrame({"step": [0]}))
    (tmp_path / "tune").symlink_to(runs / "tune")
    for choice, message in ((None, "CHOICE is missing; write the values"), ("lambda_fr=0.1", "lambda_frf")):
        if choice:
            (tmp_path / "CHOICE").write_text(choice)
        assert main(["results", str(tmp_path), "--out", str(tmp_path)]) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "CHOICE").write_text("lambda_frf=0.5")
    assert hrlf.write(tmp_path, tmp_path) == ["collapse", "failed", "weights"]
    assert set(read(tmp_path, "weights")["chosen"].astype(str)) == {"False"}
