"""House rules of committed notebooks, checked without running them; and that the checks see each breach."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

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
        nbformat.v4.new_code_cell(
            'profile: str = "smoke"', execution_count=1, metadata={"tags": ["parameters"]}, id="b"
        ),
        nbformat.v4.new_code_cell("print(1)", execution_count=2, id="c"),
    ]
    book.cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    clean(book)
    return book


def test_a_good_notebook_has_no_problem():
    assert problems(good()) == []


def break_title(book):
    book.cells[0].source = "# Title without a question"


def break_second_title(book):
    book.cells.append(nbformat.v4.new_markdown_cell("# Again", id="d"))


def break_heading(book):
    book.cells[0].source = "# Title?\n\n### Too deep"


def break_path(book):
    book.cells[2].source = "open('../data/x.csv')"


def break_semicolon(book):
    book.cells[2].source = "1 + 1;"


def break_tag(book):
    book.cells[1].metadata = nbformat.from_dict({})


def break_profile(book):
    book.cells[1].source = "seed: int = 1"


def break_place(book):
    book.cells.insert(1, book.cells.pop(2))
    book.cells.insert(1, nbformat.v4.new_code_cell("1", execution_count=1, id="e"))
    for count, cell in enumerate(book.cells[1:], 1):
        cell.execution_count = count


def break_order(book):
    book.cells[2].execution_count = 5


def break_execution(book):
    book.cells[2].execution_count = None


def break_error(book):
    book.cells[2].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))


def break_stripped(book):
    book.cells[2].outputs = []


def break_stderr(book):
    book.cells[2].outputs.append(nbformat.v4.new_output("stream", name="stderr", text="warning"))


def break_widgets(book):
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}


def break_kernel(book):
    book.metadata.kernelspec.name = "mmsa"


def break_machine(book):
    book.cells[2].outputs[0].text = "wrote /home/me/x"


def break_address(book):
    book.cells[2].outputs[0].text = "<A object at 0x7f11223344aa>"


@pytest.mark.parametrize(
    ("breach", "expected"),
    [
        (break_title, "the first cell must be markdown"),
        (break_second_title, "one title"),
        (break_heading, "no level left out"),
        (break_path, "relative to the working folder"),
        (break_semicolon, "hides its value from papermill but not from nbval"),
        (break_tag, "exactly one code cell"),
        (break_profile, "profile"),
        (break_place, "first or second code cell"),
        (break_order, "not executed in order"),
        (break_execution, "not executed in order"),
        (break_error, "an output is an error"),
        (break_stripped, "no output that nbval could compare"),
        (break_stderr, "not in normal form"),
        (break_widgets, "not in normal form"),
        (break_kernel, "not in normal form"),
        (break_machine, "/home/"),
        (break_address, "0x7f11223344aa"),
    ],
)
def test_each_breach_is_seen(breach, expected):
    book = good()
    breach(book)
    assert any(expected in line for line in problems(book)), problems(book)


def test_a_large_notebook_is_seen():
    assert any("at most" in line for line in problems(good(), MAX_BYTES + 1))
