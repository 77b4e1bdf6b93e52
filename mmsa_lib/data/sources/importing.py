"""What all importers share: from the fields of a file's splits to a :class:`~mmsa_lib.data.record.DatasetRecord`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.record import MODALITIES, DatasetRecord, FeatureSet, Level, Modality, TokenIds
from mmsa_lib.data.sources.columns import (
    Unusable,
    check_ids,
    entries_of,
    features_of,
    has_values,
    is_missing,
    joined,
    names_of,
    numbers_of,
    texts,
)
from mmsa_lib.data.sources.folds import Splitting
from mmsa_lib.data.sources.labels import Part, Read, read_labels
from mmsa_lib.data.sources.layouts import CUT_VALID, DOUBT, SPLIT_NAMES, Fields, remarks_on, spelling, splits_of
from mmsa_lib.data.sources.official import identify, known_set
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.sources.safe_pickle import load
from mmsa_lib.data.task import Task, regression
from mmsa_lib.errors import DataError, Problems

USER_TERMS = "imported from a file of yours: the terms under which you got it apply"
Sets = dict[Modality, FeatureSet]


class Source:
    """A file that is being imported: its splits, the names of its samples, what is changed and what is left out.

    An importer opens it, names the samples (:meth:`name_samples`), reads labels, texts and features, and ends in
    :meth:`record`.

    Args:
        path: the file or folder, begins messages.
        splits: split to its fields, in the order train, valid, test; a table has one part, called "".
        beside: names of what lies beside the splits and is not read.
        splitting: how splits are made where they are missing or others are asked for.
        own_table: a table of the user's, which no published file looks like, and whose labels may all be text.

    Attributes:
        ids: split to the ids of its samples.
        standard: ``(N,)`` split of each sample.
        repairs: what is changed; notes: facts for the user; beside: as above.
        problems: what is wrong in the file, told by :meth:`record` all at once.
    """

    def __init__(
        self,
        path: Path | str,
        splits: Mapping[str, Fields],
        beside: Iterable[Any] = (),
        splitting: Splitting | None = None,
        own_table: bool = False,
        problems: Problems | None = None,
    ):
        self.path, self.splits, self.beside = Path(path), dict(splits), list(beside)
        self.splitting, self.own_table = splitting or Splitting(), own_table
        self.repairs, self.notes = Repairs(), []
        self.problems = Problems() if problems is None else problems
        self.ids: dict[str, list[str]] = {}
        self.groups: list[str] = []
        self.standard = np.array([], dtype=str)

    @classmethod
    def of_pickle(
        cls,
        path: Path | str,
        layout: str,
        splitting: Splitting,
        columns: Callable[[Any, str, Repairs], Mapping[Any, Any]] = lambda part, *_: part,
    ) -> Source:
        """Open a pickle.

        Args:
            layout: key in :data:`~mmsa_lib.data.sources.layouts.LAYOUTS` of the layout that it must have.
            columns: a split, its place and the repairs to its fields by name, where a split is no dict.

        Raises:
            UnsafePickleError: the pickle asks for anything but plain data.
            DataError: it has another layout, or a split is missing or given twice.
        """
        path, repairs = Path(path), Repairs()
        splits, beside = splits_of(
            load(path), layout, path, splitting.cut_valid, cut=bool(splitting.split), unlabelled=splitting.unlabelled
        )
        fields = {}
        for split, part in splits.items():
            where = f"{path} [{split}]"
            fields[split] = Fields(columns(part, where, repairs), where, layout)
        source = cls(path, fields, beside, splitting)
        source.repairs = repairs
        return source

    @property
    def all_ids(self) -> list[str]:
        """``(N,)`` ids, split after split."""
        return [name for names in self.ids.values() for name in names]

    def parts(self) -> Iterator[tuple[Fields, list[str]]]:
        """The fields of each split and the ids of its samples."""
        return ((fields, self.ids[split]) for split, fields in self.splits.items())

    def name_samples(
        self, ids: Mapping[str, list[str]], groups: Sequence[str] | None = None, standard: np.ndarray | None = None
    ) -> None:
        """Set ids and groups of the samples; ids that are numbers and begin again in each split get its name.

        Args:
            ids: split to the ids of its samples.
            groups: ``(N,)`` video of each sample; by default each is a group of its own.
            standard: ``(N,)`` split of each sample, by default from the splits of ``ids``.

        Raises:
            DataError: a split is empty, or an id occurs twice.
        """
        for split, names in ids.items():
            if not names:
                hint = f"; {CUT_VALID}" if split == "valid" else ""
                raise DataError(f"{self.path}: split {split} is empty; all of train, valid and test need samples{hint}")
        self.ids, renumbered = distinct_ids(ids)
        self.notes += renumbered
        self.groups = list(groups) if groups is not None and not renumbered else self.all_ids
        if self.splitting.groups and not self.own_table:
            self.groups = self._asked_groups(self.splitting.groups)
        by_split = np.repeat(list(ids), list(map(len, ids.values())))
        self.standard = by_split if standard is None else standard
        with self.problems.gather():
            check_ids(self.all_ids, self.standard.tolist(), str(self.path))

    def _asked_groups(self, name: str) -> list[str]:
        """``(N,)`` of the field that ``--groups`` names; ``video_id`` where ids tell the video."""
        found: list[str] = []
        for fields, ids in self.parts():
            key = next((key for key in fields.part if spelling(key) == spelling(name)), None)
            if key is None and spelling(name) in ("group", "video", "video_id") and len(set(self.groups)) < len(ids):
                return self.groups
            if key is None:
                known = ", ".join([*fields.part, "video_id (from the ids)"])
                raise DataError(f"{fields.where}: no field {name!r} for --groups; found {known}")
            found += names_of(entries_of(fields.part.pop(key), f"{fields.where} {key}", len(ids)), fields.where)
        return found

    def labels(self, task: Task | None, column: str | None, parts: Sequence[Part] = (), **options: Any) -> Read:
        """Labels, task and remark, by default of the fields ``labels``; options of :func:`.labels.read_labels`.

        What is wrong with them is told by :meth:`record`.
        """
        if self.splitting.unlabelled:
            return shown_labels([value for _, values, ids in parts for value in _each(values, ids)]), regression(), ""
        parts = parts or [(fields.place("labels"), fields.take("labels"), ids) for fields, ids in self.parts()]
        for _, raw, _ in () if self.own_table else parts:
            cells = (
                raw.ravel().tolist() if isinstance(raw, np.ndarray) else raw if isinstance(raw, list | tuple) else ()
            )
            self.repairs.count("labels: text, read", sum(isinstance(cell, str | bytes) for cell in cells))
            answers = sum(isinstance(cell, bool | np.bool_) for cell in cells)
            self.repairs.count("labels: true and false, read as 1 and 0", answers)
        with self.problems.gather():
            return read_labels(parts, self.path, self.repairs, task=task, column=column, **options)
        return np.zeros(0), task or regression(), ""  # refused by record(), with all else that is wrong

    def transcripts(self) -> list[str] | None:
        """The transcripts of all samples; ``None`` where the file has none at all."""
        if not any("raw_text" in fields for fields in self.splits.values()):
            return None
        found: list[str] = []
        for fields, ids in self.parts():
            values = fields.take("raw_text")
            values = [None] * len(ids) if is_missing(values) else values
            found += texts(values, fields.place("raw_text"), self.repairs, len(ids))
        if any(text.strip() for text in found):
            return found
        next(iter(self.splits.values())).leave_out("raw_text", "no values")
        return None

    def unimodal(self) -> dict[Modality, np.ndarray]:
        """Labels of single modalities where all samples have them; others are left out, and the reason is named."""
        complete: dict[Modality, np.ndarray] = {}
        for modality in MODALITIES:
            key, found, reason = f"labels_{modality}", [], ""
            there = [(fields, ids) for fields, ids in self.parts() if key in fields]
            for fields, ids in there:
                try:
                    numbers, of_text = numbers_of(fields.take(key), ids, fields.place(key))
                except Unusable as error:
                    reason = reason or str(error)
                    continue
                found.append(numbers)
                count = 0 if self.own_table else of_text
                self.repairs.count("unimodal labels: text, read as numbers", count)
            total, given = len(self.standard), sum(int(np.isfinite(numbers).sum()) for numbers in found)
            if given < total:
                reason = reason or f"no value for {total - given} of {total} samples"
                for fields, _ in there[:1]:
                    fields.leave_out(key, reason)
            else:
                with np.errstate(over="ignore"):  # such a label is out of range, which data check says
                    complete[modality] = np.concatenate(found).astype(np.float32)
        return complete

    def features(self, read: Callable[[Fields, list[str]], Sets]) -> Sets:
        """The feature sets of all splits, which ``read`` gives for each.

        Raises:
            DataError: the splits have other modalities, or features of other widths.
        """
        parts: list[Sets] = []
        for fields, ids in self.parts():
            with self.problems.gather():
                parts.append(read(fields, ids))
        if len(parts) < len(self.splits):
            return {}
        carried = [m for m in MODALITIES if any(m in part for part in parts)]
        for modality in carried:
            for split, part in zip(self.splits, parts, strict=True):
                if modality not in part:
                    raise DataError(
                        f"{self.path} [{split}]: field {modality!r} is missing, and present in another split"
                    )
        return {m: joined([part[m] for part in parts], f"{self.path}: {m}") for m in carried}

    def feature_set(
        self,
        fields: Fields,
        ids: Sequence[str],
        modality: Modality,
        frames: np.ndarray | list[np.ndarray],
        level: Level,
        **options: Any,
    ) -> FeatureSet:
        """The feature set of some frames of a split; options of :func:`.columns.features_of`."""
        options = {"repairs": self.repairs, "description": f"{modality} features of the file"} | options
        return features_of(frames, ids, fields.place(modality), modality=modality, level=level, **options)

    def record(
        self,
        name: str,
        read: Read,
        sets: Mapping[Modality, FeatureSet],
        *,
        files: Sequence[Path] = (),
        transcripts: list[str] | None = None,
        tokens: TokenIds | None = None,
        unimodal: Mapping[Modality, np.ndarray] | None = None,
        times: np.ndarray | None = None,
    ) -> DatasetRecord:
        """The data set, called ``name``, with one fold ``standard`` and notes on all that a user should know.

        Args:
            read: what :meth:`labels` gave.
            files: what the data lies in, to be identified; by default the path itself.

        Raises:
            DataError: there is nothing to learn from, or a file can't be read.
            ConfigError: no validation split can be cut.
        """
        self.problems.refuse(self.path)
        text = "text" if "text" in sets else "tokens" if tokens else "words" if transcripts else None
        if not sets and text is None:
            raise DataError(
                f"{self.path}: there are neither features (text, audio, vision) nor texts; there is nothing to learn "
                "from"
            )
        labels, task, remark = read
        sizes = tuple(int((self.standard == split).sum()) for split in SPLIT_NAMES)
        known = None if self.own_table else known_set(sizes)
        identified = [] if self.splitting.unlabelled else [identify(file, sizes) for file in files or [self.path]]
        folds, cut = self.splitting.folds(self.standard, self.groups, str(self.path))
        return DatasetRecord(
            name=name,
            task=task,
            ids=self.all_ids,
            groups=self.groups,
            labels=labels,
            folds=folds,
            features=dict(sets),
            defaults={"*": {**({"text": text} if text else {}), **{m: m for m in sets if m != "text"}}},
            transcripts=transcripts,
            token_ids=tokens,
            unimodal_labels=dict(unimodal or {}),
            times=times,
            terms=USER_TERMS,
            citation=known.citation if known else "",
            sources=[line for line, _ in identified],
            repairs=dict(self.repairs),
            notes=[
                *(said for _, remarks in identified for said in remarks if not self.own_table),
                remark,
                *([f"sizes are those of {known.name}"] if known else []),
                *self.notes,
                *(DOUBT + said for said in self.repairs.remarks()),
                *cut,
                *remarks_on(self.splits.values(), self.beside),
            ],
        )


def _each(values: Any, ids: Sequence[str]) -> Sequence[Any]:
    """One value per sample, or ``None`` for each where there are none."""
    return values if isinstance(values, list | tuple | np.ndarray) and len(values) == len(ids) else [None] * len(ids)


def shown_labels(values: Sequence[Any]) -> np.ndarray | None:
    """Labels ``(N,)`` that are only shown: numbers where all are, else texts; ``None`` where there is none."""
    flat = [x.item() if isinstance(x, np.ndarray) and x.size == 1 else x for x in values]
    if not any(map(has_values, flat)):
        return None
    try:
        return np.array([float(x) if has_values(x) else np.nan for x in flat], np.float32)
    except (TypeError, ValueError, OverflowError):
        return np.array([str(x).strip() if has_values(x) else "" for x in flat])


def group_of(pattern: str, name: str) -> str:
    """The first group of ``pattern`` in an id of that form; an id of another form is a group of its own."""
    match = re.fullmatch(pattern, name)
    return match[1] if match else name


def distinct_ids(ids: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], list[str]]:
    """The ids of the splits; numbers that begin again in each split get its name before them, and a remark says so."""
    counted = [sorted(int(name) for name in of_split if name.isdecimal()) for of_split in ids.values()]
    starts = {numbers[0] if numbers else None for numbers in counted}
    if len(ids) < 2 or len(starts) > 1 or not starts <= {0, 1}:
        return dict(ids), []
    start = starts.pop()
    if any(n != list(range(start, start + len(of))) for n, of in zip(counted, ids.values(), strict=True)):
        return dict(ids), []
    named = {split: [f"{split}_{name}" for name in of_split] for split, of_split in ids.items()}
    return named, [f"ids are numbers that begin at {start} in each split: read as <split>_<id>"]
