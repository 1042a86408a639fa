"""Tables that say which prompts belong to which files: JSON lines, and JSON as :mod:`.civitai` knows it."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..surd_rows import PROMPT_COLUMNS, Quarantined, RowError, check_text, prompt_pairs
from .civitai import civitai_rows
from .manifest import SurdBuildError
from .ratings import read_marks, stricter
from .walk import FoundFile, Walk

TABLE_NAMES = ("metadata.jsonl", "data.json")
MAX_BYTES = 1 << 30
ROWS_LOOKED_AT = 100
_SPACE = " \t\r\n\ufeff\x1e"
_ROW = tuple[str, tuple[str, ...], dict]


@dataclass(frozen=True)
class TableFile:
    """A picture a table is about, with what the table says of it."""

    file: FoundFile
    values: dict[str, Any]


def match_table(table: Path, images: Walk) -> tuple[list[TableFile], list[Quarantined]]:
    """A table's rows with the files they mean, and what could not be used of it.

    Several rows about one file are further captions where they have plain prompts; otherwise the first one
    with a prompt counts.

    Raises:
        SurdBuildError: not a table of a known kind.
        OSError: it cannot be read.
    """
    index, matched, skipped = _Index(images.files), {}, []
    rows = 0
    for row in read_rows(table):
        rows += 1
        if isinstance(row, Quarantined):
            skipped.append(row)
            continue
        place, names, values = row
        try:
            file = index.find(names)
            if file.path in matched:
                before = _marked(matched[file.path].values, values)
                matched[file.path] = TableFile(file, before)  # a repeated row's marks count as well
                values = _joined(before, values)
            matched[file.path] = TableFile(file, values)
        except RowError as error:
            skipped.append(Quarantined(names[0], place, str(error)))
    if not rows:
        raise SurdBuildError(
            f"{table}: no rows found. Expected JSON lines with file_name and prompt (and text, the plain "
            "prompt, if there is one), the authors' data.json, or pages of the Civitai API as they were saved"
        )
    return [matched[path] for path in sorted(matched)], skipped


def images_folder(table: Path) -> Path:
    """Where a table's images lie unless said otherwise: in its folder, or, as the authors have it, in one
    called "image" or "images" inside or beside it. Raises OSError: the table cannot be read.
    """
    here = table.parent
    if _names_paths(table):
        return here
    for folder in (here / "image", here / "images", here.parent / "image", here.parent / "images"):
        if folder.is_dir():
            return folder
    return here


def _names_paths(table: Path) -> bool:
    """Whether its first rows name files by their way from the table, as in "images/a.png"."""
    if table.suffix.lower() != ".jsonl":
        return False
    rows = (row for row in islice(read_rows(table), ROWS_LOOKED_AT) if not isinstance(row, Quarantined))
    paths = (name.replace("\\", "/") for _, names, _ in rows for name in names)
    return any("/" in path and os.path.isfile(table.parent / path) for path in paths)


def read_rows(table: Path) -> Iterator[_ROW | Quarantined]:
    """(place, names of the file, values) of every row. Raises SurdBuildError, OSError."""
    if table.stat().st_size > MAX_BYTES:
        raise SurdBuildError(f"{table}: larger than {MAX_BYTES >> 30} GB; split it into several files")
    if table.suffix.lower() == ".jsonl":
        yield from _json_lines(table)
    else:
        for number, document in enumerate(_documents(table), start=1):
            yield from civitai_rows(document, f"{table.name}: page {number}")


def _json_lines(table: Path) -> Iterator[_ROW | Quarantined]:
    with open(table, "rb") as file:
        for line, raw in enumerate(file, start=1):
            content, place = raw.removeprefix(b"\xef\xbb\xbf").strip(), f"{table.name}:{line}"
            if not content:
                continue
            try:
                value = _parse_line(content)
                if "file_name" in value:
                    yield place, (_file_name(value),), _values(value)
                else:
                    yield from _other_line(value, place)
            except RowError as error:
                yield Quarantined(place, place, str(error))


def _other_line(value: dict, place: str) -> Iterator[_ROW | Quarantined]:
    """A page or an item of Civitai's in one line."""
    rows = list(civitai_rows(value, place))
    if not rows and "items" not in value:
        raise RowError("missing column: the row has no file_name")
    yield from rows


def _parse_line(content: bytes) -> dict:
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: byte {error.start + 1} of the line") from error
    except (ValueError, RecursionError) as error:
        raise RowError(f"broken JSON: {error}") from error
    if not isinstance(value, dict):
        raise RowError(f"wrong type: expected a JSON object, found {type(value).__name__}")
    return value


def _file_name(value: dict) -> str:
    name = value["file_name"]
    if name is None or name == "":
        raise RowError("missing image: the row names no file")
    return check_text(name, "the file name")


def _values(row: dict) -> dict[str, Any]:
    """What a row of a SURD table says. Raises RowError."""
    simple, complex_ = _prompts(row)
    pairs = prompt_pairs(simple, complex_) if simple is not None and complex_ is not None else ()
    simples, complexes = ([pair[side] for pair in pairs] for side in (0, 1))
    if not pairs:  # one side alone, which may be a list too
        simples = [] if simple is None else [pair[0] for pair in prompt_pairs(simple, "-")]
        complexes = [] if complex_ is None else [pair[1] for pair in prompt_pairs("-", complex_)]
    values = {"metadata": "table", "prompt": complexes[0]} if complexes else {}
    values |= {"simple": simples, "prompts": complexes if len(set(complexes)) > 1 else []}
    for name, keys in _FURTHER.items():
        keys = keys[:-1] if name == "origin" and _is_exported(row) else keys
        found = next((row[key] for key in keys if isinstance(row.get(key), str) and row[key]), None)
        if found is not None:
            values[name] = check_text(found, name)
    return _marked(values, dict(zip(("rating", "nsfw"), read_marks(row), strict=True)))


_FURTHER = {
    "negative": ("negative_prompt", "negative", "negativePrompt"),
    "license": ("license", "licence"),
    "origin": ("origin", "url", "source"),
}
_SAMPLE_ID = re.compile(r"[0-9a-f]{20}(-[0-9a-f]{1,8})?")


def _is_exported(row: dict) -> bool:
    """Whether the row is one of our own export's, whose ``source`` is no origin but a source's name."""
    id = row.get("id")
    return isinstance(id, str) and bool(_SAMPLE_ID.fullmatch(id)) and _stem(row["file_name"]).endswith(id)


def _marked(values: dict, other: dict) -> dict:
    """``values`` with the stricter marks of both. Raises RowError."""
    both = ((of.get("rating", ""), of.get("nsfw")) for of in (values, other))
    rating, nsfw = stricter(*both)
    marks = {"rating": check_text(rating, "the rating"), "nsfw": nsfw}
    return values | {name: mark for name, mark in marks.items() if mark not in ("", None)}


def _prompts(row: dict) -> tuple[object, object]:
    for simple, complex_ in PROMPT_COLUMNS:
        if simple in row or complex_ in row:
            return row.get(simple) or None, row.get(complex_) or None
    return None, None


def _joined(before: dict, values: dict) -> dict:
    """Two rows of one file. Raises RowError: the second one adds nothing."""
    old, new = before.get("simple") or [], values.get("simple") or []
    if old and new:
        known = list(zip(old, _complexes(before), strict=True))
        further = [pair for pair in zip(new, _complexes(values), strict=True) if pair not in known]
        if further:
            simples, complexes = (list(side) for side in zip(*known, *further, strict=True))
            return before | {"simple": simples, "prompts": complexes if len(set(complexes)) > 1 else []}
    elif values.get("prompt") and not before.get("prompt"):
        return _marked(values, before)
    raise RowError("repeated row: an earlier row is about the same file")


def _complexes(values: dict) -> list[str]:
    return values.get("prompts") or [values.get("prompt", "")] * len(values["simple"])


class _Index:
    """Files by their path, by their name alone, and both without the ending, in this order."""

    def __init__(self, files: list[FoundFile]) -> None:
        self._known: list[dict[str, list[FoundFile]]] = [defaultdict(list) for _ in range(4)]
        for file in files:
            name = file.path.rpartition("/")[2]
            for known, key in zip(self._known, (file.path, _stem(file.path), name, _stem(name)), strict=True):
                known[key.casefold()].append(file)

    def find(self, names: tuple[str, ...]) -> FoundFile:
        """Raises RowError: none, or more than one."""
        for name in (name.replace("\\", "/").removeprefix("./") for name in names):
            for known in self._known:
                found = known.get(name.casefold(), [])
                exact = [file for file in found if file.path == name]
                if len(found) > 1 and not exact:
                    listed = " and ".join(file.path for file in found[:3])
                    raise RowError(f"ambiguous image: {listed} fit {name!r}; name one")
                if found:
                    return (exact or found)[0]
        raise RowError(f"missing image: no file called {' or '.join(map(repr, names[:4]))}")


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def _documents(table: Path) -> Iterator[object]:
    """JSON values one after another. Raises SurdBuildError."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SurdBuildError(f"{table}: not UTF-8 at byte {error.start + 1}; save it as UTF-8") from error
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        if at == len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise SurdBuildError(
                f"{table}: not readable as JSON ({error}). Save the answer again, or cut off what is broken"
            ) from error
        yield value
