"""The picture files under a folder, in an order that depends on their names only."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..surd_images import IMAGE_SUFFIXES
from ..surd_rows import Quarantined

SIDECAR_SUFFIXES = (".txt",)
"""Endings of files that may hold a picture's prompt: after its name without or with its own ending."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A picture's path under the folder, with "/", and its stamp: "size|mtime_ns", a sidecar's behind it."""

    path: str
    stamp: str


@dataclass
class Walk:
    """What a walk has found.

    Attributes:
        files: sorted by path.
        skipped: what was left out though it could hold pictures, with the reason.
        unread: files, and folders with a "/" behind, of whose content nothing is known.
        others: how many files, sidecars aside, have which ending that is no picture's.
    """

    files: list[FoundFile] = field(default_factory=list)
    skipped: list[Quarantined] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)


def walk(folder: Path, leave_out: Path | None = None) -> Walk:
    """Every picture under ``folder``. Links are followed, no folder is read twice, real places come first.

    Hidden files and folders (".name"), ``leave_out``, broken links and unreadable folders are skipped, and
    said.

    Raises:
        OSError: ``folder`` itself cannot be read.
    """
    found = Walk()
    os.scandir(folder).close()
    seen = {_identity(leave_out)} if leave_out is not None and leave_out.exists() else set()
    folders, links = [""], []
    while folders or links:
        inside = folders.pop() if folders else links.pop(0)
        try:
            identity = _identity(folder / inside)
            if identity in seen:
                found.skipped.append(
                    _skipped(inside, "read already: the work folder, or a link to known files")
                )
                continue
            seen.add(identity)
            inner = list(_read_folder(folder, inside, found))
        except OSError as error:
            found.skipped.append(_skipped(inside, f"unreadable folder: {error.strerror}"))
            found.unread.append(inside)
            continue
        folders += [name for name, linked in inner if not linked]
        links = sorted([*links, *(name for name, linked in inner if linked)])
    found.files.sort(key=lambda file: file.path)
    found.skipped.sort(key=lambda entry: entry.name)
    return found


def _read_folder(folder: Path, inside: str, found: Walk) -> Iterator[tuple[str, bool]]:
    """Its pictures go to ``found``; its folders are given, with whether they are links."""
    with os.scandir(folder / inside) as scan:
        entries = {entry.name: entry for entry in scan}
    for name, entry in sorted(entries.items()):
        path = inside + name
        suffix = os.path.splitext(name)[1].lower()
        try:
            status = entry.stat()
        except OSError as error:
            what = "broken link" if isinstance(error, FileNotFoundError) else "unreadable file"
            found.skipped.append(_skipped(path, f"{what}: {error.strerror}"))
            if what != "broken link":
                found.unread.append(path)
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        if name.startswith("."):
            if is_folder or suffix in IMAGE_SUFFIXES:
                found.skipped.append(_skipped(path, f"hidden {'folder' if is_folder else 'file'}: not read"))
        elif is_folder:
            yield path + "/", entry.is_symlink()
        elif suffix not in IMAGE_SUFFIXES:
            if not _is_sidecar(name, entries):
                found.others[suffix] += 1
        elif not stat.S_ISREG(status.st_mode):
            found.skipped.append(_skipped(path, "no file: a pipe, socket or device"))
        else:
            found.files.append(FoundFile(path, _stamp(status) + _sidecar_stamps(name, entries)))


def _is_sidecar(name: str, entries: dict[str, os.DirEntry]) -> bool:
    stem, suffix = os.path.splitext(name)
    if suffix not in SIDECAR_SUFFIXES:
        return False
    return stem in entries or any(stem + ending in entries for ending in IMAGE_SUFFIXES)


def _sidecar_stamps(name: str, entries: dict[str, os.DirEntry]) -> str:
    stamps = ""
    for suffix in SIDECAR_SUFFIXES:
        for beside in (os.path.splitext(name)[0] + suffix, name + suffix):
            if beside in entries:
                try:
                    stamps += "|" + _stamp(entries[beside].stat())
                    if not os.access(entries[beside].path, os.R_OK):  # rights leave the time alone
                        stamps += "|unreadable"
                except OSError:
                    stamps += "|unreadable"
    return stamps


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}|{status.st_mtime_ns}"


def _identity(path: Path) -> object:
    status = os.stat(path)
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def _skipped(path: str, reason: str) -> Quarantined:
    return Quarantined(path, path, reason)
