"""The state of a training run between two epochs, on disk, so that an interrupted run goes on exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmsa_lib.errors import DataError
from mmsa_lib.methods.base import Method
from mmsa_lib.training.seeding import random_states, restore_random_states
from mmsa_lib.training.tensors import cpu_copy, read_tensors, save_tensors

FORMAT = "mmsa-lib checkpoint 2"


@dataclass
class Progress:
    """How far a training run is.

    Attributes:
        phase: position in ``method.phases``.
        epoch: epochs of this phase that are finished.
        best_epoch, best_value: the epoch of this phase with the lowest validation loss, and that loss.
        stopped: why the phase ended; empty while it goes on.
        history: one row per logged value, as in :class:`~mmsa_lib.training.fit.FitResult`.
        seconds: training time so far, over all interruptions.
        best_state: parameters and buffers of the best epoch, on the CPU.
    """

    phase: int = 0
    epoch: int = 0
    best_epoch: int = 0
    best_value: float = math.inf
    stopped: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    best_state: dict[str, Tensor] = field(default_factory=dict)


Optimizers = Mapping[str, torch.optim.Optimizer]


Generators = Mapping[str, torch.Generator]


def save_checkpoint(
    path: Path, identity: str, progress: Progress, method: Method, optimizers: Optimizers, generators: Generators
) -> None:
    """Write everything that the next epoch depends on.

    Args:
        identity: what is being trained; only a run with the same identity goes on from this file.
        generators: those of the loop itself, by name: what orders the training samples and makes them incomplete.
    """
    random_tensors, random_plain = random_states(generators)
    optimizer_tensors, optimizer_plain = _pack_optimizers(optimizers)
    tensors = {
        **{f"method/{name}": value for name, value in cpu_copy(method).items()},
        **{f"best/{name}": value for name, value in progress.best_state.items()},
        **{f"state/{name}": value for name, value in method.training_state().items()},
        **{f"random/{name}": value for name, value in random_tensors.items()},
        **{f"optimizer/{name}": value for name, value in optimizer_tensors.items()},
    }
    plain = {name: value for name, value in vars(progress).items() if name != "best_state"}
    content = {"progress": plain, "random": random_plain, "optimizers": optimizer_plain}
    save_tensors(path, tensors, {"format": FORMAT, "identity": identity, "content": json.dumps(content)})


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and belongs to this run."""

    progress: Progress
    tensors: dict[str, Tensor]
    content: dict[str, Any]

    def restore(self, method: Method, optimizers: Optimizers, generators: Generators) -> None:
        """Put the states back. The method's phase has been started, so that all its buffers exist."""
        method.load_state_dict(_below("method/", self.tensors))
        method.load_training_state(_below("state/", self.tensors))
        _unpack_optimizers(optimizers, _below("optimizer/", self.tensors), self.content["optimizers"])
        restore_random_states(_below("random/", self.tensors), self.content["random"], generators)


def read_checkpoint(path: Path, identity: str) -> tuple[Checkpoint | None, str]:
    """The checkpoint at ``path`` if it is whole and of this ``identity``, else ``None`` and the reason in one line."""
    if not path.is_file():
        return None, ""
    try:
        tensors, metadata = read_tensors(path)
    except DataError:
        return None, f"{path.name} is damaged; starting clean"
    if metadata.get("format") != FORMAT or metadata.get("identity") != identity:
        return None, f"{path.name} belongs to another run; starting clean"
    content = json.loads(metadata["content"])
    progress = Progress(**content["progress"], best_state=_below("best/", tensors))
    return Checkpoint(progress, tensors, content), ""


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _pack_optimizers(optimizers: Optimizers) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split optimiser states into tensors (named optimizer/parameter/quantity) and plain values."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        values: dict[str, dict[str, Any]] = {}
        for index, quantities in state["state"].items():
            for quantity, value in quantities.items():
                if isinstance(value, Tensor):
                    tensors[f"{name}/{index}/{quantity}"] = value
                else:
                    values.setdefault(str(index), {})[quantity] = value
        plain[name] = {"values": values, "groups": state["param_groups"]}
    return tensors, plain


def _unpack_optimizers(optimizers: Optimizers, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in plain[name]["values"].items()}
        for key, value in _below(f"{name}/", tensors).items():
            index, quantity = key.split("/", 1)
            state.setdefault(int(index), {})[quantity] = value
        optimizer.load_state_dict({"state": state, "param_groups": plain[name]["groups"]})
