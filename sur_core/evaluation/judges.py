"""Judges: who says whether a picture shows what was asked."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .prompt_sets import EvalPrompt


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one picture.

    Attributes:
        right: whether the picture shows what the prompt asks for.
        why: one short sentence or word for people, such as ``"4 apples instead of 3"``.
        details: anything else worth keeping, JSON values only.
    """

    right: bool
    why: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class Judge(Protocol):
    """Marks pictures. A mark may depend on nothing but its arguments.

    A judge may also have

    - ``check(prompts)``, called with all prompts before anything is drawn; it raises ``ValueError`` for a
      type it does not know or a truth it cannot read;
    - ``mark_many(pairs)``, a verdict for each (pixels, prompt), if many at once are faster than one by one;
    - ``note``, a sentence that reports print beside its marks;
    - ``about``, JSON values: all that its marks depend on besides their arguments.
    """

    name: str

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        """Judge one picture, uint8 [H, W, 3], drawn for ``prompt``."""


def load_judge(place: str) -> Judge:
    """The judge that ``"module:callable"`` returns when called without arguments.

    Raises:
        ValueError: it cannot be imported, or what it returns is no judge.
    """
    module_name, colon, callable_name = place.partition(":")
    if not (module_name and colon and callable_name):
        raise ValueError(f"judge {place!r}: expected module:callable, such as small_world.judge:make_judge")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(
            f"judge {place!r}: {module_name} cannot be imported ({error}). It must be installed, or lie in "
            "the folder the command is started in"
        ) from error
    make = getattr(module, callable_name, None)
    if not callable(make):
        raise ValueError(f"judge {place!r}: {module_name} has no callable {callable_name}")
    try:
        judge = make()
    except TypeError as error:
        raise ValueError(f"judge {place!r}: could not be called without arguments ({error})") from error
    return check_judge(judge, place)


def check_judge(judge: Judge, place: str = "") -> Judge:
    """The same judge; ValueError if it lacks a name or ``mark``."""
    if not isinstance(getattr(judge, "name", None), str) or not callable(getattr(judge, "mark", None)):
        raise ValueError(
            f"judge {place or type(judge).__name__!r}: expected an object with a name and "
            f"mark(pixels, prompt), found {type(judge).__name__}"
        )
    return judge


def ask(judge: Judge, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
    """A checked verdict. ValueError if the judge returns something else, or details that are no JSON."""
    return _checked(judge, judge.mark(pixels, prompt), prompt)


def ask_many(judge: Judge, pairs: Sequence[tuple[np.ndarray, EvalPrompt]]) -> list[Verdict]:
    """A checked verdict for each (pixels, prompt), through the judge's ``mark_many`` where it has one.
    ValueError as :func:`ask`, or if there are more verdicts or fewer.
    """
    if not hasattr(judge, "mark_many"):
        return [ask(judge, pixels, prompt) for pixels, prompt in pairs]
    verdicts = list(judge.mark_many(pairs)) if pairs else []
    if len(verdicts) != len(pairs):
        raise ValueError(f"judge {judge.name!r} returned {len(verdicts)} verdicts for {len(pairs)} pictures")
    return [_checked(judge, mark, prompt) for mark, (_, prompt) in zip(verdicts, pairs, strict=True)]


def _checked(judge: Judge, verdict: Any, prompt: EvalPrompt) -> Verdict:
    if not isinstance(verdict, Verdict) or not isinstance(verdict.right, bool | np.bool_):
        raise ValueError(f"judge {judge.name!r} returned {verdict!r} for prompt {prompt.id!r}; not a Verdict")
    details = dict(verdict.details)
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"judge {judge.name!r}: details of prompt {prompt.id!r} are no JSON values ({error})"
        ) from error
    return Verdict(bool(verdict.right), str(verdict.why), details)
