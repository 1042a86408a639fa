"""A table of measures: each pair of arms, the small world's tests, and Holm's correction over the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..correction import holm
from ..statistics import ALL, Comparison, SignificanceTest, compare
from .measure import Measure, PairMeasure

SHARES_NOTE = "both shares add up to one, so only the paired tests have a meaning"


@dataclass(frozen=True)
class ScoreComparison:
    """A row of the table: one measure, an arm against its baseline, one type of prompts or all.

    Attributes:
        measure, arm, baseline, type: which.
        higher_is_better: the measure's direction.
        comparison: means, tests and intervals of the pairs of pictures for which the measure is defined
            in both arms; ``None`` if there is no such pair. Of a
            :class:`PairMeasure`, the means are of shares.
        undefined: pairs that were left out, since the measure is not defined for one of the pictures.
        holm_independent, holm_welch, holm_paired, holm_by_prompt: the tests' p-values by Holm's correction
            over the whole table; ``None`` where a test is not defined.
    """

    measure: str
    arm: str
    baseline: str
    type: str
    higher_is_better: bool
    comparison: Comparison | None
    undefined: int = 0
    holm_independent: float | None = None
    holm_welch: float | None = None
    holm_paired: float | None = None
    holm_by_prompt: float | None = None

    @property
    def gain(self) -> float | None:
        """How much better the arm is than its baseline, on average: above 0 is better in either direction."""
        if self.comparison is None:
            return None
        return self.comparison.difference if self.higher_is_better else -self.comparison.difference


def compare_scores(
    measures: Sequence[Measure],
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    pairs: Sequence[tuple[str, str]],
    prompts: Sequence[str],
    types: Sequence[str],
    *,
    kinds: Sequence[str] = (ALL,),
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[ScoreComparison]:
    """Every measure of every arm against its baseline: independent, Welch and paired t-tests, an interval by
    bootstrap over prompts (each as :func:`..statistics.compare` makes it), and Holm's correction, for each of
    the tests over all rows that are returned.

    Args:
        scores: measure -> arm -> a score a picture [N], all in the same order of (prompt, seed).
        pairs: (arm, baseline).
        prompts, types: each picture's prompt id and type [N].
        kinds: types to compare, ``"all"`` for all pictures; more rows make the correction stricter.
        resamples, seed, confidence: of the bootstrap.

    Raises:
        ValueError: lengths that differ, or a type without pictures.
    """
    prompts, types = np.asarray(prompts), np.asarray(types)
    options = {"resamples": resamples, "seed": seed, "confidence": confidence}
    rows = []
    for measure in measures:
        for arm, baseline in pairs:
            values = [np.asarray(scores[measure.name][name], np.float64) for name in (arm, baseline)]
            if {len(part) for part in values} != {len(prompts)} or len(types) != len(prompts):
                raise ValueError(
                    f"{measure.name}: expected a score for each of {len(prompts)} pictures of {arm!r} and "
                    f"{baseline!r}, found {len(values[0])} and {len(values[1])}, and {len(types)} types"
                )
            rows += [_row(measure, arm, baseline, kind, values, prompts, types, options) for kind in kinds]
    return _corrected(rows)


def _row(
    measure: Measure, arm: str, baseline: str, kind: str, values, prompts, types, options
) -> ScoreComparison:
    ours, base = values
    chosen = np.full(len(types), True) if kind == ALL else types == kind
    if not chosen.any():
        raise ValueError(
            f"{measure.name}: no pictures of type {kind!r}; there are {sorted(set(types.tolist()))}"
        )
    defined = chosen & np.isfinite(ours) & np.isfinite(base)
    row = ScoreComparison(
        *(measure.name, arm, baseline, kind, measure.higher_is_better, None),
        undefined=int(chosen.sum() - defined.sum()),
    )
    if not defined.any():
        return row
    ours, base, prompts, types = (part[defined] for part in (ours, base, prompts, types))
    relative = isinstance(measure, PairMeasure)
    if relative:
        ours = measure.shares(ours, base)
        base = 1 - ours
    found = compare(*(arm, baseline, ours, base, prompts, types), type=kind, measure=measure.name, **options)
    if relative:
        nothing = SignificanceTest(note=SHARES_NOTE)
        found = replace(found, independent=nothing, welch=nothing)
    return replace(row, comparison=found)


def _corrected(rows: list[ScoreComparison]) -> list[ScoreComparison]:
    for test in ("independent", "welch", "paired", "by_prompt"):
        p_values = [row.comparison and getattr(row.comparison, test).p for row in rows]
        adjusted = holm(p_values)
        rows = [replace(row, **{f"holm_{test}": p}) for row, p in zip(rows, adjusted, strict=True)]
    return rows
