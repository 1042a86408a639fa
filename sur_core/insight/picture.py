"""A picture of what changed: bars for every token and, with an adapter, where it looks.

Drawn with Pillow alone, which every host has, so that a graph gives the same picture everywhere; text needs
nothing that a plotting library would add.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..lettering import Lettering
from ..themes import Theme, theme_named
from .changes import ChunkChange
from .heat_map import draw_heat_map, heat_map_height, heat_map_width
from .rows import Row, rows_of
from .words import TOWER_WORDS, in_words, mean, ratio_text, turn_text

MARGIN = 24
PANEL_WIDTHS = {1: 760, 2: 560}
"""Of one text encoder and of two side by side, pixels: text stays legible where the picture is shown half as
wide.
"""

_TITLE, _BODY, _SMALL = Lettering(26), Lettering(22), Lettering(18)
_ROW, _GAP = 30, 14
_LEAST_TURN, _LEAST_RATIO = 0.001, 0.01
"""Full length of a bar at least, so that rounding does not look like change."""


@dataclass(frozen=True)
class _Scale:
    """What a full bar means, in all panels of a picture."""

    turn: float
    ratio: float


def draw_changes(
    changes: list[ChunkChange], theme: str = "dark", limit: int = 20, note: str = "", some: bool = False
):
    """A Pillow image: what changed in words, then a panel for each chunk (down) and text encoder (across).

    Args:
        changes: from :func:`compare` or :func:`compare_adapted`.
        theme: ``"dark"`` or ``"light"``.
        limit: tokens shown one by one in each panel; the rest is put together in one row.
        note: small print under the words, such as what was compared.
        some: whether the prompt has chunks that are not shown.
    """
    from PIL import Image, ImageDraw

    colors = theme_named(theme)
    towers = list(dict.fromkeys(change.tower for change in changes))
    scale = _scale(changes, limit)
    panels = [
        _panel(change, PANEL_WIDTHS[min(len(towers), 2)], colors, scale, limit, heading)
        for change, heading in zip(changes, _headings(changes), strict=True)
    ]
    panel_width = max(panel.width for panel in panels)
    width = len(towers) * (panel_width + MARGIN) + MARGIN
    chunks = list(dict.fromkeys(change.chunk for change in changes))
    lines = [
        (lettering, line)
        for lettering, text in ((_TITLE, in_words(changes, some)), (_SMALL, note))
        for line in (lettering.wrap(text, width - 2 * MARGIN) if text else ())
    ]
    top = MARGIN + sum(lettering.height for lettering, _ in lines) + _GAP
    heights = [max(p.height for c, p in zip(changes, panels, strict=True) if c.chunk == n) for n in chunks]
    sheet = Image.new("RGB", (width, top + sum(heights) + MARGIN * len(heights)), colors.paper)
    pen, y = ImageDraw.Draw(sheet), MARGIN
    for lettering, line in lines:
        fill = colors.soft if lettering is _SMALL else colors.ink
        lettering.draw(pen, (MARGIN, y + lettering.height / 2), line, fill)
        y += lettering.height
    for change, panel in zip(changes, panels, strict=True):
        across, down = towers.index(change.tower), chunks.index(change.chunk)
        place = (MARGIN + across * (panel_width + MARGIN), top + sum(heights[:down]) + MARGIN * down)
        sheet.paste(panel, place)
    return sheet


def _scale(changes: list[ChunkChange], limit: int) -> _Scale:
    rows = [(change, row) for change in changes for row in rows_of(change, limit)]
    turns = [_mean(change.turn, row) for change, row in rows]
    ratios = [abs(_mean(change.ratio, row) - 1) for change, row in rows]
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    return _Scale(max(_LEAST_TURN, *turns), max([_LEAST_RATIO, *finite]))


def _mean(values: tuple[float, ...], row: Row) -> float:
    return mean([values[place] for place in row.places])


def _panel(change: ChunkChange, width: int, colors: Theme, scale: _Scale, limit: int, heading: str):
    """One chunk of one text encoder, as a Pillow image: ``width`` pixels wide, or as a heat map needs."""
    from PIL import Image, ImageDraw

    rows = rows_of(change, limit)
    label = min(max(_BODY.width(row.text) for row in rows) + 12, width // 3)
    grouped = any(len(row.places) > 1 for row in rows)
    head = _BODY.height + 8 if heading else 0
    bars = _SMALL.height + len(rows) * _ROW + (_SMALL.height + 6 if grouped else 0)
    wide = max(width, heat_map_width(change, rows, label))
    map_height = heat_map_height(change, rows, label, wide)
    picture = Image.new("RGB", (wide, head + bars + map_height), colors.paper)
    pen = ImageDraw.Draw(picture)
    if heading:
        _BODY.draw(pen, (0, _BODY.height / 2), heading, colors.first)
    _draw_bars(pen, change, rows, head, label, width, colors, scale)
    if grouped:
        told = "Rows of several tokens show their mean."
        _SMALL.draw(pen, (0, head + bars - _SMALL.height / 2), told, colors.soft)
    if map_height:
        draw_heat_map(picture, change, rows, head + bars, label, colors)
    return picture


def _headings(changes: list[ChunkChange]) -> list[str]:
    """For each chunk what tells it from the others; ``""`` if there is only one."""
    towers = len({change.tower for change in changes}) > 1
    chunks = len({change.chunk for change in changes}) > 1 or changes[0].chunk > 0
    headings = []
    for change in changes:
        count = len(change.tokens)
        first = change.chunk * count + 1
        parts = [TOWER_WORDS[change.tower]] if towers else []
        parts += [f"chunk {change.chunk + 1}: tokens {first} to {first + count - 1}"] if chunks else []
        headings.append(", ".join(parts))
    return headings


def _draw_bars(pen, change: ChunkChange, rows: list[Row], top, label, width, colors: Theme, scale: _Scale):
    number = _BODY.width("from 0") + 8
    column = (width - label - _GAP) // 2
    left, right = label, label + column + _GAP
    bar = column - number
    wide = _SMALL.width("length, after / before") <= column
    names = ("direction, 1 - cosine", "length, after / before") if wide else ("1 - cosine", "length ratio")
    for x, name in zip((left, right), names, strict=True):
        _SMALL.draw(pen, (x, top + _SMALL.height / 2), name, colors.soft)
    for index, row in enumerate(rows):
        y = top + _SMALL.height + index * _ROW
        middle, low, high = y + _ROW / 2, y + 5, y + _ROW - 6
        ink = colors.ink if len(row.places) == 1 else colors.soft
        _BODY.draw(pen, (0, middle), _BODY.shorten(row.text, label - 8), ink)
        turn, ratio = _mean(change.turn, row), _mean(change.ratio, row)
        pen.rectangle((left, low, left + bar, high), fill=colors.shade)
        if (length := bar * turn / scale.turn) >= 0.5:  # a rectangle is at least a pixel wide
            pen.rectangle((left, low, left + length, high), fill=colors.first)
        _BODY.draw(pen, (left + column, middle), turn_text(turn), ink, "rm")
        _draw_ratio(pen, (right, low, right + bar, high), (ratio - 1) / scale.ratio, colors)
        _BODY.draw(pen, (right + column, middle), ratio_text(ratio), ink, "rm")


def _draw_ratio(pen, box: tuple[float, float, float, float], share: float, colors: Theme) -> None:
    """A bar from the middle (x1.00) to the right if longer, to the left if shorter."""
    left, low, right, high = box
    middle = (left + right) / 2
    pen.rectangle(box, fill=colors.shade)
    end = middle + min(1.0, max(-1.0, share)) * (right - left) / 2
    if abs(end - middle) >= 0.5:
        pen.rectangle((min(middle, end), low, max(middle, end), high), fill=colors.second)
    pen.line((middle, low - 3, middle, high + 3), fill=colors.line, width=2)
