"""Which figure of SURD-Shapes stands on the ground of a picture: its pose and its color.

Every pose, both ways round and at every shift, is laid over the picture; the best must explain it.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import ndimage

from .render import BACKGROUNDS, GROUND, GROUND_BOTTOM, GROUND_TOP, SAMPLES, SEAT, SIZE, figure_mask
from .scenes import POSES
from .shape_fit import (
    FAINT,
    PALETTE,
    SPECK,
    SPECKS,
    Found,
    box_of,
    coverage,
    is_spotted,
    largest_part,
    name_color,
    reach,
    within,
)

SHIFTS = range(-9, 10)  # pixels; scenes use up to 7
SOFTNESS, SOFTER = 0.5, 0.9  # pixels of blur; see shape_fit
NUDGES = tuple((down, right) for down in (-1, -0.5, 0, 0.5, 1) for right in (-0.5, 0, 0.5))
TRIED = 3  # poses looked at closely
LEAST_FIT = 0.75
FIT_MARGIN = 0.1
LEAST_PIXELS = 30  # inner pixels of one color, or there is no figure
GROUND_COLUMNS = 36  # of 64: the rest may be hidden by feet, a seat, a body
GROUND_GAPS = SPECK // (GROUND_BOTTOM - GROUND_TOP)  # columns: no more is missing than a speck
SEAT_OFF = 80.0  # levels that a seat may be from its grey: all of the world's colors are 99 or more from it
STRAY_OFF, STRAY_PIXELS = 55.0, 24  # levels unexplained at figure and seat, and of how many inner pixels
GREY = np.array(GROUND, dtype=np.float32)


def has_ground(picture: np.ndarray, background: np.ndarray) -> bool:
    """Whether a grey line of about the ground's thickness runs through the picture at the ground's height."""
    return int(_is_ground(picture, background).sum()) >= GROUND_COLUMNS


def _is_ground(picture: np.ndarray, background: np.ndarray) -> np.ndarray:
    """In which columns [64] nothing but the line is at the ground's height."""
    band = picture[GROUND_TOP - 2 : GROUND_BOTTOM + 1]
    thickness = ((background - band) / (background - GREY)).sum(axis=0)
    return ((thickness > 1.1) & (thickness < 3.2)).all(axis=1)


def fit_figure(picture: np.ndarray, background: np.ndarray) -> tuple[Found | None, str]:
    """The figure found, and what is wrong with the picture (``""``: nothing)."""
    color = _figure_color(picture, background)
    if color is None:
        return None, "nothing stands on the ground"
    ranked = _rank(picture - background, color - background)
    tried = sorted((_closely(picture, background, color, index) for index in ranked[:TRIED]), reverse=True)
    (fit, index, nudge), (second, _, _) = tried[:2]
    pose, _, _ = _places()[index]
    shape = _nudged(index)[nudge]
    inside = within(shape)
    color = np.median(picture[inside], axis=0)
    name, why = name_color(color, picture[inside])
    found = Found(pose, name, box_of(shape > 0.5), round(fit, 3), why=why)
    if fit < LEAST_FIT or fit - second < FIT_MARGIN:
        return Found(None, name, found.box, found.fit, why=why), "the figure is in no pose of the world"
    if why:
        return found, f"the figure {why}"
    behind = _behind(background, index)
    off = np.sqrt(((picture - (behind + (color - behind) * shape[..., None])) ** 2).sum(axis=2))
    if is_spotted(off, inside):
        return found, "the figure is of more than one color, or in parts"
    return found, _besides(picture, background, off, reach(shape) | reach(_seat(*_places()[index])))


def _besides(picture: np.ndarray, background: np.ndarray, off: np.ndarray, near: np.ndarray) -> str:
    """What is there besides figure and seat, which reach no farther than the mask ``near`` [64, 64].

    ``off`` [64, 64]: levels by which the picture differs from what they, ground and background explain.
    """
    if not _ground_is_whole(picture, background, near):
        return "the ground is not whole"
    # At the figure and its seat edges may be off by a pixel, so only what is thicker counts; and where they
    # stand on the ground, drawings run into it.
    upright = off.copy()
    upright[GROUND_TOP - 2 : GROUND_BOTTOM + 2] = 0
    stray = ndimage.binary_erosion(upright > STRAY_OFF).sum()
    if stray > STRAY_PIXELS or largest_part(ndimage.binary_erosion(upright > SEAT_OFF)) > SPECK:
        return "something at the figure"
    # The line of the ground may be drawn a pixel thicker or beside its place: at it any mixture of the ground
    # with the background is explained, and nothing else.
    line = slice(GROUND_TOP - 1, GROUND_BOTTOM + 1)
    mixed = coverage(picture[line] - background, GREY - background)[..., None]
    unlike_line = picture[line] - (background + (GREY - background) * mixed)
    away = (off > FAINT) & ~near
    away[line] &= (unlike_line**2).sum(axis=2) > FAINT**2
    if largest_part(away) > SPECK or away.sum() > SPECKS:
        return "something besides the figure"
    return ""


def _ground_is_whole(picture: np.ndarray, background: np.ndarray, near: np.ndarray) -> bool:
    """Whether the line goes through all columns in which no figure or seat comes near to it."""
    bare = ~near[GROUND_TOP - 2 : GROUND_BOTTOM + 1].any(axis=0)
    return int((bare & ~_is_ground(picture, background)).sum()) <= GROUND_GAPS


def _figure_color(picture: np.ndarray, background: np.ndarray) -> np.ndarray | None:
    """The most frequent color [3] above the ground other than the grey of a seat."""
    there = ((picture - background) ** 2).sum(axis=2) > FAINT**2
    there[GROUND_TOP - 2 :] = False
    values = picture[ndimage.binary_erosion(there)]
    known = np.concatenate([PALETTE, GREY[None]])
    nearest = ((values[:, None] - known) ** 2).sum(axis=2).argmin(axis=1)
    votes = np.bincount(nearest, minlength=len(known))[:-1]
    if votes.sum() < LEAST_PIXELS:
        return None
    return np.median(values[nearest == votes.argmax()], axis=0)


def _rank(difference: np.ndarray, figure: np.ndarray) -> list[int]:
    """The best place of each pose, best pose first, by squared error of the whole picture.

    The picture less its background is (figure color) A + (ground color) W, with A the coverage by a figure
    and W that by ground and seat where no figure hides it: the error is a sum of products known beforehand.
    """
    figures, grounds, products = _templates()
    ground = GREY - np.array(BACKGROUNDS[0], dtype=np.float32)
    difference = difference.reshape(-1, 3)
    error = (
        (figure @ figure) * products[0]
        + (ground @ ground) * products[1]
        + 2 * (figure @ ground) * products[2]
        - 2 * (figures @ (difference @ figure) + grounds @ (difference @ ground))
    )
    best = {}
    for index in np.argsort(error):
        best.setdefault(_places()[index][0], int(index))
    return list(best.values())


def _closely(picture: np.ndarray, background: np.ndarray, color: np.ndarray, index: int) -> tuple:
    """(IoU above the ground, index, number of the nudge) of a place, at the best of small steps to all sides.

    The ground is left out: where its line is drawn a little thicker, it looks like some pink.
    """
    above = slice(GROUND_TOP - 2)
    behind = _behind(background, index)[above]
    cover = coverage(picture[above] - behind, color - behind)
    # A mottled background covers a little everywhere; as much is taken from the figure as from the picture.
    least = FAINT / np.sqrt(((color - background) ** 2).sum())
    cover[cover < least] = 0
    shapes = _nudged(index)[:, above]
    shapes = np.where(shapes < least, 0, shapes)
    shared = np.minimum(cover, shapes).sum(axis=(1, 2))
    fits = shared / (cover.sum() + shapes.sum(axis=(1, 2)) - shared)
    return float(fits.max()), index, int(fits.argmax())


def _behind(background: np.ndarray, index: int) -> np.ndarray:
    """The picture [64, 64, 3] without its figure: background, ground and seat."""
    pose, mirrored, shift = _places()[index]
    ground = _ground(pose, mirrored, shift)[..., None]
    return background + (GREY - background) * ground


@cache
def _places() -> tuple[tuple[str, bool, int], ...]:
    """Pose, mirrored and shift of each template; no figure leaves the picture by more than a little."""
    return tuple(
        (pose, mirrored, shift)
        for pose in POSES
        for mirrored in (False, True)
        for shift in SHIFTS
        if pose not in ("lying", "running") or abs(shift) <= 5
    )


@cache
def _templates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coverage by figure and by bare ground, each [P, 4096], and their products AA, WW, AW [3, P]."""
    figures = np.stack([_figure(*place).ravel() for place in _places()])
    grounds = np.stack([_ground(*place).ravel() for place in _places()]) * (1 - figures)
    products = [
        (one * other).sum(axis=1) for one, other in ((figures,) * 2, (grounds,) * 2, (figures, grounds))
    ]
    return figures, grounds, np.stack(products)


@cache
def _nudged(index: int) -> np.ndarray:
    """Coverage by a figure at small steps to all sides, sharper and softer, [30, 64, 64]."""
    sharper = _figure(*_places()[index])
    covers = sharper, ndimage.gaussian_filter(sharper, SOFTER)
    return np.stack([_moved(_moved(cover, down, 0), right, 1) for cover in covers for down, right in NUDGES])


def _moved(cover: np.ndarray, step: float, axis: int) -> np.ndarray:
    """Moved by half a pixel or a whole one, either way."""
    return (np.roll(cover, math.floor(step), axis) + np.roll(cover, math.ceil(step), axis)) / 2


def _figure(pose: str, mirrored: bool, shift: int) -> np.ndarray:
    return _soft(_upright(pose, mirrored, shift))


@cache
def _upright(pose: str, mirrored: bool, shift: int) -> np.ndarray:
    mask = figure_mask(pose, shift, mirrored)
    return mask.reshape(SIZE, SAMPLES, SIZE, SAMPLES).mean(axis=(1, 3), dtype=np.float32)


def _ground(pose: str, mirrored: bool, shift: int) -> np.ndarray:
    ground = _seat(pose, mirrored, shift)
    ground[GROUND_TOP:GROUND_BOTTOM] = 1
    return _soft(ground)


def _seat(pose: str, mirrored: bool, shift: int) -> np.ndarray:
    seat = np.zeros((SIZE, SIZE), dtype=np.float32)
    if pose == "sitting":
        (left, top), (right, bottom) = SEAT
        if mirrored:
            left, right = SIZE - right, SIZE - left
        seat[top:bottom, left + shift : right + shift] = 1
    return seat


def _soft(cover: np.ndarray) -> np.ndarray:
    # Rows and columns at the edge go on outside: the ground does.
    return ndimage.gaussian_filter(cover, SOFTNESS, mode="nearest")
