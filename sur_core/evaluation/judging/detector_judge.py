"""A judge that counts and looks at colors through a detector."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..judges import Verdict
from ..prompt_sets import EvalPrompt, PromptSetError
from .colors import NAMES, color_shares, share_of
from .detections import Detection, Detector, object_pixels, without_doubles
from .models import NOT_COMPARABLE, RULES
from .truth import Truth, Wanted, read_truth


@dataclass(frozen=True)
class DetectorRules:
    """When something counts as seen.

    Attributes:
        threshold: scores above it count; ``None`` takes the detector's usual one.
        overlap: of two that cover each other by more than this (intersection over union), only the better
            one counts.
        color_share: so much of a thing's pixels must have the color that is wanted; of several wanted colors
            each so much divided by their number.
        inner_box: what is counted for color where there is only a box: its middle, this share of its width
            and height.
        classes: what the detector is asked for instead of a name of the truth: one label or several, any of
            which will do.
    """

    threshold: float | None = None
    overlap: float = 0.5
    color_share: float = 0.3
    inner_box: float = 0.7
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def labels_of(self, name: str) -> tuple[str, ...]:
        return tuple(self.classes.get(name, (name,)))


class DetectorJudge:
    """Marks a picture right if the things of its prompt's truth are seen, in number and color.

    For each name of the truth, what the detector sees of its labels above the threshold is taken, without
    doubles. The picture is right if, for every name,

    1. each thing wanted finds one seen for itself alone that has all its colors, where ``count`` stands for
       so many things wanted;
    2. if all wanted of that name have a count, nothing more of it is seen.

    A thing seen has a color if enough of its pixels have it: those of its mask, or of the middle of its box
    (:class:`DetectorRules`). Which color a pixel has is written in :mod:`.colors`.

    A verdict's details say for each name what was seen: label, score, box, and for names with wanted colors
    the share of every color above one percent. Truths with an action cannot be judged: a detector sees none.
    """

    note = NOT_COMPARABLE

    def __init__(self, detector: Detector, rules: DetectorRules | None = None):
        self._detector, self._rules = detector, rules or DetectorRules()
        threshold = self._rules.threshold
        self._threshold = detector.usual_threshold if threshold is None else threshold
        self.name = f"detector {detector.name}"
        self.about: dict[str, Any] = {
            "model": detector.name,
            "identity": getattr(detector, "identity", ""),
            "dtype": getattr(detector, "dtype", ""),
            "device": getattr(getattr(detector, "device", None), "type", ""),
            "batch_size": getattr(detector, "batch_size", 0),
            "rules": RULES,
            "threshold": self._threshold,
            "overlap": self._rules.overlap,
            "color_share": self._rules.color_share,
            "inner_box": self._rules.inner_box,
            "classes": {name: list(labels) for name, labels in self._rules.classes.items()},
        }
        """All that a mark depends on besides the picture and the prompt, JSON values."""

    def check(self, prompts: Iterable[EvalPrompt]) -> None:
        """PromptSetError that names the prompt which this judge cannot judge, or whose class is unknown."""
        for prompt in prompts:
            self._truth(prompt)

    def mark(self, pixels: np.ndarray, prompt: EvalPrompt) -> Verdict:
        """Judge one picture, uint8 [H, W, 3]."""
        return self.mark_many([(pixels, prompt)])[0]

    def mark_many(self, pairs: Sequence[tuple[np.ndarray, EvalPrompt]]) -> list[Verdict]:
        """A verdict for each picture and prompt. Pictures of one size and one truth's names go together."""
        truths = [self._truth(prompt) for _, prompt in pairs]
        groups: dict[tuple, list[int]] = {}
        for at, ((pixels, _), truth) in enumerate(zip(pairs, truths, strict=True)):
            groups.setdefault((pixels.shape, self._labels(truth)), []).append(at)
        verdicts: dict[int, Verdict] = {}
        for (_, labels), places in groups.items():
            seen = self._detector.detect([pairs[at][0] for at in places], labels, self._threshold)
            for at, found in zip(places, seen, strict=True):
                verdicts[at] = self._verdict(pairs[at][0], truths[at], found)
        return [verdicts[at] for at in range(len(pairs))]

    def _truth(self, prompt: EvalPrompt) -> Truth:
        truth = read_truth(prompt)
        where = f"prompt {prompt.id!r} of type {prompt.type!r}"
        if truth.action or not truth.objects:
            what = "has an action" if truth.action else "names no objects"
            raise PromptSetError(
                f"{where}: its truth {what}, which a detector cannot see. Let a question judge (vlm) mark "
                "this type"
            )
        known = self._detector.labels
        for label in self._labels(truth):
            if known is not None and label not in known:
                near = difflib.get_close_matches(label, known, n=3, cutoff=0.5) or list(known[:5])
                raise PromptSetError(
                    f"{where}: {self._detector.name} knows no {label!r}. Say in the judge's classes which of "
                    f"its {len(known)} labels stand for it, such as {', '.join(near)}; or take a detector "
                    "that can be asked for words (OWLv2, Grounding DINO)"
                )
        return truth

    def _labels(self, truth: Truth) -> tuple[str, ...]:
        names = dict.fromkeys(wanted.name for wanted in truth.objects)
        return tuple(dict.fromkeys(label for name in names for label in self._rules.labels_of(name)))

    def _verdict(self, pixels: np.ndarray, truth: Truth, found: Sequence[Detection]) -> Verdict:
        problems, details = [], {}
        for name in dict.fromkeys(wanted.name for wanted in truth.objects):
            labels = self._rules.labels_of(name)
            seen = without_doubles([one for one in found if one.label in labels], self._rules.overlap)
            wanted = [one for one in truth.objects if one.name == name]
            shares = [_shares(object_pixels(pixels, one, self._rules.inner_box)) for one in seen]
            problems += self._problem(wanted, shares)
            details[name] = [one.words() for one in seen]
            if any(one.colors for one in wanted):
                for words, share in zip(details[name], shares, strict=True):
                    words["colors"] = {color: round(part, 3) for color, part in share.items() if part > 0.01}
        return Verdict(not problems, "; ".join(problems), {"seen": details})

    def _problem(self, wanted: list[Wanted], shares: list[dict[str, float]]) -> list[str]:
        """What is wrong with the things seen of one name, in words; nothing if nothing is."""
        slots = [one for one in wanted for _ in range(max(1, one.count))]
        exact = all(one.count for one in wanted)
        if len(shares) < len(slots) or exact and len(shares) > len(slots):
            plenty = "" if exact or len(slots) == 1 else " or more"
            words = wanted[0].name if len(shares) == 1 else wanted[0].plural
            return [f"{len(shares) or 'no'} {words} instead of {len(slots)}{plenty}"]
        fits = np.array([[self._has_colors(one.colors, share) for share in shares] for one in slots])
        if _pairs(fits) == len(slots):
            return []
        asked = " and ".join(dict.fromkeys("-".join(one.colors) for one in wanted if one.colors))
        return [f"not enough {asked} on the {wanted[0].name if len(slots) == 1 else wanted[0].plural}"]

    def _has_colors(self, colors: tuple[str, ...], shares: dict[str, float]) -> bool:
        needed = self._rules.color_share / max(1, len(colors))
        return all(share_of(color, shares) >= needed for color in colors)


def _shares(pixels: np.ndarray) -> dict[str, float]:
    return color_shares(pixels) if len(pixels) else dict.fromkeys(NAMES, 0.0)


def _pairs(fits: np.ndarray) -> int:
    """How many rows of a bool matrix can have a column of their own in which they are true."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(fits, maximize=True)
    return int(fits[rows, columns].sum())
