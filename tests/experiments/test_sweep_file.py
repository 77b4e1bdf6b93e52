"""A sweep's file and its points: mistakes are refused with file, line and remedy; names hold what changes results."""

import itertools
import pickle

import pytest
from sweep_files import write_notebook, write_sweep

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.experiments import sweep_file
from mmsa_lib.experiments.parameters import merge
from mmsa_lib.experiments.sweep_file import choices, choose, find_notebook, read_points, read_sweep
from mmsa_lib.files import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-2", -2), ("+7", 7), ("08", 8), ("0.0", 0.0),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("true", True), ("False", False),
        ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("null", None), ("~", None), ("", None),
        ("0x10", 16), ("0o17", 15), ("1_000", 1000), ("=", "="), ("'3'", "3"), ("[1, 2.0, a]", [1, 2.0, "a"]),
    ],
)  # fmt: skip
def test_scalars_are_what_a_reader_takes_them_for(tmp_path, text, value):
    path = tmp_path / "a.yaml"
    path.write_text(f"key: {text}\n")
    found = read_yaml(path)["key"]
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_merge_keys_work(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nagain: *b\n")
    assert read_yaml(path) == {"base": {"x": 1, "y": 2}, "more": {"x": 1, "y": 3}, "again": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"line 3: key 'a' is given twice"),
        ("a: {x: 1, x: 2}\n", r"line 1: key 'x' is given twice"),
        ("a: [1\n", r"line 2"),
        ("1: a\n", r"key 1 is no text"),
        ("a: !!python/object/apply:os.system [ls]\n", r"could not determine a constructor"),
        ("? [a]\n: 1\n", r"is no text"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


ALIASES = "\n".join(
    [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" if i else "a0: &a0 [1, 1, 1, 1, 1]" for i in range(9)]
)
MERGES = "\n".join(
    [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" if i else "a0: &a0 {x: 1, y: 2}" for i in range(9)]
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALIASES, "more than 20,000 values, aliases written out"),
        (MERGES, "more than 20,000 values, aliases written out"),
        ("a: &a [*a]", "an alias stands inside of what it repeats"),
        ("a: &a {b: *a}", "an alias stands inside of what it repeats"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        ("a: " + "{b: " * 20_000, "nested too deeply"),
        ("a: [" + "1," * 150_000 + "]", "more than 100,000 bytes"),
        ("a: [" + "1," * 30_000 + "]", "more than 20,000 values"),
        ("a: " + "9" * 5_000, "digits"),
        ("a: *b", "undefined alias 'b'"),
        ("a: 1\n---\na: 2", "another document"),
        ("a:\n\t- 1", "character '.t'"),
        ("a: \x01", "special characters are not allowed"),
        ("a: !!bool maybe", "maybe"),
        ("a: !!timestamp x", "write a plain value"),
        ("a: !!binary x", "write a plain value"),
        ("a: !!set {x}", "write a plain value"),
        ("a: !!int x", "invalid literal"),
        ("a: !!float x", "could not convert"),
        ("a: !own x", "write a plain value"),
        ("a: {<<: 1}", "expected a mapping"),
        ("a: {x: 1, <<: [1]}", "expected a mapping"),
        ("%TAG ! tag:x\n", "found"),
        ("a: 'open", "line 1"),
    ],
    ids=range(25),
)  # fmt: skip
def test_what_cannot_be_built_is_one_line_before_it_is_built(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).count(str(path)) == 1
    assert len(str(caught.value)) < len(str(path)) + 300
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_and_old_line_ends_are_read(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: [x, y]\r\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": 1, "b": ["x", "y"]}


def test_an_empty_file_holds_no_sweep(tmp_path):
    for text in ("", "# nothing\n", "---\n", "~\n", "text\n", "- 1\n", "grid: {a: [1]}\n"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(ConfigError, match="notebook: field required" if "grid" in text else "holds no sweep"):
            read_sweep(tmp_path / "a.yaml")


def test_a_missing_file_and_bytes_that_are_no_text(tmp_path):
    with pytest.raises(ConfigError, match="no file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read as text"):
        read_yaml(tmp_path / "b.yaml")


def test_a_sweep_is_the_product_of_ablations_grid_and_seeds(tmp_path):
    file = write_sweep(
        tmp_path / "s.yaml",
        parameters={"rate": 0.5, "options": {"depth": 1}},
        grid={"name": ["a", "b"], "options.width": [8, 16]},
        ablations={"full": {}, "deep": {"options.depth": 3}},
        seeds=[1, 2, 3],
    )
    found = list(choices(read_sweep(file)))
    expected = [
        {"rate": 0.5, "options": {"depth": depth, "width": width}, "name": name, "seed": seed}
        for depth, (name, width), seed in itertools.product([1, 3], itertools.product("ab", [8, 16]), [1, 2, 3])
    ]
    assert [choice.parameters for choice in found] == expected
    assert [choice.ablation for choice in found] == ["full"] * 12 + ["deep"] * 12
    assert found[-1].varied == {"name": "b", "options.width": 16, "options.depth": 3, "seed": 3}


def test_blocks_add_to_and_replace_what_stands_above_them(tmp_path):
    file = write_sweep(
        tmp_path / "s.yaml",
        parameters={"rate": 0.5, "options": {"depth": 1}},
        grid={"name": ["a", "b"]},
        seeds=[1, 2],
        blocks=[
            {"name": "one"},
            {"name": "two", "parameters": {"options": {"width": 4}}, "grid": {"name": ["c"]}, "seeds": [7]},
            {"name": "three", "ablations": {"x": {"rate": 1.0}}, "grid": {"options.depth": [2]}},
        ],
    )
    by_block = {name: list(group) for name, group in itertools.groupby(choices(read_sweep(file)), lambda c: c.block)}
    assert [c.parameters["name"] for c in by_block["one"]] == ["a", "a", "b", "b"]
    (two,) = by_block["two"]
    assert two.parameters == {"rate": 0.5, "options": {"depth": 1, "width": 4}, "name": "c", "seed": 7}
    assert {(c.ablation, c.parameters["rate"], c.parameters["options"]["depth"]) for c in by_block["three"]} == {
        ("x", 1.0, 2)
    }


def test_without_grid_or_seeds_there_is_one_run(tmp_path):
    (only,) = choices(read_sweep(write_sweep(tmp_path / "s.yaml", parameters={"rate": 1.0})))
    assert (only.parameters, only.varied, only.block, only.ablation) == ({"rate": 1.0}, {}, "", "")


def test_merging_reaches_into_mappings_and_changes_no_argument():
    base = {"a": {"x": 1, "deep": {"k": 0}}, "b": 2}
    merged = merge(base, {"a.y": 2, "a.deep.k": 5, "c": {"z": 1}, "b": 3})
    assert merged == {"a": {"x": 1, "y": 2, "deep": {"k": 5}}, "b": 3, "c": {"z": 1}}
    assert base == {"a": {"x": 1, "deep": {"k": 0}}, "b": 2}
    with pytest.raises(ConfigError, match="dots"):
        merge(base, {".".join("a" * 5_000): 1})
    with pytest.raises(ConfigError, match=r"b\.x reaches into b, which is 2 and no mapping"):
        merge(base, {"b.x": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parametres": {}}, r"unknown key 'parametres'; did you mean parameters"),
        ({"blocks": [{"name": "a", "gird": {}}]}, r"unknown key 'gird'; did you mean grid"),
        ({"grid": {"rate": []}}, r"grid\.rate is empty"),
        ({"grid": {"rate": [1, 1]}}, r"grid\.rate has a value twice"),
        ({"grid": {"rate": 1}}, r"grid\.rate: input should be a valid list"),
        ({"seeds": [1, 1]}, r"seeds must be one or more different numbers"),
        ({"seeds": []}, r"seeds must be one or more"),
        ({"blocks": [{"name": "a"}, {"name": "a"}]}, r"two blocks are named 'a'"),
        ({"blocks": [{"name": "a b"}]}, r"blocks\.0\.name"),
        ({"blocks": [{"name": "a", "seeds": [1, 1]}]}, r"block a: seeds"),
        ({"timeout": 0}, r"timeout: input should be greater than 0"),
        ({"timeout": float("inf")}, r"timeout: input should be less than or equal"),
        ({"timeout": True}, r"timeout: input should be a valid number"),
        ({"ablations": {"a": 1}}, r"ablations\.a"),
        ({"ablations": {"a": None}}, r"ablations\.a: input should be a valid dictionary"),
        ({"seeds": [True]}, r"seeds\.0: input should be a valid integer"),
        ({"seeds": [1.5]}, r"seeds\.0: input should be a valid integer"),
        ({"seeds": ["1"]}, r"seeds\.0: input should be a valid integer"),
        ({"seeds": [-1]}, r"seeds\.0: input should be greater than or equal to 0"),
        ({"seeds": [2**32]}, r"seeds\.0: input should be less than 4294967296"),
        ({"seeds": 3}, r"seeds: input should be a valid list"),
        ({"seeds": [1], "grid": {"seed": [2]}}, r"seed stands in seeds and in grid or ablations"),
        ({"seeds": [1], "ablations": {"a": {"seed": 2}}}, r"seed stands in seeds and in grid or ablations"),
        ({"grid": {"rate": [1, 1.0]}}, r"grid\.rate has a value twice"),
        ({"grid": {"options": [{"a": 1}, {"a": 1}]}}, r"grid\.options has a value twice"),
        ({"grid": {f"k{i}": list(range(10)) for i in range(9)}}, r"asks for 1,000,000,000 runs; .*at most 10,000"),
        ({"seeds": list(range(200)), "blocks": [{"name": f"b{i}"} for i in range(100)]}, r"asks for 20,000 runs"),
        ({"grid": None}, r"grid: input should be a valid dictionary"),
        ({"blocks": {}}, r"blocks: input should be a valid list"),
        ({"blocks": [None]}, r"blocks\.0"),
        ({"blocks": [{}]}, r"blocks\.0\.name: field required"),
        ({"parameters": ["a"]}, r"parameters: input should be a valid dictionary"),
    ],
)
def test_mistakes_are_refused_in_one_line(tmp_path, content, message):
    file = write_sweep(tmp_path / "s.yaml", **content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_sweep(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_the_notebook_is_found_beside_the_file_or_in_the_project(tmp_path):
    notebook = write_notebook(tmp_path / "tiny.ipynb")
    file = write_sweep(tmp_path / "s.yaml")
    assert find_notebook(read_sweep(file), file) == notebook.resolve()
    file = write_sweep(tmp_path / "t.yaml", notebook="06_train")
    assert find_notebook(read_sweep(file), file).name == "06_train.ipynb"
    file = write_sweep(tmp_path / "v.yaml", notebook="elsewhere/06_train.ipynb")  # not the project's of that name
    with pytest.raises(ConfigError, match=r"no notebook .*elsewhere/06_train\.ipynb"):
        find_notebook(read_sweep(file), file)
    file = write_sweep(tmp_path / "u.yaml", notebook="06_trian")
    with pytest.raises(ConfigError, match="did you mean 06_train"):
        find_notebook(read_sweep(file), file)


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
    asked = []
    monkeypatch.setattr(sweep_file, "_modules", lambda roots: asked.append(roots) or "code 1")
    cell = "import numpy\nfrom mmsa_lib.losses import coral"
    first = ids(cell)
    assert asked[-1] == ("mmsa_lib.losses", "mmsa_lib.losses.coral")
    monkeypatch.setattr(sweep_file, "_modules", lambda roots: "code 2")
    assert ids(cell) != first


def test_cells_with_magics_are_read_and_cells_that_are_no_python_count_with_all_of_the_library(ids, monkeypatch):
    asked = []
    monkeypatch.setattr(sweep_file, "_modules", lambda roots: asked.append(roots) or "")
    ids("%matplotlib inline\n!ls\nimport mmsa_lib.paths")
    assert asked[-1] == ("mmsa_lib.paths",)
    ids("%%bash\nif then fi (")
    assert {"mmsa_lib.paths", "mmsa_lib.training.fit", "mmsa_lib.methods.hrlf"} <= set(asked[-1])


def test_equal_points_are_executed_once(ids):
    blocks = [{"name": "a"}, {"name": "b", "parameters": {"rate": 0.1}}]
    assert len(ids(ablations={"full": {}}, blocks=blocks, seeds=[1, 2])) == 2


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"parameters": {"rat": 1}}, UnknownNameError, r"unknown parameter of tiny\.ipynb 'rat'; did you mean rate"),
        ({"grid": {"rate": ["fast"]}}, ConfigError, r"parameter 'rate' cannot be 'fast'"),
        ({"grid": {"seed": [1.5]}}, ConfigError, r"parameter 'seed' cannot be 1\.5"),
        ({"ablations": {"bad": {"name": 3}}}, ConfigError, r"ablation bad: .*parameter 'name' cannot be 3"),
        ({"ablations": {"a": {}, "b": {"rate": 0.1}}}, ConfigError, "ablation b: the same run as ablation a"),
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


def test_the_content_of_a_data_set_is_part_of_the_name(tmp_path, monkeypatch):
    from mmsa_lib.data.sources.synthetic import build
    from mmsa_lib.data.store import write_store

    monkeypatch.setenv("MMSA_LIB_DATA", str(tmp_path))
    (tmp_path / "stores").mkdir()
    asked = {"dataset": "own", "method": "text_only"}
    file = write_sweep(tmp_path / "s.yaml", notebook="06_train", parameters=asked)
    names = []
    for seed in (1, 2, 1):
        write_store(build(samples=(12, 6, 6), dims=(8, 8, 8), length=4, seed=seed), tmp_path / "stores" / "own.h5")
        names.append(read_points(file)[0].id)
    assert names[0] != names[1]
    assert names[0] == names[2]
    (tmp_path / "other").mkdir()
    names = []
    for seed in (1, 2):
        write_store(build(samples=(12, 6, 6), dims=(8, 8, 8), length=4, seed=seed), tmp_path / "other" / "own.h5")
        grid = {"data": [{}, {"folder": str(tmp_path / "other")}]}
        names.append([p.id for p in read_points(write_sweep(file, notebook="06_train", parameters=asked, grid=grid))])
    assert names[0][0] == names[1][0]
    assert names[0][1] != names[1][1]


def test_a_point_survives_the_way_to_another_machine(tmp_path):
    file = write_sweep(tmp_path / "s.yaml", notebook="06_train", parameters=TINY_RUN, seeds=[3])
    (point,) = read_points(file)
    assert pickle.loads(pickle.dumps(point)) == point
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
