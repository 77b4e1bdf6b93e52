"""A split whose audio or vision stays on disk: the frames of a batch are read when the batch is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.store import read_spans

if TYPE_CHECKING:
    from mmsa_lib.data.loading import Scaling


@dataclass(frozen=True, eq=False)
class FrameFile:
    """Frames of one modality in a store.

    Attributes:
        path: the store.
        name: feature-set name.
        starts: ``(N,)`` int64, first row of each sample of the split.
        width: features per frame.
        scaling: standardisation, or ``None``.
    """

    path: Path
    name: str
    starts: Tensor
    width: int
    scaling: Scaling | None = None

    def read(self, rows: Tensor, observed: Tensor) -> Tensor:
        """Frames of some samples.

        Args:
            rows: ``(B,)`` int64, samples of the split.
            observed: ``(B, T)`` bool, which of their first ``T`` frames are observed.

        Returns:
            ``(B, T, width)`` float32, zeros where nothing is observed.
        """
        order = rows.argsort()  # the file is read from front to back
        counts = _frames_needed(observed)
        starts = self.starts[rows]
        spans = [(int(starts[i]), int(starts[i] + counts[i])) for i in order]
        frames = torch.zeros(*observed.shape, self.width)
        for position, values in zip(order.tolist(), read_spans(self.path, self.name, spans), strict=True):
            seen = observed[position, : len(values)].numpy()
            scaled = self.scaling.apply(values, seen) if self.scaling else np.where(seen[:, None], values, 0)
            frames[position, : len(values)] = torch.from_numpy(scaled)
        return frames


@dataclass(frozen=True, eq=False)
class StreamedUtterances(Utterances):
    """Like :class:`Utterances`, but the modalities in ``files`` are read batch by batch; the batches are identical.

    Labels, masks and whatever is not in ``files`` stay in memory. ``data.features`` of a streamed modality is a tensor
    without storage (device ``meta``): it has the right shape, and using its values is an error, never silent zeros.
    """

    files: dict[Modality, FrameFile] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> StreamedUtterances:
        """The same split with what is in memory on ``device``; batches are sent there as they are read."""
        return self._filled(replace(self, data=self._in_memory.to(device)))

    def select(self, rows: Tensor) -> StreamedUtterances:
        """The samples at ``rows`` as a split of their own; their index starts at 0 again."""
        chosen = Utterances.select(replace(self, data=self._in_memory), rows)
        files = {m: replace(file, starts=file.starts[rows.cpu()]) for m, file in self.files.items()}
        return self._filled(replace(chosen, files=files))

    @property
    def _in_memory(self) -> Batch:
        kept = {m: x for m, x in self.data.features.items() if m not in self.files}
        return replace(self.data, features=kept)

    def _filled(self, utterances: StreamedUtterances) -> StreamedUtterances:
        features = dict(utterances.data.features)
        for modality, file in utterances.files.items():
            features[modality] = placeholder(*utterances.data.valid[modality].shape, file.width)
        return replace(utterances, data=replace(utterances.data, features=features))

    def _gather(self, rows: Tensor, longest: Mapping[Modality, int]) -> Batch:
        batch = Utterances._gather(replace(self, data=self._in_memory), rows, longest)
        read = {m: file.read(rows, batch.observed[m].cpu()).to(self.device) for m, file in self.files.items()}
        return replace(batch, features={**batch.features, **read})


def placeholder(samples: int, frames: int, width: int) -> Tensor:
    """A tensor ``(samples, frames, width)`` without storage."""
    return torch.empty(samples, frames, width, device="meta")


def _frames_needed(observed: Tensor) -> Tensor:
    """Per sample the position behind its last observed frame, ``(B,)``; later frames are zeros."""
    positions = torch.arange(1, observed.shape[-1] + 1)
    return (observed * positions).amax(-1)
