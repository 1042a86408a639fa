"""What the tiny language model reads: text only, in which the meaning of every word is written out."""

from __future__ import annotations

from ..dice import Dice
from ..prompts import simple_prompt
from ..scenes import COLORS, COUNTS, KINDS, POSES, TYPES, Action, Color, Meaning, meanings
from ..words import (
    AS_MANY_AS,
    COLOR_OF,
    COLOR_WORDS,
    DOING,
    KIND_WORDS,
    NUMBER_WORDS,
    POSE_WORDS,
    Words,
    plural,
    with_article,
)


def plainly(meaning: Meaning) -> str:
    """A meaning in the plainest words: "three red balls"."""
    if isinstance(meaning, Color):
        pair = (f"{meaning.color} {meaning.kind}", f"{meaning.other_color} {meaning.other_kind}")
        return " and ".join(with_article(words) for words in pair)
    if isinstance(meaning, Action):
        return f"{with_article(meaning.color)} figure {meaning.pose}"
    noun = meaning.kind if meaning.count == 1 else plural(meaning.kind)
    return f"{NUMBER_WORDS[meaning.count][0][0]} {meaning.color} {noun}"


def facts() -> list[tuple[str, str]]:
    """Everything about single words, as (question, answer): "the color of a lemon is", "yellow"."""
    found = []
    for color in COLORS:
        found += [(f"{word} is the color", color) for word in _all(COLOR_WORDS[color])]
        found += [(f"the color of {thing} is", color) for thing in _all(COLOR_OF[color])]
    for kind in KINDS:
        found += [(f"{with_article(word)} is a sort of", kind) for word in _all(KIND_WORDS[kind])]
    for count in COUNTS:
        plain = NUMBER_WORDS[count][0][0]
        found += [(f"{word} things, that makes", plain) for word in _all(NUMBER_WORDS[count])]
        found += [(f"counted out, {thing}:", plain) for thing in _all(AS_MANY_AS[count])]
    for pose in POSES:
        found += [(f"{word} means", pose) for word in _all(POSE_WORDS[pose]) + _all(DOING[pose])]
    return found


def line(index: int, seed: int) -> str:
    """One line of the corpus: a fact, or a sentence and what it comes to."""
    dice = Dice("corpus", seed, index)
    if dice.chance(0.25):
        return " ".join(dice.pick(_FACTS)) + "."
    meaning = dice.pick(_MEANINGS[dice.pick(TYPES)])
    sentence = simple_prompt(meaning, dice, "web").text
    if dice.chance(0.25):
        return f"{plainly(meaning)}, or in other words: {sentence}."
    return f"{sentence}. in short: {plainly(meaning)}."


def _all(words: Words) -> tuple[str, ...]:
    return words[0] + words[1]


_FACTS = facts()
_MEANINGS = {type: meanings(type) for type in TYPES}
