"""Scenes of SURD-Shapes for tests, and what a small decoder may do to their pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from small_world.dice import Dice
from small_world.render import BACKGROUNDS, SIZE, _paint, object_mask
from small_world.scenes import COLORS, Meaning, Scene, meanings, place


def some_scenes(type: str, count: int, key: str = "scenes") -> list[Scene]:
    """``count`` scenes; every meaning occurs where there are fewer meanings than scenes."""
    everything = Dice("order", type, key).shuffled(meanings(type))
    return [place(everything[index % len(everything)], Dice(key, type, index)) for index in range(count)]


def drawn(objects, background: int = 0) -> np.ndarray:
    """A picture of (kind, color, centre, radius in eighths of a pixel), drawn one over the other."""
    pixels = np.empty((SIZE, SIZE, 3), dtype=np.int64)
    pixels[:] = BACKGROUNDS[background]
    for kind, color, centre, radius in objects:
        _paint(pixels, object_mask(kind, centre, radius), COLORS[color])
    return pixels.astype(np.uint8)


def _blurred(picture, dice):
    return ndimage.gaussian_filter(picture, (1, 1, 0))


def _noisy(picture, dice):
    return picture + dice.normal(0, 4, picture.shape)


def _shifted(picture, dice):
    return picture + dice.uniform(-12, 12, 3)


def _halved(picture, dice):
    small = Image.fromarray(picture.round().astype(np.uint8)).resize((SIZE // 2, SIZE // 2), Image.BOX)
    return np.asarray(small.resize((SIZE, SIZE), Image.BILINEAR), dtype=np.float64)


def _all_at_once(picture, dice):
    mottling = ndimage.zoom(dice.normal(0, 8, (8, 8, 3)), (8, 8, 1), order=1)
    return _noisy(_shifted(ndimage.gaussian_filter(picture, (0.8, 0.8, 0)) + mottling, dice), dice)


DEGRADATIONS = {
    "blurred": _blurred,
    "noisy": _noisy,
    "off in color": _shifted,
    "halved and enlarged": _halved,
    "blurred, mottled, noisy and off in color": _all_at_once,
}


def degraded(pixels: np.ndarray, how: str, seed: int) -> np.ndarray:
    picture = DEGRADATIONS[how](pixels.astype(np.float64), np.random.default_rng(seed))
    return picture.round().clip(0, 255).astype(np.uint8)


def wrong_in_one(meaning: Meaning) -> dict[str, list[Meaning]]:
    """By property: all meanings of the same type that differ from ``meaning`` in that property alone.

    Of a color meaning also ``binding``: the colors swapped.
    """
    wrong: dict[str, list[Meaning]] = {}
    own = vars(meaning)
    for other in meanings(meaning.type):
        differing = [name for name, value in vars(other).items() if value != own[name]]
        if len(differing) == 1:
            wrong.setdefault(differing[0], []).append(other)
        elif meaning.type == "color" and set(differing) == {"color", "other_color"}:
            swapped = (other.color, other.other_color) == (meaning.other_color, meaning.color)
            wrong |= {"binding": [other]} if swapped else {}
    if "count" in wrong:
        wrong["count"] = [other for other in wrong["count"] if abs(other.count - meaning.count) == 1]
    return wrong
