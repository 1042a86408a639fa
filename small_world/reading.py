"""Reads a picture: which scene of SURD-Shapes it shows, from its pixels alone.

Made for pictures that a small model drew: soft edges, colors off by some 20 levels, a mottled background.
Whatever else is off makes the picture no valid scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .figure_fit import fit_figure, has_ground
from .render import BACKGROUNDS, SIZE
from .scenes import KINDS, Action, Color, Counting, Meaning
from .shape_fit import FAINT, SPECK, SPECKS, Found, fit_object

BACKGROUND_OFF = 40  # levels (all three channels together) that a background may be from all of the world's
BACKGROUND_SPREAD = 16  # levels between the backgrounds of two halves: more is two pictures in one
BACKGROUND_SHARE = 0.5
# Levels, in any direction of color: two of the world's backgrounds, half and half, deviate by 13.5; the worst
# mottling that the judge has to bear, 8 levels a channel in cells of 8 pixels under noise of 4, by 8.6.
BACKGROUND_DEVIATION = 10.0
# Pixels; every object of a scene has its type's. Off by an edge drawn half a pixel in or out, 7% of the
# smaller radius, and as much again for shapes of more edge than a ball; right drawings are off by 9% at most.
RADII = {"counting": 7.5, "color": 11.0}
RADIUS_OFF = 0.15
RADII_RATIO = 1.2  # largest by smallest: half a pixel too large beside half a pixel too small is 1.15


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    Attributes:
        meaning: ``None`` if it is no valid scene; a color meaning names the kinds in the order of ``KINDS``.
        why: what is wrong with it, in short words; ``""`` for a valid scene.
        objects: what was found, also where that makes no scene; of an action the figure, whose kind is its
            pose.
    """

    meaning: Meaning | None
    why: str = ""
    objects: tuple[Found, ...] = ()


def read_scene(pixels: np.ndarray) -> Reading:
    """The scene that a picture, uint8 [64, 64, 3], shows. Raises ``ValueError`` for any other array."""
    if not isinstance(pixels, np.ndarray) or pixels.shape != (SIZE, SIZE, 3) or pixels.dtype != np.uint8:
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} {list(np.shape(pixels))}"
        raise ValueError(f"a picture of SURD-Shapes is uint8 [{SIZE}, {SIZE}, 3], found {found}")
    picture = pixels.astype(np.float32)
    background, why = _background(picture)
    if why:
        return Reading(None, why)
    if has_ground(picture, background):
        figure, why = fit_figure(picture, background)
        meaning = None if why else Action(figure.kind, figure.color)
        return Reading(meaning, why, () if figure is None else (figure,))
    regions, why = _regions(np.sqrt(((picture - background) ** 2).sum(axis=2)))
    if why:
        return Reading(None, why)
    objects = tuple(fit_object(picture, background, region, regions) for region in regions)
    meaning, why = _meaning(objects)
    return Reading(meaning, why, objects)


def _background(picture: np.ndarray) -> tuple[np.ndarray, str]:
    """The background's color [3], and why it is none of the world's."""
    background = np.median(picture.reshape(-1, 3), axis=0)
    near = np.abs(picture - background).max(axis=2) < FAINT
    if near.mean() < BACKGROUND_SHARE:
        return background, "no even background"
    background = np.median(picture[near], axis=0)
    if np.sqrt(((background - np.array(BACKGROUNDS)) ** 2).sum(axis=1)).min() > BACKGROUND_OFF:
        return background, "the background is none of the world"
    half = SIZE // 2
    for one, other in (
        ((slice(half), slice(None)), (slice(half, None), slice(None))),
        ((slice(None), slice(half)), (slice(None), slice(half, None))),
    ):
        medians = [np.median(picture[part][near[part]], axis=0) for part in (one, other) if near[part].any()]
        if len(medians) < 2 or np.sqrt(((medians[0] - medians[1]) ** 2).sum()) > BACKGROUND_SPREAD:
            return background, "two backgrounds"
    clear = ~ndimage.binary_dilation(~near, iterations=3)  # without the blurred edges of objects
    if clear.sum() > SIZE and np.linalg.eigvalsh(np.cov(picture[clear].T))[-1] > BACKGROUND_DEVIATION**2:
        return background, "the background has a pattern"
    return background, ""


def _regions(distance: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Masks [64, 64] of what differs from the background, each up to where it is half covered.

    Blurred edges of dark objects reach far and may meet; so each region is looked at again with a threshold
    of its own.
    """
    regions, specks = [], 0
    for part in _parts(distance > FAINT):
        size = int(part.sum())
        if size <= SPECK:
            specks += size
            continue
        limit = max(FAINT, 0.5 * float(np.percentile(distance[part], 75)))
        inner = [mask for mask in _parts(part & (distance > limit)) if mask.sum() > SPECK]
        regions += inner
        if not inner:
            return [], "a smear"
        rest = part & ~ndimage.binary_dilation(np.any(inner, axis=0), iterations=3)
        if any(mask.sum() > SPECK for mask in _parts(rest)):
            return [], "two objects touch"
    if specks > SPECKS:
        return [], "too many specks"
    return regions, ""


def _parts(mask: np.ndarray) -> list[np.ndarray]:
    labels, count = ndimage.label(mask)
    return [labels == index for index in range(1, count + 1)]


def _meaning(objects: tuple[Found, ...]) -> tuple[Meaning | None, str]:
    """What the objects say together, or why they are no scene."""
    if not objects:
        return None, "nothing there"
    for number, found in enumerate(objects, start=1):
        if found.why:
            return None, f"object {number} of {len(objects)} {found.why}"
    kinds, colors = {found.kind for found in objects}, {found.color for found in objects}
    if len(kinds) == 1 and len(colors) == 1 and len(objects) <= 6:
        meaning = Counting(len(objects), objects[0].kind, objects[0].color)
    elif len(kinds) == len(colors) == len(objects) == 2:
        first, second = sorted(objects, key=lambda found: KINDS.index(found.kind))
        meaning = Color(first.kind, first.color, second.kind, second.color)
    else:
        return None, f"{len(objects)} objects of {len(kinds)} kinds and {len(colors)} colors"
    radius = RADII[meaning.type]
    for number, found in enumerate(objects, start=1):
        if abs(found.radius / radius - 1) > RADIUS_OFF:
            return None, f"object {number} is too {'small' if found.radius < radius else 'large'}"
    radii = [found.radius for found in objects]
    if max(radii) > RADII_RATIO * min(radii):
        return None, "objects of unequal sizes"
    return meaning, ""
