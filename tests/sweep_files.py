"""Small notebooks and sweep files for tests of sweeps."""

import nbformat
import yaml

PARAMETERS = """profile: str = "smoke"
seed: int = 0
rate: float = 0.1
name: str = "a"
options: dict = {}
marks: str = ""
"""
MARK = 'with open(marks, "a") as file:\n    file.write(f"{seed} {rate} {name} {options}\\n")'


def write_notebook(path, *cells, parameters=PARAMETERS):
    """A notebook that adds a line to the file ``marks`` when it is executed, then runs ``cells``."""
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(MARK),
        *[nbformat.v4.new_code_cell(source) for source in cells],
    ]
    nbformat.write(book, path)
    return path


def write_sweep(path, **content):
    """A sweep of ``tiny.ipynb`` beside it, unless ``content`` names another notebook."""
    path.write_text(yaml.safe_dump({"notebook": "tiny.ipynb", **content}, sort_keys=False))
    return path


def executions(marks):
    """One line per execution, in the order of their starts."""
    return marks.read_text().splitlines() if marks.exists() else []
