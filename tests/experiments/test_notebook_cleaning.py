"""Pictures in executed notebooks are stored small and still show the same."""

import base64
import io

import nbformat
import numpy as np
from PIL import Image

from mmsa_lib.experiments.notebook_cleaning import clean


def picture() -> str:
    ramp = np.linspace(0, 255, 200, dtype=np.uint8)
    image = Image.fromarray(np.stack([np.tile(ramp, (80, 1))] * 3, axis=-1)).convert("RGBA")
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=0)
    return base64.b64encode(file.getvalue()).decode()


def executed(png: str) -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("display_data", data={"image/png": png, "text/plain": "<Figure>"})
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", execution_count=7, outputs=[output])])


def decoded(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), dtype=int)


def test_pictures_shrink_and_keep_their_colours_within_a_step():
    original = picture()
    notebook = executed(original)
    clean(notebook)
    small = notebook.cells[0].outputs[0].data["image/png"]
    assert len(small) < len(original) / 3
    assert np.abs(decoded(small) - decoded(original)).max() <= 4


def test_a_small_picture_is_left_as_it_is():
    notebook = executed(picture())
    clean(notebook)
    once = notebook.cells[0].outputs[0].data["image/png"]
    clean(notebook)
    assert notebook.cells[0].outputs[0].data["image/png"] == once
