"""The parameters cell: what may stand in it, and that wrong values never reach a kernel, or its second cell."""

import subprocess
import sys

import nbformat
import pytest
from sweep_files import printed

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.experiments.parameters import described_run, open_page, parameters_model, read_notebook, typed_parameters

CELL = """\
profile: str = "smoke"  # smoke, cpu or full
seed: int = 1
lr: float = 3e-4
layers: int | None = None
modalities: list[str] = ["text", "audio"]
kind: Literal["mean", "sum"] = "mean"
bound: float = -1
config: dict = {}
weights: list[float] | None = [0.0]
"""


def notebook(*cells: str, tags=("parameters",)):
    book = nbformat.v4.new_notebook()
    for source in cells:
        book.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}))
    return book


def typed(**given):
    return typed_parameters(parameters_model(notebook(CELL)), given, "my.ipynb")


def test_defaults_are_read_in_order_and_typed():
    values = typed()
    assert [*values] == [line.partition(":")[0] for line in CELL.splitlines()]
    assert values["bound"] == -1.0
    assert isinstance(values["bound"], float)
    assert values["layers"] is None


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("lr", "3e-4", 3e-4),
        ("seed", "7", 7),
        ("layers", 2, 2),
        ("kind", "sum", "sum"),
        ("modalities", ["t"], ["t"]),
        ("config", '{"max_epochs": 1}', {"max_epochs": 1}),
        ("config", "{max_epochs: 1, learning_rate: 3e-4}", {"max_epochs": 1, "learning_rate": 3e-4}),
        ("config", "a: [x]", {"a": ["x"]}),
        ("modalities", "[audio, text]", ["audio", "text"]),
        ("weights", "[0, 1.5]", [0.0, 1.5]),
        ("weights", "null", None),
    ],
)
def test_text_is_read_as_the_annotated_type(name, given, expected):
    value = typed(**{name: given})[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("seed", 1.5),
        ("modalities", "t"),
        ("kind", "max"),
        ("lr", "fast"),
        ("profile", 5),
        ("seed", None),
        ("config", "max_epochs=1"),
        ("config", "[1]"),
        ("config", ""),
        ("weights", "{a: 1}"),
    ],
)
def test_values_of_another_type_are_refused_by_name(name, given):
    with pytest.raises(ConfigError, match=f"my.ipynb: parameter '{name}' cannot be") as caught:
        typed(**{name: given})
    assert "\n" not in str(caught.value)


def test_an_infinite_default_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"my\.ipynb: parameter 'x' cannot be inf: nan and infinity are no numbers"):
        typed_parameters(parameters_model(notebook("x: float = 1e999")), {}, "my.ipynb")


def test_a_misspelt_name_is_an_error_with_the_nearest_names():
    with pytest.raises(UnknownNameError, match=r"unknown parameter of my\.ipynb 'modalites'; did you mean modalities"):
        typed(modalites=[])


def test_profiles_are_the_three_known_ones():
    assert typed(profile="full")["profile"] == "full"
    with pytest.raises(UnknownNameError, match="did you mean smoke"):
        typed(profile="smok")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("seed = 1", "line 1 of the parameters cell must read `name: type = literal`, not `seed = 1`"),
        ("a: int = 1\nprint(a)", "line 2"),
        ("seed: int", "must read"),
        ("seed: int = 3 * 2", "must be a literal"),
        ("seed: int = 'x'", "the default of 'seed' cannot be 'x'"),
        ("seed: tuple[int, ...] = (1, 2)", "may only use"),
        ("seed: __import__('os').system('false') = 1", "may only use"),
        ("seed: int = 1\nseed: int = 2", "defined twice"),
        ("_seed: int = 1", "underscore"),
        ("seed: int =", "not Python, line 1"),
        ("seed: Optional = None", "the annotation of parameter 'seed' is no type"),
        ("seed: Literal = 3", "the annotation of parameter 'seed' is no type"),
        ("seed: list[0] = []", "the annotation of parameter 'seed' is no type"),
        ("model_config: int = 3", "parameter 'model_config' has a name that pydantic needs"),
    ],
)
def test_a_malformed_cell_is_an_error_that_names_the_line(cell, reason):
    with pytest.raises(ConfigError) as caught:
        parameters_model(notebook(cell), "my.ipynb")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("my.ipynb")


@pytest.mark.parametrize("book", [notebook(), notebook("a: int = 1", "b: int = 1"), notebook("a: int = 1", tags=())])
def test_there_is_exactly_one_parameters_cell(book):
    with pytest.raises(ConfigError, match=r"exactly one code cell must be tagged 'parameters', found [02]"):
        parameters_model(book)


def test_files_that_are_no_notebooks_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no notebook .*absent\.ipynb"):
        read_notebook(tmp_path / "absent.ipynb")
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(ConfigError, match=r"broken\.ipynb is not a Jupyter notebook"):
        read_notebook(tmp_path / "broken.ipynb")


@pytest.mark.parametrize("text", ["{max_epochs: 1", "{a: 1, a: 2}", "{a: !!python/name:os.system x}"])
def test_text_that_is_no_yaml_is_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"my\.ipynb: parameter 'config', line 1: ") as caught:
        typed(config=text)
    assert "\n" not in str(caught.value)


def test_a_page_types_its_parameters_where_they_are():
    page = {"__annotations__": {"config": dict, "seed": int, "rate": float | None}, "other": "1"}
    page |= {"config": '{"max_epochs": 1}', "seed": "7", "rate": "3e-4"}
    open_page(page)
    assert (page["config"], page["seed"], page["rate"], page["other"]) == ({"max_epochs": 1}, 7, 3e-4, "1")
    with pytest.raises(ConfigError, match="this page: parameter 'seed' cannot be 'x'"):
        open_page(page | {"seed": "x"})
    open_page({})  # a page may have none


def test_a_page_without_the_checkout_says_so_in_one_line():
    with pytest.raises(ConfigError, match=r"needs the folder nowhere/ of a checkout.*pip install -e") as caught:
        open_page({}, "json", "nowhere")
    assert "\n" not in str(caught.value)


def test_papermill_alone_hands_over_text_that_the_page_reads(tmp_path):
    """`papermill -p config '{"max_epochs": 1}'` on the command line, without our runner."""
    book = notebook("config: dict = {}\nweights: list[float] = []\nrate: float = 0.1")
    opened = "from mmsa_lib.experiments.parameters import open_page\n\nopen_page(globals())"
    book.cells += [nbformat.v4.new_code_cell(opened), nbformat.v4.new_code_cell("print(config, weights, rate)")]
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "a.ipynb")
    given = ["-p", "config", '{"max_epochs": 1}', "-p", "weights", "[1, 2.5]", "-p", "rate", "3e-4"]
    command = [sys.executable, "-m", "papermill", "a.ipynb", "b.ipynb", "-k", "python3", "--no-progress-bar", *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed(tmp_path / "b.ipynb")[-1] == "{'max_epochs': 1} [1.0, 2.5] 0.0003"


seed, dataset, options = 1111, "synthetic", {}


def test_the_committed_run_is_described_without_a_word():
    assert described_run(seed=1111, dataset="synthetic", options={}) is None


def test_another_run_is_told_in_one_line():
    line = described_run(seed=1112, dataset="synthetic", options={"a": 1}).data
    assert "`seed=1111` in place of `1112`, `options={}` in place of `{'a': 1}`" in line
    assert "dataset" not in line
    assert "\n" not in line
