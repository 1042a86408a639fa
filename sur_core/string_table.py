"""Many strings in little memory: one UTF-8 blob and where each string ends."""

from __future__ import annotations

from array import array
from collections.abc import Sequence


class StringTable(Sequence):
    """An append-only list of strings, 8 bytes each beside their UTF-8 text.

    A Python string costs some 50 bytes more than its text and a reference; forked workers would copy all of
    them by touching their counts.
    """

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends = array("q", [0])

    def append(self, text: str) -> None:
        """Raises UnicodeEncodeError, and changes nothing, if the text is no valid Unicode."""
        self._blob += text.encode("utf-8")
        self._ends.append(len(self._blob))

    def raw(self, index: int) -> bytes:
        """UTF-8 of string ``index``, 0..len-1."""
        return bytes(self._blob[self._ends[index] : self._ends[index + 1]])

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"string {index} of {len(self)}")
        return self.raw(index).decode("utf-8")

    def __len__(self) -> int:
        return len(self._ends) - 1
