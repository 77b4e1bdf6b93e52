"""The sweeps in ``notebooks/sweeps``: they can be run, and they leave out no method, baseline or switch."""

import pandas as pd
import pytest

from companion import names, tuning
from companion.batch import PRESETS
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import in_words, values_of
from mmsa_lib.experiments.sweep_file import read_points
from mmsa_lib.methods import METHODS
from mmsa_lib.paths import project_root

FOLDER = project_root() / "notebooks" / "sweeps"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if path.name != PRESETS)
ABLATED = [file.stem.removeprefix("ablations_") for file in FILES if file.stem.startswith("ablations_")]
TUNING = {1, 2}
MAIN = ("synthetic", "synthetic_redundant", "mosi", "mmmo")
MISSING = ("synthetic_redundant", "mosi", "mmmo")
REPORTED = [set(range(1111, 1111 + n)) for n in (3, 5, 10)]


@pytest.fixture(scope="module")
def points():
    return {file.stem: read_points(file) for file in FILES}


def config(point):
    """The run that a point asks for; the notebook's default method where the sweep names none."""
    values = {key: value for key, value in point.parameters.items() if key in RunConfig.model_fields}
    return RunConfig(**{"method": "early_fusion", **values})


def variant(config):
    names = config.described()
    return in_words(values_of(names["changes"], names["data_options"]))


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_every_sweep_asks_for_runs_that_can_exist_and_nothing_reported_has_a_seed_of_the_tuning(points, name):
    seeds: dict[tuple, set[int]] = {}
    for c in map(config, points[name]):
        seeds.setdefault((c.method, variant(c), c.dataset, c.fold, c.protocols), set()).add(c.seed)
    assert all(own in ([TUNING] if name == "tune" else REPORTED) for own in seeds.values())
    assert {point.parameters["profile"] for point in points[name]} == {"full"}


def test_the_main_comparison_has_every_method_on_every_data_set(points):
    found = {(c.method, c.dataset) for c in map(config, points["main"])}
    assert found == {(method, dataset) for method in METHODS for dataset in MAIN}


def kinds(points):
    """Data, method and label of the runs behind ``points``."""
    rows = pd.DataFrame([{"method": c.method, "dataset": c.dataset, **c.described()} for c in map(config, points)])
    return rows.assign(data=names.data_of(rows))


@pytest.mark.parametrize("name", ["tune", "main", "missing"])
def test_all_have_the_same_budget_of_steps_over_all_phases(points, name):
    phases = {"hrlf": 2}
    budgets = {
        (c.settings.max_steps * phases.get(c.method, 1), c.settings.patience_steps, c.settings.validate_every)
        for c in map(config, points[name])
    }
    assert budgets == {(1000, 150, 25)}


def test_everything_reported_is_tuned_with_equally_many_trials(points):
    trials = kinds(points["tune"]).groupby(["data", "method"])["label"].agg(["nunique", "count"])
    assert set(trials.itertuples(index=False, name=None)) == {(10, 20)}
    for name in ("main", "missing"):
        for data, method in set(kinds(points[name])[["data", "method"]].itertuples(index=False, name=None)):
            assert any((other, method) in trials.index for other in tuning.SAME_VALUES.get(data, (data,)))


@pytest.mark.parametrize("method", ABLATED)
def test_every_switch_of_a_method_is_an_ablation(points, method):
    configs = [config(point) for point in points[f"ablations_{method}"]]
    assert {c.method for c in configs} == {method}
    full = {name for name, value in METHODS[method].Config.model_fields.items() if value.annotation is bool}
    # Those of the parent that the method only inherits are ablations of the parent.
    inherited = {name for base in METHODS[method].Config.__mro__[1:] for name in getattr(base, "model_fields", {})}
    own = {
        name
        for name in full
        if name.startswith("no_") and (name not in inherited or name in ("no_ulgm", "no_weighting"))
    }
    changed = {name for c in configs for name in c.config}
    assert own <= changed
    shortest = min((c.changes for c in configs), key=len)
    assert all(shortest.items() <= c.changes.items() for c in configs), "the full method must be among them"


def test_sensitivity_varies_each_value_around_its_default(points):
    for block in {point.block for point in points["sensitivity"]}:
        configs = [config(point) for point in points["sensitivity"] if point.block == block]
        (name,) = {key for c in configs for key in c.config}
        default = getattr(METHODS[configs[0].method].Config.for_dataset(configs[0].dataset), name)
        values = {c.config[name] for c in configs}
        assert default in values, block
        assert len(values) >= 3


def test_missing_samples_are_trained_with_and_without(points):
    asked = map(config, [*points["main"], *points["missing"]])
    tested = [c for c in asked if set(c.protocols) >= {"frames", "subsets", "rate"}]
    for method, kind in METHODS.items():
        trained = {data: {c.missing for c in tested if (c.method, c.dataset) == (method, data)} for data in MISSING}
        wanted = {"none"} if kind.own_missing else {"none", "stochastic"}
        assert trained == dict.fromkeys(MISSING, wanted)
