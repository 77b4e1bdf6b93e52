"""Executed notebooks without what changes from run to run, so that two runs of one notebook give the same bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

INJECTED_TAG = "injected-parameters"
_MARKER_TAG = "papermill-error-cell-tag"
_WIDGETS = "application/vnd.jupyter.widget"
_ENCODED = ("image/png", "image/jpeg", "application/pdf")


def clean(
    notebook: NotebookNode, replacements: Mapping[str, str] | None = None, *, keep_stderr: bool = False
) -> list[int]:
    """Bring ``notebook`` to its normal form, in place.

    Cells keep their ids and tags and lose other metadata; papermill's error banners, widget views and (unless
    ``keep_stderr``) standard error go; PNG pictures are stored with 256 colours, in about a third of the space;
    execution counts become 1, 2, ... in the order of the cells; the kernel is called ``python3``.

    Args:
        notebook: an nbformat 4 notebook.
        replacements: text to replace in outputs, such as folders of this machine; longer keys are replaced first.
        keep_stderr: keep what cells wrote to standard error, which helps to understand a failure.

    Returns:
        Positions, from 1, of the cells in whose outputs something was replaced.
    """
    pairs = sorted((replacements or {}).items(), key=lambda pair: -len(pair[0]))
    replaced = []
    notebook.cells = [cell for cell in notebook.cells if _MARKER_TAG not in cell.metadata.get("tags", [])]
    notebook.metadata = _as_node(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    executed = 0
    for position, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = _as_node({"tags": list(tags)} if tags else {})
        cell.id = INJECTED_TAG if INJECTED_TAG in tags else cell.get("id", f"cell-{position + 1:02d}")
        if cell.cell_type != "code":
            continue
        outputs = _clean_outputs(cell.outputs, keep_stderr)
        cell.outputs = [_as_node(_replace(output, pairs)) for output in outputs]
        if cell.outputs != outputs:
            replaced.append(position + 1)
        if cell.get("execution_count") is not None:
            executed += 1
            cell.execution_count = executed
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return replaced


def _clean_outputs(outputs: list[Any], keep_stderr: bool) -> list[Any]:
    kept = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr" and not keep_stderr:
            continue
        if any(kind.startswith(_WIDGETS) for kind in output.get("data", {})):
            continue
        if "metadata" in output:
            output.metadata = {}
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = _small_png(output.data["image/png"])
        kept.append(output)
    return kept


def _small_png(encoded: str) -> str:
    """A base64 PNG with at most 256 colours, or as it was where that is no smaller or it is no picture that opens."""
    from PIL import Image

    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            if picture.mode == "P":
                return encoded
            picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    except (OSError, ValueError):
        return encoded
    shorter = base64.b64encode(small.getvalue()).decode("ascii") + "\n"
    return min(encoded, shorter, key=len)


def _replace(value: Any, pairs: list[tuple[str, str]]) -> Any:
    """``value`` with the replacements made in every text in it; encoded images are not text."""
    if isinstance(value, str):
        for old, new in pairs:
            value = value.replace(old, new)
        return value
    if isinstance(value, list):
        return [_replace(part, pairs) for part in value]
    if isinstance(value, dict):
        return {key: part if key in _ENCODED else _replace(part, pairs) for key, part in value.items()}
    return value


def _as_node(value: dict) -> NotebookNode:
    from nbformat import from_dict

    return from_dict(value)
