"""How far the judge of an evaluation agrees with people."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..evaluation import Evaluation
from ..results import RESULTS, read_results
from ..tables import NotedTable
from .marks import Marks
from .standing import Drawn, marks_standing


class AgainstPeople(NamedTuple):
    """A judge, and the table of :func:`sur_core.evaluation.judging.agreement`; as text it is Markdown."""

    judge: str
    table: NotedTable

    def __str__(self) -> str:
        return f"{self.judge}\n\n{self.table}"


def judge_agreement(marks: Marks, results: Path) -> AgainstPeople | None:
    """As :func:`against_people` with the results in a folder, over marked pictures that are still theirs;
    ``None`` if there are no results.

    Raises:
        ValueError, OSError: results.json is damaged.
    """
    if not (Path(results) / RESULTS).is_file():
        return None
    found = read_results(results)
    return against_people(marks_standing(marks, Drawn(found))[0], found)


def against_people(marks: Marks, found: Evaluation) -> AgainstPeople | None:
    """``None`` if there are no judge's marks of what people have decided. ``marks``: of pictures that are
    still the evaluation's.
    """
    from ..judging.agreement import agreement, agreement_rows

    judged = {(p.path, p.prompt_id): p for p in found.pictures if p.verdict is not None}
    people = {place: verdict.right for place, verdict in marks.verdicts.items() if place in judged}
    if not people:
        return None
    table = agreement_rows(
        agreement(
            {place: judged[place].verdict.right for place in people},
            people,
            {place: judged[place].type for place in people},
            {place: judged[place].prompt_id for place in people},
        )
    )
    return AgainstPeople(f"Judge: {found.about.get('judge', 'not named')}", table)
