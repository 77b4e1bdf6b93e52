"""``mmsa-lib predict``, with the model that comes with the package: nothing is trained."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmsa_lib.cli import main
from mmsa_lib.errors import DataError
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.experiments.prediction import DEMO_FOLDER, Ensemble, find_runs
from mmsa_lib.paths import project_root

COLUMNS = ["id", "prediction", "low", "high", "sd", "without_text", "without_audio", "without_vision"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def predicted(capsys):
    """Run ``predict`` and return its exit code, the table on stdout, and stderr."""

    def run(*words):
        code = main(["predict", *map(str, words)])
        out, err = capsys.readouterr()
        return code, pd.read_csv(io.StringIO(out)) if out else None, err

    return run


def test_sentences(predicted):
    code, table, _ = predicted("demo", "--text", "I loved this wonderful film", "--text", "An awful, boring mess")
    assert code == 0
    assert list(table) == COLUMNS
    good, bad = table["prediction"]
    assert bad < -1 < 1 < good
    assert (table["low"] < table["prediction"]).all()
    assert (table["prediction"] < table["high"]).all()


def test_stdin_files_and_out(predicted, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("great film\n\nawful film\n"))
    _, piped, _ = predicted("demo", "-")
    assert list(piped["id"]) == [1, 3]
    (tmp_path / "a.csv").write_text("id,text,label\na,great film,2\nb,awful film,-3\n")
    _, table, _ = predicted("demo", tmp_path / "a.csv")
    assert list(table) == ["id", "label", *COLUMNS[1:]]
    assert list(table["label"]) == [2, -3]
    np.testing.assert_allclose(table["prediction"], piped["prediction"], atol=1e-5)
    code, nothing, err = predicted("demo", tmp_path / "a.csv", "--out", tmp_path / "p.csv")
    assert (code, nothing) == (0, None)
    assert "2 predictions written" in err
    assert list(pd.read_csv(tmp_path / "p.csv")) == list(table)


def test_inputs_without_ids_are_told_apart(predicted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()  # no run
    for name in ("a", "b"):
        Path(f"{name}.txt").write_text("great film\nawful film\n")
        Path(f"{name}.json").write_text('[{"text": "great film"}]')
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ngreat film\n"))
    _, table, err = predicted("demo", "a.txt", "b.txt", "-", "--text", "mosi.csv")
    assert list(table["id"]) == ["a_1", "a_2", "b_1", "b_2", "stdin_2", "text_1"], err
    assert list(predicted("demo", "a.json", "b.json")[1]["id"]) == ["a_0", "b_0"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9"), "utf-8", "surrogateescape"))
    assert "stdin is no UTF-8 text" in predicted("demo", "-")[2]


def test_json_is_alone_on_stdout(capsys):
    assert main(["predict", "demo", "--text", "fine", "--json", "--interval", "0.5"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["interval"] == 0.5
    assert told["samples"] == 229
    assert told["predictions"][0].keys() == {*COLUMNS}
    assert told["predictions"][0]["without_audio"] is None
    assert len(told["runs"]) == 3


def test_a_warning_is_one_line_on_stderr(capsys, monkeypatch):
    from mmsa_lib.experiments import prediction

    monkeypatch.setattr(prediction, "far_off", lambda data, _: {"text": np.array([12.0, 0, 2e9])})
    assert main(["predict", "demo", *["--text", "fine"] * 3, "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["predictions"]) == 3
    said = "text of '3' (1,000,000 standard deviations), '1' (12 standard deviations); predictions from them"
    assert err.startswith("warning: features lie far from")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("demo", "without INPUT and --text a split of a data set is predicted: unknown data set 'mosi_sentences'"),
        ("demo nope.csv", "no file, folder or data set 'nope.csv'"),
        ("nope a.csv", "nope is no finished run"),
        ("a.csv demo", "a.csv is no finished run"),
        ("demo a.csv demo", "demo is a run and stands behind an input"),
        ("demo a.csv --split test", "--split is for predictions without INPUT"),
        ("demo a.csv --modalities smell", "unknown modality 'smell'"),
        ("demo a.csv --modalities audio", "the runs read text; keep one of them switched on"),
        ("demo a.csv --interval 2", "interval=2.0 is no share"),
        ("demo empty.csv", "sample 'y' has no text to predict from"),
        ("demo folder", "folder"),
        ("demo demo a.csv", "given twice"),
    ],
)
def test_mistakes_are_one_line(predicted, tmp_path, words, message):
    (tmp_path / "a.csv").write_text("id,text\nx,good\n")
    (tmp_path / "empty.csv").write_text("id,text\nx,good\ny,\n")
    (tmp_path / "folder").mkdir()
    code, table, err = predicted(*words.split())
    assert code == 2
    assert table is None
    assert message in err
    assert err.strip().count("\n") == 0


class TestModel:
    """What comes with the package is what its card says."""

    def test_it_is_small_and_whole(self):
        paths = [path for path in DEMO_FOLDER.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in paths) < 300_000
        assert len(find_runs("demo")) == 3

    def test_it_holds_no_name_no_sentence_and_no_test_sample(self):
        for run in find_runs("demo"):
            stored = run.predictions("valid")
            assert len(stored.ids) == 229
            assert all(name.isdecimal() for name in (*stored.ids, *stored.groups))
            with pytest.raises(DataError, match=r"has no predictions for complete/0\.0/test; it has [^,]+/valid$"):
                run.predictions("test")
            assert b"test" not in (run.folder / "predictions.h5").read_bytes()

    def test_its_card_has_its_scores(self):
        card, ensemble = (DEMO_FOLDER / "README.md").read_text(), Ensemble.of("demo")
        names = ("mae", "corr", "acc2_neg_pos", "acc7")
        told = {
            split: dict(zip(names, map(float, line.split("|")[2:6]), strict=True))
            for split in ("validation", "test") for line in card.splitlines() if line.startswith(f"| {split} ")
        }  # fmt: skip
        parts = [run.predictions("valid") for run in ensemble.runs]
        scores = task_metrics(ensemble.task, sum(part.predictions for part in parts) / 3, parts[0].labels)
        assert told["validation"] == pytest.approx({name: scores[name] for name in names}, abs=6e-4)
        each = pd.concat([run.metrics for run in ensemble.runs])
        each = each[each["split"] == "test"].groupby("metric")["value"]
        assert all(each.min()[name] - 0.03 < told["test"][name] < each.max()[name] + 0.03 for name in names)
        assert told["test"]["mae"] <= each.mean()["mae"] + 6e-4  # of a mean, by Jensen's inequality
        assert f"plus and minus {ensemble.half_width(0.9):.2f}" in card

    def test_a_wheel_has_it(self, tmp_path):
        root = project_root()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, tmp_path / name)
        shutil.copytree(root / "mmsa_lib", tmp_path / "mmsa_lib", ignore=shutil.ignore_patterns("__pycache__"))
        command = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
        done = subprocess.run(
            [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-500:]
        with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
            names = {name for name in wheel.namelist() if name.startswith("mmsa_lib/demo_model/")}
        expected = {path.relative_to(root).as_posix() for path in DEMO_FOLDER.rglob("*") if path.is_file()}
        assert names == expected
