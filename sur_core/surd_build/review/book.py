"""One reviewer writes; everybody's decisions are read together."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from ...atomic import atomic_write
from ..manifest import SurdBuildError
from ..reviews import (
    Action,
    Decision,
    check_reviewer,
    decide,
    header_line,
    log_path,
    log_paths,
    read_log,
    standing,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OtherLog:
    """A log that somebody else writes, or a copy of the own one, as last read: its file's ``stamp``, whose it
    is, and {sample id: actions}.
    """

    stamp: tuple[int, int]
    reviewer: str
    actions: Mapping[str, list[Action]]


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
            self._marks: set[str] = set()
            self._last = ""
            for action in log.actions:
                self._remember(action)
            self._others: dict[Path, OtherLog] = {}
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

    def act(
        self,
        id: str,
        action: str,
        mark: str,
        simple: str = "",
        complex: str = "",
        was: Mapping[str, str] | None = None,
    ) -> bool:
        """Put an action on the disk; only then it counts.

        Args:
            was: :func:`..reviews.fingerprints` of what a "keep" or "edit" is about; without, it counts for
                whatever prompts the sample gets.

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
                before = standing(self._mine(id))
                if not before:
                    raise UnknownUndo(f"{self.reviewer} has decided nothing about this sample to take back")
                of = before[-1].mark
            about = {f"{text}_was": value for text, value in (was or {}).items()}
            about = about if action in ("keep", "edit") else {}
            done = Action(mark, id, action, self._now(), simple, complex, of, **about)
            append_whole(self._file, done.line())
            self._remember(done)
            return True

    def decision(self, id: str, now: Mapping[str, str] | None = None) -> Decision | None:
        """Everybody's word about a sample. ``now``: as :func:`..reviews.decide`."""
        with self._guard:
            said: dict[str, list[Action]] = {}
            for log in self._others.values():
                said.setdefault(log.reviewer, []).extend(log.actions.get(id, ()))
            return decide({**said, self.reviewer: self._mine(id)}, now)

    def own_verdict(self, id: str, now: Mapping[str, str] | None = None) -> str:
        with self._guard:
            decision = decide({self.reviewer: self._mine(id)}, now)
            return decision.verdict if decision else ""

    def decided(self) -> set[str]:
        """Ids about which anybody has said anything."""
        with self._guard:
            return set(self._own).union(*(log.actions for log in self._others.values()))

    def history(self, count: int) -> list[str]:
        """Samples of the reviewer's last actions that are not undone, oldest first, one for each action."""
        with self._guard:
            logs = [self._own, *(log.actions for log in self._copies())]
            actions = standing(action for log in logs for found in log.values() for action in found)
            return [action.id for action in actions[-count:]]

    def refresh(self) -> set[str]:
        """Read the other logs again where they have changed; ids that may have another decision now."""
        with self._guard:
            before, now, changed = self._others, {}, set()
            for path in log_paths(self.folder):
                if path == self.path:
                    continue
                status = path.stat()
                stamp = (status.st_size, status.st_mtime_ns)
                now[path] = before.get(path)
                if now[path] is None or now[path].stamp != stamp:
                    now[path] = _read_other(path, stamp)
            for path in before.keys() | now.keys():
                if before.get(path) is not now.get(path):
                    changed.update(*(found[path].actions for found in (before, now) if path in found))
            self._others = now
            for log in self._copies():
                times = (action.at for found in log.actions.values() for action in found)
                self._last = max(self._last, *times, "")
            return changed

    def _copies(self) -> list[OtherLog]:
        """Other files of the same reviewer, as programs leave them that keep two machines' folders alike."""
        return [log for log in self._others.values() if log.reviewer == self.reviewer]

    def _mine(self, id: str) -> list[Action]:
        found = [*self._own.get(id, ())]
        for log in self._copies():
            found += log.actions.get(id, ())
        return found

    def _remember(self, action: Action) -> None:
        self._own.setdefault(action.id, []).append(action)
        self._marks.add(action.mark)
        self._last = max(self._last, action.at)

    def _now(self) -> str:
        """The time, or just after the log's last line: clocks are set back, but the newest word counts."""
        now = datetime.now(timezone.utc)
        if self._last:
            now = max(now, datetime.fromisoformat(self._last) + timedelta(microseconds=1))
        return now.isoformat(timespec="microseconds")


def _read_other(path: Path, stamp: tuple[int, int]) -> OtherLog:
    log, actions = read_log(path), {}
    for action in log.actions:
        actions.setdefault(action.id, []).append(action)
    return OtherLog(stamp, log.reviewer, actions)


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
