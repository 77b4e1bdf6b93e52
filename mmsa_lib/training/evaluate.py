"""A trained method applied to a whole split."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmsa_lib.data.batch import Utterances
from mmsa_lib.errors import RunError
from mmsa_lib.methods.base import Method, Output, evaluation_mode


def predict(method: Method, data: Utterances, batch_size: int = 256) -> Tensor:
    """Predictions for all samples of ``data``, in their order, float32 on the CPU.

    A fine-tuned text encoder reads texts of similar length together, which saves it half of its work; predictions then
    differ from those in other batches by rounding, below 1e-6 of their scale.

    Returns:
        ``(N,)`` sentiment, or ``(N, K, 2)`` emotion logits.

    Raises:
        RunError: a prediction is not finite; names the sample.
    """
    bucket = method.text_encoder is not None
    rows, parts = [], []
    for index, output in _outputs(method, data, batch_size, bucket):
        rows.append(index)
        parts.append(output.prediction.float().cpu())
    prediction = torch.cat(parts)
    if bucket:
        prediction = prediction[torch.cat(rows).argsort()]
    finite = prediction.isfinite().reshape(len(data), -1).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise RunError(
            f"{method.id} predicts a value that is not finite for {len(bad)} of {len(data)} {data.split} samples "
            f"(first {data.ids[bad[0]]!r}); lower the learning rate or look at the input features"
        )
    return prediction


def represent(method: Method, data: Utterances, batch_size: int = 256) -> dict[str, Tensor]:
    """Named representations of all samples, each ``(N, d)`` float32 on the CPU: what probes and figures read."""
    parts: dict[str, list[Tensor]] = {}
    for _, output in _outputs(method, data, batch_size):
        for name, values in output.representations.items():
            parts.setdefault(name, []).append(values.float().cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


def _outputs(
    method: Method, data: Utterances, batch_size: int, bucket: bool = False
) -> Iterator[tuple[Tensor, Output]]:
    """Index of its samples, and output, of every batch."""
    device = next(method.parameters()).device
    with evaluation_mode(method):
        for batch in data.batches(batch_size, bucket=bucket):
            yield batch.index.cpu(), method(batch.to(device))
