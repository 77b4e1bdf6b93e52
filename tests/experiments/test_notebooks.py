"""The strict runner against each way in which papermill was seen to hide a failure, and what it leaves of outputs."""

import base64
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image
from sweep_files import printed, write_book

from mmsa_lib.cli import main
from mmsa_lib.errors import ConfigError, RunError, UnknownNameError
from mmsa_lib.experiments import notebooks
from mmsa_lib.experiments.kernels import private_folder
from mmsa_lib.experiments.notebooks import ExecutedNotebook, clean, execute, notebook_paths, run_all

PARAMETERS = 'profile: str = "smoke"\nseed: int | None = None'


def write(path, *cells):
    return write_book(path, *cells, parameters=PARAMETERS)


@pytest.fixture
def no_kernel(monkeypatch):
    """Any attempt to start a kernel fails the test."""
    monkeypatch.setattr(notebooks.Launcher, "run_worker", lambda *_: pytest.fail("a kernel was started"))


def test_parallel_runs_are_typed_separate_and_byte_identical(tmp_path):
    path = write(
        tmp_path / "a.ipynb",
        "import os, sys, pathlib, time\npathlib.Path('mark').write_text(str(seed)); time.sleep(0.5)",
        "print(repr(seed), pathlib.Path('mark').read_text(), os.listdir(), sep='|')",
        "print('progress', file=sys.stderr)\nprint(os.getcwd())",
        "",
        "seed",
    )

    def run(name, seed):
        return execute(path, {"seed": seed}, tmp_path / name, timeout=120)

    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, ["text.ipynb", "again.ipynb", "default.ipynb"], ["3", 3, None]))
    assert [result.failure for result in results] == [None] * 3
    assert results[0].parameters == results[1].parameters == {"profile": "smoke", "seed": 3}
    # Nothing is injected where the value is the default, and the position of cells is then unchanged.
    assert printed(tmp_path / "text.ipynb")[4:6] == ["3|3|['mark']", "."]
    assert printed(tmp_path / "default.ipynb")[3:5] == ["None|None|['mark']", "."]
    assert results[0].machine_paths == (6,)
    assert results[2].machine_paths == (5,)
    assert (tmp_path / "again.ipynb").read_bytes() == (tmp_path / "text.ipynb").read_bytes()
    book = nbformat.read(tmp_path / "again.ipynb", as_version=4)
    nbformat.validate(book)
    assert [cell.execution_count for cell in book.cells if cell.cell_type == "code"] == [1, 2, 3, 4, 5, None, 6]
    assert book.metadata.kernelspec.name == "python3"
    assert str(tmp_path) not in (tmp_path / "again.ipynb").read_text()
    assert not (tmp_path / "mark").exists()


def test_lessons_are_left_out_where_nobody_reads_them(tmp_path):
    path = write(tmp_path / "a.ipynb", "a = 1", "a = 2", "print(a)")
    book = nbformat.read(path, as_version=4)
    lesson = next(cell for cell in book.cells if cell.source == "a = 2")
    lesson.metadata["tags"] = ["lesson"]
    nbformat.write(book, path)
    for lessons, answer, cells in ((True, "2", 6), (False, "1", 5)):
        result = execute(path, {"seed": 1}, tmp_path / "out.ipynb", lessons=lessons)
        assert result.ok, result.failure
        assert printed(result.output)[-1] == answer
        assert len(printed(result.output)) == cells  # title, parameters, what is injected, and these
    assert lesson in nbformat.read(path, as_version=4).cells


def test_an_exception_is_reported_with_its_cell_and_leaves_no_output(tmp_path):
    path = write(tmp_path / "a.ipynb", "x = 1", "def f():\n    raise ValueError('no\\nluck')\nf()", "print('after')")
    (tmp_path / "out.ipynb").write_text("an older good copy")
    result = execute(path, {"seed": 1}, tmp_path / "out.ipynb")
    assert (result.failure.cell, result.failure.error, result.failure.message) == (4, "ValueError", "no luck")
    assert result.failure.source == "def f():"
    assert "raise ValueError" in result.failure.traceback
    assert (tmp_path / "out.ipynb").read_text() == "an older good copy"
    assert result.output == tmp_path / "out.failed.ipynb"
    assert printed(result.output)[-1] == ""
    with pytest.raises(RunError, match=r"a\.ipynb, cell 4 \(`def f\(\):`\): ValueError: no luck"):
        result.raise_for_failure()


def test_a_long_temporary_folder_leaves_room_for_sockets(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with private_folder() as folder:
        assert folder.is_dir()
        assert len(os.fsencode(folder / "socket-5")) < 104
    assert not folder.exists()


def test_run_all_reports_goes_on_after_a_failure_and_updates_good_notebooks(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    good = write(folder / "00_good.ipynb", "print(profile)")
    bad = write(folder / "01_bad.ipynb", "1 / 0")
    write(folder / "playground.ipynb")
    before, lines = bad.read_text(), []
    results = run_all(folder=folder, output=tmp_path / "out", update=True, jobs=2, report=lines.append)
    assert [result.ok for result in results] == [True, False, True]
    assert printed(good)[2] == "smoke"
    assert good.read_bytes() == (tmp_path / "out" / "00_good.ipynb").read_bytes()
    assert bad.read_text() == before
    assert any("FAILED" in line and "01_bad.ipynb" in line for line in lines)
    assert any("ZeroDivisionError" in line for line in lines)


def test_run_all_refuses_what_it_cannot_do_before_it_starts(tmp_path, no_kernel):
    write(tmp_path / "00_a.ipynb")
    with pytest.raises(UnknownNameError, match=r"unknown profile 'ful'; did you mean full"):
        run_all(profile="ful", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"only default parameters can update 00_a\.ipynb"):
        run_all(profile="cpu", update=True, folder=tmp_path)
    with pytest.raises(UnknownNameError, match="did you mean seed"):
        run_all(parameters={"sed": 1}, folder=tmp_path)
    with pytest.raises(ConfigError, match="jobs must be at least 1"):
        run_all(jobs=0, folder=tmp_path)
    for timeout in (0, 1e10, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="timeout must be a positive number of seconds up to 10,000,000"):
            execute(tmp_path / "00_a.ipynb", timeout=timeout)
    with pytest.raises(ConfigError, match=r"parameter 'seed' cannot be 1\.5"):
        execute(tmp_path / "00_a.ipynb", {"seed": 1.5})
    with pytest.raises(UnknownNameError, match="unknown notebook '00_b'"):
        run_all(["00_b"], folder=tmp_path)


def test_update_refuses_outputs_that_show_this_machine(tmp_path, monkeypatch):
    path = write(tmp_path / "00_a.ipynb")
    before = path.read_text()
    result = notebooks.ExecutedNotebook(path, {}, tmp_path / "out.ipynb", 1.0, machine_paths=(3,))
    monkeypatch.setattr(notebooks, "execute", lambda *_, **__: result)
    with pytest.raises(RunError, match=r"00_a\.ipynb: an output of cell 3 shows a path of this machine"):
        run_all(folder=tmp_path, update=True, report=lambda line: None)
    assert path.read_text() == before


def test_a_notebook_of_ones_own_is_run_by_its_path(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "mein ordner"
    folder.mkdir()
    path = write(folder / "own.ipynb", "print(profile, seed)")
    (result,) = run_all([str(path)], parameters={"seed": "3"}, output=tmp_path / "out", report=lambda line: None)
    assert result.ok, result.failure
    assert printed(tmp_path / "out" / "own.ipynb")[3] == "smoke 3"
    monkeypatch.setattr("mmsa_lib.experiments.notebooks.project_root", lambda: None)  # from a wheel
    assert notebook_paths([str(path), str(path)]) == [path]
    monkeypatch.chdir(folder)
    assert notebook_paths(["own.ipynb"]) == [Path("own.ipynb")]
    for arguments, said in (
        ([str(folder / "none.ipynb")], "no notebook"),
        (["own.ipynb", "--out", "."], "would be written over"),
        (["own.ipynb", str(folder / "own.ipynb")], "would be written over"),
        (["own.ipynb", "--set", "sed=1"], "did you mean seed"),
        (["own.ipynb", "--set", "seed=1", "seed=2"], "given twice"),
        (["01"], "give the path of a notebook"),
    ):
        assert main(["notebooks", "run", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_dotted_keys_set_keys_of_a_mapping(tmp_path, monkeypatch):
    path = write(tmp_path / "own.ipynb", "1")
    book = nbformat.read(path, as_version=4)
    book.cells[1].source = "config: dict = {}"  # and no profile
    nbformat.write(book, path)
    seen = []
    done = ExecutedNotebook(path, {}, None, 1.0)
    monkeypatch.setattr(notebooks, "execute", lambda *request, **_: seen.append(request[1]) or done)
    assert main(["notebooks", "run", str(path), "--set", "config.max_epochs=1", "config.deep.flag=true"]) == 0
    assert seen == [{"config": {"max_epochs": 1, "deep": {"flag": True}}}]


def test_notebooks_are_named_by_stem_or_number(tmp_path):
    for name in ("00_start_here", "01_data", "02_a", "02_b"):
        write(tmp_path / f"{name}.ipynb")
    names = [path.stem for path in notebook_paths(["01", "00_start_here.ipynb", "02_b"], tmp_path)]
    assert names == ["01_data", "00_start_here", "02_b"]
    with pytest.raises(UnknownNameError, match="unknown notebook '02'"):
        notebook_paths(["02"], tmp_path)


def test_cleaning_removes_what_changes_between_runs():
    book = nbformat.v4.new_notebook(metadata={"papermill": {"start_time": "now"}, "widgets": {"state": 1}})
    cell = nbformat.v4.new_code_cell("x", execution_count=7, metadata={"execution": {}, "tags": []}, id="keep-me")
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="100%|###|"),
        nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}),
        nbformat.v4.new_output(
            "execute_result",
            {"text/plain": "/home/me/x /home/meg/x /home/me.x /home/me.", "image/png": "ab/home/me=="},
            execution_count=7,
            metadata={"image/png": {"alt": "A curve", "width": 3}, "papermill": {}},
        ),
    ]
    marker = nbformat.v4.new_markdown_cell("An exception", metadata={"tags": ["papermill-error-cell-tag"]})
    book.cells = [marker, cell]
    assert clean(book, {"/home/me": "~"}) == [1]
    (kept,) = book.cells
    assert json.loads(json.dumps(kept)) == {
        "cell_type": "code",
        "execution_count": 1,
        "id": "keep-me",
        "metadata": {},
        "outputs": [
            {
                "data": {"image/png": "ab/home/me==", "text/plain": "~/x /home/meg/x /home/me.x ~."},
                "execution_count": 1,
                "metadata": {"image/png": {"alt": "A curve"}},
                "output_type": "execute_result",
            }
        ],
        "source": "x",
    }
    assert set(book.metadata) == {"kernelspec", "language_info"}


def decoded(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), dtype=int)


def test_pictures_shrink_once_and_keep_their_colours_within_a_step():
    ramp = np.linspace(0, 255, 200, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.stack([np.tile(ramp, (80, 1))] * 3, axis=-1)).convert("RGBA").save(file, "PNG", compress_level=0)
    original = base64.b64encode(file.getvalue()).decode()
    output = nbformat.v4.new_output("display_data", data={"image/png": original, "text/plain": "<Figure>"})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=[output])])
    sizes = []
    for _ in range(2):
        clean(notebook)
        sizes.append(notebook.cells[0].outputs[0].data["image/png"])
    assert len(sizes[0]) < len(original) / 3
    assert np.abs(decoded(sizes[0]) - decoded(original)).max() <= 4
    assert sizes[1] == sizes[0]
