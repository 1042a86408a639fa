"""Where pictures come from: folders and tables, each under a name that its files keep when it is moved."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..surd_rows import Quarantined
from .manifest import Manifest, SurdBuildError
from .samples import SOURCE
from .tables import TABLE_NAMES, images_folder, match_table
from .walk import FoundFile, walk

FOLDER, TABLE, CIVITAI = "folder", "table", "civitai"
TABLE_SUFFIXES = (".jsonl", ".json")


@dataclass(frozen=True)
class Source:
    """A folder of pictures, or a table about pictures in a folder.

    Attributes:
        name: in keys; its own for every source.
        folder: of the images, absolute.
        table: the table's file, absolute; None for a folder that is read as it is.
    """

    name: str
    folder: Path
    table: Path | None = None

    @property
    def kind(self) -> str:
        if self.table is None:
            return FOLDER
        return TABLE if self.table.suffix.lower() == ".jsonl" or self.table.name == "data.json" else CIVITAI

    @property
    def place(self) -> Path:
        """What the user named."""
        return self.table or self.folder

    def record(self) -> dict[str, Any]:
        table = {"table": str(self.table)} if self.table else {}
        return {"step": SOURCE, "key": self.name, "folder": str(self.folder), "kind": self.kind, **table}


@dataclass
class Found:
    """What is there of a source now.

    Attributes:
        source: which one.
        files: pictures, each with what a table says of it.
        skipped: what was left out, with the reason.
        unread: files, and folders with "/" behind, of whose content nothing is known.
        others: how many files have which ending that is no picture's.
        missing: why the source could not be looked at, "" if it could.
    """

    source: Source
    files: list[tuple[FoundFile, dict[str, Any]]] = field(default_factory=list)
    skipped: list[Quarantined] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    missing: str = ""


def known_sources(manifest: Manifest) -> dict[str, Source]:
    """{name: source} of all sources collected so far."""
    return {
        name: Source(name, Path(record["folder"]), Path(record["table"]) if "table" in record else None)
        for name, record in manifest.records(SOURCE).items()
    }


def name_sources(
    manifest: Manifest, places: Sequence[str | Path], name: str = "", images: Path | None = None
) -> list[Source]:
    """The sources that ``places`` mean; those collected so far if there are none.

    Args:
        manifest: knows the names given before.
        places: folders, or tables. A folder that holds metadata.jsonl means that table.
        name: for one place: its name. One that is known now lies at this place.
        images: where a table's images are.

    Raises:
        SurdBuildError: no such place, or a name that cannot be one.
        OSError: a table cannot be read.
    """
    known = known_sources(manifest)
    if not places:
        if not known:
            raise SurdBuildError(f"{manifest.folder}: nothing collected yet; name a folder of pictures")
        return list(known.values())
    if name and len(places) > 1:
        raise SurdBuildError(f"a name ({name!r}) is given to one source at a time, found {len(places)}")
    sources: dict[str, Source] = {}
    for place in map(Path, places):
        folder, table = _what(place, images)
        same = next((s for s in known.values() if (s.folder, s.table) == (folder, table)), None)
        if same is None and table is not None and images is None:
            same = next((s for s in known.values() if s.table == table), None)  # images said at first
            folder = same.folder if same else folder
        chosen = name or (same.name if same else _new_name(_plain_name(folder, table), known))
        _check_name(chosen, place)
        known[chosen] = sources[chosen] = Source(chosen, folder, table)
    return list(sources.values())


def look(source: Source, work: Path, *, must: bool) -> Found:
    """Everything of a source that could be a picture.

    Args:
        work: the work folder, whose own pictures are none of the source.
        must: raise if it is not there, instead of saying so.

    Raises:
        SurdBuildError: the table is none, or, if it must, the source is not there.
        OSError: a table cannot be read.
    """
    if source.folder.is_dir() and work.is_dir() and os.path.samefile(source.folder, work):
        raise SurdBuildError(f"{work}: the work folder cannot be the folder of pictures; choose another one")
    try:
        seen = walk(source.folder, work)
        if source.table is not None:
            source.table.stat()
    except OSError as error:
        words = f"{error.filename or source.place}: {error.strerror}"
        if must:
            raise SurdBuildError(f"{words}. Check the name, or wait until its disk is there") from error
        return Found(source, missing=words)
    if source.table is None:
        return Found(source, [(file, {}) for file in seen.files], seen.skipped, seen.unread, seen.others)
    matched, skipped = match_table(source.table, seen)
    skipped += [entry for entry in seen.skipped if entry.kind.startswith("unreadable")]
    return Found(source, [(entry.file, entry.values) for entry in matched], skipped, seen.unread)


def _what(place: Path, images: Path | None) -> tuple[Path, Path | None]:
    """(folder of images, table or None), absolute. Raises SurdBuildError, OSError."""
    place = place.absolute().resolve()
    if place.is_dir():
        if not (place / TABLE_NAMES[0]).is_file():
            if images is not None:
                raise SurdBuildError(f"{place}: a folder of images is for a table; this is a folder itself")
            return place, None
        place = place / TABLE_NAMES[0]
    if not place.is_file():
        raise SurdBuildError(f"{place}: no such file or folder. Check the name")
    if place.suffix.lower() not in TABLE_SUFFIXES:
        raise SurdBuildError(
            f"{place}: expected a folder of pictures, a .jsonl table, or a .json file of the Civitai API or "
            f"the authors' form, found a {place.suffix or 'file without ending'}"
        )
    return (images.absolute().resolve() if images else images_folder(place)), place


def _plain_name(folder: Path, table: Path | None) -> str:
    """A folder's name; a table's own where it says more than "metadata"."""
    if table is None:
        return folder.name or "pictures"
    return (table.parent.name if table.name in TABLE_NAMES else table.stem) or "table"


def _new_name(plain: str, known: dict[str, Source]) -> str:
    number, name = 1, plain
    while name in known:
        number += 1
        name = f"{plain}-{number}"
    return name


def _check_name(name: str, place: Path) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = ""
    if not name.strip() or "/" in name or "\\" in name:
        raise SurdBuildError(f"{place}: its name cannot be a source's; give it another one with --as NAME")
