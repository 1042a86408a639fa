"""The numbers: the paper's Table 2 and Table 3, and the strengths."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from sur_core.evaluation import ALL, NOT_EQUAL_NOTE

from .elements import element, table
from .found import Results
from .summary import share


def accuracy_table(main: Results) -> Element:
    """Arms as rows, types as columns, as the paper's Table 2."""
    types = [*main.types, ALL]
    rows = []
    for arm in (entry["name"] for entry in main.data["arms"]):
        cells = [arm, _clip_pair(main, arm)]
        for name in types:
            found, compared = main.accuracy(arm, name), main.comparison(arm, name)
            percent = element("strong", f"{100 * share(found):.2f}")
            cells.append([percent, _change(compared) if compared else None])
        rows.append(cells)
    first = main.accuracy(main.base, types[0])
    note = (
        f"{len(main.prompts)} prompts, {len(main.seeds)} pictures of each from the same noise in all arms: "
        f"{first['pictures']} pictures of {types[0]}. Small: points more than '{main.base}', their "
        f"{100 * main.data['settings']['confidence']:g}% interval by bootstrap over prompts, p of the "
        f"independent t-test as in the paper. {NOT_EQUAL_NOTE}"
    )
    head = ["Arm", "CLIP Score (base, arm)", *(f"{name} (%)" for name in types)]
    return table(head, rows, "Right pictures, in the layout of the paper's Table 2", note)


def strength_table(main: Results, etas: Results) -> Element:
    """Right pictures at every strength, all over the seeds that every strength has."""
    seeds = [seed for seed in etas.seeds if seed in main.seeds]
    arms = {0.0: (main, main.base)}
    arms |= {eta: (etas, name) for eta, name in etas.adapted.items()}
    arms |= {eta: (main, name) for eta, name in main.adapted.items()}
    rows = []
    for eta, (results, arm) in sorted(arms.items()):
        marks = [results.right(arm, name, seeds) for name in (*main.types, ALL)]
        rows.append([f"{eta:g}", *(f"{100 * sum(part) / len(part):.1f}" for part in marks)])
    head = ["Strength eta", *(f"{name} (%)" for name in (*main.types, ALL))]
    note = (
        f"Pictures of each prompt: {len(seeds)}, the same noise in every row. That is coarser than the table "
        "above. Strength 0 is the base model; Eq. 7 mixes in between."
    )
    return table(head, rows, "Right pictures by strength", note)


def quality_table(main: Results) -> Element | None:
    """CLIP Score, cosine and KID, as the paper's Table 3; ``None`` without CLIP."""
    if not main.data["clip_scores"]:
        return None
    has_kid, rows = bool(main.data["kids"]), []
    for arm in (entry["name"] for entry in main.data["arms"]):
        score, compared = main.one("clip_scores", arm=arm, type=ALL), main.comparison(arm, ALL, "cosine")
        p = p_words(compared["independent"]) if compared else "-"
        row = [arm, _clip_pair(main, arm), f"{score['cosine']:.4f}", p]
        rows.append(row + (_kid(main.one("kids", arm=arm)) if has_kid else []))
    head = ["Arm", "CLIP Score (base, arm)", "cosine", "p of the cosine's t-test"]
    note = (
        "CLIP Score: softmax over the small CLIP's logits of two pictures of one prompt and noise, the "
        "base's and the arm's; 0.5 each means no preference. Cosine: of picture and simple prompt. "
    )
    if has_kid:
        head += ["KID", f"KID minus {main.base}"]
        note += (
            f"KID: distance to {main.data['kids'][0]['references']} true pictures of the same wishes, on the "
            "small CLIP's features; less is nearer, and an interval of the difference below zero is an "
            "improvement. "
        )
    return table(head, rows, "Quality, in the layout of the paper's Table 3", note + NOT_EQUAL_NOTE)


def p_words(test: dict) -> str:
    if test["p"] is None:
        return "not defined"
    return "< 0.001" if test["p"] < 0.001 else f"{test['p']:.3f}"


def _change(comparison: dict) -> list[Element]:
    lines = (
        f"{100 * comparison['difference']:+.2f}",
        _bounds(comparison["over_prompts"], 100, "+.1f"),
        f"p {p_words(comparison['independent'])}",
    )
    return [element("small", line) for line in lines]


def _bounds(interval: dict, scale: float, places: str) -> str:
    if interval["low"] is None:
        return "[not defined]"
    return f"[{scale * interval['low']:{places}}, {scale * interval['high']:{places}}]"


def _clip_pair(main: Results, arm: str) -> str:
    score = main.one("clip_scores", arm=arm, type=ALL)
    if score is None or score["share"] is None:
        return "-"
    return f"{score['baseline_share']:.3f}, {score['share']:.3f}"


def _kid(kid: dict) -> list[str]:
    value = f"{kid['value']:.5f} {_bounds(kid['interval'], 1, '.5f')}"
    if kid["difference"] is None:
        return [value, "-"]
    return [value, f"{kid['difference']:+.5f} {_bounds(kid['difference_interval'], 1, '+.5f')}"]
