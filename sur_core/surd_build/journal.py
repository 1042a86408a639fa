"""Results of a step in progress: appended as they come, and kept when the process is killed.

A journal belongs to one step with one set of settings and one process. The last line of a killed writer may
be torn; it is left out when reading, and cut off before more is written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from .manifest import to_line

JOURNALS = "journals"
SYNC_SECONDS = 1.0
"""At most so much work is lost when the machine loses power; a killed process loses one batch."""


class Journal:
    """Append-only; used with ``with``. Raises OSError; what was appended before it is still whole."""

    def __init__(self, folder: Path, step: str, settings: str, process: tuple[int, int] = (0, 1)) -> None:
        rank, count = process
        self.path = Path(folder) / JOURNALS / f"{step}-{settings}-{rank}-of-{count}.jsonl"
        self._synced = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._file.truncate(_whole_length(self.path))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def append(self, records: Iterable[dict]) -> None:
        data = b"".join(to_line(record) for record in records)
        start = self._file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(data):  # a full disk takes a part and says so at the next call only
                written += self._file.write(data[written:])
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            self._file.truncate(start)
            raise type(error)(
                error.errno,
                f"could not write ({error.strerror}); what was done before is kept, the same command goes on",
                str(self.path),
            ) from error


def journal_paths(folder: Path, step: str, settings: str) -> list[Path]:
    """Journals of a step with these settings, of however many processes."""
    return sorted((Path(folder) / JOURNALS).glob(f"{step}-{settings}-*-of-*.jsonl"))


def read_journal(path: Path) -> list[dict]:
    """All whole records of a journal."""
    with open(path, "rb") as file:
        return [json.loads(line.decode("utf-8", "surrogatepass")) for line in file if line.endswith(b"\n")]


def _whole_length(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with open(path, "rb") as file:
        at = file.seek(0, os.SEEK_END)
        while at:
            start = max(0, at - 65536)
            file.seek(start)
            found = file.read(at - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            at = start
    return 0
