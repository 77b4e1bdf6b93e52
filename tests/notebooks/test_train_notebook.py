"""The notebook and the command line give the same run."""

import ast
import builtins

import nbformat
import pytest
import torch
from safetensors.torch import load_file

from mmsa_lib.cli import main
from mmsa_lib.experiments.notebooks import execute
from mmsa_lib.paths import project_root

NOTEBOOKS = project_root() / "notebooks"
SAME_BYTES = ("config.json", "history.csv", "metrics.csv", "constants.csv", "predictions.h5")


@pytest.mark.slow
def test_the_notebook_writes_the_run_folder_of_the_command_line(tmp_path):
    data = {"samples": [60, 30, 30], "dims": [12, 10, 8]}
    config = {"max_epochs": 2}
    parameters = {"method": "modal_alignment", "data": data, "config": config, "runs": str(tmp_path / "notebook")}
    executed = execute(NOTEBOOKS / "06_train.ipynb", parameters, tmp_path / "06_train.ipynb")
    assert executed.ok, executed.failure
    code = main(
        ["train", "modal_alignment", "--seeds", "1111", "--runs", str(tmp_path / "line"), "--set", "max_epochs=2"]
        + [f"data.{key}={value}" for key, value in data.items()]
    )
    assert code == 0
    (notebook,) = [path for path in (tmp_path / "notebook").iterdir() if (path / "DONE").is_file()]
    (line,) = [path for path in (tmp_path / "line").iterdir() if (path / "DONE").is_file()]
    assert notebook.name == line.name
    for name in SAME_BYTES:
        assert (notebook / name).read_bytes() == (line / name).read_bytes(), name
    # safetensors orders its header at random, so the weights are compared and not the bytes.
    first, second = (load_file(folder / "model.safetensors") for folder in (notebook, line))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["06_train", "playground"])
def test_pages_that_a_wheel_can_run_need_no_checkout(name):
    book = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    assert "open_page(globals())" in code
    assert "companion" not in code
    assert "tables_folder" not in code


def test_what_a_sweep_runs_needs_no_lesson():
    """Names that the engine's cells use are set by them."""
    book = nbformat.read(NOTEBOOKS / "06_train.ipynb", as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    lessons = [cell for cell in code if "lesson" in cell.metadata.get("tags", [])]
    engine = ast.parse("\n".join(cell.source for cell in code if cell not in lessons))
    own = {node.id for node in ast.walk(engine) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {alias.asname or alias.name for node in ast.walk(engine) for alias in getattr(node, "names", ())}
    used = {node.id for node in ast.walk(engine) if isinstance(node, ast.Name)} - own - set(dir(builtins))
    assert not used
    assert len(lessons) >= 10
