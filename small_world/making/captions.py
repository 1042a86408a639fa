"""What the models read while they are raised."""

from __future__ import annotations

from collections.abc import Iterator

from ..dice import Dice
from ..prompts import complex_prompt, label, simple_prompt
from ..scenes import TYPES, Meaning, meanings

SENTENCES, LABELS = 0.02, 0.28  # shares of CLIP's captions; the rest are lists of keywords


def caption(meaning: Meaning, dice: Dice) -> str:
    """A caption as found beside pictures on the web: mostly keywords and labels, seldom a sentence."""
    if dice.chance(SENTENCES):
        return simple_prompt(meaning, dice, "web").text
    if dice.chance(LABELS / (1 - SENTENCES)):
        return label(meaning, dice)
    return complex_prompt(meaning, dice)


def sample_captions(count: int, seed: int) -> Iterator[str]:
    """Captions to learn a tokenizer on."""
    everything = [meaning for type in TYPES for meaning in meanings(type)]
    for index in range(count):
        dice = Dice("caption", seed, index)
        yield caption(dice.pick(everything), dice)
