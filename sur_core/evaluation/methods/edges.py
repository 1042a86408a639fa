"""Canny's edges (Canny 1986), with thresholds as OpenCV counts them, as ControlNets were trained on them."""

from __future__ import annotations

import numpy as np

LOW, HIGH = 100.0, 200.0
"""Usual for ControlNet; of the gradient by Sobel's 3 x 3 filters, |dx| + |dy|, of values 0..255."""

_TAN_22 = float(np.tan(np.pi / 8))


def canny(pixels: np.ndarray, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """Edges of a picture, one pixel wide, white on black.

    The gradient at a pixel is that of the colour channel in which it is largest. A pixel is an edge if its
    gradient is a maximum across the edge and above ``high``, or above ``low`` and connected with one that is.
    The picture is not smoothed before.

    Args:
        pixels: uint8 [H, W, 3].

    Returns:
        uint8 [H, W, 3], 0 or 255.
    """
    from scipy import ndimage

    across, down = _gradient(pixels.astype(np.float32))
    size = np.abs(across) + np.abs(down)
    kept = _thinned(size, across, down)
    weak, strong = kept & (size > low), kept & (size > high)
    parts, count = ndimage.label(weak, structure=np.ones((3, 3)))
    connected = np.zeros(count + 1, bool)
    connected[np.unique(parts[strong])] = True
    connected[0] = False
    edges = connected[parts].astype(np.uint8) * 255
    return np.repeat(edges[..., None], 3, axis=-1)


def _gradient(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(dx, dy) [H, W] of the channel in which |dx| + |dy| is largest."""
    from scipy import ndimage

    # One channel at a time: the filter would smooth along all axes but its own.
    across, down = (
        np.stack([ndimage.sobel(part, axis=axis, mode="nearest") for part in np.moveaxis(values, -1, 0)], -1)
        for axis in (1, 0)
    )
    channel = (np.abs(across) + np.abs(down)).argmax(-1)[..., None]
    return tuple(np.take_along_axis(part, channel, -1)[..., 0] for part in (across, down))


def _thinned(size: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Where the gradient is no smaller than behind it and larger than before it, in its own direction."""
    padded = np.pad(size, 1)

    def neighbour(dy: int, dx: int) -> np.ndarray:
        return padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]

    flat = np.abs(down) < _TAN_22 * np.abs(across)
    steep = np.abs(across) < _TAN_22 * np.abs(down)
    falling = (across >= 0) == (down >= 0)
    kept = np.zeros(size.shape, bool)
    rest = ~flat & ~steep
    for where, (dy, dx) in (
        (flat, (0, 1)),
        (steep, (1, 0)),
        (rest & falling, (1, 1)),
        (rest & ~falling, (1, -1)),
    ):
        kept |= where & (size > neighbour(-dy, -dx)) & (size >= neighbour(dy, dx))
    return kept
