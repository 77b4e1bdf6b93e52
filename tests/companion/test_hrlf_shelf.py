"""Tables of what is inside trained runs of hrlf, from real runs of a few samples."""

import pandas as pd
import pytest

from companion import hrlf
from companion.__main__ import main
from mmsa_lib.data.missing import stochastic_validation
from mmsa_lib.evaluation.probes import probe
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.runs import run

DATA = {"samples": (48, 24, 40), "dims": (12, 8, 8), "length": 6, "speaker_size": 4}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    settings = {"device": "cpu", "max_epochs": 2, "batch_size": 16}
    made = {}
    for label, config in (("full", {}), ("no_frf", {"no_frf": True}), ("no_hmi", {"no_hmi": True})):
        own = {"width": 8, "heads": 2, "qu_dim": 4, **config}
        given = {"dataset": "synthetic_redundant", "data": DATA, "settings": settings}
        made[label] = run(
            RunConfig(method="hrlf", label=label, config=own, **given), folder / "ablations", progress="none"
        )
    return folder, made


@pytest.fixture(scope="module")
def tables(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("tables")
    assert main(["results", str(runs[0]), "--only", "hrlf", "--out", str(target)]) == 0
    assert sorted(path.name for path in target.iterdir()) == ["hrlf_inside.csv", "hrlf_probes.csv"]
    return {name: pd.read_csv(target / f"hrlf_{name}.csv") for name in ("inside", "probes")}


def test_the_full_method_and_named_switches_are_looked_into(runs, tables):
    assert set(tables["inside"]["label"]) == {"full"}  # without FRF there is no decoder
    assert set(tables["probes"]["label"]) == {"full", "no_frf"}
    for table in tables.values():
        assert set(table.loc[table["label"] == "full", "run_id"]) == {runs[1]["full"].run_id}
    assert set(tables["probes"]["factor"]) == {"shared", "private", "sentiment", "speaker"}


def test_tables_are_those_of_the_trained_networks(runs, tables):
    done = runs[1]["full"]
    test = done.load_data()["test"]
    method, hidden = done.load_method(test), stochastic_validation(test)
    seen = hrlf.encode(method.student, hidden)
    rows = tables["inside"].query("network == 'student' and input == 'incomplete'")
    expected = hrlf.translation_errors(method.student, seen)
    assert rows["translation"].tolist() == pytest.approx(expected["translation"].tolist(), abs=1e-5)
    parts = {"sentiment": seen.sentiment["audio"], "specific": seen.specific["audio"]}
    factors = {"private": test.factors["private_audio"], "speaker": test.factors["speaker_audio"]}
    direct = probe(parts, factors, groups=test.groups).set_index(["representation", "factor"])["r2"]
    own = tables["probes"].query("label == 'full' and network == 'student' and input == 'incomplete'")
    found = own[own["modality"] == "audio"].set_index(["part", "factor"])["r2"]
    for place, value in direct.items():
        assert found[place] == pytest.approx(value, abs=1e-5)


def test_the_pictures_show_the_full_method_first(tables):
    probes = hrlf.probe_rows(tables["probes"])
    assert list(dict.fromkeys(probes["panel"])) == [
        "teacher,\ncomplete", "student,\ncomplete", "student,\nincomplete", "student,\nincomplete,\nno frf",
    ]  # fmt: skip
    _, means = hrlf.hrlf_translation(tables["inside"])
    assert len(means) == 9


def test_runs_of_other_labels_are_left_alone(runs, tmp_path):
    (tmp_path / "ablations").mkdir()
    run_id = runs[1]["no_hmi"].run_id
    (tmp_path / "ablations" / run_id).symlink_to(runs[0] / "ablations" / run_id)
    assert hrlf.write(tmp_path, tmp_path) == []
