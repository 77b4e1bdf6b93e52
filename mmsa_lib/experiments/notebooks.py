"""Run notebooks strictly: typed parameters in, an executed notebook and an honest verdict out.

Each run is a process of its own with a private working folder, private sockets and none of the user's Jupyter or
IPython settings. Whether it succeeded is read from the journal of that process, never from the executed notebook.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.errors import ConfigError, RunError, unknown_name
from mmsa_lib.experiments.kernels import (
    EXECUTED,
    FAILED,
    FINISHED,
    REPLIED,
    STARTED,
    WORK,
    Launcher,
    by_signal,
    private_folder,
    remove_leftovers,
)
from mmsa_lib.experiments.parameters import PARAMETERS_TAG, merge, parameters_model, read_notebook, typed_parameters
from mmsa_lib.files import write_text
from mmsa_lib.paths import project_root, runs_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

_INJECTED_TAG, _MARKER_TAG = "injected-parameters", "papermill-error-cell-tag"
_WIDGETS = "application/vnd.jupyter.widget"
_ENCODED = ("image/png", "image/jpeg", "application/pdf")

MOST_SECONDS = 10_000_000
"""Of a timeout, some four months; what waits for threads takes no number without a bound."""


@dataclass(frozen=True)
class CellFailure:
    """Why a notebook did not run to its end.

    Attributes:
        cell: position of the cell in the notebook, counted from 1 over all cells; ``None`` if none had started.
        source: its first line.
        error: name of the exception (``DeadKernelError``, ``Timeout`` and ``SystemExit`` included).
        message: what the exception says, in one line.
        traceback: the kernel's traceback without colours, empty where there is none.
        killed: the kernel or its worker was ended from outside: by a signal, as its exit status tells, or before a
            cell had started. An exception of a cell is never that, whatever its name, and no timeout is.
    """

    cell: int | None
    source: str
    error: str
    message: str
    traceback: str = ""
    killed: bool = False

    def __str__(self) -> str:
        place = "before the first cell" if self.cell is None else f"cell {self.cell} (`{self.source}`)"
        return f"{place}: {self.error}{': ' if self.message else ''}{self.message}"


@dataclass(frozen=True)
class ExecutedNotebook:
    """One execution of one notebook.

    Attributes:
        notebook: the notebook that was run; it is never changed.
        parameters: all its parameters, typed, defaults included.
        output: the executed copy; ``*.failed.ipynb`` after a failure; ``None`` where no copy was asked for.
        seconds: wall-clock time, start of the kernel included.
        failure: ``None`` if every code cell was executed to its end.
        machine_paths: positions, from 1, of cells whose outputs named folders of this machine; the copy says
            ``<project>``, ``~`` and the like instead.
    """

    notebook: Path
    parameters: dict[str, Any]
    output: Path | None
    seconds: float
    failure: CellFailure | None = None
    machine_paths: tuple[int, ...] = ()

    @property
    def ok(self) -> bool:
        return self.failure is None

    def raise_for_failure(self) -> None:
        """Raise a :class:`RunError` naming notebook, cell and error if the run failed."""
        if self.failure is not None:
            raise RunError(f"{self.notebook.name}, {self.failure}")


def execute(
    notebook: Path | str,
    parameters: Mapping[str, Any] | None = None,
    output: Path | str | None = None,
    *,
    timeout: float = 3600,
    environment: Mapping[str, str] | None = None,
    launcher: Launcher | None = None,
    lessons: bool = True,
) -> ExecutedNotebook:
    """Run ``notebook`` from its first cell to its last in a fresh kernel.

    Args:
        notebook: path of an ``.ipynb`` file with one ``parameters`` cell.
        parameters: values by name; the others keep their defaults. Only values that differ are injected.
        output: where the executed copy goes, whole or not at all. After a failure ``<stem>.failed.ipynb`` is written
            beside it instead, and an older ``output`` stays as it was.
        timeout: seconds for the whole notebook.
        environment: variables to set for the kernel, beside those of this process.
        launcher: starts the run, by default in a new process that imports everything itself.
        lessons: also run the cells tagged ``lesson``; without them, they are no part of the executed copy either.

    Returns:
        The outcome; a failing notebook is reported there, not raised.

    Raises:
        ConfigError: no such notebook, or unknown or ill-typed parameters, before a kernel starts; or a timeout that
            is not positive or more than :data:`MOST_SECONDS`.
        RunError: the launcher was closed before the end.
    """
    if not 0 < timeout <= MOST_SECONDS:
        raise ConfigError(f"timeout must be a positive number of seconds up to {MOST_SECONDS:,}, not {timeout}")
    notebook = Path(notebook)
    source = read_notebook(notebook, lessons)
    model = parameters_model(source, notebook.name)
    values, defaults = typed_parameters(model, parameters or {}, notebook.name), model().model_dump()
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    started = time.monotonic()
    with private_folder() as folder, ExitStack() as own:
        program = notebook.resolve()
        if not lessons:
            import nbformat

            program = folder / notebook.name
            write_text(program, nbformat.writes(source))
        run = (launcher or own.enter_context(Launcher())).run_worker
        events, end = run(program, changed, folder, timeout, environment or {})
        seconds = time.monotonic() - started
        failure = _judge(events, end, source, injected=bool(changed))
        copy, machine_paths = _keep_copy(folder, output, failure)
    return ExecutedNotebook(notebook, values, copy, seconds, failure, machine_paths)


def notebook_paths(names: Sequence[str] = (), folder: Path | None = None) -> list[Path]:
    """The notebooks of ``folder`` in order, or those named, each once.

    A name is one of the folder's (``01_data``, ``01`` or ``01_data.ipynb``), or the path of any notebook.

    Raises:
        ConfigError: no folder of notebooks (the library runs without its checkout), or a path where nothing is.
        UnknownNameError: a name that fits none, or several.
    """
    own = {name: Path(name) for name in names if name.endswith(".ipynb") and (os.sep in name or Path(name).is_file())}
    for path in own.values():
        if not path.is_file():
            raise ConfigError(f"no notebook {path}; give the path of an .ipynb file")
    found: dict[str, Path] = {}
    if not names or len(own) < len(set(names)):
        root = project_root()
        if folder is None and root is None:
            raise ConfigError("no notebooks here; run from a checkout of the project, or give the path of a notebook")
        found = {path.stem: path for path in sorted((folder or root / "notebooks").glob("*.ipynb"))}
    chosen = [] if names else list(found.values())
    for name in names:
        stem = name.removesuffix(".ipynb")
        fits = [known for known in found if stem in (known, known.split("_")[0])]
        if name not in own and len(fits) != 1 and stem not in found:
            raise unknown_name("notebook", name, found)
        chosen.append(own.get(name) or found.get(stem) or found[fits[0]])
    return list(dict.fromkeys(chosen))


def run_all(
    names: Sequence[str] = (),
    *,
    profile: str = "smoke",
    parameters: Mapping[str, Any] | None = None,
    output: Path | str | None = None,
    update: bool = False,
    jobs: int = 1,
    timeout: float = 3600,
    folder: Path | None = None,
    report: Callable[[str], None] = print,
) -> list[ExecutedNotebook]:
    """Run the project's notebooks (``mmsa-lib notebooks run``); a failing one does not keep the others from running.

    Args:
        names: which ones, all in order by default.
        profile: ``smoke``, ``cpu`` or ``full``; every notebook of the project has this parameter.
        parameters: further values by name, which all the chosen notebooks must know; ``config.max_epochs`` sets a key
            of the mapping ``config``.
        output: folder of the executed copies, ``runs/notebooks`` by default.
        update: also put each good copy in the place of its notebook; with default parameters only, since what is
            committed shows what a reader gets without choosing.
        jobs: how many notebooks run at a time. PyTorch gets one thread unless ``OMP_NUM_THREADS`` says otherwise, so
            that numbers do not depend on it.
        timeout: seconds for each notebook.
        folder: where the notebooks are, those of the checkout by default.
        report: is called with one line per finished notebook.

    Raises:
        ConfigError: an unknown notebook, or parameters that one of them refuses, before the first one is run; or
            ``update`` with other parameters than the defaults.
        RunError: with ``update``, an output names a folder of this machine.
    """
    paths = notebook_paths(names, folder)
    target = Path(output) if output is not None else runs_folder() / "notebooks"
    chosen: dict[Path, dict[str, Any]] = {}
    for path in paths:
        if (target / path.name).resolve() in (path.resolve(), *((target / other.name).resolve() for other in chosen)):
            raise ConfigError(f"{target / path.name} would be written over; give another folder with --out")
        model = parameters_model(read_notebook(path), path.name)
        has_profile = "profile" in model.model_fields  # one's own need not
        chosen[path] = given = merge({"profile": profile} if has_profile else {}, parameters or {})
        if typed_parameters(model, given, path.name) != model().model_dump() and update:
            raise ConfigError(f"only default parameters can update {path.name}; leave out --profile and other values")
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, not {jobs}")
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}

    def one(path: Path) -> ExecutedNotebook:
        result = execute(path, chosen[path], target / path.name, timeout=timeout, environment=environment)
        report(f"{'ok' if result.ok else 'FAILED':<7}{result.seconds:6.1f} s  {path.name}")
        if not result.ok:
            report(f"        {result.failure}{f'; see {result.output}' if result.output else ''}")
        return result

    remove_leftovers()
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        results = list(pool.map(one, paths))
    good = [result for result in results if result.ok] if update else []
    for result in good:
        if result.machine_paths:
            cells = ", ".join(map(str, result.machine_paths))
            remedy = "print it relative to mmsa_lib.paths.project_root()"
            raise RunError(f"{result.notebook.name}: an output of cell {cells} shows a path of this machine; {remedy}")
    for result in good:
        write_text(result.notebook, result.output.read_text(encoding="utf-8"))
    return results


def _judge(events: list[dict[str, Any]], end: str, source: NotebookNode, *, injected: bool) -> CellFailure | None:
    """The failure that the journal tells of, or ``None`` if each code cell was executed and nothing went wrong."""

    def failure(index: int | None, error: str, message: str, traceback: str = "", killed: bool = False) -> CellFailure:
        if index is None:
            return CellFailure(None, "", error, message, traceback, killed=error != "Timeout")
        tagged = next(i for i, cell in enumerate(source.cells) if PARAMETERS_TAG in cell.metadata.get("tags", []))
        index -= injected and index > tagged  # papermill's cell stands right after the parameters cell
        first_line = (source.cells[index].source.strip().splitlines() or [""])[0]
        return CellFailure(index + 1, first_line, error, message, traceback, killed)

    for event in events:
        if event["event"] == FAILED:
            message = " ".join(event["message"].split())
            return failure(event["cell"], event["error"], message, event["traceback"], by_signal(event.get("ending")))
        if event["event"] == REPLIED and event["exited"]:
            message = "the cell ended its kernel; the cells after it were not executed"
            return failure(event["cell"], "SystemExit", message)
    last = next((event["cell"] for event in reversed(events) if event["event"] == STARTED), None)
    if end.startswith("Timeout"):
        return failure(last, *end.split(": ", 1))
    if end or not events or events[-1]["event"] != FINISHED:
        return failure(last, "WorkerDied", end or "the process ended without a word", killed=True)
    runnable = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in source.cells)
    replied = len({event["cell"] for event in events if event["event"] == REPLIED})
    if replied != runnable + injected:
        return failure(last, "Incomplete", f"{replied} of {runnable} code cells executed")
    return None


def _keep_copy(
    folder: Path, output: Path | str | None, failure: CellFailure | None
) -> tuple[Path | None, tuple[int, ...]]:
    """Write the normalised executed notebook to its place; where it is, and which cells named this machine."""
    executed = folder / EXECUTED
    if output is None or not executed.exists():
        return None, ()
    import nbformat

    output = Path(output)
    failed = output.with_suffix(".failed.ipynb")
    try:
        notebook = nbformat.read(executed, as_version=4)
    except Exception:  # nbformat raises many kinds
        if failure is None:
            raise
        return None, ()  # papermill was killed while it wrote
    folders = {folder / WORK: ".", folder: "<run>", Path.home(): "~", Path(sys.prefix): "<environment>"}
    folders |= {root: "<project>"} if (root := project_root()) else {}
    words = {str(path): name for path, name in folders.items() if path != path.parent}  # never the root of the disk
    replaced = clean(notebook, words, keep_stderr=failure is not None)
    copy = output if failure is None else failed
    write_text(copy, nbformat.writes(notebook) + "\n")
    if failure is None:
        failed.unlink(missing_ok=True)
    return copy, tuple(replaced)


def clean(
    notebook: NotebookNode, replacements: Mapping[str, str] | None = None, *, keep_stderr: bool = False
) -> list[int]:
    """Bring ``notebook`` to its normal form, in place, so that two runs of one notebook give the same bytes.

    Cells keep their ids and tags and lose other metadata; papermill's error banners, widget views and (unless
    ``keep_stderr``) standard error go; PNG pictures keep their alternative text and are stored with 256 colours, in
    about a third of the space; execution counts become 1, 2, ... in the order of the cells; the kernel is called
    ``python3``.

    Args:
        notebook: an nbformat 4 notebook.
        replacements: text to replace in outputs, such as folders of this machine, where no longer name begins with
            it; longer keys are replaced first.
        keep_stderr: keep what cells wrote to standard error, which helps to understand a failure.

    Returns:
        Positions, from 1, of the cells in whose outputs something was replaced.
    """
    from nbformat import from_dict

    pairs = sorted((replacements or {}).items(), key=lambda pair: -len(pair[0]))
    replaced, executed = [], 0
    notebook.cells = [cell for cell in notebook.cells if _MARKER_TAG not in cell.metadata.get("tags", [])]
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata = from_dict({"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for position, cell in enumerate(notebook.cells, 1):
        tags = cell.metadata.get("tags", [])
        cell.metadata = from_dict({"tags": list(tags)} if tags else {})
        cell.id = _INJECTED_TAG if _INJECTED_TAG in tags else cell.get("id", f"cell-{position:02d}")
        if cell.cell_type != "code":
            continue
        outputs = [
            output
            for output in cell.outputs
            if (keep_stderr or output.get("name") != "stderr")
            and not any(kind.startswith(_WIDGETS) for kind in output.get("data", {}))
        ]
        for output in outputs:
            if "metadata" in output:
                alt = output.metadata.get("image/png", {}).get("alt")
                output.metadata = from_dict({"image/png": {"alt": alt}} if alt else {})
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _small_png(output.data["image/png"])
        cell.outputs = [from_dict(_replace(output, pairs)) for output in outputs]
        if cell.outputs != outputs:
            replaced.append(position)
        if cell.get("execution_count") is not None:
            executed += 1
            cell.execution_count = executed
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return replaced


def _small_png(encoded: str) -> str:
    """A base64 PNG with at most 128 colours, or as it was where that is no smaller or it is no picture that opens."""
    from PIL import Image

    small = io.BytesIO()
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            if picture.mode == "P":
                return encoded
            picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    except (OSError, ValueError):
        return encoded
    shorter = base64.b64encode(small.getvalue()).decode("ascii") + "\n"
    return min(encoded, shorter, key=len)


def _replace(value: Any, pairs: list[tuple[str, str]]) -> Any:
    """``value`` with the replacements made in every text in it; encoded images are not text."""
    if isinstance(value, str):
        for old, new in pairs:
            value = re.sub(rf"{re.escape(old)}(?![\w-]|\.\w)", lambda _, new=new: new, value)  # whole names of folders
        return value
    if isinstance(value, list):
        return [_replace(part, pairs) for part in value]
    if isinstance(value, dict):
        return {key: part if key in _ENCODED else _replace(part, pairs) for key, part in value.items()}
    return value
