"""The adapter's attention as a heat map."""

from __future__ import annotations

from ..lettering import Lettering
from ..themes import Theme
from .changes import ChunkChange
from .rows import Row

_BODY, _SMALL = Lettering(22), Lettering(18)
_SPACE = 20
_SMALLEST_CELL, _LARGEST_CELL, _LOWEST_CELL = 17, 34, 24


def heat_map_width(change: ChunkChange, rows: list[Row], label: int) -> int:
    """Pixels that :func:`draw_heat_map` needs so that its columns can be read; 0 if there is no attention."""
    return 0 if change.attention is None else label + len(rows) * _SMALLEST_CELL


def heat_map_height(change: ChunkChange, rows: list[Row], label: int, width: int) -> int:
    """Pixels that :func:`draw_heat_map` needs; 0 if there is no attention to show."""
    if change.attention is None:
        return 0
    _, high = _cell(rows, label, width)
    head = _SPACE + _BODY.height + _upright(rows, label, width)[1]
    return head + len(rows) * high + _SMALL.height + 8


def shown_attention(change: ChunkChange, rows: list[Row]) -> list[list[float]]:
    """How each row reads each column, [R, R]; every line sums to 1.

    A row of several tokens is their mean, a column of several is the attention to all of them together.
    """
    return [
        [float(change.attention[list(row.places)].mean(0)[list(column.places)].sum()) for column in rows]
        for row in rows
    ]


def draw_heat_map(picture, change: ChunkChange, rows: list[Row], top: int, label: int, colors: Theme) -> None:
    """Onto a Pillow image, over its whole width: labels in ``label`` pixels on the left, and upright."""
    from PIL import ImageDraw

    pen, width = ImageDraw.Draw(picture), picture.width
    wide, high = _cell(rows, label, width)
    lettering, head = _upright(rows, label, width)
    values = shown_attention(change, rows)
    full = strongest(values, rows)
    y = top + _SPACE
    _BODY.draw(pen, (0, y + _BODY.height / 2), "Where the adapter looks: row reads column", colors.ink)
    y += _BODY.height + head
    for index, column in enumerate(rows):
        text = lettering.shorten(column.text, head - 10)
        lettering.draw_upright(picture, (label + index * wide + wide // 2, y - 4), text, colors.ink)
    for index, (row, line) in enumerate(zip(rows, values, strict=True)):
        low = y + index * high
        _BODY.draw(pen, (0, low + high / 2), _BODY.shorten(row.text, label - 8), colors.ink)
        for place, value in enumerate(line):
            x = label + place * wide
            pen.rectangle((x, low, x + wide - 2, low + high - 2), fill=colors.between(value / full))
    y += len(rows) * high + 8
    told = f"Full color: {full:.2g} or more of a token's attention."
    _SMALL.draw(pen, (0, y + _SMALL.height / 2), told, colors.soft)


def strongest(values: list[list[float]], rows: list[Row]) -> float:
    """The most attention to a single token. Columns of many tokens would outshine it."""
    single = [place for place, row in enumerate(rows) if len(row.places) == 1]
    return max((line[place] for line in values for place in single), default=1.0) or 1.0


def _cell(rows: list[Row], label: int, width: int) -> tuple[int, int]:
    wide = min(_LARGEST_CELL, (width - label) // len(rows))
    return wide, max(wide, _LOWEST_CELL)


def _upright(rows: list[Row], label: int, width: int) -> tuple[Lettering, int]:
    """Text for the columns, no wider than they are, and the height it takes."""
    lettering = Lettering(max(8, min(20, _cell(rows, label, width)[0] - 3)))
    longest = max(lettering.width(row.text) for row in rows)
    return lettering, min(longest, 170) + 14
