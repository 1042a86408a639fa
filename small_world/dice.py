"""Random choices that are the same on every machine and in every Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


class Dice:
    """A stream of choices that belongs to a key, so that no choice depends on what was drawn for another.

    Only ``random.Random.random`` is used, whose values Python promises to keep.
    """

    def __init__(self, *key: int | str):
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:8], "big")).random

    def below(self, count: int) -> int:
        """A whole number in 0..count - 1."""
        return int(self._random() * count)

    def between(self, low: int, high: int) -> int:
        """A whole number in low..high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, things: Sequence[Thing]) -> Thing:
        return things[self.below(len(things))]

    def chance(self, share: float) -> bool:
        return self._random() < share

    def shuffled(self, things: Sequence[Thing]) -> list[Thing]:
        """A new list in random order (Fisher-Yates)."""
        result = list(things)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result
