"""Where a data set's images lie: in files beside the table, or inside it.

Each kind of store takes the image cell of a row (``name``, ``locate``) and from then on a short string, the
locator (``read``, ``stamp``).
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from .surd_rows import RowError, check_text

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


class FolderImages:
    """Image files under one folder. The cell is a file name, with or without extension; so is the locator,
    with it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._suffixes: dict[str, list[str]] = {}

    def name(self, cell: object, line: int) -> str:
        """Raises RowError."""
        if cell is None or cell == "":
            raise RowError("missing image: the row names no file")
        return check_text(cell, "the file name")

    def locate(self, cell: str, line: int) -> str:
        """The path under the folder. Raises RowError: it leads out of it, or not to exactly one file."""
        _check_inside(cell)
        if os.path.isfile(self.folder / cell):
            return cell
        candidates = {}
        for suffix in self._suffixes_beside(cell):
            path = self.folder / (cell + suffix)
            if os.path.isfile(path):
                status = os.stat(path)
                # By identity, as file systems that ignore case find cat.png also as cat.PNG.
                candidates.setdefault((status.st_dev, status.st_ino), cell + suffix)
        if len(candidates) > 1:
            raise RowError(
                f"ambiguous image: {' and '.join(candidates.values())} both fit {cell!r}; name one"
            )
        if not candidates:
            raise RowError(f"missing image: no file {cell!r} in {self.folder}, with or without extension")
        return next(iter(candidates.values()))

    def read(self, locator: str) -> bytes:
        path = self.folder / locator
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            words = "the image has gone since the data set was opened; put it back, or check the data again"
            raise FileNotFoundError(error.errno, words, str(path)) from error

    def stamp(self, locator: str) -> str:
        return file_stamp(self.folder / locator)

    def _suffixes_beside(self, cell: str) -> list[str]:
        """The extensions of images in the cell's folder, as they are written there."""
        parent = os.path.dirname(cell)
        if parent not in self._suffixes:
            found = set()
            if os.path.isdir(self.folder / parent):
                with os.scandir(self.folder / parent) as entries:
                    found = {os.path.splitext(entry.name)[1] for entry in entries}
            self._suffixes[parent] = sorted(s for s in found if s.lower() in IMAGE_SUFFIXES)
        return self._suffixes[parent]


def file_stamp(path: Path) -> str:
    """Path, size and time of change: another stamp, another file. Raises OSError if it is gone."""
    status = os.stat(path)
    return f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"


def _check_inside(name: str) -> None:
    """Judged as written, also as Windows would read it. Links inside the folder are the user's own."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.anchor or ".." in path.parts or "\0" in name:
            raise RowError(f"unsafe path: {name!r} leads out of the data folder; use names inside it")
