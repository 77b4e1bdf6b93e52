"""nbval as `make nbval` calls it: a changed result fails, a changed duration does not."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

SANITIZE = Path(__file__).with_name("sanitize.cfg")


def sanitized(text):
    from nbval.plugin import get_sanitize_patterns

    for pattern, replacement in get_sanitize_patterns(SANITIZE.read_text()):
        text = re.sub(pattern, replacement, text)
    return text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("trained in 1.3 s", "trained in 12 s"),
        ("took 0:41", "took 1:02"),
        ("<A at 0x7f00aa11bb22>", "<A at 0x7e00aa11bb33>"),
        ("on 2026-01-02", "on 2027-03-04"),
        ("wrote /tmp/ab/run", "wrote /tmp/cd/run"),
    ],
)
def test_what_changes_between_runs_is_not_compared(one, other):
    assert one != other
    assert sanitized(one) == sanitized(other)


@pytest.mark.parametrize(
    "text", ["MAE 0.812", "2 of 5 seeds", "R² = 0.71 samples", "3 sentences", "data/results/a.csv"]
)
def test_results_are_compared_as_they_are(text):
    assert sanitized(text) == text


def test_a_wrong_stored_result_fails_and_nothing_else(tmp_path):
    book = nbformat.v4.new_notebook()
    for count, (source, stored) in enumerate([("print(6 * 7)", "42"), ("print('1.5 s')", "9 s"), ("print(1)", "2")], 1):
        cell = nbformat.v4.new_code_cell(source, execution_count=count)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{stored}\n")]
        book.cells.append(cell)
    nbformat.write(book, tmp_path / "a.ipynb")
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--nbval-sanitize-with", SANITIZE, "--rootdir", tmp_path, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
    assert re.search(r"FAILED .*a\.ipynb::Cell 2", done.stdout)
