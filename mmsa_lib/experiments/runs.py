"""One run: a configuration becomes a folder. Without ``DONE`` in it, the run never happened."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.loading import COMPUTED_TEXT, load
from mmsa_lib.errors import DataError, MMSAError, RunError
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.evaluation.metrics import predicts_one_class, task_metrics
from mmsa_lib.evaluation.protocols import COMPLETE
from mmsa_lib.experiments import files
from mmsa_lib.experiments.cells import Cells, FrozenCells, Splits, freeze, spread_rows
from mmsa_lib.experiments.config import RECIPES, RunConfig
from mmsa_lib.experiments.environment import environment
from mmsa_lib.experiments.files import Predictions
from mmsa_lib.experiments.fingerprint import PACKAGE, code_fingerprint, digest
from mmsa_lib.experiments.manifest import write_manifest
from mmsa_lib.experiments.own_code import own_code
from mmsa_lib.experiments.run_log import log_run
from mmsa_lib.files import level_name, remove_tree
from mmsa_lib.methods import METHODS, create
from mmsa_lib.methods.base import Method
from mmsa_lib.paths import runs_folder
from mmsa_lib.threads import cpu_threads
from mmsa_lib.training import FitResult, fit, predict, seed_everything
from mmsa_lib.training.fit import HISTORY_COLUMNS
from mmsa_lib.training.progress import Show
from mmsa_lib.training.tensors import cpu_copy, load_into, read_tensors, save_tensors


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run's folder; its name is the run's identifier.
        config: what was run.
        finished_before: nothing was trained now, the run was there already.
    """

    folder: Path
    config: RunConfig
    finished_before: bool = False

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> pd.DataFrame:
        """Tidy metrics of the validation and the test split."""
        return files.read_table(self.folder / files.METRICS)

    @property
    def constants(self) -> pd.DataFrame:
        """Tidy test metrics of the constant baselines on the same data."""
        return files.read_table(self.folder / files.CONSTANTS)

    @property
    def history(self) -> pd.DataFrame:
        """Tidy training history: phase, epoch, split, name, value."""
        return files.read_csv(self.folder / files.HISTORY, HISTORY_COLUMNS, "history")

    @property
    def environment(self) -> dict[str, Any]:
        """Circumstances of the run."""
        return files.read_json(self.folder / files.ENVIRONMENT, training=dict)

    def predictions(self, split: str = "test", protocol: str = "complete", level: float | str = 0.0) -> Predictions:
        """Predictions, labels and identifiers of one split under one protocol cell."""
        return files.read_predictions(self.folder / files.PREDICTIONS, split, protocol, level)

    @property
    def spread(self) -> pd.DataFrame:
        """How far predictions differ between samples, per cell: protocol, level, split, sd, entropy, one_class."""
        return files.read_csv(self.folder / files.SPREAD, files.CELL_COLUMNS, dtype={"level": str})

    def load_data(self) -> Splits:
        """The splits that the run used."""
        return load(self.config.dataset, self.config.fold, **self.config.load_options)

    def load_method(self, data: Utterances) -> Method:
        """The trained method, for data with the feature widths of ``data``.

        Raises:
            DataError: the weights don't fit the widths, or their file is damaged.
        """
        method = create(self.config.method, data.dims, data.task, dataset=self.config.dataset, **self.config.config)
        tensors, metadata = read_tensors(self.folder / files.MODEL)
        if metadata.get("run_id", self.run_id) != self.run_id:
            raise DataError(f"{self.folder / files.MODEL} is of run {metadata['run_id']}; {files.REPEAT}")
        load_into(method, tensors)
        return method.eval()


def run(
    config: RunConfig,
    folder: Path | str | None = None,
    *,
    force: bool = False,
    notebook: str | None = None,
    progress: Show = "auto",
) -> RunResult:
    """Train and evaluate one configuration, once.

    A finished run is returned at once, unless its files were damaged meanwhile (a disk that lost what was written):
    then it is made again. An interrupted one goes on from its checkpoint. Whatever else is found in its folder is
    removed first. The test split is evaluated exactly once, after training, complete and under each protocol;
    with ``config.oracle`` also after each epoch, for the record only.

    Args:
        config: what to run.
        folder: folder of all runs, by default :func:`mmsa_lib.paths.runs_folder`; the run goes to ``<run_id>`` in it.
        force: repeat a finished run from the start.
        notebook: name of the notebook that asked for the run, for the record.
        progress: ``"auto"``, ``"line"`` or ``"none"``.

    Raises:
        RunError: the run failed, or there is too little memory; its folder holds ``error.json`` and no ``DONE``.
        ConfigError, DataError: the configuration does not fit the data, or the folder can't be written.
    """
    with cpu_threads(config.settings.threads):
        return _run(config, Path(folder or runs_folder()), force, notebook, progress)


def _run(config: RunConfig, folder: Path, force: bool, notebook: str | None, progress: Show) -> RunResult:
    with _memory_said():
        data = load(config.dataset, config.fold, **config.load_options)
        method = _create(config, data["train"])
        frozen = freeze(config, data)
    facts = _identify(config, method, data, frozen.fingerprint)
    target = folder / facts["run_id"]
    with _locked(target):
        if force:
            remove_tree(target)
        if _is_whole(target, facts["run_id"]):
            log_run(target)
            return RunResult(target, config, finished_before=True)
        _prepare(target, config, facts, notebook, _text_digest(data))
        try:
            with _memory_said():
                _train_and_evaluate(target, config, facts, method, frozen, progress)
        except Exception as error:
            with suppress(DataError):  # a full disk must not hide what went wrong
                content = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
                files.write_json(target / files.ERROR, content)
            raise
    log_run(target)
    return RunResult(target, config)


def find_run(run: Path | str, folder: Path | str | None = None) -> RunResult:
    """A finished run, by its folder or by its identifier in ``folder``.

    Raises:
        DataError: there is no such finished run, or its files are not those that it wrote.
        UnknownNameError: its method is one's own and not registered.
    """
    candidates = [Path(run), Path(folder or runs_folder()) / str(run)]
    for candidate in candidates:
        if (candidate / files.DONE).is_file():
            files.check_run(candidate)
            stored = files.read_json(candidate / files.CONFIG, config=dict)
            return RunResult(candidate.resolve(), RunConfig(**stored["config"]), finished_before=True)
    raise DataError(f"{run} is no finished run (a folder with {files.DONE} in it), nor the identifier of one")


def _create(config: RunConfig, train: Utterances) -> Method:
    """A fresh method; its initial weights depend on the seed alone."""
    seed_everything(config.seed)
    return create(config.method, train.dims, train.task, dataset=config.dataset, **config.config)


def _identify(config: RunConfig, method: Method, data: Splits, masks: str = "") -> dict[str, Any]:
    """The run's identifier and the fingerprints behind it."""
    unmarked = [split for split, utterances in data.items() if not utterances.fingerprint]
    if unmarked:
        raise DataError(
            f"split {unmarked[0]} of {config.dataset} has no fingerprint; load data with mmsa_lib.data.load"
        )
    resolved = config.resolved(method)
    marks = {
        "data_fingerprint": data_fingerprint(data),
        "code_fingerprint": _code(METHODS[config.method]),
        "mask_fingerprint": masks,
    }
    return {"run_id": files.run_identifier(resolved, marks), "resolved": resolved, **marks}


def data_fingerprint(data: Splits) -> str:
    """One fingerprint of all splits."""
    return digest({split: utterances.fingerprint for split, utterances in data.items()})


def _code(method: type[Method]) -> str:
    """Fingerprint of the code behind a run, wherever its method is defined."""
    if method.__module__.partition(".")[0] == PACKAGE:
        return code_fingerprint([__name__, method.__module__])
    own, used = own_code(method)
    return digest({"package": code_fingerprint([__name__, *used]), "own": own})


@contextmanager
def _memory_said() -> Iterator[None]:
    """Say in one line that memory ran out, which torch and numpy report in many ways."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        signs = ("out of memory", "can't allocate memory", "not enough memory", "storage size calculation overflowed")
        if isinstance(error, MMSAError) or not (isinstance(error, MemoryError) or any(sign in text for sign in signs)):
            raise
        wanted = re.search(r"allocate (.*? ?[a-zA-Z]+)\b", text.split("you tried to ")[-1])
        raise RunError(
            f"out of memory{f' (wanted {wanted[1]} more)' if wanted else ''}; choose a smaller batch_size, "
            "evaluation_batch_size or network, less data, or a larger machine"
        ) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Only one process works on a run; a second one waits for it and then finds it finished."""
    locks = target.parent / ".locks"
    lock = None
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{target.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"run {target.name} is being made by another process; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        # A finished run may lie where nobody can write.
        if not (target / files.DONE).is_file() or files.run_problem(target):
            raise DataError(f"cannot write runs to {target.parent}: {error.strerror}; choose another folder") from error
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _is_whole(target: Path, run_id: str) -> bool:
    """Whether the run is finished and its files are those that it wrote."""
    if not (target / files.DONE).is_file():
        return False
    problem = files.run_problem(target)
    if problem:
        print(f"run {run_id} is made again: {problem}", file=sys.stderr)
    return not problem


def _prepare(
    target: Path, config: RunConfig, facts: dict[str, Any], notebook: str | None, text_digest: str = ""
) -> None:
    """Leave nothing in the folder but a checkpoint of this very run, then write what is known beforehand."""
    checkpoint = target / files.CHECKPOINT
    if not (checkpoint.is_file() and _stored_id(target) == facts["run_id"]):
        remove_tree(target)
    for file in target.iterdir() if target.is_dir() else ():
        if file != checkpoint:
            remove_tree(file) if file.is_dir() else file.unlink()
    content = {"run_id": facts["run_id"], "config": config.model_dump(mode="json"), "resolved": facts["resolved"]}
    files.write_json(target / files.CONFIG, content)
    surroundings = environment(facts["resolved"]["settings"]["device"])
    marks = {name: facts[name] for name in facts if name.endswith("_fingerprint")}
    text = {"text_digest": text_digest} if text_digest else {}
    files.write_json(target / files.ENVIRONMENT, {**surroundings, **marks, **text, "notebook": notebook})


def _text_digest(data: Splits) -> str:
    """Digest of text features that were computed here; another processor computes other last bits. Else empty."""
    parts = {}
    for split, utterances in data.items():
        if utterances.feature_names.get("text") in COMPUTED_TEXT and utterances.dims.get("text"):
            values = utterances.data.features["text"].cpu().contiguous().numpy()
            parts[split] = hashlib.sha256(values.tobytes()).hexdigest()
    return digest(parts) if parts else ""


def _stored_id(target: Path) -> str | None:
    try:
        return files.read_json(target / files.CONFIG, run_id=str)["run_id"]
    except DataError:
        return None


def _train_and_evaluate(target, config: RunConfig, facts, method: Method, frozen: FrozenCells, progress: Show) -> None:
    settings, data = config.settings, frozen.data
    result = fit(
        method, data["train"], frozen.validation, task=data["train"].task, settings=settings, seed=config.seed,
        checkpoint=target / files.CHECKPOINT, augment=RECIPES[config.missing], progress=progress,
        observe=partial(_test_metrics, data["test"], settings.evaluation_batch_size) if config.oracle else None,
    )  # fmt: skip
    cells = frozen.predict(lambda part: predict(method, part, settings.evaluation_batch_size))
    _write_results(target, config, facts, method, data, result, cells)


def _test_metrics(test: Utterances, batch_size: int, method: Method) -> dict[str, float]:
    """Test metrics of a method in training, for the record only."""
    return task_metrics(test.task, predict(method, test, batch_size), test.labels.cpu())


def _write_results(
    target: Path,
    config: RunConfig,
    facts: dict[str, Any],
    method: Method,
    data: Splits,
    result: FitResult,
    cells: Cells,
) -> None:
    """Write everything, ``DONE`` last."""
    task, dataset = data["train"].task, data["train"].name
    common = {"dataset": dataset, "fold": data["train"].fold}
    own = {"run_id": facts["run_id"], "method": config.method, **config.described(), "seed": config.seed, **common}
    rows = [
        {**own, "protocol": protocol, "level": level, "split": split, "metric": metric, "value": value}
        for (protocol, level, split), (utterances, prediction) in cells.items()
        for metric, value in task_metrics(task, prediction, utterances.labels.cpu()).items()
    ]
    files.write_table(target / files.HISTORY, result.history)
    files.write_table(target / files.METRICS, pd.DataFrame(rows, columns=list(files.METRIC_COLUMNS)))
    files.write_table(target / files.CONSTANTS, constant_rows(data, common))
    files.write_table(target / files.SPREAD, spread_rows(cells))
    files.write_predictions(target / files.PREDICTIONS, cells, facts["run_id"])
    metadata = {"run_id": facts["run_id"], "resolved": json.dumps(facts["resolved"], sort_keys=True)}
    save_tensors(target / files.MODEL, cpu_copy(method), metadata)
    training = {
        "best_epoch": result.best_epoch, "best_value": result.best_value, "stopped": result.stopped,
        "seconds": round(result.seconds, 3), "resumed_after": result.resumed_after,
        "one_class": predicts_one_class(cells[COMPLETE, level_name(0), "test"][1], task),
    }  # fmt: skip
    surroundings = files.read_json(target / files.ENVIRONMENT)
    files.write_json(target / files.ENVIRONMENT, {**surroundings, "training": training})
    (target / files.CHECKPOINT).unlink(missing_ok=True)
    write_manifest(target, files.RESULTS)
    files.write_text(target / files.DONE, facts["run_id"] + "\n")


def constant_rows(data: Splits, common: dict[str, Any] | None = None) -> pd.DataFrame:
    """Test metrics of the constant baselines, fitted to the training labels, in the columns of a run's metrics."""
    common = common or {"dataset": data["train"].name, "fold": data["train"].fold}
    table = constant_metrics(data["train"].task, data["train"].labels.cpu(), data["test"].labels.cpu())
    fixed = {
        "run_id": "", "label": "", "changes": files.NO_CHANGES, "data_options": files.NO_CHANGES, "seed": pd.NA,
        "protocol": COMPLETE, "level": level_name(0), "split": "test",
    }  # fmt: skip
    rows = [
        {**fixed, **common, "method": str(name), "metric": metric, "value": value}
        for name, values in table.iterrows()
        for metric, value in values.items()
    ]
    return pd.DataFrame(rows, columns=list(files.METRIC_COLUMNS)).astype({"seed": "Int64"})
