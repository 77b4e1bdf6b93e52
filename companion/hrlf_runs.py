"""Runs of ``hrlf`` in a folder, finished and failed ones alike: what was changed, and how their states spread."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mmsa_lib.data.batch import Utterances
from mmsa_lib.errors import DataError
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import RunConfig
from mmsa_lib.experiments.files import VARIANT_SEPARATOR
from mmsa_lib.experiments.runs import RunResult
from mmsa_lib.methods import METHODS, create
from mmsa_lib.methods.hrlf import CollapseGuard
from mmsa_lib.training import seed_everything
from mmsa_lib.training.checkpoint import read_history
from mmsa_lib.training.fit import HISTORY_COLUMNS

METHOD = "hrlf"
PRINTED = "printed weights"
"""The name of a run without a change: all weights are 1, as the paper prints them."""

CHOICE = "CHOICE"
"""The file of a folder of runs that says which values were chosen on validation data: one line of ``key=value``."""

FRF_ONLY = ("lambda_frf", "frf_warmup", "frf_detach")
"""Values without effect where ``no_frf`` is set."""


@dataclass(frozen=True)
class HRLFRun:
    """A run that ended.

    Attributes:
        folder: its folder.
        config: what was run.
        error: why it failed, one line; empty for a finished run.
    """

    folder: Path
    config: RunConfig
    error: str

    @property
    def changes(self) -> dict[str, Any]:
        """Values of the method that differ from its defaults for the data set, and have an effect."""
        return differences(self.config.method_config, METHODS[METHOD].Config.for_dataset(self.config.dataset))

    @property
    def weights(self) -> str:
        """:attr:`changes` as text, or :data:`PRINTED`."""
        return text(self.changes) or PRINTED

    @property
    def result(self) -> RunResult:
        """The run's files."""
        return RunResult(self.folder, self.config)

    @property
    def history(self) -> pd.DataFrame:
        """Tidy history: phase, epoch, split, name, value; of a failed run up to its last checkpoint."""
        if not self.error:
            return self.result.history
        checkpoint = self.folder / files.CHECKPOINT
        rows = read_history(checkpoint) if checkpoint.is_file() else []
        return pd.DataFrame(rows, columns=list(HISTORY_COLUMNS))


def ended_runs(folder: Path) -> list[HRLFRun]:
    """Runs of ``hrlf`` below ``folder`` that finished or failed; of runs of the same values the newest counts."""
    found: dict[str, tuple[int, HRLFRun]] = {}
    for path in sorted(folder.glob(f"*/{files.CONFIG}")):
        config = RunConfig(**files.read_json(path)["config"])
        ends = [end for end in (path.parent / files.DONE, path.parent / files.ERROR) if end.is_file()]
        if config.method != METHOD or not ends:
            continue
        error = "" if ends[0].name == files.DONE else files.read_json(ends[0])["message"]
        same = json.dumps([config.dataset, config.fold, config.data, config.method_config.model_dump(), config.seed])
        if same not in found or found[same][0] < ends[0].stat().st_mtime_ns:
            found[same] = (ends[0].stat().st_mtime_ns, HRLFRun(path.parent, config, error))
    runs = [run for _, run in found.values()]
    return sorted(runs, key=lambda run: (run.config.dataset, run.weights, run.config.seed))


def chosen_values(runs: Path) -> dict[str, Any]:
    """The values in the file :data:`CHOICE` of the folder ``runs``.

    Raises:
        DataError: there is no such file. ConfigError: it holds no values of the method.
    """
    path = runs / CHOICE
    try:
        line = path.read_text(encoding="utf-8")
    except OSError:
        raise DataError(
            f"{path} is missing; write the values that were chosen on validation data to it, as lambda_frf=0.1"
        ) from None
    return RunConfig.parse_settings(METHOD, line.split())["config"]


def switch(run: HRLFRun, chosen: dict[str, Any]) -> str:
    """What ``run`` changes in the chosen values, as text; empty where nothing."""
    base = METHODS[METHOD].Config.for_dataset(run.config.dataset, **chosen)
    return text(differences(run.config.method_config, base))


def differences(config, base) -> dict[str, Any]:
    """Values of ``config`` that differ from ``base`` and have an effect."""
    own, other = config.model_dump(), base.model_dump()
    changed = {name: value for name, value in own.items() if value != other[name]}
    return {name: value for name, value in changed.items() if not (config.no_frf and name in FRF_ONLY)}


def text(values: dict[str, Any]) -> str:
    """``values`` as a variant is written, for instance ``"lambda_frf=0.1; lambda_hal=0.1"``."""
    return VARIANT_SEPARATOR.join(f"{name}={value}" for name, value in values.items())


def start_spreads(config: RunConfig, train: Utterances) -> dict[str, float]:
    """Spread of Z over samples before the first step, by phase: what the collapse guard compares with."""
    seed_everything(config.seed)
    method = create(METHOD, train.dims, train.task, dataset=config.dataset, **config.config)
    guard, found = CollapseGuard(0.0), {}
    for phase in method.phases:
        guard.start(getattr(method, phase), train)
        found[phase] = float(guard.first)
    return found


def spread_trace(run: HRLFRun, train: Utterances) -> pd.DataFrame:
    """Spread of Z over samples per phase and epoch, relative to its start: columns ``phase``, ``epoch``, ``share``.

    The start itself is epoch 0. A failed run ends before its last epoch.
    """
    start, history = start_spreads(run.config, train), run.history
    rows = history[(history["split"] == "train") & (history["name"] == "z_sd")]
    rows = rows.assign(share=rows["value"] / rows["phase"].map(start))
    first = pd.DataFrame([{"phase": phase, "epoch": 0, "share": 1.0} for phase in start])
    first = first[first["phase"].isin(rows["phase"])]
    return pd.concat([first, rows], ignore_index=True)[["phase", "epoch", "share"]]


def last_spread(trace: pd.DataFrame, phase: str) -> float:
    """The last share of a phase in :func:`spread_trace`; NaN where the phase was not reached."""
    rows = trace[trace["phase"] == phase]
    return float(rows["share"].iloc[-1]) if len(rows) else float("nan")


def failed(runs: Iterable[HRLFRun]) -> pd.DataFrame:
    """Those of ``runs`` that failed: run_id, dataset, weights, seed, error."""
    rows = [
        {
            "run_id": run.folder.name,
            "dataset": run.config.dataset,
            "weights": run.weights,
            "seed": run.config.seed,
            "error": run.error,
        }
        for run in runs
        if run.error
    ]
    return pd.DataFrame(rows, columns=["run_id", "dataset", "weights", "seed", "error"])
