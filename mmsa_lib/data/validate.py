"""What is wrong with a data set, or worth knowing of it: where it is, what it is, and how to repair it.

Errors would break or silently falsify training: a data set that has one is neither written nor read. Warnings are what
``mmsa-lib data check`` tells besides, with samples that lie in two splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from mmsa_lib.data.record import COMPUTED_TEXT, MODALITIES, SPLITS, DatasetRecord, FeatureSet
from mmsa_lib.errors import DataError

MANY = 4
"""From so many samples on, and a quarter of the split, a warning says that they lack a modality."""

Found = Iterator[tuple[str, str, str]]
"""Where, what and how to repair it, of each problem."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and how to repair it."""

    severity: Literal["error", "warning"]
    where: str
    what: str
    repair: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.repair}" if self.repair else "")


def check_record(record: DatasetRecord) -> list[Problem]:
    """All errors and warnings of ``record``; duplicates and warnings are looked for only where nothing is broken."""
    errors = blocking_problems(record)
    return errors or [*duplicate_problems(record), *(Problem("warning", *found) for found in _warnings(record))]


def refuse_problems(record: DatasetRecord, place: str, *, values: bool = True) -> None:
    """Raise the first problem that would break training, in one line.

    Args:
        record: what to look at.
        place: file or data set to name in the message.
        values: look at the values of features too, run of rows by run of rows.

    Raises:
        DataError: shapes disagree, a value is not finite, a label is out of range, a split is missing, ...
    """
    problems = blocking_problems(record, values=values)
    if problems:
        more = f" ({len(problems) - 1} more: mmsa-lib data check {place})" if len(problems) > 1 else ""
        raise DataError(f"{place}: {problems[0]}{more}")


def blocking_problems(record: DatasetRecord, *, values: bool = True) -> list[Problem]:
    """The errors that would break training: shapes first, and only where all agree the values."""
    shapes = list(_shapes(record))
    found = shapes or [*_labels(record), *_folds(record), *_features(record, values), *_rest(record)]
    return [Problem("error", *each) for each in found]


def is_sound(values: np.ndarray, observed: np.ndarray) -> bool:
    """Whether frames ``(n, d)`` are finite, and zero where they are not ``observed`` ``(n,)``."""
    return bool(np.isfinite(values).all()) and not values[~np.asarray(observed, bool)].any()


def _shapes(record: DatasetRecord) -> Found:
    """Do all parts have one entry per sample?"""
    count = len(record.ids)
    if count == 0:
        yield "ids", "there are no samples", "choose a file that holds some"
    columns = (len(record.task.names),) if record.task.kind == "emotions" else ()
    arrays = {"labels": (record.labels, (count, *columns))}
    arrays |= {f"folds/{name}": (splits, (count,)) for name, splits in record.folds.items()}
    arrays |= {f"unimodal_labels/{m}": (values, (count,)) for m, values in record.unimodal_labels.items()}
    arrays |= {f"factors/{name}": (values, (count, "k")) for name, values in record.factors.items()}
    arrays |= {"times": (record.times, (count, 2))} if record.times is not None else {}
    for where, (values, shape) in arrays.items():
        found = np.shape(values)
        if len(found) != len(shape) or any(
            wanted not in ("k", size) for size, wanted in zip(found, shape, strict=True)
        ):
            expected = str(shape).replace("'", "")
            yield where, f"shape {found}, expected {expected}", "give one entry per sample"
        elif not where.startswith("folds/") and not _numeric(values):
            yield where, f"holds values of type {_type(values)}", "give numbers"
    texts = {"groups": record.groups, "transcripts": record.transcripts}
    texts |= {f"other_transcripts/{language}": texts for language, texts in record.other_transcripts.items()}
    for where, values in texts.items():
        if values is not None and len(values) != count:
            yield where, f"{len(values)} entries for {count} samples", "give one entry per sample"
    for name, features in record.features.items():
        yield from _feature_shapes(f"features/{name}", features, count)
    yield from _word_shapes(record, count)


def _feature_shapes(where: str, features: FeatureSet, count: int) -> Found:
    lengths, observed = np.asarray(features.lengths), np.asarray(features.observed)
    if features.modality not in MODALITIES:
        yield where, f"modality {features.modality!r}", f"use one of {', '.join(MODALITIES)}"
    if np.ndim(features.values) != 2 or np.shape(features.values)[1] == 0:
        yield where, f"values have shape {np.shape(features.values)}, expected (frames, width)", "reshape them"
    elif not _numeric(features.values):
        yield where, f"values are of type {_type(features.values)}", "give numbers"
    elif lengths.shape != (count,):
        yield where, f"{lengths.size} lengths for {count} samples", "give every sample a length (1 where it is missing)"
    elif lengths.dtype.kind not in "iu":
        yield where, f"lengths are of type {lengths.dtype}", "give whole numbers"
    elif observed.ndim != 1 or observed.dtype.kind not in "biu":
        yield where, f"observed has shape {observed.shape} and type {observed.dtype}", "give one truth value per frame"
    elif lengths.min(initial=1) < 1:
        yield where, f"a length of {lengths.min()}", "keep one frame that is not observed where nothing is there"
    elif int(lengths.sum()) != len(features.values) or len(features.observed) != len(features.values):
        what = f"lengths add up to {int(lengths.sum())}, values have {len(features.values)} rows, observed has "
        yield where, f"{what}{len(features.observed)}", "make the three agree (the file was cut short or mixed up)"


def _type(values: np.ndarray) -> np.dtype:
    """The type of an array, which may lie in a file."""
    return values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype


def _numeric(values: np.ndarray) -> bool:
    return _type(values).kind in "biuf"


def _word_shapes(record: DatasetRecord, count: int) -> Found:
    if record.words is not None:
        words = record.words
        offset, interval = np.asarray(words.offset), np.asarray(words.interval)
        if (
            offset.dtype.kind not in "iu"
            or offset.shape != (count + 1,)
            or offset[0] != 0
            or (np.diff(offset) < 0).any()
            or offset[-1] != len(words.word)
        ):
            yield "words", "offsets don't cut the words into one run per sample", "rebuild the word table"
        elif interval.shape != (len(words.word), 2) or not _numeric(interval):
            what = f"intervals have shape {interval.shape} and type {interval.dtype}"
            yield "words", what, f"expected numbers ({len(words.word)}, 2)"
    if record.token_ids is not None:
        ids, valid = np.asarray(record.token_ids.ids), np.asarray(record.token_ids.valid)
        if ids.ndim != 2 or len(ids) != count or ids.shape != valid.shape:
            yield "token_ids", f"ids {ids.shape} and valid {valid.shape}", f"give both the shape ({count}, L)"
        elif ids.dtype.kind not in "iu" or valid.dtype.kind not in "biu":
            yield "token_ids", f"ids are of type {ids.dtype} and valid of {valid.dtype}", "give whole numbers"


def _labels(record: DatasetRecord) -> Found:
    kind, names = record.task.kind, record.task.names
    if kind == "regression":
        low, high = record.task.range
        columns = {"labels": record.labels}
        columns |= {f"unimodal_labels/{m}": values for m, values in record.unimodal_labels.items()}
        for where, labels in columns.items():
            wrong = np.flatnonzero(~((labels >= low) & (labels <= high)))  # a NaN is out of range too
            if len(wrong):
                what = f"{len(wrong)} labels are outside [{low:g}, {high:g}], first {labels[wrong[0]]:g} of sample "
                yield where, f"{what}{record.ids[wrong[0]]!r}", "correct them or the task's range"
        return
    wrong = np.argwhere(~np.isin(record.labels, np.arange(len(names)) if kind == "classes" else (0, 1)))
    if len(wrong) and kind == "classes":
        first = f"first {record.labels[wrong[0, 0]]:g} of sample {record.ids[wrong[0, 0]]!r}"
        yield "labels", f"{len(wrong)} labels are no class ids 0 to {len(names) - 1}, {first}", "correct them"
    elif len(wrong):
        first = f"first {names[wrong[0, 1]]!r} of sample {record.ids[wrong[0, 0]]!r}"
        yield "labels", f"{len(wrong)} labels are neither 0 nor 1, {first}", "turn them into 0 or 1"


def _folds(record: DatasetRecord) -> Found:
    if not record.folds:
        yield "folds", "there is no fold", "assign every sample to train, valid or test"
    for name, splits in record.folds.items():
        unknown = sorted(set(map(str, splits)) - {*SPLITS, ""})
        missing = [split for split in SPLITS if not (np.asarray(splits) == split).any()]
        if unknown:
            repair = "use train, valid, test, or nothing for unused samples"
            yield f"folds/{name}", f"unknown split {unknown[0]!r}", repair
        elif missing:
            yield f"folds/{name}", f"no sample in {' and '.join(missing)}", "assign some samples (whole videos) to it"
    for fold, chosen in record.defaults.items():
        if fold != "*" and fold not in record.folds:
            yield "defaults", f"unknown fold {fold!r}", f"known: {', '.join(record.folds)}"
        for modality, name in chosen.items():
            computed = modality == "text" and name in COMPUTED_TEXT
            if not computed and name not in record.features:
                yield "defaults", f"{modality} of fold {fold!r} is {name!r}, which is not here", "name a feature set"
            elif computed and record.transcripts is None and record.token_ids is None:
                yield "defaults", f"text {name!r} needs transcripts, and there are none", "add them or drop the default"


def _features(record: DatasetRecord, look: bool) -> Found:
    """Values that are not finite or not observed and yet not zero, where ``look``; and wrong remarks."""
    for name, features in record.features.items():
        where, bad, hidden = f"features/{name}", [], []
        for samples, values in features.blocks() if look else ():
            start = int(features.offsets[samples.start])
            seen = np.asarray(features.observed[start : start + len(values)], bool)
            if not is_sound(values, seen):
                bad.extend(start + np.flatnonzero(~np.isfinite(values).all(axis=1)))
                hidden.extend(start + np.flatnonzero(~seen & values.any(axis=1)))
        if bad:
            what = (
                f"{len(bad)} frames hold NaN or infinite values, first in sample {_sample_of(record, name, bad[0])!r}"
            )
            yield where, what, "set such frames to 0 and mark them as not observed (data import does this)"
            continue
        if hidden:
            first = _sample_of(record, name, hidden[0])
            what = f"{len(hidden)} frames are not observed and yet not zero, first in sample {first!r}"
            yield where, what, "set them to 0 or mark them as observed"
        trained_on = features.label_trained_on.split(":")
        if trained_on != [""] and (len(trained_on) != 2 or trained_on[0] not in record.folds):
            what = f"label_trained_on is {features.label_trained_on!r}"
            yield where, what, f"write it as FOLD:SPLIT with a fold of {', '.join(record.folds)}"


def _sample_of(record: DatasetRecord, name: str, frame: int) -> str:
    return record.ids[int(np.searchsorted(record.features[name].offsets, frame, side="right")) - 1]


def _rest(record: DatasetRecord) -> Found:
    seen: set[str] = set()
    twice = [name for name in record.ids if name in seen or seen.add(name)]
    if twice:
        rows = [row for row, name in enumerate(record.ids) if name == twice[0]]
        splits = {
            fold: ", ".join(str(names[row]) or "no split" for row in rows) for fold, names in record.folds.items()
        }
        found = "; ".join(f"in {where} of fold {fold}" for fold, where in splits.items())
        yield "ids", f"{len(twice)} ids are used twice, first {twice[0]!r} ({found})", "make every id unique"
    numbers = {f"factors/{name}": values for name, values in record.factors.items()}
    numbers |= {"times": record.times} if record.times is not None else {}
    numbers |= {"words": record.words.interval} if record.words is not None else {}
    for where, values in numbers.items():
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            yield where, f"{count} values are NaN or infinite", "leave the part out or mend it"
    for where, texts in [("ids", record.ids), ("groups", record.groups), ("transcripts", record.transcripts or [])]:
        whole = "".join(texts)
        sound = _storable(whole) and "\0" not in whole
        wrong = None if sound else next((i for i, text in enumerate(texts) if not _storable(text)), None)
        if wrong is not None:
            yield where, f"the text of sample {record.ids[wrong]!r} is not valid Unicode", "correct it"


def _storable(text: str) -> bool:
    """Whether HDF5 can hold ``text``: without lone surrogates, and without a NUL at its end, which would be lost."""
    try:
        return not text.encode("utf-8").endswith(b"\0")
    except UnicodeEncodeError:
        return False


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


def _warnings(record: DatasetRecord) -> Found:
    """Odd labels, modalities that many samples lack, constant columns, zero samples, empty transcripts."""
    yield from _label_warnings(record)
    for name, features in record.features.items():
        where, observed = f"features/{name}", np.asarray(features.observed, bool)
        seen, present = features.values[observed], features.any_frame(observed)
        if len(seen) == 0:
            yield where, "no frame is observed", "leave this feature set out"
            continue
        for what in _lost(~present, record.folds):
            yield where, what, "see that no file or array was lost"
        constant = int((seen.min(axis=0) == seen.max(axis=0)).sum())
        if constant:
            what = f"{constant} of {features.width} columns are constant"
            yield where, what, "they carry nothing; drop them if they are not expected"
        zero = present & ~features.any_frame(features.values.any(axis=1))
        if zero.any():
            what = f"{int(zero.sum())} samples are observed but all zero, first {record.ids[int(zero.argmax())]!r}"
            yield where, what, "mark them as not observed if they are missing"
    blank = np.array([not text.strip() for text in record.transcripts or []])
    if blank.any():
        what = f"{int(blank.sum())} transcripts are empty, first {record.ids[int(blank.argmax())]!r}"
        yield "transcripts", what, "these samples count as text-missing"
    for what in _lost(blank, record.folds):
        yield "transcripts", what, "see that no text was lost"


def _lost(absent: np.ndarray, folds: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What to say of the splits (of the first fold) that a modality is absent from as a whole or in great part."""
    splits = np.asarray(next(iter(folds.values()), []))
    for split in SPLITS if len(absent) else ():
        count, size = int(absent[splits == split].sum()), int((splits == split).sum())
        if count and (count == size or (count >= MANY and count >= size / 4)):
            yield f"missing for {'all ' if count == size else f'{count} of '}{size} samples of split {split}"


def _label_warnings(record: DatasetRecord) -> Found:
    """Labels on one side of neutral, of few values, or a class that never (or always) occurs."""
    task = record.task
    if task.kind != "regression":
        shown = record.labels if task.kind == "emotions" else record.labels[:, None] == np.arange(len(task.names))
        always, never = shown.astype(bool).all(axis=0), ~shown.astype(bool).any(axis=0)
        for name in (name for name, odd in zip(task.names, always | never, strict=True) if odd):
            what = f"{name!r} is {'true of every sample' if always[task.names.index(name)] else 'never true'}"
            yield "labels", what, "its metrics are not defined; check names and order of the labels"
        for fold, splits in record.folds.items():
            unlearned = ~shown[np.asarray(splits) == "train"].astype(bool).any(axis=0) & ~never
            if unlearned.any():
                names = ", ".join(repr(name) for name, odd in zip(task.names, unlearned, strict=True) if odd)
                yield f"folds/{fold}", f"no sample of train is {names}", "nobody can learn that; cut other splits"
        return
    distinct = np.unique(record.labels)
    repair = "if they are classes, import again with --emotions NAME or --classes NAME ..."
    low, high = task.range
    if len(distinct) == 1:
        yield "labels", f"all labels are {distinct[0]:g}", "there is nothing to learn"
    elif len(distinct) == 2 or set(distinct) == {-1, 0, 1}:
        values = ", ".join(f"{value:g}" for value in distinct)
        yield "labels", f"the labels take {len(distinct)} values only ({values})", repair
    elif not (distinct < task.center).any() or not (distinct > task.center).any():
        side = "below" if (distinct > task.center).any() else "above"
        what = f"no label lies {side} {task.center:g}, the middle of [{low:g}, {high:g}]"
        repair = "give the range that they have (--range LOW HIGH) if it is another one, or see --classes"
        yield "labels", what, f"metrics of two classes are not defined; {repair}"
    elif (farthest := float(np.abs(distinct - task.center).max())) <= (high - low) / 6:
        what = f"no label lies farther than {farthest:.3g} from {task.center:g}, the middle of [{low:g}, {high:g}]"
        yield "labels", what, "give the range that they have (--range LOW HIGH) if it is another one"


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
