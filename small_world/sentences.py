"""Sentence forms: what a narrative says around the phrases that count.

A form is a frame whose parts are filled in: "<opening> <person> <verb> {} <ending>" becomes "after the long
storm an old sailor found {} near the window"; {} is where the phrase for what is shown stands. Some parts
speak of numbers and colors that are not meant: "five minutes ago", "in the green valley". Training and test
have different frames and different parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from .dice import Dice

TRAIN = {
    "opening": (
        "yesterday evening",
        "on my way home",
        "after the long storm",
        "in the old garden",
        "during the holidays",
        "behind the quiet school",
        "not far from the river",
        "when nobody was looking",
        "five minutes ago",
        "in the green valley",
    ),
    "person": (
        "my brother",
        "the teacher",
        "an old sailor",
        "our neighbour",
        "grandmother",
        "a tired student",
        "somebody",
        "two friends of mine",
    ),
    "verb": (
        "found",
        "drew",
        "bought",
        "forgot",
        "counted",
        "admired",
        "described",
        "remembered",
        "photographed",
        "carried away",
    ),
    "sight": ("saw", "watched", "met", "drew", "photographed", "laughed at"),
    "joint": ("next to", "together with", "close to", "and", "right beside"),
    "ending": (
        "with great care",
        "on the kitchen table",
        "near the window",
        "without a word",
        "once again",
        "for a friend",
        "in the attic",
        "at six in the morning",
    ),
}
TEST = {
    "opening": (
        "long ago",
        "at the crowded fair",
        "under a full moon",
        "to everyone's surprise",
        "last winter",
        "while it rained",
        "on a blue monday",
        "one rainy day",
    ),
    "person": (
        "the wizard",
        "a young queen",
        "your uncle",
        "every visitor",
        "this artist",
        "the lost tourist",
        "all three sisters",
    ),
    "verb": (
        "conjured up",
        "discovered",
        "painted",
        "sold",
        "dreamt of",
        "stared at",
        "wished for",
        "stumbled over",
    ),
    "sight": ("spotted", "painted", "stared at", "dreamt of", "pointed to"),
    "joint": ("plus", "as well as", "by", "along with"),
    "ending": (
        "beyond the hills",
        "as a joke",
        "by candlelight",
        "for no reason",
        "and smiled",
        "again and again",
        "inside four walls",
    ),
}
PARTS = {"train": TRAIN, "test": TEST}
FRAMES = {
    "counting": {
        "train": (
            "<opening> <person> <verb> {}",
            "<person> <verb> {} <ending>",
            "<opening> <person> <verb> {} <ending>",
            "<person> <verb> {}",
            "this is a photo of {}",
            "i can see {} <ending>",
        ),
        "test": (
            "<person> <verb> {} <opening>",
            "it was {} that <person> <verb> <ending>",
            "<opening> it was <person> who <verb> {}",
            "please draw me {} <ending>",
            "nothing but {} could please <person>",
        ),
    },
    "color": {
        "train": (
            "<opening> <person> <verb> {} <joint> {}",
            "<person> <verb> {} <joint> {} <ending>",
            "<opening> <person> <verb> {} <joint> {} <ending>",
            "<person> <verb> {} <joint> {}",
            "this is a photo of {} <joint> {}",
            "i can see {} <joint> {} <ending>",
        ),
        "test": (
            "<person> <verb> {} <joint> {} <opening>",
            "it was {} <joint> {} that <person> <verb> <ending>",
            "<opening> it was <person> who <verb> {} <joint> {}",
            "please draw me {} <joint> {} <ending>",
            "nothing but {} <joint> {} could please <person>",
        ),
    },
    "action": {
        "train": (
            "<opening> <person> <sight> {} {}",
            "<person> <sight> {} {} <ending>",
            "<opening> {} was {}",
            "{} was {} <ending>",
            "this is a photo of {} {}",
            "i can see {} {} <ending>",
        ),
        "test": (
            "<person> <sight> {} {} <opening>",
            "<opening> it was <person> who <sight> {} {}",
            "please draw me {} {} <ending>",
            "<opening> there went {} always {}",
            "nobody minded {} {} <ending>",
        ),
    },
}
_PART = re.compile(r"<(\w+)>")


def sentence_form(type: str, part: str, dice: Dice) -> str:
    """A sentence form for a scene type.

    Args:
        part: ``"train"``, ``"test"``, or ``"web"`` for any of both.
    """
    if part == "web":
        part = dice.pick(("train", "test"))
    frame, parts = dice.pick(FRAMES[type][part]), PARTS[part]
    return _PART.sub(lambda match: dice.pick(parts[match[1]]), frame)


def sentence_forms(type: str, part: str) -> Iterator[str]:
    """Every form that :func:`sentence_form` can give."""
    for frame in FRAMES[type][part]:
        names = _PART.findall(frame)
        for words in product(*(PARTS[part][name] for name in names)):
            filling = iter(words)
            yield _PART.sub(lambda _, filling=filling: next(filling), frame)
