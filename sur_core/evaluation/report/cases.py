"""Worst and best cases: the prompts with the largest loss and gain."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

import numpy as np

from ...page_elements import element
from ..evaluation import Picture
from ..study import Study
from .changes import RIGHT, Change, direction, leading_measure, prompt_changes, values_of
from .grid import figure
from .pictures import Thumbnails
from .prompts_csv import PROMPTS

MOST_CASES, MOST_SEEDS = 4, 4


def worst_and_best(study: Study) -> tuple[list[Change], list[Change]]:
    """Prompts that lose, largest loss first, and prompts that gain; each prompt once in a list, under the
    model, method and adapter that change it most. Empty without marks and measures.
    """
    measure = leading_measure(study)
    changes = [] if measure is None else prompt_changes(study, measure)
    worst = sorted((change for change in changes if change.gain < 0), key=lambda change: change.gain)
    best = sorted((change for change in changes if change.gain > 0), key=lambda change: -change.gain)
    return _once(worst), _once(best)


def case_parts(study: Study, thumbnails: Thumbnails) -> list[Element]:
    """Both lists with pictures, and how they were chosen."""
    measure = leading_measure(study)
    if measure is None:
        words = "Nobody judged or measured these pictures, so there is no worst and no best."
        return [element("p", words)]
    by = "right pictures" if measure == RIGHT else f"mean {measure}, for there was no judge"
    words = (
        f"The prompts with the largest loss and the largest gain in {by}, each under the model, method and "
        f"adapter where it is largest; up to {MOST_CASES} of each, with the pictures of up to {MOST_SEEDS} "
        "seeds, those that differ most in the case's direction. They are chosen by result: the extremes of "
        f"many comparisons, part of which is chance. {PROMPTS} has all of them."
    )
    worst, best = worst_and_best(study)
    parts = [element("p", words)]
    for title, changes, none in (
        ("Worst cases", worst, "No prompt lost."),
        ("Best cases", best, "No prompt gained."),
    ):
        shown = [_case(study, change, thumbnails) for change in changes]
        parts += [element("h3", title), *(shown or [element("p", none)])]
    return parts


def seeds_of(study: Study, change: Change) -> list[int]:
    """Places of the seeds a case shows, rising."""
    values = values_of(change.cell, change.measure)[:, change.place]
    number = [arm.name for arm in change.cell.evaluation.arms].index(change.arm)
    gains = direction(study, change.measure) * (values[number] - values[0])
    towards = np.nan_to_num(gains * np.sign(change.gain), nan=-np.inf)
    return sorted(np.argsort(-towards, kind="stable")[:MOST_SEEDS].tolist())


def _once(changes: Iterable[Change]) -> list[Change]:
    first: dict[str, Change] = {}
    for change in changes:
        first.setdefault(change.prompt.id, change)
    return list(first.values())[:MOST_CASES]


def _case(study: Study, change: Change, thumbnails: Thumbnails) -> Element:
    cell, prompt = change.cell, change.prompt
    words = f"{prompt.type}, {prompt.id}. {cell.model}, {cell.method}, {change.arm}: {change_words(change)}"
    figures = []
    for at in seeds_of(study, change):
        seed = cell.evaluation.settings.seeds[at]
        names = (cell.evaluation.baseline, change.arm)
        shots = [thumbnails.shot(cell, _picture(change, name, seed), name) for name in names]
        figures.append(figure(f"seed {seed}", shots))
    head = element("h4", element("bdi", prompt.prompt))
    told = element("p", words, class_="note")
    return element("section", head, told, element("div", figures, class_="figures"), class_="prompt")


def change_words(change: Change) -> str:
    """``"right 7 of 10, was 9"``, or the means of a measure."""
    if change.measure == RIGHT:
        base, ours = (round(mean * change.pictures) for mean in (change.baseline, change.ours))
        return f"{ours} of {change.pictures} right, baseline {base}"
    return f"{change.measure} {change.ours:.4f}, baseline {change.baseline:.4f}"


def _picture(change: Change, arm: str, seed: int) -> Picture:
    return next(
        picture
        for picture in change.cell.evaluation.of(arm)
        if (picture.prompt_id, picture.seed) == (change.prompt.id, seed)
    )
