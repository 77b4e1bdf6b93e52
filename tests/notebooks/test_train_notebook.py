"""The notebook and the command line give the same run."""

import pytest
import torch
from safetensors.torch import load_file

from mmsa_lib.cli import main
from mmsa_lib.experiments.notebooks import execute
from mmsa_lib.paths import project_root

SAME_BYTES = ("config.json", "history.csv", "metrics.csv", "constants.csv", "predictions.h5")


@pytest.mark.slow
def test_the_notebook_writes_the_run_folder_of_the_command_line(tmp_path):
    root = project_root()
    data = {"samples": [60, 30, 30], "dims": [12, 10, 8]}
    config = {"max_epochs": 2}
    parameters = {"method": "modal_alignment", "data": data, "config": config, "runs": str(tmp_path / "notebook")}
    executed = execute(root / "notebooks" / "06_train.ipynb", parameters, tmp_path / "06_train.ipynb")
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
