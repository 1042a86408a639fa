"""The list of rows left out: JSON lines of name, place and reason, beside the data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from .atomic import atomic_write
from .surd_rows import Quarantined, SurdError


def read_quarantine(path: Path) -> dict[str, str]:
    """{name: reason}. Raises SurdError if it is no such list, OSError if it cannot be read."""
    listed = {}
    for line, raw in enumerate(path.read_bytes().splitlines(), start=1):
        if not raw.strip():
            continue
        try:
            entry = json.loads(raw)
            listed[entry["name"]] = str(entry["reason"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SurdError(
                f"{path}: line {line} is no entry of a quarantine list (name, place, reason). Delete "
                "it if it was one, and run 'python -m train check' on the data again"
            ) from error
    return listed


def write_quarantine(path: Path, entries: Iterable[Quarantined]) -> None:
    """Replace the list, whole or not at all. Raises OSError."""
    with atomic_write(path) as file:
        for entry in entries:
            row = {"name": entry.name, "place": entry.place, "reason": entry.reason}
            file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
