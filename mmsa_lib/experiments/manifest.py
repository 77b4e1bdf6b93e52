"""What a finished folder holds: size and SHA-256 of each file, so that a crash of the machine cannot pass for a result.

``DONE`` is written last, but a machine that loses its power may keep a name and lose the content behind it. A folder
whose files differ from its manifest counts as unfinished, and is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from mmsa_lib.files import write_text

MANIFEST = "manifest.json"


def write_manifest(folder: Path, names: Iterable[str]) -> None:
    """Record the files ``names`` of ``folder``, which are complete by now."""
    record = {name: _facts(folder / name) for name in sorted(names)}
    write_text(folder / MANIFEST, json.dumps(record, indent=1, sort_keys=True) + "\n")


def damaged_files(folder: Path, needed: Iterable[str] = ()) -> list[str]:
    """Names of files in ``folder`` that are missing or differ from its manifest; the manifest itself if unreadable.

    A folder without a manifest (written by version 0.1.0) can't be checked and passes. A manifest that leaves out one
    of the files ``needed`` is damaged itself.
    """
    path = folder / MANIFEST
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        recorded = {str(name): dict(facts) for name, facts in record.items()}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return [MANIFEST]
    if not set(needed) <= set(recorded):
        return [MANIFEST]
    return [name for name, facts in recorded.items() if not _agrees(folder / name, facts)]


def _agrees(path: Path, facts: dict) -> bool:
    try:
        # The size first: it costs nothing, and a cut file is the usual damage.
        return path.stat().st_size == facts.get("size") and _facts(path) == facts
    except OSError:
        return False


def _facts(path: Path) -> dict[str, int | str]:
    now = path.stat()
    return {"size": now.st_size, "sha256": _sha256(path, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino)}


@cache
def _sha256(path: Path, *state: int) -> str:
    """Digest of a file in one ``state``: many tables may be made of the same runs in one process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
