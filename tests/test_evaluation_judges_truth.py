"""What a truth means: read in words, asked as questions, colors by name."""

import colorsys

import numpy as np
import pytest

from small_world.scenes import COLORS as WORLD_COLORS
from sur_core.evaluation import EvalPrompt, PromptSetError
from sur_core.evaluation.judging import Wanted, color_shares, questions_of, read_truth
from sur_core.evaluation.judging.colors import NAMES, name_pixels, share_of


def prompt(**truth) -> EvalPrompt:
    return EvalPrompt("p1", "Color", "a picture", truth=truth or None)


def test_a_truth_is_read():
    objects = [
        {"name": "pie", "count": 4},
        {"name": "person", "plural": "people", "colors": ["blue", "teal"]},
    ]
    truth = read_truth(prompt(objects=objects, subject="a chef", action="baking", questions=["Is it warm?"]))
    assert truth.objects == (Wanted("pie", "pies", 4), Wanted("person", "people", 0, ("blue", "teal")))
    assert (truth.subject, truth.action, truth.questions) == ("a chef", "baking", ("Is it warm?",))
    assert read_truth(prompt(objects=[{"name": "torch"}])).objects[0].plural == "torches"


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (None, "the truth should be a table with objects"),
        ({"type": "counting", "count": 3}, "unknown key 'type'; known are objects, subject"),
        ({"objects": {"name": "pie"}}, "objects should be a list"),
        ({"objects": ["pie"]}, "an object should be a table with name"),
        ({"objects": [{"count": 3}]}, "name should be a text"),
        ({"objects": [{"name": "pie", "number": 3}]}, "unknown key 'number'"),
        (
            {"objects": [{"name": "pie", "count": 0}]},
            "count of 'pie' should be a whole number from 1, found 0",
        ),
        ({"objects": [{"name": "pie", "count": True}]}, "found True"),
        ({"objects": [{"name": "pie", "colors": "red"}]}, "colors of 'pie' should be a list"),
        (
            {"objects": [{"name": "pie", "colors": ["rde"]}]},
            "the color 'rde', which is unknown; known are black",
        ),
        ({"objects": [{"name": "pie", "plural": " "}]}, "plural of 'pie'"),
        ({"action": "running"}, "only one of subject and action"),
        ({"subject": "", "action": ""}, "subject should be a text"),
        ({"questions": [""]}, "a question should be a text"),
    ],
)
def test_a_truth_that_cannot_be_read_is_told_with_its_prompt(truth, words):
    with pytest.raises(PromptSetError, match=words) as caught:
        read_truth(EvalPrompt("p1", "Color", "a picture", truth=truth))
    assert "'p1'" in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "questions"),
    [
        ({"objects": [{"name": "pie", "count": 4}]}, ["Are there exactly four pies in this picture?"]),
        ({"objects": [{"name": "fly", "count": 30, "plural": "flies"}]}, ["... exactly 30 flies ..."]),
        ({"objects": [{"name": "goat", "count": 1}]}, ["Is there exactly one goat in this picture?"]),
        (
            {"objects": [{"name": "glass", "colors": ["blue"]}]},
            ["Is there any glass in this picture?", "Is the glass in this picture blue?"],
        ),
        (
            {"objects": [{"name": "sky", "colors": ["pink", "orange"]}]},
            [
                "Is there any sky in this picture?",
                "Is pink one of the colors of the sky in this picture?",
                "Is orange one of the colors of the sky in this picture?",
            ],
        ),
        (
            {"objects": [{"name": "pie", "count": 2, "colors": ["red"]}]},
            ["Are there exactly two pies in this picture?", "Are all the pies in this picture red?"],
        ),
        (
            {
                "objects": [
                    {"name": "ball", "colors": ["red"]},
                    {"name": "ball", "count": 2, "colors": ["blue"]},
                ]
            },
            ["Is there any ball in this picture that is red?", "... exactly two balls ... that are blue?"],
        ),
        (
            {"subject": "a chef", "action": "tossing dough", "objects": [{"name": "kitchen"}]},
            ["Does this picture show a chef tossing dough?", "Is there any kitchen in this picture?"],
        ),
        ({"objects": [{"name": "pie"}], "questions": ["Is it round?"]}, ["Is it round?"]),
    ],
)
def test_questions_are_made_of_a_truth(truth, questions):
    found = questions_of(read_truth(prompt(**truth)))
    assert len(found) == len(questions)
    for ours, expected in zip(found, questions, strict=True):
        assert (
            ours == expected
            or "..." in expected
            and all(part.strip() in ours for part in expected.split("..."))
        )


def of_hue(hue: float, saturation: float = 1.0, value: float = 1.0) -> np.ndarray:
    return np.array([[round(255 * x) for x in colorsys.hsv_to_rgb(hue / 360, saturation, value)]], np.uint8)


@pytest.mark.parametrize(
    ("pixel", "name"),
    [
        ((of_hue(0)), "red"),
        (of_hue(352), "red"),
        (of_hue(30), "orange"),
        (of_hue(55), "yellow"),
        (of_hue(120), "green"),
        (of_hue(180), "cyan"),
        (of_hue(230), "blue"),
        (of_hue(275), "purple"),
        (of_hue(330), "pink"),
        (of_hue(350, 0.4), "pink"),
        (of_hue(330, 1, 0.4), "purple"),
        (of_hue(25, 0.8, 0.45), "brown"),
        (of_hue(30, 0.4, 0.7), "brown"),
        (of_hue(230, 1, 0.1), "black"),
        (of_hue(0, 0, 1), "white"),
        (of_hue(0, 0, 0.5), "gray"),
        (of_hue(0, 0, 0), "black"),
    ],
)
def test_a_pixel_has_the_name_of_its_hue(pixel, name):
    assert NAMES[name_pixels(pixel)[0]] == name


@pytest.mark.parametrize("name", WORLD_COLORS)
def test_the_colors_of_the_small_world_have_their_names(name):
    assert color_shares(np.array([[WORLD_COLORS[name]]], np.uint8))[name] == 1


def test_hue_saturation_and_value_are_those_of_the_standard_library():
    from sur_core.evaluation.judging.colors import _hsv

    pixels = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    pixels[:60, 1] = pixels[:60, 0]
    expected = np.array([colorsys.rgb_to_hsv(*(pixel / 255)) for pixel in pixels])
    hue, saturation, value = _hsv(pixels)
    around = np.abs(hue / 360 - expected[:, 0])
    assert np.minimum(around, 1 - around).max() < 1e-5
    assert np.abs(saturation - expected[:, 1]).max() < 1e-5 and np.abs(value - expected[:, 2]).max() < 1e-5


def test_shares_add_up_and_words_may_stand_for_several_names():
    pixels = np.concatenate([of_hue(0)] * 5 + [of_hue(0, 0, 1)] * 2 + [of_hue(0, 0, 0.5)] * 3)
    shares = color_shares(pixels)
    assert (shares["red"], shares["white"], shares["gray"]) == (0.5, 0.2, 0.3) and sum(shares.values()) == 1
    assert share_of("silver", shares) == 0.5 and share_of("scarlet", shares) == 0.5
    assert share_of("golden", shares) == 0
