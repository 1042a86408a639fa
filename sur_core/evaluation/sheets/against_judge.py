"""How far the judge of an evaluation agrees with people."""

from __future__ import annotations

from pathlib import Path

from ..evaluation import Evaluation
from ..results import RESULTS, read_results
from .marks import Marks
from .standing import Drawn, marks_standing


def judge_agreement(marks: Marks, results: Path) -> str:
    """As :func:`agreement_words` with the results in a folder, over marked pictures that are still theirs;
    "" if there are no results.

    Raises:
        ValueError, OSError: results.json is damaged.
    """
    if not (Path(results) / RESULTS).is_file():
        return ""
    found = read_results(results)
    return agreement_words(marks_standing(marks, Drawn(found))[0], found)


def agreement_words(marks: Marks, found: Evaluation) -> str:
    """Markdown of :func:`sur_core.evaluation.judging.agreement`; "" if there are no judge's marks of what
    people have decided. ``marks``: of pictures that are still the evaluation's.
    """
    from ..judging import agreement, agreement_table

    judged = {(p.path, p.prompt_id): p for p in found.pictures if p.verdict is not None}
    people = {place: verdict.right for place, verdict in marks.verdicts.items() if place in judged}
    if not people:
        return ""
    table = agreement_table(
        agreement(
            {place: judged[place].verdict.right for place in people},
            people,
            {place: judged[place].type for place in people},
            {place: judged[place].prompt_id for place in people},
        )
    )
    return f"Judge: {found.about.get('judge', 'not named')}\n\n{table}"
