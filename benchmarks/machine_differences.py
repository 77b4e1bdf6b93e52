"""How far equal runs differ between processors: train on the synthetic set as other processors compute, and compare.

The processors are those of ``tools/processor.sh``; beside them stand the committed runs of the main comparison
(``data/results/sweep_main.csv``, made with AVX-512). Writes ``data/results/machine_differences.csv``: one row per data
set, method, seed, processor and metric. Prints the standard deviation between processors (of equal seeds) and between
seeds (on equal processors).

    python benchmarks/machine_differences.py [--methods early_fusion self_mm ...] [--runs FOLDER]
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
PROCESSORS = ("avx2", "sse")
METHODS = ("early_fusion", "self_mm", "modal_alignment", "contrastive_mmcl", "hrlf")
SEEDS = (1111, 1112, 1113)
METRICS = ("mae", "corr", "acc2_neg_pos")
KEY = ["method", "seed", "processor", "metric"]


def measure(method: str, processor: str, runs: Path) -> pd.DataFrame:
    """Test metrics of all seeds of ``method``, trained with the instructions of ``processor``."""
    folder = runs / processor
    command = [str(ROOT / "tools" / "processor.sh"), processor, sys.executable, "-m", "mmsa_lib", "train", method]
    surroundings = {**os.environ, "MMSA_LIB_RUNS": str(folder), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--quiet", "--seeds", *map(str, SEEDS)], env=surroundings, check=True, cwd=ROOT)
    found = [find_run(path.parent) for path in folder.glob("*/DONE")]
    rows = [run.metrics.assign(seed=run.config.seed) for run in found if run.config.method == method]
    return pd.concat(rows).assign(method=method, processor=processor)


def committed() -> pd.DataFrame:
    """The same runs in the main comparison, with the weights that the methods have by themselves."""
    rows = read_results(ROOT / "data" / "results" / "sweep_main.csv")
    rows = rows[(rows["dataset"] == "synthetic") & (rows["run_id"] != "") & (rows["variant"].fillna("") == "")]
    return rows.assign(processor="avx512", seed=rows["seed"].astype(int))


def spread(table: pd.DataFrame) -> pd.DataFrame:
    """Standard deviations per method and metric: between processors at equal seeds, between seeds on one processor."""

    def pooled(group: str) -> pd.Series:
        variance = table.groupby(["method", "metric", group])["value"].var(ddof=1)
        return variance.groupby(["method", "metric"]).mean() ** 0.5

    return pd.DataFrame({"between processors": pooled("seed"), "between seeds": pooled("processor")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "machine_differences")
    args = parser.parse_args()
    parts = [committed(), *(measure(method, name, args.runs) for method in args.methods for name in PROCESSORS)]
    table = pd.concat(parts)
    table = table[table["method"].isin(args.methods) & table["seed"].isin(SEEDS) & table["metric"].isin(METRICS)]
    table = table[(table["split"] == "test") & (table["protocol"] == "complete")]
    table = table.sort_values(KEY)[[*KEY, "value"]]
    table.to_csv(FILE, index=False)
    print(spread(table).round(4).to_string())


if __name__ == "__main__":
    main()
