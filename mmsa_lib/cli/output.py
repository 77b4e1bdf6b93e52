"""What commands print: JSON for programs, aligned text for people."""

from __future__ import annotations

import json
import math
import sys
from typing import Any


def print_json(content: Any) -> None:
    """One JSON document on stdout; a number that is not finite becomes ``null``."""
    print(json.dumps(_plain(content), indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """One line for the reader, on stderr."""
    print(text, file=sys.stderr)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
