"""The judge of SURD-Shapes: exact marks for every type, from pixels alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from sur_core.evaluation.judges import Verdict
from sur_core.evaluation.prompt_sets import EvalPrompt

from .reading import Found, Reading, read_scene
from .scenes import COLORS, COUNTS, KINDS, POSES, Action, Color, Counting, Meaning, canonical, from_truth

__all__ = ["Found", "Reading", "WorldJudge", "make_judge", "read_scene"]


class WorldJudge:
    """Marks a picture right only if it is a valid scene that shows the prompt's truth in every property.

    A prompt's truth is what ``scenes.to_truth`` gives. The details of a verdict say ``true`` or ``false`` of
    each property, as far as objects could be told; a picture can have every property and be no valid scene.
    """

    name = "SURD-Shapes"

    def check(self, prompts: Iterable[EvalPrompt]) -> None:
        """``ValueError`` that names the prompt whose truth is no meaning of the world."""
        for prompt in prompts:
            _truth(prompt)

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        """Judge one picture, uint8 [64, 64, 3]. ``ValueError`` for another size or a truth that is none."""
        truth = _truth(prompt)
        reading = read_scene(pixels)
        details = _properties(truth, reading.objects)
        if reading.meaning is None:
            return Verdict(False, f"no valid scene: {reading.why}", details)
        if canonical(truth) == reading.meaning:
            return Verdict(True, "", details)
        return Verdict(False, f"{_words(reading.meaning)} instead of {_words(truth)}", details)


def make_judge() -> WorldJudge:
    return WorldJudge()


def _truth(prompt: EvalPrompt) -> Meaning:
    try:
        if not isinstance(prompt.truth, dict):
            raise ValueError(f"the truth should be a table such as to_truth gives, found {prompt.truth!r}")
        truth = from_truth(prompt.truth)
        _check(truth)
    except ValueError as error:
        raise ValueError(f"prompt {prompt.id!r}: {error}") from None
    return truth


def _check(truth: Meaning) -> None:
    """``ValueError`` for values that no scene can have: no picture would ever be right."""
    known = {"count": COUNTS, "pose": POSES}
    for name, value in vars(truth).items():
        allowed = known.get(name) or (tuple(COLORS) if name.endswith("color") else KINDS)
        if value not in allowed or isinstance(value, bool):
            raise ValueError(f"{name} should be one of {', '.join(map(str, allowed))}; found {value!r}")
    if isinstance(truth, Color) and (truth.kind == truth.other_kind or truth.color == truth.other_color):
        raise ValueError("the two objects should be of different kinds and of different colors")


def _properties(truth: Meaning, objects: tuple[Found, ...]) -> dict[str, bool]:
    """Which properties of the truth the objects found have, each by itself."""
    kinds, colors = [found.kind for found in objects], [found.color for found in objects]
    if isinstance(truth, Counting):
        return {
            "count": len(objects) == truth.count,
            "kind": bool(kinds) and set(kinds) == {truth.kind},
            "color": bool(colors) and set(colors) == {truth.color},
        }
    if isinstance(truth, Action):
        return {"pose": kinds == [truth.pose], "color": colors == [truth.color]}
    pairs = Counter([(truth.kind, truth.color), (truth.other_kind, truth.other_color)])
    return {
        "kinds": Counter(kinds) == Counter([truth.kind, truth.other_kind]),
        "colors": Counter(colors) == Counter([truth.color, truth.other_color]),
        "binding": Counter(zip(kinds, colors, strict=True)) == pairs,
    }


def _words(meaning: Meaning) -> str:
    if isinstance(meaning, Counting):
        return f"{meaning.count} {meaning.color} {meaning.kind}"
    if isinstance(meaning, Color):
        return f"{meaning.color} {meaning.kind} and {meaning.other_color} {meaning.other_kind}"
    return f"{meaning.color} figure {meaning.pose}"
