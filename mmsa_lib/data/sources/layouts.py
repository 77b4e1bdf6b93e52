"""Recognise the published layouts, and fetch fields from them with errors that say what was found instead.

A wrong file is the commonest mistake (a CMU-MOSI file of one code base fed to another one): the message names the
layout that the file has and the command that reads it. Fields are found by any of the names that people use; what no
importer asked for is named, so that nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmsa_lib.data.record import MODALITIES, Modality
from mmsa_lib.data.sources.columns import as_name, describe
from mmsa_lib.errors import DataError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "val", "validation", "development"),
    "test": ("test", "testing"),
}
SPLIT_OF = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}

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

CATEGORIES = ("classification_labels", "annotations")
"""Fields of the official files that are left out by default and do no harm."""


class OtherLayout(DataError):
    """A pickle has another layout than the one that was asked for: ``layout``, "table" where it is no published one."""

    def __init__(self, message: str, layout: str):
        super().__init__(message)
        self.layout = layout


class Layout(NamedTuple):
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


class Fields:
    """What a split (or a table) holds, to be taken out by its key; what is left was not read.

    Args:
        part: names of the file to values; a field that is taken leaves, so that its memory can go once it was read.
        where: file and split, begins every message.
        expected: key in :data:`LAYOUTS` of the layout that is read.
        key_of: the key of a name and its values, or ``None``.
        own: for tables, key to its own name where that differs; where several names have one key, the field of that
            name is taken and the others are left, instead of being refused.

    Attributes:
        renamed: names of the file that stand for a field, where they are not those of the published layouts.
        left_out: fields that were taken and could not be used, with the reason.

    Raises:
        DataError: two names have one key.
    """

    def __init__(
        self,
        part: Mapping[Any, Any],
        where: str,
        expected: str = "mmsa",
        key_of: Callable[[str, Any], str | None] = lambda name, _: field_of(name),
        own: Mapping[str, str] | None = None,
    ):
        self.where, self.expected = where, expected
        self.part = {as_name(key): value for key, value in part.items()}
        self.left_out: list[str] = []
        self.called: dict[str, str] = {}
        if len(self.part) < len(part):
            names = [as_name(key) for key in part]
            twice = next(name for name in self.part if names.count(name) > 1)
            raise DataError(f"{where}: has two keys {twice!r} (as text, bytes or a number); remove one of them")
        for name, values in self.part.items():
            key = key_of(name, values)
            first = name if own is None or key is None else own.get(key, key)
            if key is None or (name != first and first in self.part and key_of(first, self.part[first]) == key):
                continue
            if key in self.called:
                raise DataError(f"{where}: has both {self.called[key]!r} and {name!r} for {key}; keep one of them")
            self.called[key] = name
        own_names = {name: (own or {}).get(key, key) for key, name in self.called.items() if key != "clip"}
        self.renamed = {
            name: key for name, key in own_names.items() if (name not in _OWN_NAMES if own is None else name != key)
        }

    def __contains__(self, key: str) -> bool:
        return key in self.called

    def place(self, key: str) -> str:
        """File, split and the field's name in the file, to begin a message."""
        return f"{self.where} {self.called.get(key, key)}"

    def leave_out(self, key: str, reason: str) -> None:
        """Remember that the field ``key`` was taken and could not be used."""
        self.left_out.append(f"{self.called.get(key, key)} ({reason})")

    def take(self, key: str) -> Any:
        """Remove the field ``key`` and return it.

        Raises:
            DataError: there is no such field; names the ones there are.
        """
        if key not in self.called:
            layout = LAYOUTS[self.expected]
            name = layout.labels if key == "labels" else key
            found = ", ".join(list(self.part)[:20]) or "nothing"
            raise DataError(f"{self.where}: field {name!r} is missing, found {found}; {layout.name} is {layout.shape}")
        return self.part.pop(self.called[key])


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
    harmless, told = [name for name in runs if name in CATEGORIES], []
    for first, run in runs.items():
        if first not in CATEGORIES:
            told += [f"{run[0]} to {run[-1]} ({len(run)})"] if len(run) > 3 else run
    if harmless:
        told.append(f"{' and '.join(harmless)} (categories follow from the labels; --classes reads them)")
    return [NOT_READ + ", ".join(told)] if told else []


def recognise(tree: Any) -> str | None:
    """The key in :data:`LAYOUTS` of the layout that a loaded pickle has, or ``None``."""
    parts = [part for part in _find_splits(tree).values() if isinstance(part, Mapping) or _samples(part)]
    part = next((part for part in parts if len(part)), None)
    if not isinstance(part, Mapping):
        return "mag" if part is not None and _is_sample(part[0]) else None
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


def _find_splits(tree: Any) -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {}
    by_name = {as_name(key).lower(): value for key, value in tree.items() if value is not None}
    return {split: by_name[name] for split, names in SPLIT_NAMES.items() for name in reversed(names) if name in by_name}


def splits_of(
    tree: Any, expected: str, path: Path, cut_valid: float = 0, cut: bool = False, unlabelled: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The three splits of a pickle that must have the layout ``expected``, and the names of what lies beside them.

    Args:
        cut_valid: not 0 where ``valid`` will be cut from ``train`` (:func:`mmsa_lib.data.sources.folds.with_valid`), so
            that the file must have none.
        cut: all splits will be cut, so that the file may be one split alone, called "", or lack some.
        unlabelled: as ``cut``, of samples that have no labels: the layout that is expected is taken for granted.

    Returns:
        ``train``, ``valid`` and ``test`` (without ``valid`` where it will be cut), whatever the file calls them.

    Raises:
        DataError: the pickle has another layout, a split is missing or empty, or two splits are the same.
    """
    layout, cut = LAYOUTS[expected], cut or unlabelled
    alone, is_dict = cut and not _find_splits(tree), isinstance(tree, Mapping)
    if alone and is_dict and expected == "mmsa" and not {"regression_labels", "text_bert"} & set(map(as_name, tree)):
        raise OtherLayout(f"{path}: one split of your own; use: mmsa-lib data import table {path}", "table")
    found = expected if unlabelled else recognise({"train": tree} if alone else tree)
    if found is not None and found != expected:
        other = LAYOUTS[found]
        raise OtherLayout(
            f"{path}: this looks like {other.name}, not {layout.name}; use: {other.command} {path}", found
        )
    if found is None:
        unknown = f"not in {layout.name}; expected {layout.shape}, found {describe(tree)}"
        raise OtherLayout(f"{path}: {_not_a_set(tree) or unknown}", "table")
    if alone:
        return {"": tree}, []
    splits = _find_splits(tree)
    for split, names in SPLIT_NAMES.items():
        found = [as_name(key) for key, part in tree.items() if as_name(key).lower() in names and part is not None]
        if len(found) > 1:
            raise DataError(f"{path}: has both {found[0]!r} and {found[1]!r} for {split}; remove or rename one of them")
    if cut_valid and not _is_empty(splits.get("valid", [])):
        raise DataError(f"{path}: has a split valid already; leave out --cut-valid")
    wanted = {split: splits.get(split) for split in SPLIT_NAMES if not (split == "valid" and cut_valid)}
    wanted = {split: part for split, part in wanted.items() if not cut or (part is not None and not _is_empty(part))}
    for split, part in wanted.items():
        if split not in splits:
            hint = f"; {CUT_VALID}" if split == "valid" else ""
            looked = f"(looked for {', '.join(SPLIT_NAMES[split])}), found {describe(tree)}"
            raise DataError(f"{path}: split {split} is missing {looked}{hint}")
        if not (_samples(part) if expected == "mag" else isinstance(part, Mapping)):
            raise DataError(f"{path}: split {split} is {describe(part)}; {layout.name} is {layout.shape}")
    for one, other in combinations(wanted, 2):
        if len(wanted[one]) and _same(_content(wanted[one]), _content(wanted[other])):
            remedy = f"remove valid and {CUT_VALID}" if "valid" in (one, other) else "give each samples of its own"
            raise DataError(f"{path}: splits {one} and {other} hold the same samples; {remedy}")
    return wanted, [as_name(key) for key in tree if as_name(key).lower() not in SPLIT_OF]


def _not_a_set(tree: Any) -> str:
    """What a pickle seems to be that is no data set of three splits, and the way out; empty where unknown."""
    combine = "pickle.dump({'train': train, 'valid': valid, 'test': test}, file), or cut it with --split 70/10/20"
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
    return _samples(part) and not np.size(part) if isinstance(part, np.ndarray) else _samples(part) and not part


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
    if isinstance(one, np.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.dtype != object:
            return bool(((one == other) | ((one != one) & (other != other))).all())
        one, other = one.reshape(-1).tolist(), other.reshape(-1).tolist()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) or bool(one != one and other != other)
