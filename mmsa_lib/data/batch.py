"""An utterance as tensors: one :class:`Batch` for a step, one :class:`Utterances` for a whole split.

*Missing is not padding.* A padded frame is not ``valid``. A missing frame is ``valid`` but not ``observed``; its
features are zeros. Sequences are always padded on the right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.data.task import Task
from mmsa_lib.errors import DataError

if TYPE_CHECKING:
    from mmsa_lib.data.scaling import Preparation

__all__ = ["BERT_UNKNOWN", "MODALITIES", "Batch", "Modality", "Utterances"]

BERT_UNKNOWN = 100
"""Id of ``[UNK]`` in BERT vocabularies: what a missing token becomes (TFR-Net, EMT-DLFR, MMSA [C])."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some utterances, ready for a method.

    Attributes:
        features: per modality ``(B, T_m, d_m)`` float32, zeros at padding and at missing frames. With ``tokens`` the
            text entry has width 0 until a text encoder fills it.
        valid: per modality ``(B, T_m)`` bool, False on padding.
        observed: per modality ``(B, T_m)`` bool, False where a valid frame is missing; a subset of ``valid``.
        labels: ``(B,)`` sentiment or class ids, or ``(B, K)`` emotions.
        index: ``(B,)`` int64, row of each sample in its split (label banks address samples by it).
        ids: one identifier per sample.
        tokens: ``(B, T_text)`` int64 token ids for a trainable text encoder, or ``None``.
        unknown_token: the token id that stands for a missing token.
        unimodal_labels: per modality ``(B,)``, where the data set has them (CH-SIMS).
        labelled: ``(B,)`` bool, which samples a method may know the label of, or ``None``: all. Labels of the others
            are NaN, so that nothing uses them unnoticed.
    """

    features: dict[Modality, Tensor]
    valid: dict[Modality, Tensor]
    observed: dict[Modality, Tensor]
    labels: Tensor
    index: Tensor
    ids: tuple[str, ...]
    tokens: Tensor | None = None
    unknown_token: int = BERT_UNKNOWN
    unimodal_labels: dict[Modality, Tensor] = field(default_factory=dict)
    labelled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that are carried, in the fixed order text, audio, vision."""
        return tuple(m for m in MODALITIES if m in self.features)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, rows: Tensor) -> Batch:
        """The samples at positions ``rows`` (int64 ``(n,)``) of this batch, in that order."""
        chosen = self._map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))
        return replace(chosen, ids=tuple(self.ids[row] for row in rows.tolist()))

    def hide(self, keep: Mapping[Modality, Tensor]) -> Batch:
        """A copy in which only the frames that ``keep`` marks True are still observed.

        Hidden frames become zero vectors and stay valid. Hidden tokens become ``unknown_token``; the first and the last
        valid token ([CLS] and [SEP]) keep their ids.

        Args:
            keep: per modality a bool mask ``(B, T_m)``; modalities that are not named stay as they are.

        Raises:
            DataError: a mask names a modality that the batch lacks, or has another shape.
        """
        features, observed, tokens = dict(self.features), dict(self.observed), self.tokens
        for modality, mask in keep.items():
            if modality not in features:
                raise DataError(f"a mask names modality {modality!r}; this batch carries {', '.join(self.modalities)}")
            if mask.shape != self.valid[modality].shape:
                expected = tuple(self.valid[modality].shape)
                raise DataError(f"the mask of {modality} has shape {tuple(mask.shape)}, expected {expected}")
            observed[modality] = observed[modality] & mask
            if not features[modality].is_meta:  # of a streamed split, whose frames are read as ``observed`` says
                features[modality] = features[modality] * observed[modality].unsqueeze(-1)
            if modality == "text" and tokens is not None:
                inner = _between_first_and_last(self.valid["text"])
                tokens = tokens.masked_fill(inner & ~observed["text"], self.unknown_token)
        return replace(self, features=features, observed=observed, tokens=tokens)

    def with_text(self, features: Tensor) -> Batch:
        """The same batch with text features ``(B, T_text, d)``, as a text encoder returns them."""
        return replace(self, features={**self.features, "text": features})

    def _map(self, function) -> Batch:
        return replace(
            self,
            features={m: function(x) for m, x in self.features.items()},
            valid={m: function(x) for m, x in self.valid.items()},
            observed={m: function(x) for m, x in self.observed.items()},
            labels=function(self.labels),
            index=function(self.index),
            tokens=None if self.tokens is None else function(self.tokens),
            unimodal_labels={m: function(x) for m, x in self.unimodal_labels.items()},
            labelled=None if self.labelled is None else function(self.labelled),
        )


@dataclass(frozen=True, eq=False)
class Utterances:
    """One split of a data set, held as padded tensors.

    Attributes:
        data: all samples as one :class:`Batch`; ``data.index`` is 0 … N-1.
        task: what is predicted.
        name, fold, split: where the samples come from.
        groups: per sample the video (or other unit) that it was cut from; statistics resample by it.
        feature_names: which feature set fills each modality (for instance ``audio73``).
        factors: planted factors ``(N, k)`` of a synthetic set, else empty.
        transcripts: per sample the transcript, or empty.
        fingerprint: SHA-256 of everything that was loaded, options included; equal data give equal fingerprints.
        text_model: name of the transformers model behind ``tokens`` or the text features, or ``""``.
        notes: what a reader of results should know about this data, such as features that have seen labels.
        preparation: what was done to the features on loading, or ``None``.
    """

    data: Batch
    task: Task
    name: str = ""
    fold: str = ""
    split: str = ""
    groups: tuple[str, ...] = ()
    feature_names: dict[Modality, str] = field(default_factory=dict)
    factors: dict[str, Tensor] = field(default_factory=dict)
    transcripts: tuple[str, ...] = ()
    fingerprint: str = ""
    text_model: str = ""
    notes: tuple[str, ...] = ()
    preparation: Preparation | None = None

    def __len__(self) -> int:
        return len(self.data)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities that are carried, in the fixed order text, audio, vision."""
        return self.data.modalities

    @property
    def dims(self) -> dict[Modality, int]:
        """Feature width of each modality; 0 for text that is still tokens."""
        return {m: self.data.features[m].shape[-1] for m in self.modalities}

    @property
    def labels(self) -> Tensor:
        """Labels of all samples, ``(N,)`` or ``(N, K)``."""
        return self.data.labels

    @property
    def clean(self) -> Tensor | None:
        """Planted sentiment ``(N,)`` on the scale of the labels, free of annotation noise; ``None`` where unknown."""
        planted = self.factors.get("sentiment")
        return None if planted is None or self.task.kind != "regression" else planted[:, 0]

    @property
    def ids(self) -> tuple[str, ...]:
        """Identifiers of all samples."""
        return self.data.ids

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.data.labels.device

    def to(self, device: torch.device | str) -> Utterances:
        """The same split on ``device``; whole small data sets are kept there."""
        return replace(self, data=self.data.to(device))

    def select(self, rows: Tensor) -> Utterances:
        """The samples at ``rows`` as a split of their own; their index starts at 0 again."""
        chosen = self.data.select(rows)
        chosen = replace(chosen, index=torch.arange(len(chosen), device=self.device))
        positions = rows.tolist()
        return replace(
            self,
            data=chosen,
            groups=tuple(self.groups[i] for i in positions) if self.groups else (),
            factors={name: values[positions] for name, values in self.factors.items()},
            transcripts=tuple(self.transcripts[i] for i in positions) if self.transcripts else (),
        )

    def hide(self, keep: Mapping[Modality, Tensor]) -> Utterances:
        """The same split with more missing, as :meth:`Batch.hide`; masks are per modality ``(N, T_m)``.

        The fingerprint says what is still observed; it stays where nothing was hidden.
        """
        data = self.data.hide({m: mask.to(self.device) for m, mask in keep.items()})
        if all(torch.equal(data.observed[m], self.data.observed[m]) for m in keep):
            return replace(self, data=data)
        digest = hashlib.sha256(self.fingerprint.encode())
        for modality in self.modalities:
            digest.update(modality.encode() + data.observed[modality].cpu().numpy().tobytes())
        return replace(self, data=data, fingerprint=digest.hexdigest() if self.fingerprint else "")

    def lengths(self, modality: Modality) -> Tensor:
        """Number of valid frames per sample, ``(N,)`` int64."""
        return self.data.valid[modality].sum(-1)

    def batches(
        self, size: int, shuffle: bool = False, generator: torch.Generator | None = None, bucket: bool = False
    ) -> Iterator[Batch]:
        """Iterate over all samples once, ``size`` at a time; the last batch may be smaller.

        Each batch is trimmed to its own longest sample per modality: trailing frames that are padding in every sample
        of the batch are cut, which changes no result and saves most of the work on short utterances.

        Args:
            size: samples per batch.
            shuffle: draw a new order from ``generator``.
            generator: source of the order (CPU generator); needed with ``shuffle``.
            bucket: group samples of similar text length (of similar length of the first modality, without text), inside
                pools of 50 batches; the order of the batches stays random.
        """
        for rows, longest in self._plan(size, shuffle, generator, bucket):
            yield self._gather(rows, longest)

    def _plan(
        self, size: int, shuffle: bool, generator: torch.Generator | None, bucket: bool
    ) -> list[tuple[Tensor, dict[Modality, int]]]:
        """Rows of each batch, and the frames of its longest sample per modality."""
        if size < 1:
            raise DataError(f"a batch needs at least one sample, got size {size}")
        count = len(self)
        order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
        lengths = {m: self.lengths(m).cpu() for m in self.modalities}
        if bucket:
            chunks = _bucketed(order, lengths[self.modalities[0]], size, generator if shuffle else None)
        else:
            chunks = order.split(size)
        return [(rows, {m: max(1, int(lengths[m][rows].max())) for m in self.modalities}) for rows in chunks]

    def _gather(self, rows: Tensor, longest: Mapping[Modality, int]) -> Batch:
        """Rows of the split, each modality cut to ``longest`` frames; only the frames kept are copied."""
        data = self.data

        def cut(tensors: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
            return {m: x[:, : longest[m]] for m, x in tensors.items()}

        tokens = None if data.tokens is None else data.tokens[:, : longest["text"]]
        short = replace(
            data, features=cut(data.features), valid=cut(data.valid), observed=cut(data.observed), tokens=tokens
        )
        return short.select(rows)


def _between_first_and_last(valid: Tensor) -> Tensor:
    """``valid`` without the first and the last valid position of each row; ``valid`` is right-padded."""
    position = torch.arange(valid.shape[-1], device=valid.device)
    return valid & (position > 0) & (position < valid.sum(-1, keepdim=True) - 1)


def _bucketed(order: Tensor, lengths: Tensor, size: int, generator: torch.Generator | None) -> list[Tensor]:
    """Cut ``order`` into batches of similar length, 50 batches per pool."""
    chunks: list[Tensor] = []
    for pool in order.split(50 * size):
        by_length = pool[lengths[pool].argsort(stable=True)]
        chunks.extend(by_length.split(size))
    if generator is not None:
        chunks = [chunks[i] for i in torch.randperm(len(chunks), generator=generator).tolist()]
    return chunks
