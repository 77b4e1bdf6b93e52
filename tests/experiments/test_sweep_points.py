"""Points of a sweep: checked before a kernel starts, and named by what can change their outcome."""

import json

import pytest
from sweep_files import write_notebook, write_sweep

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.experiments.sweep_file import Point, choose, read_points

TINY_RUN = {"method": "text_only", "data": {"samples": [48, 24, 32], "dims": [12, 8, 8], "length": 6}}


@pytest.fixture
def ids(tmp_path):
    """Write a notebook and a sweep; the identifiers of its points."""

    def build(*cells, **content):
        write_notebook(tmp_path / "tiny.ipynb", *(cells or ("x = 1",)))
        return [point.id for point in read_points(write_sweep(tmp_path / "s.yaml", **content))]

    return build


def test_equal_content_has_equal_names_wherever_it_stands(ids):
    assert ids(parameters={"rate": 0.2}, seeds=[1]) == ids(grid={"seed": [1]}, parameters={"rate": "0.2"})
    assert ids(parameters={"rate": 0.1}) == ids()  # the default, written down


def test_whatever_can_change_the_outcome_changes_the_name(ids):
    first = ids(seeds=[1])
    assert ids(seeds=[2]) != first
    assert ids(seeds=[1], parameters={"options": {"a": 1}}) != first
    assert ids("x = 2", seeds=[1]) != first
    assert ids("import mmsa_lib.paths\nx = 1", seeds=[1]) != first
    assert ids(seeds=[1], timeout=5) == first


def test_the_library_code_that_a_notebook_imports_counts(ids, monkeypatch):
    from mmsa_lib.experiments import sweep_file

    asked = []
    monkeypatch.setattr(sweep_file, "_modules", lambda roots: asked.append(roots) or "code 1")
    cell = "import numpy\nfrom mmsa_lib.losses import coral"
    first = ids(cell)
    assert asked[-1] == ("mmsa_lib.losses", "mmsa_lib.losses.coral")
    monkeypatch.setattr(sweep_file, "_modules", lambda roots: "code 2")
    assert ids(cell) != first


def test_cells_with_magics_are_read_and_cells_that_are_no_python_count_with_all_of_the_library(ids, monkeypatch):
    from mmsa_lib.experiments import sweep_file

    asked = []
    monkeypatch.setattr(sweep_file, "_modules", lambda roots: asked.append(roots) or "")
    ids("%matplotlib inline\n!ls\nimport mmsa_lib.paths")
    assert asked[-1] == ("mmsa_lib.paths",)
    ids("%%bash\nif then fi (")
    assert {"mmsa_lib.paths", "mmsa_lib.training.fit", "mmsa_lib.methods.hrlf"} <= set(asked[-1])


def test_equal_points_are_executed_once(ids):
    assert len(ids(ablations={"full": {}, "same": {"rate": 0.1}}, seeds=[1, 2])) == 2


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"parameters": {"rat": 1}}, UnknownNameError, r"unknown parameter of tiny\.ipynb 'rat'; did you mean rate"),
        ({"grid": {"rate": ["fast"]}}, ConfigError, r"parameter 'rate' cannot be 'fast'"),
        ({"grid": {"seed": [1.5]}}, ConfigError, r"parameter 'seed' cannot be 1\.5"),
        ({"ablations": {"bad": {"name": 3}}}, ConfigError, r"ablation bad: .*parameter 'name' cannot be 3"),
        ({"blocks": [{"name": "b", "parameters": {"rate.x": 1}}]}, ConfigError, r"parameter 'rate' cannot be"),
        ({"parameters": {"profile": "huge"}}, UnknownNameError, "unknown profile"),
        ({"parameters": {"seed": True}}, ConfigError, "parameter 'seed' cannot be True: true is no number"),
        ({"parameters": {"seed": -1}}, ConfigError, "parameter 'seed' cannot be -1: a seed is 0 to 4294967295"),
        ({"grid": {"rate": [float("nan")]}}, ConfigError, "parameter 'rate' cannot be nan: nan and infinity"),
        ({"parameters": {"options.x": float("inf")}}, ConfigError, "parameter 'options' cannot be .*infinity"),
        ({"parameters": {"rate": [0] * 500}}, ConfigError, "parameter 'rate' cannot be .{,120}: input"),
    ],
)
def test_parameters_are_checked_before_anything_runs(ids, content, error, message):
    with pytest.raises(error, match=message) as caught:
        ids(**content)
    assert "s.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config.lambda_cof": 1}, "did you mean lambda_cov"),
        ({"config.lambda_cov": "much"}, "lambda_cov"),
        ({"config.batch_size": True}, "batch_size=True .*true is no number"),
        ({"settings.batch_size": True}, "batch_size=True .*true is no number"),
        ({"data.samples": [True, 24, 32]}, "data.samples=.*true is no number"),
        ({"method": "hrfl"}, "did you mean hrlf"),
        ({"dataset": "mosy"}, "did you mean mosi"),
        ({"data.lenght": 3}, "did you mean length"),
        ({"settings.patiense": 3}, "patience"),
        ({"missing": "some"}, "unknown missing recipe"),
        ({"protocols": ["frame"]}, "did you mean frames"),
    ],
)
def test_a_run_that_cannot_exist_is_refused_before_anything_runs(tmp_path, changes, message):
    file = write_sweep(
        tmp_path / "s.yaml", notebook="06_train", parameters={"method": "modal_alignment"}, ablations={"x": changes}
    )
    with pytest.raises(ConfigError, match=message) as caught:
        read_points(file)
    assert "ablation x" in str(caught.value)


def test_a_run_is_called_as_its_ablation_and_is_the_same_run_under_any_name(tmp_path):
    def point(**ablations):
        file = write_sweep(
            tmp_path / "s.yaml", notebook="06_train", parameters={"method": "modal_alignment"}, ablations=ablations
        )
        (found,) = read_points(file)
        return found

    named = point(weak={"config.lambda_cov": 0.5})
    assert named.parameters["label"] == "weak"
    renamed = point(other={"config.lambda_cov": 0.5})
    own = point(weak={"config.lambda_cov": 0.5, "label": "my own"})
    assert (own.parameters["label"], renamed.parameters["label"]) == ("my own", "other")
    assert (named.id, named.group) == (renamed.id, renamed.group) == (own.id, own.group)


RUN = """profile: str = "smoke"
method: str = "mine"
dataset: str = "synthetic"
seed: int = 0
config: dict = {}
data: dict = {}
settings: dict = {}
"""


@pytest.mark.parametrize(
    "cell",
    [
        'METHODS["mine"] = Mine',
        'm.METHODS["mine"] = Mine',
        'METHODS.update({"mine": Mine})',
        "METHODS.update(mine=Mine)",
        'METHODS |= {"mine": Mine}',
        'METHODS.setdefault("mine", Mine)',
        "from mmsa_lib.methods import METHODS as M\nM['mine'] = Mine",
        "METHODS[Mine.id] = Mine",
        "def register(cls): METHODS[cls.id] = cls",
        "import own_package",
        "from own_package.inside import Mine",
    ],
)
def test_a_method_that_the_notebook_brings_is_not_refused(tmp_path, monkeypatch, cell):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    write_notebook(tmp_path / "tiny.ipynb", "%matplotlib inline\n" + cell, parameters=RUN)
    (point,) = read_points(write_sweep(tmp_path / "s.yaml", parameters={"config.own": 1}))
    assert point.parameters["config"] == {"own": 1}


@pytest.mark.parametrize(
    ("cells", "method", "message"),
    [
        (["x = 1"], "mine", "unknown method 'mine'"),
        (["METHODS['mine']"], "mine", "unknown method 'mine'"),
        (["OTHER['mine'] = 1"], "mine", "unknown method 'mine'"),
        (["METHODS['mine'] = Mine"], "mien", "unknown method 'mien'; did you mean mine"),
        (["METHODS['mine'] = Mine"], "hrfl", "did you mean hrlf"),
        (["import no_such_package"], "mine", "imports no_such_package, which is not found; .*PYTHONPATH"),
        (["import numpy, pandas.io"], "mine", "unknown method 'mine'"),
    ],
)
def test_a_method_that_nobody_brings_is_refused(tmp_path, cells, method, message):
    write_notebook(tmp_path / "tiny.ipynb", *cells, parameters=RUN)
    with pytest.raises(ConfigError, match=message):
        read_points(write_sweep(tmp_path / "s.yaml", parameters={"method": method}))


def test_modules_of_ones_own_are_part_of_the_name(tmp_path, ids, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_one.py").write_text("from own_two import y")
    (tmp_path / "own_two.py").write_text("y = 1")
    first = ids("import own_one")
    assert ids("import own_one") == first
    (tmp_path / "own_two.py").write_text("y = 2")
    assert ids("import own_one") != first
    other = tmp_path / "elsewhere"
    other.mkdir()
    names = []
    for content in "12":
        (other / "own_three.py").write_text(content)
        names += ids(f"import sys\nsys.path.insert(0, {str(other)!r})\nimport own_three")
    assert names[0] != names[1]


def test_a_data_set_that_is_not_built_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    file = write_sweep(tmp_path / "s.yaml", notebook="06_train", parameters={"dataset": "mosi"})
    (point,) = read_points(file)
    assert "mmsa-lib data build mosi" in point.unbuilt


def test_the_content_of_a_data_set_is_part_of_the_name(tmp_path, monkeypatch):
    from mmsa_lib.data.sources.synthetic import build
    from mmsa_lib.data.store import write_store

    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    (tmp_path / "stores").mkdir()
    file = write_sweep(tmp_path / "s.yaml", notebook="06_train", parameters={"dataset": "own", "method": "text_only"})
    names = []
    for seed in (1, 2, 1):
        write_store(build(samples=(12, 6, 6), dims=(8, 8, 8), length=4, seed=seed), tmp_path / "stores" / "own.h5")
        names.append(read_points(file)[0].id)
    assert names[0] != names[1]
    assert names[0] == names[2]


def test_a_point_survives_the_way_to_another_machine(tmp_path):
    file = write_sweep(tmp_path / "s.yaml", notebook="06_train", parameters=TINY_RUN, seeds=[3])
    (point,) = read_points(file)
    assert Point(**json.loads(json.dumps(point.to_plain()))) == point
    assert point.label == "seed=3"


class TestChoose:
    @pytest.fixture
    def points(self, tmp_path):
        write_notebook(tmp_path / "tiny.ipynb")
        file = write_sweep(
            tmp_path / "s.yaml",
            ablations={"full": {}, "flat": {"options.depth": 0}},
            seeds=[1, 2],
            blocks=[{"name": "mosi"}, {"name": "mmmo", "grid": {"rate": [0.2, 0.3]}}],
        )
        return read_points(file)

    @pytest.mark.parametrize(
        ("only", "count"),
        [
            ([], 12), (["mosi"], 4), (["mosi", "mmmo"], 12), (["flat"], 6), (["mmmo", "flat"], 4),
            (["seed=1"], 6), (["seed=1", "seed=2"], 12), (["rate=0.3"], 4), (["mmmo", "rate=0.3", "seed=1", "full"], 1),
            (["options.depth=0"], 6), (["depth=0"], 6),
        ],
    )  # fmt: skip
    def test_kinds_are_combined_and_values_of_one_kind_are_alternatives(self, points, only, count):
        assert len(choose(points, only)) == count

    def test_by_the_start_of_an_identifier(self, points):
        assert choose(points, [points[5].id[:8]]) == [points[5]]

    @pytest.mark.parametrize(("only", "near"), [("mosy", "mosi"), ("ful", "full"), ("rate=0.4", r"rate=0\.[23]")])
    def test_what_fits_nothing_is_answered_with_the_nearest(self, points, only, near):
        with pytest.raises(UnknownNameError, match=near):
            choose(points, [only])
