"""Public sets without audio and vision: transcripts with labels and the official splits of CMU-MOSEI and CH-SIMS.

Labels of CH-SIMS are the multimodal ones; its unimodal labels are only in the official files (``import mmsa``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.sources.official import PUBLIC_SETS
from mmsa_lib.data.sources.reading import original, read_table
from mmsa_lib.data.sources.safe_pickle import load_npz
from mmsa_lib.data.task import regression
from mmsa_lib.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SIZES = {
    "mosei_text": {"train": 16326, "valid": 1871, "test": 4659},
    "sims_text": {"train": 1368, "valid": 456, "test": 457},
    "simsv2_text": {"train": 2722, "valid": 647, "test": 1034},
}
LABEL_TABLE = "MOSEI-label.csv"
_CORPUS = {"train": "train_corpus", "valid": "val_corpus", "test": "test_corpus"}


def build_mosei(files: Mapping[str, Path]) -> DatasetRecord:
    """CMU-MOSEI text (22,856 segments) from its original files; fold ``standard`` is the official split."""
    import pandas as pd

    parts = []
    for split, size in SIZES["mosei_text"].items():
        path = original(files, f"mosei_{split}.tsv")
        part = read_table(path, ["vid", "start", "stop", "label", "cid", "text"], separator="\t", quoted=False)
        if len(part) != size:
            raise DataError(f"{path}: {len(part)} segments, expected {size}; fetch the original again")
        part["vid"] = part["vid"].astype(str)
        parts.append(part.sort_values(["vid", "cid"]).assign(split=split))
    segments = pd.concat(parts, ignore_index=True)
    segments = segments.set_index(segments["vid"] + "_" + segments["cid"].astype(str))
    table = read_table(original(files, LABEL_TABLE), ["video_id", "clip_id", "text", "label", "mode"])
    table = table.set_index(table["video_id"].astype(str) + "_" + table["clip_id"].astype(str))
    table = _in_order(segments, table)
    return DatasetRecord(
        name="mosei_text",
        task=regression((-3, 3)),
        ids=segments.index.to_list(),
        groups=segments["vid"].to_list(),
        labels=segments["label"].to_numpy(np.float32),
        folds={"standard": segments["split"].to_numpy(str)},
        defaults={"*": {"text": "words"}},
        transcripts=table["text"].to_list(),
        times=segments[["start", "stop"]].to_numpy(np.float32),
        notes=list(PUBLIC_SETS["mosei_text"].notes),
    )


def _in_order(segments: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The label table in the order of ``segments``; ids, labels and splits of the two must be the same."""
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
    return table


def build_sims(files: Mapping[str, Path], name: str = "sims_text") -> DatasetRecord:
    """CH-SIMS text (2,281 clips), or with ``name`` "simsv2_text" CH-SIMS v2 (4,403 supervised clips)."""
    path, labels = original(files, PUBLIC_SETS[name].required[0]), {}
    corpora = load_npz(path)
    for split, key in _CORPUS.items():
        corpus = corpora.get(key)
        if not isinstance(corpus, dict):
            raise DataError(f"{path}: {key} is missing or no dictionary; fetch the original again")
        if len(corpus) != SIZES[name][split]:
            found = f"has {len(corpus)} clips, expected {SIZES[name][split]}"
            raise DataError(f"{path}: {key} {found}; fetch the original again")
        for clip in sorted(corpus):
            if clip in labels:
                raise DataError(f"{path}: clip {clip} is in two splits; fetch the original again")
            labels[clip] = split, float(corpus[clip]["val"])
    path, ids = original(files, PUBLIC_SETS[name].required[1]), list(labels)
    table = read_table(path, ["name", "chinese", "english"]).set_index("name")
    if len(table.index.symmetric_difference(ids)) or not table.index.is_unique:
        raise DataError(f"{path}: transcripts and labels name different clips; fetch both originals again")
    table, groups = table.reindex(ids), [clip.rsplit("_", 1)[0] for clip in ids]
    splits = [split for split, _ in labels.values()]
    of_train, of_test = ({g for g, s in zip(groups, splits, strict=True) if s == one} for one in ("train", "test"))
    shared = f"{len(of_train & of_test)} source videos have clips in both train and test"
    return DatasetRecord(
        name=name,
        task=regression((-1, 1)),
        ids=ids,
        groups=groups,
        labels=np.array([value for _, value in labels.values()], dtype=np.float32),
        folds={"standard": np.array(splits)},
        defaults={"*": {"text": "words"}},
        transcripts=table["english"].to_list(),
        other_transcripts={"chinese": table["chinese"].to_list()},
        notes=[*PUBLIC_SETS[name].notes, f"the official split is not video-disjoint: {shared}"],
    )
