"""One reviewer writes; everybody's decisions are read together."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ...atomic import atomic_write
from ..manifest import SurdBuildError
from ..reviews import (
    Action,
    Decision,
    Opinion,
    check_reviewer,
    combine,
    header_line,
    log_path,
    log_paths,
    opinion_of,
    opinions_of,
    read_log,
    standing,
)

logger = logging.getLogger(__name__)


class UnknownUndo(ValueError):
    """There is nothing of this reviewer's to take back at this sample."""


class Book:
    """Decisions about the samples of a work folder, with one reviewer's log open for more. For threads.

    Attributes:
        reviewer: who writes.
        path: the reviewer's log.
    """

    def __init__(self, folder: Path, reviewer: str) -> None:
        """Raises SurdBuildError: a log is damaged, or the reviewer's is open elsewhere; OSError."""
        self.folder, self.reviewer = Path(folder), check_reviewer(reviewer)
        self.path = log_path(folder, reviewer)
        self._guard = threading.RLock()
        self._hold = hold_log(self.path)
        try:
            self._file, log = open_log(self.path, reviewer)
            self._own: dict[str, list[Action]] = {}
            self._marks: dict[str, str] = {}
            self._last = ""
            for action in log.actions:
                self._remember(action)
            self._others: dict[Path, tuple[tuple[int, int], str, dict[str, Opinion]]] = {}
            self.refresh()
        except BaseException:
            self._hold.release()
            raise

    def close(self) -> None:
        with self._guard:
            self._file.close()
            self._hold.release()

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def act(self, id: str, action: str, mark: str, simple: str = "", complex: str = "") -> bool:
        """Put an action on the disk; only then it counts.

        Returns:
            False if this very action, by its mark, is there already.

        Raises:
            UnknownUndo: there is nothing to take back.
            OSError: it cannot be written; the log is as it was.
        """
        with self._guard:
            if mark in self._marks:
                return False
            of = ""
            if action == "undo":
                before = standing(self._own.get(id, ()))
                if not before:
                    raise UnknownUndo(f"{self.reviewer} has decided nothing about this sample to take back")
                of = before[-1].mark
            done = Action(mark, id, action, self._now(), simple, complex, of)
            append_whole(self._file, done.line())
            self._remember(done)
            return True

    def decision(self, id: str) -> Decision | None:
        """Everybody's word about a sample."""
        with self._guard:
            opinions = {name: found[id] for _, name, found in self._others.values() if id in found}
            if own := opinion_of(self._own.get(id, ())):
                opinions[self.reviewer] = own
            return combine(opinions)

    def own_verdict(self, id: str) -> str:
        with self._guard:
            return opinion_of(self._own.get(id, ())).get("verdict", ("", ""))[1]

    def decided(self) -> set[str]:
        """Ids about which anybody has said anything."""
        with self._guard:
            return set(self._own).union(*(found for _, _, found in self._others.values()))

    def history(self, count: int) -> list[str]:
        """Samples of the reviewer's last actions that are not undone, oldest first, one for each action."""
        with self._guard:
            actions = standing(action for own in self._own.values() for action in own)
            return [action.id for action in actions[-count:]]

    def refresh(self) -> set[str]:
        """Read other people's logs again where they have changed; ids that may have another decision now."""
        with self._guard:
            before, now, changed = self._others, {}, set()
            for path in log_paths(self.folder):
                if path == self.path:
                    continue
                status = path.stat()
                stamp = (status.st_size, status.st_mtime_ns)
                now[path] = before.get(path)
                if now[path] is None or now[path][0] != stamp:
                    log = read_log(path)
                    now[path] = stamp, log.reviewer, opinions_of(log.actions)
            for path in before.keys() | now.keys():
                if before.get(path) is not now.get(path):
                    changed.update(*(found[path][2] for found in (before, now) if path in found))
            self._others = now
            return changed

    def _remember(self, action: Action) -> None:
        self._own.setdefault(action.id, []).append(action)
        self._marks[action.mark] = action.id
        self._last = max(self._last, action.at)

    def _now(self) -> str:
        """The time, or just after the log's last line: clocks are set back, but the newest word counts."""
        now = datetime.now(timezone.utc)
        if self._last:
            now = max(now, datetime.fromisoformat(self._last) + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")


def hold_log(path: Path):
    """A held lock on a reviewer's log. Raises SurdBuildError: another program has it open."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.stem}.lock"), thread_local=False)
    try:
        return lock.acquire(timeout=0).lock
    except Timeout:
        raise SurdBuildError(
            f"{path}: another review has this log open. Use the page that is open already, or give another "
            "--reviewer"
        ) from None


def open_log(path: Path, reviewer: str, name: str = ""):
    """(file to append to, the log as it is), made if missing. The caller holds it."""
    if not path.exists():
        with atomic_write(path) as file:
            file.write(header_line(reviewer, name or secrets.token_hex(8)))
    log = read_log(path)
    if log.reviewer != reviewer:
        raise SurdBuildError(
            f"{path}: this is the log of {log.reviewer!r}, not of {reviewer!r}; give another --reviewer"
        )
    file = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by the caller
    if file.seek(0, os.SEEK_END) > log.whole:
        logger.warning("%s: its last line was torn by a crash and is cut off", path)
        file.truncate(log.whole)
    return file, log


def append_whole(file, line: bytes) -> None:
    """Append and flush to the disk. Raises OSError; nothing of the line is left then."""
    start = file.seek(0, os.SEEK_END)
    try:
        written = 0
        while written < len(line):  # a full disk takes a part and says so at the next call only
            written += file.write(line[written:])
        os.fsync(file.fileno())
    except OSError as error:
        file.truncate(start)
        raise type(error)(
            error.errno, f"the decision could not be written ({error.strerror})", file.name
        ) from error
