"""What a measure of pictures is: a name, a direction, and a number for each picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np


class QualityError(ValueError):
    """A measure cannot be taken. The message names the setting or file, what was found, and what to do."""


class Measure(Protocol):
    """A number for each picture, by itself.

    Attributes:
        name: short and fixed, such as ``"clip_iqa"``; a key in tables and settings.
        higher_is_better: the direction in which pictures get better.
        reads_text: whether a score depends on the text.
        note: one sentence for the report: what it is, and what it must not be compared with.
        fingerprint: of the model and the formula.

    :func:`.registry.make_measures` adds ``conditions`` (device, batch size, versions; equal ones, with equal
    fingerprints, give equal scores to the last digit) and ``model``, words for the report.
    """

    name: str
    higher_is_better: bool
    reads_text: bool
    note: str
    fingerprint: str

    def score(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """Of each picture, uint8 [H, W, 3], with its text: float64 [N]; NaN where it is not defined."""


@runtime_checkable
class PairMeasure(Measure, Protocol):
    """A measure that says something only of two pictures of one prompt and seed: which is preferred."""

    def shares(self, scores: np.ndarray, baseline: np.ndarray) -> np.ndarray:
        """From both pictures' scores [N], the part that goes to the first: float64 [N], 0..1. The second's is
        1 minus it.
        """


def identity(*parts: object) -> str:
    """Hex hash of what decides a measure's scores."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()
