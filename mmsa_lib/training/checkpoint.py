"""The state of a training between two epochs, on disk, so that an interrupted one goes on exactly.

The checkpoint holds what the next epoch depends on. Parameters and buffers of the best epoch lie in a file of their own
beside it, which is written when there is a better epoch and read when a phase ends. ``torch.save`` writes tensors from
where they are, with checksums, and ``torch.load(weights_only=True)`` reads plain values and tensors only.
"""

from __future__ import annotations

import glob
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsa_lib.errors import DataError
from mmsa_lib.files import atomic_path
from mmsa_lib.methods.base import Method
from mmsa_lib.training.seeding import random_states, restore_random_states

FORMAT = "mmsa-lib checkpoint 4"

Optimizers = Mapping[str, torch.optim.Optimizer]
Generators = Mapping[str, torch.Generator]


@dataclass
class Progress:
    """How far a training run is.

    Attributes:
        phase: position in ``method.phases``.
        epoch: epochs of this phase that are finished.
        steps: steps of the method's first optimiser in this phase.
        validated: how many of these had been made at the last validation.
        best_epoch, best_value: the epoch of this phase with the lowest validation loss, and that loss.
        best_steps: steps made by the end of that epoch.
        stopped: why the phase ended; empty while it goes on.
        finished: for each phase before this one its name and, as here, epoch, steps, best_epoch, …, stopped.
        history: one row per logged value, as in :class:`~mmsa_lib.training.fit.FitResult`.
        seconds: training time so far, over all interruptions.
    """

    phase: int = 0
    epoch: int = 0
    steps: int = 0
    validated: int = 0
    best_epoch: int = 0
    best_value: float = math.inf
    best_steps: int = 0
    stopped: str = ""
    finished: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def summaries(self, phases: Sequence[str]) -> list[dict[str, Any]]:
        """``finished``, and the same of this phase, whose name is at its position in ``phases``."""
        kept = ("epoch", "steps", "best_epoch", "best_value", "best_steps", "stopped")
        return [*self.finished, {"phase": phases[self.phase], **{name: getattr(self, name) for name in kept}}]


class Checkpoint:
    """What is kept of one training: in files, or, without a ``path``, the best state alone on the CPU.

    Args:
        path: the checkpoint's file.
        identity: what is being trained; only a run with the same identity goes on from these files.
    """

    def __init__(self, path: Path | None, identity: str):
        self.path, self.identity = path, identity
        self.best: dict[str, Tensor] = {}
        self.content: dict[str, Any] | None = None

    def read(self) -> tuple[Progress | None, str]:
        """How far the files are, if they are whole and of this identity, else ``None`` and the reason in one line."""
        if self.path is None or not self.path.is_file():
            return None, ""
        try:
            content = _load(self.path)
            if (content.get("format"), content.get("identity")) != (FORMAT, self.identity):
                return None, f"{self.path.name} belongs to another run; starting clean"
            progress = Progress(**content["progress"])
            if progress.best_epoch:
                self.best_state(progress)
        except DataError as error:
            return None, f"{error}; starting clean"
        self.content = content
        return progress, ""

    def restore(self, progress: Progress, method: Method, optimizers: Optimizers, generators: Generators) -> None:
        """Put back what was read. The method's phase has been started, so that all its buffers exist."""
        content, self.content = self.content, None
        state = content["method"]
        method.load_state_dict(self.best_state(progress) if state is None else state)
        method.load_training_state(content["training"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        restore_random_states(content["random"], generators)

    def save(self, progress: Progress, method: Method, optimizers: Optimizers, generators: Generators) -> None:
        """Write everything that the next epoch depends on.

        Args:
            generators: those of the loop itself, by name: what orders the training samples and makes them incomplete.

        Raises:
            DataError: the file can't be written; names it and the remedy.
        """
        if self.path is None:
            return
        is_best = progress.epoch == progress.best_epoch  # then the state lies in the other file
        content = {
            "format": FORMAT,
            "identity": self.identity,
            "progress": vars(progress),
            "method": None if is_best else method.state_dict(),
            "training": dict(method.training_state()),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
            "random": random_states(generators),
        }
        _save(self.path, content)
        for file in checkpoint_files(self.path):
            if file not in (self.path, self._best_path(progress)):
                file.unlink()  # of an earlier epoch, which no checkpoint needs any more

    def keep_best(self, progress: Progress, method: Method) -> None:
        """Keep the state of ``method``, which this epoch made the best one."""
        state = method.state_dict()
        if self.path is not None:
            _save(self._best_path(progress), {"identity": self.identity, "state": state})
        elif {name: x.shape for name, x in self.best.items()} == {name: x.shape for name, x in state.items()}:
            for name, value in state.items():
                self.best[name].copy_(value)
        else:
            self.best = {name: value.to("cpu", copy=True) for name, value in state.items()}

    def best_state(self, progress: Progress) -> dict[str, Tensor]:
        """Parameters and buffers of the best epoch.

        Raises:
            DataError: the file was damaged meanwhile.
        """
        if self.path is None:
            return self.best
        path = self._best_path(progress)
        content = _load(path)
        if content.get("identity") != self.identity:
            raise DataError(f"{path.name} belongs to another run")
        return content["state"]

    def _best_path(self, progress: Progress) -> Path:
        return self.path.with_name(f"{self.path.stem}.best-{progress.phase}-{progress.best_epoch}.pt")


def checkpoint_files(path: Path) -> list[Path]:
    """The files that there are of the checkpoint ``path``."""
    return [file for file in (path, *path.parent.glob(f"{glob.escape(path.stem)}.best-*.pt")) if file.is_file()]


def read_history(path: Path) -> list[dict[str, Any]]:
    """The history of an unfinished training, in rows, from its checkpoint.

    Raises:
        DataError: the file is damaged, or of another version.
    """
    content = _load(path)
    if content.get("format") != FORMAT:
        raise DataError(f"{path.name} is of another version")
    return content["progress"]["history"]


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch ends its file even if the disk is full, and then says only that
            raise error.__context__ if isinstance(error.__context__, OSError) else OSError(str(error)) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip():  # torch does not compare the checksums that it wrote
                raise ValueError("wrong checksum")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # of many kinds: a cut file, something that is no checkpoint
        raise DataError(f"{path.name} is damaged") from error
