"""One run: a configuration becomes a folder, and a finished folder predicts. Without ``DONE``, a run never happened."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.data.loading import COMPUTED_TEXT, load
from mmsa_lib.data.missing import MaskSet
from mmsa_lib.data.registry import SOURCES
from mmsa_lib.data.scaling import Preparation
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError, MMSAError, RunError, UnknownNameError, warn_once
from mmsa_lib.evaluation.baselines import constant_metrics
from mmsa_lib.evaluation.metrics import noise_free_metrics, prediction_spread, task_metrics
from mmsa_lib.evaluation.protocols import COMPLETE, STOCHASTIC, masks
from mmsa_lib.experiments import files
from mmsa_lib.experiments.config import NO_MISSING, RECIPES, RunConfig
from mmsa_lib.experiments.fingerprint import PACKAGE, code_fingerprint, digest, own_code
from mmsa_lib.experiments.preparation import preparation_of, read_preparation, write_preparation
from mmsa_lib.experiments.terms import TERM_COLUMNS, term_table
from mmsa_lib.files import level_name
from mmsa_lib.methods import METHODS, create, method_class
from mmsa_lib.methods.base import Method
from mmsa_lib.paths import runs_folder
from mmsa_lib.plugins import package
from mmsa_lib.threads import cpu_threads
from mmsa_lib.training import FitResult, fit, predict, seed_everything
from mmsa_lib.training.checkpoint import checkpoint_files
from mmsa_lib.training.fit import HISTORY_COLUMNS
from mmsa_lib.training.progress import Show
from mmsa_lib.training.tensors import load_into, read_tensors, save_tensors

Splits = dict[str, Utterances]
Cells = dict[files.Cell, tuple[Utterances, Tensor]]
"""Per cell the complete split, for its labels, and the predictions under the cell's masks."""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: the run's folder, called by the run's identifier unless somebody renamed it.
        config: what was run.
        finished_before: nothing was trained now, the run was there already.
    """

    folder: Path
    config: RunConfig
    finished_before: bool = False

    @property
    def run_id(self) -> str:
        """What the run is called, whatever its folder is called now."""
        with suppress(OSError):
            return (self.folder / files.DONE).read_text(encoding="utf-8").strip() or self.folder.name
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

    @property
    def spread(self) -> pd.DataFrame:
        """How far predictions differ between samples, per cell: protocol, level, split, sd, entropy, one_class.

        A model that has given up predicts nearly the same for every sample; its metrics are then those of a constant
        (docs/evaluation.md, hazards).
        """
        return files.read_csv(self.folder / files.SPREAD, files.CELL_COLUMNS, dtype={"level": str})

    @property
    def terms(self) -> pd.DataFrame:
        """Weight, share and gradient of each term of the loss: :func:`mmsa_lib.experiments.terms.term_table`."""
        return files.read_csv(self.folder / files.TERMS, TERM_COLUMNS, "table of terms")

    def predictions(
        self, split: str = "test", protocol: str = "complete", level: float | str = 0.0
    ) -> files.Predictions:
        """Predictions, labels and identifiers of one split under one protocol cell."""
        return files.read_predictions(self.folder / files.PREDICTIONS, split, protocol, level)

    def load_data(self) -> Splits:
        """The splits that the run used."""
        return load(self.config.dataset, self.config.fold, **self.config.load_options)

    @property
    def resolved(self) -> dict[str, Any]:
        """Every value that the run was made with, defaults of that time included, with ``dims`` and ``task``.

        Raises:
            DataError: the folder does not say what was predicted from what.
        """
        found = files.read_json(self.folder / files.CONFIG, resolved=dict)["resolved"]
        if not all(isinstance(found.get(name), dict) for name in ("task", "dims")):
            raise DataError(f"{self.folder / files.CONFIG} does not say what was predicted from what; {files.REPEAT}")
        return found

    @property
    def task(self) -> Task:
        """What the run predicts."""
        stored = self.resolved["task"]
        try:
            return Task(**{**stored, "range": tuple(stored["range"]), "names": tuple(stored["names"])})
        except (KeyError, TypeError) as error:
            raise DataError(f"{self.folder / files.CONFIG} does not say what was predicted; {files.REPEAT}") from error

    def load_preparation(self) -> Preparation:
        """What was done to the training samples. A run of an earlier version asks the data set that it was trained on.

        Raises:
            DataError: the file is damaged, or the data set is not the one that the run was trained on.
        """
        if (self.folder / files.INPUTS).exists():
            return read_preparation(self.folder / files.INPUTS, self.run_id)
        try:
            splits = self.load_data()
            if data_fingerprint(splits) == self.environment.get("data_fingerprint"):
                return preparation_of(splits["train"], self.resolved["dims"])
            reason = "is not what it was then"
        except MMSAError as error:
            reason = f"can't be loaded ({error})"
        raise DataError(
            f"run {self.run_id} was made by an earlier version, which kept no scaling, and its data set "
            f"{self.config.dataset} {reason}; predict where that data set is, or train again"
        )

    def load_method(self, data: Utterances | None = None) -> Method:
        """The trained method as the run made it, whatever defaults are today; nothing but the folder is needed.

        Args:
            data: what it is to read, to be refused where task or widths are others.

        Raises:
            DataError: the weights don't fit the values of the run, are not finite, or their file is damaged; or the
                method of this version can't be built with these values.
        """
        if data is not None:
            check_fits(self, data)
        resolved, cls = self.resolved, method_class(self.config.method)
        values = {**self.config.config, **resolved.get("config", {})}
        if lacking := sorted(values.keys() - cls.Config.model_fields.keys()):
            raise DataError(
                f"run {self.run_id} was made with {lacking[0]}={values[lacking[0]]!r}, which {self.config.method} of "
                f"this version does not have; use the version that its {files.ENVIRONMENT} names, or train again"
            )
        own = self.environment.get(files.OWN, {}).get(self.config.method)
        if own and own["code"] != own_code(cls)[0]:
            what = f"the code of {self.config.method} is not what run {self.run_id} was trained with"
            warn_once(f"{what}; it may predict something else")
        method = create(self.config.method, resolved["dims"], self.task, dataset=self.config.dataset, **values)
        tensors, metadata = read_tensors(self.folder / files.MODEL)
        if metadata.get("run_id", self.run_id) != self.run_id:
            raise DataError(f"{self.folder / files.MODEL} is of run {metadata['run_id']}; {files.REPEAT}")
        for name, values in tensors.items():
            if values.is_floating_point() and not values.isfinite().all():
                raise DataError(f"{self.folder / files.MODEL}: {name} holds values that are not finite; {files.REPEAT}")
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
        with _memory_said():
            data = load(config.dataset, config.fold, **config.load_options)
            method = _create(config, data["train"])
            frozen = freeze(config, data)
        facts = _identify(config, method, data, frozen.fingerprint)
        target = Path(folder or runs_folder()) / facts["run_id"]
        with _locked(target):
            if force:
                place = target.resolve()  # rmtree leaves a link alone
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True, exist_ok=True)
            finished_before = _is_whole(target)
            if not finished_before:
                _prepare(target, config, facts, {"notebook": notebook, **_text_digest(data), **_own(config)})
                with _errors_kept(target), _memory_said():
                    _train_and_evaluate(target, config, facts, method, frozen, progress)
        files.log_run(target)
    return RunResult(target, config, finished_before)


def find_run(run: Path | str, folder: Path | str | None = None) -> RunResult:
    """A finished run, by its folder or by its identifier in ``folder``.

    Raises:
        DataError: there is no such finished run, or its files are not those that it wrote.
        UnknownNameError: its method is one's own and not registered.
    """
    for candidate in (Path(run), Path(folder or runs_folder()) / str(run)):
        if (candidate / files.DONE).is_file():
            if problem := files.run_problem(candidate, renamed=True):
                raise DataError(f"{problem}; {files.REPEAT}")
            if outside := [path.name for path in candidate.iterdir() if path.is_symlink()]:
                raise DataError(f"{candidate / outside[0]} is a link; put the file itself into the folder of its run")
            stored = files.read_json(candidate / files.CONFIG, config=dict)["config"]
            if isinstance(name := stored.get("method"), str) and name not in METHODS:
                facts = files.read_json(candidate / files.ENVIRONMENT)
                own = facts.get(files.OWN, {}).get(name) if isinstance(facts, dict) else None
                place = f", {own['from']}" if own else ""
                raise UnknownNameError(
                    f"run {candidate.name} is of method {name!r}{place}, which is not registered here; import its "
                    f"class, then METHODS[{name!r}] = its class, or install the package that offers it"
                )
            try:
                config = RunConfig.stored(stored)
            except UnknownNameError:  # options of a data source that is not here, which the folder can do without
                config = RunConfig.stored({**stored, "data": {}}).model_copy(update={"data": stored["data"]})
            return RunResult(candidate.resolve(), config, finished_before=True)
    raise DataError(f"{run} is no finished run (a folder with {files.DONE} in it), nor the identifier of one")


@dataclass(frozen=True)
class FrozenCells:
    """What a run is validated and tested on: the complete splits, and incomplete ones under frozen masks.

    Attributes:
        data: the complete splits.
        masks: protocol and split to the masks; none for ``complete``.
        incomplete_validation: the best epoch is chosen on the validation split under the masks of the recipe.
    """

    data: Splits
    masks: dict[tuple[str, str], MaskSet]
    incomplete_validation: bool = False

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all masks; empty without any."""
        parts = {"/".join(key): drawn.fingerprint for key, drawn in self.masks.items()}
        return digest(parts) if parts else ""

    @property
    def validation(self) -> Utterances:
        """What decides about the best epoch: the validation split, incomplete where training is."""
        if not self.incomplete_validation:
            return self.data["valid"]
        drawn = self.masks[STOCHASTIC, "valid"]
        return drawn.apply(self.data["valid"], next(iter(drawn.levels)))

    def predict(self, method: Method, size: int) -> Cells:
        """Predictions of ``method`` for each cell; one incomplete split is held at a time."""
        cells = {}
        for split in ("valid", "test"):
            cells[COMPLETE, level_name(0), split] = (self.data[split], predict(method, self.data[split], size))
        for (name, split), drawn in self.masks.items():
            for level in drawn.levels:
                answers = predict(method, drawn.apply(self.data[split], level), size)
                cells[name, level, split] = (self.data[split], answers)
        return cells


def freeze(config: RunConfig, data: Splits) -> FrozenCells:
    """The masks that ``config`` asks for, read from their files or drawn.

    A run that has to do with missing data also records the validation split under the recipe's masks, whatever it was
    trained on: there methods, and values of methods, can be compared without a look at the test split.

    Raises:
        ConfigError: a protocol doesn't suit the data. DataError: a mask file is damaged or can't be written.
    """
    asked = [(name, "test") for name in config.protocols if name != COMPLETE]
    augmented = config.missing != NO_MISSING
    if asked or augmented or METHODS[config.method].own_missing:
        asked.insert(0, (STOCHASTIC, "valid"))
    drawn = {(name, split): masks(data[split], name) for name, split in asked}
    return FrozenCells(data, drawn, incomplete_validation=augmented)


def constant_rows(data: Splits) -> pd.DataFrame:
    """Test metrics of the constant baselines, fitted to the training labels, in the columns of a run's metrics."""
    train, test = data["train"], data["test"]
    labels = train.labels if train.data.labelled is None else train.labels[train.data.labelled]
    table = constant_metrics(train.task, labels.cpu(), test.labels.cpu(), clean=test.clean)
    fixed = {
        "run_id": "", "label": "", "changes": files.NO_CHANGES, "data_options": files.NO_CHANGES, "seed": pd.NA,
        "dataset": train.name, "fold": train.fold, "protocol": COMPLETE, "level": level_name(0), "split": "test",
    }  # fmt: skip
    rows = [
        {**fixed, "method": str(name), "metric": metric, "value": value}
        for name, values in table.iterrows()
        for metric, value in values.items()
    ]
    return pd.DataFrame(rows, columns=list(files.METRIC_COLUMNS)).astype({"seed": "Int64"})


def data_fingerprint(data: Splits) -> str:
    """One fingerprint of all splits."""
    return digest({split: utterances.fingerprint for split, utterances in data.items()})


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


def _own(config: RunConfig) -> dict[str, dict]:
    """What to record of a method and a data source that are none of this library: where they come from, their code."""
    found = {}
    for registry, name in ((METHODS, config.method), (SOURCES, config.dataset)):
        if name in registry and not (thing := registry[name]).__module__.startswith(f"{PACKAGE}."):
            offered = registry.entry(name)
            place = f"{thing.__qualname__} of {package(offered) if offered else thing.__module__}"
            found[name] = {"from": place, "code": own_code(thing)[0]}
    return {files.OWN: found} if found else {}


def _code(method: type[Method]) -> str:
    """Fingerprint of the code behind a run, wherever its method is defined."""
    if method.__module__.partition(".")[0] == PACKAGE:
        return code_fingerprint([__name__, method.__module__])
    own, used = own_code(method)
    return digest({"package": code_fingerprint([__name__, *used]), "own": own})


def _text_digest(data: Splits) -> dict[str, str]:
    """Digest of text features that were computed here: another processor computes other last bits."""
    parts = {}
    for split, utterances in data.items():
        if utterances.feature_names.get("text") in COMPUTED_TEXT and utterances.dims.get("text"):
            values = utterances.data.features["text"].cpu().contiguous().numpy()
            parts[split] = hashlib.sha256(values.tobytes()).hexdigest()
    return {"text_digest": digest(parts)} if parts else {}


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
def _errors_kept(target: Path) -> Iterator[None]:
    """Write down in the folder why a run failed."""
    try:
        yield
    except Exception as error:
        with suppress(DataError):  # a full disk must not hide what went wrong
            content = {"type": type(error).__name__, "message": str(error) or type(error).__name__}
            files.write_json(target / files.ERROR, content)
        raise


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Only one process works on a run; a second one waits for it and then finds it finished."""
    lock = FileLock(target.parent / ".locks" / f"{target.name}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"run {target.name} is being made by another process; waiting for it", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        # A finished run may lie where nobody can write.
        if not (target / files.DONE).is_file() or files.run_problem(target):
            raise DataError(f"cannot write runs to {target.parent}: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        lock.release()


def _is_whole(target: Path) -> bool:
    """Whether the run is finished and its files are those that it wrote."""
    if not (target / files.DONE).is_file():
        return False
    problem = files.run_problem(target)
    if problem:
        print(f"run {target.name} is made again: {problem}", file=sys.stderr)
    return not problem


def _prepare(target: Path, config: RunConfig, facts: dict[str, Any], more: dict[str, Any]) -> None:
    """Leave nothing in the folder but a checkpoint of this very run, then write what is known beforehand."""
    kept = []
    with suppress(DataError):
        if files.read_json(target / files.CONFIG, run_id=str)["run_id"] == facts["run_id"]:
            kept = checkpoint_files(target / files.CHECKPOINT)
    for file in target.iterdir() if target.is_dir() else ():
        if file.is_dir():
            shutil.rmtree(file, ignore_errors=True)
        elif file not in kept:
            file.unlink()
    content = {"run_id": facts["run_id"], "config": config.model_dump(mode="json"), "resolved": facts["resolved"]}
    files.write_json(target / files.CONFIG, content)
    marks = {name: facts[name] for name in files.FINGERPRINTS} | {files.CORE_CODE: code_fingerprint([__name__])}
    surroundings = files.environment(facts["resolved"]["settings"]["device"])
    files.write_json(target / files.ENVIRONMENT, {**surroundings, **marks, **more})


def _train_and_evaluate(target, config: RunConfig, facts, method: Method, frozen: FrozenCells, progress: Show) -> None:
    """Train, predict every cell once and write the results."""
    size, train, test = config.settings.evaluation_batch_size, frozen.data["train"], frozen.data["test"]

    def observe(method: Method) -> dict[str, float]:
        return task_metrics(test.task, predict(method, test, size), test.labels.cpu())

    result = fit(
        method, train, frozen.validation, task=train.task, settings=config.settings, seed=config.seed,
        checkpoint=target / files.CHECKPOINT, augment=RECIPES[config.missing], progress=progress,
        observe=observe if config.oracle else None,
    )  # fmt: skip
    _write_results(target, config, facts, method, frozen.data, result, frozen.predict(method, size))


def _write_results(
    target: Path, config: RunConfig, facts: dict, method: Method, data: Splits, result: FitResult, cells: Cells
) -> None:
    """Write everything, ``DONE`` last."""
    train = data["train"]
    own = {
        "run_id": facts["run_id"], "method": config.method, **config.described(), "seed": config.seed,
        "dataset": train.name, "fold": train.fold,
    }  # fmt: skip
    rows = [
        {**own, "protocol": protocol, "level": level, "split": split, "metric": metric, "value": value}
        for (protocol, level, split), (utterances, prediction) in cells.items()
        for metric, value in _metrics(split, utterances, prediction).items()
    ]
    files.write_table(target / files.HISTORY, result.history)
    files.write_table(target / files.TERMS, term_table(result.history, result.phases))
    files.write_table(target / files.METRICS, pd.DataFrame(rows, columns=list(files.METRIC_COLUMNS)))
    files.write_table(target / files.CONSTANTS, constant_rows(data))
    spread = (
        {**dict(zip(files.CELL_COLUMNS, cell, strict=True)), **prediction_spread(prediction, train.task)}
        for cell, (_, prediction) in cells.items()
    )
    files.write_table(target / files.SPREAD, pd.DataFrame(spread))
    files.write_predictions(target / files.PREDICTIONS, cells, facts["run_id"])
    metadata = {"run_id": facts["run_id"], "resolved": json.dumps(facts["resolved"], sort_keys=True)}
    save_tensors(target / files.MODEL, method.state_dict(), metadata)
    training = {
        "best_epoch": result.best_epoch, "best_value": result.best_value, "stopped": result.stopped,
        "seconds": round(result.seconds, 3), "resumed_after": result.resumed_after, "phases": result.phases,
        "one_class": prediction_spread(cells[COMPLETE, level_name(0), "test"][1], train.task)["one_class"],
    }  # fmt: skip
    surroundings = files.read_json(target / files.ENVIRONMENT)
    files.write_json(target / files.ENVIRONMENT, {**surroundings, "training": training, "finished": time.time()})
    for file in checkpoint_files(target / files.CHECKPOINT):
        file.unlink()
    write_preparation(target / files.INPUTS, preparation_of(train, method.modalities), facts["run_id"])
    files.write_manifest(target, (*files.RESULTS, files.TERMS, files.INPUTS))
    files.write_text(target / files.DONE, facts["run_id"] + "\n")


def _metrics(split: str, data: Utterances, prediction: Tensor) -> dict[str, float]:
    """All metrics of a cell; noise-free ones of test samples alone, as nothing may be chosen by them."""
    found = task_metrics(data.task, prediction, data.labels.cpu())
    return found | (
        noise_free_metrics(data.task, prediction, data.clean) if split == "test" and data.clean is not None else {}
    )


def check_fits(result: RunResult, data: Utterances) -> None:
    """Refuse data of another task or of other widths than a run was trained on."""
    trained, task = result.resolved, json.loads(json.dumps(asdict(data.task)))
    if task != trained["task"]:
        raise DataError(f"{data.name} has task {task}, but run {result.run_id} was trained for {trained['task']}")
    for modality, width in trained["dims"].items():
        # A fine-tuned text encoder reads tokens, whose width is 0 in the data.
        found = data.dims.get(modality)
        if found is None or (found != width and found != 0):
            has = "no such features" if found is None else f"features {found} wide"
            raise DataError(f"run {result.run_id} needs {modality} features {width} wide; {data.name} has {has}")
