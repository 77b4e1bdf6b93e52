"""Labels of an imported file, and what they are: sentiment, yes or no per emotion, or one class out of several.

What cannot be sentiment on a scale (0 and 1, class ids, one-hot rows, words, several numbers per sample) is never
taken for it in silence: it is refused with the option that reads it, or read as the task that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.sources.columns import is_number
from mmsa_lib.data.sources.repairs import Repairs
from mmsa_lib.data.task import Task, emotions, regression
from mmsa_lib.errors import DataError, FileProblems

MOSEI_COLUMNS = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
"""The seven numbers per sample of CMU-MOSEI: sentiment in [-3, 3], then intensities of emotions from 0 to 3."""

HIGHEST_INTENSITY = 3
MANY = 12
"""Most class names that a message spells out."""

_ANSWERS = {"false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}
_SEVEN = "holds 7 numbers per sample, in CMU-MOSEI sentiment and six emotions"
_SCALE = "if they are sentiment, give its scale (--range LOW HIGH)"

Part = tuple[str, Any, Sequence[str]]
"""Labels as a file holds them: where they stand (begins messages), their values, the ids of their samples."""

Read = tuple[np.ndarray, Task, str]


def read_labels(
    parts: Sequence[Part],
    path: Path | str,
    repairs: Repairs,
    *,
    task: Task | None = None,
    column: str | None = None,
    infer: Callable[[np.ndarray], Task | None] = lambda labels: None,
    sims: bool = False,
    pairs_of: Sequence[str] = (),
) -> Read:
    """Labels, task and a remark on how the task was found.

    Args:
        parts: the labels of each split, or of all samples.
        path: the file, for messages.
        repairs: counts what is changed.
        task: what the user asked for.
        column: of several numbers per sample the one that is the label: its number from 0, or a name of
            :data:`MOSEI_COLUMNS` where there are seven.
        infer: a task that labels ``(N,)`` show by themselves, or ``None``.
        sims: the file shows other signs of CH-SIMS (unimodal labels, its sizes, Chinese text), so that labels within
            [-1, 1] are taken for the whole scale.
        pairs_of: emotions of as many columns of 0 and 1 where nothing was asked for.

    Returns:
        ``(N,)`` float32 sentiment or class ids, or ``(N, K)`` of 0 and 1; the task; the remark.

    Raises:
        DataError: the labels are damaged, do not fit the task, or do not show what they are.
    """
    arrays = [_array(*part, repairs) for part in parts]
    ids = [name for _, _, names in parts for name in names]
    shapes = sorted({array.shape[1:] for array in arrays})
    if len(shapes) > 1:
        found = " and ".join(str(shape[0] if shape else 1) for shape in shapes)
        raise DataError(f"{path}: the splits have {found} labels per sample; they must have the same labels")
    if any(array.dtype == object for array in arrays):
        arrays = [np.vectorize(lambda x: x if isinstance(x, str) else f"{x:g}", [object])(array) for array in arrays]
    labels = _Labels(np.concatenate(arrays), ids, str(path), task, repairs)
    if labels.values.dtype == object:
        if labels.asks("classes") and labels.values.ndim == 1:
            return labels.named_classes()
        labels.values = labels.answers(parts)
    if column is not None:
        labels.values = labels.column(column)
    if labels.values.ndim == 2:
        return labels.several(pairs_of)
    if task is None and (inferred := infer(labels.values)) is not None:
        return labels.sentiment(inferred, "inferred from the labels")
    if task is None:
        labels.refuse_classes()
        largest = float(np.abs(labels.values).max(initial=0))
        chosen = regression((-1, 1)) if sims and largest <= 1 else regression((-3, 3))
        return labels.sentiment(chosen, f"inferred; largest |label| is {largest:g}")
    if labels.asks("regression"):
        return labels.sentiment(task, "as asked for")
    return labels.class_ids() if labels.asks("classes") else labels.one_emotion()


def refuse(wrong: np.ndarray, labels: np.ndarray, ids: Sequence[str], where: str, said: str, remedy: str) -> None:
    """Raise FileProblems where labels are wrong, ``(N, ...)`` bool, naming each one and its sample."""
    found = []
    for place in map(tuple, np.argwhere(wrong)):
        label = repr(labels[place]) if isinstance(labels[place], str) else f"{labels[place]:g}"
        name = ids[place[0]]
        line = getattr(name, "line", "")  # of a table of one's own
        found.append((line, f"label {label} of sample {name!r} {said}"))
    if found:
        line, first = found[0]
        count = f"{len(found)} such labels{f', the first in {line}' if line else ''}"
        told = [f"{where}: {f'{line}: ' if line else ''}{what}; {remedy}" for line, what in found]
        raise FileProblems(told, where, f"{where}: {first} ({count}); {remedy}", len(found))


def _array(where: str, raw: Any, ids: Sequence[str], repairs: Repairs) -> np.ndarray:
    """``(N,)`` or ``(N, C)`` of finite numbers or of texts, without axes of size 1; pairs (no, yes) as 0 and 1."""
    array = _cells(raw, ids, where)
    shape = array.shape
    wrong_shape = DataError(f"{where}: shape {shape} for {len(ids)} samples, expected one label per sample")
    if len(array) != len(ids) or array.size == 0:
        raise wrong_shape
    pairs = len(shape) == 3 and shape[2] == 2 and array.dtype != object
    if array.dtype != object:
        remedy = "a label can't be guessed, correct it or remove the sample"
        refuse(~np.isfinite(array), array, ids, where, "is no finite number", remedy)
    if pairs:
        refuse(~np.isin(array, (0, 1)), array, ids, where, "is in a pair (no, yes), and neither 0 nor 1", "correct it")
        odd = np.repeat(array.sum(axis=2, keepdims=True) != 1, 2, axis=2)
        refuse(odd, array, ids, where, "is in a pair that is not one-hot in (no, yes)", "correct it")
        array = array.argmax(axis=2).astype(np.float64)
    array = array.reshape(shape[0], *(size for size in array.shape[1:] if size > 1))
    if array.ndim > 2:
        raise wrong_shape
    if array.ndim < len(shape) and not pairs:
        repairs.count(f"labels: flattened from shape ({', '.join(['N', *map(str, shape[1:])])})", len(ids))
    return array


def _cells(raw: Any, ids: Sequence[str], where: str) -> np.ndarray:
    """Labels as float64 of any shape, or as an object array of texts where a cell is a word.

    Numbers in text are read; an empty cell and None are NaN.

    Raises:
        DataError: rows of unequal length, or values that are neither real numbers nor text.
    """
    try:
        array = np.asarray(raw.tolist() if isinstance(raw, np.ndarray) and raw.dtype == object else raw)
    except (TypeError, ValueError) as error:
        shapes = [_shape(value) for value in raw]
        odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), 0)
        name = ids[odd] if odd < len(ids) else odd
        raise DataError(
            f"{where}: the label of sample {name!r} has shape {shapes[odd]}, the first {shapes[0]}; expected one "
            "number per sample"
        ) from error
    if array.ndim == 0 or array.dtype.kind not in "biufUSO":
        raise DataError(f"{where}: holds values of type {array.dtype}; give one real number or word per sample")
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    cells = np.empty(array.size, dtype=object)
    cells[:] = [_cell(value, where) for value in array.ravel().tolist()]
    cells = cells.reshape(array.shape)
    return cells.astype(np.float64) if all(is_number(cell) for cell in cells.flat) else cells


def _shape(value: object) -> object:
    try:
        return np.shape(value)
    except ValueError:
        return "rows of unequal length"


def _cell(value: object, where: str) -> str:
    """A label as text; a typographic minus before a number is a minus."""
    if value is None:
        return "nan"
    if not isinstance(value, str | bytes | bool | int | float | np.number | np.bool_):
        raise DataError(f"{where}: holds a {type(value).__name__}; give one real number or word per sample")
    text = (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
    number = text.replace("\N{MINUS SIGN}", "-")
    return number if is_number(number) else text or "nan"


@dataclass
class _Labels:
    """Values ``(N,)`` or ``(N, C)`` of the samples ``ids`` of a file, the task that was asked for, and the repairs."""

    values: np.ndarray
    ids: Sequence[str]
    path: str
    task: Task | None
    repairs: Repairs

    def asks(self, kind: str) -> bool:
        """Whether the user asked for a task of this kind."""
        return self.task is not None and self.task.kind == kind

    def refuse(self, wrong: np.ndarray, said: str, remedy: str) -> None:
        """:func:`refuse` for the labels as they are."""
        refuse(wrong, self.values, self.ids, self.path, said, remedy)

    def sentiment(self, task: Task, how: str) -> Read:
        """Labels ``(N,)`` on a scale."""
        low, high = task.range
        with np.errstate(over="ignore"):  # such a label is out of range, which is said
            self.values = self.values.astype(np.float32)
        outside = (self.values < low) | (self.values > high)
        self.refuse(
            outside, f"lies outside [{low:g}, {high:g}]", "correct it or give the label range (--range LOW HIGH)"
        )
        return self.values, task, f"label range [{low:g}, {high:g}] {how}"

    def refuse_classes(self) -> None:
        """Raise where labels ``(N,)`` look like yes and no or class ids: few whole numbers, over and over again."""
        distinct = np.unique(self.values)
        if len(distinct) == 1 or len(self.values) < 2 * len(distinct) or (distinct != np.round(distinct)).any():
            return
        first, last = f"{distinct[0]:g}", f"{distinct[-1]:g}"
        if set(distinct) in ({0, 1}, {-1, 1}):
            said = f"the labels are {first} and 1 only, which is a yes or no; name what 1 says (--emotions NAME) or "
            said += "both classes (--classes NAME NAME)"
        elif distinct[0] >= 0:
            said = f"the labels are whole numbers from {first} to {last}, as class ids are; name the classes in the "
            said += "order of their ids (--classes NAME ...)"
        elif len(distinct) == 2:
            said = f"the labels take two values only, {first} and {last}; write classes as 0 and 1"
        else:
            return
        raise DataError(f"{self.path}: {said}; {_SCALE}")

    def class_ids(self) -> Read:
        """Ids ``0 ... K-1`` from numbers: these very ids, 1 to K, -1 to 1 for three classes, -1 and 1 for two."""
        names, found = self.task.names, set(np.unique(self.values))
        count = len(names)
        written = [*range(count)]
        if all(map(is_number, names)):  # names that are the numbers themselves
            written = [float(name) for name in names]
        else:
            others = [[*range(1, count + 1)], *([[-1, 0, 1]] if count == 3 else []), *([[-1, 1]] if count == 2 else [])]
            written = next((numbers for numbers in [written, *others] if found <= set(numbers)), written)
        known = f"is none of the {count} class ids {', '.join(f'{number:g}' for number in written)}"
        self.refuse(~np.isin(self.values, written), known, "name every class (--classes NAME ...), or correct it")
        place = {number: i for i, number in enumerate(written)}
        labels = np.array([place[value] for value in self.values], dtype=np.float32)
        pairs = ", ".join(f"{name} ({number:g})" for name, number in zip(names, written, strict=True))
        return labels, self.task, f"classes {pairs} as asked for"

    def named_classes(self) -> Read:
        """Ids from words, which must be names of classes; capital letters do not matter."""
        names = ", ".join(self.task.names)
        place = {name.casefold(): i for i, name in enumerate(self.task.names)}
        labels = np.array([place.get(cell.casefold(), -1) for cell in self.values], dtype=np.float32)
        known = f"is none of the classes {names}"
        self.refuse(labels == -1, known, "name every class (--classes NAME ...), or correct it")
        return labels, self.task, f"classes {names} as asked for"

    def answers(self, parts: Sequence[Part]) -> np.ndarray:
        """Numbers from texts that are all yes or no, true or false; other words are refused and quoted."""
        cells = self.values
        answers = np.array([_ANSWERS.get(cell.casefold(), np.nan) for cell in cells.flat]).reshape(cells.shape)
        if np.isfinite(answers).all():
            self.repairs.count("labels: true and false (yes and no) read as 1 and 0", answers.size)
            return answers
        of_word = np.array([not is_number(cell) for cell in cells.flat]).reshape(cells.shape)
        place = tuple(np.argwhere(of_word)[0])
        ends = np.cumsum([len(names) for _, _, names in parts])
        where = parts[int(np.searchsorted(ends, place[0], side="right"))][0]
        if of_word.sum() < cells.size / 2 or cells.ndim > 1:
            refuse(of_word, cells, self.ids, where, "is no number", "correct it")
        known = sorted(set(cells[of_word]))
        shown = f"{', '.join(map(repr, known[:MANY]))}{', ...' if len(known) > MANY else ''}"
        option = " ".join(known) if len(known) <= MANY and all(name.isalnum() for name in known) else "NAME ..."
        raise DataError(
            f"{where}: the labels are words ({shown}; the first is {cells[place]!r} of sample "
            f"{self.ids[place[0]]!r}); name the classes, for instance --classes {option}"
        )

    def column(self, column: str) -> np.ndarray:
        """``(N,)``, one of several columns."""
        if self.values.ndim == 1:
            raise DataError(
                f"{self.path}: holds one label per sample, which leaves no column to choose; leave --column out"
            )
        width = self.values.shape[1]
        names = MOSEI_COLUMNS if width == len(MOSEI_COLUMNS) else ()
        known = {str(i): i for i in range(width)} | {name: i for i, name in enumerate(names)}
        if column not in known:
            also = f" or {', '.join(names)}" if names else ""
            raise DataError(f"{self.path}: has no label column {column!r}; choose one of 0 to {width - 1}{also}")
        return self.values[:, known[column]]

    def one_emotion(self) -> Read:
        """0 and 1, or -1 and 1, of the one emotion that was asked for."""
        remedy = (
            "name one emotion for 0 and 1 (--emotions NAME), the classes for class ids (--classes NAME ...), the range "
            "for sentiment (--range LOW HIGH)"
        )
        self.refuse(~np.isin(self.values, (-1, 0, 1)), "is neither 0 nor 1, so these are not emotions", remedy)
        if len(self.task.names) > 1 or {-1, 0} <= set(self.values):
            raise DataError(f"{self.path}: holds one number per sample, not emotions; {remedy}")
        self.values = self.values[:, None]
        return self.several()

    def several(self, pairs_of: Sequence[str] = ()) -> Read:
        """Yes or no per emotion, or the class of one-hot rows, from ``(N, C)`` numbers."""
        width, task = self.values.shape[1], self.task
        binary = bool(np.isin(self.values, (0, 1)).all())
        one_hot = binary and width > 1 and bool((self.values.sum(axis=1) == 1).all())
        if task is None and binary and width == len(pairs_of):
            order = f"emotions {', '.join(pairs_of)}: the order of MulT's IEMOCAP file"
            return self.values.astype(np.float32), emotions(pairs_of), order
        names, chosen = task.names if task else (), "as asked for"
        if self.asks("classes") and one_hot and width == len(names):
            labels = self.values.argmax(axis=1).astype(np.float32)
            return labels, task, f"classes {', '.join(names)} {chosen}: one-hot rows"
        if not self.asks("emotions"):
            raise DataError(f"{self.path}: {self._ways(binary, one_hot)}")
        if one_hot and width == 2 and len(names) == 1:
            self.values = self.values[:, 1:]  # a pair of no and yes
        elif width == len(MOSEI_COLUMNS) and not binary and len(names) < width:
            six = MOSEI_COLUMNS[1:]
            if not set(names) <= set(six) and len(names) != len(six):
                remedy = f"choose emotions of {', '.join(six)}, or name all six in this order"
                raise DataError(f"{self.path}: {_SEVEN}; {remedy}")
            columns = [MOSEI_COLUMNS.index(name) for name in names] if set(names) <= set(six) else [*range(1, width)]
            chosen = f"as asked for, from the label columns {', '.join(map(str, columns))}"
            self.values = self.values[:, columns]
        if self.values.shape[1] != len(names):
            remedy = "give as many emotion names (--emotions NAME ...)"
            raise DataError(f"{self.path}: holds {width} emotion labels per sample; {remedy}")
        return self._decided(), task, f"emotions {', '.join(names)} {chosen}"

    def _ways(self, binary: bool, one_hot: bool) -> str:
        """What several labels per sample are, and the options that read them."""
        width = self.values.shape[1]
        if self.asks("classes") and (not binary or width == len(self.task.names)):
            wrong = ~np.isin(self.values, (0, 1)).all(axis=1) | (self.values.sum(axis=1) != 1)
            sample = self.ids[int(wrong.argmax())]
            return f"sample {sample!r} is not one-hot in its {width} labels; correct it or use --emotions NAME ..."
        if binary:
            names = f"give as many emotion names (--emotions NAME ...{f', {width} of them' if width > 1 else ''})"
            classes = ", or as many class names (--classes NAME ...): every row holds one 1" if one_hot else ""
            return f"holds {width} emotion labels per sample; {names}{classes}"
        if width == len(MOSEI_COLUMNS):
            six = " ".join(MOSEI_COLUMNS[1:])
            return f"{_SEVEN}; take the sentiment (--column sentiment) or the emotions (--emotions {six})"
        return (
            f"holds {width} numbers per sample, expected one label per sample; take one of them (--column 0 to "
            f"{width - 1}) or read them as emotions (--emotions NAME ..., {width} names; above 0 is yes)"
        )

    def _decided(self) -> np.ndarray:
        """``(N, K)`` float32 of 0 and 1, also from -1 and 1, and from intensities (above 0 is yes)."""
        values = self.values
        if np.isin(values, (-1, 1)).all():
            self.repairs.count("labels: -1 read as 0 (no)", (values == -1).sum())
        elif (fraction := ~np.isin(values, (0, 1))).any():
            wrong = fraction & ((values < 0) | (values > HIGHEST_INTENSITY))
            what = f"is neither 0 nor 1 and no intensity from 0 to {HIGHEST_INTENSITY}"
            if wrong.any():
                what = f"in {self.task.names[np.argwhere(wrong)[0][1]]!r} {what}"
            self.refuse(wrong, what, "correct it")
            self.repairs.count("labels: intensities of emotions above 0 read as 1 (yes)", (values > 0).sum())
        return (values > 0).astype(np.float32)
