"""What was chosen of a data set, cut into splits of tensors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsa_lib.data.batch import BERT_UNKNOWN, MODALITIES, Batch, Modality, Utterances
from mmsa_lib.data.padding import Tokens, masks, pad
from mmsa_lib.data.record import DatasetRecord, FeatureSet
from mmsa_lib.data.scaling import Scaling
from mmsa_lib.data.streaming import FrameFile, StreamedUtterances, placeholder


@dataclass(frozen=True)
class Contents:
    """Everything that was chosen, for all samples of a data set.

    Attributes:
        record: identifiers, labels, texts and factors; its features are not used.
        fold: name of the fold in the record.
        chosen: feature-set name per modality.
        sets: the feature sets; those of ``streamed`` modalities come without values.
        scaling: standardisation per modality, where there is one.
        tokens: token ids, or ``None``.
        store: file of the streamed modalities.
        streamed: modalities whose frames stay on disk.
        text_model: name of the transformers model behind the text, or ``""``.
        notes: remarks that go with every split.
        origin: whatever decides about the numbers, as JSON can hold it; the fingerprint covers it.
    """

    record: DatasetRecord
    fold: str
    chosen: dict[Modality, str]
    sets: dict[Modality, FeatureSet]
    scaling: dict[Modality, Scaling]
    tokens: Tokens | None
    store: Path | None
    streamed: tuple[Modality, ...]
    text_model: str
    notes: tuple[str, ...]
    origin: list[Any]

    def utterances(self, split: str, rows: np.ndarray) -> Utterances:
        """The samples at ``rows`` as a split."""
        record = self.record
        common = {
            "data": self._batch(rows),
            "task": record.task,
            "name": record.name,
            "fold": self.fold,
            "split": split,
            "groups": tuple(record.groups[row] for row in rows),
            "feature_names": dict(self.chosen),
            "factors": {name: _tensor(values, rows) for name, values in record.factors.items()},
            "transcripts": tuple(record.transcripts[row] for row in rows) if record.transcripts is not None else (),
            "fingerprint": hashlib.sha256(json.dumps([*self.origin, split], sort_keys=True).encode()).hexdigest(),
            "text_model": self.text_model,
            "notes": self.notes,
        }
        if not self.streamed:
            return Utterances(**common)
        return StreamedUtterances(**common, files={m: self._file(m, rows) for m in self.streamed})

    def _batch(self, rows: np.ndarray) -> Batch:
        both = {m: masks(features, rows) for m, features in self.sets.items()}
        ordered = [m for m in MODALITIES if m in self.sets]
        record, tokens = self.record, self.tokens
        return Batch(
            features={m: self._features(m, rows) for m in ordered},
            valid={m: both[m][0] for m in ordered},
            observed={m: both[m][1] for m in ordered},
            labels=_tensor(record.labels, rows),
            index=torch.arange(len(rows)),
            ids=tuple(record.ids[row] for row in rows),
            tokens=None if tokens is None else tokens.ids[rows, : both["text"][0].shape[1]],
            unknown_token=BERT_UNKNOWN if tokens is None else tokens.unknown,
            unimodal_labels={m: _tensor(values, rows) for m, values in record.unimodal_labels.items()},
        )

    def _features(self, modality: Modality, rows: np.ndarray) -> Tensor:
        features = self.sets[modality]
        if modality in self.streamed:
            return placeholder(len(rows), int(features.lengths[rows].max(initial=1)), features.width)
        return pad(features, rows, self.scaling.get(modality))

    def _file(self, modality: Modality, rows: np.ndarray) -> FrameFile:
        features = self.sets[modality]
        starts = torch.from_numpy(features.offsets[rows])
        return FrameFile(self.store, self.chosen[modality], starts, features.width, self.scaling.get(modality))


def _tensor(values: np.ndarray, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values[rows], dtype=np.float32))
