"""A split whose audio or vision stays on disk: the frames of a batch are read while the batch before it is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import Batch, Modality, Utterances
from mmsa_lib.data.store import Frames, open_store

if TYPE_CHECKING:
    from mmsa_lib.data.scaling import Scaling

AHEAD = 2
"""Batches that are read before they are asked for."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Frames of one modality in a store.

    Attributes:
        name: feature-set name.
        starts: ``(N,)`` int64, first row of each sample of the split.
        width: features per frame.
        scaling: standardisation, or ``None``.
    """

    name: str
    starts: Tensor
    width: int
    scaling: Scaling | None = None

    def read(self, source: Frames, rows: Tensor, observed: Tensor) -> Tensor:
        """Frames of some samples.

        Args:
            source: the values of the feature set.
            rows: ``(B,)`` int64, samples of the split.
            observed: ``(B, T)`` bool, which of their first ``T`` frames are observed.

        Returns:
            ``(B, T, width)`` float32, zeros where nothing is observed.
        """
        frames = np.zeros((*observed.shape, self.width), np.float32)
        # Up to the last observed frame of each sample; the file is read from front to back.
        counts = (observed * torch.arange(1, observed.shape[1] + 1)).amax(-1).tolist()
        starts = self.starts[rows]
        for sample in starts.argsort().tolist():
            source.read_into(int(starts[sample]), frames[sample, : counts[sample]])
        seen = observed.numpy()
        frames = self.scaling.apply(frames, seen) if self.scaling else np.where(seen[..., None], frames, np.float32(0))
        return torch.from_numpy(frames)


@dataclass(frozen=True, eq=False)
class StreamedUtterances(Utterances):
    """Like :class:`Utterances`, but the modalities in ``stored`` are read batch by batch; the batches are identical.

    Labels, masks and whatever is not in ``stored`` stay in memory. ``data.features`` of a streamed modality is a tensor
    without storage (device ``meta``): it has the right shape, and using its values is an error, never silent zeros.

    Attributes:
        store: the file of the data set; it is opened once per iteration.
        stored: the modalities that stay there.
    """

    store: Path = Path()
    stored: dict[Modality, Stored] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> StreamedUtterances:
        """The same split with what is in memory on ``device``; batches are sent there as they are read."""
        return self._filled(replace(self, data=self._in_memory.to(device)))

    def select(self, rows: Tensor) -> StreamedUtterances:
        """The samples at ``rows`` as a split of their own; their index starts at 0 again."""
        chosen = Utterances.select(replace(self, data=self._in_memory), rows)
        stored = {m: replace(part, starts=part.starts[rows.cpu()]) for m, part in self.stored.items()}
        return self._filled(replace(chosen, stored=stored))

    def batches(
        self, size: int, shuffle: bool = False, generator: torch.Generator | None = None, bucket: bool = False
    ) -> Iterator[Batch]:
        """As :meth:`Utterances.batches`; a thread reads the next batches meanwhile.

        Raises:
            DataError: the store is gone or can't be read.
        """
        kept, ahead = replace(self, data=self._in_memory), deque[Future[Batch]]()
        plan = self._plan(size, shuffle, generator, bucket)
        with open_store(self.store) as store, ThreadPoolExecutor(1) as reader:
            sources = {m: store.frames(part.name) for m, part in self.stored.items()}
            for rows, longest in plan:
                ahead.append(reader.submit(kept._read, sources, rows, longest))
                if len(ahead) > AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _read(self, sources: Mapping[Modality, Frames], rows: Tensor, longest: Mapping[Modality, int]) -> Batch:
        batch = self._gather(rows, longest)
        read = {m: self.stored[m].read(sources[m], rows, batch.observed[m].cpu()) for m in self.stored}
        return replace(batch, features={**batch.features, **{m: x.to(self.device) for m, x in read.items()}})

    @property
    def _in_memory(self) -> Batch:
        return replace(self.data, features={m: x for m, x in self.data.features.items() if m not in self.stored})

    def _filled(self, utterances: StreamedUtterances) -> StreamedUtterances:
        features = dict(utterances.data.features)
        for modality, part in utterances.stored.items():
            features[modality] = placeholder(*utterances.data.valid[modality].shape, part.width)
        return replace(utterances, data=replace(utterances.data, features=features))


def placeholder(samples: int, frames: int, width: int) -> Tensor:
    """A tensor ``(samples, frames, width)`` without storage."""
    return torch.empty(samples, frames, width, device="meta")
