"""Prompts as words: how long they are, and which words and pairs of words they share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

_DETERMINERS = """
a an the this that these those his her its their my your our some any each every no one two three four five
six seven eight nine ten several many few both all another other
"""
_PREPOSITIONS = """
about above across after against along among around as at before behind below beneath beside between beyond by
down during for from in inside into near next of off on onto out outside over past through toward towards
under underneath up upon with within without
"""
_OTHERS = """
and or but nor so than then there here while when where which who whom whose what how why if because i you he
she it we they me him us them mine yours hers ours theirs himself herself itself themselves am is are was were
be been being do does did done have has had having will would can could may might must shall should not very
too also just only own same such more most much like etc s t
"""
DETERMINERS = frozenset(_DETERMINERS.split())
PREPOSITIONS = frozenset(_PREPOSITIONS.split())
STOP_WORDS = DETERMINERS | PREPOSITIONS | frozenset(_OTHERS.split())
"""English function words, which every text is full of."""

_TAGS = re.compile(r"<[^<>]{0,200}>")
_RUNS = re.compile(r"[^,.;:!?()\[\]{}|\n\r\"“”]+")
_WORDS = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def length_in_words(text: str) -> int:
    """Whatever stands between white space, as ``python -m train check`` counts."""
    return len(text.split())


def runs(text: str) -> Iterator[list[str]]:
    """Words in lower case that stand together, without punctuation or brackets between them; numbers and
    ``<...>`` tags (LoRA) are no words.
    """
    for run in _RUNS.findall(_TAGS.sub(",", text)):
        words = [word.replace("’", "'") for word in _WORDS.findall(run.lower())]
        if words := [word for word in words if any(character.isalpha() for character in word)]:
            yield words


def count_words(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """In how many texts each word, and each pair of neighbouring words, occurs; no stop words."""
    words, pairs = Counter(), Counter()
    for text in texts:
        seen_words, seen_pairs = set(), set()
        for run in runs(text):
            telling = [word not in STOP_WORDS for word in run]
            seen_words.update(word for word, tells in zip(run, telling, strict=True) if tells)
            for at in range(len(run) - 1):
                if telling[at] and telling[at + 1] and run[at] != run[at + 1]:
                    seen_pairs.add(f"{run[at]} {run[at + 1]}")
        words.update(seen_words)
        pairs.update(seen_pairs)
    return words, pairs


def ranked(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    """The most frequent, equal ones in the order of the alphabet."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
