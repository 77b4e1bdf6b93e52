"""How alike two networks represent the same samples: linear CKA, cosines, distances, each beside what chance gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from companion.factorization import encode
from mmsa_lib.data.batch import Utterances
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.methods.hrlf import HRLF

SHUFFLES = 8
"""Shuffles behind the chance level of CKA."""


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same samples.

    ``|Y'X|^2 / (|X'X| |Y'Y|)`` with centred columns and Frobenius norms (Kornblith et al., ICML 2019). It is 1 for
    representations that differ by a rotation and a scale, and above 0 by chance where columns are many and samples few.

    Args:
        x, y: ``(N, d_x)`` and ``(N, d_y)``.

    Returns:
        0 … 1, NaN where all rows of one coincide.

    Raises:
        DataError: other than two matrices with as many rows, two or more.
    """
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise DataError(f"CKA compares (N, d) matrices of the same samples, got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = _centred(x), _centred(y)
    own = (x.mT @ x).norm() * (y.mT @ y).norm()
    return float((y.mT @ x).square().sum() / own) if own > 0 else float("nan")


def agreement(teacher: Tensor, student: Tensor, seed: int = 0) -> dict[str, float]:
    """Four numbers for two ``(N, d)`` representations of the same samples.

    Returns:
        ``cka``, and ``cka_shuffled``, its mean where the student's rows are shuffled; ``cosine``, the mean cosine of
        the rows after the mean row was taken off each; ``distance``, the mean distance of the rows relative to that of
        the teacher's rows from their own mean, so that a student who always answers that mean has 1.
    """
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(student), generator=generator) for _ in range(SHUFFLES)]
    t, s = _centred(teacher), _centred(student)
    spread = t.norm(dim=1).mean()
    distance = (teacher.double() - student.double()).norm(dim=1).mean()
    return {
        "cka": linear_cka(teacher, student),
        "cka_shuffled": sum(linear_cka(teacher, student[order]) for order in orders) / SHUFFLES,
        "cosine": float(F.cosine_similarity(t, s, dim=1).mean()),
        "distance": float(distance / spread) if spread > 0 else float("nan"),
    }


def scale_agreement(method: HRLF, complete: Utterances, incomplete: Mapping[str, Utterances]) -> pd.DataFrame:
    """:func:`agreement` of the teacher on complete samples with the student on several inputs, at each scale.

    Args:
        method: with a teacher.
        complete: the samples.
        incomplete: name to the same samples as the student sees them.

    Returns:
        Columns ``input``, ``scale`` (1, 2, 3) and those of :func:`agreement`.

    Raises:
        ConfigError: the method has no teacher. DataError: other samples.
    """
    if method.teacher is None:
        raise ConfigError("this method was built with no_teacher=True; there is nothing to agree with")
    for name, data in incomplete.items():
        if data.ids != complete.ids:
            raise DataError(f"input {name!r} holds other samples than the complete split")
    merge = method.config.scale_merge
    known = encode(method.teacher, complete).scales(merge)
    rows = []
    for name, data in incomplete.items():
        for scale, (t, s) in enumerate(zip(known, encode(method.student, data).scales(merge), strict=True), start=1):
            rows.append({"input": name, "scale": scale, **agreement(t, s)})
    return pd.DataFrame(rows)


def agreement_trace(history: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Rows of :func:`scale_agreement` that were observed in training, from a history.

    Args:
        history: of :func:`mmsa_lib.training.fit`, with ``observe=`` a function that returned :func:`flat`.
        names: measures to keep.

    Returns:
        Columns ``epoch``, ``input``, ``scale``, ``measure``, ``value``.
    """
    seen = history[(history["split"] == "oracle") & (history["name"].str.count("/") == 2)]
    parts = seen["name"].str.split("/", expand=True).set_axis(["input", "scale", "measure"], axis=1)
    table = pd.concat([seen["epoch"], parts.astype({"scale": int}), seen["value"]], axis=1)
    return table[table["measure"].isin(names)].reset_index(drop=True)


def flat(table: pd.DataFrame) -> dict[str, float]:
    """A table of :func:`scale_agreement` as named numbers, ``"<input>/<scale>/<measure>"``, for a history."""
    measures = [name for name in table if name not in ("input", "scale")]
    return {f"{row['input']}/{row['scale']}/{name}": row[name] for _, row in table.iterrows() for name in measures}


def _centred(x: Tensor) -> Tensor:
    return x.double() - x.double().mean(dim=0)
