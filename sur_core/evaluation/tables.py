"""Tables for people, in Markdown: the layouts of the paper's Table 2 and Table 3, and every statistic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .evaluation import ClipScore, Evaluation
from .kid import KID
from .statistics import ALL, FEW_PROMPTS_NOTE, NOT_EQUAL_NOTE, Comparison, Interval

UNDEFINED = "not defined"
ABSENT = "-"
INDEPENDENT_NOTE = (
    "The independent t-test knows nothing of prompts, which both arms share. Where prompts differ in "
    "difficulty its p is usually too large, and real differences are missed; where the arm helps some "
    "prompts and harms others, pictures of one prompt go together, and p can be too small. The interval and "
    "the paired test over prompts are what to rely on."
)
"""Stands wherever the p of the paper's t-test is printed."""
OVER_PICTURES_NOTE = (
    "The interval and the paired t-test over prompts are the ones to rely on. The others take pictures of "
    "one prompt for independent: the independent t-test and Welch's miss differences where prompts differ in "
    "difficulty, and those of pairs find too many where an arm helps some prompts and harms others. "
    f"{FEW_PROMPTS_NOTE}"
)


def all_tables(evaluation: Evaluation) -> str:
    """The content of tables.md."""
    parts = ["# Evaluation", _about(evaluation)]
    if evaluation.accuracies:
        parts += ["## Right pictures", accuracy_table(evaluation)]
    if evaluation.clip_scores:
        parts += ["## CLIP and quality", quality_table(evaluation)]
    for measure, title in (("right", "right pictures"), ("cosine", "CLIP's cosine")):
        if any(comparison.measure == measure for comparison in evaluation.comparisons):
            parts += [f"## Statistics: {title}", statistics_table(evaluation, measure)]
    return "\n\n".join(parts) + "\n"


def accuracy_table(evaluation: Evaluation) -> str:
    """Right pictures in percent, as the paper's Table 2: an arm a row, a type a column.

    Beside each arm's share stand the difference to the baseline in points, its interval, and the p of the
    paper's independent t-test.
    """
    types = (*evaluation.types, ALL)
    rows = [["Arm", CLIP_HEAD, *(f"{name} (%)" for name in types)]]
    for arm in evaluation.arms:
        row = [arm.name, clip_pair(evaluation.clip_score(arm.name) if evaluation.clip_scores else None)]
        for name in types:
            cell = percent(evaluation.accuracy(arm.name, name).share)
            if arm.name != evaluation.baseline:
                cell += " " + _change(evaluation.comparison(arm.name, name))
            row.append(cell)
        rows.append(row)
    first = evaluation.accuracies[0]
    confidence = f"{100 * evaluation.settings.confidence:g}%"
    note = (
        f"{len(evaluation.prompts)} prompts, {len(evaluation.settings.seeds)} pictures each from the same "
        f"seeds in all arms ({first.pictures} pictures of {first.type}). In brackets: points more than "
        f"'{evaluation.baseline}', [{confidence} interval by bootstrap over prompts], p of the paper's "
        f"independent t-test. {INDEPENDENT_NOTE} {NOT_EQUAL_NOTE}"
    )
    return f"{markdown(rows)}\n\n{note}"


def quality_table(evaluation: Evaluation) -> str:
    """CLIP Score, cosine and KID, as the paper's Table 3: an arm a row."""
    has_kid = bool(evaluation.kids)
    kid_heads = ["KID", f"KID minus {evaluation.baseline}"] if has_kid else []
    rows = [["Arm", CLIP_HEAD, "cosine", "t-test p of cosine", *kid_heads]]
    for arm in evaluation.arms:
        score, first = evaluation.clip_score(arm.name), arm.name == evaluation.baseline
        test = None if first else evaluation.comparison(arm.name, ALL, "cosine").independent
        row = [arm.name, clip_pair(score), f"{score.cosine:.4f}", ABSENT if first else p_words(test.p)]
        rows.append(row + (kid_cells(evaluation.kid(arm.name)) if has_kid else []))
    notes = [
        "CLIP Score: softmax over CLIP's logits of the two pictures drawn from one prompt and seed, the "
        "baseline's and the arm's; mean over pairs, 0.5 each means no preference. Cosine: of picture and "
        "simple prompt, with the p of the paper's independent t-test.",
        INDEPENDENT_NOTE,
    ]
    notes += [kid_note(evaluation.kids[0])] if has_kid else []
    return f"{markdown(rows)}\n\n{' '.join(notes)} {NOT_EQUAL_NOTE}"


def statistics_table(evaluation: Evaluation, measure: str = "right") -> str:
    """Every test and interval: a row for each arm and type. ``measure``: ``"right"`` or ``"cosine"``."""
    scale, places = (100, ".2f") if measure == "right" else (1, ".4f")
    tests = ["independent t p", "Welch p", "paired t p", "paired t over prompts p"]
    tests += ["McNemar p"] if measure == "right" else []
    heads = ["Arm", "type", "baseline", "arm", "difference", "interval over prompts", "paired t interval"]
    rows = [[*heads, *tests]]
    found = [comparison for comparison in evaluation.comparisons if comparison.measure == measure]
    for comparison in found:
        values = (comparison.baseline_mean, comparison.mean)
        row = [comparison.arm, comparison.type, *(f"{scale * value:{places}}" for value in values)]
        row.append(f"{scale * comparison.difference:+{places}}")
        row += [
            interval_words(interval, f"+{places}", scale)
            for interval in (comparison.over_prompts, comparison.paired_interval)
        ]
        made = (comparison.independent, comparison.welch, comparison.paired, comparison.by_prompt)
        row += [p_words(test.p) for test in made]
        row += [p_words(comparison.mcnemar.p)] if comparison.mcnemar else []
        rows.append(row)
    unit = "Percent and points. " if measure == "right" else ""
    note = f"{unit}{OVER_PICTURES_NOTE} {why_undefined(found)}{NOT_EQUAL_NOTE}"
    return f"{markdown(rows)}\n\n{note}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table with its first row as the head; columns are padded, so that it reads well as it is."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


class NotedTable(NamedTuple):
    """A table with its caption and a note, before it is Markdown or a part of a page; as text it is Markdown.

    Attributes:
        rows: of cells; the first is the head.
    """

    caption: str
    rows: list[list[str]]
    note: str

    def __str__(self) -> str:
        return f"{markdown(self.rows)}\n\n{self.note}"


# --- cells, for other tables too ----------------------------------------------------------------------------

CLIP_HEAD = "CLIP Score (baseline, arm)"


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def p_words(p: float | None) -> str:
    """``"0.013"``, ``"< 0.001"`` or ``"not defined"``."""
    if p is None:
        return UNDEFINED
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def bounds_words(low: float | None, high: float | None, places: str, scale: float = 1) -> str:
    """``"[+1.2, +3.4]"`` or ``"[not defined]"``. ``places``: a format, such as ``"+.1f"``."""
    if low is None or high is None:
        return f"[{UNDEFINED}]"
    return f"[{scale * low:{places}}, {scale * high:{places}}]"


def interval_words(interval: Interval, places: str, scale: float = 1) -> str:
    """As :func:`bounds_words`."""
    return bounds_words(interval.low, interval.high, places, scale)


def clip_pair(score: ClipScore | None) -> str:
    """CLIP Score of baseline and arm, ``"0.412, 0.588"``; ``"-"`` for the baseline and without CLIP."""
    if score is None or score.share is None:
        return ABSENT
    return f"{score.baseline_share:.3f}, {score.share:.3f}"


def kid_cells(kid: KID) -> list[str]:
    """KID, and its difference to the baseline's, each with its interval."""
    value = f"{kid.value:.5f} {interval_words(kid.interval, '.5f')}"
    if kid.difference is None:
        return [value, ABSENT]
    return [value, f"{kid.difference:+.5f} {interval_words(kid.difference_interval, '+.5f')}"]


def kid_note(kid: KID) -> str:
    """How KID is measured, in words."""
    of = f", {kid.references_of_prompts} of them of the same prompts" if kid.references_of_prompts else ""
    return (
        f"KID (less is nearer): on CLIP's image features, {kid.pictures} pictures of {kid.prompts} prompts "
        f"against {kid.references} references{of}. Pictures of one prompt are not compared with each other; "
        "a KID around zero, also a little below, is as near as can be told. Intervals by bootstrap over "
        "prompts. Not comparable with KID on Inception features."
    )


def _change(comparison: Comparison) -> str:
    p = p_words(comparison.independent.p)
    p = f"p {p}" if p[0] in "<n" else f"p = {p}"
    points = f"{100 * comparison.difference:+.2f}"
    return f"({points} {interval_words(comparison.over_prompts, '+.1f', 100)}, {p})"


def why_undefined(comparisons: Sequence[Comparison]) -> str:
    """Why tests and intervals of a table are not defined; ``""`` if all are."""
    results = [
        result
        for found in comparisons
        for result in (
            found.independent,
            found.welch,
            found.paired,
            found.by_prompt,
            found.over_prompts,
            found.paired_interval,
        )
    ]
    notes = dict.fromkeys(result.note for result in results if result.note)
    return f"Not defined: {'; '.join(notes)}. " if notes else ""


def _about(evaluation: Evaluation) -> str:
    lines = [f"- {name}: {value}" for name, value in evaluation.about.items()]
    settings = evaluation.settings
    lines.append(
        f"- drawing: {settings.steps} steps, guidance {settings.guidance_scale:g}, scheduler "
        f"{settings.scheduler}, seeds {', '.join(map(str, settings.seeds))}"
    )
    lines += [f"- note: {remark}" for remark in evaluation.remarks]
    return "\n".join(lines)
