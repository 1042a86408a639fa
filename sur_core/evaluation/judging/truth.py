"""The truth beside a prompt, as the detector and question judges read it.

A JSON object (or TOML table) with these keys, all of which may be left out if another one is there::

    objects    what must be seen, a list of
                 name     one of it, in words: "sports car"
                 plural   of the name, where "s" or "es" behind it is wrong: "people"
                 count    exactly so many of it
                 colors   all of these on each of it: ["red"]
    subject    who does something: "a chef"            (with action)
    action     what is done: "tossing a pizza dough"   (with subject)
    questions  for a model that answers yes or no, instead of those made from the rest; yes to all is right

Two objects of one name are two different ones: ``[{name = "person", colors = ["blue"]}, {name = "person",
colors = ["yellow"]}]`` asks for two people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..prompt_sets import EvalPrompt, PromptSetError
from .colors import COLORS

_KEYS = ("objects", "subject", "action", "questions")
_OBJECT_KEYS = ("name", "plural", "count", "colors")
_HISSING = ("s", "x", "z", "ch", "sh")


@dataclass(frozen=True)
class Wanted:
    """What must be seen. ``count`` 0 where any number from 1 will do."""

    name: str
    plural: str
    count: int = 0
    colors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Truth:
    """What a picture must show; empty where nothing was said."""

    objects: tuple[Wanted, ...] = ()
    subject: str = ""
    action: str = ""
    questions: tuple[str, ...] = ()


def read_truth(prompt: EvalPrompt) -> Truth:
    """The truth of a prompt.

    Raises:
        PromptSetError: there is none, or it is not as this module describes; the message names the prompt.
    """
    try:
        return _truth(prompt.truth)
    except PromptSetError as error:
        raise PromptSetError(f"prompt {prompt.id!r}: {error}") from None


def _truth(given: Any) -> Truth:
    if not isinstance(given, Mapping) or not given:
        raise PromptSetError(
            f"the truth should be a table with {', '.join(_KEYS)}, found {given!r}. A judge needs "
            'it, such as {"objects": [{"name": "pie", "count": 4}]}'
        )
    _known_keys(given, _KEYS, "the truth")
    if bool(given.get("subject")) != bool(given.get("action")):
        raise PromptSetError("the truth has only one of subject and action; give both or neither")
    for key in ("objects", "questions"):
        if not isinstance(given.get(key, []), list):
            raise PromptSetError(f"{key} should be a list, found {given[key]!r}")
    return Truth(
        objects=tuple(_wanted(entry) for entry in given.get("objects", [])),
        subject=_text(given["subject"], "subject") if "subject" in given else "",
        action=_text(given["action"], "action") if "action" in given else "",
        questions=tuple(_text(question, "a question") for question in given.get("questions", [])),
    )


def _wanted(entry: Any) -> Wanted:
    if not isinstance(entry, Mapping):
        raise PromptSetError(f"an object should be a table with {', '.join(_OBJECT_KEYS)}, found {entry!r}")
    _known_keys(entry, _OBJECT_KEYS, "an object")
    name = _text(entry.get("name"), "an object's name")
    count, colors = entry.get("count"), entry.get("colors", [])
    whole = isinstance(count, int) and not isinstance(count, bool) and count >= 1
    if count is not None and not whole:
        raise PromptSetError(f"the count of {name!r} should be a whole number from 1, found {count!r}")
    if not isinstance(colors, list) or not all(isinstance(color, str) for color in colors):
        raise PromptSetError(f"the colors of {name!r} should be a list of words, found {colors!r}")
    if unknown := [color for color in colors if color not in COLORS]:
        raise PromptSetError(
            f"{name!r} has the color {unknown[0]!r}, which is unknown; known are {', '.join(COLORS)}"
        )
    plural = _text(entry["plural"], f"the plural of {name!r}") if "plural" in entry else _plural(name)
    return Wanted(name, plural, count or 0, tuple(colors))


def _known_keys(table: Mapping, keys: tuple[str, ...], what: str) -> None:
    if unknown := [key for key in table if key not in keys]:
        raise PromptSetError(f"{what} has the unknown key {unknown[0]!r}; known are {', '.join(keys)}")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PromptSetError(f"{what} should be a text that is not empty, found {value!r}")
    return value


def _plural(name: str) -> str:
    return name + ("es" if name.endswith(_HISSING) else "s")
