"""A small data set in the form of one's own, to look at, to import as it is, and to fill in."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmsa_lib.data.record import MODALITIES
from mmsa_lib.errors import ConfigError, DataError
from mmsa_lib.files import atomic_folder

KINDS = {
    "regression": "`label`: sentiment, here from -3 (negative) to 3 (positive); for another scale import with --range",
    "classes": "`label`: the name of the class",
    "emotions": "`label:happy`, `label:sad`: whether the sample has this emotion, 1 or 0; name the columns as you like",
}
"""What is predicted, and what the label columns say."""

OPTIONS = {"classes": " --classes negative neutral positive"}
_COUNT, _VIDEOS, _WIDTHS = 36, 12, {"text": 8, "audio": 5, "vision": 4}
_NOUNS = ("film", "story", "music", "acting", "ending", "plot", "sound", "script", "cast", "pace", "humour", "picture")
_SAID = {-1: "i did not like the {}", 0: "he talks about the {}", 1: "what a great {}"}
_README = """# {count} invented samples: replace them by yours

    mmsa-lib data check {folder}{options}
    mmsa-lib data import table {folder} --name mine{options}
    mmsa-lib train early_fusion --dataset mine

`samples.csv` has a row per sample; its columns:

- `id`: a name of its own; files of features are called after it
- `split`: train, valid or test; leave the column out to have it cut: `--split 70/10/20 --groups group`
- `group`: the video or speaker; all samples of one belong into one split
- {label}
- `text`: the transcript; leave the column out where there is none

{arrays}
A sample without a file lacks that modality. A folder that you do not need can go.
"""


def write_template(
    folder: Path | str, kind: str = "regression", modalities: Sequence[str] = MODALITIES, force: bool = False
) -> list[str]:
    """Write the example and return the names of its files; all of it appears at once.

    Args:
        folder: where it is written.
        kind: of :data:`KINDS`.
        modalities: text stands in the table; the others are a folder each, with an array ``(T, d)`` per sample.
        force: write into a folder that holds something; files of other names stay.

    Raises:
        ConfigError: unknown kind or modalities.
        DataError: the folder holds something, or can't be written.
    """
    folder = Path(folder)
    if kind not in KINDS or not modalities or not set(modalities) <= {*MODALITIES}:
        raise ConfigError(f"a template is of {', '.join(KINDS)} with any of {', '.join(MODALITIES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not (force and folder.is_dir()):
        raise DataError(f"{folder} holds something; choose another folder with --out, or add --force")
    with atomic_folder(folder if not folder.exists() else folder / ".template") as made:
        _fill(made, folder, kind, modalities)
        names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    if (made := folder / ".template").exists():
        for name in sorted(names, key="samples.csv".__eq__):  # the table last: what it names is there
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(made / name, folder / name)
        for path in sorted(made.rglob("*"), reverse=True):
            path.rmdir()
        made.rmdir()
    return names


def _fill(made: Path, folder: Path, kind: str, modalities: Sequence[str]) -> None:
    generator = np.random.default_rng(1)
    rows = []
    for i in range(_COUNT):
        video, sign = i * _VIDEOS // _COUNT, (i + i // 3) % 3 - 1  # one of each kind per video
        split = "valid" if video in (8, 9) else "test" if video > 9 else "train"
        row = {"id": f"video{video + 1:02}_{i % 3 + 1}", "split": split, "group": f"video{video + 1:02}"}
        degree = generator.integers(1, 8) * 0.4  # of seven steps
        if kind == "emotions":
            row |= {"label:happy": int(sign > 0), "label:sad": int(sign < 0)}
        else:
            row["label"] = ("neutral", "positive", "negative")[sign] if kind == "classes" else round(sign * degree, 1)
        rows.append(row | ({"text": _SAID[sign].format(_NOUNS[video])} if "text" in modalities else {}))
        for modality in (m for m in modalities if m != "text"):
            (made / modality).mkdir(exist_ok=True)
            frames = generator.normal(size=(generator.integers(5, 13), _WIDTHS[modality]))
            frames[:, 0] += sign
            np.save(made / modality / f"{row['id']}.npy", frames.astype(np.float32))
    with (made / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    each = "- `{0}/<id>.npy`: {0} features of a sample, `numpy.save` of shape (T, d); also `.npz` or `.csv`\n"
    arrays = "".join(each.format(m) for m in modalities if m != "text")
    said = {"count": _COUNT, "folder": shlex.quote(str(folder)), "options": OPTIONS.get(kind, "")}
    text = _README.format(label=KINDS[kind], arrays=arrays, **said)
    (made / "README.md").write_text(text, encoding="utf-8")
