"""A replay buffer of tensors: whole batches go in and come out, without a loop over samples."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmsa_lib.errors import ConfigError


class ReplayBuffer:
    """Rows of named tensors. When a batch would fill it up, the older half is dropped first [C].

    Args:
        capacity: the buffer always holds fewer rows than this.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.size = 0
        self._columns: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self.size

    def add(self, rows: Mapping[str, Tensor]) -> None:
        """Append ``rows``: tensors ``(n, …)`` under the same names and shapes each time.

        Raises:
            ConfigError: the batch does not fit into the buffer.
        """
        count = len(next(iter(rows.values())))
        if self.size + count >= self.capacity:
            self._drop_older_half()
        if self.size + count >= self.capacity:
            raise ConfigError(
                f"a replay buffer of {self.capacity} is too small for batches of {count}; "
                f"set replay_capacity above {2 * count}"
            )
        for name, values in rows.items():
            if name not in self._columns:
                self._columns[name] = values.new_empty((self.capacity, *values.shape[1:]))
            self._columns[name][self.size : self.size + count] = values.detach()
        self.size += count

    def sample(self, size: int) -> dict[str, Tensor]:
        """``size`` different rows, drawn with the global generator of the CPU."""
        chosen = torch.randperm(self.size)[:size]
        return {name: values[chosen.to(values.device)] for name, values in self._columns.items()}

    def state(self) -> dict[str, Tensor]:
        """The rows in the buffer, by name."""
        return {name: values[: self.size] for name, values in self._columns.items()}

    def load(self, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
        """Replace the content by what :meth:`state` gave."""
        self.size, self._columns = 0, {}
        if state:
            self.add({name: values.to(device) for name, values in state.items()})

    def _drop_older_half(self) -> None:
        dropped = self.size // 2
        for values in self._columns.values():
            values[: self.size - dropped] = values[dropped : self.size].clone()
        self.size -= dropped
