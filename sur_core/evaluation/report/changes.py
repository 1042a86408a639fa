"""What an adapter changes prompt by prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..prompt_sets import EvalPrompt
from ..study import CLIP_SCORE, Cell, Study

RIGHT = "right"
"""Stands where a measure's name does: the judge's marks, 1 for right."""


@dataclass(frozen=True)
class Change:
    """One prompt under one model, method and adapter, by the marks or by a measure.

    Attributes:
        pictures: pairs for which the measure is defined in both arms.
        baseline, ours: means over these.
        gain: how much better ours is, whatever the measure's direction.
        place: of the prompt among the evaluation's.
    """

    cell: Cell
    arm: str
    prompt: EvalPrompt
    measure: str
    pictures: int
    baseline: float
    ours: float
    gain: float
    place: int


def values_of(cell: Cell, measure: str) -> np.ndarray:
    """A number a picture, float64 [arms, prompts, seeds]; NaN where it is not defined."""
    found = cell.evaluation
    if measure == RIGHT:
        values = [float(picture.verdict.right) for picture in found.pictures]
    else:
        values = cell.scores[measure]
    return np.asarray(values, np.float64).reshape(len(found.arms), len(found.prompts), -1)


def direction(study: Study, measure: str) -> int:
    """1 if higher is better, -1 if lower is."""
    return 1 if measure == RIGHT or _info(study, measure).higher_is_better else -1


def prompt_changes(study: Study, measure: str) -> list[Change]:
    """Of every cell, adapter and prompt; without those of which no pair is defined."""
    sign, changes = direction(study, measure), []
    for cell in study.cells:
        values = values_of(cell, measure)
        for number, arm in enumerate(cell.arms, start=1):
            for place, prompt in enumerate(cell.evaluation.prompts):
                base, ours = values[0, place], values[number, place]
                defined = np.isfinite(base) & np.isfinite(ours)
                if defined.any():
                    means = float(base[defined].mean()), float(ours[defined].mean())
                    gain = sign * (means[1] - means[0])
                    about = cell, arm.name, prompt, measure, int(defined.sum())
                    changes.append(Change(*about, *means, gain, place))
    return changes


def leading_measure(study: Study) -> str | None:
    """Worst and best are chosen by it: the marks; otherwise the first measure of pictures by themselves."""
    if study.accuracies:
        return RIGHT
    names = [measure.name for measure in study.measures]
    return next((name for name in names if name != CLIP_SCORE), names[0] if names else None)


def _info(study: Study, name: str):
    return next(measure for measure in study.measures if measure.name == name)
