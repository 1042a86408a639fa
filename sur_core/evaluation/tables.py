"""Tables for people, in Markdown: the layouts of the paper's Table 2 and Table 3, and every statistic."""

from __future__ import annotations

from collections.abc import Sequence

from .evaluation import Evaluation
from .statistics import ALL, NOT_EQUAL_NOTE, Comparison, Interval, SignificanceTest

_UNDEFINED = "not defined"
_ABSENT = "-"


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
    rows = [["Arm", "CLIP Score", *(f"{name} (%)" for name in types)]]
    for arm in evaluation.arms:
        row = [arm.name, _clip_pair(evaluation, arm.name)]
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
        f"independent t-test. {NOT_EQUAL_NOTE}"
    )
    return f"{markdown(rows)}\n\n{note}"


def quality_table(evaluation: Evaluation) -> str:
    """CLIP Score, cosine and KID, as the paper's Table 3: an arm a row."""
    has_kid = bool(evaluation.kids)
    kid_heads = ["KID", f"KID minus {evaluation.baseline}"] if has_kid else []
    rows = [["Arm", "CLIP Score (baseline, arm)", "cosine", "t-test p of cosine", *kid_heads]]
    for arm in evaluation.arms:
        score, first = evaluation.clip_score(arm.name), arm.name == evaluation.baseline
        pair = _ABSENT if first else f"{score.baseline_share:.3f}, {score.share:.3f}"
        p = _ABSENT if first else p_words(evaluation.comparison(arm.name, ALL, "cosine").independent)
        row = [arm.name, pair, f"{score.cosine:.4f}", p]
        if has_kid:
            kid = evaluation.kid(arm.name)
            row.append(f"{kid.value:.5f} {_bounds(kid.interval, 1, '.5f')}")
            row.append(
                _ABSENT
                if kid.difference is None
                else f"{kid.difference:+.5f} {_bounds(kid.difference_interval, 1, '+.5f')}"
            )
        rows.append(row)
    notes = [
        "CLIP Score: softmax over CLIP's logits of the two pictures drawn from one prompt and seed, the "
        "baseline's and the arm's; mean over pairs, 0.5 each means no preference. Cosine: of picture and "
        "simple prompt."
    ]
    if has_kid:
        kid = evaluation.kids[0]
        notes.append(
            f"KID (less is nearer): on CLIP's image features, {kid.pictures} pictures against "
            f"{kid.references} references; intervals by bootstrap over pictures. Not "
            "comparable with KID on Inception features."
        )
    return f"{markdown(rows)}\n\n{' '.join(notes)} {NOT_EQUAL_NOTE}"


def statistics_table(evaluation: Evaluation, measure: str = "right") -> str:
    """Every test and interval: a row for each arm and type. ``measure``: ``"right"`` or ``"cosine"``."""
    scale, places = (100, ".2f") if measure == "right" else (1, ".4f")
    tests = ["independent t p", "Welch p", "paired t p"] + (["McNemar p"] if measure == "right" else [])
    heads = ["Arm", "type", "baseline", "arm", "difference", "interval over prompts", "paired t interval"]
    rows = [[*heads, *tests]]
    found = [comparison for comparison in evaluation.comparisons if comparison.measure == measure]
    for comparison in found:
        values = (comparison.baseline_mean, comparison.mean)
        row = [comparison.arm, comparison.type, *(f"{scale * value:{places}}" for value in values)]
        row.append(f"{scale * comparison.difference:+{places}}")
        row += [
            _bounds(interval, scale, f"+{places}")
            for interval in (comparison.over_prompts, comparison.paired_interval)
        ]
        row += [p_words(test) for test in (comparison.independent, comparison.welch, comparison.paired)]
        row += [_p(comparison.mcnemar.p)] if comparison.mcnemar else []
        rows.append(row)
    unit = "Percent and points. " if measure == "right" else ""
    note = (
        f"{unit}The interval over prompts is the one to rely on: the other interval and all tests take the "
        f"pictures of one prompt for independent. {_why_undefined(found)}{NOT_EQUAL_NOTE}"
    )
    return f"{markdown(rows)}\n\n{note}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table with its first row as the head; columns are padded, so that it reads well as it is."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def p_words(test: SignificanceTest) -> str:
    """``"0.013"``, ``"< 0.001"`` or ``"not defined"``."""
    return _UNDEFINED if test.p is None else _p(test.p)


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _change(comparison: Comparison) -> str:
    p = p_words(comparison.independent)
    p = f"p {p}" if p[0] in "<n" else f"p = {p}"
    points = f"{100 * comparison.difference:+.2f}"
    return f"({points} {_bounds(comparison.over_prompts, 100, '+.1f')}, {p})"


def _bounds(interval: Interval, scale: float, places: str) -> str:
    if interval.low is None or interval.high is None:
        return f"[{_UNDEFINED}]"
    return f"[{scale * interval.low:{places}}, {scale * interval.high:{places}}]"


def _clip_pair(evaluation: Evaluation, arm: str) -> str:
    if not evaluation.clip_scores or arm == evaluation.baseline:
        return _ABSENT
    score = evaluation.clip_score(arm)
    return f"{score.share:.3f} (baseline {score.baseline_share:.3f})"


def _why_undefined(comparisons: Sequence[Comparison]) -> str:
    results = [
        result
        for found in comparisons
        for result in (
            found.independent,
            found.welch,
            found.paired,
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
