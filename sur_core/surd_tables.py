"""Tables of prompts as text: JSON lines and CSV. What is read here is not yet judged, see surd_rows."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from .surd_images import FolderImages
from .surd_rows import Columns, Record, RowError, SurdError, choose_columns

COLUMN_SAMPLE = 100
"""Rows of a JSON lines file whose keys are taken for its columns."""

CSV_FORM = {"strict": True, "skipinitialspace": True}
"""Strict, since a quote left open would otherwise swallow the rows that follow without a word."""

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class TextTable:
    """A ``.jsonl`` or ``.csv`` file; images, if it names any, lie in its folder."""

    unit = "line"

    def __init__(self, path: Path, wanted: Columns) -> None:
        """Raises SurdError (wrong columns or encoding), OSError."""
        self.path = path
        self._is_csv = path.suffix.lower() == ".csv"
        _check_encoding(path)
        found = self._csv_header() if self._is_csv else self._json_columns()
        self.columns = choose_columns(found, wanted, ("file_name",), path)
        self.images = FolderImages(path.parent) if self.columns.image else None

    def place(self, line: int) -> str:
        return f"{self.path.name}:{line}"

    def records(self) -> Iterator[tuple[int, Record | RowError]]:
        """(line, row) from the first to the last; a row that cannot be read is a RowError."""
        names = self.columns
        for line, values in self._csv_rows() if self._is_csv else self._json_lines():
            if isinstance(values, RowError):
                yield line, values
            elif missing := [n for n in (names.simple, names.complex) if n not in values]:
                yield line, RowError(f"missing column: no {' and no '.join(map(repr, missing))} in this row")
            else:
                image = values.get(names.image) if names.image else None
                yield line, Record(line, image, values[names.simple], values[names.complex])

    def _json_lines(self) -> Iterator[tuple[int, dict | RowError]]:
        with open(self.path, "rb") as file:
            for line, raw in enumerate(file, start=1):
                content = (raw.removeprefix(_UTF8_MARK) if line == 1 else raw).strip()
                if content:
                    yield line, _parse(content)

    def _json_columns(self) -> list[str]:
        objects = (value for _, value in self._json_lines() if isinstance(value, dict))
        found = list(dict.fromkeys(itertools.chain(*itertools.islice(objects, COLUMN_SAMPLE))))
        if not found:
            line, reason = next(self._json_lines(), (1, "the file is empty"))
            raise SurdError(
                f"{self.path}: expected one JSON object a line, found none. Line {line}: {reason}"
            )
        return found

    def _csv_header(self) -> list[str]:
        with self._open_csv() as file:
            try:
                header = next(csv.reader(file, **CSV_FORM), [])
            except csv.Error as error:
                raise SurdError(f"{self.path}: not a readable CSV header ({error})") from error
        return [name.strip() for name in header]

    def _csv_rows(self) -> Iterator[tuple[int, dict | RowError]]:
        header = self._csv_header()
        with self._open_csv() as file:
            reader = csv.reader(file, **CSV_FORM)
            next(reader)
            while True:
                line = reader.line_num + 1
                try:
                    values = next(reader, None)
                except csv.Error as error:
                    raise SurdError(
                        f"{self.path}: the row that begins in line {line} is not readable as CSV ({error}). "
                        "Look for a quotation mark that is not closed or not doubled"
                    ) from error
                if values is None:
                    return
                if values and len(values) != len(header):
                    found = f"{len(values)} fields where the header has {len(header)}"
                    yield line, RowError(f"wrong fields: {found}; quote text that has commas")
                elif values:
                    yield line, dict(zip(header, values, strict=True))

    def _open_csv(self) -> io.TextIOWrapper:
        # Bytes that are not UTF-8 survive as lone surrogates, so that only their row is put aside.
        return open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _parse(content: bytes) -> dict | RowError:
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8: byte {error.start + 1} of the line")
    except (ValueError, RecursionError) as error:
        return RowError(f"broken JSON: {error}")
    if not isinstance(value, dict):
        return RowError(f"wrong type: expected a JSON object, found {type(value).__name__}")
    return value


def _check_encoding(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(2) in _UTF16:
            raise SurdError(f"{path}: the table is UTF-16; save it as UTF-8")
