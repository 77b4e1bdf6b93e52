"""Curated tables of hrlf, from real runs of a few samples, finished and failed."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from companion.agreement import agreement
from companion.factorization import encode, translation_errors
from companion.hrlf_inside import inside_tables
from companion.hrlf_results import CHOSEN, collapse, grid, main, named, weights, write
from companion.hrlf_runs import (
    PRINTED,
    chosen_values,
    ended_runs,
    last_spread,
    spread_trace,
    start_spreads,
    switch,
)
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.errors import ConfigError, DataError, RunError
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import collect
from mmsa_lib.experiments.runs import find_run, run
from mmsa_lib.methods.hrlf import spread
from mmsa_lib.training import predict

CHOICE = {"lambda_frf": 0.1, "lambda_hal": 0.1}
PROTOCOLS = ("frames", "subsets")


def made(folder, protocols=PROTOCOLS, seed=1, **config):
    settings = {"device": "cpu", "max_epochs": 2, "batch_size": 16}
    data = {"samples": (48, 24, 40), "dims": (12, 8, 8), "length": 6, "speaker_size": 4}
    asked = RunConfig(method="hrlf", config=config, data=data, settings=settings, protocols=protocols, seed=seed)
    return run(asked, folder, progress="none")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made(folder / "tune", (), lambda_frf=1.0)
    made(folder / "tune", (), **CHOICE)
    with pytest.raises(RunError, match="collapsed"):
        made(folder / "tune", (), **CHOICE, collapse_guard=0.99)
    made(folder / "synthetic")
    made(folder / "synthetic", **CHOICE)
    made(folder / "ablations", no_frf=True, lambda_hal=0.1)
    made(folder / "ablations", **CHOICE, no_teacher=True)
    (folder / "CHOICE").write_text("lambda_frf=0.1 lambda_hal=0.1\n")
    return folder


@pytest.fixture(scope="module")
def target(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("companion.hrlf_results.collapse", lambda: pd.DataFrame({"step": [0]}))
        assert main([str(runs), "--out", str(target)]) == 0
    return target


def read(target, name):
    return pd.read_csv(target / f"hrlf_{name}.csv", keep_default_na=False, na_values={"value": [""]})


def test_what_is_written(runs, target):
    names = ["collapse", "weights", "curves", "named", "ablations", "inside", "agreement", "probes", "failed"]
    assert sorted(p.name for p in target.iterdir()) == sorted(f"hrlf_{name}.csv" for name in names)


def test_values_without_effect_make_no_variant(runs):
    """lambda_frf=1.0 is the default, and no_frf has no use for lambda_frf."""
    assert {found.weights for found in ended_runs(runs / "tune") if not found.error} == {
        PRINTED, "lambda_frf=0.1; lambda_hal=0.1",
    }  # fmt: skip
    chosen = chosen_values(runs)
    assert chosen == CHOICE
    assert {switch(found, chosen) for found in ended_runs(runs / "ablations")} == {"no_frf=True", "no_teacher=True"}
    found = ended_runs(runs / "synthetic")
    assert sorted(named(found, chosen).values()) == [CHOSEN, PRINTED]


def test_the_newest_of_equal_runs_counts(runs, tmp_path):
    first = made(tmp_path, (), **CHOICE)
    second = made(tmp_path, PROTOCOLS, **CHOICE)
    assert first.run_id != second.run_id
    assert [found.folder.name for found in ended_runs(tmp_path)] == [second.run_id]
    (first.folder / "DONE").unlink()
    (second.folder / "DONE").unlink()
    assert ended_runs(tmp_path) == []


def test_the_grid_holds_validation_numbers_and_failed_runs(runs, target):
    table = read(target, "weights")
    assert len(table) == 3
    assert table["chosen"].tolist() == [True, False, False]
    bad = table[table["error"] != ""].iloc[0]
    assert "collapsed" in bad["error"]
    assert bad["stochastic_mae"] == ""
    for row in table[table["error"] == ""].itertuples():
        done = find_run(row.run_id, runs / "tune")
        valid = done.load_data()["valid"]
        method = done.load_method(valid)
        for name, split in (("complete", valid), ("stochastic", stochastic_validation(valid))):
            error = (predict(method, split) - valid.labels).abs().mean().item()
            assert float(getattr(row, f"{name}_mae")) == pytest.approx(error, abs=1e-5)
        middle = float(np.median(done.load_data()["train"].labels))
        assert row.constant == pytest.approx((valid.labels - middle).abs().mean().item(), abs=1e-5)
    assert "test" not in table.columns


def test_runs_of_the_sets_join_the_grid_once(runs, tmp_path):
    """Those of tune are not repeated, and a run with another change than weights stays out."""
    (tmp_path / "tune").symlink_to(runs / "tune")
    for seed, config in ((1, CHOICE), (2, CHOICE), (3, {**CHOICE, "no_hmi": True})):
        made(tmp_path / "mosi", (), seed=seed, **config)
    found = grid({name: ended_runs(tmp_path / name) for name in ("tune", "synthetic", "mosi", "mmmo")})
    assert [run.folder.parent.name for run in found] == ["tune", "tune", "tune", "mosi"]
    assert found[-1].config.seed == 2


def test_spread_is_relative_to_the_start(runs):
    """The reference that is rebuilt from the seed is that of the run."""
    found = next(f for f in ended_runs(runs / "tune") if f.weights == PRINTED)
    train = found.result.load_data()["train"]
    starts = start_spreads(found.config, train)
    trace = spread_trace(found, train)
    method = found.result.load_method(train)
    for phase in ("teacher", "student"):
        own = trace[trace["phase"] == phase]
        assert own["epoch"].tolist() == [0, 1, 2]
        assert own["share"].iloc[0] == 1
        history = found.history.query("phase == @phase and name == 'z_sd'")["value"].iloc[-1]
        assert last_spread(trace, phase) == pytest.approx(history / starts[phase])
    best = found.history.query("phase == 'teacher' and split == 'valid'").set_index("epoch")["value"].idxmin()
    kept = np.mean([spread(z[train.data.observed[m].any(1)]) for m, z in encode(method.teacher, train).states.items()])
    by_epoch = trace.query("phase == 'teacher'").set_index("epoch")["share"]
    assert kept / starts["teacher"] == pytest.approx(by_epoch[best], rel=1e-4)


def test_the_message_of_a_failed_run_has_the_same_start(runs):
    found = next(f for f in ended_runs(runs / "tune") if f.error)
    start = start_spreads(found.config, found.result.load_data()["train"])["teacher"]
    assert f"fell from {start:.3g}" in found.error
    trace = spread_trace(found, found.result.load_data()["train"])
    assert math.isnan(last_spread(trace, "student"))


def test_a_failed_run_keeps_the_epochs_before(tmp_path):
    """Its last checkpoint holds them."""
    with pytest.raises(RunError, match="collapsed"):
        made(tmp_path, (), lambda_frf=1e4, collapse_guard=0.75)
    found = ended_runs(tmp_path)[0]
    phase, epoch = re.search(r"(teacher|student), epoch (\d+)\)", found.error).groups()
    before = [("teacher", e) for e in (1, 2)] if phase == "student" else []
    before += [(phase, e) for e in range(1, int(epoch))]
    assert list(dict.fromkeys(zip(found.history["phase"], found.history["epoch"], strict=True))) == before
    trace = spread_trace(found, found.result.load_data()["train"])
    assert trace.loc[trace["epoch"] > 0, "epoch"].max() == max(e for _, e in before)


def test_summaries_are_those_of_the_runs(runs, target):
    table = read(target, "ablations")
    assert set(table["switch"]) == {CHOSEN, "no_frf=True", "no_teacher=True"}
    cells = collect(runs / "ablations")
    for run_id, rows in table[table["switch"] != CHOSEN].groupby("run_id"):
        mae = cells[(cells["run_id"] == run_id) & (cells["metric"] == "mae") & (cells["split"] == "test")]
        own = rows[rows["metric"] == "mae"].set_index(["protocol", "summary"])["value"]
        subsets = mae[(mae["protocol"] == "subsets") & (mae["level"] != "text+audio+vision")]["value"]
        assert own["subsets", "average"] == pytest.approx(subsets.mean(), abs=1e-5)
        assert len(subsets) == 6
        complete = mae[mae["protocol"] == "complete"]["value"].item()
        assert own["complete", "value"] == own["subsets", "complete"] == pytest.approx(complete, abs=1e-5)
        rates = mae[mae["protocol"] == "frames"].assign(rate=lambda f: f["level"].astype(float)).sort_values("rate")
        area = np.trapezoid(rates["value"].iloc[:-1], rates["rate"].iloc[:-1]) / 0.9
        assert own["frames", "auilc_normalised"] == pytest.approx(area, abs=1e-5)
    named_runs = read(target, "named")
    assert set(named_runs["weights"]) == {PRINTED, CHOSEN}
    test = find_run(named_runs["run_id"].iloc[0], runs / "synthetic").load_data()
    middle = float(np.median(test["train"].labels))
    constant = (test["test"].labels - middle).abs().mean().item()
    assert named_runs.loc[named_runs["metric"] == "mae", "constant"].astype(float).unique() == [pytest.approx(constant)]
    assert set(read(target, "curves")["weights"]) == {PRINTED, CHOSEN}


def test_inside_tables_are_those_of_the_trained_networks(runs, target):
    inside, agreed, probes = (read(target, name) for name in ("inside", "agreement", "probes"))
    assert set(inside["switch"]) == {CHOSEN, PRINTED}
    assert inside["run_id"].nunique() == 2  # the chosen weights are in the grid as well, and count once
    assert set(agreed["switch"]) == {CHOSEN, "no_frf=True", "no_teacher=True"}
    assert set(probes["switch"]) == {CHOSEN, "no_frf=True"}
    run_id = inside.loc[inside["switch"] == CHOSEN, "run_id"].iloc[0]
    done = find_run(run_id, runs / "synthetic")
    test = done.load_data()["test"]
    method, hidden = done.load_method(test), stochastic_validation(test)
    seen = encode(method.student, hidden)
    own = inside[(inside["run_id"] == run_id) & (inside["network"] == "student") & (inside["input"] == "incomplete")]
    expected = translation_errors(method.student, seen)
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


def test_without_frf_or_teacher_there_are_tables_less(runs):
    found = {switch(f, CHOICE): f for f in ended_runs(runs / "ablations")}
    names = {f.folder.name: name for name, f in found.items()}
    assert list(inside_tables([found["no_frf=True"]], names)) == ["agreement", "probes"]
    assert list(inside_tables([found["no_teacher=True"]], names)) == ["inside", "probes"]


def test_a_student_without_a_teacher_is_compared_with_the_one_it_never_met(runs, target):
    agreed = read(target, "agreement")
    alone = agreed[agreed["switch"] == "no_teacher=True"]
    teachers = find_run(agreed.loc[agreed["switch"] == CHOSEN, "run_id"].iloc[0], runs / "synthetic")
    students = find_run(alone["run_id"].iloc[0], runs / "ablations")
    test = teachers.load_data()["test"]
    t = encode(teachers.load_method(test).teacher, test).scales("concat")[2]
    s = encode(students.load_method(test).student, test).scales("concat")[2]
    row = alone[(alone["when"] == "after") & (alone["input"] == "complete") & (alone["scale"] == 3)]
    assert row["cka"].astype(float).item() == pytest.approx(agreement(t, s)["cka"], abs=1e-5)


def test_before_training_the_student_is_the_one_the_run_started_from(runs, target):
    agreed = read(target, "agreement")
    before = agreed[agreed["when"] == "before"]
    assert len(before) == len(agreed) / 2
    run_id = agreed.loc[agreed["switch"] == CHOSEN, "run_id"].iloc[0]
    done = find_run(run_id, runs / "synthetic")
    test = done.load_data()["test"]
    torch.manual_seed(done.config.seed)
    from mmsa_lib.methods import create

    fresh = create("hrlf", test.dims, test.task, dataset="synthetic", **done.config.config)
    t, s = (encode(n, test).scales("concat")[0] for n in (done.load_method(test).teacher, fresh.student))
    row = before[(before["run_id"] == run_id) & (before["scale"] == 1) & (before["input"] == "complete")]
    assert row["cka"].astype(float).item() == pytest.approx(agreement(t, s)["cka"], abs=1e-5)


def test_collapse_is_shown_relative_to_the_start():
    table = collapse((0, 2), widths={"text": 4, "audio": 3}, batch_size=8, length=2)
    assert table["targets"].tolist() == ["as printed"] * 2 + ["detached"] * 2
    assert table.loc[table["step"] == 0, "share"].tolist() == [1, 1]
    assert table["share"].iloc[1] == pytest.approx(table["z_sd"].iloc[1] / table["z_sd"].iloc[0])


def test_folders_that_are_not_there_are_left_out(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("companion.hrlf_results.collapse", lambda: pd.DataFrame({"step": [0]}))
    (tmp_path / "tune").symlink_to(runs / "tune")
    (tmp_path / "CHOICE").write_text("lambda_frf=0.5")
    assert write(tmp_path, tmp_path) == ["collapse", "weights", "failed"]
    assert not read(tmp_path, "weights")["chosen"].any()
    assert read(tmp_path, "failed")["folder"].tolist() == ["tune"]


def test_bad_folders_are_one_line(runs, tmp_path, capsys):
    assert main([str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "no ended run of hrlf in any of tune" in capsys.readouterr().err
    (tmp_path / "tune").symlink_to(runs / "tune")
    with pytest.raises(DataError, match="CHOICE is missing; write the values"):
        write(tmp_path, tmp_path)
    (tmp_path / "CHOICE").write_text("lambda_fr=0.1")
    with pytest.raises(ConfigError, match="lambda_frf"):
        weights(ended_runs(tmp_path / "tune"), chosen_values(tmp_path))
