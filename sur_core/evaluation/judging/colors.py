"""Which color a pixel has, by name.

Every pixel has exactly one of twelve names. With hue in degrees, saturation and value from 0 to 1 (the usual
HSV of its sRGB values), the first line that fits decides:

    black    value below 0.2
    white    saturation below 0.15 and value from 0.8
    gray     saturation below 0.15
    brown    hue from 10 to below 45 and value below 0.65, or saturation below 0.5 and value below 0.8
    pink     hue from 290 to below 345, value from 0.65; or from 345 over 0 to below 20, saturation below 0.6
             and value from 0.65
    red      hue from 345 over 0 to below 15
    orange   15 to below 42        yellow  42 to below 70       green   70 to below 165
    cyan     165 to below 200      blue    200 to below 260     purple  260 to below 345

Other words stand for one of these or several: golden is yellow or orange or brown, silver gray or white. The
borders are conventions, chosen by eye: a wine red below 0.2 is black here.
"""

from __future__ import annotations

import numpy as np

NAMES = (
    "black",
    "white",
    "gray",
    "brown",
    "pink",
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
)
_HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (200, "cyan"), (260, "blue"))
_HUES += ((345, "purple"), (361, "red"))
_OTHER_WORDS = {
    "grey": ("gray",),
    "silver": ("gray", "white"),
    "gold": ("yellow", "orange", "brown"),
    "golden": ("yellow", "orange", "brown"),
    "crimson": ("red",),
    "scarlet": ("red",),
    "teal": ("cyan",),
    "turquoise": ("cyan",),
    "navy": ("blue",),
    "violet": ("purple",),
    "lavender": ("purple",),
}
COLORS: dict[str, tuple[str, ...]] = {name: (name,) for name in NAMES} | _OTHER_WORDS
"""Each color that a truth may name, and the names of the pixels that have it."""


def color_shares(pixels: np.ndarray) -> dict[str, float]:
    """Share of the pixels that have each of ``NAMES``, adding up to 1.

    Args:
        pixels: uint8 [..., 3], at least one.
    """
    places = name_pixels(pixels)
    counts = np.bincount(places.ravel(), minlength=len(NAMES))
    return dict(zip(NAMES, (counts / places.size).tolist(), strict=True))


def share_of(color: str, shares: dict[str, float]) -> float:
    """Share of the pixels that may be called ``color``, one of ``COLORS``."""
    return sum(shares[name] for name in COLORS[color])


def name_pixels(pixels: np.ndarray) -> np.ndarray:
    """Place of each pixel's name in ``NAMES``: uint8 [...]. Pixels: uint8 [..., 3]."""
    hue, saturation, value = _hsv(pixels)
    around_red = (hue >= 345) | (hue < 20)
    rules = {
        "black": value < 0.2,
        "white": (saturation < 0.15) & (value >= 0.8),
        "gray": saturation < 0.15,
        "brown": (hue >= 10) & (hue < 45) & ((value < 0.65) | (saturation < 0.5) & (value < 0.8)),
        "pink": (value >= 0.65) & ((hue >= 290) & (hue < 345) | around_red & (saturation < 0.6)),
    }
    conditions = [*rules.values(), *(hue < border for border, _ in _HUES)]
    names = [*rules, *(name for _, name in _HUES)]
    return np.select(conditions, [NAMES.index(name) for name in names]).astype(np.uint8)


def _hsv(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hue in degrees from 0 to below 360, saturation, value); a pixel without color has hue 0."""
    colors = np.asarray(pixels, np.float32) / 255
    red, green, blue = colors[..., 0], colors[..., 1], colors[..., 2]
    value, chroma = colors.max(-1), np.ptp(colors, axis=-1)
    divisor = np.where(chroma > 0, chroma, 1)
    sextant = np.select(
        [chroma == 0, value == red, value == green],
        [0, (green - blue) / divisor, 2 + (blue - red) / divisor],
        4 + (red - green) / divisor,
    )
    return 60 * sextant % 360, chroma / np.where(value > 0, value, 1), value
