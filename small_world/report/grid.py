"""Pictures: prompt by strength, drawn from the same noise, each with the judge's mark."""

from __future__ import annotations

import base64
from xml.etree.ElementTree import Element

from ..dataset import unseen_words
from .elements import element, wide
from .found import Results

PROMPTS_PER_TYPE = 4


def picture_grid(main: Results, etas: Results) -> list[Element]:
    """A table for each type. Which prompts and which noise is a rule that looks at no result."""
    columns = [("base, strength 0", main, main.base)]
    steps = {eta: (etas, arm) for eta, arm in etas.adapted.items()}
    steps |= {eta: (main, arm) for eta, arm in main.adapted.items()}
    columns += [(f"strength {eta:g}", results, arm) for eta, (results, arm) in sorted(steps.items())]
    if main.complex:
        columns.append((main.complex, main, main.complex))
    seed = next(seed for seed in main.seeds if seed in etas.seeds)
    return [_rule(seed), *(_type_table(name, main, columns, seed) for name in main.types)]


def _rule(seed: int) -> Element:
    return element(
        "p",
        f"Shown are the first {PROMPTS_PER_TYPE} prompts of each type in the order of the prompt file, drawn "
        f"from noise {seed}, the first one; never chosen by result. A tick is the judge's, who reads pixels "
        "and compares with the truth; a cross has its reason in the picture's description. Underlined words "
        "stand in no training prompt.",
    )


def _type_table(name: str, main: Results, columns: list, seed: int) -> Element:
    caption = f"Pictures of type {name}"
    head = element("tr", [element("th", title, scope="col") for title, _, _ in columns])
    bodies = []
    for prompt in [prompt for prompt in main.prompts if prompt.type == name][:PROMPTS_PER_TYPE]:
        said = element("th", _marked(prompt.prompt), colspan=len(columns), scope="rowgroup")
        cells = [_cell(results, arm, title, prompt, seed) for title, results, arm in columns]
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


def _cell(results: Results, arm: str, title: str, prompt, seed: int) -> Element:
    picture = results.picture(arm, prompt.id, seed)
    verdict = picture["verdict"]
    text = "right" if verdict["right"] else f"wrong: {verdict['why']}"
    content = base64.b64encode((results.folder / picture["path"]).read_bytes()).decode()
    image = element(
        "img",
        src=f"data:image/png;base64,{content}",
        alt=f"{title}: {text}",
        title=text,
        width=64,
        height=64,
    )
    mark = element(
        "span", "✓ right" if verdict["right"] else "✗ wrong", class_="yes" if verdict["right"] else "no"
    )
    why = None if verdict["right"] else element("small", verdict["why"], class_="why")
    return element("td", image, mark, why)
