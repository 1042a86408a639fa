"""The numbers: the paper's Table 2 and Table 3, and the strengths."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from sur_core.evaluation import ALL, NOT_EQUAL_NOTE, Comparison, Evaluation
from sur_core.evaluation.tables import (
    ABSENT,
    INDEPENDENT_NOTE,
    clip_pair,
    interval_words,
    kid_cells,
    kid_note,
    p_words,
    percent,
)
from sur_core.page_elements import element, table

from .found import adapted_arms, compared, share_right

CLIP_HEAD = "CLIP Score (base, arm)"


def accuracy_table(main: Evaluation) -> Element:
    """Arms as rows, types as columns, as the paper's Table 2."""
    types, rows = (*main.types, ALL), []
    for arm in (arm.name for arm in main.arms):
        cells = [arm, clip_pair(main.clip_score(arm) if main.clip_scores else None)]
        for name in types:
            change = compared(main, arm, name)
            share = element("strong", percent(main.accuracy(arm, name).share))
            cells.append([share, change and _change(change)])
        rows.append(cells)
    first = main.accuracies[0]
    note = (
        f"{len(main.prompts)} prompts, {len(main.settings.seeds)} pictures of each from the same noise in "
        f"all arms: {first.pictures} pictures of {first.type}. Small: points more than '{main.baseline}', "
        f"their {100 * main.settings.confidence:g}% interval by bootstrap over prompts, p of the independent "
        f"t-test as in the paper. {INDEPENDENT_NOTE} {NOT_EQUAL_NOTE}"
    )
    head = ["Arm", CLIP_HEAD, *(f"{name} (%)" for name in types)]
    return table(head, rows, "Right pictures, in the layout of the paper's Table 2", note)


def strength_table(main: Evaluation, etas: Evaluation) -> Element:
    """Right pictures at every strength, all over the seeds that every strength has."""
    seeds = [seed for seed in etas.settings.seeds if seed in main.settings.seeds]
    arms = {0.0: (main, main.baseline)}
    arms |= {eta: (found, name) for found in (etas, main) for eta, name in adapted_arms(found).items()}
    types, rows = (*main.types, ALL), []
    for eta, (found, arm) in sorted(arms.items()):
        rows.append([f"{eta:g}", *(f"{100 * share_right(found, arm, name, seeds):.1f}" for name in types)])
    head = ["Strength eta", *(f"{name} (%)" for name in types)]
    note = (
        f"Pictures of each prompt: {len(seeds)}, the same noise in every row. That is coarser than the table "
        "above. Strength 0 is the base model; Eq. 7 mixes in between."
    )
    return table(head, rows, "Right pictures by strength", note)


def quality_table(main: Evaluation) -> Element | None:
    """CLIP Score, cosine and KID, as the paper's Table 3; ``None`` without CLIP."""
    if not main.clip_scores:
        return None
    rows = []
    for arm in (arm.name for arm in main.arms):
        score, change = main.clip_score(arm), compared(main, arm, ALL, "cosine")
        p = p_words(change.independent.p) if change else ABSENT
        row = [arm, clip_pair(score), f"{score.cosine:.4f}", p]
        rows.append(row + (kid_cells(main.kid(arm)) if main.kids else []))
    head = ["Arm", CLIP_HEAD, "cosine", "p of the cosine's t-test"]
    note = (
        "CLIP Score: softmax over the small CLIP's logits of two pictures of one prompt and noise, the "
        "base's and the arm's; 0.5 each means no preference. Cosine: of picture and simple prompt, with the "
        f"p of the independent t-test as in the paper. {INDEPENDENT_NOTE} "
    )
    if main.kids:
        head += ["KID", f"KID minus {main.baseline}"]
        note += (
            f"{kid_note(main.kids[0])} The references are true pictures of the same wishes. An interval of "
            "the difference below zero is an improvement. "
        )
    return table(head, rows, "Quality, in the layout of the paper's Table 3", note + NOT_EQUAL_NOTE)


def _change(comparison: Comparison) -> list[Element]:
    lines = (
        f"{100 * comparison.difference:+.2f}",
        interval_words(comparison.over_prompts, "+.1f", 100),
        f"p {p_words(comparison.independent.p)}",
    )
    return [element("small", line) for line in lines]
