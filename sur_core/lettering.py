"""Text in pictures, drawn with Pillow: measured, wrapped, shortened, and legible whatever it is written in.

Pillow's own font is everywhere but knows little more than ASCII. A text it cannot write is drawn in a font of
the machine that can; where there is none, a character is spelt out as ``U+4E03`` rather than lost in a box.
"""

from __future__ import annotations

import importlib.util
import unicodedata
from functools import lru_cache
from pathlib import Path

ELLIPSIS = "…"

_OTHER_FONTS = (
    "DejaVuSans.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "arial.ttf",
    "msyh.ttc",
    "Arial Unicode.ttf",
    "PingFang.ttc",
)
_NO_CHARACTER = "\U0010fffe"
"""Never assigned, so what a font draws for it is what it draws for everything it lacks."""


class Lettering:
    """One size of text.

    Args:
        size: of the letters, in pixels.
        fonts: files to try where Pillow's own font lacks a character; those of the machine if not given.
    """

    def __init__(self, size: int, fonts: tuple[str, ...] | None = None):
        self.size = size
        self._fonts = fonts

    @property
    def height(self) -> int:
        """Distance of two lines, pixels."""
        return round(self.size * 1.3)

    def width(self, text: str) -> int:
        """Of one line, pixels."""
        font, text = self._written(text)
        return round(font.getlength(text))

    def draw(self, pen, place: tuple[float, float], text: str, fill, anchor: str = "lm") -> None:
        """One line at ``place`` of an ``ImageDraw``; anchors are Pillow's, ``"lm"`` is left, middle."""
        font, text = self._written(text)
        pen.text(place, text, fill=fill, font=font, anchor=anchor)

    def draw_upright(self, picture, place: tuple[int, int], text: str, fill) -> None:
        """Onto a Pillow image, read from bottom to top: it begins at (middle of the line, bottom)."""
        from PIL import Image, ImageDraw

        mask = Image.new("L", (self.width(text) + 2, self.height), 0)
        self.draw(ImageDraw.Draw(mask), (0, self.height / 2), text, 255)
        mask = mask.transpose(Image.Transpose.ROTATE_90)
        picture.paste(fill, (place[0] - self.height // 2, place[1] - mask.height), mask)

    def wrap(self, text: str, width: int) -> list[str]:
        """Lines of at most ``width`` pixels; a word that is longer is broken. Line ends in it stay."""
        return [line for part in text.split("\n") for line in self._wrap_line(part, width)]

    def shorten(self, text: str, width: int) -> str:
        """As much of the beginning as fits, with an ellipsis if that is not all."""
        if self.width(text) <= width:
            return text
        while text and self.width(text + ELLIPSIS) > width:
            text = text[:-1]
        return text + ELLIPSIS

    def _wrap_line(self, text: str, width: int) -> list[str]:
        lines = [""]
        for word in text.split():
            joined = f"{lines[-1]} {word}" if lines[-1] else word
            if self.width(joined) <= width:
                lines[-1] = joined
                continue
            if lines[-1]:
                lines.append("")
            for letter in word:
                if lines[-1] and self.width(lines[-1] + letter) > width:
                    lines.append("")
                lines[-1] += letter
        return lines

    def _written(self, text: str):
        """The font that can write all of ``text``, and what to write: lacking characters spelt out."""
        text = "".join(ch if ch.isprintable() else " " for ch in unicodedata.normalize("NFC", text))
        own = _own_font(self.size)
        if _lacking(own, text):
            for font in _fonts(self.size, self._fonts):
                if not _lacking(font, text):
                    return font, text
        lacking = _lacking(own, text)
        return own, "".join(f"U+{ord(ch):04X}" if ch in lacking else ch for ch in text)


def _lacking(font, text: str) -> set[str]:
    return {ch for ch in set(text) if not ch.isspace() and not _has(font, ch)}


@lru_cache(maxsize=4096)
def _has(font, character: str) -> bool:
    box, nothing = font.getmask(character), font.getmask(_NO_CHARACTER)
    return (box.size, bytes(box)) != (nothing.size, bytes(nothing))


@lru_cache(maxsize=64)
def _own_font(size: int):
    try:
        from PIL import ImageFont, features

        if features.check("freetype2"):
            return ImageFont.load_default(size=size)
    except (ImportError, TypeError) as error:
        raise ImportError(_NEEDED) from error
    raise ImportError(_NEEDED)


_NEEDED = "drawing text needs Pillow 10.1 or newer, built with FreeType. Update it: pip install -U pillow"


@lru_cache(maxsize=64)
def _fonts(size: int, names: tuple[str, ...] | None) -> tuple:
    from PIL import ImageFont

    found = []
    for name in _machine_fonts() if names is None else names:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:
            continue
    return tuple(found)


def _machine_fonts() -> list[str]:
    """Files and names; matplotlib, where installed, brings a font of its own with most alphabets."""
    matplotlib = importlib.util.find_spec("matplotlib")
    folders = matplotlib.submodule_search_locations if matplotlib else None
    brought = [str(Path(folder) / "mpl-data/fonts/ttf/DejaVuSans.ttf") for folder in folders or ()]
    return [*brought, *_OTHER_FONTS]
