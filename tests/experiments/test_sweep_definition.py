"""A sweep's file: what each key means, and that mistakes are refused with file, line and remedy."""

import itertools

import pytest
from sweep_files import write_notebook, write_sweep

from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.sweeps.definition import choices, find_notebook, merge, read_sweep
from mmsa_lib.experiments.sweeps.yaml_values import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("-2", -2), ("+7", 7), ("08", 8), ("0.0", 0.0),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("true", True), ("False", False),
        ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("null", None), ("~", None), ("", None),
        ("0x10", "0x10"), ("1_000", "1_000"), ("'3'", "3"), ("[1, 2.0, a]", [1, 2.0, "a"]),
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
        ({"seeds": ["x"]}, r"seeds\.0: input should be a valid integer"),
        ({"blocks": [{"name": "a"}, {"name": "a"}]}, r"two blocks are named 'a'"),
        ({"blocks": [{"name": "a b"}]}, r"blocks\.0\.name"),
        ({"blocks": [{"name": "a", "seeds": [1, 1]}]}, r"block a: seeds"),
        ({"timeout": 0}, r"timeout: input should be greater than 0"),
        ({"ablations": {"a": 1}}, r"ablations\.a"),
    ],
)
def test_mistakes_are_refused_in_one_line(tmp_path, content, message):
    file = write_sweep(tmp_path / "s.yaml", **content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_sweep(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_holds_no_sweep(tmp_path):
    (tmp_path / "s.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="holds no sweep"):
        read_sweep(tmp_path / "s.yaml")
    (tmp_path / "t.yaml").write_text("grid: {a: [1]}\n")
    with pytest.raises(ConfigError, match="notebook: field required"):
        read_sweep(tmp_path / "t.yaml")


def test_the_notebook_is_found_beside_the_file_or_in_the_project(tmp_path):
    notebook = write_notebook(tmp_path / "tiny.ipynb")
    file = write_sweep(tmp_path / "s.yaml")
    assert find_notebook(read_sweep(file), file) == notebook.resolve()
    file = write_sweep(tmp_path / "t.yaml", notebook="06_train")
    assert find_notebook(read_sweep(file), file).name == "06_train.ipynb"
    file = write_sweep(tmp_path / "u.yaml", notebook="06_trian")
    with pytest.raises(ConfigError, match="did you mean 06_train"):
        find_notebook(read_sweep(file), file)
