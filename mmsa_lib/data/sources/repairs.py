"""What importers mend on reading, always counted, and what they refuse: labels that are no labels, ids that repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmsa_lib.data.task import Task, regression
from mmsa_lib.errors import DataError

_NOT_FINITE = (("-inf", np.isneginf), ("+inf", np.isposinf), ("NaN", np.isnan))


class Repairs:
    """Counts of everything that was changed on reading; ``counts`` goes into ``DatasetRecord.repairs``."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """What was repaired, to how often; only what did happen."""
        return dict(self._counts)

    def count(self, what: str, times: int) -> None:
        """Add ``times`` to the count of ``what``; nothing for 0."""
        if times:
            self._counts[what] += times

    def label_types(self, raw: object) -> None:
        """Count the labels of a pickle that are text or true and false, of which others will make numbers."""
        cells = raw.ravel().tolist() if isinstance(raw, np.ndarray) else raw if isinstance(raw, list | tuple) else []
        self.count("labels: text, read", sum(isinstance(cell, str | bytes) for cell in cells))
        self.count("labels: true and false, read as 1 and 0", sum(isinstance(cell, bool | np.bool_) for cell in cells))

    def finite(self, values: np.ndarray, field: str) -> np.ndarray:
        """``values`` as float32 in which -inf, +inf and NaN are 0, each counted under ``field`` in numbers.

        Raises:
            DataError: the values are no real numbers.
        """
        if values.dtype.kind not in "biuf":
            raise DataError(f"{field}: expected numbers, found type {values.dtype}; store plain numbers")
        with np.errstate(over="ignore"):
            result = values.astype(np.float32)
        if values.dtype == bool:
            self.count(f"{field}: true and false stored as 1 and 0", values.size)
        if values.dtype == np.float64:
            self.count(f"{field}: float64 stored as float32", values.size)
        broken = ~np.isfinite(result)
        if broken.any():
            found = values[broken]
            for name, test in _NOT_FINITE:
                self.count(f"{field}: {name} set to 0", int(test(found).sum()))
            self.count(f"{field}: too large for float32, set to 0", int(np.isfinite(found).sum()))
            result[broken] = 0
        return result


def label_array(raw: object, ids: Sequence[str], where: str) -> np.ndarray:
    """Labels as float64 of any shape, or as an object array of texts where a cell is a word.

    Numbers in text are read; an empty cell and None are NaN.

    Raises:
        DataError: rows of unequal length, or values that are neither real numbers nor text.
    """
    try:
        array = np.asarray(raw.tolist() if isinstance(raw, np.ndarray) and raw.dtype == object else raw)
    except (TypeError, ValueError) as error:
        shapes = [_shape(value) for value in raw]  # type: ignore[attr-defined]
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
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = text.strip()
    number = text.replace("\N{MINUS SIGN}", "-")
    return number if is_number(number) else text or "nan"


def is_number(text: str) -> bool:
    """Whether a cell holds a number, also NaN or infinity."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def check_finite(values: np.ndarray, ids: Sequence[str], where: str) -> None:
    """Raise where a label ``(N, ...)`` is NaN or infinite, naming the first such sample."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise DataError(
            f"{where}: the label of sample {ids[bad[0][0]]!r} is {values[tuple(bad[0])]:g} ({len(bad)} such labels); "
            "a label can't be guessed, correct it or remove the sample"
        )


def sentiment_labels(raw: object, ids: Sequence[str], where: str, repairs: Repairs) -> np.ndarray:
    """One float32 label per sample from an array of any shape that holds one number per sample.

    Raises:
        DataError: wrong number of values, no numbers, or a label that is not finite; names ``where`` and the sample.
    """
    values = label_array(raw, ids, where)
    if values.dtype == object:
        word = next(cell for cell in values.flat if not is_number(cell))
        raise DataError(f"{where}: expected one number per sample, found {word!r}; mend the labels")
    if values.size != len(ids) or len(values) != len(ids):
        raise DataError(f"{where}: shape {values.shape} for {len(ids)} samples, expected one label per sample")
    if values.ndim > 1:
        repairs.count(f"labels: flattened from shape (N{', 1' * (values.ndim - 1)})", len(ids))
    values = values.reshape(-1)
    check_finite(values, ids, where)
    with np.errstate(over="ignore"):  # what overflows lies outside any range, and is refused for that
        return values.astype(np.float32)


def check_ids(ids: Sequence[str], splits: Sequence[str], where: str) -> None:
    """Raise where an id is empty or occurs twice, naming the id and its splits."""
    first: dict[str, str] = {}
    for name, split in zip(ids, splits, strict=True):
        if not name:
            raise DataError(f"{where}: a sample of split {split} has an empty id; give every sample an id")
        if name in first:
            raise DataError(
                f"{where}: id {name!r} occurs twice (splits {first[name]} and {split}); ids must be unique, "
                "remove or rename one of the two"
            )
        first[name] = split


def sentiment_task(
    labels: np.ndarray, ids: Sequence[str], where: str, *, task: Task | None = None, sims: bool = False
) -> tuple[Task, str]:
    """The regression task of a file: the one that was asked for, else the one that the labels suggest.

    Args:
        labels: ``(N,)``.
        ids: ``(N,)``, to name a sample whose label does not fit.
        where: file, begins the message.
        task: what the user asked for.
        sims: the file shows other signs of CH-SIMS (unimodal labels, its sizes, Chinese text), so that labels within
            [-1, 1] are taken for the whole scale.

    Returns:
        The task, and a remark for the user on how it was found.

    Raises:
        DataError: a label lies outside the range, or the task asked for is no regression.
    """
    largest = float(np.abs(labels).max(initial=0))
    if task is None:
        chosen = regression((-1, 1)) if sims and largest <= 1 else regression((-3, 3))
        remark = f"label range [{chosen.range[0]:g}, {chosen.range[1]:g}] inferred; largest |label| is {largest:g}"
    elif task.kind == "regression":
        chosen, remark = task, f"label range [{task.range[0]:g}, {task.range[1]:g}] as asked for"
    else:
        raise DataError(f"{where}: holds one sentiment label per sample, not emotions; leave --emotions out")
    outside = np.flatnonzero((labels < chosen.range[0]) | (labels > chosen.range[1]))
    if len(outside):
        row = outside[0]
        raise DataError(
            f"{where}: label {labels[row]:g} of sample {ids[row]!r} lies outside [{chosen.range[0]:g}, "
            f"{chosen.range[1]:g}] ({len(outside)} such labels); correct it or give the label range (--range LOW HIGH)"
        )
    return chosen, remark
