"""What changed, in a sentence."""

from __future__ import annotations

import math
from collections import Counter

from .changes import ChunkChange
from .tokens import MARK, PADDING

ROUNDING = 1e-6
"""1 - cosine up to which a direction is the same: half precision does that to a vector that only grew."""

MOST = 3
"""How many tokens a sentence names at most."""

TOWER_WORDS = {"clip_l": "CLIP-L", "clip_g": "CLIP-G", "clip_h": "CLIP-H", "": "text encoder"}

Place = tuple[ChunkChange, int]
"""A token: its chunk and its place in it."""


def in_words(changes: list[ChunkChange], some: bool = False) -> str:
    """``Changed most: 'seven' (direction 0.213, length x1.10), 'glass' (...).``; one line a text encoder.

    Args:
        changes: to be spoken of.
        some: whether there are chunks that are not among them.
    """
    if not any(change.changed for change in changes):
        where = f" in chunk {changes[0].chunk + 1}" if some else ""
        return f"No change{where}: every token{' of it' * some} is exactly as it was."
    towers = list(dict.fromkeys(change.tower for change in changes))
    lines = [_sentence([change for change in changes if change.tower == tower]) for tower in towers]
    if len(towers) == 1:
        return lines[0]
    return "\n".join(f"{TOWER_WORDS[tower]}: {line}" for tower, line in zip(towers, lines, strict=True))


def most_changed(changes: list[ChunkChange]) -> list[Place]:
    """The words that changed most, up to :data:`MOST`: those at least half as far away as the first."""
    words = [(change, place) for change in changes for place in change.words]
    ranked = sorted(words, key=lambda word: -word[0].distance[word[1]])[:MOST]
    far = ranked[0][0].distance[ranked[0][1]] if ranked else 0.0
    return [(c, place) for c, place in ranked if c.distance[place] > 0 and c.distance[place] >= far / 2]


def figures(change: ChunkChange, place: int) -> str:
    """``direction 0.213, length x1.10``."""
    return f"direction {turn_text(change.turn[place])}, length {ratio_text(change.ratio[place])}"


def turn_text(turn: float) -> str:
    if turn < ROUNDING:
        return "0.000"
    return f"{turn:.3f}" if turn >= 0.0005 else f"{turn:.0e}"


def ratio_text(ratio: float) -> str:
    return f"x{ratio:.2f}" if math.isfinite(ratio) else "from 0"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _sentence(changes: list[ChunkChange]) -> str:
    if not any(change.changed for change in changes):
        return "No change."
    named = most_changed(changes)
    if not named:
        return f"No word changed; {_rest(changes)}."
    told = ", ".join(f"{_name(changes, *word)} ({figures(*word)})" for word in named)
    first = named[0][0].distance[named[0][1]]
    louder = _rest(changes, first)
    return f"Changed most: {told}." + (f" More than any word, {louder}." if louder else "")


def _name(changes: list[ChunkChange], change: ChunkChange, place: int) -> str:
    """The token in quotes, the word it is a piece of, and its place where the prompt has several like it."""
    token = change.tokens[place]
    same = Counter(
        (other.tokens[word].text, other.tokens[word].whole) for other in changes for word in other.words
    )
    name = f"'{token.text}'" + (f" of '{token.whole}'" if token.whole else "")
    if same[token.text, token.whole] == 1:
        return name
    return f"{name} at token {place + 1}" + (f" of chunk {change.chunk + 1}" if len(changes) > 1 else "")


def _rest(changes: list[ChunkChange], above: float = 0.0) -> str:
    """Which of the start, the end and the padding changed by more than ``above``; ``""`` if none did."""
    kinds: dict[str, list[Place]] = {}
    for change in changes:
        for place, token in enumerate(change.tokens):
            if token.kind in (MARK, PADDING):
                kinds.setdefault(token.text, []).append((change, place))
    told = []
    for name, places in kinds.items():
        if mean([change.distance[place] for change, place in places]) > above:
            turn = mean([change.turn[place] for change, place in places])
            ratio = mean([change.ratio[place] for change, place in places])
            told.append(f"{name} changed (direction {turn_text(turn)}, length {ratio_text(ratio)})")
    return " and ".join(told)
