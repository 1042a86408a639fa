"""What makes a row of a SURD table usable: its columns, its prompts, its image.

A row that is not usable is told apart by a reason of the form "kind: detail"; kinds are few, so that a report
can count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PROMPT_COLUMNS = (("text", "prompt"), ("simple", "complex"))
"""Column names looked for, (simple, complex): the authors' own, then plain words."""

NO_IMAGES = "none"
"""As ``image_column``: take the prompts alone even if the table names images."""


class SurdError(ValueError):
    """A data set cannot be used. The message names it, says what was expected and found, and what to do."""


class RowError(Exception):
    """One row cannot be used; the message is the reason, "kind: detail"."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row left out of a data set.

    Attributes:
        name: its file name, or its line where it has none. A repeated file name carries its line.
        place: file and line.
        reason: "kind: detail".
    """

    name: str
    place: str
    reason: str

    @property
    def kind(self) -> str:
        return self.reason.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns; "" where they are to be found, or, for the image, where there is none."""

    image: str = ""
    simple: str = ""
    complex: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One row as the file has it, nothing checked. ``image`` means what the table's image store says."""

    line: int
    image: object
    simple: object
    complex: object


@dataclass(frozen=True, slots=True)
class Row:
    """A usable row; more than one pair if it had a list of captions. ``locator`` is "" without an image."""

    line: int
    name: str
    locator: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BadRow:
    line: int
    name: str
    reason: str


def choose_columns(
    found: Sequence[str], wanted: Columns, image_names: Sequence[str], where: object
) -> Columns:
    """The columns to read.

    Args:
        found: the table's columns.
        wanted: names the user gave.
        image_names: image columns to look for if the user gave none.
        where: the file, for errors.

    Raises:
        SurdError: listing what was found and expected.
    """
    pair = next((names for names in PROMPT_COLUMNS if set(names) <= set(found)), ("", ""))
    simple, complex_ = wanted.simple or pair[0], wanted.complex or pair[1]
    image = wanted.image or next((name for name in image_names if name in found), "")
    image = "" if wanted.image == NO_IMAGES else image
    missing = [name for name in (simple, complex_, image) if name and name not in found]
    if not simple or not complex_ or missing:
        listed = ", ".join(repr(str(name)) for name in list(found)[:20]) or "none"
        expected = (
            f"the given {', '.join(map(repr, missing))}"
            if missing
            else " or ".join(f"{a!r} (simple prompt) with {b!r} (complex prompt)" for a, b in PROMPT_COLUMNS)
        )
        hint = " Separate the columns by commas." if any({";", "\t"} & set(str(n)) for n in found) else ""
        raise SurdError(
            f"{where}: wrong columns. Found {listed}; expected {expected}.{hint} Name your columns with "
            "simple_column, complex_column and image_column"
        )
    if simple == complex_:
        raise SurdError(f"{where}: the simple and the complex prompt cannot both be column {simple!r}")
    repeated = [name for name in (simple, complex_, image) if name and list(found).count(name) > 1]
    if repeated:
        raise SurdError(f"{where}: column {repeated[0]!r} stands there twice; rename one of them")
    return Columns(image, simple, complex_)


def prompt_pairs(simple: object, complex_: object) -> tuple[tuple[str, str], ...]:
    """(simple, complex) pairs of one row, outer white space removed.

    A list of one string is that string. Lists of several give one pair each: paired if both are of one
    length, otherwise the single prompt of the other side is repeated.

    Raises:
        RowError: wrong type, empty, broken text, or lists that cannot be paired.
    """
    left, right = _captions(simple, "simple"), _captions(complex_, "complex")
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        raise RowError(
            f"wrong lists: {len(left)} simple prompts cannot be paired with {len(right)} complex ones"
        )
    count = max(len(left), len(right))
    left, right = (side * (count // len(side)) for side in (left, right))
    return tuple(zip(left, right, strict=True))


def check_text(value: object, what: str) -> str:
    """``value`` if it is a string of valid Unicode. Raises RowError."""
    if not isinstance(value, str):
        raise RowError(f"wrong type: {what} should be text, found {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(f"not UTF-8: {what} holds bytes or escapes that are no character") from error
    return value


def _captions(value: object, kind: str) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values or value is None:
        raise RowError(f"empty prompt: the {kind} prompt is missing")
    texts = [check_text(text, f"the {kind} prompt").strip() for text in values]
    if not all(texts):
        which = f" (caption {texts.index('') + 1} of {len(texts)})" if len(texts) > 1 else ""
        raise RowError(f"empty prompt: the {kind} prompt is empty{which}")
    return texts
