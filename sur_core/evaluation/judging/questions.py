"""The questions that a truth asks of a picture. "Yes" to all of them means that the picture is right.

- ``questions``: these, and nothing else.
- ``subject`` and ``action``: "Does this picture show a chef tossing a pizza dough?"
- an object: "Is there any kitchen in this picture?"
- with a count: "Are there exactly four pies in this picture?" instead, or "Is there exactly one ..."
- with a color: also "Is the glass in this picture blue?"; with several, of each: "Is pink one of the colors
  of the diner in this picture?"; with a count and colors, of each: "Are all the pies in this picture red?"
- another object of the same name: "Is there any flower in this picture that is purple?" of each, or "Are
  there exactly two balls in this picture that are red and blue?" instead of all this.
"""

from __future__ import annotations

from .truth import Truth, Wanted

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_NUMBERS += ("twelve",)


def questions_of(truth: Truth) -> tuple[str, ...]:
    """In the order of the table above, each once; empty if the truth asks nothing."""
    if truth.questions:
        return truth.questions
    asked = [f"Does this picture show {truth.subject} {truth.action}?"] if truth.action else []
    names = [wanted.name for wanted in truth.objects]
    for wanted in truth.objects:
        asked += _one_of_several(wanted) if names.count(wanted.name) > 1 else _alone(wanted)
    return tuple(dict.fromkeys(asked))


def _alone(wanted: Wanted) -> list[str]:
    asked, name = [_how_many(wanted)], wanted.name
    if wanted.count > 1:
        return asked + [f"Are all the {wanted.plural} in this picture {color}?" for color in wanted.colors]
    if len(wanted.colors) == 1:
        return [*asked, f"Is the {name} in this picture {wanted.colors[0]}?"]
    return asked + [f"Is {color} one of the colors of the {name} in this picture?" for color in wanted.colors]


def _one_of_several(wanted: Wanted) -> list[str]:
    verb = "are" if wanted.count > 1 else "is"
    ending = f" that {verb} {' and '.join(wanted.colors)}?" if wanted.colors else "?"
    return [_how_many(wanted).removesuffix("?") + ending]


def _how_many(wanted: Wanted) -> str:
    if not wanted.count:
        return f"Is there any {wanted.name} in this picture?"
    if wanted.count == 1:
        return f"Is there exactly one {wanted.name} in this picture?"
    number = _NUMBERS[wanted.count] if wanted.count < len(_NUMBERS) else str(wanted.count)
    return f"Are there exactly {number} {wanted.plural} in this picture?"
