"""Pictures by prompt: the baseline's beside every adapter's, from the same noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from xml.etree.ElementTree import Element

from ...page_elements import element
from ..prompt_sets import EvalPrompt
from ..study import Cell, Study
from .pictures import Thumbnails

MOST_PICTURES = 180
"""In all grids together, unless one prompt under one model and method has more."""
PROMPTS_PER_TYPE = 3


@dataclass(frozen=True)
class Shown:
    """What the grids show: a rule that looks at no result."""

    prompts: tuple[EvalPrompt, ...]
    cells: tuple[Cell, ...]
    seed: int


def chosen(study: Study) -> Shown:
    """The first prompts of each type in turn, the first seed, all cells; fewer while they are too many."""
    first = study.cells[0].evaluation
    cells, pictures = [], 0
    for cell in study.cells:
        pictures += len(cell.evaluation.arms)
        if cells and pictures > MOST_PICTURES:
            break
        cells.append(cell)
    a_prompt = sum(len(cell.evaluation.arms) for cell in cells)
    by_type = [[p for p in first.prompts if p.type == name][:PROMPTS_PER_TYPE] for name in first.types]
    in_turn = [prompt for prompt in chain(*zip_longest(*by_type)) if prompt]
    taken = in_turn[: max(1, MOST_PICTURES // a_prompt)]
    ordered = tuple(prompt for prompt in first.prompts if prompt in taken)
    return Shown(ordered, tuple(cells), first.settings.seeds[0])


def picture_grids(study: Study, thumbnails: Thumbnails) -> list[Element]:
    """The rule in words, then a part for each prompt."""
    shown = chosen(study)
    return [_rule(study, shown), *(_of_prompt(shown, prompt, thumbnails) for prompt in shown.prompts)]


def _rule(study: Study, shown: Shown) -> Element:
    found = study.cells[0].evaluation
    pictures = sum(len(cell.evaluation.pictures) for cell in study.cells)
    count = len(shown.prompts) * sum(len(cell.evaluation.arms) for cell in shown.cells)
    words = (
        f"Shown are {count:,} of {pictures:,} pictures: of {len(shown.prompts)} of {len(found.prompts)} "
        f"prompts, at most {PROMPTS_PER_TYPE} of each type, the first in the order of the prompt set, with "
        f"the first seed, {shown.seed}; never chosen by result. "
    )
    if len(shown.cells) < len(study.cells):
        words += f"Only the first {len(shown.cells)} of {len(study.cells)} models and methods are shown. "
    words += "The pictures are small copies; the study's folder has them whole. "
    if study.accuracies:
        words += "Marks are the judge's."
    return element("p", words.strip())


def _of_prompt(shown: Shown, prompt: EvalPrompt, thumbnails: Thumbnails) -> Element:
    head = element("h3", element("bdi", prompt.prompt), " ", element("small", f"{prompt.type}, {prompt.id}"))
    figures = []
    for cell in shown.cells:
        pictures = [
            picture
            for picture in cell.evaluation.pictures
            if (picture.prompt_id, picture.seed) == (prompt.id, shown.seed)
        ]
        shots = [thumbnails.shot(cell, picture, picture.arm) for picture in pictures]
        figures.append(figure(f"{cell.model}, {cell.method}", shots))
    return element("section", head, element("div", figures, class_="figures"), class_="prompt")


def figure(caption: str, shots: Sequence[Element]) -> Element:
    """Pictures side by side under one caption."""
    return element(
        "figure", element("figcaption", caption), element("div", shots, class_="shots"), class_="cell"
    )
