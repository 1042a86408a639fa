"""Which object of SURD-Shapes a region of a picture is: its kind by shape, its color by its inner pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from .render import SAMPLES, SIZE, UNIT, object_mask
from .scenes import COLORS, KINDS

FAINT = 40.0  # levels from the background below which a pixel is background
COLOR_OFF = 50.0  # levels that a color may be from the world's
COLOR_MARGIN = 1.2  # how much farther the next color must be
EVEN_OFF, EVEN_SHARE = 70.0, 0.8  # this share of inner pixels must be this near the color's own
SPECK = 8  # pixels: up to so many that hang together and that nothing explains do no harm
SPECKS = 24  # pixels of specks in all
LEAST_FIT = 0.8  # IoU with the best shape
FIT_MARGIN = 0.05  # how much worse every other kind must be
SOFTNESS = (0.4, 0.8, 1.2)  # pixels of blur: pictures that a decoder made are more or less sharp
SMALLEST, LARGEST = 4.0, 16.0  # radii tried, pixels
WINDOW = 44  # pixels a side: room for the largest
NAMES = tuple(COLORS)
PALETTE = np.array(list(COLORS.values()), dtype=np.float32)


@dataclass(frozen=True)
class Found:
    """Something in a picture.

    Attributes:
        kind, color: names, or ``None`` where it has no shape or color of the world.
        box: left, top, right, bottom in pixels; the last two are just outside.
        fit: how well it agrees with the best shape, IoU in 0..1.
        radius: pixels, of the best shape.
        why: what is wrong with it, or ``""``.
    """

    kind: str | None
    color: str | None
    box: tuple[int, int, int, int]
    fit: float
    radius: float = 0.0
    why: str = ""


def fit_object(picture: np.ndarray, background: np.ndarray, region: np.ndarray, regions: list) -> Found:
    """What ``region``, a mask [64, 64], shows. ``regions``: all of them; others' pixels are left out."""
    box = box_of(region)
    inner = ndimage.binary_erosion(region)
    values = picture[inner if inner.sum() > 12 else region]
    color = np.median(values, axis=0)
    name, why = name_color(color, values)
    if not why and is_spotted(_off(picture, _main(values, color)), inner):
        why = "is of more than one color"
    # Around the region lies its blurred edge; without it, blurred objects would come out too small.
    around = ndimage.binary_dilation(region, iterations=2)
    for other in regions:
        if other is not region:
            around &= ~other
    cover = np.where(around, coverage(picture - background, color - background), 0)
    there = around & (_off(picture, background) > FAINT)
    laid = [_lay(kind, cover) for kind in KINDS]
    best, second = np.argsort([each.fit for each in laid])[::-1][:2]
    kind, fit = KINDS[best], laid[best].fit
    if fit < LEAST_FIT or fit - laid[second].fit < FIT_MARGIN or _is_misshapen(laid[best], there):
        kind, why = None, "has no shape of the world"
    elif min(box) == 0 or max(box) == SIZE:
        why = "is cut by the border"
    return Found(kind, name, box, round(fit, 3), round(laid[best].radius, 2), why)


def name_color(color: np.ndarray, values: np.ndarray) -> tuple[str | None, str]:
    """The name of ``color`` [3], the median of ``values`` [N, 3]; else ``None`` and why it has none."""
    distances = np.sqrt(((PALETTE - color) ** 2).sum(axis=1))
    best, second = np.argsort(distances)[:2]
    if distances[best] > COLOR_OFF or distances[second] < COLOR_MARGIN * distances[best]:
        return None, "is of no color of the world"
    if (np.sqrt(((values - color) ** 2).sum(axis=1)) < EVEN_OFF).mean() < EVEN_SHARE:
        return None, "is of more than one color"
    return NAMES[best], ""


def _off(picture: np.ndarray, color: np.ndarray) -> np.ndarray:
    return np.sqrt(((picture - color) ** 2).sum(axis=-1))


def _main(values: np.ndarray, color: np.ndarray) -> np.ndarray:
    """The color [3] of most of ``values``; of two-colored things the median ``color`` lies between both."""
    off = _off(values, color)
    return np.median(values[off <= np.median(off)], axis=0)


def is_spotted(off: np.ndarray, inside: np.ndarray) -> bool:
    """Whether more than a speck of the mask ``inside`` [64, 64] is too far, ``off`` [64, 64], from its color.

    The share that ``name_color`` allows is for drawings that are uneven all over; gathered at one place, as
    much is a thing or a limb of another color.
    """
    return largest_part(inside & (off > EVEN_OFF)) > SPECK


def largest_part(mask: np.ndarray) -> int:
    """Pixels of the largest connected part."""
    labels, count = ndimage.label(mask)
    return int(np.bincount(labels.ravel())[1:].max()) if count else 0


def within(shape: np.ndarray) -> np.ndarray:
    """Pixels that the coverage ``shape`` holds even if it was drawn a pixel smaller or beside its place."""
    return ndimage.binary_erosion(shape > 0.6)


def reach(shape: np.ndarray) -> np.ndarray:
    """Pixels that the coverage ``shape`` may touch if it was drawn a pixel larger or beside its place."""
    return ndimage.binary_dilation(shape > 0.1)


def coverage(difference: np.ndarray, full: np.ndarray) -> np.ndarray:
    """How much of each pixel an object covers, 0..1.

    ``difference`` [H, W, 3] is the picture less what lies behind; ``full`` [3] or [H, W, 3] is what that
    would be where the object covers everything.
    """
    length = np.maximum((full * full).sum(axis=-1), 1.0)
    return np.clip((difference * full).sum(axis=-1) / length, 0, 1)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class _Laid:
    """A kind laid over coverage: IoU, radius in pixels, and where there is such a size, the window's corner
    (row, column) and what both cover in it [44, 44]."""

    fit: float
    radius: float
    corner: tuple[int, int] = (0, 0)
    cover: np.ndarray | None = None
    shape: np.ndarray | None = None


def _is_misshapen(laid: _Laid, there: np.ndarray) -> bool:
    """Whether more than a speck is missing inside the shape, or is ``there`` [64, 64] outside of it.

    Edges, which right drawings have up to a pixel beside their place, do not count; so a bite, a hole or a
    lump that a large object's IoU forgives is seen.
    """
    missing = within(laid.shape) & (laid.cover < 0.5)
    surplus = _window(there, *laid.corner) & ~reach(laid.shape)
    return max(largest_part(missing), largest_part(surplus)) > SPECK


def _lay(kind: str, cover: np.ndarray) -> _Laid:
    """``kind`` over ``cover`` [64, 64], at the same area and centre of mass."""
    share, low = _proportions(kind)
    area = float(cover.sum())
    radius = (area / share) ** 0.5 if area else 0.0
    if not SMALLEST <= radius <= LARGEST:
        return _Laid(0.0, radius)
    line = np.arange(SIZE) + 0.5
    x = float(cover.sum(axis=0) @ line) / area
    y = float(cover.sum(axis=1) @ line) / area - low * radius
    left, top = _place(x), _place(y)
    shapes, sums = _shapes(kind, round(radius * UNIT / 2) * 2, left % SAMPLES, top % SAMPLES)
    column, row = left // SAMPLES - WINDOW // 2, top // SAMPLES - WINDOW // 2
    padded = _window(cover, row, column)
    shared = np.minimum(padded, shapes).sum(axis=(1, 2))
    fits = shared / (area + sums - shared)
    return _Laid(float(fits.max()), radius, (row, column), padded, shapes[fits.argmax()])


def _window(values: np.ndarray, row: int, column: int) -> np.ndarray:
    """The window [44, 44] whose upper left corner is there; outside the picture it is empty."""
    window = np.zeros((WINDOW, WINDOW), dtype=values.dtype)
    rows, columns = (max(row, 0), min(row + WINDOW, SIZE)), (max(column, 0), min(column + WINDOW, SIZE))
    window[rows[0] - row : rows[1] - row, columns[0] - column : columns[1] - column] = values[
        rows[0] : rows[1], columns[0] : columns[1]
    ]
    return window


def _place(centre: float) -> int:
    return round(centre * SAMPLES)


@cache
def _proportions(kind: str) -> tuple[float, float]:
    """Area and height of the centre of mass below the centre, of an object of radius 1."""
    mask = object_mask(kind, (SIZE // 2, SIZE // 2), 160)
    radius = 160 / UNIT * SAMPLES
    rows = np.flatnonzero(mask.any(axis=1))
    height = (mask.sum(axis=1)[rows] * (rows + 0.5)).sum() / mask.sum() - SIZE // 2 * SAMPLES
    return float(mask.sum()) / radius**2, float(height) / radius


@cache
def _samples(kind: str, radius: int) -> np.ndarray:
    return object_mask(kind, (SIZE // 2, SIZE // 2), radius)


@cache
def _shapes(kind: str, radius: int, right: int, down: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage [3, 44, 44] at each softness by an object in the middle, moved by sample points, and the sums.

    ``radius`` is in eighths of a pixel.
    """
    moved = np.roll(_samples(kind, radius), (down, right), axis=(0, 1))
    cover = moved.reshape(SIZE, SAMPLES, SIZE, SAMPLES).mean(axis=(1, 3), dtype=np.float32)
    edge = (SIZE - WINDOW) // 2
    soft = [ndimage.gaussian_filter(cover, sigma)[edge:-edge, edge:-edge] for sigma in SOFTNESS]
    return np.stack(soft), np.array([float(cover.sum()) for cover in soft])
