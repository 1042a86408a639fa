"""What is written about a scene: complex prompts in SURD's style, and narrative English.

A complex prompt is a list of keywords that starts with what is shown. A simple prompt is a sentence: one of
many forms around phrases with synonyms ("a trio of crimson balls") and commonsense ("as many balls as a car
has wheels"). Training and test use different forms, and half of the test prompts also have words that no
training triplet shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from .dice import Dice
from .scenes import Color, Counting, Meaning
from .sentences import sentence_form
from .words import (
    AS_MANY_AS,
    COLOR_OF,
    COLOR_WORDS,
    DOING,
    KIND_WORDS,
    NUMBER_WORDS,
    PEOPLE,
    POSE_WORDS,
    Words,
    plural,
    with_article,
)

QUALITY = (
    "masterpiece",
    "best quality",
    "(sharp focus:1.2)",
    "highly detailed",
    "(flat colors:1.1)",
    "vector art",
    "clean lines",
    "trending on artstation",
    "8k",
    "award winning",
    "(minimalism:0.9)",
    "studio lighting",
    "official art",
    "crisp edges",
    "graphic design",
    "(ultra sharp:1.3)",
)
PRAISE = (2, 12)  # so many of them in a prompt


@dataclass(frozen=True)
class SimplePrompt:
    """A sentence and how it came about.

    Attributes:
        text: the sentence.
        form: the sentence form, with {} where phrases stand.
        unseen: the words in it that no training triplet shows.
    """

    text: str
    form: str
    unseen: tuple[str, ...]


def complex_prompt(meaning: Meaning, dice: Dice) -> str:
    """Keywords as the base model was raised on them: what is shown, then the scene, then praise."""
    if isinstance(meaning, Counting):
        number = NUMBER_WORDS[meaning.count][0][0]
        noun = meaning.kind if meaning.count == 1 else plural(meaning.kind)
        shown = [f"{number} {meaning.color} {noun}", "simple background"]
    elif isinstance(meaning, Color):
        other = f"{meaning.other_color} {meaning.other_kind}"
        shown = [f"{meaning.color} {meaning.kind}", other, "side by side"]
    else:
        shown = [meaning.pose, f"{meaning.color} figure", "full body"]
    return ", ".join(shown + dice.shuffled(QUALITY)[: dice.between(*PRAISE)])


def simple_prompt(meaning: Meaning, dice: Dice, part: str) -> SimplePrompt:
    """A sentence about ``meaning``.

    Args:
        part: ``"train"``: training forms, seen words. ``"test"``: test forms; half of the prompts have at
            least one unseen word. ``"web"``: every form and word, as CLIP and the language model meet them.
    """
    unseen = part != "train" and dice.chance(0.5)
    while True:
        speaker = _Speaker(dice, 0.5 if unseen else 0.0)
        phrases = speaker.phrases(meaning)
        if bool(speaker.unseen) == unseen:
            break
    form = sentence_form(meaning.type, part, dice)
    return SimplePrompt(form.format(*phrases), form, tuple(speaker.unseen))


def label(meaning: Meaning, dice: Dice) -> str:
    """A bare phrase as pictures on the web are labelled with: any word, no sentence and no comparison."""
    phrases = _Speaker(dice, 0.5, likening=0.0).phrases(meaning)
    return " and ".join(phrases) if isinstance(meaning, Color) else " ".join(phrases)


class _Speaker:
    """Chooses words for one sentence and notes the unseen ones.

    ``likening``: share of phrases that say something by a comparison ("the color of coal").
    """

    def __init__(self, dice: Dice, unseen_share: float, likening: float = 0.25):
        self._dice, self._share, self._likening, self.unseen = dice, unseen_share, likening, []

    def phrases(self, meaning: Meaning) -> list[str]:
        if isinstance(meaning, Counting):
            return [self._several(meaning)]
        if isinstance(meaning, Color):
            pair = [(meaning.color, meaning.kind), (meaning.other_color, meaning.other_kind)]
            return [self._one(color, kind) for color, kind in pair]
        return [self._figure(meaning.color), self._doing(meaning.pose)]

    def _word(self, words: Words) -> str:
        seen, unseen = words
        if self._dice.chance(self._share):
            self.unseen.append(self._dice.pick(unseen))
            return self.unseen[-1]
        return self._dice.pick(seen)

    def _several(self, meaning: Counting) -> str:
        noun = self._word(KIND_WORDS[meaning.kind])
        if self._dice.chance(self._likening):
            like = self._word(AS_MANY_AS[meaning.count])
            return f"as many {self._word(COLOR_WORDS[meaning.color])} {plural(noun)} as {like}"
        number = self._word(NUMBER_WORDS[meaning.count])
        noun = noun if meaning.count == 1 else plural(noun)
        return f"{number} {self._colored(meaning.color, noun)}"

    def _one(self, color: str, kind: str) -> str:
        return with_article(self._colored(color, self._word(KIND_WORDS[kind])))

    def _colored(self, color: str, noun: str) -> str:
        if self._dice.chance(self._likening):
            return f"{noun} the color of {self._word(COLOR_OF[color])}"
        return f"{self._word(COLOR_WORDS[color])} {noun}"

    def _figure(self, color: str) -> str:
        who = self._word(PEOPLE)
        if self._dice.chance(self._likening):
            return f"{with_article(who)} wearing the color of {self._word(COLOR_OF[color])}"
        word = self._word(COLOR_WORDS[color])
        if self._dice.chance(0.5):
            return f"{with_article(who)} dressed in {word}"
        return with_article(f"{word} {who}")

    def _doing(self, pose: str) -> str:
        return self._word(DOING[pose] if self._dice.chance(self._likening) else POSE_WORDS[pose])
