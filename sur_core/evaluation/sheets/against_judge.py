"""How far the judge of an evaluation agrees with people."""

from __future__ import annotations

from pathlib import Path

from ..results import RESULTS, read_results
from .marks import Marks


def judge_agreement(marks: Marks, results: Path) -> str:
    """Markdown of :func:`sur_core.evaluation.judging.agreement`; "" if the results have no judge's marks of
    what people have decided.

    Raises:
        ValueError, OSError: results.json is damaged.
    """
    from ..judging import agreement, agreement_table

    if not (Path(results) / RESULTS).is_file():
        return ""
    found = read_results(results)
    judged = {(p.path, p.prompt_id): p for p in found.pictures if p.verdict is not None}
    # Pictures may have been drawn or judged anew since the sheet was made.
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
