"""CMU-MOSEI without audio and vision: 22,856 transcripts with labels, segment times and the official split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources.mosi import OWNER_TERMS
from mmsa_lib.data.sources.reading import original, read_table
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

SIZES = {"train": 16326, "valid": 1871, "test": 4659}
LABEL_TABLE = "MOSEI-label.csv"
FILES = (*(f"mosei_{split}.tsv" for split in SIZES), LABEL_TABLE)

TERMS = "The repository of the label and segment tables (LeMei/UniMSE) has no licence file. " + OWNER_TERMS
CITATION = (
    "Zadeh, Liang, Poria, Cambria, Morency: Multimodal language analysis in the wild: CMU-MOSEI dataset and "
    "interpretable dynamic fusion graph. ACL 2018."
)
NOTES = [
    "text only: audio and vision of CMU-MOSEI are not public in a form that could be verified",
    "transcripts are those of the label table; the segment tables have the same texts with doubled quotation marks, "
    "except for two segments (Q2uHXKA8cq8_9, WaaSYRPwQBw_1) whose transcripts are different sentences",
]


def build(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSEI text from its original files; fold ``standard`` is the official split 16326/1871/4659.

    Args:
        files: file name to path, for every name in :data:`FILES`.

    Raises:
        DataError: a file is missing or unreadable, sizes are wrong, or the two kinds of table disagree.
    """
    segments = _segments(files)
    table = _label_table(original(files, LABEL_TABLE))
    _compare(segments, table)
    return DatasetRecord(
        name="mosei_text",
        task=regression((-3, 3)),
        ids=segments.index.to_list(),
        groups=segments["vid"].to_list(),
        labels=segments["label"].to_numpy(np.float32),
        folds={"standard": segments["split"].to_numpy(str)},
        defaults={"*": {"text": "words"}},
        transcripts=table["text"].reindex(segments.index).to_list(),
        times=segments[["start", "stop"]].to_numpy(np.float32),
        terms=TERMS,
        citation=CITATION,
        notes=list(NOTES),
    )


def _segments(files: Mapping[str, Path]) -> pd.DataFrame:
    """All segments by id (``<video>_<clip>``): train, valid, test; inside each by video and clip number."""
    parts = []
    for split, size in SIZES.items():
        path = original(files, f"mosei_{split}.tsv")
        part = read_table(path, ["vid", "start", "stop", "label", "cid", "text"], separator="\t", quoted=False)
        if len(part) != size:
            raise DataError(f"{path}: {len(part)} segments, expected {size}; fetch the original again")
        part["vid"] = part["vid"].astype(str)
        parts.append(part.sort_values(["vid", "cid"]).assign(split=split))
    segments = pd.concat(parts, ignore_index=True)
    return segments.set_index(segments["vid"] + "_" + segments["cid"].astype(str))


def _label_table(path: Path) -> pd.DataFrame:
    table = read_table(path, ["video_id", "clip_id", "text", "label", "mode"])
    return table.set_index(table["video_id"].astype(str) + "_" + table["clip_id"].astype(str))


def _compare(segments: pd.DataFrame, table: pd.DataFrame) -> None:
    """Ids, labels and splits of the two kinds of table must be the same."""
    for frame, name in ((segments, "the segment tables"), (table, LABEL_TABLE)):
        if not frame.index.is_unique:
            raise DataError(f"CMU-MOSEI: {name}: segment {frame.index[frame.index.duplicated()][0]} appears twice")
    alone = segments.index.symmetric_difference(table.index)
    if len(alone):
        raise DataError(f"CMU-MOSEI: segment {alone[0]} is only in one of the tables; fetch the originals again")
    table = table.reindex(segments.index)
    differs = (table["mode"] != segments["split"]) | ((table["label"] - segments["label"]).abs() > 1e-4)
    if differs.any():
        first = segments.index[differs.to_numpy()][0]
        raise DataError(f"CMU-MOSEI: label or split of {first} differs between the tables; fetch the originals again")
