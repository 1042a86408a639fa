"""The folder of an export: which of its files the export has made, so that it touches no other."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ..atomic import atomic_write
from .journal import Journal, journal_paths, read_journal
from .manifest import Manifest, SurdBuildError
from .samples import source_folders

HIDDEN = ".surd-export"
_INDEX = ("files", "index")


def check_target(manifest: Manifest, folder: Path) -> None:
    """Refuse a folder that holds somebody else's files, or that a later ``collect`` would read.

    Raises:
        SurdBuildError: it does.
        OSError: it cannot be read.
    """
    for name, source in source_folders(manifest).items():
        if folder.resolve().is_relative_to(source.resolve()):
            raise SurdBuildError(
                f"{folder}: lies within the pictures of source {name!r} ({source}), so the next 'collect' "
                "would read what is exported. Choose a folder outside"
            )
    if folder.resolve() == manifest.folder.resolve():
        raise SurdBuildError(f"{folder}: this is the work folder itself. Choose a folder of its own")
    if folder.is_dir() and not journal_paths(folder / HIDDEN, *_INDEX):
        found = sorted(entry.name for entry in folder.iterdir() if entry.name != HIDDEN)
        if found:
            raise SurdBuildError(
                f"{folder}: expected a new or empty folder, or one of an earlier export; found "
                f"{', '.join(found[:5])}{', ...' if len(found) > 5 else ''}. Choose another one"
            )


def content_mark(content: bytes) -> str:
    """What a small file's content depends on: all of it."""
    return hashlib.sha256(content).hexdigest()[:16]


class ExportFolder:
    """An open export; used with ``with``. Every name is in the index before its file is written.

    Attributes:
        folder: of the data set.
        made: files written by this run.
        kept: files found done.
        removed: files of earlier runs that are no longer wanted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = self.kept = self.removed = 0
        self._known: dict[str, tuple[str, int]] = {}
        for path in journal_paths(folder / HIDDEN, *_INDEX):
            for record in read_journal(path):
                self._remember(record)
        self._journal = Journal(folder / HIDDEN, *_INDEX)

    def __enter__(self) -> ExportFolder:
        return self

    def __exit__(self, *error) -> None:
        self._journal.__exit__(*error)

    @property
    def names(self) -> set[str]:
        """Everything this or an earlier export has made or begun."""
        return set(self._known)

    def claim(self, wanted: dict[str, str]) -> list[str]:
        """Names, of {name: what its content depends on}, that are to be written; each is ours from now on.

        Raises:
            SurdBuildError: somebody else's file has such a name.
            OSError: the index cannot be written.
        """
        todo = [name for name, of in wanted.items() if not self.is_done(name, of)]
        new = [name for name in todo if name not in self._known]
        if foreign := [name for name in new if (self.folder / name).exists()]:
            raise SurdBuildError(
                f"{self.folder / foreign[0]}: the export needs this name, but has not made this file "
                f"({len(foreign)} such). Move it away, or export to another folder"
            )
        self._note({"file": name, "of": "", "bytes": -1} for name in new)
        self.kept += len(wanted) - len(todo)
        return todo

    def is_done(self, name: str, of: str) -> bool:
        """Whether a claimed file is there as it was written, from ``of``."""
        known, size = self._known.get(name, ("", -1))
        if known != of or size < 0:
            return False
        with suppress(OSError):
            return (self.folder / name).stat().st_size == size
        return False

    def was_edited(self, name: str) -> bool:
        """Whether a small file, marked with its content's hash, has another content now."""
        mark, path = self._known.get(name, ("", -1))[0], self.folder / name
        return bool(mark) and path.is_file() and content_mark(path.read_bytes()) != mark

    def write(self, name: str, content: bytes | Callable) -> int:
        """Write a claimed file, atomic; on any thread.

        Args:
            content: its bytes, or a function that writes them to a binary file.

        Returns:
            its size.
        """
        with atomic_write(self.folder / name) as file:
            content(file) if callable(content) else file.write(content)
            return file.tell()

    def done(self, written: Iterable[tuple[str, str, int]]) -> None:
        """Note files as done: (name, what its content depends on, size)."""
        records = [{"file": name, "of": of, "bytes": size} for name, of, size in written]
        self._note(records)
        self.made += len(records)

    def keep_only(self, wanted: set[str]) -> None:
        """Remove files of earlier exports that are no longer wanted or half written, and folders that are
        empty then.
        """
        old = sorted(self.names - wanted)
        for name in old:
            path = self.folder / name
            path.unlink(missing_ok=True)
            for parent in list(Path(name).parents)[:-1]:
                with suppress(OSError):  # not empty
                    (self.folder / parent).rmdir()
        for place in (".", "images/*", "data"):
            for half in self.folder.glob(f"{place}/.unfinished-*.tmp"):  # of an export that was killed
                half.unlink(missing_ok=True)
        self._note({"file": name, "gone": True} for name in old)
        self.removed += len(old)

    def check_space(self, needed: int) -> None:
        """Refuse to begin what the disk cannot hold. Raises SurdBuildError."""
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise SurdBuildError(
                f"{self.folder}: the export needs about {needed / 1e9:.2f} GB, the disk has {free / 1e9:.2f} "
                "GB left. Free some, choose another disk, a smaller --resolution or --image-format jpg"
            )

    def _note(self, records: Iterable[dict]) -> None:
        records = list(records)
        self._journal.append(records)
        for record in records:
            self._remember(record)

    def _remember(self, record: dict) -> None:
        if record.get("gone"):
            self._known.pop(record["file"], None)
        else:
            self._known[record["file"]] = (record["of"], record["bytes"])
