"""Writes a page: one HTML file with everything inside, or with its pictures in a folder beside it.

A Content-Security-Policy forbids the page every connection: it can run its own script, known by its hash, and
show its own pictures.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...atomic import atomic_write
from .hiding import FORMATS, SUFFIXES

SOURCE = Path(__file__).with_name("page")
SCRIPTS = ("answers.js", "stage.js", "page.js")
EXACT_PIXELS = 40_000_000
"""Up to so many pixels in all, pictures are PNG files, which keep them exactly; beyond, JPEG."""
INSIDE_BYTES = 64_000_000
"""Up to about so many bytes in all, pictures lie inside the page."""
_BYTES_A_PIXEL = {"png": 2.0, "jpeg": 0.7}


@dataclass(frozen=True)
class PageOptions:
    """How a page is made.

    Attributes:
        seed: decides order and names; ``None`` draws a secret. Who knows it can work out the order.
        title: ``""`` for a plain one. It is shown: it should not name arms.
        question: asked of every item instead of the usual one.
        inside: pictures in the page itself, or in a folder beside it; ``None`` decides by their size.
        format: ``"png"``, ``"jpeg"``, or ``"auto"``: png while there are few.
    """

    seed: int | str | None = None
    title: str = ""
    question: str = ""
    inside: bool | None = None
    format: str = "auto"

    def __post_init__(self):
        if self.format not in ("auto", *FORMATS):
            raise ValueError(f"format is {self.format!r}; expected auto, {', '.join(FORMATS)}")

    def settled(self, pixels: int) -> tuple[str, bool]:
        """(format, inside) for pictures with so many pixels in all."""
        format = self.format
        if format == "auto":
            format = "png" if pixels <= EXACT_PIXELS else "jpeg"
        inside = self.inside
        if inside is None:
            inside = pixels * _BYTES_A_PIXEL[format] <= INSIDE_BYTES
        return format, inside


def pictures_folder(page: Path) -> Path:
    """Where a page's pictures lie that are not inside it."""
    return page.with_name(f"{page.stem}-pictures")


def check_place(page: Path, results: Path) -> None:
    """Raises FileExistsError, ValueError: a page there would replace another, or lie beside its key."""
    for path in (page, pictures_folder(page)):
        if path.exists():
            raise FileExistsError(
                f"{path}: is there already, and people may be answering it. Give another name with -o, or "
                "delete it"
            )
    studies = [folder for folder in page.resolve().parents if (folder / "study.json").is_file()]
    if studies or page.resolve().is_relative_to(Path(results).resolve()):
        raise ValueError(
            f"{page}: lies in the results folder, whose pictures and key tell the arms; whoever gets the "
            "page must not get those. Give a place outside with -o"
        )


def write_page(
    page: Path, data: dict[str, Any], pictures: Iterable[tuple[str, bytes]], format: str, inside: bool
) -> None:
    """Write the page, and its folder if there is one; whole or not at all.

    Args:
        data: what the page is told, JSON values; see page.js.
        pictures: (name, content of the file), in the order of the page.

    Raises:
        OSError: it cannot be written.
    """
    folder = pictures_folder(page)
    data = {
        **data,
        "mime": FORMATS[format],
        "suffix": SUFFIXES[format],
        "folder": "" if inside else folder.name,
    }
    before, after = _document(data, inside)
    if inside:
        with atomic_write(page) as file:
            file.write(before)
            for name, content in pictures:
                file.write(f'<script type="text/plain" id="p-{name}">'.encode())
                file.write(base64.b64encode(content) + b"</script>\n")
            file.write(after)
        return
    with _whole_folder(folder) as unfinished:
        for name, content in pictures:
            (unfinished / f"{name}{SUFFIXES[format]}").write_bytes(content)
    try:
        with atomic_write(page) as file:
            file.write(before + after)
    except BaseException:
        shutil.rmtree(folder)
        raise


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its name once it is filled."""
    unfinished = folder.with_name(f".unfinished-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _document(data: dict[str, Any], inside: bool) -> tuple[bytes, bytes]:
    """The page before and after its pictures."""
    style = (SOURCE / "page.css").read_text("utf-8")
    script = "\n".join((SOURCE / name).read_text("utf-8") for name in SCRIPTS)
    # In a script element nothing is escaped, but its end must not be written in a prompt.
    told = json.dumps(data).replace("<", "\\u003c")
    parts = {
        "POLICY": _policy(style, script, inside),
        "TITLE": html.escape(data["title"]),
        "STYLE": style,
        "DATA": told,
        "SCRIPT": script,
    }
    template = (SOURCE / "page.html").read_text("utf-8")
    before, after = (
        re.sub("@([A-Z]+)@", lambda match: parts[match[1]], half) for half in template.split("@PICTURES@")
    )
    return before.encode("utf-8"), after.encode("utf-8")


def _policy(style: str, script: str, inside: bool) -> str:
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style))
    script_hash, style_hash = hashes
    # file: is what some browsers need to show pictures that lie beside a page on the disk.
    images = "data:" if inside else "'self' file:"
    return (
        f"default-src 'none'; script-src 'sha256-{script_hash}'; style-src 'sha256-{style_hash}'; "
        f"img-src {images}; base-uri 'none'; form-action 'none'"
    )
