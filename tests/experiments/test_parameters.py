"""The parameters cell: what may stand in it, and that wrong values never reach a kernel."""

import nbformat
import pytest

from mmsa_lib.errors import ConfigError, UnknownNameError
from mmsa_lib.experiments.parameters import parameters_model, read_notebook, typed_parameters

CELL = """\
profile: str = "smoke"  # smoke, cpu or full
seed: int = 1
lr: float = 3e-4
layers: int | None = None
modalities: list[str] = ["text", "audio"]
kind: Literal["mean", "sum"] = "mean"
bound: float = -1
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
    assert list(values) == ["profile", "seed", "lr", "layers", "modalities", "kind", "bound"]
    assert values["bound"] == -1.0
    assert isinstance(values["bound"], float)
    assert values["layers"] is None


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [("lr", "3e-4", 3e-4), ("seed", "7", 7), ("layers", 2, 2), ("kind", "sum", "sum"), ("modalities", ["t"], ["t"])],
)
def test_text_is_read_as_the_annotated_type(name, given, expected):
    value = typed(**{name: given})[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [("seed", 1.5), ("modalities", "t"), ("kind", "max"), ("lr", "fast"), ("profile", 5), ("seed", None)],
)
def test_values_of_another_type_are_refused_by_name(name, given):
    with pytest.raises(ConfigError, match=f"my.ipynb: parameter '{name}' cannot be") as caught:
        typed(**{name: given})
    assert "\n" not in str(caught.value)


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
