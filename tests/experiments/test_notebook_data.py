"""What notebooks ask before they train: where the committed tables are, and whether the data suit the page."""

from types import SimpleNamespace

import pytest

from mmsa_lib import paths
from mmsa_lib.data.task import emotions, regression
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.options import typed_value
from mmsa_lib.experiments.parameters import check_data
from mmsa_lib.experiments.tables import read_published


def splits(task, *modalities):
    return {"train": SimpleNamespace(modalities=modalities, task=task, data=SimpleNamespace(ids=["a", "b"]))}


def test_data_that_suit_the_page_pass():
    check_data(splits(regression((-3, 3)), "text", "audio", "vision"), needs=("audio", "vision"), sample=1)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (splits(emotions(["happy", "sad"]), "text"), {}, "one sentiment score per sample; the data set has emotions"),
        (
            splits(regression((-3, 3)), "text"),
            {"needs": ("audio", "vision")},
            "audio and vision; the data set has text",
        ),
        (splits(regression((-3, 3)), "text"), {"sample": 2}, "sample=2 is not there; the training split has 2 samples"),
        (splits(regression((-3, 3)), "text"), {"sample": -1}, "sample=-1 is not there"),
    ],
)
def test_data_that_do_not_suit_the_page_are_refused_in_one_line(data, options, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_data(data, **options)
    assert "\n" not in str(caught.value)


def test_mappings_and_lists_that_plain_papermill_hands_over_as_text():
    assert typed_value("parameter config", '{"max_epochs": 1}', dict) == {"max_epochs": 1}
    assert typed_value("parameter config", {"max_epochs": 1}, dict) == {"max_epochs": 1}
    assert typed_value("parameter protocols", '["frames"]', list) == ["frames"]
    for value in ("max_epochs=1", "[1]", 3, None, ""):
        with pytest.raises(ConfigError, match="parameter config"):
            typed_value("parameter config", value, dict)
    with pytest.raises(ConfigError, match="parameter protocols"):
        typed_value("parameter protocols", "frames", list)


def test_tables_lie_in_the_checkout_or_where_one_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv("MMSA_LIB_TABLES", raising=False)
    assert paths.tables_folder() == paths.project_root() / "data" / "results"
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.csv").touch()
    assert paths.tables_folder("results", str(tmp_path / "results"), "a*.csv") == tmp_path / "results"
    with pytest.raises(ConfigError, match=r"holds no b\*\.csv; set the parameter results"):
        paths.tables_folder("results", tmp_path / "results", "b*.csv")
    monkeypatch.setenv("MMSA_LIB_TABLES", str(tmp_path))
    assert paths.tables_folder() == tmp_path / "results"
    with pytest.raises(ConfigError, match=r"published holds no .*; set MMSA_LIB_TABLES"):
        read_published()


def test_without_a_checkout_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("MMSA_LIB_TABLES", raising=False)
    monkeypatch.setattr(paths, "project_root", lambda: None)
    with pytest.raises(ConfigError, match=r"MMSA_LIB_TABLES .*, or give the parameter results"):
        paths.tables_folder("results", "")
    with pytest.raises(ConfigError, match="MMSA_LIB_TABLES"):
        read_published()


def test_what_is_shown_of_a_path(tmp_path):
    assert paths.public_path(paths.project_root() / "runs" / "a") == "runs/a"
    assert paths.public_path(tmp_path) == str(tmp_path.resolve())
