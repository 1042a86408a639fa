"""What keeps an arm hidden: an order, names and sides that no arm has a part in, and pictures without past.

Everything random comes from one secret, which stands in the key and not on the page. Things are put into an
order that does not know of arms (by prompt, seed and pixels) before they are shuffled, and names are given by
place. So the page is a function of the pictures and the secret alone: who drew which does not enter it.
"""

from __future__ import annotations

import hashlib
import io
import random
import secrets
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Thing = TypeVar("Thing")
FORMATS = {"png": "image/png", "jpeg": "image/jpeg"}
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}
JPEG_QUALITY = 95


class Hiding:
    """Order, names and sides from a secret.

    Args:
        seed: equal seeds give an equal page. Whoever knows it can work out the order, so without one a secret
            is drawn.
    """

    def __init__(self, seed: int | str | None = None):
        self.secret = secrets.token_hex(16) if seed is None else str(seed)

    def shuffled(self, things: Sequence[Thing], purpose: str) -> list[Thing]:
        """The things in an order that depends on their number alone."""
        order = list(things)
        random.Random(f"{self.secret}/{purpose}").shuffle(order)
        return order

    def name(self, place: str) -> str:
        """A name for what is shown at a place; 24 hexadecimal digits."""
        return hashlib.blake2b(place.encode(), key=self._key(), digest_size=12).hexdigest()

    def coins(self, count: int) -> list[bool]:
        """Heads or tails, ``count`` times."""
        toss = random.Random(f"{self.secret}/sides")
        return [toss.random() < 0.5 for _ in range(count)]

    def study(self, *parts: str) -> str:
        """The name of a study with this content; 24 hexadecimal digits."""
        made = hashlib.blake2b(key=self._key(), digest_size=12, person=b"study")
        for part in parts:
            made.update(hashlib.sha256(part.encode()).digest())
        return made.hexdigest()

    def _key(self) -> bytes:
        return hashlib.sha256(self.secret.encode()).digest()


def digest_of(pixels: np.ndarray) -> str:
    """What tells a picture by its pixels, uint8 [H, W, 3]; 32 hexadecimal digits."""
    made = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    made.update(np.ascontiguousarray(pixels).tobytes())
    return made.hexdigest()


def encoded(pixels: np.ndarray, format: str) -> bytes:
    """A file of these pixels and nothing else: no text, no EXIF, no profile, no time.

    ``"png"`` keeps them exactly; it is compressed harder than what evaluations write, so that the bytes are
    others, by which a file could be found again.
    """
    from PIL import Image

    content = io.BytesIO()
    how = {"compress_level": 9} if format == "png" else {"quality": JPEG_QUALITY, "subsampling": 0}
    Image.fromarray(pixels).save(content, format=format.upper(), **how)
    return content.getvalue()
