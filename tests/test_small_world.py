"""SURD-Shapes: the same scenes and the same bytes everywhere, and scenes that show what they mean."""

import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from small_world.dice import Dice
from small_world.render import BACKGROUNDS, SIZE, figure_mask, object_mask, objects, render
from small_world.scenes import (
    ARRANGEMENTS,
    COLORS,
    COUNTS,
    KINDS,
    POSES,
    TYPES,
    Action,
    Color,
    Counting,
    Scene,
    canonical,
    from_truth,
    is_held_out,
    meanings,
    place,
    to_truth,
)
from tests.small_world_scenes import some_scenes

BYTES = {
    "counting": "c2d3fd0d3c3b679da2491df7a3567ce03a2ee6becbd8c4f59b2beed3ce4473e4",
    "color": "439ef308b12fb86652f5e3b42ce79a1abea809d8cdc47ee5f29f9b3044aaa103",
    "action": "c79de08a3e0ce01b6ebf34a8009f64f465de3615d5a096ee654a5aedd2239db7",
}
"""sha256 over the pictures of 60 scenes of each type. A change here puts every trained model out of date."""


def digest(scenes) -> str:
    return sha256(b"".join(render(scene).tobytes() for scene in scenes)).hexdigest()


@pytest.mark.parametrize("type", TYPES)
def test_the_pictures_are_the_same_bytes_on_every_machine(type):
    assert digest(some_scenes(type, 60)) == BYTES[type]


def test_the_bytes_do_not_depend_on_the_process():
    code = (
        "from tests.test_small_world import digest, some_scenes;"
        "print(digest(some_scenes('color', 20)), digest(some_scenes('action', 20)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    assert run.stdout.split() == [digest(some_scenes("color", 20)), digest(some_scenes("action", 20))]


@pytest.mark.parametrize("type", TYPES)
def test_a_scene_does_not_depend_on_what_was_drawn_before_it(type):
    meaning = meanings(type)[7]
    alone = place(meaning, Dice("scene", 3))
    others = [Dice("scene", number) for number in range(6)]
    for dice in others[::-1]:
        dice.below(10)
    assert place(meaning, Dice("scene", 3)) == alone
    assert np.array_equal(render(alone), render(place(meaning, Dice("scene", 3))))
    assert any(place(meaning, Dice("scene", number)) != alone for number in (0, 1, 2))


def test_dice_fall_as_they_always_have():
    dice = Dice("known", 1)
    assert [dice.below(100) for _ in range(8)] == [91, 55, 96, 8, 15, 52, 46, 15]
    assert Dice("known", 2).shuffled("abcdefgh") == list("adefhcgb")
    assert [Dice(number).pick(KINDS) for number in range(5)] == ["box", "ring", "ball", "cone", "box"]


def test_dice_reach_both_ends_evenly():
    dice = Dice("even")
    counts = Counter(dice.between(-2, 3) for _ in range(6000))
    assert set(counts) == set(range(-2, 4))
    assert all(abs(count - 1000) < 150 for count in counts.values())
    assert abs(sum(dice.chance(0.3) for _ in range(6000)) - 1800) < 180
    assert sorted(dice.shuffled(range(9))) == list(range(9))


@pytest.mark.parametrize(("type", "count"), [("counting", 240), ("color", 1120), ("action", 48)])
def test_every_meaning_occurs_once(type, count):
    assert len(meanings(type)) == len(set(meanings(type))) == count
    assert all(meaning.type == type for meaning in meanings(type))
    assert [from_truth(to_truth(meaning)) for meaning in meanings(type)] == meanings(type)


def test_a_color_meaning_in_its_other_order_is_the_same_meaning():
    """Which object is mentioned first cannot be seen, so both orders are held out or neither is."""
    for meaning in meanings("color"):
        other = Color(meaning.other_kind, meaning.other_color, meaning.kind, meaning.color)
        assert canonical(other) == canonical(meaning) in (meaning, other)
        assert is_held_out(other) == is_held_out(meaning)


def test_what_is_no_meaning_is_refused_in_words():
    with pytest.raises(ValueError, match="counting, color, action"):
        meanings("dance")
    for truth in (
        {},
        {"type": "dance"},
        {"type": "action", "pose": "sitting"},
        {"type": "action", "wings": 2},
    ):
        with pytest.raises(ValueError, match="no meaning of SURD-Shapes"):
            from_truth(truth)


@pytest.mark.parametrize(("type", "share"), [("counting", 0.2), ("color", 0.2), ("action", 0.25)])
def test_what_is_held_out_is_seen_in_training_in_other_company(type, share):
    kept = [meaning for meaning in meanings(type) if not is_held_out(meaning)]
    held_out = [meaning for meaning in meanings(type) if is_held_out(meaning)]
    assert abs(len(held_out) / len(meanings(type)) - share) < 0.02
    for meaning in held_out:
        for name, value in vars(meaning).items():
            assert any(getattr(other, name) == value for other in kept), f"{name} {value} is never trained"


def test_every_value_is_held_out_somewhere():
    held_out = {type: [meaning for meaning in meanings(type) if is_held_out(meaning)] for type in TYPES}
    assert {meaning.count for meaning in held_out["counting"]} == set(COUNTS)
    assert {meaning.kind for meaning in held_out["counting"]} == set(KINDS)
    assert {meaning.pose for meaning in held_out["action"]} == set(POSES)
    for type in TYPES:
        assert {meaning.color for meaning in held_out[type]} == set(COLORS)


def masks(scene) -> list[np.ndarray]:
    radius = 60 if isinstance(scene.meaning, Counting) else 88
    found = zip(objects(scene.meaning), scene.places, strict=True)
    return [object_mask(kind, centre, radius) for (kind, _), centre in found]


@pytest.mark.parametrize("type", ["counting", "color"])
def test_objects_lie_apart_and_inside_the_picture(type):
    for scene in some_scenes(type, 480):
        covered = np.stack(masks(scene))
        assert covered.sum(axis=0).max() == 1, f"objects overlap: {scene}"
        assert not covered[:, [0, -1]].any() and not covered[:, :, [0, -1]].any(), f"at the edge: {scene}"


@pytest.mark.parametrize("count", COUNTS)
def test_shapes_with_room_fit_every_arrangement(count):
    """The widest objects at the arrangement itself, not moved: what chance may add is tested above."""
    for centres in ARRANGEMENTS[count]:
        together = sum(object_mask("star", centre, 60).astype(int) for centre in centres)
        assert together.max() == 1 and len(centres) == count


def test_every_figure_stays_in_the_picture_and_above_its_lower_edge():
    shifts = {}
    for scene in some_scenes("action", 960):
        shifts.setdefault((scene.meaning.pose, scene.mirrored), set()).add(scene.places[0][0])
    assert len(shifts) == 2 * len(POSES)
    for (pose, mirrored), found in shifts.items():
        for shift in (min(found), max(found)):
            mask = figure_mask(pose, shift, mirrored)
            assert not mask[:, [0, -1]].any() and not mask[[0, -1]].any(), (pose, mirrored, shift)


@pytest.mark.parametrize("pose", POSES)
def test_a_mirrored_figure_is_its_mirror_image(pose):
    assert np.array_equal(figure_mask(pose, 0, True), figure_mask(pose, 0, False)[:, ::-1])
    assert np.array_equal(figure_mask(pose, 3, False)[:, 12:], figure_mask(pose, 0, False)[:, :-12])


@pytest.mark.parametrize(
    ("kind", "area"), [("ball", np.pi), ("ring", np.pi * (1 - 0.45**2)), ("box", (2 * 0.88) ** 2)]
)
def test_shapes_have_the_area_that_geometry_says(kind, area):
    covered = object_mask(kind, (32, 32), 160).sum() / (4 * 20) ** 2
    assert covered == pytest.approx(area, rel=0.02)


def test_a_pixel_is_background_or_color_or_between():
    scene = Scene(Color("ball", "red", "star", "blue"), ((18, 32), (46, 32)), False, 1)
    pixels = render(scene)
    assert pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
    ball, star = (mask.reshape(SIZE, 4, SIZE, 4).sum(axis=(1, 3)) for mask in masks(scene))
    assert (pixels[ball == 16] == COLORS["red"]).all() and (pixels[star == 16] == COLORS["blue"]).all()
    assert (pixels[(ball == 0) & (star == 0)] == BACKGROUNDS[1]).all()
    half = pixels[ball == 8].astype(int)
    middle = (np.array(COLORS["red"]) + BACKGROUNDS[1]) / 2
    assert len(half) and (abs(half - middle) <= 0.5).all()


def test_the_ground_and_the_seat_lie_behind_the_figure():
    pixels = render(Scene(Action("sitting", "green"), ((0, 0),), False, 0))
    covered = figure_mask("sitting", 0, False).reshape(SIZE, 4, SIZE, 4).sum(axis=(1, 3))
    assert (pixels[covered == 16] == COLORS["green"]).all()
    assert (pixels[57:59][covered[57:59] == 0] == (112, 112, 112)).all()
    assert (pixels[47:57, 20:32][covered[47:57, 20:32] == 0] == (112, 112, 112)).all()
