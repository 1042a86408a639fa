"""Which tokens a picture shows one by one, and which it puts together."""

from __future__ import annotations

from dataclasses import dataclass

from .changes import ChunkChange
from .tokens import PADDING


@dataclass(frozen=True)
class Row:
    """One line of a picture.

    Attributes:
        text: name of a token, or how many there are of what.
        places: its tokens; of several the mean is shown.
    """

    text: str
    places: tuple[int, ...]


def rows_of(change: ChunkChange, limit: int) -> list[Row]:
    """In the order of the prompt: up to ``limit`` tokens, those that changed most; then the rest of them in
    one row; then the padding in one row.
    """
    real = [place for place, token in enumerate(change.tokens) if token.kind != PADDING]
    padding = [place for place, token in enumerate(change.tokens) if token.kind == PADDING]
    if len(real) == limit + 1:
        limit -= 1  # a row for "1 other" would save nothing
    shown = sorted(sorted(real, key=lambda place: -change.distance[place])[:limit])
    others = [place for place in real if place not in shown]
    rows = [Row(change.tokens[place].text, (place,)) for place in shown]
    for name, places in (("others", others), ("padding", padding)):
        if places:
            rows.append(Row(f"{len(places)} {name}", tuple(places)))
    return rows
