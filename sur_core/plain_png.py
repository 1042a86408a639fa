"""The usual kind of PNG, decoded some three times as fast as Pillow does where kornia-rs is installed."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

QUICK_THREADS = 2
"""kornia-rs keeps Python's lock while it decodes, Pillow does not: more threads get further with Pillow."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST = 1 << 24
"""Pixels. Larger pictures would keep the lock for long, and memory is watched where Pillow reads them."""

_CHANNELS = {2: ("rgb", 3), 6: ("rgba", 4)}
_OTHER_PIXELS = (b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""Chunks that make more of a picture than its RGB or RGBA bytes."""


class _Parts(NamedTuple):
    pixels: bytes
    texts: bytes
    shape: tuple[int, int]
    mode: str


def decode_plain_png(data: bytes) -> Image | None:
    """A PNG of 8-bit RGB or RGBA, not interlaced, not animated: the pixels and texts that Pillow finds in it.

    Anything else, and whatever is not quite right with the file, is left to Pillow, so that what counts as
    damaged is Pillow's to say. One thing only differs: a wrong checksum inside the compressed pixels whose
    outer checksums are right. Damage cannot do that, a program that writes wrong files can; Pillow refuses
    such a file.

    Args:
        data: the encoded file.

    Returns:
        a loaded image with Pillow's ``info``; None: ask Pillow (or kornia-rs is not installed).
    """
    from PIL import Image

    decode = find_decoder()
    parts = _split(data) if decode else None
    if parts is None:
        return None
    try:
        with Image.open(io.BytesIO(parts.texts)) as texts:
            texts.load()  # some stand behind the pixels
        image = Image.fromarray(decode(parts.pixels, parts.shape, parts.mode))
    except Exception:  # kornia-rs has no other error class, Pillow many; Pillow will say what is wrong
        return None
    image.info, image.format = texts.info, texts.format
    return image


@cache
def find_decoder() -> Callable[[bytes, tuple[int, int], str], Any] | None:
    """kornia-rs's (file, (height, width), mode) -> uint8 [H, W, C]; None if it is not installed."""
    try:
        from kornia_rs.io import decode_image_png_u8
    except ImportError:
        return None
    return decode_image_png_u8


def _split(data: bytes) -> _Parts | None:
    """A file with nothing but the pixels, and one with all else around a single pixel, for Pillow."""
    if data[:16] != _SIGNATURE + b"\0\0\0\rIHDR" or len(data) < 33:
        return None
    width, height, bits, color, *ways = struct.unpack_from(">IIBBBBB", data, 16)
    if bits != 8 or color not in _CHANNELS or any(ways) or not 0 < width * height <= _LARGEST:
        return None
    span = _pixel_chunks(data)
    if span is None:
        return None
    first, behind, end = span
    mode, channels = _CHANNELS[color]
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, color, 0, 0, 0))
    one = _chunk(b"IDAT", zlib.compress(bytes(1 + channels), 1))
    return _Parts(
        pixels=data[:33] + data[first:behind] + _chunk(b"IEND", b""),
        texts=_SIGNATURE + header + data[33:first] + one + data[behind:end],
        shape=(height, width),
        mode=mode,
    )


def _pixel_chunks(data: bytes) -> tuple[int, int, int] | None:
    """(where the IDAT chunks begin, where they end, where the file ends); None if it is no plain PNG."""
    at, first, behind = 33, 0, 0
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if kind in _OTHER_PIXELS or end > len(data):
            return None
        if kind == b"IDAT":
            if behind not in (0, at):
                return None
            first, behind = first or at, end
        elif kind == b"IEND":
            return (first, behind, end) if first else None
        at = end
    return None


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
