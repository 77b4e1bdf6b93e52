"""What tests of faults need: sweeps whose notebooks wait at a gate, sweeps as programs, and runs without kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from contextlib import nullcontext, suppress
from pathlib import Path
from shutil import copyfile

import psutil
from sweep_files import executions, wait_for, write_notebook, write_sweep

from mmsa_lib.experiments.files import RUN_LOG
from mmsa_lib.experiments.kernels import FAILED, FINISHED, REPLIED, STARTED
from mmsa_lib.experiments.parameters import parameters_model, read_notebook, typed_parameters
from mmsa_lib.experiments.sweeps import LocalExecutor, sweep
from mmsa_lib.paths import project_root

SWEEP_DRIVER = Path(__file__).with_name("sweep_driver.py")
TOKEN = "MMSA_LIB_TEST_TOKEN"
"""Variable that marks every process that a test started, directly or not."""

# `name` says how it behaves until the file `open` is there; then it is a good notebook.
BEHAVIOUR = """
import os, pathlib, sys, time
folder = pathlib.Path(marks).parent
written = folder / f".pids-{seed}-{os.getpid()}"
written.write_text(f"{os.environ['JPY_PARENT_PID']} {os.getpid()}")
written.rename(folder / f"pids-{seed}")
worker = os.environ.get("MMSA_LIB_TEST_WORKER", "")
with (folder / "events").open("a") as events:
    events.write(f"start {seed} {worker}\\n")
gate = folder / "open"
while name == "wait" and not gate.exists():
    time.sleep(0.05)
"""
ENDING = """\
if not gate.exists():
    if name == "raise":
        raise ValueError("no luck")
    if name == "exit":
        sys.exit(0)
    if name == "sleep":
        time.sleep(600)
with (folder / "events").open("a") as events:
    events.write(f"end {seed} {worker}\\n")"""


class Lab:
    """A folder with a notebook, a sweep of it and its runs.

    Attributes:
        token: marks the processes that :meth:`program` starts.
        temporary: their TMPDIR, with a path that is short enough for sockets.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.file = folder, folder / "runs", folder / "s.yaml"
        self.token = uuid.uuid4().hex
        self.temporary = Path(tempfile.mkdtemp(prefix="lab-"))
        self.started: list[subprocess.Popen] = []
        write_notebook(folder / "tiny.ipynb", BEHAVIOUR, ENDING)

    def write(self, seeds, name="wait", **content) -> Path:
        parameters = {"marks": str(self.folder / "marks"), "name": name, **content.pop("parameters", {})}
        return write_sweep(self.file, parameters=parameters, seeds=list(seeds), **content)

    def open_gate(self) -> None:
        (self.folder / "open").touch()

    @property
    def executed(self) -> list[int]:
        """Seeds in the order in which their notebooks were started, each as often as it was."""
        return [int(line.split()[0]) for line in executions(self.folder / "marks")]

    @property
    def events(self) -> list[tuple[str, int, str]]:
        """``start`` or ``end``, seed and worker (``MMSA_LIB_TEST_WORKER``), in their order."""
        lines = executions(self.folder / "events")
        return [(word, int(seed), worker) for word, seed, worker in (line.split(" ") for line in lines)]

    def pids(self, seed: int) -> tuple[int, int]:
        """Process ids of the worker that runs the notebook of ``seed``, and of its kernel, once it has started."""
        path = self.folder / f"pids-{seed}"
        wait_for(path.exists)
        worker, kernel = map(int, path.read_text().split())
        return worker, kernel

    def started_seeds(self, count: int) -> list[int]:
        """Seeds whose notebooks have started, once they are ``count``."""

        def seeds():
            return [int(path.name.removeprefix("pids-")) for path in self.folder.glob("pids-*")]

        wait_for(lambda: len(seeds()) >= count)
        return seeds()

    def program(self, *arguments: str | Path, script: Path = SWEEP_DRIVER, **options) -> subprocess.Popen:
        """``mmsa-lib sweep FILE`` as a process of its own; what it prints is in ``out-N`` and ``err-N``."""
        return self.start(sys.executable, script, "sweep", self.file, "--runs", self.runs, *arguments, **options)

    def start(self, *command: str | Path, **options) -> subprocess.Popen:
        number = len(self.started)
        environment = {**os.environ, TOKEN: self.token, "PYTHONUNBUFFERED": "1", "TMPDIR": str(self.temporary)}
        environment |= options.pop("env", {})
        with (self.folder / f"out-{number}").open("wb") as out, (self.folder / f"err-{number}").open("wb") as err:
            process = subprocess.Popen(
                [str(part) for part in command], stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                env=environment, **options,
            )  # fmt: skip
        self.started.append(process)
        return process

    def printed(self, process: subprocess.Popen) -> tuple[str, str]:
        number = self.started.index(process)
        return (self.folder / f"out-{number}").read_text(), (self.folder / f"err-{number}").read_text()

    def processes(self) -> list[psutil.Process]:
        """Processes that live and that this lab started, directly or not."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def close(self) -> None:
        """End whatever a failed test left."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for process in self.started:
            process.wait(300)
        shutil.rmtree(self.temporary, ignore_errors=True)

    def leftovers(self) -> list[str]:
        """What the programs left in their TMPDIR."""
        return sorted(path.name for path in self.temporary.iterdir())

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                return process.environ().get(TOKEN) == self.token
        return False


class SharedLauncher(LocalExecutor):
    """The local executor with a launcher of the test's own."""

    def __init__(self, launcher, workers: int = 2) -> None:
        super().__init__(workers)
        self.shared = launcher

    def launcher(self):
        return nullcontext(self.shared)


class WithoutKernel:
    """A launcher that makes the run of ``06_train`` in this process: the same files within a moment.

    Attributes:
        made: seeds in the order in which their points were executed.
    """

    def __init__(self) -> None:
        self.made: list[int] = []

    def run_worker(self, notebook, parameters, folder, timeout, environment):
        from mmsa_lib.experiments.config import RunConfig
        from mmsa_lib.experiments.runs import run

        source = read_notebook(notebook)
        values = typed_parameters(parameters_model(source), parameters)
        self.made.append(values["seed"])
        names = ("method", "dataset", "seed", "config", "data", "settings")
        os.environ[RUN_LOG] = environment[RUN_LOG]
        try:
            config = RunConfig(**{name: values[name] for name in names})
            run(config, environment["MMSA_LIB_RUNS"], notebook="06_train", progress="none")
        except Exception as error:
            facts = {"error": type(error).__name__, "message": str(error), "traceback": ""}
            return [{"event": STARTED, "cell": 5}, {"event": FAILED, "cell": 5, **facts}], ""
        finally:
            del os.environ[RUN_LOG]
        copyfile(notebook, folder / "executed.ipynb")
        cells = [i for i, cell in enumerate(source.cells) if cell.cell_type == "code" and cell.source.strip()]
        replies = [{"event": REPLIED, "cell": i, "exited": False} for i in [*cells, -1]]  # -1: the injected one
        return [*replies, {"event": FINISHED}], ""


def write_training(path: Path, seeds) -> Path:
    """A sweep of ``06_train`` so small that a run takes a moment."""
    data = {"samples": [48, 24, 32], "dims": [12, 8, 8], "length": 6}
    config = {"max_epochs": 2, "batch_size": 16}
    settings = {"device": "cpu"}
    parameters = {"method": "text_only", "data": data, "config": config, "settings": settings}
    notebook = os.path.relpath(project_root() / "notebooks" / "06_train.ipynb", path.parent)
    return write_sweep(path, notebook=notebook, parameters=parameters, seeds=list(seeds))


def quiet_sweep(file: Path, executor, runs: Path, **options):
    """A sweep whose progress nobody reads."""
    return sweep(file, executor, runs=runs, report=lambda line: None, **options)
