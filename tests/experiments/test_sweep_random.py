"""Draws and presets of a sweep: equal on every machine, in their ranges, below a point's own values, strictly read."""

import math

import numpy as np
import pytest
import yaml
from sweep_files import write_notebook, write_sweep

from mmsa_lib.cli import main
from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.draws import Random
from mmsa_lib.experiments.sweep_file import choices, read_points, read_sweep

SPACE = {
    "options.width": {"low": 8, "high": 64, "log": True},
    "options.depth": {"low": 1, "high": 3},
    "rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "options.dropout": {"low": 0.0, "high": 0.5},
    "name": ["a", "b"],
}


def test_the_draws_are_these_on_every_machine():
    drawn = Random(n=3, seed=1, space=SPACE).trials()
    assert list(drawn) == ["trial_01", "trial_02", "trial_03"]
    assert [list(values.values()) for values in drawn.values()] == [
        [25, 3, 0.00648, 0.287, "b"], [11, 2, 0.000189, 0.484, "a"], [11, 2, 0.00438, 0.0405, "a"]
    ]  # fmt: skip
    streams = {key: np.random.Generator(np.random.PCG64([1, *key.encode()])) for key in SPACE}
    for trial in drawn.values():  # the definition again
        share = {key: streams[key].random() for key in SPACE}
        low, high = math.log(1e-4), math.log(1e-2)
        assert trial["rate"] == float(f"{math.exp(low + share['rate'] * (high - low)):.3g}")
        assert trial["options.dropout"] == float(f"{0.5 * share['options.dropout']:.3g}")
        assert trial["options.depth"] == 1 + math.floor(3 * share["options.depth"])
        assert trial["name"] == "ab"[math.floor(2 * share["name"])]


def test_draws_are_different_in_their_ranges_and_spread_as_asked():
    drawn = list(Random(n=400, seed=3, space=SPACE).trials().values())
    assert len({str(values) for values in drawn}) == 400
    rates = [math.log10(values["rate"]) for values in drawn]
    assert -4 <= min(rates) <= max(rates) <= -2
    assert np.mean(rates) == pytest.approx(-3, abs=0.1)
    assert {values["options.depth"] for values in drawn} == {1, 2, 3}
    widths = [values["options.width"] for values in drawn]
    assert {type(width) for width in widths} == {int}
    assert np.median(widths) == pytest.approx(math.sqrt(8 * 64), rel=0.15)
    other = Random(n=400, seed=4, space=SPACE).trials().values()
    assert not {str(values) for values in drawn} & {str(values) for values in other}
    few = Random(n=400, seed=3, space={"rate": SPACE["rate"]}).trials().values()
    assert [values["rate"] for values in few][:50] == [values["rate"] for values in drawn][:50]  # of itself alone


@pytest.mark.parametrize(("low", "high"), [(0.999, 0.9999), (1000.5, 1001.5), (-1001.5, -1000.5), (1.0, 1.0 + 1e-9)])
@pytest.mark.parametrize("log", [False, True])
def test_a_narrow_range_is_drawn_from_as_finely_as_a_wide_one(low, high, log):
    space = {"rate": {"low": low, "high": high, "log": log and low > 0}}
    drawn = [values["rate"] for values in Random(n=50, seed=1, space=space).trials().values()]
    assert low <= min(drawn) < low + 0.1 * (high - low) < high - 0.1 * (high - low) < max(drawn) <= high


def test_all_of_a_small_space_is_found_and_more_is_refused():
    space = {"a": ["x", "y"], "b": {"low": 1, "high": 3}}
    assert len(Random(n=6, seed=0, space=space).trials()) == 6
    with pytest.raises(ConfigError, match="has about 6 different draws, not 7"):
        Random(n=7, seed=0, space=space).trials()


def test_draws_join_the_ablations_and_are_combined_with_grid_and_seeds(tmp_path):
    file = write_sweep(
        tmp_path / "s.yaml", random={"n": 3, "seed": 1}, ablations={"default": {}}, grid={"name": ["a", "b"]},
        seeds=[1, 2],
        blocks=[
            {"name": "one", "random": {"space": {"rate": [0.1, 0.2, 0.3]}}},
            {"name": "two", "random": {"n": 2, "space": {"rate": [0.1, 0.2], "options.k": {"low": 1, "high": 9}}}},
        ],
    )  # fmt: skip
    found = list(choices(read_sweep(file)))
    assert len(found) == (4 + 3) * 2 * 2
    assert {c.ablation for c in found if c.block == "one"} == {"default", "trial_01", "trial_02", "trial_03"}
    values = {(c.block, c.ablation): c.varied["rate"] for c in found if "rate" in c.varied}
    assert {values["one", f"trial_0{k}"] for k in (1, 2, 3)} == {0.1, 0.2, 0.3}
    assert all("k" in c.parameters["options"] for c in found if c.block == "two" and c.ablation != "default")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"random": {"n": 2, "seed": 1}}, r"random\.space is missing"),
        ({"random": {"n": 2, "space": {"rate": [1, 2]}}}, r"random\.seed is missing"),
        ({"blocks": [{"name": "b", "random": {"seed": 1, "space": {"a": [1]}}}]}, r"block b: random\.n is missing"),
        ({"random": {"m": 2}}, r"unknown key 'm'; known: n, seed, space"),
        ({"random": {"n": 0}}, r"random\.n: input should be greater than or equal to 1"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": []}}}, r"random\.space\.rate is empty"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": 0.1}}}, r"space\.rate must be a list of choices or {low"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": {"low": 1, "high": 2, "lgo": True}}}}, "mean low, log"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": {"low": 2, "high": 1}}}}, "< high must hold, not 2 and 1"),
        ({"random": {"n": 1, "seed": 1, "space": {"r": {"low": 0, "high": 1, "log": True}}}}, "0 < low < high"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": {"low": "a", "high": 1}}}}, "be numbers, not 'a' and 1"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": {"low": 1, "high": 10**400}}}}, "be numbers, not 1 and 1000"),
        ({"random": {"n": 9, "seed": 1, "space": {"rate": [1, 2]}}}, "about 2 different draws, not 9"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": [1]}}, "grid": {"rate": [1]}}, "in grid and in random"),
        ({"random": {"n": 1, "seed": 1, "space": {"rate": [1]}}, "ablations": {"trial_01": {}}}, "the name of a draw"),
        ({"random": {"n": 1, "seed": 1, "space": {"seed": [1]}}, "seeds": [1]}, "seed stands in seeds and in"),
        ({"presets": "none.yaml"}, "no file .*none.yaml"),
        ({"presets": {"synthetic": 1}}, r"presets\.synthetic: input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read_sweep(write_sweep(tmp_path / "s.yaml", **content))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_dry_run_shows_the_draws(tmp_path, capsys):
    write_notebook(tmp_path / "tiny.ipynb")
    space = {"rate": {"low": 0.1, "high": 0.2}, "options.depth": [3]}
    file = write_sweep(tmp_path / "s.yaml", random={"n": 1, "seed": 1, "space": space}, seeds=[1])
    assert main(["sweep", str(file), "--runs", str(tmp_path / "runs"), "--dry-run"]) == 0
    (drawn,) = Random(n=1, seed=1, space=space).trials().values()
    assert f"trial_01 rate={drawn['rate']} depth=3 seed=1" in capsys.readouterr().out


@pytest.fixture
def preset(tmp_path):
    """Points of a sweep of the training notebook with a presets file."""

    def points(presets, **content):
        (tmp_path / "tuned.yaml").write_text(presets if isinstance(presets, str) else yaml.safe_dump(presets))
        content = {"notebook": "06_train", "presets": "tuned.yaml", **content}
        return read_points(write_sweep(tmp_path / "s.yaml", **content))

    return points


def test_presets_stand_below_a_points_own_values(preset):
    text = """
synthetic: &family
  hrlf: {config: {lambda_hal: 0.5, width: 20}, settings: {batch_size: 64}}
  text_only: {}
mosi: {hrlf: {config: {lambda_hal: 0.7}}}
mine: *family
"""
    blocks = [
        {"name": "a", "parameters": {"dataset": "synthetic"}, "grid": {"method": ["hrlf", "text_only"]}},
        {"name": "b", "parameters": {"dataset": "synthetic", "method": "hrlf", "settings.batch_size": 32},
         "ablations": {"no_hal": {"config.lambda_hal": 0.0}}},
        {"name": "c", "preset": "mine", "parameters": {"dataset": "mosi", "method": "hrlf"}},
    ]  # fmt: skip
    own, plain, changed, named = preset(text, blocks=blocks)
    assert own.parameters["config"] == {"lambda_hal": 0.5, "width": 20}
    assert own.parameters["settings"] == {"batch_size": 64}
    assert "config" not in plain.parameters
    assert changed.parameters["config"] == {"lambda_hal": 0.0, "width": 20}
    assert changed.parameters["settings"] == {"batch_size": 32}
    assert changed.varied == {"config.lambda_hal": 0.0}
    assert named.parameters["config"] == {"lambda_hal": 0.5, "width": 20}


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        (
            {"synthetik": {"hrlf": {}}, "synthetic": {"hrlf": {}}},
            "unknown data set of the presets 'synthetik'",
        ),
        ({"synthetic": {"hrfl": {}, "hrlf": {}}}, "unknown method of the presets 'hrfl'; did you mean hrlf"),
        (
            {"synthetic": {"hrlf": {"confg": {}}}},
            "unknown section of the presets of hrlf on synthetic 'confg'",
        ),
        ({"synthetic": {"hrlf": {"config": {"wdith": 3}}}}, "presets of hrlf on synthetic: .*did you mean width"),
        ({"synthetic": {"hrlf": {"settings": {"batch_size": 0}}}}, "presets of hrlf on synthetic: batch_size=0"),
        ({"synthetic": {"text_only": {}}}, "presets have nothing for hrlf on synthetic; add it"),
        ({"mosi": {"hrlf": {}}}, "presets have nothing for hrlf on synthetic; add it"),
    ],
)
def test_unknown_names_in_presets_are_refused(preset, presets, message):
    with pytest.raises(ConfigError, match=message) as caught:
        preset(presets, parameters={"dataset": "synthetic", "method": "hrlf"})
    assert "s.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
