"""Image files of samples, as they are and small. Nothing but the samples' own files is ever read."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import threading
from pathlib import Path

from ...atomic import atomic_write
from ...images import ImageError, decode_image
from ..samples import BuildSample

logger = logging.getLogger(__name__)

THUMBNAILS = "thumbnails"
SIDE = 256
MAX_BYTES = 1 << 28

_SHOWN = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}
"""What every browser shows, by how it begins."""


class ImageRefused(ValueError):
    """An image is not to be shown; the message names it and says why."""


def read_image(sample: BuildSample) -> bytes:
    """The image file of a sample, wherever links lead to, as long as it is the very file that was collected.

    Raises:
        ImageRefused: it is no file, or not the one that was collected.
        OSError: it cannot be read.
    """
    try:
        status = os.stat(sample.path)
    except FileNotFoundError as error:
        words = "the image is gone since it was collected; put it back, or run collect again"
        raise FileNotFoundError(error.errno, words, str(sample.path)) from error
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        raise ImageRefused(f"{sample.name}: refused: no plain file of at most {MAX_BYTES >> 20} MiB")
    data = sample.path.read_bytes()
    if not sample.id.startswith(hashlib.sha256(data).hexdigest()[:20]):
        raise ImageRefused(
            f"{sample.name}: the file has changed since it was collected, so no decision could be about it; "
            "run collect and the steps after it again"
        )
    return data


def as_shown(data: bytes, name: str) -> tuple[bytes, str]:
    """(content, type) that a browser shows: the file itself where it can be. Raises ImageError: damaged."""
    for start, kind in _SHOWN.items():
        if data.startswith(start):
            return data, kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return data, "image/webp"
    return _encoded(decode_image(data, name), "JPEG", quality=92), "image/jpeg"


class Thumbnails:
    """Small pictures, each made once and kept in ``folder/thumbnails`` under its file's SHA-256. For threads.

    At most ``workers`` are made at a time, as each decodes a whole image.
    """

    def __init__(self, folder: Path, workers: int = 0) -> None:
        self.folder = Path(folder) / THUMBNAILS
        self._pool = threading.BoundedSemaphore(workers or max(1, min(4, os.cpu_count() or 1)))
        self._same = [threading.Lock() for _ in range(64)]

    def read(self, sample: BuildSample) -> bytes:
        """A WebP of at most 256 x 256 pixels. Raises as :func:`read_image`, and ImageError: it is damaged."""
        sha = sample.id[:20]
        path = self.folder / sha[:2] / f"{sha}.webp"
        with self._same[int(sha[:2], 16) % len(self._same)]:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                pass
            with self._pool:
                small = shrink(read_image(sample), sample.name)
            try:
                with atomic_write(path) as file:
                    file.write(small)
            except OSError as error:
                logger.warning("%s; the picture is shown, and made again next time", error)
            return small


def shrink(data: bytes, name: str) -> bytes:
    """An image file as a WebP of at most 256 x 256 pixels. Raises ImageError."""
    image = decode_image(data, name)
    image.thumbnail((SIDE, SIDE))
    return _encoded(image, "WEBP", quality=80, method=1)


def _encoded(image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:  # JPEG and WebP end at 65,535 and 16,383 pixels a side
        raise ImageError(f"the image cannot be shown as {kind}: {error}") from error
    return buffer.getvalue()
