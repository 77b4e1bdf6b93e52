"""Which runs a process made or found finished: how a sweep learns what a notebook of its has run."""

from __future__ import annotations

import json
import os
from pathlib import Path

RUN_LOG = "MMSA_LIB_RUN_LOG"
"""Environment variable that names the file; without it nothing is written."""


def log_run(folder: Path) -> None:
    """Add a finished run's folder to the log that the environment asks for."""
    if path := os.environ.get(RUN_LOG):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(str(folder.resolve())) + "\n")


def logged_runs(path: Path) -> list[Path]:
    """The folders in the log ``path``, each once, in order; none without a log."""
    if not path.is_file():
        return []
    return [Path(json.loads(line)) for line in dict.fromkeys(path.read_text(encoding="utf-8").splitlines())]
