"""The detector judge on pictures whose truth is known, through detectors that see just what was drawn."""

import json

import numpy as np
import pytest
from scipy import ndimage

from small_world.dice import Dice
from small_world.judge import WorldJudge
from small_world.reading import read_scene
from small_world.render import render
from small_world.scenes import to_truth
from sur_core.evaluation import EvalPrompt, PromptSetError
from sur_core.evaluation.judges import ask, ask_many
from sur_core.evaluation.judging import Detection, DetectorJudge, DetectorRules
from sur_core.evaluation.judging.detections import object_pixels, without_doubles
from tests.small_world_scenes import drawn, some_scenes, wrong_in_one

RED, BLUE, GREEN, WHITE = (216, 34, 38), (40, 88, 224), (38, 160, 66), (255, 255, 255)


def picture(*things, size=(60, 90)) -> np.ndarray:
    """Rectangles (left, top, right, bottom, color) on white."""
    pixels = np.full((*size, 3), 255, np.uint8)
    for left, top, right, bottom, color in things:
        pixels[top:bottom, left:right] = color
    return pixels


class Given:
    """A detector that sees what it was told, whatever the picture."""

    name, labels, usual_threshold = "given", None, 0.5

    def __init__(self, *found):
        self.found, self.calls = found, []

    def detect(self, pictures, labels, threshold):
        self.calls.append((len(pictures), tuple(labels)))
        kept = [one for one in self.found if one.label in labels and one.score > threshold]
        return [kept for _ in pictures]


class Blobs:
    """Sees every connected region that is not white, with its mask; wide ones are boats, tall ones towers. It
    sees each of them twice, and something where there is nothing with a low score.
    """

    name, labels, usual_threshold = "blobs", ("boat", "tower"), 0.5

    def __init__(self, with_masks: bool = True):
        self.with_masks = with_masks

    def detect(self, pictures, labels, threshold):
        assert len({one.shape for one in pictures}) == 1
        return [
            [one for one in self._seen(of) if one.label in labels and one.score > threshold]
            for of in pictures
        ]

    def _seen(self, pixels):
        regions, count = ndimage.label((pixels != 255).any(-1))
        for place, (rows, columns) in enumerate(ndimage.find_objects(regions), start=1):
            box = (columns.start, rows.start, columns.stop, rows.stop)
            label = "boat" if box[2] - box[0] > box[3] - box[1] else "tower"
            for score, grown in ((0.9, 0), (0.7, 1)):
                mask = (
                    ndimage.binary_dilation(regions == place, iterations=grown or 1)
                    if grown
                    else regions == place
                )
                sides = (box[0] - grown, box[1] - grown, box[2] + grown, box[3] + grown)
                yield Detection(label, score, sides, mask if self.with_masks else None)
        yield Detection("boat", 0.2, (0, 0, 90, 8))


def boats(*colors) -> np.ndarray:
    return picture(
        *[
            (5 + 28 * (at % 3), 5 + 18 * (at // 3), 25 + 28 * (at % 3), 14 + 18 * (at // 3), color)
            for at, color in enumerate(colors)
        ]
    )


def asked(*objects, type="Counting") -> EvalPrompt:
    return EvalPrompt("p1", type, "a picture", truth={"objects": list(objects)})


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize("count", range(1, 7))
def test_things_are_counted_once_each(count, with_masks):
    judge = DetectorJudge(Blobs(with_masks))
    pixels = boats(*[RED] * count)
    for wanted in range(1, 8):
        mark = ask(judge, pixels, asked({"name": "boat", "count": wanted}))
        assert mark.right == (wanted == count)
        assert mark.right == (mark.why == "")
        assert len(mark.details["seen"]["boat"]) == count, "doubles and low scores do not count"
    assert (
        ask(judge, pixels, asked({"name": "boat", "count": 9})).why
        == f"{count} boat{'s'[: count > 1]} instead of 9"
    )
    assert ask(judge, pixels, asked({"name": "tower", "count": 2})).why == "no towers instead of 2"


@pytest.mark.parametrize("with_masks", [True, False])
def test_without_a_count_one_or_more_will_do(with_masks):
    judge = DetectorJudge(Blobs(with_masks))
    assert ask(judge, boats(RED, RED, RED), asked({"name": "boat"})).right
    mark = ask(judge, boats(), asked({"name": "boat"}))
    assert not mark.right and mark.why == "no boats instead of 1"


def color(name, *colors, **more):
    return {"name": name, "colors": list(colors), **more}


@pytest.mark.parametrize("with_masks", [True, False])
@pytest.mark.parametrize(
    ("objects", "colors", "right"),
    [
        ([color("boat", "red")], [RED], True),
        ([color("boat", "blue")], [RED], False),
        ([color("boat", "red")], [BLUE, RED], True),
        ([color("boat", "red", count=2)], [RED, RED], True),
        ([color("boat", "red", count=2)], [RED, BLUE], False),
        ([color("boat", "red", count=2)], [RED, RED, BLUE], False),
        ([color("boat", "red"), color("boat", "blue")], [BLUE, RED], True),
        ([color("boat", "red"), color("boat", "blue")], [RED, RED], False),
        ([color("boat", "red"), color("boat", "blue")], [RED], False),
        ([color("boat", "red", count=1), color("boat", "blue", count=2)], [BLUE, RED, BLUE], True),
        ([color("boat", "red", count=1), color("boat", "blue", count=2)], [BLUE, RED, RED], False),
        ([color("boat", "red", count=1), color("boat", "blue", count=2)], [BLUE, RED, BLUE, GREEN], False),
        ([color("boat", "red"), {"name": "boat"}], [RED], False),
        ([color("boat", "red", count=1), {"name": "boat"}], [BLUE, RED, BLUE], True),
    ],
)
def test_every_thing_wanted_needs_one_of_its_own_in_its_color(objects, colors, right, with_masks):
    mark = ask(DetectorJudge(Blobs(with_masks)), boats(*colors), asked(*objects, type="Color"))
    assert mark.right == right, mark
    assert bool(mark.why) != right


def test_colors_on_the_wrong_things_are_wrong():
    """A red boat and a blue tower; with the colors swapped it is another picture."""
    pair = asked(color("boat", "red"), color("tower", "blue"), type="Color")
    right = picture((5, 5, 40, 20, RED), (60, 5, 75, 50, BLUE))
    swapped = picture((5, 5, 40, 20, BLUE), (60, 5, 75, 50, RED))
    judge = DetectorJudge(Blobs())
    assert ask(judge, right, pair).right
    mark = ask(judge, swapped, pair)
    assert not mark.right and mark.why == "not enough red on the boat; not enough blue on the tower"
    assert mark.details["seen"]["boat"][0]["colors"] == {"blue": 1.0}


@pytest.mark.parametrize(("share", "right"), [(0.2, False), (0.4, True)])
def test_enough_of_a_thing_must_have_the_color(share, right):
    """And of two colors, half as much of each."""
    edge = 10 + round(50 * share)
    half = picture((10, 10, edge, 40, RED), (edge, 10, 60, 40, BLUE))
    judge = DetectorJudge(Blobs(), DetectorRules(color_share=0.3))
    assert ask(judge, half, asked(color("boat", "red"))).right == right
    assert ask(judge, half, asked(color("boat", "red", "blue"))).right
    assert not ask(judge, half, asked(color("boat", "red", "green"))).right


def test_a_masks_pixels_are_counted_and_of_a_box_its_middle():
    pixels = picture((10, 10, 50, 50, RED), (22, 22, 38, 38, BLUE))
    mask = (pixels == BLUE).all(-1)
    box = (10.0, 10.0, 50.0, 50.0)
    assert (object_pixels(pixels, Detection("x", 1, box, mask), 0.7) == BLUE).all()
    middle = object_pixels(pixels, Detection("x", 1, box), 0.4)
    assert len(middle) == 16 * 16 and (middle == BLUE).all()
    assert len(object_pixels(pixels, Detection("x", 1, box), 1.0)) == 40 * 40
    assert len(object_pixels(pixels, Detection("x", 1, (80.0, 5.0, 200.0, 7.0)), 0.1)) == 0


def test_a_thing_without_pixels_has_no_color():
    judge = DetectorJudge(Given(Detection("boat", 0.9, (10.0, 10.0, 10.2, 10.2))))
    assert not ask(judge, boats(RED), asked(color("boat", "red"))).right


def brute_force_overlap(one, other, size=64):
    """Share of a fine grid's points that lie in both boxes, of those that lie in one."""
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    inside = [(x > b[0]) & (x < b[2]) & (y > b[1]) & (y < b[3]) for b in (one, other)]
    return (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()


def test_doubles_are_those_that_cover_each_other():
    draw = np.random.default_rng(0)
    for _ in range(60):
        corners = draw.integers(0, 40, (6, 2))
        boxes = [(*corner, *(corner + draw.integers(4, 24, 2))) for corner in corners.tolist()]
        boxes = [tuple(map(float, box)) for box in boxes]
        scores = draw.permutation(6) / 6
        found = [Detection("x", score, box) for score, box in zip(scores, boxes, strict=True)]
        kept = without_doubles(found, 0.3)
        assert [one.score for one in kept] == sorted((one.score for one in kept), reverse=True)
        for one in found:
            better = [other for other in kept if other.score > one.score]
            covered = any(brute_force_overlap(one.box, other.box) > 0.3 for other in better)
            assert covered != any(one is other for other in kept)


def test_masks_decide_over_boxes():
    """Two things whose boxes are the same, one above the diagonal and one below it."""
    upper = np.triu(np.ones((20, 20), bool), 1)
    box = (0.0, 0.0, 20.0, 20.0)
    found = [Detection("x", 0.9, box, upper), Detection("x", 0.8, box, ~upper)]
    assert len(without_doubles(found, 0.5)) == 2
    assert len(without_doubles([Detection("x", 0.9, box), Detection("x", 0.8, box)], 0.5)) == 1


def test_several_labels_may_stand_for_a_name():
    seen = [Detection("cup", 0.9, (0, 0, 10, 10)), Detection("mug", 0.8, (1, 0, 11, 10))]
    seen += [Detection("mug", 0.7, (30, 0, 40, 10)), Detection("teacup", 0.9, (60, 0, 70, 10))]
    detector = Given(*seen)
    judge = DetectorJudge(detector, DetectorRules(classes={"teacup": ("cup", "mug")}))
    mark = ask(judge, boats(), asked({"name": "teacup", "count": 2}))
    assert mark.right and [one["label"] for one in mark.details["seen"]["teacup"]] == ["cup", "mug"]
    assert detector.calls == [(1, ("cup", "mug"))]


def test_the_threshold_is_the_detectors_own_or_the_rules():
    seen = [
        Detection("boat", score, (30 * at, 0, 30 * at + 9, 9)) for at, score in enumerate((0.9, 0.6, 0.4))
    ]
    counts = [
        len(DetectorJudge(Given(*seen), rules).mark(boats(), asked({"name": "boat"})).details["seen"]["boat"])
        for rules in (None, DetectorRules(threshold=0.3), DetectorRules(threshold=0.8))
    ]
    assert counts == [2, 3, 1]


def test_marks_of_many_are_those_of_each_alone_and_the_detector_gets_them_together():
    prompts = [asked({"name": "boat", "count": count}) for count in (1, 2, 3)]
    prompts += [asked(color("boat", "red"), color("tower", "blue"))]
    pairs = [(boats(*[RED] * count), one) for count in (1, 2, 3) for one in prompts]
    pairs += [(picture((5, 5, 40, 20, RED), size=(60, 120)), prompts[0])]
    many = ask_many(DetectorJudge(Blobs()), pairs)
    assert many == [ask(DetectorJudge(Blobs()), *pair) for pair in pairs]
    assert json.loads(json.dumps([mark.details for mark in many])) == [mark.details for mark in many]
    detector = Given()
    DetectorJudge(detector).mark_many(pairs)
    assert sorted(detector.calls) == [(1, ("boat",)), (3, ("boat", "tower")), (9, ("boat",))]


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"subject": "a dog", "action": "running"}, "has an action.*question judge"),
        ({"questions": ["Is it warm?"]}, "names no objects"),
        ({"objects": [{"name": "sailing boat"}]}, "blobs knows no 'sailing boat'.*classes.*such as boat"),
        ({"channel": 3}, "unknown key 'channel'"),
        (None, "the truth should be a table"),
    ],
)
def test_what_a_detector_cannot_judge_is_told_before_anything_is_drawn(truth, words):
    prompts = [asked({"name": "boat"}), EvalPrompt("p2", "Action", "a picture", truth=truth)]
    with pytest.raises(PromptSetError, match=words) as caught:
        DetectorJudge(Blobs()).check(prompts)
    assert "'p2'" in str(caught.value)
    DetectorJudge(Blobs(), DetectorRules(classes={"sailing boat": ("boat",)})).check(
        [asked({"name": "sailing boat"})]
    )


class ShapeDetector:
    """Sees the objects of SURD-Shapes, with masks of what is not background."""

    name, labels, usual_threshold = "shapes", None, 0.5

    def detect(self, pictures, labels, threshold):
        return [self._one(pixels, labels) for pixels in pictures]

    def _one(self, pixels, labels):
        background = np.median(pixels.reshape(-1, 3), axis=0)
        paint = np.abs(pixels - background).max(-1) > 40
        found = []
        for thing in read_scene(pixels).objects:
            left, top, right, bottom = thing.box
            mask = np.zeros_like(paint)
            mask[top:bottom, left:right] = paint[top:bottom, left:right]
            found += [Detection(thing.kind, 0.9, thing.box, mask)] if thing.kind in labels else []
        return found


def our_truth(meaning) -> dict:
    """The same truth in the words of the judges of real pictures."""
    if meaning.type == "counting":
        return {"objects": [color(meaning.kind, meaning.color, count=meaning.count)]}
    pairs = ((meaning.kind, meaning.color), (meaning.other_kind, meaning.other_color))
    return {"objects": [color(kind, name, count=1) for kind, name in pairs]}


@pytest.mark.parametrize("type", ["counting", "color"])
def test_on_the_small_world_it_agrees_with_the_exact_judge(type):
    """On right pictures, and on those that are wrong in one property."""
    ours, exact, agreed = DetectorJudge(ShapeDetector()), WorldJudge(), []
    for index, scene in enumerate(some_scenes(type, 24, "detector")):
        wrong = [
            Dice("wrong", index, name).pick(others) for name, others in wrong_in_one(scene.meaning).items()
        ]
        for meaning in [scene.meaning, *wrong]:
            prompt = {"id": "p", "type": type, "prompt": "a picture"}
            mark = ask(ours, render(scene), EvalPrompt(**prompt, truth=our_truth(meaning)))
            expected = ask(exact, render(scene), EvalPrompt(**prompt, truth=to_truth(meaning)))
            if type == "counting" and meaning.kind != scene.meaning.kind:
                assert not mark.right
            agreed.append((mark.right, expected.right))
    assert all(left == right for left, right in agreed), agreed
    assert {right for _, right in agreed} == {True, False}


def test_a_thing_of_two_colors_is_not_of_the_rarer():
    ball = drawn([("ball", "red", (32, 32), 88)])
    judge = DetectorJudge(ShapeDetector())
    assert ask(judge, ball, asked(color("ball", "red"))).right
    ball[22:28, 28:36] = BLUE
    assert not ask(judge, ball, asked(color("ball", "blue"))).right
