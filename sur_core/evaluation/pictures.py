"""Picture files: PNGs that are whole or drawn again."""

from __future__ import annotations

import io
import logging
import os
import secrets
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)

UNFINISHED = ".unfinished-*.tmp"
"""Pattern of what a killed writer may leave in a folder, which whoever owns the folder may delete."""
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def read_picture(path: Path) -> np.ndarray:
    """uint8 [H, W, 3]. ValueError naming the file if it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: damaged picture ({error}). Delete it; it will be drawn again") from error


def write_picture(path: Path, pixels: np.ndarray, compress_level: int = 6) -> None:
    """Write uint8 [H, W, 3] as PNG, as :func:`write_quickly`. ``compress_level``: zlib's, 0..9."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG", compress_level=compress_level)
    write_quickly(path, content.getvalue())


def is_whole(path: Path) -> bool:
    """Whether a PNG is there to its end. One that a power failure cut is named in the log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - len(_PNG_END)))
            whole = file.read() == _PNG_END
    except FileNotFoundError:
        return False
    if not whole:
        log.warning("%s: the picture is cut off; it is drawn again", path)
    return whole


def write_quickly(path: Path, content: bytes) -> None:
    """Whole or not there after a kill. Not flushed to the disk, which would take longer than drawing a small
    picture; what a power failure leaves is told by its end (:func:`is_whole`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".unfinished-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
