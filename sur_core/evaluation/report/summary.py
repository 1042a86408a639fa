"""What came out, in sentences that say as much as the numbers do and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..statistics import ALL, Comparison
from ..study import Study

GAIN, LOSS, UNCLEAR = "gain", "loss", "unclear"


def verdict(found: Comparison | None, sign: int = 1) -> str:
    """Whether the interval over prompts excludes zero, and on which side. ``sign``: -1 if lower is better."""
    bounds = None if found is None else found.over_prompts
    if bounds is None or bounds.low is None or bounds.low <= 0 <= bounds.high:
        return UNCLEAR
    return GAIN if sign * bounds.low > 0 else LOSS


def headline(study: Study) -> str:
    """What was compared, in one sentence."""
    models = {cell.model: None for cell in study.cells}
    methods = {cell.method: None for cell in study.cells}
    found = study.cells[0].evaluation
    pictures = sum(len(cell.evaluation.pictures) for cell in study.cells)
    return (
        f"{_count(len(models), 'model')}, {_count(len(methods), 'method')}, "
        f"{_count(len(found.prompts), 'prompt')} from {_count(len(found.settings.seeds), 'seed')}: "
        f"{_count(pictures, 'picture')} without and with adapters."
    )


def findings(study: Study) -> list[str]:
    """How many comparisons show a gain, a loss, or nothing, for the marks and each measure."""
    lines = []
    overall = [row.comparison for row in study.accuracies if row.comparison.type == ALL]
    if overall:
        lines.append(f"Right pictures, all types together: {_tally(map(verdict, overall))}.")
    for measure in study.measures:
        sign = 1 if measure.higher_is_better else -1
        rows = [row.score.comparison for row in study.qualities if row.score.measure == measure.name]
        lines.append(f"{measure.name}: {_tally(verdict(found, sign) for found in rows)}.")
    if not study.accuracies:
        lines.append("No judge looked at these pictures: nothing is said about right and wrong.")
    if not study.measures:
        lines.append("No measure of quality was taken.")
    if study.accuracies or study.measures:
        sure = f"{100 * study.cells[0].evaluation.settings.confidence:g}%"
        lines.append(
            f"A gain or a loss is where the {sure} interval over prompts excludes zero. These intervals are "
            "not corrected for how many there are; Holm's p-values below are."
        )
    return lines


def _tally(verdicts: Iterable[str]) -> str:
    counts = Counter(verdicts)
    return (
        f"of {_count(counts.total(), 'comparison')} with the baseline, {counts[GAIN]} a gain, "
        f"{counts[LOSS]} a loss, {counts[UNCLEAR]} cannot be told"
    )


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
