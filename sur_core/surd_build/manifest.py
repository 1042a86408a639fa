"""The manifest of a data set in the making: what every step has found, one JSON object a line.

A record has ``step``, ``key`` (what it is about), ``settings`` and ``of`` (hashes of what it depends on) and
the step's own values. Records are only added; of several with one step and key the last counts. The file is
replaced whole at every addition, so that it is never half written; a step in progress keeps its results in
journals (:mod:`.journal`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..atomic import atomic_write
from ..surd_rows import SurdError

MANIFEST_NAME = "manifest.jsonl"
_HEADER = {"format": "surd-manifest", "version": 1}


class SurdBuildError(SurdError):
    """A step cannot be done. The message names the file or setting, what was found, and what to do."""


class Manifest:
    """The records of one work folder; read at once, which takes about three times the file's size of memory.

    Attributes:
        folder: the work folder.
        path: the file, which need not be there yet.
    """

    def __init__(self, folder: str | Path) -> None:
        """Raises SurdBuildError: the file is no manifest; OSError: it cannot be read."""
        self.folder = Path(folder)
        self.path = self.folder / MANIFEST_NAME
        self._last: dict[str, dict[str, dict]] = {}
        if self.path.exists():
            for record in _read(self.path):
                self._remember(record)

    def records(self, step: str) -> Mapping[str, dict]:
        """{key: last record} of a step, in the order in which the keys came first."""
        return self._last.get(step, {})

    def record(self, step: str, key: str) -> dict | None:
        """The last record of a step about ``key``."""
        return self._last.get(step, {}).get(key)

    def add(self, records: Iterable[dict]) -> int:
        """Append records, all or none; those that say what the last one said already are left out.

        Returns:
            how many were new.

        Raises:
            OSError: the file cannot be written; what was there stays.
        """
        new = [record for record in records if self.record(record["step"], record["key"]) != record]
        if not new:
            return 0
        with atomic_write(self.path) as file:
            if self.path.exists():
                with open(self.path, "rb") as old:
                    shutil.copyfileobj(old, file, 1 << 20)
            else:
                file.write(to_line(_HEADER))
            for record in new:
                file.write(to_line(record))
        for record in new:
            self._remember(record)
        return len(new)

    def _remember(self, record: dict) -> None:
        self._last.setdefault(record["step"], {})[record["key"]] = record


def to_line(record: Mapping) -> bytes:
    """A record as its line. Raises ValueError: a number is not finite."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass") + b"\n"


def hash_of(*values: object) -> str:
    """A short hash of anything JSON can write; what a result depends on."""
    text = json.dumps(values, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def _read(path: Path) -> Iterator[dict]:
    with open(path, "rb") as file:
        if _parse(file.readline()) != _HEADER:
            raise SurdBuildError(
                f"{path}: no manifest of this program: its first line should be {json.dumps(_HEADER)}. "
                "Choose another work folder, or a newer version of this program if it was made by one"
            )
        for line, content in enumerate(file, start=2):
            record = _parse(content)
            if not isinstance(record, dict) or not {"step", "key"} <= record.keys():
                raise SurdBuildError(
                    f"{path}: line {line} is no record (a JSON object with step and key). Something else "
                    "has changed the file; restore it from a copy, or delete it and collect again"
                )
            yield record


def _parse(content: bytes) -> object:
    try:
        return json.loads(content.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
