"""The notebooks in a real JupyterLab in a real browser: they open, show all that they hold, and run to their end.

Not part of a plain `pytest`: `make test-system` installs the browser and runs this.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from ended_processes import alive
from jupyterlab_session import browser, missing_programs, server, wait_until
from notebook_page import NotebookPage, expected

from mmsa_lib.paths import project_root

ROOT = project_root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RUN_SECONDS = 900  # for a notebook of about one minute, on a machine that has other things to do

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing_programs()), reason=missing_programs() or "a browser is there"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A server over a copy of what notebooks show, so that saving never touches the checkout."""
    folder = tmp_path_factory.mktemp("lab")
    root = folder / "project"
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copytree(ROOT / "figures", root / "figures")
    with server(root, folder) as running:
        running.root = root
        yield running


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.fixture
def page(lab, driver):
    """Open a notebook of the server's root by its path; afterwards its kernel is stopped."""

    def opened(path, **options):
        return NotebookPage(driver, lab, path, nbformat.read(lab.root / path, as_version=4), **options)

    yield opened
    driver.get("about:blank")  # first, or the page would tell of its lost kernel
    lab.stop_kernels()


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_a_notebook_shows_and_runs_in_jupyterlab(page, name, tmp_path):
    notebook = page(f"notebooks/{name}")
    notebook.screenshot(tmp_path / "committed.png")
    check(notebook, f"as committed, see {tmp_path}")
    notebook.run_all(RUN_SECONDS)
    notebook.screenshot(tmp_path / "executed.png")
    check(notebook, f"after Run All Cells, see {tmp_path}")


def test_a_slider_draws_the_picture_anew(page, driver):
    from selenium.webdriver.common.keys import Keys

    notebook = page("notebooks/playground.ipynb")
    notebook.run_all(RUN_SECONDS)
    handles = wait_until(lambda: driver.find_elements("css selector", ".jp-OutputArea .noUi-handle"), 60, "sliders")
    cell = handles[0].find_element("xpath", "./ancestor::div[contains(@class, 'jp-CodeCell')]")

    def pictures():  # in one go: the old element is gone as soon as there is a new one
        return driver.execute_script("return [...arguments[0].querySelectorAll('img')].map(each => each.src)", cell)

    before = pictures()
    assert len(before) == 1
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", handles[0])
    handles[0].send_keys(Keys.ARROW_RIGHT)
    wait_until(lambda: len(pictures()) == 1 and pictures() != before, 60, "another picture in its place")
    check(notebook, "after a slider was moved")


PROGRESS = re.compile(r"cell \d+: error output: \w+ seed \d+: \w+ stopped: .*; best epoch \d+")
"""How a training tells on stderr that it ended: no defect."""


def check(notebook, when):
    found = [problem for problem in notebook.problems() if not PROGRESS.fullmatch(problem)]
    assert not found, "\n".join([f"{when}:", *found])


def test_what_a_cell_must_show():
    source = "$$a$$ $b$ and $c$, `$d$`\n\n![e](e.png)\n\n| f | g |\n|---|--:|\n| 1 | 2 |\n\n```\n$h$\n```"
    assert expected(nbformat.v4.new_markdown_cell(source)) == {"images": 1, "tables": 1, "formulas": 3}
    data = [{"text/html": "<table>"}, {"image/png": ""}, {"text/markdown": "$a$"}, {"text/html": "", "image/png": ""}]
    outputs = [nbformat.v4.new_output("display_data", each) for each in data]
    cell = nbformat.v4.new_code_cell("'$'", outputs=outputs)
    assert expected(cell) == {"images": 1, "tables": 1, "formulas": 1}


def test_each_defect_is_seen(page, lab):
    book = defects()
    nbformat.write(book, lab.root / "defects.ipynb")
    notebook = page("defects.ipynb", patience=2)
    found = "\n".join(notebook.problems())
    assert "cell 1: picture not loaded: a lost picture" in found
    assert "cell 2: formula with an error: Missing argument" in found
    assert "cell 3: formula not drawn: $" in found
    assert "cell 4: 0 tables drawn of 1" in found
    assert "cell 4: error output: a stored warning" in found
    assert "cell 5: not executed" in found
    assert re.search(r"console: .*lost\.png", found)

    notebook.run_all(60)
    found = "\n".join(notebook.problems())
    assert "cell 4: error output" not in found, "the stored outputs are still there"
    assert "cell 5: error output: a new warning" in found
    assert "cell 6: error output: ZeroDivisionError" in found
    assert "cell 7: not executed" in found


def defects():
    """A notebook with one defect per cell."""
    table = nbformat.v4.new_output("display_data", {"text/html": "<table></table>", "text/plain": ""})
    warning = nbformat.v4.new_output("stream", name="stderr", text="a stored warning\n")
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    book.cells = [
        nbformat.v4.new_markdown_cell("![a lost picture](lost.png)", id="a"),
        nbformat.v4.new_markdown_cell(r"$\frac{1}$", id="b"),
        nbformat.v4.new_markdown_cell("$5, and a formula: $x$", id="c"),
        nbformat.v4.new_code_cell("print('no table')", execution_count=1, outputs=[table, warning], id="d"),
        nbformat.v4.new_code_cell("import sys\nprint('a new warning', file=sys.stderr)", id="e"),
        nbformat.v4.new_code_cell("1 / 0", id="f"),
        nbformat.v4.new_code_cell("'never'", id="g"),
    ]
    return book


ABANDONED = """
import os, signal, sys
from pathlib import Path
import psutil
from jupyterlab_session import browser, server

folder = Path(sys.argv[1])
(folder / "root").mkdir()
with server(folder / "root", folder), browser(folder):
    print(*(f"{each.pid}:{each.name()}" for each in psutil.Process().children(recursive=True)), flush=True)
    {how}
"""


@pytest.mark.parametrize(
    "how", ["raise RuntimeError", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["raised", "killed"]
)
def test_nothing_is_left_running(tmp_path, how):
    code = ABANDONED.replace("{how}", how)
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    started = dict(entry.split(":", 1) for entry in done.stdout.split())
    assert any("chrom" in name for name in started.values()), done.stderr
    assert any("python" in name or "jupyter" in name for name in started.values()), done.stderr
    wait_until(lambda: not any(map(running, started)), 30, f"the end of {started}")


def running(pid):
    return psutil.pid_exists(int(pid)) and alive(psutil.Process(int(pid)))
