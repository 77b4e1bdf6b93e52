"""nbval as `make nbval` calls it: a changed result fails, a changed duration does not."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

SANITIZE = Path(__file__).with_name("sanitize.cfg")
TOLERANCE = Path(__file__).resolve().parents[2] / "notebooks" / "conftest.py"


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
        ("{'run': 'runs/0123456789ab', 'kept epoch'", "{'run': '/tmp/a/ba9876543210', 'kept epoch'"),
        ("{'run': 'runs/0123456789ab'}", "{'run': '/data/ba9876543210'}"),
        ("seed 1: my_runs/0123456789ab", "seed 1: my_runs/ba9876543210"),
        (f"fingerprint {'0a' * 32}", f"fingerprint {'b1' * 32}"),
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


def nbval(folder, *cells, package="av"):
    """Run nbval as `make nbval` does on a notebook of cells (source, stored text, tags); what it printed.

    ``package`` takes the place of one that an extra brings.
    """
    book = nbformat.v4.new_notebook()
    for count, (source, stored, *tags) in enumerate(cells, 1):
        cell = nbformat.v4.new_code_cell(source, execution_count=count, metadata={"tags": tags})
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{stored}\n")] if stored else []
        book.cells.append(cell)
    nbformat.write(book, folder / "a.ipynb")
    (folder / TOLERANCE.name).write_text(
        TOLERANCE.read_text().replace('("av", "opensmile", "mediapipe")', f'("{package}",)')
    )
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "600", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--nbval-sanitize-with", SANITIZE, "--rootdir", folder, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def failed_cells(output):
    return [int(number) for number in re.findall(r"^FAILED .*a\.ipynb::Cell (\d+)", output, flags=re.MULTILINE)]


def test_a_wrong_stored_result_fails_and_nothing_else(tmp_path):
    progress = "import sys\nprint('epoch 1', file=sys.stderr)\nprint(3)"
    output = nbval(tmp_path, ("print(6 * 7)", "42"), ("print('1.5 s')", "9 s"), ("print(1)", "2"), (progress, "3"))
    assert failed_cells(output) == [2], output
    assert "1 failed, 3 passed" in output


def test_trained_numbers_have_a_tolerance_and_all_else_has_none(tmp_path):
    output = nbval(
        tmp_path,
        ("print('MAE 0.813 after 7 epochs')", "MAE 0.812 after 7 epochs", "trained"),
        ("print('MAE 0.913 after 7 epochs')", "MAE 0.812 after 7 epochs", "trained"),  # further off
        ("print('MAE 0.812 after 8 epochs')", "MAE 0.812 after 7 epochs", "trained"),  # a count
        ("print('MSE 0.812 after 7 epochs')", "MAE 0.812 after 7 epochs", "trained"),  # a word
        ("pass", "MAE 0.812 after 7 epochs", "trained"),  # no output
        ("print('MAE 0.813')", "MAE 0.812"),  # nothing trained here
        ("print('MAE 0.812')", "", "trained"),  # an output too many
        ("print('(2, 4) 0.812')", "(2, 3) 0.812", "trained"),  # a shape
        ("print('a 0.813')", "a 0.812", "rounded"),
        ("print('a 0.814')", "a 0.812", "rounded"),  # more than the last place
    )
    assert failed_cells(output) == [1, 2, 3, 4, 5, 6, 7, 9], output


@pytest.mark.parametrize(("package", "failed"), [("no_such_package", [1]), ("numpy", [0, 1])])
def test_what_needs_an_extra_is_compared_where_it_is_installed(tmp_path, package, failed):
    cells = [("print('not run: it is missing')", "a score of 0.8", "needs-extract"), ("print(1)", "2")]
    output = nbval(tmp_path, *cells, package=package)
    assert failed_cells(output) == failed, output


@pytest.mark.parametrize(
    ("found", "stored", "equal"),
    [
        ("<td>0.812</td> <td>79.75</td>", "<td>0.800</td> <td>78.50</td>", True),
        ("a   -0.0001", "a    0.0001", True),
        ("−0.30 and +0.30", "−0.31 and +0.29", True),
        ("23 % of 400", "24 % of 400", True),
        ("23 % of 401", "24 % of 400", False),
        ("33 % of 400", "24 % of 400", False),
        ("2.2", "2.1", True),
        ("2.4", "2.1", False),
        ("3.1e-07", "3.0e-07", True),
        ("5.0e-03", "3.0e-07", False),
        ("0.812 0.763", "0.812", False),
        ("0.812", "nan", False),
        ("Acc-7 41.0", "Acc-2 41.0", False),
        ("10", "10.0", False),
        ("-0.300", "0.300", False),
        ("1.3", "1.0", False),
        ("run 0c4ee1", "run 0c4ee2", False),
        ("torch.Size([2, 24])", "torch.Size([2, 23])", False),
        ("tensor([[0.1, 0.2]])", "tensor([[0.1], [0.2]])", False),
        ("<tr><td>0.1</td></tr>", "<tr><td>0.1</td></tr><tr><td>0.1</td></tr>", False),
        ("<td>0.1</td><td>0.1</td>", "<td>0.1</td>", False),
        ("0.12\n0.34", "0.34\n0.12", False),
    ],
)
def test_what_agrees(found, stored, equal):
    tolerance = runpy.run_path(str(TOLERANCE))
    assert tolerance["agree"](found, stored, *tolerance["TOLERANCES"]["trained"]) is equal


def test_tags_of_committed_notebooks_are_known():
    """A tag with a slip in it, or lost, would compare exactly, and fail on the next processor only."""
    tolerance = runpy.run_path(str(TOLERANCE))
    kinds = {*tolerance["TOLERANCES"], *tolerance["EXTRAS"]}
    for path in sorted(TOLERANCE.parent.glob("*.ipynb")):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        tags = {tag for cell in cells for tag in cell.metadata.get("tags", [])}
        assert tags <= {"parameters", "lesson", *kinds}, path.name
        trains = any(re.search(r"\b(fit|run)\(|\.step\(\)|mmsa-lib train", cell.source) for cell in cells)
        assert any(tag.startswith("trained") for tag in tags) == trains, path.name
