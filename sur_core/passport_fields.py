"""Fields of a passport: from what a caller gives, or from the text in a file's header, to their types.

Each raises ``ValueError`` naming the field and what was found.
"""

from __future__ import annotations

import math
import operator


def as_text(name: str, value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"passport field {name} must be text, found {value!r}")
    return value.encode("utf8", "replace").decode("utf8")  # names of files need not be valid Unicode


def as_whole_number(name: str, value) -> int | None:
    if value is None:
        return None
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"passport field {name} must be a whole number, found {value!r}") from None


def as_number(name: str, value) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"passport field {name} must be a finite number, found {str(value)[:40]!r}")
    return number


def read_whole_number(name: str, text: str | None) -> int | None:
    """A whole number as a header writes it; ``None`` where there is none."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"passport field {name} must be a whole number, found {text[:40]!r}") from None


def shown(value) -> str:
    """A number for people; ``""`` for what is not known."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else f"{value:,}"
