"""One picture file: read once, decoded once, and everything taken from it that later steps need."""

from __future__ import annotations

import hashlib
import io
import math
import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..images import DECODER_ERRORS, MAX_PIXELS, ImageError, opaque_rgb
from ..plain_png import decode_plain_png
from .metadata import read_metadata
from .ratings import read_marks, stricter

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = 2
"""Of what is read; another one reads all files again."""

MAX_BYTES = 1 << 29
LARGE_PIXELS = 40_000_000
HASH_SIDE = 32
ORIENTATION = 0x0112

_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")

_one_large = threading.Lock()


@dataclass(frozen=True)
class Reading:
    """A file to be read.

    Attributes:
        path: the file.
        sidecar: look for a prompt in a text file beside it.
        given: what a table says of it; stands above what the file says, but for a stricter rating.
    """

    path: str
    sidecar: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)


class _Unusable(Exception):
    """The message is the problem, "kind: detail"."""


def read_picture(reading: Reading, quick: bool = False) -> dict[str, Any]:
    """The values of a collect record; a file that cannot be used has a "problem", and nothing is raised.

    Args:
        quick: as :func:`..images.decode_image`; the values are the same.
    """
    values = {
        "sha256": "",
        "bytes": 0,
        "width": 0,
        "height": 0,
        "format": "",
        "phash": None,
        "metadata": "",
        "prompt": "",
        "negative": "",
        "parameters": {},
        "license": "",
        "origin": "",
        "rating": "",
        "nsfw": None,
    }
    try:
        _check_name(reading.path)
        data = _read(reading.path)
        values |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        _look(data, reading, values, quick)
    except _Unusable as error:
        values["problem"] = str(error)
    given = {key: value for key, value in reading.given.items() if value not in ("", None, {}, [])}
    rating, nsfw = stricter((given.get("rating", ""), given.get("nsfw")), (values["rating"], values["nsfw"]))
    values |= given | {"rating": rating, "nsfw": nsfw}
    values["parameters"] = {key: value for key, value in values["parameters"].items() if _is_plain(value)}
    return values


def _is_plain(value: object) -> bool:
    """The manifest takes no NaN, which the JSON of some tools holds."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _check_name(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise _Unusable("not UTF-8: the file's name holds bytes that are no character; rename it") from None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.readall() if size <= MAX_BYTES else b""
    except OSError as error:
        raise _Unusable(f"unreadable file: {error.strerror}") from error
    if size > MAX_BYTES:
        raise _Unusable(f"too large: a file of {size >> 20} MB; at most {MAX_BYTES >> 20} are read")
    if not data:
        raise _Unusable("empty file: it has no bytes")
    return data


def _look(data: bytes, reading: Reading, values: dict[str, Any], quick: bool) -> None:
    """Raises _Unusable."""
    from PIL import Image, UnidentifiedImageError

    try:
        with (decode_plain_png(data) if quick else None) or Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            values |= {"format": image.format or "", "width": width, "height": height}
            if width * height > MAX_PIXELS:
                raise _Unusable(f"too large: {width} x {height} pixels")
            # Memory: any number of threads may decode usual pictures, but one only a huge one.
            with _one_large if width * height > LARGE_PIXELS else nullcontext():
                image.draft("L", (2 * HASH_SIDE, 2 * HASH_SIDE))  # JPEG alone can decode to a small size
                image.load()
                turned = image.getexif().get(ORIENTATION, 1)
                if turned in (5, 6, 7, 8):
                    values |= {"width": height, "height": width}
                values["phash"] = _perceptual_hash(image, turned)
            _add_metadata(image, reading, values)
    except Image.DecompressionBombError as error:
        raise _Unusable(f"too large: {error}") from error
    except UnidentifiedImageError as error:
        if data.startswith(_SIGNATURES):
            raise _Unusable("broken image: it is cut off or damaged in its first bytes") from error
        raise _Unusable(f"not an image: it begins with {data[:8]!r}") from error
    except ImageError as error:
        raise _Unusable(f"unknown colors: {error}") from error
    except MemoryError as error:
        raise _Unusable("too large: not enough memory to decode it") from error
    except DECODER_ERRORS as error:
        if "MAX_TEXT" in str(error):
            raise _Unusable("text too large: compressed text of it grows beyond Pillow's limit") from error
        raise _Unusable(f"broken image: {str(error) or type(error).__name__}") from error


def _perceptual_hash(image: Image, turned: int) -> str:
    """ImageHash's pHash of the picture as it is shown, 16 hex digits.

    The picture is brought near the hash's own size first, which Pillow does some ten times faster than a
    Lanczos resize of all pixels; the hash is the same.
    """
    import imagehash
    from PIL import Image

    grey = image if image.mode == "L" else _opaque(image).convert("L")
    small = grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    for step in _TURNS.get(turned, ()):
        small = small.transpose(Image.Transpose[step])
    return str(imagehash.phash(small))


_TURNS = {
    2: ("FLIP_LEFT_RIGHT",),
    3: ("ROTATE_180",),
    4: ("FLIP_TOP_BOTTOM",),
    5: ("TRANSPOSE",),
    6: ("ROTATE_270",),
    7: ("TRANSVERSE",),
    8: ("ROTATE_90",),
}
"""EXIF orientation: how the stored picture becomes upright."""


def _opaque(image: Image) -> Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] == 255:
        return image
    return opaque_rgb(image, image.format or "")


def _add_metadata(image: Image, reading: Reading, values: dict[str, Any]) -> None:
    try:
        found = read_metadata(image, Path(reading.path), sidecar=reading.sidecar)
    except (OSError, ValueError) as error:
        raise _Unusable(f"unreadable metadata: {error}") from error
    rating, nsfw = read_marks({"rating": found.rating, "nsfw": found.nsfw})
    values |= {
        "metadata": found.kind,
        "prompt": found.prompt,
        "negative": found.negative,
        "parameters": dict(found.parameters),
        "license": found.license,
        "origin": found.origin,
        "rating": rating,
        "nsfw": nsfw,
    }
    if found.remarks:
        values["remarks"] = list(found.remarks)
