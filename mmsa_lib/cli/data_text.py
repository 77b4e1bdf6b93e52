"""How ``mmsa-lib data`` words its answers for a reader."""

from __future__ import annotations

from typing import Any


def info_lines(found: dict[str, Any]) -> list[str]:
    """All that is known about a data set, as lines of text."""
    task = found["task"]
    names = f"{task['kind']} {', '.join(task['names'])}"
    aim = f"regression on {task['range']}" if task["kind"] == "regression" else names
    lines = [
        f"{found['name']}: {found['samples']} samples of {found['videos']} videos; {aim}; metrics {task['metrics']}",
        f"  file         {found['path'] or 'none (generated when loaded)'}",
        f"  fingerprint  {found['fingerprint']}",
        f"  texts        {_texts(found)}",
    ]
    if found["unimodal_labels"]:
        lines.append(f"  also labels  per modality: {', '.join(found['unimodal_labels'])}")
    if found["factors"]:
        lines.append(f"  factors      {', '.join(f'{name} ({width})' for name, width in found['factors'].items())}")
    lines += ["folds", *(line for fold, splits in found["folds"].items() for line in _fold(fold, splits))]
    lines += ["features", *(line for name, features in found["features"].items() for line in _features(name, features))]
    lines += ["loaded by default", *(f"  {fold}: {_pairs(names)}" for fold, names in found["defaults"].items())]
    lines += _list("repaired", [f"{what}: {count}" for what, count in found["repairs"].items()])
    lines += _list("notes", found["notes"]) + _list("sources", found["sources"])
    lines += _list("citation", [found["citation"]]) + _list("terms", [found["terms"]])
    return lines


def stored_lines(found: dict[str, Any]) -> list[str]:
    """What was built or imported: where it is, what was repaired and what should be known."""
    lines = [f"{found['name']} {found['result']}: {found['samples']} samples in {found['path']}"]
    lines.append(f"fingerprint {found['fingerprint']}")
    lines += _list("repaired", [f"{what}: {count}" for what, count in found["repairs"].items()])
    return lines + _list("notes", found["notes"])


def _fold(name: str, splits: dict[str, Any]) -> list[str]:
    lines = [f"  {name}"]
    for split, part in splits.items():
        absent = f"; absent: {_pairs(part['absent'])}" if part["absent"] else ""
        size = f"{part['samples']} samples, {part['videos']} videos"
        lines.append(f"    {split:5}  {size}; {_pairs(part['classes'])}{absent}")
    return lines


def _features(name: str, features: dict[str, Any]) -> list[str]:
    lengths = features["lengths"]
    spread = f"{lengths['min']} / {lengths['median']:g} / {lengths['max']}"
    missing = f"{features['missing_frames']} of {features['frames']} frames missing"
    shape = f"{features['modality']}, {features['width']} per {features['level']}, length min / median / max {spread}"
    lines = [f"  {name}: {shape}, {missing}, {features['absent_samples']} samples absent"]
    if features["label_trained_on"]:
        lines.append(f"    trained on the labels of {features['label_trained_on']}: leaks where those are evaluated")
    return [*lines, f"    {features['description']}"] if features["description"] else lines


def _texts(found: dict[str, Any]) -> str:
    texts = found["texts"]
    parts = ["transcripts"] if texts["transcripts"] else []
    parts += [f"also {language}" for language in texts["other_languages"]]
    parts += [f"{texts['timed_words']} words with times"] if texts["timed_words"] else []
    parts += [f"token ids of {texts['token_ids']}"] if texts["token_ids"] else []
    return ", ".join(parts) or "none"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "nothing"


def _list(title: str, entries: list[str]) -> list[str]:
    entries = [entry for entry in entries if entry]
    return [title, *(f"  {entry}" for entry in entries)] if entries else []
