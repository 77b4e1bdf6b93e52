"""The only training loop: phases of epochs, selection on validation data, early stop, exact resumption."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmsa_lib.data.batch import Batch, Utterances
from mmsa_lib.data.task import Task
from mmsa_lib.errors import ConfigError, RunError
from mmsa_lib.methods.base import Method, measured_gradients
from mmsa_lib.threads import cpu_threads
from mmsa_lib.training.checkpoint import Checkpoint, Optimizers, Progress
from mmsa_lib.training.evaluate import predict
from mmsa_lib.training.progress import Reporter, Show
from mmsa_lib.training.seeding import derived_seed, seed_everything
from mmsa_lib.training.settings import TrainSettings

HISTORY_COLUMNS = ("phase", "epoch", "split", "name", "value")

Augment = Callable[[Batch, torch.Generator], Batch]


@dataclass(frozen=True)
class FitResult:
    """What training left behind; the method itself holds its best state.

    Attributes:
        history: tidy, columns phase, epoch, split, name (``loss/…`` weighted, ``raw/…`` not), value. Split ``train``
            holds means over the samples of the epoch while the weights move; ``share/<term>``, the mean absolute value
            of a weighted term divided by the sum over all terms, where it is not 0; in epochs 1, 2, 4, 8, …
            ``gradient/<term>``, the norm of the weighted term's gradient on :meth:`Method.encoder_parameters` in the
            epoch's first step; and ``steps``, how many the phase has made by its end. Split ``valid`` holds the task
            loss over all validation samples after the epoch, ``oracle`` what ``observe`` returned.
        best_epoch, best_value: of the last phase: the epoch with the lowest validation task loss, and that loss.
        stopped: why the last phase ended.
        seconds: training time over all interruptions.
        resumed_after: epochs of the resumed phase that a checkpoint spared, or 0.
        phases: for each phase its name (``phase``), ``epoch`` and ``steps`` that were made, ``best_epoch``,
            ``best_value`` and ``best_steps``, the steps by the end of that epoch, and why it ``stopped``.
    """

    history: pd.DataFrame
    best_epoch: int
    best_value: float
    stopped: str
    seconds: float
    resumed_after: int
    phases: list[dict[str, Any]]


def fit(
    method: Method,
    train: Utterances,
    valid: Utterances,
    *,
    task: Task | None = None,
    settings: TrainSettings | Mapping[str, Any] | None = None,
    seed: int,
    checkpoint: Path | str | None = None,
    augment: Augment | None = None,
    observe: Callable[[Method], Mapping[str, float]] | None = None,
    on_epoch: Callable[[Progress], None] | None = None,
    progress: Show = "auto",
) -> FitResult:
    """Train ``method`` and leave it in the state of its best epoch.

    The best epoch has the lowest task loss over all validation samples: one mean over samples, where MMSA [C] takes
    the mean of batch means, which depends on how the samples are cut into batches. An improvement must exceed
    ``settings.min_delta``; a phase ends after ``patience`` epochs or ``patience_steps`` steps without one, or at a
    limit of either (docs/evaluation.md). A step is one of the method's first optimiser, whatever it takes.

    Args:
        method: a fresh method; it is moved to the device of ``settings``.
        train, valid: the splits; no test sample takes part in training or selection.
        task: by default that of ``train``.
        settings: by default the method's own batch size, epochs and patience on the best device.
        seed: seeds all random sources and the order of the samples.
        checkpoint: file to resume from and to save to, beside that of the best state; a damaged or foreign one is
            ignored, with a note.
        augment: changes each training batch before its step, for instance
            :func:`mmsa_lib.data.missing.stochastic_missing`; it draws from a generator of its own, seeded by ``seed``.
        observe: called with the method after each validation; the values it returns join the history as split
            ``"oracle"`` and decide nothing (they show what a selection on the test set would have claimed).
        on_epoch: called after each epoch and its checkpoint.
        progress: ``"auto"``, ``"line"`` or ``"none"``.

    Raises:
        RunError: a loss or a prediction is not finite (names the term, the epoch and the step), or an epoch makes no
            step and nothing else ends the phase.
        ConfigError: the settings don't fit this machine, or a split is empty.
    """
    for split in (train, valid):
        if len(split) == 0:
            raise ConfigError(f"the {split.split or 'given'} split is empty; training needs samples in train and valid")
    chosen = settings if isinstance(settings, TrainSettings) else TrainSettings(**(settings or {}))
    chosen = chosen.resolve(method)
    with cpu_threads(chosen.threads):
        reporter = Reporter(progress, f"{method.id} seed {seed}")
        loop = _Loop(method, train, valid, task or train.task, chosen, seed, augment, observe, on_epoch, reporter)
        return loop.run(None if checkpoint is None else Path(checkpoint))


@dataclass
class _Loop:
    """One call of :func:`fit`: its inputs, and how far it is."""

    method: Method
    train: Utterances
    valid: Utterances
    task: Task
    settings: TrainSettings
    seed: int
    augment: Augment | None
    observe: Callable[[Method], Mapping[str, float]] | None
    on_epoch: Callable[[Progress], None] | None
    reporter: Reporter
    state: Progress = field(default_factory=Progress)

    def run(self, checkpoint: Path | None) -> FitResult:
        seed_everything(self.seed)
        self.device = torch.device(self.settings.device)
        self.generators = {
            "shuffling": torch.Generator().manual_seed(self.seed),
            "augmentation": torch.Generator().manual_seed(derived_seed(self.seed, "augmentation")),
        }
        self.method.to(self.device)
        self.train, self.valid = self.train.to(self.device), self.valid.to(self.device)
        self.files = Checkpoint(checkpoint, self.identity())
        found, note = self.files.read()
        if found is not None:
            self.state, note = found, f"resuming after epoch {found.epoch}"
        if note:
            self.reporter.note(note)
        resumed_after = self.state.epoch
        for position, phase in enumerate(self.method.phases):
            # The phases before a resumed one are started too: they may create what later ones use.
            self.method.start_phase(phase, self.train)
            if position < self.state.phase:
                continue
            optimizers = self.method.optimizers()
            if found is not None:
                self.files.restore(found, self.method, optimizers, self.generators)
                found = None
            elif position > self.state.phase:
                kept = {"history": self.state.history, "seconds": self.state.seconds}
                self.state = Progress(phase=position, finished=self.state.summaries(self.method.phases), **kept)
            self.run_phase(phase, optimizers)
        history, last = pd.DataFrame(self.state.history, columns=list(HISTORY_COLUMNS)), self.state
        phases = last.summaries(self.method.phases)
        return FitResult(history, last.best_epoch, last.best_value, last.stopped, last.seconds, resumed_after, phases)

    def run_phase(self, phase: str, optimizers: Optimizers) -> None:
        state, settings = self.state, self.settings
        valid = self.method.prepare_validation(phase, self.valid)
        counter = next(iter(optimizers.values())).register_step_post_hook(self.count_step)
        self.reporter.start(phase, state.epoch, settings.max_epochs, state.steps, settings.max_steps)
        try:
            while not state.stopped:
                started, before = time.perf_counter(), state.steps
                state.epoch += 1
                logged = self.train_epoch(phase, optimizers)
                if state.steps == before and settings.max_epochs is None:
                    raise RunError(
                        f"an epoch makes no step, so max_steps={settings.max_steps} never comes; choose a smaller "
                        f"batch_size, or give max_epochs ({self.where(phase)})"
                    )
                self.record(phase, "train", {**logged, "steps": state.steps})
                value, best = math.nan, False
                if self.is_validated():
                    value = self.validate(phase, valid)
                    self.method.end_validation(value, optimizers)
                    self.record(phase, "valid", {"loss/task": value})
                    if self.observe is not None:
                        self.record(phase, "oracle", self.observe(self.method))
                    best = value < state.best_value - settings.min_delta
                    if best:
                        state.best_epoch, state.best_value, state.best_steps = state.epoch, value, state.steps
                        self.files.keep_best(state, self.method)
                    state.validated, state.stopped = state.steps, self.why_stop()
                state.seconds += time.perf_counter() - started
                if state.stopped or state.epoch % settings.checkpoint_every == 0:
                    self.files.save(state, self.method, optimizers, self.generators)
                self.reporter.epoch(state.epoch, state.steps, logged.get("loss/total", math.nan), value, best)
                if self.on_epoch is not None:
                    self.on_epoch(state)
        finally:
            counter.remove()
            self.reporter.bar.close()
        self.method.load_state_dict(self.files.best_state(state))
        self.reporter.note(f"{phase} stopped: {state.stopped}; best epoch {state.best_epoch}")

    def count_step(self, *_: Any) -> None:
        """One step of the method's first optimiser was made."""
        self.state.steps += 1

    def is_validated(self) -> bool:
        """Whether this epoch ends with a validation: each, or the first after a multiple of so many steps; the last."""
        state, settings = self.state, self.settings
        every = settings.validate_every
        if every is None or state.steps // every > state.validated // every:
            return True
        limits = ((state.steps, settings.max_steps), (state.epoch, settings.max_epochs))
        return any(limit is not None and made >= limit for made, limit in limits)

    def why_stop(self) -> str:
        """Why the phase ends with the validation that was just made, or nothing."""
        state, settings = self.state, self.settings
        reasons = (
            (state.epoch - state.best_epoch, settings.patience, "no improvement in {} epochs"),
            (state.steps - state.best_steps, settings.patience_steps, "no improvement in {} steps"),
            (state.epoch, settings.max_epochs, "limit of {} epochs"),
            (state.steps, settings.max_steps, "limit of {} steps"),
        )
        return next((why.format(most) for made, most, why in reasons if most is not None and made >= most), "")

    def train_epoch(self, phase: str, optimizers: Optimizers) -> dict[str, float]:
        """One pass over the training samples, or as much as is left; the mean of each logged value over samples."""
        epoch, settings = self.state.epoch, self.settings
        self.method.train()
        self.method.start_epoch(epoch)
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        sizes: dict[str, float] = {}
        measuring = epoch & (epoch - 1) == 0
        batches = self.train.batches(
            settings.batch_size, shuffle=True, generator=self.generators["shuffling"], bucket=bool(settings.bucket)
        )
        for step, batch in enumerate(batches, start=1):
            if self.augment is not None:
                batch = self.augment(batch, self.generators["augmentation"])
            try:
                with (
                    # Without a cache of casts: a step's second player would read weights from before the first one's.
                    torch.autocast(
                        self.device.type, torch.bfloat16, settings.precision == "bfloat16", cache_enabled=False
                    ),
                    measured_gradients(self.method.encoder_parameters() if measuring else ()),
                ):
                    log = self.method.training_step(batch.to(self.device), optimizers)
            except RunError as error:
                raise RunError(f"{error} ({self.where(phase)}, step {step})") from error
            for name, value in log.items():
                if not math.isfinite(value):
                    raise RunError(f"{name} is {value}; lower the learning rate ({self.where(phase)}, step {step})")
                sums[name] = sums.get(name, 0.0) + value * len(batch)
                counts[name] = counts.get(name, 0) + len(batch)
                kind, _, term = name.partition("/")
                measuring &= kind != "gradient"
                if kind == "loss" and name != "loss/total":
                    sizes[term] = sizes.get(term, 0.0) + abs(value) * len(batch)
            if settings.max_steps is not None and self.state.steps >= settings.max_steps:
                break
        means = {name: total / counts[name] for name, total in sums.items()}
        sizes = {term: size / counts[f"loss/{term}"] for term, size in sizes.items() if size}
        shares = {f"share/{term}": size / sum(sizes.values()) for term, size in sizes.items()}
        return means | shares | self.method.end_epoch(epoch, optimizers)

    def validate(self, phase: str, valid: Utterances) -> float:
        """Task loss over all validation samples at once."""
        try:
            prediction = predict(self.method, valid, self.settings.evaluation_batch_size)
        except RunError as error:
            raise RunError(f"{error} ({self.where(phase)})") from error
        return float(self.task.loss(prediction, valid.labels.cpu()))

    def record(self, phase: str, split: str, values: Mapping[str, float]) -> None:
        rows = ({"split": split, "name": name, "value": float(value)} for name, value in values.items())
        self.state.history.extend({"phase": phase, "epoch": self.state.epoch, **row} for row in rows)

    def where(self, phase: str) -> str:
        return f"{self.method.id}, seed {self.seed}, {phase}, epoch {self.state.epoch}"

    def identity(self) -> str:
        """What decides the course of training; a checkpoint of anything else is not resumed."""
        parts = {
            "method": self.method.id,
            "config": self.method.config.model_dump(mode="json"),
            "dims": self.method.dims,
            "task": repr(self.task),
            "settings": self.settings.identity(),
            "seed": self.seed,
            "data": [[d.name, d.fold, d.split, len(d), d.fingerprint] for d in (self.train, self.valid)],
            "augment": self.augment and f"{self.augment.__module__}.{self.augment.__qualname__}",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
