"""The SURD data set (paper, Sec. 3.1): images with a simple and a complex prompt each.

Read from the authors' layout, from parquet files or the hub, or as prompt pairs without images. Nothing is
dropped in silence: every row left out stands in ``Surd.quarantined`` with its reason.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .images import decode_image
from .string_table import StringTable
from .surd_parquet import DatasetTable
from .surd_quarantine import read_quarantine
from .surd_rows import BadRow, Columns, Quarantined, Row, RowError, SurdError, prompt_pairs
from .surd_sources import is_hub_id, open_table, quarantine_path, source_name
from .surd_tables import TextTable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Quarantined", "Sample", "Surd", "SurdError", "open_surd", "quarantine_path"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One training pair. ``name`` is the row's file name as the table has it, or its line; further captions
    of the same image are called "name#2", "name#3", ...
    """

    index: int
    name: str
    simple: str
    complex: str
    has_image: bool


class Surd(Sequence):
    """A data set of :class:`Sample`, from :func:`open_surd`. Threads may read it together.

    Texts are held as UTF-8 blobs: 60,000 samples take about their text's size and 3 MB.

    Attributes:
        name: for people and the passport.
        source: what was opened.
        quarantined: rows left out, in the order of the table.
    """

    def __init__(self, name: str, source: Path | str, table: TextTable | DatasetTable) -> None:
        self.name, self.source = name, source
        self.quarantined: list[Quarantined] = []
        self._table = table
        self._names, self._simple, self._complex = StringTable(), StringTable(), StringTable()
        self._locators = StringTable()
        self._lines, self._captions = array("q"), array("I")
        self._kept = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Sample:
        at = self._at(index)
        return Sample(
            index=int(index) % len(self),
            name=self._name(at),
            simple=self._simple[at],
            complex=self._complex[at],
            has_image=self._table.images is not None,
        )

    @property
    def has_images(self) -> bool:
        """Whether the samples have images: all do, or none."""
        return self._table.images is not None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over every sample's name, simple and complex prompt, in order."""
        digest = hashlib.sha256()
        for at in self._kept.tolist():
            for text in (self._name(at).encode("utf-8"), self._simple.raw(at), self._complex.raw(at)):
                digest.update(len(text).to_bytes(8, "little") + text)
        return digest.hexdigest()

    def place(self, index: int) -> str:
        """File and line of a sample."""
        return self._table.place(self._lines[self._at(index)])

    def row_name(self, index: int) -> str:
        """The name of the sample's row: that of the sample without the number of its caption."""
        return self._names[self._at(index)]

    def caption_number(self, index: int) -> int:
        """0 for the first or only caption of a row, 1 for its next one."""
        return self._captions[self._at(index)]

    def image_bytes(self, index: int) -> bytes:
        """The encoded image file. Raises SurdError (no images), OSError."""
        return self._images.read(self._locators[self._at(index)])

    def image_stamp(self, index: int) -> str:
        """A cheap identity of the image: path, size and time of change of its file, or of the table that
        holds it and the row. Nothing is decoded. Raises SurdError (no images), OSError.
        """
        return self._images.stamp(self._locators[self._at(index)])

    def read_image(self, index: int) -> Image:
        """The image as upright RGB. Raises ImageError, SurdError (no images), OSError."""
        return decode_image(self.image_bytes(index), f"{self.source}: {self.row_name(index)}")

    @property
    def _images(self):
        if self._table.images is None:
            raise SurdError(
                f"{self.source}: these are prompt pairs without images. Train the align stage alone, or open "
                "a data set with images"
            )
        return self._table.images

    def _at(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.source}: no sample {index}, there are {len(self)}")
        return int(self._kept[index])

    def _name(self, at: int) -> str:
        number = self._captions[at]
        return f"{self._names[at]}#{number + 1}" if number else self._names[at]

    def _fill(self, listed: Mapping[str, str]) -> None:
        """Read the whole table; ``listed`` are rows to leave out, {name: reason}."""
        bad: list[tuple[int, Quarantined]] = []
        for row in _judged_rows(self._table):
            if isinstance(row, BadRow):
                bad.append((row.line, Quarantined(row.name, self._table.place(row.line), row.reason)))
            elif row.name in listed:
                bad.append((row.line, Quarantined(row.name, self._table.place(row.line), listed[row.name])))
            else:
                self._append(row, listed, bad)
        duplicates = self._duplicate_rows()
        bad += duplicates.items()
        self._kept = np.flatnonzero(~np.isin(np.frombuffer(self._lines, dtype=np.int64), list(duplicates)))
        self.quarantined = [entry for _, entry in sorted(bad, key=lambda pair: pair[0])]

    def _append(self, row: Row, listed: Mapping[str, str], bad: list[tuple[int, Quarantined]]) -> None:
        for number, (simple, complex_) in enumerate(row.pairs):
            name = f"{row.name}#{number + 1}"
            if number and name in listed:
                bad.append((row.line, Quarantined(name, self._table.place(row.line), listed[name])))
                continue
            self._names.append(row.name)
            self._simple.append(simple)
            self._complex.append(complex_)
            self._locators.append(row.locator)
            self._lines.append(row.line)
            self._captions.append(number)

    def _duplicate_rows(self) -> dict[int, Quarantined]:
        """Rows, by line, whose name an earlier row has. Found by sorted hashes, because a set of all names
        would for a while take as much memory as the data set.
        """
        hashes = np.fromiter((hash(self._name(at)) for at in range(len(self._names))), dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        duplicates, first = {}, -1
        for before, at in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
            if hashes[before] != hashes[at]:
                first = -1
                continue
            first = before if first < 0 else first
            if self._lines[first] != self._lines[at] and self._name(first) == self._name(at):
                duplicates.setdefault(self._lines[at], self._duplicate(first, at))
        return duplicates

    def _duplicate(self, first: int, at: int) -> Quarantined:
        same = self._pairs_of_row(first) == self._pairs_of_row(at)
        line, unit = self._lines[at], self._table.unit
        return Quarantined(
            f"{self._names[at]} ({unit} {line})",
            self._table.place(line),
            f"duplicate file name: {unit} {self._lines[first]} has it too, with "
            + ("the same prompts" if same else "other prompts; give each image its own name"),
        )

    def _pairs_of_row(self, at: int) -> list[tuple[bytes, bytes]]:
        start = stop = at
        while start and self._lines[start - 1] == self._lines[at]:
            start -= 1
        while stop < len(self._lines) and self._lines[stop] == self._lines[at]:
            stop += 1
        return [(self._simple.raw(i), self._complex.raw(i)) for i in range(start, stop)]


def open_surd(
    source: str | Path,
    split: str = "train",
    quarantine: Path | None = None,
    image_column: str = "",
    simple_column: str = "",
    complex_column: str = "",
) -> Surd:
    """Open a data set. All texts are read, no image is.

    Args:
        source: a folder with images and ``metadata.jsonl`` (``file_name``, ``text`` = simple prompt,
            ``prompt`` = complex prompt; also in a folder named after the split); a ``.parquet`` file or a
            folder of them; a ``.csv`` or ``.jsonl`` table, whose images, if it has a ``file_name`` column,
            lie beside it; or the id of a hub data set.
        split: for parquet, the hub and folders of splits.
        quarantine: a list of rows to leave out. By default :func:`quarantine_path`, if that exists.
        image_column, simple_column, complex_column: if they are not the usual ones (``text`` and ``prompt``,
            or ``simple`` and ``complex``). ``image_column="none"`` takes the prompts alone.

    Raises:
        SurdError: nothing readable there, wrong columns, or no usable row.
        OSError: a file cannot be read.
    """
    path = Path(quarantine) if quarantine else quarantine_path(source, split)
    if quarantine and not path.is_file():
        raise SurdError(f"{path}: no such quarantine list; 'python -m train check' writes one where needed")
    listed = read_quarantine(path) if path.is_file() else {}
    surd = read_surd(source, split, listed, Columns(image_column, simple_column, complex_column))
    if not len(surd):
        problems = "; ".join(f"{entry.place}: {entry.reason}" for entry in surd.quarantined[:3])
        raise SurdError(f"{source}: no usable row. {problems or 'It has no rows at all'}")
    return surd


def read_surd(source: str | Path, split: str, listed: Mapping[str, str], wanted: Columns) -> Surd:
    """:func:`open_surd` without its defaults; what is read may hold no usable row.

    Args:
        source, split: as there.
        listed: rows to leave out, {name: reason}.
        wanted: columns, "" where they are the usual ones.
    """
    table = open_table(source, split, wanted)
    surd = Surd(source_name(source), source if is_hub_id(source) else Path(source), table)
    surd._fill(listed)
    return surd


def _judged_rows(table: TextTable | DatasetTable) -> Iterator[Row | BadRow]:
    for line, record in table.records():
        name = f"{table.unit} {line}"
        try:
            if isinstance(record, RowError):
                raise record
            locator = ""
            if table.images is not None:
                name = table.images.name(record.image, line)
                locator = table.images.locate(record.image, line)
            yield Row(line, name, locator, prompt_pairs(record.simple, record.complex))
        except RowError as error:
            yield BadRow(line, name, str(error))
