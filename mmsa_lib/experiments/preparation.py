"""What a run folder says of the inputs that its method reads, so that it predicts without its data set."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import torch

from mmsa_lib.data.batch import Modality, Utterances
from mmsa_lib.data.scaling import Preparation, Scaling
from mmsa_lib.errors import DataError
from mmsa_lib.experiments.files import REPEAT
from mmsa_lib.training.tensors import read_tensors, save_tensors


def preparation_of(data: Utterances, modalities: Collection[Modality]) -> Preparation:
    """How ``data`` was prepared, as far as a method reads it; whether it is aligned, the lengths say."""
    whole, read = data.preparation or Preparation({}), [m for m in data.modalities if m in modalities]
    first, *others = [data.lengths(m) for m in read]
    return replace(
        whole,
        features={m: name for m, name in whole.features.items() if m in read},
        scaling={m: scaling for m, scaling in whole.scaling.items() if m in read},
        aligned=bool(others) and all(torch.equal(first, other) for other in others),
    )


def write_preparation(path: Path, preparation: Preparation, run_id: str) -> None:
    """Write ``mean`` and ``scale`` of each scaled modality, ``(d,)`` float32, and the rest as JSON beside them."""
    scaled = preparation.scaling
    tensors = {f"{m}/{name}": torch.from_numpy(vector) for m in scaled for name, vector in asdict(scaled[m]).items()}
    said = {name: value for name, value in asdict(preparation).items() if name != "scaling"}
    save_tensors(path, tensors, {"run_id": run_id, "inputs": json.dumps(said, sort_keys=True)})


def read_preparation(path: Path, run_id: str) -> Preparation:
    """What :func:`write_preparation` wrote.

    Raises:
        DataError: the file is damaged, of another run, or holds a scaling by nothing.
    """
    tensors, metadata = read_tensors(path)
    try:
        said = json.loads(metadata["inputs"])
        scaling = {name.partition("/")[0]: None for name in tensors}
        for modality in scaling:
            mean, scale = (tensors[f"{modality}/{name}"] for name in ("mean", "scale"))
            sound = mean.dtype == scale.dtype == torch.float32 and mean.shape == scale.shape and mean.ndim == 1
            if not (sound and mean.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
                raise ValueError(f"scaling of {modality}")
            scaling[modality] = Scaling(mean.numpy(), scale.numpy())
        found = Preparation(**said, scaling=scaling)
        if metadata["run_id"] != run_id:
            raise ValueError(f"of run {metadata['run_id']}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} does not say how inputs of run {run_id} are prepared ({error}); {REPEAT}") from error
    return found
