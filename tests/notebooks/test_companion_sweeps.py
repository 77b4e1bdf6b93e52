"""The sweeps in ``notebooks/sweeps``: they can be run, and they leave out no method, baseline or switch."""

import pytest

from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.results import in_words, values_of
from mmsa_lib.experiments.sweep_file import read_points
from mmsa_lib.methods import METHODS
from mmsa_lib.paths import project_root

FOLDER = project_root() / "notebooks" / "sweeps"
FILES = sorted(FOLDER.glob("*.yaml"))
ABLATED = [file.stem.removeprefix("ablations_") for file in FILES if file.stem.startswith("ablations_")]
SEEDS = {1111, 1112, 1113, 1114, 1115}


@pytest.fixture(scope="module")
def points():
    return {file.stem: read_points(file) for file in FILES}


def config(point):
    """The run that a point asks for; the notebook's default method where the sweep names none."""
    values = {key: value for key, value in point.parameters.items() if key in RunConfig.model_fields}
    return RunConfig(**{"method": "modal_alignment", **values})


def variant(config):
    names = config.described()
    return in_words(values_of(names["changes"], names["data_options"]))


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_every_sweep_asks_for_runs_that_can_exist_with_five_seeds(points, name):
    configs = [config(point) for point in points[name]]
    assert {c.seed for c in configs} == SEEDS
    runs = {(c.method, variant(c), c.dataset, c.fold, c.protocols, c.seed) for c in configs}
    assert len(runs) == len({run[:-1] for run in runs}) * len(SEEDS)
    assert {point.parameters["profile"] for point in points[name]} == {"full"}


def test_the_main_comparison_has_every_method_on_every_data_set(points):
    found = {(c.method, c.dataset) for c in map(config, points["main"])}
    assert found == {(method, dataset) for method in METHODS for dataset in ("synthetic", "mosi", "mmmo")}


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
    found = {(c.method, c.missing) for c in map(config, points["missing"])}
    for method, kind in METHODS.items():
        wanted = {"none"} if kind.own_missing else {"none", "stochastic"}
        assert {missing for m, missing in found if m == method} == wanted
    assert all(set(c.protocols) >= {"frames", "subsets", "rate"} for c in map(config, points["missing"]))
