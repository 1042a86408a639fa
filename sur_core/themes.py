"""Colors of the pictures this project draws, for dark and light surroundings."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Theme:
    """Colors, 0..255.

    Attributes:
        paper: behind everything.
        ink: text.
        soft: text that steps back.
        shade: empty part of a bar, empty cell.
        line: rules and marks.
        first, second: what is measured.
    """

    paper: Color
    ink: Color
    soft: Color
    shade: Color
    line: Color
    first: Color
    second: Color

    def between(self, share: float) -> Color:
        """From ``shade`` (0) to ``first`` (1)."""
        share = min(1.0, max(0.0, share))
        pairs = zip(self.shade, self.first, strict=True)
        return tuple(round(low + (high - low) * share) for low, high in pairs)


THEMES = {
    "dark": Theme(
        paper=(24, 28, 30),
        ink=(232, 236, 234),
        soft=(166, 176, 178),
        shade=(42, 49, 52),
        line=(92, 102, 106),
        first=(109, 179, 242),
        second=(242, 166, 90),
    ),
    "light": Theme(
        paper=(252, 252, 250),
        ink=(29, 35, 38),
        soft=(90, 100, 104),
        shade=(231, 235, 232),
        line=(150, 158, 156),
        first=(31, 111, 178),
        second=(194, 87, 26),
    ),
}


def theme_named(name: str) -> Theme:
    """Raises ``ValueError`` unless it is one of :data:`THEMES`."""
    if name not in THEMES:
        raise ValueError(f"there is no theme {name!r}; known are {', '.join(THEMES)}")
    return THEMES[name]
