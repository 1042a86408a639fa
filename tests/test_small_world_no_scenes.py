"""A scene with one thing wrong in its picture is no scene: the judge finds what a valid scene cannot have."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from small_world.dice import Dice
from small_world.judge import read_scene
from small_world.render import (
    BACKGROUNDS,
    GROUND,
    GROUND_BOTTOM,
    GROUND_TOP,
    SAMPLES,
    SEAT,
    SIZE,
    _paint,
    figure_mask,
    object_mask,
    render,
)
from small_world.scenes import COLORS, KINDS, Action, Counting, Scene, place
from tests.small_world_scenes import drawn, some_scenes

TRIES = 40
COUNTING, COLOR = 60, 88  # radii in eighths of a pixel
PLACES = {2: ((20, 32), (44, 32)), 3: ((32, 18), (18, 44), (46, 44))}


def covers(mask: np.ndarray, least: float = 0.5) -> np.ndarray:
    """Pixels [64, 64] of which sample points [256, 256] cover more than ``least``."""
    return mask.reshape(SIZE, SAMPLES, SIZE, SAMPLES).mean(axis=(1, 3)) > least


def painted(pixels: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    pixels = pixels.astype(np.int64)
    _paint(pixels, mask, color)
    return pixels.astype(np.uint8)


def a_figure(dice, **wanted) -> tuple[Scene, np.ndarray, np.ndarray]:
    """A scene of action, its picture, and where its figure is: bool [256, 256]."""
    meaning = Action(
        wanted.get("pose") or dice.pick(("bowing", "jumping", "lying", "running", "sitting", "waving")),
        dice.pick(list(COLORS)),
    )
    scene = place(meaning, dice)
    return scene, render(scene), figure_mask(meaning.pose, scene.places[0][0], scene.mirrored)


def another(dice, color: str) -> tuple[int, int, int]:
    return COLORS[dice.pick([name for name in COLORS if name != color])]


def _beside_the_figure(dice):
    """A small object that touches neither figure nor ground, of any kind and color."""
    _, pixels, figure = a_figure(dice)
    taken = (pixels != pixels[0, 0]).any(axis=2)
    while True:
        kind, radius = dice.pick(KINDS), dice.between(28, 48)
        mask = object_mask(kind, (dice.between(6, 57), dice.between(6, 57)), radius)
        if not (covers(mask, 0) & taken).any():
            return painted(pixels, mask, COLORS[dice.pick(list(COLORS))])


def _behind_the_figure(dice):
    """Of an object behind the figure, or between its limbs, there is still something to see."""
    scene, pixels, figure = a_figure(dice)
    near = ndimage.binary_dilation(covers(figure), iterations=3)
    while True:
        mask = object_mask("ball", (dice.between(6, 57), dice.between(6, 45)), dice.between(28, 48))
        seen = covers(mask & ~figure)
        if (covers(mask) & near).any() and ndimage.binary_opening(seen, np.ones((4, 4))).sum() >= 20:
            return painted(pixels, mask & ~figure, another(dice, scene.meaning.color))


def _at_the_ground(dice):
    """A block at, in or under the ground."""
    _, pixels, _ = a_figure(dice)
    top, left = dice.between(53, 61), dice.between(0, 54)
    block = np.zeros((SIZE, SIZE), dtype=bool)
    block[top : top + 5, left : left + 10] = True
    pixels[block] = COLORS[dice.pick(list(COLORS))]
    return pixels


def _grey_at_the_ground(dice):
    """The ground has a step."""
    _, pixels, _ = a_figure(dice)
    left = dice.between(0, 50)
    rows = dice.pick((slice(GROUND_BOTTOM, 63), slice(51, GROUND_TOP)))
    bare = (pixels[rows, left : left + 12] == pixels[0, 0]).all(axis=2)
    if bare.sum() < 40:
        return _grey_at_the_ground(dice)
    pixels[rows, left : left + 12][bare] = GROUND
    return pixels


def _broken_ground(dice):
    """Eight columns of ground are missing where nothing hides it."""
    scene, pixels, figure = a_figure(dice)
    hidden = (pixels[40:GROUND_TOP] == GROUND).all(axis=2).any(axis=0) | covers(figure, 0)[50:].any(axis=0)
    free = ~ndimage.binary_dilation(hidden, iterations=4)
    lefts = [left for left in range(57) if free[left : left + 8].all()]
    if not lefts:
        return _broken_ground(dice)
    left = dice.pick(lefts)
    pixels[GROUND_TOP:GROUND_BOTTOM, left : left + 8] = BACKGROUNDS[scene.background]
    return pixels


def _a_small_second_figure(dice):
    _, pixels, figure = a_figure(dice)
    _, _, other = a_figure(dice)
    small = other[::2, ::2]
    rows, columns = np.flatnonzero(small.any(axis=1)), np.flatnonzero(small.any(axis=0))
    small = small[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    while True:
        mask = np.zeros_like(figure)
        top, left = dice.between(0, 226 - small.shape[0]), dice.between(0, 255 - small.shape[1])
        mask[top : top + small.shape[0], left : left + small.shape[1]] = small
        if (covers(mask) & ~covers(figure, 0)).sum() > 0.7 * covers(mask).sum():
            return painted(pixels, mask & ~figure, COLORS[dice.pick(list(COLORS))])


def _part_of_the_figure(dice, figure):
    """A part of a figure that holds a piece of an arm, a leg or its head, at least as large as a hand."""
    while True:
        mask = object_mask("box", (dice.between(4, 60), dice.between(4, 55)), 48) & figure
        if covers(mask).sum() >= 36:
            return mask


def _two_colors(dice):
    scene, pixels, figure = a_figure(dice)
    return painted(pixels, _part_of_the_figure(dice, figure), another(dice, scene.meaning.color))


def _part_missing(dice):
    scene, pixels, figure = a_figure(dice)
    return painted(pixels, _part_of_the_figure(dice, figure), BACKGROUNDS[scene.background])


def _seat(dice):
    """A seat for nobody, none for one who sits, half of one, or one of a color."""
    pose = dice.pick(("sitting", "waving", "running"))
    scene, pixels, figure = a_figure(dice, pose=pose)
    (left, top), (right, bottom) = SEAT
    if scene.mirrored:
        left, right = SIZE - right, SIZE - left
    left, right = left + scene.places[0][0], right + scene.places[0][0]
    seat = np.zeros((SIZE, SIZE), dtype=bool)
    color = GROUND
    if pose == "sitting":
        color = dice.pick((BACKGROUNDS[scene.background], another(dice, "black")))
        left = dice.pick((left, (left + right) // 2))
    elif dice.chance(0.5):
        left, right = 3, 15
    seat[top:bottom, left:right] = True
    return painted(pixels, np.kron(seat, np.ones((SAMPLES, SAMPLES), dtype=bool)) & ~figure, color)


def _unequal(dice):
    """Objects each of a size that is nearly right or not, but not all of one size."""
    kind, color, count = dice.pick(KINDS), dice.pick(list(COLORS)), dice.pick((2, 3))
    small = dice.between(44, 60)
    radii = [small] * (count - 1) + [small * dice.between(130, 170) // 100]
    return drawn([(kind, color, *pair) for pair in zip(PLACES[count], dice.shuffled(radii), strict=True)])


def _unequal_pair(dice):
    (kind, other), (color, second) = dice.shuffled(KINDS)[:2], dice.shuffled(list(COLORS))[:2]
    small = dice.between(66, 80)
    large = min(small * dice.between(130, 150) // 100, 108)
    return drawn([(kind, color, (17, 32), small), (other, second, (46, 32), large)])


def _all_too_small_or_large(dice):
    kind, color, count = dice.pick(KINDS), dice.pick(list(COLORS)), dice.pick((2, 3))
    radius = dice.pick((44, 46, 76, 78))
    return drawn([(kind, color, centre, radius) for centre in PLACES[count]])


def _odd_one_out(dice):
    """Objects of one color and two kinds, of one kind and two colors, or three of nothing in common."""
    (kind, other, third), colors = dice.shuffled(KINDS)[:3], dice.shuffled(list(COLORS))[:3]
    odd = dice.pick(
        (
            [(kind, colors[0]), (kind, colors[0]), (other, colors[0])],
            [(kind, colors[0]), (kind, colors[0]), (kind, colors[1])],
            [(kind, colors[0]), (kind, colors[0]), (other, colors[1])],
            [(kind, colors[0]), (other, colors[1]), (third, colors[2])],
        )
    )
    return drawn([(*each, centre, COUNTING) for each, centre in zip(odd, PLACES[3], strict=True)])


def _leaves_the_picture(dice):
    """One of several objects is cut by the border, more or less."""
    kind, color, side = dice.pick(KINDS), dice.pick(list(COLORS)), dice.below(4)
    near = dice.between(0, 5)
    centre = ((near, 32), (63 - near, 32), (32, near), (32, 63 - near))[side]
    rest = [(kind, color, (32, 32), COUNTING)] if dice.chance(0.5) else []
    return drawn([*rest, (kind, color, centre, COUNTING)])


def _an_object(dice) -> tuple[str, str, tuple[int, int], int, list]:
    """One of the objects of a scene: kind, color, centre, radius; and all of them, for ``drawn``."""
    kind, color = dice.pick(("ball", "box", "cone")), dice.pick(list(COLORS))
    if dice.chance(0.5):
        return kind, color, PLACES[3][0], COUNTING, [(kind, color, each, COUNTING) for each in PLACES[3]]
    other = dice.pick(("star", "ring")), "blue" if color != "blue" else "red"
    return kind, color, (18, 32), COLOR, [(kind, color, (18, 32), COLOR), (*other, (46, 32), COLOR)]


def _spotted(dice):
    _, color, centre, radius, objects = _an_object(dice)
    return painted(drawn(objects), object_mask("ball", centre, radius // 3 + 8), another(dice, color))


def _with_a_hole(dice):
    _, _, centre, radius, objects = _an_object(dice)
    return painted(drawn(objects), object_mask("box", centre, radius // 3), BACKGROUNDS[0])


def _bitten(dice):
    """A bite of about half the object's width, out of its left, right or lower edge."""
    _, _, (x, y), radius, objects = _an_object(dice)
    right, down = dice.pick(((-1, 0), (1, 0), (0, 1)))
    reach = round(radius / 8 * 0.75)
    bite = object_mask("ball", (x + right * reach, y + down * reach), radius // 2)
    return painted(drawn(objects), bite, BACKGROUNDS[0])


def _with_a_lump(dice):
    """Something of the same color sticks to an object."""
    _, color, (x, y), radius, objects = _an_object(dice)
    right, down = dice.pick(((-1, 0), (0, 1), (0, -1)))
    reach = round(radius / 8) + 1
    lump = object_mask("box", (x + right * reach, y + down * reach), 28)
    return painted(drawn(objects), lump, COLORS[color])


def _extra_small_object(dice):
    scene = dice.pick(some_scenes("counting", 60) + some_scenes("color", 60))
    pixels = render(scene)
    free = ~ndimage.binary_dilation((pixels != pixels[0, 0]).any(axis=2), iterations=3)
    mask = object_mask(dice.pick(KINDS), (dice.between(5, 58), dice.between(5, 58)), dice.between(24, 40))
    if (covers(mask, 0) & ~free).any():
        return _extra_small_object(dice)
    return painted(pixels, mask, COLORS[dice.pick(list(COLORS))])


def _pattern(dice):
    """Stripes, checks or a frame of another of the world's backgrounds behind any valid scene."""
    type = dice.pick(("counting", "color", "action"))
    scene = dice.pick(some_scenes(type, 48))
    scene = Scene(scene.meaning, scene.places, scene.mirrored, 0)
    pixels = render(scene)
    y, x = np.mgrid[:SIZE, :SIZE] // dice.pick((3, 4, 8))
    frame = np.minimum(np.minimum(*np.mgrid[:SIZE, :SIZE]), 63 - np.maximum(*np.mgrid[:SIZE, :SIZE])) < 8
    pattern = dice.pick((x % 2 == 0, y % 2 == 0, (x + y) % 2 == 0, frame))
    pixels[pattern & (pixels == pixels[0, 0]).all(axis=2)] = BACKGROUNDS[dice.pick((1, 2))]
    return pixels


FLAWS: dict[str, Callable[[Dice], np.ndarray]] = {
    "an object beside the figure": _beside_the_figure,
    "an object behind the figure": _behind_the_figure,
    "a block at the ground": _at_the_ground,
    "a step in the ground": _grey_at_the_ground,
    "a gap in the ground": _broken_ground,
    "a small second figure": _a_small_second_figure,
    "a figure of two colors": _two_colors,
    "a part of the figure missing": _part_missing,
    "a seat that is wrong": _seat,
    "objects of unequal sizes": _unequal,
    "a pair of unequal sizes": _unequal_pair,
    "all objects too small or too large": _all_too_small_or_large,
    "objects of several kinds or colors": _odd_one_out,
    "an object half out of the picture": _leaves_the_picture,
    "an object with a spot": _spotted,
    "an object with a hole": _with_a_hole,
    "an object with a bite": _bitten,
    "an object with a lump": _with_a_lump,
    "a small object more": _extra_small_object,
    "a background with a pattern": _pattern,
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_scene_with_one_flaw_is_no_scene(flaw):
    read = {index: read_scene(FLAWS[flaw](Dice(flaw, index))) for index in range(TRIES)}
    taken = {index: reading.meaning for index, reading in read.items() if reading.meaning is not None}
    assert not taken, f"{len(taken)} of {TRIES}: {taken}"
    assert all(5 < len(reading.why) < 80 for reading in read.values()), "it says why"


def test_what_surrounds_the_flaws_is_a_scene():
    """Without their flaws these pictures are right: what is told apart is the flaw."""
    for index in range(TRIES):
        scene, pixels, _ = a_figure(Dice("no flaw", index))
        assert read_scene(pixels).meaning == scene.meaning
        assert read_scene(drawn(_an_object(Dice("no flaw", index))[-1])).meaning is not None
    for count, places in PLACES.items():
        pixels = drawn([("star", "pink", centre, COUNTING) for centre in places])
        assert read_scene(pixels).meaning == Counting(count, "star", "pink")
