"""Labels of an imported file, and what they are: sentiment, yes or no per emotion, or one class out of several.

What cannot be sentiment on a scale (0 and 1, class ids, one-hot rows, words, several numbers per sample) is never
taken for it in silence: it is refused with the option that reads it, or read as the task that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsa_lib.data.sources.repairs import Repairs, check_finite, is_number, label_array, sentiment_task
from mmsa_lib.data.task import Task, emotions
from mmsa_lib.errors import DataError

MOSEI_COLUMNS = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
"""The seven numbers per sample of CMU-MOSEI: sentiment in [-3, 3], then intensities of emotions from 0 to 3."""

HIGHEST_INTENSITY = 3
_ANSWERS = {"false": 0.0, "no": 0.0, "true": 1.0, "yes": 1.0}

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
        sims: see :func:`mmsa_lib.data.sources.repairs.sentiment_task`.
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
        arrays = [array if array.dtype == object else _as_text(array) for array in arrays]
        cells = np.concatenate(arrays)
        if task is not None and task.kind == "classes" and cells.ndim == 1:
            return _named_classes(cells, ids, path, task)
        values = _answers(cells, parts, ids, repairs)
    else:
        values = np.concatenate(arrays)
    if column is not None:
        values = _column(values, column, path)
    if values.ndim == 2:
        return _several(values, ids, path, task, repairs, pairs_of)
    if task is None:
        task = infer(values)
        if task is None:
            _refuse_classes(values, path)
            labels = _float32(values)
            return labels, *sentiment_task(labels, ids, str(path), sims=sims)
    if task.kind == "regression":
        labels = _float32(values)
        return labels, *sentiment_task(labels, ids, str(path), task=task)
    if task.kind == "classes":
        return _class_ids(values, ids, path, task)
    other = np.flatnonzero(~np.isin(values, (-1, 0, 1)))
    if len(task.names) > 1 or len(other) or {-1, 0} <= set(values):
        found = f" (label {values[other[0]]:g} of sample {ids[other[0]]!r} is neither 0 nor 1)" if len(other) else ""
        raise DataError(
            f"{path}: holds one number per sample, not emotions{found}; name one emotion for 0 and 1 (--emotions "
            "NAME), the classes for class ids (--classes NAME ...), the range for sentiment (--range LOW HIGH)"
        )
    return _several(values[:, None], ids, path, task, repairs, pairs_of)


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # such a label is out of range, which will be said
        return values.astype(np.float32)


def _array(where: str, raw: Any, ids: Sequence[str], repairs: Repairs) -> np.ndarray:
    """``(N,)`` or ``(N, C)`` of finite numbers or of texts, without axes of size 1; pairs (no, yes) as 0 and 1."""
    array = label_array(raw, ids, where)
    if len(array) != len(ids) or array.size == 0:
        raise DataError(f"{where}: shape {array.shape} for {len(ids)} samples, expected one label per sample")
    if array.dtype != object:
        check_finite(array, ids, where)
    shape = array.shape
    if len(shape) == 3 and shape[2] == 2 and array.dtype != object:
        array = _pairs(array, ids, where)
    array = array.reshape(shape[0], *(size for size in array.shape[1:] if size > 1))
    if array.ndim > 2:
        raise DataError(f"{where}: shape {shape} for {len(ids)} samples, expected one label per sample")
    if array.ndim < len(shape) and not (len(shape) == 3 and shape[2] == 2):
        repairs.count(f"labels: flattened from shape ({', '.join(['N', *map(str, shape[1:])])})", len(ids))
    return array


def _pairs(array: np.ndarray, ids: Sequence[str], where: str) -> np.ndarray:
    """``(N, K)`` of 0 and 1 from one-hot pairs ``(N, K, 2)`` of no and yes."""
    wrong = ~np.isin(array, (0, 1)).reshape(len(array), -1).all(axis=1)
    if wrong.any():
        raise DataError(f"{where}: sample {ids[int(wrong.argmax())]!r} has entries other than 0 and 1; correct them")
    wrong = (array.sum(axis=2) != 1).any(axis=1)
    if wrong.any():
        raise DataError(f"{where}: sample {ids[int(wrong.argmax())]!r} is not one-hot in (no, yes); correct it")
    return array.argmax(axis=2).astype(np.float64)


def _column(values: np.ndarray, column: str, path: Path | str) -> np.ndarray:
    if values.ndim == 1:
        raise DataError(f"{path}: holds one label per sample, which leaves no column to choose; leave --column out")
    width = values.shape[1]
    names = MOSEI_COLUMNS if width == len(MOSEI_COLUMNS) else ()
    known = {str(i): i for i in range(width)} | {name: i for i, name in enumerate(names)}
    if column not in known:
        also = f" or {', '.join(names)}" if names else ""
        raise DataError(f"{path}: has no label column {column!r}; choose one of 0 to {width - 1}{also}")
    return values[:, known[column]]


def _refuse_classes(values: np.ndarray, path: Path | str) -> None:
    """Raise where labels ``(N,)`` look like a yes or no, or like class ids: few whole numbers, over and over again."""
    distinct = np.unique(values)
    sure = "if they are sentiment, give its scale (--range LOW HIGH)"
    if len(distinct) == 1 or len(values) < 2 * len(distinct):
        return
    if set(distinct) in ({0, 1}, {-1, 1}):
        raise DataError(
            f"{path}: the labels are {distinct[0]:g} and 1 only, which is a yes or no; name what 1 says (--emotions "
            f"NAME) or both classes (--classes NAME NAME); {sure}"
        )
    if distinct[0] >= 0 and (distinct == np.round(distinct)).all():
        raise DataError(
            f"{path}: the labels are whole numbers from {distinct[0]:g} to {distinct[-1]:g}, as class ids are; name "
            f"the classes in the order of their ids (--classes NAME ...); {sure}"
        )
    if len(distinct) == 2 and (distinct == np.round(distinct)).all():
        found = f"{distinct[0]:g} and {distinct[1]:g}"
        raise DataError(f"{path}: the labels take two values only, {found}; write classes as 0 and 1; {sure}")


def _class_ids(values: np.ndarray, ids: Sequence[str], path: Path | str, task: Task) -> Read:
    """Ids ``0 ... K-1`` from numbers: these very ids, 1 to K, -1 to 1 for three classes, -1 and 1 for two."""
    count, found = len(task.names), set(np.unique(values))
    written = [*range(count)]
    if all(map(is_number, task.names)):  # names that are the numbers themselves
        written = [float(name) for name in task.names]
    else:
        others = [[*range(1, count + 1)], *([[-1, 0, 1]] if count == 3 else []), *([[-1, 1]] if count == 2 else [])]
        written = next((numbers for numbers in [written, *others] if found <= set(numbers)), written)
    wrong = np.flatnonzero(~np.isin(values, written))
    if len(wrong):
        raise DataError(
            f"{path}: label {values[wrong[0]]:g} of sample {ids[wrong[0]]!r} is none of the {count} class ids "
            f"{', '.join(f'{number:g}' for number in written)} ({len(wrong)} such labels); name every class "
            "(--classes NAME ...), or correct it"
        )
    place = {number: i for i, number in enumerate(written)}
    labels = np.array([place[value] for value in values], dtype=np.float32)
    pairs = ", ".join(f"{name} ({number:g})" for name, number in zip(task.names, written, strict=True))
    return labels, task, f"classes {pairs} as asked for"


def _named_classes(cells: np.ndarray, ids: Sequence[str], path: Path | str, task: Task) -> Read:
    """Ids from words, which must be names of classes; capital letters do not matter."""
    place = {name.casefold(): i for i, name in enumerate(task.names)}
    labels = [place.get(cell.casefold(), -1) for cell in cells]
    if -1 in labels:
        row = labels.index(-1)
        raise DataError(
            f"{path}: label {cells[row]!r} of sample {ids[row]!r} is none of the classes {', '.join(task.names)} "
            f"({labels.count(-1)} such labels); name every class (--classes NAME ...), or correct it"
        )
    return np.array(labels, dtype=np.float32), task, f"classes {', '.join(task.names)} as asked for"


def _as_text(array: np.ndarray) -> np.ndarray:
    return np.array([f"{value:g}" for value in array.flat], dtype=object).reshape(array.shape)


def _answers(cells: np.ndarray, parts: Sequence[Part], ids: Sequence[str], repairs: Repairs) -> np.ndarray:
    """Numbers from texts that are all yes or no, true or false; other words are refused.

    Raises:
        DataError: quotes the word.
    """
    words = [cell for cell in cells.flat if not is_number(cell)]
    answers = np.array([_ANSWERS.get(cell.casefold(), np.nan) for cell in cells.flat]).reshape(cells.shape)
    if np.isfinite(answers).all():
        repairs.count("labels: true and false (yes and no) read as 1 and 0", answers.size)
        return answers
    row = next(i for i, cell in enumerate(cells.flat) if not is_number(cell)) // (cells.size // len(cells))
    word = words[0]
    ends = np.cumsum([len(names) for _, _, names in parts])
    where = parts[int(np.searchsorted(ends, row, side="right"))][0]
    if len(words) < cells.size / 2 or cells.ndim > 1:
        raise DataError(
            f"{where}: the label of sample {ids[row]!r} is {word!r}, no number ({len(words)} such labels); correct it"
        )
    known = sorted(set(words))
    shown = f"{', '.join(map(repr, known[:6]))}{', ...' if len(known) > 6 else ''}"
    option = " ".join(known) if len(known) <= 6 and all(name.isalnum() for name in known) else "NAME ..."
    raise DataError(
        f"{where}: the labels are words ({shown}; the first is {word!r} of sample {ids[row]!r}); name the classes, "
        f"for instance --classes {option}"
    )


def _several(
    values: np.ndarray,
    ids: Sequence[str],
    path: Path | str,
    task: Task | None,
    repairs: Repairs,
    pairs_of: Sequence[str],
) -> Read:
    """Yes or no per emotion, or the class of one-hot rows, from ``(N, C)`` numbers."""
    width = values.shape[1]
    binary = bool(np.isin(values, (0, 1)).all())
    one_hot = binary and width > 1 and bool((values.sum(axis=1) == 1).all())
    if task is None and binary and width == len(pairs_of):
        names = ", ".join(pairs_of)
        return values.astype(np.float32), emotions(pairs_of), f"emotions {names}: the order of MulT's IEMOCAP file"
    if task is not None and task.kind == "classes" and one_hot and width == len(task.names):
        names = ", ".join(task.names)
        return values.argmax(axis=1).astype(np.float32), task, f"classes {names} as asked for: one-hot rows"
    if task is None or task.kind != "emotions":
        raise DataError(f"{path}: {_ways(width, binary, one_hot, values, ids, task)}")
    names, chosen = task.names, "as asked for"
    if one_hot and width == 2 and len(names) == 1:
        values = values[:, 1:]  # a pair of no and yes
    elif width == len(MOSEI_COLUMNS) and not binary and len(names) < width:
        columns = _mosei_columns(names, path)
        values, chosen = values[:, columns], f"as asked for, from the label columns {', '.join(map(str, columns))}"
    if values.shape[1] != len(names):
        raise DataError(
            f"{path}: holds {width} emotion labels per sample; give as many emotion names (--emotions NAME ...)"
        )
    return _decided(values, ids, path, task, repairs), task, f"emotions {', '.join(names)} {chosen}"


def _ways(width: int, binary: bool, one_hot: bool, values: np.ndarray, ids: Sequence[str], task: Task | None) -> str:
    """What ``width`` labels per sample are, and the options that read them."""
    if task is not None and task.kind == "classes" and (not binary or width == len(task.names)):
        wrong = int((~np.isin(values, (0, 1)).all(axis=1) | (values.sum(axis=1) != 1)).argmax())
        return f"sample {ids[wrong]!r} is not one-hot in its {width} labels; correct it or use --emotions NAME ..."
    if binary:
        names = f"give as many emotion names (--emotions NAME ...{f', {width} of them' if width > 1 else ''})"
        classes = ", or as many class names (--classes NAME ...): every row holds one 1" if one_hot else ""
        return f"holds {width} emotion labels per sample; {names}{classes}"
    if width == len(MOSEI_COLUMNS):
        six = " ".join(MOSEI_COLUMNS[1:])
        return (
            "holds 7 numbers per sample, in CMU-MOSEI sentiment and six emotions; take the sentiment (--column "
            f"sentiment) or the emotions (--emotions {six})"
        )
    return (
        f"holds {width} numbers per sample, expected one label per sample; take one of them (--column 0 to "
        f"{width - 1}) or read them as emotions (--emotions NAME ..., {width} names; above 0 is yes)"
    )


def _mosei_columns(names: Sequence[str], path: Path | str) -> list[int]:
    """Which of CMU-MOSEI's seven columns are meant: by their names, or six other names in the order of the columns."""
    if all(name in MOSEI_COLUMNS[1:] for name in names):
        return [MOSEI_COLUMNS.index(name) for name in names]
    if len(names) == len(MOSEI_COLUMNS) - 1:
        return [*range(1, len(MOSEI_COLUMNS))]
    raise DataError(
        f"{path}: holds 7 numbers per sample, in CMU-MOSEI sentiment and six emotions; choose emotions of "
        f"{', '.join(MOSEI_COLUMNS[1:])}, or name all six in this order"
    )


def _decided(values: np.ndarray, ids: Sequence[str], path: Path | str, task: Task, repairs: Repairs) -> np.ndarray:
    """``(N, K)`` float32 of 0 and 1, also from -1 and 1, and from intensities (above 0 is yes)."""
    if np.isin(values, (-1, 1)).all() and (values == -1).any():
        repairs.count("labels: -1 read as 0 (no)", int((values == -1).sum()))
        return (values > 0).astype(np.float32)
    fraction = ~np.isin(values, (0, 1))
    if not fraction.any():
        return values.astype(np.float32)
    wrong = fraction & ((values < 0) | (values > HIGHEST_INTENSITY))
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        raise DataError(
            f"{path}: label {values[row, place]:g} of {task.names[place]!r} in sample {ids[row]!r} is neither 0 nor 1 "
            f"({int(wrong.sum())} such labels) and no intensity from 0 to {HIGHEST_INTENSITY}; correct it"
        )
    repairs.count("labels: intensities of emotions above 0 read as 1 (yes)", int((values > 0).sum()))
    return (values > 0).astype(np.float32)
