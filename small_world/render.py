"""Pictures of scenes, in whole numbers only, so that every machine draws the same bytes.

Shapes are tested at 4 x 4 points a pixel; coordinates count eighths of a pixel, which puts those points on
odd numbers.
"""

from __future__ import annotations

import numpy as np

from .scenes import COLORS, SIZE, Action, Color, Counting, Meaning, Scene

BACKGROUNDS = ((244, 244, 244), (226, 228, 232), (246, 239, 222))
GROUND = (112, 112, 112)
GROUND_TOP, GROUND_BOTTOM = 57, 59  # pixels
UNIT = 8  # eighths a pixel
SAMPLES = 4

STAR = (
    (0, -100), (24, -33), (95, -31), (39, 13), (59, 81), (0, 41), (-59, 81), (-39, 13), (-95, -31),
    (-24, -33),
)  # fmt: skip
CONE = ((0, -90), (92, 72), (-92, 72))

HEAD = 44  # radius of a figure's head, eighths of a pixel
LIMB, TORSO = 19, 26  # half widths

# Head centre; torso; arms and legs as bent lines. Pixels, facing right.
FIGURES = {
    "waving": ((32, 13), ((32, 21), (32, 38)), (
        ((32, 23), (24, 29), (23, 37)), ((32, 23), (41, 20), (45, 9)),
        ((32, 38), (27, 55)), ((32, 38), (37, 55)))),
    "running": ((39, 13), ((37, 21), (32, 36)), (
        ((37, 23), (45, 30), (52, 25)), ((37, 23), (27, 25), (22, 33)),
        ((32, 36), (42, 42), (40, 55)), ((32, 36), (25, 46), (13, 47)))),
    "jumping": ((32, 12), ((32, 19), (32, 32)), (
        ((32, 21), (22, 17), (18, 6)), ((32, 21), (42, 17), (46, 6)),
        ((32, 32), (21, 36), (18, 46)), ((32, 32), (43, 36), (46, 46)))),
    "sitting": ((26, 19), ((26, 28), (26, 43)), (
        ((26, 30), (32, 37), (39, 36)),
        ((26, 44), (41, 44), (41, 55)))),
    "lying": ((13, 49), ((21, 51), (37, 51)), (
        ((23, 49), (30, 44), (35, 46)),
        ((37, 51), (54, 53)))),
    "bowing": ((18, 36), ((36, 34), (23, 28)), (
        ((25, 29), (27, 38), (24, 46)),
        ((37, 35), (36, 55)), ((37, 35), (41, 55)))),
}  # fmt: skip
SEAT = ((20, 47), (32, 57))  # what the sitting figure sits on: two corners


def render(scene: Scene) -> np.ndarray:
    """The scene as uint8 [64, 64, 3]."""
    pixels = np.empty((SIZE, SIZE, 3), dtype=np.int64)
    pixels[:] = BACKGROUNDS[scene.background]
    meaning = scene.meaning
    if isinstance(meaning, Action):
        _draw_action(pixels, scene, meaning)
    else:
        radius = 60 if isinstance(meaning, Counting) else 88
        for (kind, color), centre in zip(objects(meaning), scene.places, strict=True):
            _paint(pixels, object_mask(kind, centre, radius), COLORS[color])
    return pixels.astype(np.uint8)


def objects(meaning: Meaning) -> list[tuple[str, str]]:
    """(kind, color) of each object of a counting or color meaning."""
    if isinstance(meaning, Color):
        return [(meaning.kind, meaning.color), (meaning.other_kind, meaning.other_color)]
    return [(meaning.kind, meaning.color)] * meaning.count


def object_mask(kind: str, centre: tuple[int, int], radius: int) -> np.ndarray:
    """Where an object covers the sample points: bool [256, 256]; ``radius`` in eighths of a pixel."""
    mask = np.zeros((SIZE * SAMPLES,) * 2, dtype=bool)
    reach = radius * 118 // 100 + UNIT  # no shape reaches further
    window, x, y = _window(centre, (-reach, -reach), (reach, reach))
    mask[window] = _object(kind, x, y, radius)
    return mask


def _object(kind: str, x: np.ndarray, y: np.ndarray, radius: int) -> np.ndarray:
    """Which points (x, y), counted from the object's centre, it covers."""
    if kind == "ball":
        return x * x + y * y <= radius * radius
    if kind == "ring":
        hole = radius * 45 // 100
        distance = x * x + y * y
        return (distance <= radius * radius) & (distance >= hole * hole)
    if kind == "box":
        half = radius * 88 // 100
        return (abs(x) <= half) & (abs(y) <= half)
    corners, grown = (STAR, 118) if kind == "star" else (CONE, 104)
    size = radius * grown
    return _polygon(x, y, [(cx * size // 10000, cy * size // 10000) for cx, cy in corners])


def figure_mask(pose: str, shift: int, mirrored: bool) -> np.ndarray:
    """Where a figure covers the sample points: bool [256, 256]; ``shift`` to the right in pixels."""

    def at(point):
        return (SIZE - point[0] if mirrored else point[0]) + shift, point[1]

    head, torso, lines = FIGURES[pose]
    mask = np.zeros((SIZE * SAMPLES,) * 2, dtype=bool)
    window, x, y = _window(at(head), (-HEAD, -HEAD), (HEAD, HEAD))
    mask[window] = x * x + y * y <= HEAD * HEAD
    for points, half in [(torso, TORSO)] + [(line, LIMB) for line in lines]:
        for start, end in zip(points, points[1:], strict=False):
            _add_stroke(mask, at(start), at(end), half)
    return mask


def _draw_action(pixels: np.ndarray, scene: Scene, meaning: Action) -> None:
    pixels[GROUND_TOP:GROUND_BOTTOM] = GROUND
    shift = scene.places[0][0]
    if meaning.pose == "sitting":
        (left, top), (right, bottom) = SEAT
        if scene.mirrored:
            left, right = SIZE - right, SIZE - left
        pixels[top:bottom, left + shift : right + shift] = GROUND
    _paint(pixels, figure_mask(meaning.pose, shift, scene.mirrored), COLORS[meaning.color])


def _window(centre: tuple[int, int], low: tuple[int, int], high: tuple[int, int]):
    """The sample points of a rectangle around ``centre`` (pixels), given from there in eighths of a pixel.

    Returns the rectangle as an index into all sample points, and the points' x [1, w] and y [h, 1] from the
    centre, in eighths of a pixel.
    """
    parts = []
    for middle, before, behind in zip(centre, low, high, strict=True):
        ends = (middle * UNIT + before) // 2 - 1, (middle * UNIT + behind) // 2 + 2
        first, last = (min(max(end, 0), SIZE * SAMPLES) for end in ends)
        parts.append((slice(first, last), np.arange(first, last, dtype=np.int64) * 2 + 1 - middle * UNIT))
    (across, x), (down, y) = parts
    return (down, across), x[None, :], y[:, None]


def _polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[int, int]]) -> np.ndarray:
    """Even-odd rule: how many edges a ray to the right crosses."""
    inside = np.zeros((y.shape[0], x.shape[1]), dtype=bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 == y2:
            continue
        if y1 > y2:
            x1, y1, x2, y2 = x2, y2, x1, y1
        crosses = (y >= y1) & (y < y2) & ((x - x1) * (y2 - y1) < (x2 - x1) * (y - y1))
        inside ^= crosses
    return inside


def _add_stroke(mask: np.ndarray, start: tuple[int, int], end: tuple[int, int], half: int) -> None:
    """Cover the points at most ``half`` away from a line between two points given in pixels."""
    dx, dy = (end[0] - start[0]) * UNIT, (end[1] - start[1]) * UNIT
    low = min(dx, 0) - half, min(dy, 0) - half
    window, x, y = _window(start, low, (max(dx, 0) + half, max(dy, 0) + half))
    length = dx * dx + dy * dy
    along = x * dx + y * dy
    beside = x * dy - y * dx
    to_end = (x - dx) ** 2 + (y - dy) ** 2
    mask[window] |= np.where(
        along <= 0,
        x * x + y * y <= half * half,
        np.where(along >= length, to_end <= half * half, beside * beside <= half * half * length),
    )


def _paint(pixels: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """Lay a color over the pixels, mixed by how many of a pixel's 16 points the mask covers."""
    whole = SAMPLES * SAMPLES
    cover = mask.reshape(SIZE, SAMPLES, SIZE, SAMPLES).sum(axis=(1, 3))[..., None]
    pixels[:] = (pixels * (whole - cover) + np.array(color) * cover + whole // 2) // whole
