"""``mmsa-lib data check``: what breaks training, samples that lie in two splits, and what is worth knowing."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

from mmsa_lib.data.problems import SPLITS, Problem, blocking_problems
from mmsa_lib.data.record import DatasetRecord
from mmsa_lib.data.store import changed_parts, read_store

MANY = 4
"""From so many samples on, and a quarter of the split, a warning says that they lack a modality."""


def check_store(path: Path | str) -> list[Problem]:
    """All errors and warnings of a store.

    Raises:
        DataError: the file is not a store, is truncated or can't be read at all.
    """
    record = read_store(path, validate=False)
    problems, changed = check_record(record), changed_parts(path, record)
    if changed:
        what = f"{', '.join(changed)} changed since the store was written"
        problems.insert(0, Problem("error", "fingerprint", what, "build or import the data set again"))
    return problems


def check_record(record: DatasetRecord) -> list[Problem]:
    """All errors and warnings of ``record``; duplicates and warnings are looked for only where nothing is broken."""
    errors = blocking_problems(record)
    return errors or [*duplicate_problems(record), *warnings_of(record)]


def duplicate_problems(record: DatasetRecord) -> Iterator[Problem]:
    """Samples that occur in two splits of a fold.

    Equal audio and vision features are an error: that is one recording twice. Equal transcripts with equal labels are a
    warning, since short utterances ("thank you") do recur. A video with samples in several splits is a warning, since
    the official CH-SIMS splits have such videos.
    """
    recordings = _recording_keys(record)
    texts = [(t.strip(), record.labels[i].tobytes()) for i, t in enumerate(record.transcripts or [])]
    for fold, splits in record.folds.items():
        where = f"folds/{fold}"
        for pair, shared, names in _shared(splits, recordings, record.ids):
            what = f"{shared} recordings are in both {pair} (equal audio and vision features), for instance {names}"
            yield Problem("error", where, what, "keep each recording in one split")
        for pair, shared, names in _shared(splits, texts, record.ids):
            what = f"{shared} transcripts with equal labels are in both {pair}, for instance {names}"
            yield Problem("warning", where, what, "remove them from one split if they are the same recording")
        for pair, shared, names in _shared(splits, record.groups, record.ids):
            what = f"{shared} videos have samples in both {pair}, for instance {names}"
            yield Problem("warning", where, what, "split by video if the split is yours; report it if it is official")


def warnings_of(record: DatasetRecord) -> Iterator[Problem]:
    """Odd labels, modalities that many samples lack, constant columns, zero samples, empty transcripts."""
    yield from _label_warnings(record)
    for name, features in record.features.items():
        where = f"features/{name}"
        seen = features.values[np.asarray(features.observed, bool)]
        if len(seen) == 0:
            yield Problem("warning", where, "no frame is observed", "leave this feature set out")
            continue
        absent = ~_any(features.observed, features.offsets)
        for what in _lost(absent, record.folds):
            yield Problem("warning", where, what, "see that no file or array was lost")
        constant = int((seen.min(axis=0) == seen.max(axis=0)).sum())
        if constant:
            what = f"{constant} of {features.width} columns are constant"
            yield Problem("warning", where, what, "they carry nothing; drop them if they are not expected")
        zero = _all_zero(features.values.any(axis=1), features.offsets) & _any(features.observed, features.offsets)
        if zero.any():
            what = f"{int(zero.sum())} samples are observed but all zero, first {record.ids[int(zero.argmax())]!r}"
            yield Problem("warning", where, what, "mark them as not observed if they are missing")
    empty = [name for name, text in zip(record.ids, record.transcripts or [], strict=False) if not text.strip()]
    if empty:
        what = f"{len(empty)} transcripts are empty, first {empty[0]!r}"
        yield Problem("warning", "transcripts", what, "these samples count as text-missing")
    for what in _lost(np.array([not text.strip() for text in record.transcripts or []]), record.folds):
        yield Problem("warning", "transcripts", what, "see that no text was lost")


def _lost(absent: np.ndarray, folds: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What to say of the splits (of the first fold) that a modality is absent from as a whole or in great part."""
    splits = np.asarray(next(iter(folds.values()), []))
    for split in SPLITS if len(absent) else ():
        count, size = int(absent[splits == split].sum()), int((splits == split).sum())
        if count and (count == size or (count >= MANY and count >= size / 4)):
            yield f"missing for {'all ' if count == size else f'{count} of '}{size} samples of split {split}"


def _label_warnings(record: DatasetRecord) -> Iterator[Problem]:
    """Labels on one side of neutral, of few values, or a class that never (or always) occurs."""
    task = record.task
    if task.kind != "regression":
        shown = record.labels if task.kind == "emotions" else record.labels[:, None] == np.arange(len(task.names))
        always, never = shown.astype(bool).all(axis=0), ~shown.astype(bool).any(axis=0)
        for name in (name for name, odd in zip(task.names, always | never, strict=True) if odd):
            what = f"{name!r} is {'true of every sample' if always[task.names.index(name)] else 'never true'}"
            yield Problem("warning", "labels", what, "its metrics are not defined; check names and order of the labels")
        return
    distinct = np.unique(record.labels)
    repair = "if they are classes, import again with --emotions NAME or --classes NAME ..."
    low, high = task.range
    if len(distinct) == 1:
        yield Problem("warning", "labels", f"all labels are {distinct[0]:g}", "there is nothing to learn")
    elif len(distinct) == 2 or set(distinct) == {-1, 0, 1}:
        values = ", ".join(f"{value:g}" for value in distinct)
        yield Problem("warning", "labels", f"the labels take {len(distinct)} values only ({values})", repair)
    elif not (distinct < task.center).any() or not (distinct > task.center).any():
        side = "below" if (distinct > task.center).any() else "above"
        what = f"no label lies {side} {task.center:g}, the middle of [{low:g}, {high:g}]"
        repair = "give the range that they have (--range LOW HIGH) if it is another one, or see --classes"
        yield Problem("warning", "labels", what, f"metrics of two classes are not defined; {repair}")


def _shared(splits: np.ndarray, keys: list[Hashable], ids: list[str]) -> Iterator[tuple[str, int, str]]:
    """Per pair of splits: how many distinct keys occur in both, and one pair of ids as an example."""
    first: dict[str, dict[Hashable, str]] = {split: {} for split in SPLITS}
    for split, key, name in zip(splits, keys, ids, strict=False):
        if split and key is not None:
            first[str(split)].setdefault(key, name)
    for one, other in combinations(SPLITS, 2):
        common = [key for key in first[one] if key in first[other]]
        if common:
            example = f"{first[one][common[0]]!r} and {first[other][common[0]]!r}"
            yield f"{one} and {other}", len(common), example


def _recording_keys(record: DatasetRecord) -> list[bytes | None]:
    """A digest of all audio and vision features of each sample; ``None`` where there is nothing to compare."""
    sets = [(f, f.offsets) for f in record.features.values() if f.modality != "text"]
    keys: list[bytes | None] = []
    for i in range(len(record)):
        rows = [np.ascontiguousarray(f.values[offsets[i] : offsets[i + 1]]) for f, offsets in sets]
        digest = hashlib.sha256(b"".join(values.tobytes() for values in rows)).digest()
        keys.append(digest if any(values.any() for values in rows) else None)
    return keys


def _any(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Per sample, whether any of its frames is flagged; every sample has at least one frame."""
    return np.logical_or.reduceat(np.asarray(flags, bool), offsets[:-1])


def _all_zero(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return ~_any(flags, offsets)
