"""What came out, in sentences that say as much as the numbers do and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..statistics import ALL, FEW_PROMPTS_NOTE, Comparison
from ..study import Study

GAIN, LOSS, UNCLEAR = "gain", "loss", "unclear"


def verdict(found: Comparison | None, sign: int = 1) -> str:
    """Whether interval and test over prompts both tell the arms apart, and which is better. ``sign``: -1 if
    lower is better.
    """
    if found is None or not found.told_apart:
        return UNCLEAR
    return GAIN if sign * found.difference > 0 else LOSS


def page_title(study: Study) -> str:
    """Names the systems whose adapters were compared."""
    arms = [arm for cell in study.cells for arm in cell.arms]
    systems = ["SUR-adapters"] * any(arm.adapter is not None for arm in arms)
    systems += ["LLMDiff-Adapters"] * any(arm.llmdiff is not None for arm in arms)
    return f"A study of {' and '.join(systems) or 'adapters'}"


def sure_words(study: Study) -> str:
    """When a difference is called one."""
    confidence = study.cells[0].evaluation.settings.confidence
    return (
        f"the {100 * confidence:g}% interval over prompts excludes zero and the p of the paired t-test over "
        f"prompts is {1 - confidence:.4g} or less"
    )


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
        lines.append(
            f"A gain or a loss is where {sure_words(study)}. {FEW_PROMPTS_NOTE} Neither is corrected for how "
            "many there are; Holm's p-values below are."
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
