"""Recognise the published layouts, and fetch fields from them with errors that say what was found instead.

A wrong file is the commonest mistake (a CMU-MOSI file of one code base fed to another one): the message names the
layout that the file has and the command that reads it. Fields are found by any of the names that people use; what no
importer asked for is named, so that nothing is left out in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.errors import DataError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "val", "validation", "development"),
    "test": ("test", "testing"),
}

MODALITY_NAMES: dict[Modality, tuple[str, ...]] = {
    "text": ("text", "texts", "textual", "language", "lexical", "linguistic", "glove", "glove_vectors"),
    "audio": ("audio", "audios", "acoustic", "acoustics", "covarep", "speech", "sound", "opensmile"),
    "vision": ("vision", "visual", "visuals", "video", "videos", "facet", "openface", "image", "images", "face"),
}
"""What people call the modalities, in small letters."""


def _with(names: Iterable[str], *patterns: str) -> tuple[str, ...]:
    return tuple(pattern.format(name) for pattern in patterns for name in names)


_UNIMODAL = ("regression_labels_{}", "regression_label_{}", "labels_{}", "label_{}", "{}_labels", "{}_label")
_LENGTHS = ("{}_lengths", "{}_length", "{}_lens", "{}_len")
FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("id", "ids", "segment", "segments", "segment_id", "segment_ids", "sample_id", "utterance_id"),
    "labels": ("regression_labels", "labels", "label", "regression_label", *(p.format("m") for p in _UNIMODAL[:4])),
    "raw_text": ("raw_text", "raw_texts", "rawtext", "transcript", "transcripts", "transcription", "transcriptions"),
    "text_bert": ("text_bert", "bert_text", "token_ids", "bert_tokens"),
    **{m: _with(names, "{}", "{}_features", "{}_feature", "{}_feats") for m, names in MODALITY_NAMES.items()},
    **{f"{m}_lengths": _with(names, *_LENGTHS) for m, names in MODALITY_NAMES.items()},
    **{f"labels_{m}": _with((m[0] if m != "vision" else "v", *MODALITY_NAMES[m]), *_UNIMODAL) for m in MODALITIES},
}
"""Every field that importers know, and the names it is found by (small letters, words joined by ``_``)."""

_FIELD_OF = {name: key for key, names in FIELDS.items() for name in names}
_OWN_NAMES = {"regression_labels", "labels", *FIELDS, *(f"regression_labels_{letter}" for letter in "TAV")}
"""Spellings of the published layouts, which need no remark."""

CUT_VALID = "let whole videos of train become valid with --cut-valid 0.1 (in Python: cut_valid=0.1)"
"""The way out where a file has no validation split of its own."""

NOT_READ = "not read: "
"""How the note begins that names what an importer left out."""

DOUBT = "check: "
"""How a note begins on what was read and may be wrong or lost."""

CATEGORIES = ("annotations", "classification_labels")
"""Fields of the official files that are left out by default and do no harm."""


@dataclass(frozen=True)
class Layout:
    """A published layout: its name, the command that reads it, what it looks like in one line, its label field."""

    name: str
    command: str
    shape: str
    labels: str = "labels"


LAYOUTS = {
    "mmsa": Layout(
        "the MMSA layout",
        "mmsa-lib data import mmsa",
        "a dict train/valid/test of dicts with id, regression_labels, text, text_bert, audio, vision, ...",
        "regression_labels",
    ),
    "mult": Layout(
        "the MulT layout",
        "mmsa-lib data import mult",
        "a dict train/valid/test of dicts with text, audio, vision, labels and perhaps id",
    ),
    "mag": Layout(
        "the MAG-BERT layout",
        "mmsa-lib data import mag",
        "a dict train/dev/test of lists of ((words, visual, acoustic), label, segment)",
    ),
}


def field_of(name: Any) -> str | None:
    """The key in :data:`FIELDS` of a field or column that is called ``name``, or ``None``.

    >>> field_of("Visual"), field_of("label_T"), field_of("annotations")
    ('vision', 'labels_text', None)
    """
    return _FIELD_OF.get(spelling(as_name(name).strip()))


def spelling(name: str) -> str:
    """``name`` as tables of names hold it: in small letters, its words joined by ``_``."""
    return re.sub(r"[\s.-]+", "_", name.lower())


def as_name(key: Any) -> str:
    """A key of a dict as text: bytes are read as text, and anything else is printed."""
    return key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)


@dataclass
class Fields:
    """What a split (or a table) holds, to be taken out by the names of :data:`FIELDS`; what is left was not read.

    Attributes:
        part: names of the file to values; a field that is taken leaves, so that its memory can go once it was read.
        where: file and split, begins every message.
        expected: key in :data:`LAYOUTS` of the layout that is read.
        renamed: names of the file that stand for a field, where they are not those of the published layouts.
        left_out: fields that were taken and could not be used, with the reason.
    """

    part: dict[str, Any]
    where: str
    expected: str = "mmsa"
    renamed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        by_text = {as_name(key): value for key, value in self.part.items()}
        if len(by_text) < len(self.part):
            twice = next(name for name in by_text if [as_name(key) for key in self.part].count(name) > 1)
            raise DataError(f"{self.where}: has two keys {twice!r} (as text, bytes or a number); remove one of them")
        self.part = by_text
        self._names: dict[str, str] = {}
        for name in self.part:
            key = field_of(name)
            if key is None:
                continue
            if key in self._names:
                raise DataError(
                    f"{self.where}: has both {self._names[key]!r} and {name!r} for {key}; remove or rename one of them"
                )
            self._names[key] = name
            if name not in _OWN_NAMES:
                self.renamed[name] = key

    def __contains__(self, key: str) -> bool:
        return key in self._names

    def place(self, key: str) -> str:
        """File, split and the field's name in the file, to begin a message."""
        return f"{self.where} {self._names.get(key, key)}"

    def leave_out(self, key: str, reason: str) -> None:
        """Remember that the field ``key`` was taken and could not be used."""
        self.left_out.append(f"{self._names.get(key, key)} ({reason})")

    def take(self, key: str) -> Any:
        """Remove the field ``key`` and return it.

        Raises:
            DataError: there is no such field; names the ones there are.
        """
        if key not in self._names:
            layout = LAYOUTS[self.expected]
            name = layout.labels if key == "labels" else key
            found = ", ".join(list(self.part)[:20]) or "nothing"
            raise DataError(f"{self.where}: field {name!r} is missing, found {found}; {layout.name} is {layout.shape}")
        return self.part.pop(self._names[key])


def remarks_on(parts: Iterable[Fields], beside: Iterable[Any] = ()) -> list[str]:
    """Notes on all splits of a file, after they were read: which names were read as which field, and what was not.

    Args:
        parts: the splits, of which everything was taken that is read.
        beside: what the file holds beside its splits.
    """
    parts = list(parts)
    renamed = {name: key for part in parts for name, key in part.renamed.items()}
    left = [name for part in parts for name in (*part.part, *part.left_out)]
    return [*(f"{name!r} read as {key}" for name, key in renamed.items()), *not_read([*left, *beside])]


def not_read(names: Iterable[Any]) -> list[str]:
    """One note that names everything that was left out, with the reason where it is known; empty for nothing.

    Names that only differ in a number at their end are put together.
    """
    runs: dict[str, list[str]] = {}
    for name in dict.fromkeys(" ".join(as_name(name).split())[:80] for name in names):
        runs.setdefault(re.sub(r"\d+$", "#", name), []).append(name)
    told, harmless = [], [name for name in runs if name in CATEGORIES]
    for first, run in runs.items():
        if first not in CATEGORIES:
            told += [f"{run[0]} to {run[-1]} ({len(run)})"] if len(run) > 3 else run
    if harmless:
        told.append(f"{' and '.join(harmless)} (categories follow from the labels; --classes reads them)")
    return [NOT_READ + ", ".join(told)] if told else []


def recognise(tree: Any) -> str | None:
    """The key in :data:`LAYOUTS` of the layout that a loaded pickle has, or ``None``."""
    parts = [part for part in _find_splits(tree).values() if isinstance(part, Mapping) or _samples(part)]
    parts = [part for part in parts if len(part)]
    if not parts:
        return None
    if isinstance(parts[0], Mapping):
        return _recognise_fields(parts[0])
    return "mag" if _is_sample(parts[0][0]) else None


def _recognise_fields(part: Mapping[Any, Any]) -> str | None:
    found, names = {field_of(key) for key in part}, {as_name(key).lower() for key in part}
    lengths = {f"{m}_lengths" for m in MODALITIES} | {f"labels_{m}" for m in MODALITIES}
    if {"raw_text", "text_bert", *lengths} & found or {"regression_labels", "classification_labels"} & names:
        return "mmsa"
    return "mult" if "labels" in found else None


def _samples(part: Any) -> bool:
    return isinstance(part, list | tuple) or (isinstance(part, np.ndarray) and part.ndim > 0)


def _is_sample(sample: Any) -> bool:
    """Whether it may be ((words, visual, acoustic, ...), label, segment)."""
    return _samples(sample) and len(sample) == 3 and _samples(sample[0]) and len(sample[0]) in (3, 4, 6)


def splits_of(tree: Any, expected: str, path: Path, cut_valid: float = 0) -> dict[str, Any]:
    """The three splits of a pickle that must have the layout ``expected``.

    Args:
        cut_valid: not 0 where ``valid`` will be cut from ``train`` (:func:`mmsa_lib.data.sources.folds.with_valid`), so
            that the file must have none.

    Returns:
        ``train``, ``valid`` and ``test`` (without ``valid`` where it will be cut), whatever the file calls them.

    Raises:
        DataError: the pickle has another layout, a split is missing or empty, or two splits are the same.
    """
    found, layout = recognise(tree), LAYOUTS[expected]
    if found is not None and found != expected:
        other = LAYOUTS[found]
        raise DataError(f"{path}: this looks like {other.name}, not {layout.name}; use: {other.command} {path}")
    if found is None:
        unknown = f"not in {layout.name}; expected {layout.shape}, found {describe(tree)}"
        raise DataError(f"{path}: {_not_a_set(tree) or unknown}")
    splits = _find_splits(tree)
    for split, names in SPLIT_NAMES.items():
        found = [as_name(key) for key, part in tree.items() if as_name(key).lower() in names and part is not None]
        if len(found) > 1:
            raise DataError(f"{path}: has both {found[0]!r} and {found[1]!r} for {split}; remove or rename one of them")
    if cut_valid and not _is_empty(splits.get("valid", [])):
        raise DataError(f"{path}: has a split valid already; leave out --cut-valid")
    if cut_valid:
        splits.pop("valid", None)
    for split, names in SPLIT_NAMES.items():
        if split not in splits and not (split == "valid" and cut_valid):
            hint = f"; {CUT_VALID}" if split == "valid" else ""
            found = f"(looked for {', '.join(names)}), found {describe(tree)}"
            raise DataError(f"{path}: split {split} is missing {found}{hint}")
    for split, part in splits.items():
        if not (_samples(part) if expected == "mag" else isinstance(part, Mapping)):
            raise DataError(f"{path}: split {split} is {describe(part)}; {layout.name} is {layout.shape}")
    for one, other in combinations(splits, 2):
        if len(splits[one]) and _same(_content(splits[one]), _content(splits[other])):
            remedy = f"remove valid and {CUT_VALID}" if "valid" in (one, other) else "give each samples of its own"
            raise DataError(f"{path}: splits {one} and {other} hold the same samples; {remedy}")
    return splits


def beside_splits(tree: Mapping[Any, Any]) -> list[str]:
    """What a file holds beside its splits."""
    known = {name for names in SPLIT_NAMES.values() for name in names}
    return [as_name(key) for key in tree if as_name(key).lower() not in known]


def open_splits(tree: Any, expected: str, path: Path, cut_valid: float = 0) -> tuple[dict[str, Fields], list[str]]:
    """The fields of the splits of a pickle of dicts, and the names of what lies beside them.

    Arguments as for :func:`splits_of`.

    Raises:
        DataError: as :func:`splits_of`, or a split has two names for one field.
    """
    splits = splits_of(tree, expected, path, cut_valid)
    fields = {split: Fields(part, f"{path} [{split}]", expected) for split, part in splits.items()}
    return fields, beside_splits(tree)


def _not_a_set(tree: Any) -> str:
    """What a pickle seems to be that is no data set of three splits, and the way out; empty where unknown."""
    combine = "pickle.dump({'train': train, 'valid': valid, 'test': test}, file)"
    if _samples(tree) and len(tree) and _is_sample(tree[0]):
        return f"this is one split alone (a list of {len(tree)} samples); put the three into one file: {combine}"
    if isinstance(tree, Mapping) and not _find_splits(tree):
        found = {field_of(key): value for key, value in tree.items()}
        if _samples(found.get("labels")) and len(found["labels"]) > 1:
            return f"this is one split alone ({describe(tree)}); put the three into one file: {combine}"
        if {*MODALITIES, "raw_text", "text_bert"} & found.keys():
            return (
                f"these are the features of a single sample ({describe(tree)}), as run_single of MMSA-FET writes them; "
                "a data set needs labelled samples in train, valid and test: use its run_dataset on all your videos"
            )
    return ""


def _is_empty(part: Any) -> bool:
    """Whether a split holds no sample."""
    if isinstance(part, Mapping):
        return all(map(_is_empty, part.values()))
    if isinstance(part, np.ndarray):
        return part.size == 0
    return isinstance(part, list | tuple) and not part


def _content(part: Any) -> Any:
    """A split without its ids."""
    return {key: value for key, value in part.items() if field_of(key) != "id"} if isinstance(part, Mapping) else part


def _same(one: Any, other: Any) -> bool:
    """Whether two pieces of plain data are equal, a NaN being equal to a NaN."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.dtype == object:
            return all(map(_same, one.reshape(-1), other.reshape(-1)))
        return bool(((one == other) | ((one != one) & (other != other))).all())
    return bool(one == other) or bool(one != one and other != other)


def check_sizes(sizes: tuple[int, ...], path: Path, splits: Iterable[str] = tuple(SPLIT_NAMES)) -> None:
    """Raise where one of the ``splits`` has no sample."""
    for split, size in zip(splits, sizes, strict=True):
        if size == 0:
            hint = f"; {CUT_VALID}" if split == "valid" else ""
            raise DataError(f"{path}: split {split} is empty; all of train, valid and test need samples{hint}")


def describe(tree: Any) -> str:
    """What a loaded pickle holds, in a few words."""
    if isinstance(tree, Mapping):
        names = ", ".join(as_name(key)[:40] for key in list(tree)[:8])
        first = next(iter(tree.values()), None)
        is_dict = isinstance(first, Mapping)
        inner = f" of dicts with {', '.join(as_name(key)[:40] for key in list(first)[:8])}" if is_dict else ""
        return f"a dict with the keys {names}{inner}" if names else "an empty dict"
    if isinstance(tree, np.ndarray):
        return f"an array of shape {tree.shape} and type {tree.dtype}"
    if isinstance(tree, list | tuple):
        return f"a {type(tree).__name__} of {len(tree)} entries"
    return f"a single {type(tree).__name__}"


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: None, NaN, NaT, pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    return isinstance(value, float | np.floating) and math.isnan(value)


def texts(values: Any, where: str, repairs: Repairs | None = None) -> list[str]:
    """A column of texts: a list or an array of str, bytes, lists of words or numbers.

    What is missing (None, NaN) becomes an empty text. Bytes are UTF-8, else Western European (cp1252) where that is
    plausible. A list of words is joined by blanks; a number is printed. All but plain text and UTF-8 is counted.

    Args:
        values: the column.
        where: file and field, begins every message.
        repairs: counts, under the field's name (the last word of ``where``), what was not plain text.

    Raises:
        DataError: no column, or an entry that is no text; names the row.
    """
    name, repairs = where.rpartition(" ")[2], repairs or Repairs()
    return [_text(value, name, f"{where}: row {row}", repairs) for row, value in enumerate(entries_of(values, where))]


def entries_of(values: Any, where: str) -> list[Any]:
    """The entries of a column, ``(N,)`` or ``(N, 1)``; of a wider array its rows."""
    if isinstance(values, np.ndarray) and values.ndim > 0:
        return values.reshape(-1).tolist() if values.size == len(values) else list(values)
    if not isinstance(values, list | tuple):
        raise DataError(f"{where}: expected a list or an array with one entry per sample, found {describe(values)}")
    return list(values)


def _text(value: Any, name: str, where: str, repairs: Repairs) -> str:
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        repairs.count(f"{name}: missing, left empty", 1)
        return ""
    if isinstance(value, bytes | bytearray):
        return _decoded(bytes(value), name, where, repairs)
    if isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isreal(value):
        repairs.count(f"{name}: number, read as text", 1)
        return str(value)
    if isinstance(value, list | tuple | np.ndarray):
        words = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
        if all(isinstance(word, str | bytes) or is_missing(word) for word in words):
            joined = " ".join(filter(None, [_text(word, f"{name} (words)", where, repairs) for word in words]))
            repairs.count(f"{name}: list of words, joined by blanks" if joined else f"{name}: missing, left empty", 1)
            return joined
    raise DataError(f"{where} is {describe(value)}, which is no text; give one text per sample")


def _decoded(raw: bytes, name: str, where: str, repairs: Repairs) -> str:
    """UTF-8, else cp1252 where each special character stands alone; two together may be half of a Chinese text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        if re.search(rb"[\x80-\xff]{2}", raw):
            raise UnicodeError("not UTF-8")
        text = raw.decode("cp1252")
    except UnicodeError as error:
        raise DataError(f"{where} holds bytes that are not UTF-8 ({raw[:20]!r}); decode them before saving") from error
    repairs.count(f"{name}: bytes that are not UTF-8, read as cp1252", 1)
    return text


def column(values: Any, count: int, where: str, repairs: Repairs | None = None) -> list[str]:
    """:func:`texts` with one entry for each of ``count`` samples.

    Raises:
        DataError: another number of entries.
    """
    found = texts(values, where, repairs)
    if len(found) != count:
        raise DataError(f"{where}: {len(found)} entries for {count} samples; the file is damaged or mixed up")
    return found


def names_of(values: Any, where: str) -> list[str]:
    """A column of ids: text, bytes in UTF-8 or whole numbers.

    Raises:
        DataError: an id is missing, empty or nothing of these; names the row.
    """
    return [_name(value, f"{where}: row {row}") for row, value in enumerate(entries_of(values, where))]


def _name(value: Any, where: str) -> str:
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        value = _decoded(value, "", where, Repairs())
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where} has an empty id ({value!r}); give every sample an id")
    if not isinstance(value, str):
        raise DataError(f"{where}: the id is {describe(value)}; give every sample a text or a whole number")
    return str(value)


def distinct_ids(ids: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The ids of the splits; numbers that begin again in each split get its name before them, and a remark says so."""
    counted = [sorted(int(name) for name in of_split if name.isdecimal()) for of_split in ids.values()]
    starts = {numbers[0] if numbers else None for numbers in counted}
    if len(starts) > 1 or None in starts or not starts <= {0, 1}:
        return dict(ids), []
    start = starts.pop()
    if any(n != list(range(start, start + len(of))) for n, of in zip(counted, ids.values(), strict=True)):
        return dict(ids), []
    named = {split: [f"{split}_{name}" for name in of_split] for split, of_split in ids.items()}
    return named, [f"ids are numbers that begin at {start} in each split: read as <split>_<id>"]


def has_values(values: Any) -> bool:
    """Whether a field holds anything but nothing: None, NaN, empty texts, empty lists."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biufc":
        return bool(values.size) and not bool((values != values).all())
    if isinstance(values, np.ndarray):
        return any(map(has_values, values.flat))
    if isinstance(values, list | tuple):
        return any(map(has_values, values))
    return bool(values.strip()) if isinstance(values, str | bytes) else not is_missing(values)


def _find_splits(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {}
    by_name = {as_name(key).lower(): value for key, value in tree.items() if value is not None}
    return {split: by_name[name] for split, names in SPLIT_NAMES.items() for name in reversed(names) if name in by_name}
