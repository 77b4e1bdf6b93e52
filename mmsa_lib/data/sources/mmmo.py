"""ICT-MMMO: 340 film-review videos, three modalities aligned by word in 20 steps; the training part lacks text.

Valid and observed frames are those of :mod:`.mfn_folder`; without text, audio and vision decide on the span.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from mmsa_lib.data.hdf5 import read_array, read_hdf5
from mmsa_lib.data.record import DatasetRecord, Modality
from mmsa_lib.data.sources.columns import joined
from mmsa_lib.data.sources.folds import cross_validation
from mmsa_lib.data.sources.mfn_folder import APART_FILES as _FILE
from mmsa_lib.data.sources.mfn_folder import word_aligned
from mmsa_lib.data.sources.official import PUBLIC_SETS
from mmsa_lib.data.sources.reading import original
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

SIZES = {"train": 220, "valid": 40, "test": 80}
STEPS = 20
WIDTHS: dict[Modality, int] = {"text": 300, "audio": 74, "vision": 36}
TRAINING_TEXT = "text_train_emb.h5"
COMPLETE_CV_PARTS = 5

_ABSENT_NOTE = (
    f"training text is absent: {TRAINING_TEXT} was not at hand; download it by "
    "mmsa_lib.data.sources.fetch_originals('mmmo', optional=True) and build again"
)


def build(files: Mapping[str, Path]) -> DatasetRecord:
    """ICT-MMMO from its originals; without :data:`TRAINING_TEXT` each valid step has a frame of text, not observed."""
    labels, parts, ids = [], [], []
    for split, size in SIZES.items():
        labels.append(_read(original(files, f"y_{split}.h5"), (size,)).astype(np.float32))
        names = {m: _FILE[m].format(split) for m in WIDTHS}
        arrays = {
            m: _read(original(files, name), (size, STEPS, WIDTHS[m]))
            for m, name in names.items()
            if name != TRAINING_TEXT or name in files
        }
        named = [f"{split}_{row}" for row in range(size)]
        ids += named
        parts.append(word_aligned(arrays, named, WIDTHS, Repairs(), split))
    standard = np.repeat(list(SIZES), list(SIZES.values()))
    return DatasetRecord(
        name="mmmo",
        task=regression((1, 5)),
        ids=ids,
        groups=list(ids),
        labels=np.concatenate(labels),
        folds={"standard": standard, **cross_validation(ids, standard != "train", COMPLETE_CV_PARTS, "complete_cv")},
        features={f"{m}{width}": joined([part[m] for part in parts], m) for m, width in WIDTHS.items()},
        defaults={"*": {modality: f"{modality}{width}" for modality, width in WIDTHS.items()}},
        notes=[*PUBLIC_SETS["mmmo"].notes, *([] if TRAINING_TEXT in files else [_ABSENT_NOTE])],
    )


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    with read_hdf5(path, "fetch the original again", verified=True) as file:
        if not isinstance(file.get("d1"), h5py.Dataset):
            raise DataError(f"{path}: array 'd1' can't be read (there is none); fetch the original again")
        values = read_array(file["d1"])
    if values.shape != shape:
        raise DataError(f"{path}: array 'd1' has shape {values.shape}, expected {shape}; fetch the original again")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: array 'd1' holds NaN or infinity; fetch the original again")
    return values
