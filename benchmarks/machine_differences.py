"""How far equal runs differ between processors: train as other processors compute, and compare.

The processors are those of ``tools/processor.sh`` (``native`` is this machine as it is); beside them stand the
committed runs of the main comparison (``data/results/sweep_main.csv``), made with AVX-512. Writes
``data/results/machine_differences.csv``, one row per data set, method, seed, metric and processor, and prints standard
deviations: between processors at equal seeds, and between seeds on one processor.
Finished runs are not repeated; ``--read`` trains nothing.

    python benchmarks/machine_differences.py [--processors avx2 sse] [--read]

MOSI is built once per processor, since its text vectors are computed: set MMSA_LIB_MIRROR, or be online.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from mmsa_lib.experiments import find_run
from mmsa_lib.experiments.results import read_results

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "data" / "results" / "machine_differences.csv"
METHODS = {"synthetic": ("early_fusion", "self_mm", "contrastive_mmcl"), "mosi": ("early_fusion",)}
SEEDS = (1111, 1112, 1113)
METRICS = ("mae", "corr", "acc2_neg_pos")
KEY = ["dataset", "method", "seed", "metric", "processor"]


def train(processor: str, runs: Path) -> None:
    """Train all methods with the instructions of ``processor``; runs and data go to ``runs / processor``."""
    prefix = [] if processor == "native" else [str(ROOT / "tools" / "processor.sh"), processor]
    folder = runs / processor
    surroundings = {**os.environ, "MMSA_LIB_RUNS": str(folder), "MMSA_LIB_DATA": str(folder / "data")}
    command = [*prefix, sys.executable, "-m", "mmsa_lib"]
    for dataset, methods in METHODS.items():
        if dataset != "synthetic":
            subprocess.run([*command, "data", "build", dataset], env=surroundings, check=True, cwd=ROOT)
        for method in methods:
            options = ["--dataset", dataset, "--quiet", "--seeds", *map(str, SEEDS)]
            subprocess.run([*command, "train", method, *options], env=surroundings, check=True, cwd=ROOT)


def finished(processor: str, runs: Path) -> pd.DataFrame:
    """Metrics of the finished runs of ``processor``."""
    found = [find_run(done.parent) for done in sorted((runs / processor).glob("*/DONE"))]
    names = ("dataset", "method", "seed")
    rows = [run.metrics.assign(**{name: getattr(run.config, name) for name in names}) for run in found]
    return pd.concat([pd.DataFrame(), *rows]).assign(processor=processor)


def committed() -> pd.DataFrame:
    """The same runs in the main comparison."""
    rows = read_results(ROOT / "data" / "results" / "sweep_main.csv")
    rows = rows[(rows["run_id"] != "") & (rows["variant"].fillna("") == "")]
    return rows.assign(processor="committed", seed=rows["seed"].astype(int))


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Standard deviations: between processors at equal seeds, between seeds on one processor."""

    def pooled(group: str) -> pd.Series:
        variance = table.groupby(["dataset", "method", "metric", group])["value"].var(ddof=1)
        return variance.groupby(["dataset", "method", "metric"]).mean() ** 0.5

    return pd.DataFrame({"between processors": pooled("seed"), "between seeds": pooled("processor")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processors", nargs="+", default=("avx2", "sse"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "machine_differences")
    parser.add_argument("--read", action="store_true", help="compare the runs that are finished; train nothing")
    args = parser.parse_args()
    for processor in () if args.read else args.processors:
        train(processor, args.runs)
    mine = pd.concat([finished(processor, args.runs) for processor in args.processors])
    table = pd.concat([committed(), mine])
    table = table[(table["split"] == "test") & (table["protocol"] == "complete") & table["metric"].isin(METRICS)]
    table = table.merge(mine[["dataset", "method", "seed"]].drop_duplicates())
    table = table.sort_values(KEY)[[*KEY, "value"]].round(6)
    table.to_csv(FILE, index=False)
    print(spread(table).round(4).to_string())


if __name__ == "__main__":
    main()
