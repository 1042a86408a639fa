"""What a detector says it sees: boxes or masks with labels and scores, without doubles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Detection:
    """One thing seen.

    Attributes:
        label: what it is, one of those that were asked for.
        score: the detector's, from 0 to 1.
        box: left, top, right, bottom in pixels of the picture.
        mask: bool [H, W], or ``None`` if the detector gives boxes only.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None

    def words(self) -> dict[str, Any]:
        """For people and files: JSON values, without the mask."""
        box = [round(float(side), 1) for side in self.box]
        return {"label": self.label, "score": round(float(self.score), 4), "box": box}


class Detector(Protocol):
    """Finds things in pictures.

    Attributes:
        name: of the model.
        labels: all it knows; ``None`` if it can be asked for any words.
        usual_threshold: below which its scores are not worth a look.
    """

    name: str
    labels: tuple[str, ...] | None
    usual_threshold: float

    def detect(
        self, pictures: Sequence[np.ndarray], labels: Sequence[str], threshold: float
    ) -> list[list[Detection]]:
        """What it sees of ``labels`` in each picture, scores above ``threshold``; with doubles.

        Args:
            pictures: uint8 [H, W, 3], all of one size.
        """


def without_doubles(found: Sequence[Detection], overlap: float) -> list[Detection]:
    """Non-maximum suppression, whatever the labels: the best first, and nothing that covers one before it.

    Two cover each other if the intersection over the union of their masks, or of their boxes where one has
    no mask, is more than ``overlap``. Of equal scores the earlier one stays.
    """
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda one: -one.score):
        if all(_intersection_over_union(detection, other) <= overlap for other in kept):
            kept.append(detection)
    return kept


def object_pixels(pixels: np.ndarray, detection: Detection, inner: float) -> np.ndarray:
    """The pixels that are counted for a thing's color: uint8 [N, 3], perhaps none.

    Those of its mask; without one, those of the middle of its box, ``inner`` as wide and as high as the box:
    the corners are mostly background.
    """
    if detection.mask is not None:
        return pixels[detection.mask]
    left, top, right, bottom = detection.box
    across, down = (1 - inner) * (right - left) / 2, (1 - inner) * (bottom - top) / 2
    rows = slice(max(0, round(top + down)), max(0, round(bottom - down)))
    columns = slice(max(0, round(left + across)), max(0, round(right - across)))
    return pixels[rows, columns].reshape(-1, 3)


def _intersection_over_union(one: Detection, other: Detection) -> float:
    if one.mask is not None and other.mask is not None:
        union = (one.mask | other.mask).sum()
        return float((one.mask & other.mask).sum() / union) if union else 0.0
    width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
    height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
    common = max(0.0, width) * max(0.0, height)
    union = _area(one.box) + _area(other.box) - common
    return common / union if union > 0 else 0.0


def _area(box: tuple[float, float, float, float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
