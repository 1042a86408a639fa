"""What a source says of a picture's content: its rating, in the source's words, and whether that is nsfw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce

from ..surd_rows import RowError

LEVELS = {1: "PG", 2: "PG-13", 4: "R", 8: "X", 16: "XXX", 32: "Blocked"}
"""Civitai's numbers; each is a bit, and the highest one counts."""

_FLAGS = {"true": True, "yes": True, "false": False, "no": False}
_WORDS = (
    ("none", "safe", "sfw", "g", "pg", "general", "everyone"),
    ("soft", "pg-13", "pg13", "sensitive", "suggestive"),
    ("mature", "r", "questionable", "q"),
    ("x", "explicit", "e", "nsfw", "adult", "r-18", "r18", "18+"),
    ("xxx",),
    ("blocked",),
)
"""Ratings of Civitai, of boards of pictures and of films, from harmless to strict."""
_RANKS = {word: rank for rank, words in enumerate(_WORDS) for word in words}
_NUMBER = re.compile(r"\d{1,9}")

Marks = tuple[str, bool | None]
"""(rating, "" if there is none; whether it is nsfw, ``None`` if nothing is said)."""


def read_marks(row: Mapping) -> Marks:
    """What the fields ``rating``, ``nsfwLevel`` and ``nsfw`` of a row or file come to; the strictest counts.

    ``nsfw`` may be a flag (true, "true", 1), a level's name or its number; any name that is not known to be
    harmless counts as nsfw. A ``rating`` of unknown words, or a number, which may be one of stars, says
    nothing of nsfw.

    Raises:
        RowError: a value that is none of these, so that no mark is passed over.
    """
    found = _rating(row.get("rating")), _level(row, "nsfwLevel"), _level(row, "nsfw")
    return reduce(stricter, found)


def stricter(first: Marks, second: Marks) -> Marks:
    """Two marks of a picture as one: nsfw if either says so, and the stricter rating, of equals the first."""
    said = {first[1], second[1]}
    nsfw = True if True in said else False if False in said else None
    ratings = [mark for mark in (first, second) if mark[0]]
    return max(ratings, key=_rank)[0] if ratings else "", nsfw


def _rank(mark: Marks) -> int:
    unknown = {None: -1, False: 0, True: 1}[mark[1]]
    return _RANKS.get(mark[0].casefold(), unknown)


def _rating(value: object) -> Marks:
    if value is None:
        return "", None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"wrong type: rating should be text, found {type(value).__name__}")
    rating = str(value).strip()
    rank = _RANKS.get(rating.casefold())
    return rating, None if rank is None else rank > 0


def _level(row: Mapping, name: str) -> Marks:
    value = row.get(name)
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if _NUMBER.fullmatch(value) else _FLAGS.get(value.casefold(), value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value == "":
        return "", None
    if isinstance(value, bool):
        return "", value
    if isinstance(value, str):
        return value, _RANKS.get(value.casefold(), 1) > 0
    if isinstance(value, int) and value >= 0:
        if name == "nsfw" and value <= 1:
            return "", value == 1
        bit = max((bit for bit in LEVELS if bit <= value), default=0)
        return (LEVELS[bit], bit > 1) if bit else ("", None)  # Civitai's 0: nobody has rated it yet
    raise RowError(f"wrong type: {name} should be true, false, or a level; found {value!r:.40}")
