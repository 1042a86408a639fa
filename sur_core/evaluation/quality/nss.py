"""The 36 natural scene statistics of BRISQUE (Mittal, Moorthy and Bovik, 2012).

Computed as in its authors' MATLAB release: on 8-bit luminance 0..255, normalised by a Gaussian window of 7 x
7 pixels with zeros beyond the edges, at full size and at half size after MATLAB's bicubic ``imresize``. Other
programs differ in these particulars, and their scores by some points.
"""

from __future__ import annotations

from functools import cache

import numpy as np

_SHAPES = np.arange(200, 10_001) / 1000
"""Where the shape of a distribution is looked for."""

_ROUNDING = 1e-9
_SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))
_LUMA = (0.298936021293775, 0.587043074451121, 0.114020904255103)


def brisque_features(pixels: np.ndarray) -> np.ndarray:
    """The features of a picture, uint8 [H, W, 3] or luminance [H, W]: float64 [36].

    18 at full size, then 18 at half size: shape and variance of the normalised luminance; then, for the
    products of neighbours along rows, columns and both diagonals, shape, mean, left and right variance. NaN
    where a distribution has no spread, as in a picture of one colour.
    """
    luminance = to_luminance(pixels) if pixels.ndim == 3 else pixels.astype(np.float64)
    return np.concatenate([_statistics(luminance), _statistics(halve(luminance))])


def to_luminance(pixels: np.ndarray) -> np.ndarray:
    """Whole numbers 0..255 as float64 [H, W], as MATLAB's ``rgb2gray`` gives them for uint8 [H, W, 3]."""
    return np.floor(pixels.astype(np.float64) @ np.array(_LUMA) + 0.5)


def halve(picture: np.ndarray) -> np.ndarray:
    """Half the size, rounded up, as MATLAB's ``imresize(picture, 0.5)``: bicubic, antialiased, mirrored."""
    distance = np.abs(np.arange(8) - 3.5) / 2
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    kernel = np.where(distance <= 1, near, far)
    kernel /= kernel.sum()
    for _ in range(2):
        padded = np.pad(picture, ((3, 4), (0, 0)), mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 8, axis=0)[::2]
        picture = (windows @ kernel).T
    return picture


def _statistics(luminance: np.ndarray) -> np.ndarray:
    """The 18 features of one size."""
    normalised = _normalised(luminance)
    shape, variance = _symmetric(normalised)
    found = [shape, variance]
    for shift in _SHIFTS:
        found += _asymmetric(normalised * np.roll(normalised, shift, axis=(0, 1)))
    return np.array(found)


def _normalised(luminance: np.ndarray) -> np.ndarray:
    """(I - mu) / (sigma + 1): mean-subtracted, contrast-normalised luminance."""
    from scipy.ndimage import correlate1d

    window = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()

    def blur(values: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(values, window, 0, mode="constant"), window, 1, mode="constant")

    mean = blur(luminance)
    spread = np.sqrt(np.abs(blur(luminance**2) - mean**2))
    found = (luminance - mean) / (spread + 1)
    # In an even area this is 0 but for rounding, whose sign would decide to which side its products count.
    return np.where(np.abs(found) < _ROUNDING, 0.0, found)


@cache
def _gammas() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gamma(1/a), Gamma(2/a) and Gamma(3/a) of every shape a."""
    from scipy.special import gamma

    return tuple(gamma(number / _SHAPES) for number in (1, 2, 3))


def _symmetric(values: np.ndarray) -> tuple[float, float]:
    """Shape and variance of a generalised Gaussian, by moments."""
    one, two, three = _gammas()
    variance, absolute = (values**2).mean(), np.abs(values).mean()
    if not absolute > 0:
        return np.nan, np.nan
    nearest = np.abs(variance / absolute**2 - one * three / two**2).argmin()
    return float(_SHAPES[nearest]), float(variance)


def _asymmetric(values: np.ndarray) -> tuple[float, float, float, float]:
    """Shape, mean, left and right variance of an asymmetric generalised Gaussian, by moments."""
    one, two, three = _gammas()
    left, right = values[values < 0], values[values > 0]
    if not (left.size and right.size):
        return (np.nan,) * 4
    left, right = np.sqrt((left**2).mean()), np.sqrt((right**2).mean())
    side = left / right
    ratio = np.abs(values).mean() ** 2 / (values**2).mean()
    ratio *= (side**3 + 1) * (side + 1) / (side**2 + 1) ** 2
    at = np.abs(two**2 / (one * three) - ratio).argmin()
    mean = (right - left) * two[at] / np.sqrt(one[at] * three[at])
    return float(_SHAPES[at]), float(mean), float(left**2), float(right**2)
