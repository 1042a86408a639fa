"""The judge of SURD-Shapes knows what it sees, also through a small decoder's eyes, and cannot be fooled."""

from collections import Counter as Tally

import numpy as np
import pytest
from scipy import ndimage

import small_world.render as rendering
from small_world.dice import Dice
from small_world.judge import WorldJudge, make_judge, read_scene
from small_world.render import BACKGROUNDS, SIZE, figure_mask, object_mask, render
from small_world.scenes import (
    COLORS,
    KINDS,
    POSES,
    TYPES,
    Action,
    Color,
    Counting,
    Scene,
    canonical,
    meanings,
    place,
    to_truth,
)
from sur_core.evaluation.judges import ask, check_judge, load_judge
from sur_core.evaluation.prompt_sets import EvalPrompt
from tests.small_world_scenes import DEGRADATIONS, degraded, drawn, some_scenes, wrong_in_one

SCENES = 600  # of each type: all 240 meanings of counting twice, all 48 of action
PROPERTIES = {"counting": {"count", "kind", "color"}, "color": {"kinds", "colors", "binding"}}
PROPERTIES["action"] = {"pose", "color"}


@pytest.fixture(scope="module")
def pictures():
    """By type: (scene, picture) of all scenes."""
    return {type: [(scene, render(scene)) for scene in some_scenes(type, SCENES)] for type in TYPES}


def prompt_for(meaning, **changed) -> EvalPrompt:
    return EvalPrompt("one", meaning.type, "a picture", truth={**to_truth(meaning), **changed})


@pytest.mark.parametrize("type", TYPES)
def test_what_is_drawn_as_it_should_be_is_right(pictures, type):
    judge = make_judge()
    marks = [(judge.mark(pixels, prompt_for(scene.meaning)), scene) for scene, pixels in pictures[type]]
    wrong = [(mark.why, scene) for mark, scene in marks if not mark.right]
    assert len(wrong) <= 0.005 * SCENES, wrong
    for mark, _ in marks:
        assert set(mark.details) == PROPERTIES[type]
        assert not mark.right or (all(mark.details.values()) and mark.why == "")


def test_every_meaning_of_counting_and_action_was_among_them(pictures):
    for type in ("counting", "action"):
        assert {scene.meaning for scene, _ in pictures[type]} == set(meanings(type))


@pytest.mark.parametrize("how", DEGRADATIONS)
def test_what_a_small_decoder_does_to_a_picture_does_not_matter(pictures, how):
    right = total = 0
    for type in TYPES:
        for seed, (scene, pixels) in enumerate(pictures[type][:72]):
            right += read_scene(degraded(pixels, how, seed)).meaning == canonical(scene.meaning)
            total += 1
    assert right >= 0.99 * total, f"{how}: {right} of {total}"


@pytest.mark.parametrize("type", TYPES)
def test_one_wrong_property_is_wrong(type):
    """Count one off, another kind, color or pose, swapped colors: at most 0.5% of them pass."""
    judge, passed, tried = WorldJudge(), [], Tally()
    for index, scene in enumerate(some_scenes(type, 72, "wrong")):
        dice = Dice("wrong", index)
        for name, others in wrong_in_one(scene.meaning).items():
            wrong = dice.pick(others)
            pixels = render(Scene(wrong, *_places_for(wrong, index)))
            mark = judge.mark(pixels, prompt_for(scene.meaning))
            tried[name] += 1
            passed += [(scene.meaning, wrong)] if mark.right else []
            assert not all(mark.details.values()) or mark.right, "no detail says what is wrong"
    assert len(tried) == {"counting": 3, "color": 5, "action": 2}[type] and min(tried.values()) >= 60
    assert len(passed) <= 0.005 * sum(tried.values()), passed


def _places_for(meaning, index):
    scene = place(meaning, Dice("wrong places", index))
    return scene.places, scene.mirrored, scene.background


def test_an_object_too_few_or_too_many_is_wrong():
    passed = []
    for index, meaning in enumerate(Dice("missing").shuffled(meanings("color"))[:60]):
        first, second = ((meaning.kind, meaning.color), (meaning.other_kind, meaning.other_color))
        left, right, third = (18, 16), (46, 16), (32, 46)
        extra = Dice("extra", index).pick([first, second])
        alone = drawn([(*first, left, 88)])
        three = drawn([(*first, left, 88), (*second, right, 88), (*extra, third, 88)])
        for pixels in (alone, three):
            mark = make_judge().mark(pixels, prompt_for(meaning))
            passed += [meaning] if mark.right or all(mark.details.values()) else []
    assert not passed


def background_picture(index: int = 0) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), BACKGROUNDS[index], dtype=np.uint8)


def _noise(dice):
    return np.random.default_rng(dice.below(10**6)).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def _empty(dice):
    pixels = render(Scene(Action("lying", "red"), ((0, 0),), False, dice.below(3)))
    return background_picture(dice.below(3)) if dice.chance(0.5) else np.repeat(pixels[:, :1], SIZE, axis=1)


def _blobs(dice):
    field = np.random.default_rng(dice.below(10**6)).normal(size=(SIZE, SIZE))
    field = ndimage.gaussian_filter(field, dice.pick((3, 5, 7)))
    pixels = background_picture()
    pixels[field > np.percentile(field, dice.pick((80, 90, 97)))] = COLORS[dice.pick(list(COLORS))]
    return pixels


def _half_drawn(dice):
    """One object, or the figure, is painted over to the half from any side."""
    scene = some_scenes(dice.pick(TYPES), 48)[dice.below(48)]
    pixels, meaning = render(scene), scene.meaning
    if isinstance(meaning, Action):
        mask = figure_mask(meaning.pose, scene.places[0][0], scene.mirrored)[: 57 * 4]
    else:
        mask = object_mask(meaning.kind, scene.places[0], 60 if isinstance(meaning, Counting) else 88)
    rows, columns = np.flatnonzero(mask.any(axis=1)) // 4, np.flatnonzero(mask.any(axis=0)) // 4
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    middle, centre = (top + bottom) // 2, (left + right) // 2
    top, bottom, left, right = dice.pick(
        [(top, middle, left, right), (middle, bottom, left, right), (top, bottom, left, centre)]
        + [(top, bottom, centre, right)]
    )
    pixels[top:bottom, left:right] = BACKGROUNDS[scene.background]
    return pixels


def _merged(dice):
    """Two objects that overlap by a third of their width."""
    meaning = dice.pick(meanings("color"))
    first, second = (meaning.kind, meaning.color), (meaning.other_kind, meaning.other_color)
    if dice.chance(0.5):
        return drawn([(*first, (24, 32), 88), (*second, (38, 32), 88)], dice.below(3))
    return drawn([(*first, (26, 32), 60), (*first, (36, 32), 60)], dice.below(3))


def _two_figures(dice):
    one, other = (dice.pick(some_scenes("action", 96)) for _ in range(2))
    pixels = render(one).astype(np.int64)
    shift = -other.places[0][0]
    if (one.meaning.pose, one.mirrored) == (other.meaning.pose, other.mirrored):
        shift = one.places[0][0] + (9 if one.places[0][0] <= 0 else -9)
    mask = figure_mask(other.meaning.pose, shift, other.mirrored)
    rendering._paint(pixels, mask, COLORS[other.meaning.color])
    return pixels.astype(np.uint8)


def _cut_in_two(dice):
    """The upper or left half of one scene and the rest of another, with the cut through an object."""
    type = dice.pick(("color", "action"))
    one, other = (dice.pick(some_scenes(type, 96)) for _ in range(2))
    pixels, second = render(one), render(other)
    if type == "action":
        pixels[:32] = second[:32]
        same = (one.meaning.pose, one.mirrored) == (other.meaning.pose, other.mirrored)
        return background_picture() if same and one.background == other.background else pixels
    cut = one.places[0][0]
    pixels[:, cut:] = np.roll(second, cut - 32, axis=1)[:, cut:]
    return pixels


def _of_no_color(dice):
    color = dice.pick(((128, 128, 128), (120, 80, 40), (40, 200, 200), (250, 90, 250), (255, 255, 255)))
    pixels = drawn([(dice.pick(KINDS), "black", (32, 32), 60)]).astype(np.float64)
    cover = (244 - pixels[..., :1]) / (244 - COLORS["black"][0])
    return (BACKGROUNDS[0] + (np.array(color) - BACKGROUNDS[0]) * cover).round().astype(np.uint8)


def _of_the_wrong_size(dice):
    return drawn([(dice.pick(KINDS), "blue", (32, 32), dice.pick((20, 32, 38, 84, 100, 140)))])


def _seven(dice):
    places = [(12, 12), (32, 12), (52, 12), (12, 32), (32, 32), (52, 32), (32, 52)]
    kind, color = dice.pick(KINDS), dice.pick(list(COLORS))
    return drawn([(kind, color, centre, 56) for centre in places], dice.below(3))


def _no_shape(dice):
    """An L, a cross or a moon."""
    y, x = np.mgrid[:SIZE, :SIZE] - 31.5
    shape = dice.pick(
        (
            (abs(x) < 7) & (abs(y) < 7) & ~((x > 0) & (y < 0)),
            ((abs(x) < 2.5) | (abs(y) < 2.5)) & (abs(x) < 8) & (abs(y) < 8),
            (x * x + y * y < 56) & ((x - 4) ** 2 + y * y > 40),
        )
    )
    pixels = background_picture()
    pixels[shape] = COLORS[dice.pick(list(COLORS))]
    return pixels


NO_SCENES = {
    "noise": _noise,
    "empty, with and without ground": _empty,
    "blobs": _blobs,
    "half drawn": _half_drawn,
    "merged objects": _merged,
    "two figures": _two_figures,
    "cut in two": _cut_in_two,
    "a color of another world": _of_no_color,
    "too small or too large": _of_the_wrong_size,
    "seven objects": _seven,
    "no shape of the world": _no_shape,
}


@pytest.mark.parametrize("what", NO_SCENES)
def test_what_is_no_valid_scene_is_told_so(what):
    for index in range(24):
        reading = read_scene(NO_SCENES[what](Dice(what, index)))
        assert reading.meaning is None, f"{what} {index}: {reading}"
        assert 5 < len(reading.why) < 80, "it says why"


@pytest.mark.parametrize("pose", POSES)
def test_a_figure_without_ground_or_head_is_none(pose, monkeypatch):
    scene = Scene(Action(pose, "blue"), ((1, 0),), True, 2)
    assert read_scene(render(scene)).meaning == canonical(scene.meaning)
    without_ground = render(scene)
    without_ground[57:59] = without_ground[60:62]
    assert read_scene(without_ground).meaning is None
    monkeypatch.setitem(rendering.FIGURES, pose, ((-99, -99), *rendering.FIGURES[pose][1:]))
    assert read_scene(render(scene)).meaning is None


def test_small_specks_do_no_harm_and_larger_ones_do():
    scene = Scene(Counting(2, "star", "green"), ((20, 32), (44, 32)), False, 0)
    pixels = render(scene)
    pixels[5:7, 5:8] = COLORS["green"]
    assert read_scene(pixels).meaning == canonical(scene.meaning)
    pixels[5:9, 5:9] = COLORS["green"]
    assert read_scene(pixels).meaning is None


def test_mixed_objects_have_the_properties_they_have():
    """Five red balls and a blue one are six balls, but not six red ones."""
    places = [(13, 21), (32, 21), (51, 21), (13, 43), (32, 43), (51, 43)]
    objects = [("ball", "red", centre, 60) for centre in places]
    mixed = drawn([*objects[:5], ("ball", "blue", places[5], 60)])
    mark = make_judge().mark(mixed, prompt_for(Counting(6, "ball", "red")))
    assert not mark.right and mark.details == {"count": True, "kind": True, "color": False}
    swapped = drawn([("ball", "red", (18, 32), 88), ("box", "blue", (46, 32), 88)])
    mark = make_judge().mark(swapped, prompt_for(Color("ball", "blue", "box", "red")))
    assert mark.details == {"kinds": True, "colors": True, "binding": False}
    assert mark.why == "red ball and blue box instead of blue ball and red box"


def test_the_order_in_which_a_truth_names_two_objects_does_not_matter():
    pixels = drawn([("ball", "red", (18, 32), 88), ("box", "blue", (46, 32), 88)])
    for truth in (Color("ball", "red", "box", "blue"), Color("box", "blue", "ball", "red")):
        assert make_judge().mark(pixels, prompt_for(truth)).right


def test_a_scene_of_another_type_is_wrong(pictures):
    for type, other in zip(TYPES, TYPES[1:] + TYPES[:1], strict=True):
        for (_, pixels), (scene, _) in zip(pictures[type][:12], pictures[other][:12], strict=True):
            mark = make_judge().mark(pixels, prompt_for(scene.meaning))
            assert not mark.right and not all(mark.details.values())


def test_a_reading_says_where_the_objects_are():
    reading = read_scene(drawn([("ball", "red", (18, 32), 88), ("box", "blue", (46, 32), 88)]))
    ball, box = sorted(reading.objects, key=lambda found: found.box)
    assert (ball.kind, ball.color, box.kind, box.color) == ("ball", "red", "box", "blue")
    assert np.abs(np.array(ball.box) - (7, 21, 29, 43)).max() <= 1 and ball.fit > 0.9
    assert ball.radius == pytest.approx(11, abs=0.3) and box.radius == pytest.approx(11, abs=0.3)


def test_evaluation_takes_the_judge_and_its_marks():
    judge = check_judge(load_judge("small_world.judge:make_judge"))
    scene = some_scenes("action", 1)[0]
    assert ask(judge, render(scene), prompt_for(scene.meaning)).right


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (None, "to_truth"),
        ({"type": "dance"}, "no meaning"),
        ({"type": "counting", "count": 7, "kind": "ball", "color": "red"}, "count should be one of 1, 2"),
        ({"type": "counting", "count": True, "kind": "ball", "color": "red"}, "count should be one of 1, 2"),
        ({"type": "action", "pose": "flying", "color": "red"}, "pose should be one of bowing"),
        ({"type": "action", "pose": "lying", "color": "mauve"}, "color should be one of black"),
        (to_truth(Color("ball", "red", "ball", "blue")), "different kinds"),
    ],
)
def test_a_truth_that_no_picture_could_show_is_refused_before_anything_is_drawn(truth, words):
    good = prompt_for(Action("lying", "red"))
    with pytest.raises(ValueError, match=words) as caught:
        make_judge().check([good, EvalPrompt("odd", "action", "a picture", truth=truth)])
    assert "'odd'" in str(caught.value)
    make_judge().check([good])


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((64, 64), np.uint8), np.zeros((32, 64, 3), np.uint8), np.zeros((64, 64, 3), np.float32), None],
)
def test_what_is_no_picture_of_the_world_is_an_error(pixels):
    with pytest.raises(ValueError, match="uint8"):
        read_scene(pixels)
