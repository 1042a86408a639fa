"""A study's tables for people, in Markdown, in the layouts of the paper's Tables 2, 3 and 7."""

from __future__ import annotations

from collections.abc import Iterator

from .sheets.marks_report import agreement_table, arms_table
from .sheets.preferences import Votes
from .sheets.preferences_report import pairs_table
from .statistics import ALL, NOT_EQUAL_NOTE, Comparison
from .study import CLIP_SCORE, TESTS, Cell, MeasureInfo, QualityRow, Study
from .study_people import CellPeople
from .tables import (
    ABSENT,
    INDEPENDENT_NOTE,
    OVER_PICTURES_NOTE,
    UNDEFINED,
    NotedTable,
    interval_words,
    markdown,
    p_words,
    percent,
    why_undefined,
)

LEVEL = 0.05
TEST_NAMES = {
    "independent": "independent t",
    "welch": "Welch",
    "paired": "paired t",
    "by_prompt": "paired t over prompts",
    "mcnemar": "McNemar",
}
_HEADS = ["Pre-trained Model", "Controlled Method", "Adapter"]
HOLM_NOTE = (
    "Holm: p adjusted over the whole table, so that the chance of one or more false findings in it stays at "
    "the level asked, as far as the p it is made of hold: those over prompts do, those over pictures "
    "need not."
)


VOTES_HEAD = "User Preference (%)"
VOTES_NOTE = (
    "User Preference: of people's answers with a preference, which picture of a pair was chosen; "
    "beside it the p of an exact binomial test, which takes every answer for independent, all answers, and "
    "how many had no preference. Not corrected by Holm. Counted are answers to which is of better quality, "
    "about pictures that are still this study's; what is left out, and intervals by bootstrap over prompts, "
    "are among what people said."
)


def all_tables(study: Study) -> str:
    """The content of study.md."""
    parts = ["# Study", _about(study)]
    if study.accuracies or _clip(study):
        parts += ["## Right pictures (as Table 2 of the paper)", semantic_table(study)]
    if _shown(study) or preferred(study):
        parts += ["## Quality (as Table 3 of the paper)", quality_table(study)]
    if study.accuracies:
        parts += ["## Right pictures by prompt (as Table 7 of the paper)", prompt_table(study)]
        parts += ["## Tests of right pictures", tests_table(study)]
    if study.qualities:
        parts += ["## Tests of measures", measures_tests_table(study)]
    if study.people:
        parts += ["## People", people_tables(study)]
    return "\n\n".join(parts) + "\n"


def tables_at_a_glance(study: Study) -> str:
    """What is shown when a study ends."""
    parts = [semantic_table(study)] if study.accuracies or _clip(study) else []
    parts += [quality_table(study)] if _shown(study) or preferred(study) else []
    pictures = sum(len(cell.evaluation.pictures) for cell in study.cells)
    notes = (
        f"note: {found.model}, {found.method}: left out: {note}"
        for found in study.people
        for note in found.notes
    )
    return "\n\n".join([*parts, *notes, f"{pictures} pictures, {len(study.cells)} cells"])


def semantic_table(study: Study) -> str:
    """CLIP Score and right pictures in percent: a row for each model, method and adapter, and for each type
    baseline beside adapter.
    """
    types = study.types if study.accuracies else ()
    heads = ["CLIP Score"] * _clip(study) + [f"{name} (%)" for name in types]
    rows = [[*_HEADS, *(f"{head} {side}" for head in heads for side in ("Baseline", "Ours"))]]
    for cell, arm in _arms(study):
        row = [cell.model, cell.method, arm]
        if _clip(study):
            row += _pair(study.quality(cell, arm, CLIP_SCORE).score.comparison, ".3f")
        for name in types:
            row += _pair(study.accuracy(cell, arm, name).comparison, ".2f", 100)
        rows.append(row)
    note = (
        f"{_counts(study)} ↑ and ↓: more or less than the baseline. Intervals and tests are below. "
        f"{NOT_EQUAL_NOTE}"
    )
    notes = [_measure_words(measure) for measure in study.measures if measure.name == CLIP_SCORE]
    return "\n\n".join([markdown(rows), note, *notes])


def quality_table(study: Study) -> str:
    """Means of each measure, baseline beside adapter, and whether the paper's t-test tells them apart."""
    measures = _shown(study)
    heads = [f"{m.name} ({'higher' if m.higher_is_better else 'lower'} is better)" for m in measures]
    sides = ("Baseline", f"Ours (p > {LEVEL:g}?)")
    rows = [[*_HEADS, *(f"{head} {side}" for head in heads for side in sides)]]
    asked = preferred(study)
    rows[0] += [f"{VOTES_HEAD} {side}" for side in ("Baseline", "Ours")] * asked
    for cell, arm in _arms(study):
        row = [cell.model, cell.method, arm]
        for measure in measures:
            row += _quality_cells(study.quality(cell, arm, measure.name))
        rows.append(row + (_votes_cells(study.votes(cell, arm)) if asked else []))
    notes = [_measure_words(measure) for measure in measures]
    note = (
        f"{_counts(study)} In brackets the p of the paper's independent t-test, ✓ above {LEVEL:g}, ✗ at or "
        f"below it, and Holm's; then those of the paired t-test of the prompts' means. {INDEPENDENT_NOTE} "
        f"{HOLM_NOTE} {NOT_EQUAL_NOTE}"
    )
    return "\n\n".join([markdown(rows), note, *notes, *([f"- {VOTES_NOTE}"] if asked else [])])


def prompt_table(study: Study) -> str:
    """Right pictures of each prompt in percent, by the baseline and by every adapter; a table a cell."""
    parts = []
    for cell in study.cells:
        arms = [study.prompt_rows(cell, arm.name) for arm in cell.arms]
        rows = [["Type", "Prompt", "Accuracy", *(f"Accuracy ({arm.name})" for arm in cell.arms)]]
        for entries in zip(*arms, strict=True):
            first = entries[0]
            shares = [first.baseline_right, *(entry.right for entry in entries)]
            cells = (f"{percent(right / first.pictures)}%" for right in shares)
            rows.append([first.prompt.type, first.prompt.prompt, *cells])
        pictures = len(cell.evaluation.settings.seeds)
        parts += [f"### {cell.model}, {cell.method}", markdown(rows), f"{pictures} pictures of each."]
    return "\n\n".join(parts)


def tests_table(study: Study) -> str:
    """Every test and interval of right pictures."""
    heads = ["type", "baseline", "ours", "difference", "interval over prompts"]
    rows = [[*_HEADS, *heads, *(f"{TEST_NAMES[test]} p (Holm)" for test in TESTS)]]
    for row in study.accuracies:
        found = row.comparison
        rows.append(
            [
                *(row.model, row.method, found.arm, found.type),
                *(percent(found.baseline_mean), percent(found.mean), f"{100 * found.difference:+.2f}"),
                interval_words(found.over_prompts, "+.2f", 100),
                *(_test(getattr(found, test).p, row.holm.get(test), found.type != ALL) for test in TESTS),
            ]
        )
    note = (
        f"Percent and points. {OVER_PICTURES_NOTE} "
        f"{why_undefined([row.comparison for row in study.accuracies])}"
        f"{HOLM_NOTE} Rows of all types together are not counted in it. {NOT_EQUAL_NOTE}"
    )
    return f"{markdown(rows)}\n\n{note}"


def measures_tests_table(study: Study) -> str:
    """Every test and interval of the measures."""
    heads = ["measure", "pairs", "left out", "baseline", "ours", "difference", "interval over prompts"]
    rows = [[*_HEADS, *heads, *(f"{TEST_NAMES[test]} p (Holm)" for test in TESTS[:-1])]]
    for row in study.qualities:
        score, found = row.score, row.score.comparison
        start = [row.model, row.method, score.arm, score.measure]
        if found is None:
            rows.append([*start, "0", str(score.undefined), *[UNDEFINED] * (len(rows[0]) - 6)])
            continue
        rows.append(
            [
                *(*start, str(found.pictures), str(score.undefined)),
                *(f"{found.baseline_mean:.4f}", f"{found.mean:.4f}", f"{found.difference:+.4f}"),
                interval_words(found.over_prompts, "+.4f"),
                *(_test(getattr(found, test).p, getattr(score, f"holm_{test}")) for test in TESTS[:-1]),
            ]
        )
    compared = [row.score.comparison for row in study.qualities if row.score.comparison]
    note = (
        "Left out: pairs in which the measure is not defined for one of the pictures. "
        f"{OVER_PICTURES_NOTE} {why_undefined(compared)}{holm_words(study)} {NOT_EQUAL_NOTE}"
    )
    return f"{markdown(rows)}\n\n{note}"


def people_tables(study: Study) -> str:
    """:func:`people_parts` of each cell that people have looked at."""
    parts = []
    for found in study.people:
        parts += [f"### {found.model}, {found.method}", *map(str, people_parts(found))]
    return "\n\n".join(parts)


def people_parts(found: CellPeople) -> list[str | NotedTable]:
    """What people marked, how far the judge agrees with them, and what they prefer: paragraphs and tables."""
    parts = []
    for one in found.marks:
        parts += [f"Right pictures, as {len(one.people)} people marked them", arms_table(one)]
        parts += [agreement_table(*one.agreements())] if len(one.people) > 1 else []
    for one in found.judges:
        parts += [one.judge, one.table]
    for one in found.preferences:
        parts += [f"{one.question} ({len(one.people)} people)", pairs_table(one)]
    return [*parts, *(f"Left out: {note}." for note in found.notes)]


def holm_words(study: Study) -> str:
    """Of which p Holm's correction of the measures is made."""
    apart = " CLIP Scores, which stand in Table 2, are adjusted among themselves, all others as in Table 3."
    return HOLM_NOTE + apart * _clip(study)


def preferred(study: Study) -> bool:
    """Whether people chose between any two arms that the tables compare."""
    return any(study.votes(cell, arm) for cell, arm in _arms(study))


def votes_words(votes: Votes | None) -> tuple[str, str, str]:
    """Shares of baseline and ours, and p with the number of answers; where nobody chose, dashes."""
    if votes is None or votes.share is None:
        return ABSENT, ABSENT, ""
    words = f"p {p_words(votes.test.p)}, {votes.first + votes.second + votes.none} answers, {votes.none} none"
    return percent(1 - votes.share), percent(votes.share), words


def _votes_cells(votes: Votes | None) -> list[str]:
    base, ours, words = votes_words(votes)
    return [base, f"{ours} ({words})" if words else ours]


def _measure_words(measure: MeasureInfo) -> str:
    model = f" Computed with {measure.model}." if measure.model else ""
    return f"- {measure.name}: {measure.note}{model}"


def _arms(study: Study) -> Iterator[tuple[Cell, str]]:
    return ((cell, arm.name) for cell in study.cells for arm in cell.arms)


def _shown(study: Study) -> list:
    """The measures of Table 3: CLIP Score is in Table 2."""
    return [measure for measure in study.measures if measure.name != CLIP_SCORE]


def _clip(study: Study) -> bool:
    return any(measure.name == CLIP_SCORE for measure in study.measures)


def _pair(found: Comparison | None, places: str, scale: float = 1) -> list[str]:
    if found is None:
        return [ABSENT, ABSENT]
    sign = "↑" if found.difference > 0 else "↓" if found.difference < 0 else "="
    return [f"{scale * found.baseline_mean:{places}}", f"{scale * found.mean:{places}} {sign}"]


def _quality_cells(row: QualityRow) -> list[str]:
    score, found = row.score, row.score.comparison
    if found is None:
        return [ABSENT, ABSENT]
    p, over_prompts = found.independent.p, found.by_prompt.p
    words = "p not defined"
    if p is not None:
        words = f"{'✓' if p > LEVEL else '✗'} p {p_words(p)}, Holm {p_words(score.holm_independent)}"
    if over_prompts is not None:
        words += f"; over prompts p {p_words(over_prompts)}, Holm {p_words(score.holm_by_prompt)}"
    return [f"{found.baseline_mean:.3f}", f"{found.mean:.3f} ({words})"]


def _test(p: float | None, adjusted: float | None, counted: bool = True) -> str:
    return f"{p_words(p)} ({p_words(adjusted)})" if p is not None and counted else p_words(p)


def _counts(study: Study) -> str:
    found = study.cells[0].evaluation
    return (
        f"{len(found.prompts)} prompts, {len(found.settings.seeds)} pictures each, from the same seeds and "
        "condition images for baseline and adapter."
    )


def _about(study: Study) -> str:
    settings = study.cells[0].evaluation.settings
    lines = [f"- {name}: {value}" for name, value in study.about.items()]
    lines.append(
        f"- drawing: {settings.steps} steps, guidance {settings.guidance_scale:g}, scheduler "
        f"{settings.scheduler}, seeds {', '.join(map(str, settings.seeds))}"
    )
    shared = {"model", "model path", "method", "judge", "judge settings", "versions"}
    for cell in study.cells:
        about = cell.evaluation.about
        details = (f"{name} {value}" for name, value in about.items() if name not in shared)
        lines.append(f"- {cell.model} ({about['model path']}), {cell.method}: {'; '.join(details)}")
    lines += [f"- note: {remark}" for remark in study.remarks]
    return "\n".join(lines)
