"""Small copies of a study's pictures, with what a reader must know of each."""

from __future__ import annotations

import base64
import io
import textwrap
from pathlib import Path
from xml.etree.ElementTree import Element

from ...page_elements import element
from ..evaluation import Picture
from ..pictures import read_picture
from ..study import Cell

HEIGHT, WIDTH = 192, 768
"""The most a small picture has, in pixels; a panorama is wide."""
EXACT = 64
"""Pictures up to this side are PNG files, since JPEG would smear them."""
QUALITY = 80
_WHY = 160


class Thumbnails:
    """Makes each picture small once.

    Attributes:
        lost: pictures that are not there or damaged, in words.
    """

    def __init__(self):
        self._made: dict[Path, tuple[str, tuple[int, int]]] = {}
        self.lost: dict[Path, str] = {}

    def shot(self, cell: Cell, picture: Picture, label: str) -> Element:
        """A picture with its label and the judge's mark; words in place of one that cannot be shown."""
        path, mark = cell.evaluation.file(picture), _mark(picture)
        shape = "shot"
        if path not in self._made and path not in self.lost:
            self._make(path, f"{cell.folder}/{picture.path}")
        if path in self.lost:
            shown = element("div", self.lost[path], class_="lost")
        else:
            src, (width, height) = self._made[path]
            shape = "shot wide" if width >= 2 * height else "shot"
            alt = ", ".join(filter(None, (label, f"seed {picture.seed}", mark)))
            shown = element("img", src=src, alt=alt, title=mark or label, width=width, height=height)
        verdict = picture.verdict
        tick = why = None
        if verdict is not None:
            words = "✓ right" if verdict.right else "✗ wrong"
            tick = element("span", words, class_="yes" if verdict.right else "no")
            why = None if verdict.right else element("small", textwrap.shorten(verdict.why, _WHY))
        return element("div", shown, element("b", label), tick, why, class_=shape)

    def _make(self, path: Path, name: str) -> None:
        if not path.is_file():
            self.lost[path] = f"not there: {name}"
            return
        try:
            self._made[path] = _small(path)
        except (ValueError, OSError):
            self.lost[path] = f"damaged: {name}"


def _mark(picture: Picture) -> str:
    verdict = picture.verdict
    if verdict is None:
        return ""
    return "right" if verdict.right else f"wrong: {verdict.why}"


def _small(path: Path) -> tuple[str, tuple[int, int]]:
    """(data URL, (width, height)); nothing of the file but its pixels."""
    from PIL import Image

    image = Image.fromarray(read_picture(path))
    exact = max(image.size) <= EXACT
    image.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    if exact:
        image.save(content, format="PNG", optimize=True)
    else:
        image.save(content, format="JPEG", quality=QUALITY, optimize=True)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}", image.size
