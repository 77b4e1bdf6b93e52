"""Run notebooks strictly: typed parameters in, an executed notebook and an honest verdict out.

Each run is a process of its own with a private working folder, private sockets and none of the user's Jupyter or
IPython settings. Whether it succeeded is read from the journal of that process, never from the executed notebook.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsa_lib.errors import ConfigError, RunError, unknown_name
from mmsa_lib.experiments.notebook_cleaning import clean
from mmsa_lib.experiments.notebook_process import Launcher, by_signal, private_folder, remove_leftovers, run_worker
from mmsa_lib.experiments.notebook_worker import FAILED, FINISHED, REPLIED, STARTED
from mmsa_lib.experiments.parameters import PARAMETERS_TAG, merge, parameters_model, read_notebook, resolve_parameters
from mmsa_lib.files import write_text
from mmsa_lib.paths import project_root, runs_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode


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
            cell had started. An exception of a cell is never that, whatever its name.
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
) -> ExecutedNotebook:
    """Run ``notebook`` from its first cell to its last in a fresh kernel.

    Args:
        notebook: path of an ``.ipynb`` file with one ``parameters`` cell.
        parameters: values by name; the others keep their defaults. Only values that differ are injected.
        output: where the executed copy goes, whole or not at all. After a failure ``<stem>.failed.ipynb`` is written
            beside it instead, and an older ``output`` stays as it was.
        timeout: seconds for the whole notebook.
        environment: variables to set for the kernel, beside those of this process.
        launcher: starts the run, for instance a :class:`~mmsa_lib.experiments.warm_process.WarmLauncher`; by default
            a new process that imports everything itself.

    Returns:
        The outcome; a failing notebook is reported there, not raised.

    Raises:
        ConfigError: no such notebook, or unknown or ill-typed parameters, before a kernel starts; or a timeout that
            is not positive.
    """
    if not timeout > 0:
        raise ConfigError(f"timeout must be a positive number of seconds, not {timeout}")
    notebook = Path(notebook)
    source = read_notebook(notebook)
    values = resolve_parameters(source, parameters or {}, notebook.name)
    defaults = parameters_model(source, notebook.name)().model_dump()
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    started = time.monotonic()
    with private_folder() as folder:
        start = run_worker if launcher is None else launcher.run_worker
        events, end = start(notebook.resolve(), changed, folder, timeout, environment or {})
        seconds = time.monotonic() - started
        failure = _judge(events, end, source, injected=bool(changed))
        copy, machine_paths = _keep_copy(folder, output, failure)
    return ExecutedNotebook(notebook, values, copy, seconds, failure, machine_paths)


def notebook_paths(names: Sequence[str] = (), folder: Path | None = None) -> list[Path]:
    """The numbered notebooks of ``folder`` in order, or those named, each once.

    A name is one of the folder's (``01_data``, ``01`` or ``01_data.ipynb``), or the path of any notebook.

    Raises:
        ConfigError: no folder of notebooks (the library runs without its checkout), or a path where nothing is.
        UnknownNameError: a name that fits none, or several.
    """
    own = {name: Path(name) for name in names if name.endswith(".ipynb") and (os.sep in name or Path(name).is_file())}
    for path in own.values():
        if not path.is_file():
            raise ConfigError(f"no notebook {path}; give the path of an .ipynb file")
    if folder is None and names and len(own) == len(set(names)):
        return [own[name] for name in dict.fromkeys(names)]
    if folder is None:
        root = project_root()
        if root is None:
            raise ConfigError("no notebooks here; run from a checkout of the project, or give the path of a notebook")
        folder = root / "notebooks"
    found = {path.stem: path for path in sorted(folder.glob("[0-9]*.ipynb"))}
    chosen = []
    for name in dict.fromkeys(names):
        if name in own:
            chosen.append(own[name])
            continue
        stem = name.removesuffix(".ipynb")
        fits = [stem] if stem in found else [known for known in found if known.split("_")[0] == stem]
        if len(fits) != 1:
            raise unknown_name("notebook", name, found)
        chosen.append(found[fits[0]])
    return list(dict.fromkeys(chosen)) if names else list(found.values())


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
        profile: ``smoke``, ``cpu`` or ``full``; every notebook has this parameter.
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
        source = read_notebook(path)
        has_profile = "profile" in parameters_model(source, path.name).model_fields  # one's own need not
        chosen[path] = given = merge({"profile": profile} if has_profile else {}, parameters or {})
        values = resolve_parameters(source, given, path.name)
        if update and values != resolve_parameters(source, {}, path.name):
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
    if update:
        _update(results)
    return results


def _update(results: Sequence[ExecutedNotebook]) -> None:
    """Put good executed copies in the place of their notebooks, unless one shows folders of this machine."""
    for result in results:
        if result.ok and result.machine_paths:
            cells = ", ".join(map(str, result.machine_paths))
            remedy = "print it relative to mmsa_lib.paths.project_root()"
            raise RunError(f"{result.notebook.name}: an output of cell {cells} shows a path of this machine; {remedy}")
    for result in results:
        if result.ok:
            write_text(result.notebook, result.output.read_text(encoding="utf-8"))


def _judge(events: list[dict[str, Any]], end: str, source: NotebookNode, *, injected: bool) -> CellFailure | None:
    """The failure that the journal tells of, or ``None`` if each code cell was executed and nothing went wrong."""
    runnable = [cell for cell in source.cells if cell.cell_type == "code" and cell.source.strip()]
    replied = {event["cell"] for event in events if event["event"] == REPLIED}
    started = [event["cell"] for event in events if event["event"] == STARTED]
    last = started[-1] if started else None
    for event in events:
        if event["event"] == FAILED:
            message = " ".join(event["message"].split())
            killed = event["cell"] is None or by_signal(event.get("ending"))
            return _failure(event["cell"], source, injected, event["error"], message, event["traceback"], killed)
        if event["event"] == REPLIED and event["exited"]:
            message = "the cell ended its kernel; the cells after it were not executed"
            return _failure(event["cell"], source, injected, "SystemExit", message)
    if end.startswith("Timeout"):
        return _failure(last, source, injected, *end.split(": ", 1))
    if end or not events or events[-1]["event"] != FINISHED:
        message = end or "the process ended without a word"
        return _failure(last, source, injected, "WorkerDied", message, killed=True)
    if len(replied) != len(runnable) + injected:
        return _failure(last, source, injected, "Incomplete", f"{len(replied)} of {len(runnable)} code cells executed")
    return None


def _failure(
    index: int | None,
    source: NotebookNode,
    injected: bool,
    error: str,
    message: str,
    traceback: str = "",
    killed: bool = False,
) -> CellFailure:
    """A :class:`CellFailure` for cell ``index`` of the executed notebook, told as a cell of ``source``."""
    if index is None:
        return CellFailure(None, "", error, message, traceback, killed=True)
    tagged = next(i for i, cell in enumerate(source.cells) if PARAMETERS_TAG in cell.metadata.get("tags", []))
    if injected and index > tagged:
        index -= 1  # papermill's cell stands right after the parameters cell
    first_line = (source.cells[index].source.strip().splitlines() or [""])[0]
    return CellFailure(index + 1, first_line, error, message, traceback, killed)


def _keep_copy(
    folder: Path, output: Path | str | None, failure: CellFailure | None
) -> tuple[Path | None, tuple[int, ...]]:
    """Write the normalised executed notebook to its place; where it is, and which cells named this machine."""
    executed = folder / "executed.ipynb"
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
    replaced = clean(notebook, _machine_folders(folder), keep_stderr=failure is not None)
    copy = output if failure is None else failed
    write_text(copy, nbformat.writes(notebook) + "\n")
    if failure is None:
        failed.unlink(missing_ok=True)
    return copy, tuple(replaced)


def _machine_folders(folder: Path) -> dict[str, str]:
    """Folders of this machine and what to write in their place."""
    folders = {folder / "work": ".", folder: "<run>", Path.home(): "~", Path(sys.prefix): "<environment>"}
    root = project_root()
    folders |= {root: "<project>"} if root else {}
    return {str(path): name for path, name in folders.items() if path != path.parent}  # never the root of the disk
