"""Small notebooks and sweep files, and what tests wait for."""

import time
from pathlib import Path

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


def write_book(path, *cells, parameters="seed: int = 0"):
    """A notebook with a title, a parameters cell and ``cells``, saved under a kernel that exists nowhere."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "mmsa", "display_name": "mmsa"}})
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book.cells = [nbformat.v4.new_markdown_cell("# Title"), tagged, *map(nbformat.v4.new_code_cell, cells)]
    for position, cell in enumerate(book.cells):
        cell.id = f"cell-{position}"
    nbformat.write(book, path)
    return path


def write_notebook(path, *cells, parameters=PARAMETERS):
    """A notebook that adds a line to the file ``marks`` when it is executed, then runs ``cells``."""
    return write_book(path, MARK, *cells, parameters=parameters)


def write_sweep(path, **content):
    """A sweep of ``tiny.ipynb`` beside it, unless ``content`` names another notebook."""
    path.write_text(yaml.safe_dump({"notebook": "tiny.ipynb", **content}, sort_keys=False))
    return path


def executions(marks):
    """One line per execution, in the order of their starts."""
    return marks.read_text().splitlines() if marks.exists() else []


def printed(path):
    """What each cell of an executed notebook printed."""
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(output.get("text", "") for output in cell.get("outputs", [])).strip() for cell in cells]


def wait_for(condition, seconds: float = 300, interval: float = 0.05):
    """Wait until ``condition()`` holds; what it returned."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(interval)
    return value


def gone(*pids):
    """Wait until the processes have ended (a zombie has ended)."""

    def ended(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            return True

    return wait_for(lambda: all(map(ended, pids)))
