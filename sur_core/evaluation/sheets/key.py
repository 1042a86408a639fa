"""The key of a page: which arm drew what. It stays with the results, and the page does not hold it.

``<results>/sheets/<study>/key.json`` (``preferences`` for a preference study) is one object::

    kind, version, study
    secret          what order, names and sides came from
    title, questions
    ask             of preferences:  what is asked, "quality" or "prompt", in whatever words
    arms            names; the first is the one the others are compared with
    items           of a sheet:      {id, prompt_id, type, seed, path, pixels, arms}
                    of preferences:  {id, prompt_id, type, seed, left, right, left_path, right_path,
                                     left_pixels, right_pixels}
    pairs           of preferences:  [[arm, other arm], ...]

Keys of before there were ``ask`` and the pixels of pairs are read as well; theirs are empty, and whether a
picture is still the one that was shown is told by its path.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ...atomic import atomic_write

VERSION = 1
KEY = "key.json"
SHEET, PREFERENCE = "sur marking sheet", "sur preference study"
FOLDERS = {SHEET: "sheets", PREFERENCE: "preferences"}


@dataclass(frozen=True)
class SheetItem:
    """A picture to mark. ``arms``: those that drew it, several if they drew the same pixels. ``pixels``: its
    digest; ``path``: relative to the results.
    """

    id: str
    prompt_id: str
    type: str
    seed: int
    path: str
    pixels: str
    arms: tuple[str, ...]


@dataclass(frozen=True)
class PairItem:
    """Two pictures to choose from, of one prompt and seed; ``left`` and ``right`` are the arms' names,
    ``left_pixels`` and ``right_pixels`` the pictures' digests.
    """

    id: str
    prompt_id: str
    type: str
    seed: int
    left: str
    right: str
    left_path: str
    right_path: str
    left_pixels: str = ""
    right_pixels: str = ""


Item = TypeVar("Item", SheetItem, PairItem)


@dataclass(frozen=True)
class Key(Generic[Item]):
    """As the file has it. ``pairs`` and ``ask`` are empty for a sheet."""

    kind: str
    study: str
    secret: str
    title: str
    questions: tuple[str, ...]
    arms: tuple[str, ...]
    items: tuple[Item, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    ask: str = ""

    def place(self, results: Path) -> Path:
        """Where it lies in a results folder."""
        return Path(results) / FOLDERS[self.kind] / self.study / KEY


def write_key(key: Key, results: Path) -> Path:
    """Write it into the results folder, atomic; its path."""
    content = {"kind": key.kind, "version": VERSION, **asdict(key)}
    path = key.place(results)
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return path


def read_key(path: Path, kind: str) -> Key:
    """Raises OSError, ValueError: there is none, it is damaged, or of another kind."""
    path = Path(path)
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file; expected the key of a page") from None
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}). Without the key, answers cannot be joined") from error
    if not isinstance(found, dict) or (found.pop("kind", None), found.pop("version", None)) != (
        kind,
        VERSION,
    ):
        raise ValueError(f"{path}: expected the key of a {kind}, version {VERSION}")
    item = SheetItem if kind == SHEET else PairItem
    try:
        return _key(kind, found, item)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: damaged ({reason}). Without the key, answers cannot be joined") from error


def _key(kind: str, found: dict[str, Any], item: type) -> Key:
    items = [item(**entry) for entry in found.pop("items")]
    if item is SheetItem:
        items = [SheetItem(**{**asdict(entry), "arms": tuple(entry.arms)}) for entry in items]
    return Key(
        kind=kind,
        items=tuple(items),
        pairs=tuple(tuple(pair) for pair in found.pop("pairs")),
        questions=tuple(found.pop("questions")),
        arms=tuple(found.pop("arms")),
        **found,
    )
