"""What a run of a notebook costs before and after its cells: in a new process, and in a forked kernel.

Both kinds run in turns, so that whatever else the machine does meets both. Processor time is that of the kernel;
wall-clock time also counts waiting, and the worker that runs the notebook, which is kept from one to the next. The
start of the server that kernels are forked from is paid once and told apart.

    python benchmarks/notebook_overhead.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import nbformat

from mmsa_lib.experiments.kernels import Launcher
from mmsa_lib.experiments.notebooks import execute
from mmsa_lib.experiments.warm import DEFAULT_IMPORTS

# Read by the last cell: what the kernel has used so far.
USED = "import time\nprint(time.process_time())"
IMPORTS = (
    "import matplotlib.pyplot, pandas, torch, torch._dynamo, transformers\n"
    "import transformers.models.bert.modeling_bert\n"
    "from mmsa_lib.experiments import RunConfig, results_table, run\n"
    "from mmsa_lib.figures.style import use_style\n"
    "import mmsa_lib.figures.panels"
)
NOTEBOOKS = {"empty": (), "imports of 06_train and transformers": (IMPORTS,)}


def write(path: Path, cells: tuple[str, ...]) -> Path:
    """A notebook of ``cells`` that ends with printing its processor time."""
    book = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]})
    book.cells = [parameters, *[nbformat.v4.new_code_cell(source) for source in (*cells, USED)]]
    nbformat.write(book, path)
    return path


def measure(path: Path, launcher: Launcher) -> tuple[float, float]:
    """Seconds of one run: wall clock, and processor up to the last cell."""
    output = path.with_name("executed.ipynb")
    result = execute(path, {}, output, launcher=launcher)
    result.raise_for_failure()
    printed = nbformat.read(output, as_version=4).cells[-1].outputs[0].text
    return result.seconds, float(printed)


def main() -> None:
    """Parse the command line, run all notebooks both ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder, Launcher() as cold, Launcher(DEFAULT_IMPORTS) as launcher:
        started = time.monotonic()
        if reason := launcher.reason:
            raise SystemExit(f"kernels start cold here: {reason}")
        start = time.monotonic() - started
        seconds = {}
        for title, cells in NOTEBOOKS.items():
            path = write(Path(folder) / "notebook.ipynb", cells)
            rows = {"new process": [], "forked kernel": []}
            for _ in range(options.rounds + 1):
                rows["new process"].append(measure(path, cold))
                rows["forked kernel"].append(measure(path, launcher))
            seconds |= {(title, kind): values[1:] for kind, values in rows.items()}  # the first meets a cold disk
        report(seconds, start, options)


def report(
    seconds: dict[tuple[str, str], list[tuple[float, float]]], start: float, options: argparse.Namespace
) -> None:
    """One line per notebook and way to run it: median wall-clock and processor seconds, ratios to a new process."""
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    print(
        f"median of {options.rounds} runs, {os.cpu_count()} cores, {load:.1f} busy processes per core at the end; "
        f"start of the server, once: {start:.1f} s"
    )
    width = max(len(title) for title, _ in seconds) + 2
    print(f"{'notebook':{width}}{'kernel':15}{'wall s':>8}{'min':>7}{'max':>7}{'ratio':>7}{'cpu s':>8}{'ratio':>7}")
    for (title, kind), values in seconds.items():
        wall, used = (statistics.median(column) for column in zip(*values, strict=True))
        usual = [statistics.median(column) for column in zip(*seconds[title, "new process"], strict=True)]
        walls = [value for value, _ in values]
        print(
            f"{title:{width}}{kind:15}{wall:8.2f}{min(walls):7.2f}{max(walls):7.2f}{wall / usual[0]:7.2f}"
            f"{used:8.2f}{used / usual[1]:7.2f}"
        )


if __name__ == "__main__":
    main()
