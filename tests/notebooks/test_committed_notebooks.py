"""House rules of committed notebooks, checked without running them; and that the checks see each breach."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell as code
from nbformat.v4 import new_output as shown

from mmsa_lib.errors import ConfigError
from mmsa_lib.experiments.notebooks import clean
from mmsa_lib.experiments.parameters import PARAMETERS_TAG, parameters_model

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 300_000
MACHINE_PATH = re.compile(r"(/home/|/roo[t]/|/Users/|/tmp/|/var/folders/|[A-Z]:\\Users)|0x[0-9a-f]{8,}")
RELATIVE_PATH = re.compile(r"""["']\.\.?/""")


def problems(notebook, size=0):
    """Every breach of the house rules in ``notebook``, one line each."""
    return [*page(notebook), *parameters(notebook), *outputs(notebook, size)]


def page(notebook):
    """Title, question, headings, paths in the source."""
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# ") or "?" not in first.source:
        yield "the first cell must be markdown: a '# title' and the question that the notebook answers"
    level = 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
            for heading in re.findall(r"^(#+) ", prose, flags=re.MULTILINE):
                if len(heading) > level + 1 or (len(heading) == 1 and level):
                    yield f"heading '{heading}' follows level {level}; one title, and no level left out"
                level = len(heading)
            continue
        if cell.cell_type == "code" and cell.source.rstrip().endswith(";"):
            yield f"a last line ending in ';' hides its value from papermill but not from nbval: {last_line(cell)}"
        if RELATIVE_PATH.search(cell.source):
            yield f"a path relative to the working folder: {cell.source.splitlines()[0]}; use mmsa_lib.paths"


def last_line(cell):
    return cell.source.rstrip().splitlines()[-1]


def parameters(notebook):
    """One typed parameters cell, near the top, with the profile."""
    try:
        fields = parameters_model(notebook).model_fields
    except ConfigError as error:
        yield str(error)
        return
    if "profile" not in fields or fields["profile"].annotation is not str or fields["profile"].default != "smoke":
        yield 'the parameters cell must hold `profile: str = "smoke"`'
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any(PARAMETERS_TAG in cell.metadata.get("tags", []) for cell in code[:2]):
        yield "the parameters cell must be the first or second code cell"


def outputs(notebook, size):
    """Executed once from top to bottom, in normal form, small, without errors or traces of a machine."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code if cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        yield f"cells are not executed in order 1..n: {counts}"
    every = [output for cell in code for output in cell.outputs]
    if any(output.output_type == "error" for output in every):
        yield "an output is an error"
    if not any(output.output_type == "stream" or "text/plain" in output.get("data", {}) for output in every):
        yield "no output that nbval could compare"
    normal = copy.deepcopy(notebook)
    clean(normal)
    if normal != notebook:
        yield "not in normal form (metadata, widgets, stderr); run `make notebooks`"
    for output in every:
        data = output.get("data", {"text/plain": output.get("text", "")})
        for kind in data.keys() & {"text/plain", "text/html", "text/markdown"}:
            if trace := MACHINE_PATH.search(data[kind]):
                yield f"an output shows {trace.group()}…, which another machine cannot reproduce"
    if size > MAX_BYTES:
        yield f"{size} bytes; at most {MAX_BYTES} are allowed"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_keep_the_house_rules(path):
    assert problems(nbformat.read(path, as_version=4), path.stat().st_size) == []


def test_notebooks_are_formatted():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", FOLDER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def good():
    """A small notebook that keeps every rule."""
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_markdown_cell("# Title\n\nWhat is seen?\n\n## Part\n\n```\n# no heading\n```", id="a"),
        code('profile: str = "smoke"', execution_count=1, metadata={"tags": ["parameters"]}, id="b"),
        code("print(1)", execution_count=2, id="c", outputs=[shown("stream", name="stdout", text="1\n")]),
    ]
    clean(book)
    return book


def test_a_good_notebook_has_no_problem():
    assert problems(good()) == []


@pytest.mark.parametrize(
    ("breach", "expected"),
    [
        (lambda cells: cells[0].update(source="# Title without a question"), "the first cell must be markdown"),
        (lambda cells: cells.append(nbformat.v4.new_markdown_cell("# Again", id="d")), "one title"),
        (lambda cells: cells[0].update(source="# Title?\n\n### Too deep"), "no level left out"),
        (lambda cells: cells[2].update(source="open('../data/x.csv')"), "relative to the working folder"),
        (lambda cells: cells[2].update(source="1 + 1;"), "hides its value from papermill but not from nbval"),
        (lambda cells: cells[1].update(metadata=nbformat.from_dict({})), "exactly one code cell"),
        (lambda cells: cells[1].update(source="seed: int = 1"), "profile"),
        (lambda cells: cells.insert(1, code("1")) or cells.insert(1, code("2")), "first or second code cell"),
        (lambda cells: cells[2].update(execution_count=5), "not executed in order"),
        (lambda cells: cells[2].update(execution_count=None), "not executed in order"),
        (lambda cells: cells[2].outputs.append(shown("error", ename="E", traceback=[])), "an output is an error"),
        (lambda cells: cells[2].update(outputs=[]), "no output that nbval could compare"),
        (lambda cells: cells[2].outputs.append(shown("stream", name="stderr", text="warning")), "not in normal form"),
        (lambda cells: cells[2].outputs[0].update(text="wrote /home/me/x"), "/home/"),
        (lambda cells: cells[2].outputs[0].update(text="<A object at 0x7f11223344aa>"), "0x7f11223344aa"),
    ],
)
def test_each_breach_is_seen(breach, expected):
    book = good()
    breach(book.cells)
    assert any(expected in line for line in problems(book)), problems(book)


@pytest.mark.parametrize("change", [{"widgets": {"application/vnd.jupyter.widget-state+json": {}}}, {"kernelspec": {}}])
def test_metadata_in_another_form_are_seen(change):
    book = good()
    book.metadata.update(nbformat.from_dict(change))
    assert any("not in normal form" in line for line in problems(book)), problems(book)


def test_a_large_notebook_is_seen():
    assert any("at most" in line for line in problems(good(), MAX_BYTES + 1))
