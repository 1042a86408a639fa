"""The numbers: the paper's Tables 2, 3 and 7, and every test behind them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from xml.etree.ElementTree import Element

from ...page_elements import element, table, wide
from ..sheets.preferences import Votes
from ..statistics import ALL, NOT_EQUAL_NOTE, Comparison, SignificanceTest
from ..study import CLIP_SCORE, TESTS, MeasureInfo, QualityRow, Study
from ..study_tables import (
    HOLM_NOTE,
    LEVEL,
    TEST_NAMES,
    VOTES_HEAD,
    VOTES_NOTE,
    holm_words,
    people_parts,
    preferred,
    votes_words,
)
from ..tables import (
    ABSENT,
    INDEPENDENT_NOTE,
    OVER_PICTURES_NOTE,
    UNDEFINED,
    NotedTable,
    interval_words,
    p_words,
    percent,
    why_undefined,
)
from .summary import sure_words, verdict

MEASURES_A_TABLE = 3
"""More of them side by side fit no sheet of paper."""
_CLASSES = {"gain": "yes", "loss": "no", "unclear": "unclear"}


def semantic_table(study: Study) -> Element:
    """Table 2: CLIP Score and right pictures in percent, baseline beside ours; a row an adapter."""
    has_clip = any(measure.name == CLIP_SCORE for measure in study.measures)
    types = () if not study.accuracies else study.types
    types += (ALL,) if len(types) > 1 else ()
    heads = ["CLIP Score"] * has_clip + [f"{name} (%)" for name in types]
    rows = []
    for cell, arm in _arms(study):
        row = [cell.method, arm]
        if has_clip:
            row += _pair(study.quality(cell, arm, CLIP_SCORE).score.comparison, ".3f")
        for name in types:
            row += _pair(study.accuracy(cell, arm, name).comparison, ".2f", 100)
        rows.append((cell.model, row))
    note = (
        f"{_counts(study)} ↑ and ↓: more or less than the baseline. Small: how much, and the interval by "
        f"bootstrap over prompts, in color where {sure_words(study)}. Without color does not mean that both "
        "are equal; it means that these pictures cannot tell them apart. Tests are below."
    )
    return _paired(heads, rows, "Right pictures, in the layout of the paper's Table 2", note)


def quality_tables(study: Study) -> list[Element]:
    """Table 3: means of each measure, baseline beside ours, with the paper's test and Holm's correction; and
    people's preferences where there are any.
    """
    columns = _columns(study)
    tables = max(1, math.ceil(len(columns) / MEASURES_A_TABLE))
    size = max(1, math.ceil(len(columns) / tables))
    groups = [columns[at : at + size] for at in range(0, len(columns), size)]
    made = []
    for number, group in enumerate(groups, start=1):
        caption = "Quality, in the layout of the paper's Table 3"
        caption += f", part {number} of {len(groups)}" if len(groups) > 1 else ""
        rows = [
            (cell.model, [cell.method, arm, *(part for _, parts in group for part in parts(cell, arm))])
            for cell, arm in _arms(study)
        ]
        made.append(_paired([head for head, _ in group], rows, caption))
    if len(columns) > preferred(study):
        note = (
            f"{_counts(study)} Small: the difference with its interval by bootstrap over prompts, in color "
            f"where {sure_words(study)}; then p of the paper's independent t-test, ✓ above {LEVEL:g}, ✗ at "
            "or below it, and Holm's; and those of the paired t-test over prompts. "
            f"{INDEPENDENT_NOTE} {HOLM_NOTE} {NOT_EQUAL_NOTE}"
        )
        made.append(element("p", note, class_="note"))
    if preferred(study):
        made.append(element("p", VOTES_NOTE, class_="note"))
    return made


def _columns(study: Study) -> list[tuple[str, Callable]]:
    """Of Table 3: a head, and what gives the cells of baseline and ours for a cell and an arm."""
    found: list[tuple[str, Callable]] = [
        (_directed(m), lambda cell, arm, m=m: _quality(study.quality(cell, arm, m.name)))
        for m in study.measures
        if m.name != CLIP_SCORE
    ]
    if preferred(study):
        found.append((VOTES_HEAD, lambda cell, arm: _votes(study.votes(cell, arm))))
    return found


def people_elements(study: Study) -> list[Element]:
    """What people marked and preferred, and how far the judge agrees with them."""
    made = []
    for found in study.people:
        made.append(element("h3", f"{found.model}, {found.method}"))
        for part in people_parts(found):
            if isinstance(part, NotedTable):
                head, *rows = part.rows
                made.append(table(head, rows, part.caption, part.note))
            else:
                made.append(element("p", part, class_="note"))
    return made


def measure_notes(study: Study) -> Element | None:
    """What each measure is, and its direction."""
    lines = [
        element("li", element("strong", _directed(measure)), _about(measure)) for measure in study.measures
    ]
    return element("ul", lines, class_="notes") if lines else None


def prompt_tables(study: Study) -> list[Element]:
    """Table 7: right pictures of each prompt in percent; a table a model and method, the first one open."""
    made = []
    for cell in study.cells:
        by_arm = [study.prompt_rows(cell, arm.name) for arm in cell.arms]
        rows = []
        for entries in zip(*by_arm, strict=True):
            first = entries[0]
            shares = [first.baseline_right, *(entry.right for entry in entries)]
            figures = [f"{percent(right / first.pictures)}%" for right in shares]
            rows.append((first.prompt.type, [element("bdi", first.prompt.prompt), *figures]))
        name = f"{cell.model}, {cell.method}"
        caption = f"Right pictures by prompt: {name}; {len(cell.evaluation.settings.seeds)} pictures of each"
        heads = [["Prompt", cell.evaluation.baseline, *(arm.name for arm in cell.arms)]]
        opened = {} if made else {"open": ""}
        made.append(element("details", element("summary", name), _table(heads, rows, caption), **opened))
    return made


def tests_table(study: Study) -> Element:
    """Every test and interval of right pictures."""
    heads = ["Method", "Adapter", "Type", "Baseline", "Ours", "Difference", "Interval"]
    rows = []
    for row in study.accuracies:
        found = row.comparison
        figures = [percent(found.baseline_mean), percent(found.mean), f"{100 * found.difference:+.2f}"]
        figures.append(_small(interval_words(found.over_prompts, "+.2f", 100), verdict(found)))
        counted = found.type != ALL
        tests = [_test(getattr(found, test), row.holm.get(test), counted) for test in TESTS]
        rows.append((row.model, [row.method, found.arm, found.type, *figures, *tests]))
    note = (
        "Percent and points. Of each test: p, and below it Holm's. "
        f"{OVER_PICTURES_NOTE} {why_undefined([row.comparison for row in study.accuracies])}"
        f"{HOLM_NOTE} Rows of all types together are not counted in it. {NOT_EQUAL_NOTE}"
    )
    heads += [TEST_NAMES[test] for test in TESTS]
    return _table([heads], rows, "Tests of right pictures, with Holm's correction", note)


def measures_tests_table(study: Study) -> Element:
    """Every test and interval of the measures."""
    heads = ["Method", "Adapter", "Measure", "Pairs", "Left out", "Baseline", "Ours", "Difference"]
    rows = [(row.model, _measure_tests(row)) for row in study.qualities]
    compared = [row.score.comparison for row in study.qualities if row.score.comparison]
    note = (
        "Of each test: p, and below it Holm's. Left out: pairs in which the measure is not defined for one "
        f"of the pictures. {OVER_PICTURES_NOTE} {why_undefined(compared)}{holm_words(study)} {NOT_EQUAL_NOTE}"
    )
    heads += ["Interval", *(TEST_NAMES[test] for test in TESTS[:-1])]
    return _table([heads], rows, "Tests of measures, with Holm's correction", note)


def _measure_tests(row: QualityRow) -> list:
    score, found = row.score, row.score.comparison
    if found is None:
        return [
            row.method,
            score.arm,
            score.measure,
            "0",
            str(score.undefined),
            *[UNDEFINED] * (3 + len(TESTS)),
        ]
    sign = 1 if score.higher_is_better else -1
    return [
        *(row.method, score.arm, score.measure, str(found.pictures), str(score.undefined)),
        *(f"{found.baseline_mean:.4f}", f"{found.mean:.4f}", f"{found.difference:+.4f}"),
        _small(interval_words(found.over_prompts, "+.4f"), verdict(found, sign)),
        *(_test(getattr(found, test), getattr(score, f"holm_{test}")) for test in TESTS[:-1]),
    ]


# --- cells --------------------------------------------------------------------------------------------------


def _arms(study: Study) -> Iterator[tuple]:
    return ((cell, arm.name) for cell in study.cells for arm in cell.arms)


def _pair(found: Comparison | None, places: str, scale: float = 1) -> list:
    """Cells of the baseline and of ours."""
    if found is None:
        return [ABSENT, ABSENT]
    arrow = "↑" if found.difference > 0 else "↓" if found.difference < 0 else "="
    return [f"{scale * found.baseline_mean:{places}}", _ours(found, places, arrow, scale)]


def _ours(found: Comparison, places: str, arrow: str = "", scale: float = 1, sign: int = 1) -> list[Element]:
    judgement = verdict(found, sign)
    bounds = "+.1f" if scale == 100 else f"+{places}"
    return [
        element("strong", f"{scale * found.mean:{places}} {arrow}".strip()),
        _small(f"{scale * found.difference:+{places}}", judgement),
        _small(interval_words(found.over_prompts, bounds, scale), judgement),
    ]


def _quality(row: QualityRow) -> list:
    score, found = row.score, row.score.comparison
    if found is None:
        return [ABSENT, ABSENT]
    p = found.independent.p
    words = "p not defined"
    if p is not None:
        words = f"{'✓' if p > LEVEL else '✗'} p {p_words(p)}, Holm {p_words(score.holm_independent)}"
    over = f"over prompts p {p_words(found.by_prompt.p)}, Holm {p_words(score.holm_by_prompt)}"
    over = over if found.by_prompt.p is not None else "over prompts p not defined"
    sign = 1 if score.higher_is_better else -1
    tests = [element("small", words), element("small", over)]
    return [f"{found.baseline_mean:.3f}", [*_ours(found, ".3f", sign=sign), *tests]]


def _votes(votes: Votes | None) -> list:
    base, ours, words = votes_words(votes)
    return [base, [element("strong", ours), words and element("small", words)]]


def _small(words: str, judgement: str) -> Element:
    return element("small", words, class_=_CLASSES[judgement])


def _test(found: SignificanceTest, adjusted: float | None, counted: bool = True) -> list:
    if found.p is None:
        return [UNDEFINED]
    return [p_words(found.p), element("small", p_words(adjusted)) if counted else None]


def _directed(measure: MeasureInfo) -> str:
    return f"{measure.name} ({'higher' if measure.higher_is_better else 'lower'} is better)"


def _about(measure: MeasureInfo) -> str:
    model = f"computed with {measure.model}." if measure.model else ""
    return ": " + " ".join(filter(None, (measure.note, model.capitalize()[:1] + model[1:])))


def _counts(study: Study) -> str:
    found = study.cells[0].evaluation
    return (
        f"{len(found.prompts)} prompts, {len(found.settings.seeds)} pictures each, from the same seeds and "
        "condition images for baseline and adapter."
    )


# --- tables of grouped rows ---------------------------------------------------------------------------------


def _paired(heads: Sequence[str], rows: Sequence[tuple[str, list]], caption: str, note: str = "") -> Element:
    """A table with two columns, baseline and ours, under each head."""
    first = [
        *(element("th", name, scope="col", rowspan=2) for name in ("Method", "Adapter")),
        *(element("th", head, scope="colgroup", colspan=2) for head in heads),
    ]
    return _table([first, ["Baseline", "Ours"] * len(heads)], rows, caption, note)


def _table(heads: Sequence[list], rows: Sequence[tuple[str, list]], caption: str, note: str = "") -> Element:
    """Rows under the name of the group they belong to; groups in the order in which they first occur."""
    groups: dict[str, list] = {}
    for group, row in rows:
        groups.setdefault(group, []).append(row)
    bodies = []
    for group, entries in groups.items():
        name = element("tr", element("th", group, scope="rowgroup", colspan=len(entries[0])), class_="group")
        bodies.append(element("tbody", name, [_row(row) for row in entries]))
    made = element("table", element("caption", caption), _head(heads), bodies)
    return element("div", wide(made, caption), note and element("p", note, class_="note"))


def _head(heads: Sequence[list]) -> Element:
    lines = (
        [cell if isinstance(cell, Element) else element("th", cell, scope="col") for cell in line]
        for line in heads
    )
    return element("thead", [element("tr", line) for line in lines])


def _row(row: Sequence) -> Element:
    return element("tr", element("th", row[0], scope="row"), [element("td", cell) for cell in row[1:]])
