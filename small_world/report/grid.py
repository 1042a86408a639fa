"""Pictures: prompt by strength, drawn from the same noise, each with the judge's mark."""

from __future__ import annotations

import base64
from xml.etree.ElementTree import Element

from sur_core.evaluation import Evaluation
from sur_core.page_elements import element, wide

from ..dataset import unseen_words
from .found import adapted_arms, complex_arm, picture_of

PROMPTS_PER_TYPE = 4


def picture_grid(main: Evaluation, etas: Evaluation) -> list[Element]:
    """A table for each type. Which prompts and which noise is a rule that looks at no result."""
    columns = [("base, strength 0", main, main.baseline)]
    steps = {eta: (found, arm) for found in (etas, main) for eta, arm in adapted_arms(found).items()}
    columns += [(f"strength {eta:g}", found, arm) for eta, (found, arm) in sorted(steps.items())]
    if best := complex_arm(main):
        columns.append((best, main, best))
    seed = next(seed for seed in main.settings.seeds if seed in etas.settings.seeds)
    return [_rule(seed), *(_type_table(name, main, columns, seed) for name in main.types)]


def _rule(seed: int) -> Element:
    return element(
        "p",
        f"Shown are the first {PROMPTS_PER_TYPE} prompts of each type in the order of the prompt file, drawn "
        f"from noise {seed}, the first one; never chosen by result. A tick is the judge's, who reads pixels "
        "and compares with the truth; a cross has its reason in the picture's description. Underlined words "
        "stand in no training prompt.",
    )


def _type_table(name: str, main: Evaluation, columns: list, seed: int) -> Element:
    caption = f"Pictures of type {name}"
    head = element("tr", [element("th", title, scope="col") for title, _, _ in columns])
    bodies = []
    for prompt in [prompt for prompt in main.prompts if prompt.type == name][:PROMPTS_PER_TYPE]:
        said = element("th", _marked(prompt.prompt), colspan=len(columns), scope="rowgroup")
        cells = [_cell(found, arm, title, prompt, seed) for title, found, arm in columns]
        bodies.append(element("tbody", element("tr", said), element("tr", cells)))
    made = element("table", element("caption", caption), element("thead", head), bodies, class_="grid")
    return wide(made, caption)


def _marked(text: str) -> list:
    """The prompt with its unseen words underlined."""
    parts, rest = [], text
    for word in unseen_words(text):
        before, _, rest = rest.partition(word)
        parts += [before, element("u", word)]
    return [*parts, rest]


def _cell(found: Evaluation, arm: str, title: str, prompt, seed: int) -> Element:
    picture = picture_of(found, arm, prompt.id, seed)
    verdict = picture.verdict
    text = "right" if verdict.right else f"wrong: {verdict.why}"
    content = base64.b64encode(found.file(picture).read_bytes()).decode()
    image = element(
        "img",
        src=f"data:image/png;base64,{content}",
        alt=f"{title}: {text}",
        title=text,
        width=64,
        height=64,
    )
    mark = element("span", "✓ right" if verdict.right else "✗ wrong", class_="yes" if verdict.right else "no")
    why = None if verdict.right else element("small", verdict.why, class_="why")
    return element("td", image, mark, why)
