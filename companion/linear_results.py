"""Curated results that need no training run: linear baselines on CMU-MOSI and the leak demonstration.

``python -m companion.linear_results`` writes ``ridge.csv`` and ``leak_check.csv`` into ``data/results/``; it
needs MOSI and ICT-MMMO built (``mmsa-lib data build``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from companion.linear import leak_check, ridge_metrics
from mmsa_lib.data.loading import load
from mmsa_lib.errors import ConfigError, MMSAError
from mmsa_lib.files import write_text
from mmsa_lib.paths import project_root

RIDGE_INPUTS = {
    ("mosi", "text"): {"text": "sentence", "audio": None},
    ("mosi", "text + audio"): {"text": "sentence"},
    ("mosi", "audio"): {"text": None},
    ("mmmo", "audio"): {"text": None, "vision": None},
    ("mmmo", "audio + vision"): {"text": None},
}
"""Loading options by data set and by name of the input, on the standard fold. ICT-MMMO has no training text."""

LEAK_FEATURES = {"audio73": "audio", "vision100": "vision", "textcnn100": "text"}
"""MOSI's segment features and their modality; only the first was not trained on labels."""


def ridge_table() -> pd.DataFrame:
    """Test metrics of ridge regression: columns dataset, input, metric, value."""
    rows = []
    for (dataset, name), options in RIDGE_INPUTS.items():
        metrics = ridge_metrics(load(dataset, **options))
        rows += [{"dataset": dataset, "input": name, "metric": key, "value": value} for key, value in metrics.items()]
    return pd.DataFrame(rows)


def leak_table() -> pd.DataFrame:
    """Accuracy per split of a linear model on each of MOSI's segment features, standard fold, leaks allowed."""
    parts = []
    for name, modality in LEAK_FEATURES.items():
        chosen = {"text": None, "audio": None, "vision": None} | {modality: name}
        parts.append(leak_check(load("mosi", allow_leak=True, **chosen)).assign(features=name))
    return pd.concat(parts, ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write both tables; 2 where the data are missing or the folder can't be written."""
    parser = argparse.ArgumentParser(description="write the linear baselines and the leak demonstration as CSV")
    parser.add_argument("--out", type=Path, help="folder, by default data/results of the checkout")
    args = parser.parse_args(arguments)
    root = project_root()
    try:
        if args.out is None and root is None:
            raise ConfigError("no checkout to write to; give --out")
        folder = args.out or root / "data" / "results"
        for name, table in {"ridge": ridge_table(), "leak_check": leak_table()}.items():
            write_text(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    except MMSAError as error:
        print(f"linear_results: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
