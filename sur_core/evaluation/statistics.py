"""What two arms' marks say about their difference.

All arms draw the same prompts from the same seeds. Five tests are told, since they rest on different
assumptions: the independent t-test with pooled variance is the paper's (Table 3); Welch's needs no equal
variances; the paired t-test and McNemar's exact test use that both arms drew the same prompt from the same
noise. These four take pictures for independent, but those of one prompt stand or fall with it. The test to
rely on is therefore the fifth, the paired t-test of the prompts' means, and the interval to rely on the
bootstrap over prompts, by the percentile method. With few prompts that interval is too narrow: where nothing
differs, one of 95% excludes zero about every second time with two prompts, every fourth with three, every
eighth with eight and every twelfth with fifteen. So a difference is told only where the test finds it too
(:attr:`Comparison.told_apart`).

A p above 0.05 is no proof of equality: it says that these pictures cannot tell the arms apart. How large a
difference may be, the interval says.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOT_EQUAL_NOTE = (
    "A p above 0.05 does not mean that two arms are equal; it means that these pictures cannot tell them "
    "apart. How large the difference may be is what its interval says."
)
FEW_PROMPTS_NOTE = (
    "With few prompts, as those of one type may be, an interval by bootstrap is too narrow: where nothing "
    "differs, one of 95% excludes zero about every fourth time with three prompts and every twelfth with "
    "fifteen. The paired t-test over prompts holds with few, too."
)
ALL = "all"
"""What stands in place of a type where all pictures are taken together."""

_BLOCK = 1 << 22
_ALIKE = "every {} differs by the same"


@dataclass(frozen=True)
class SignificanceTest:
    """A test of "no difference". ``p`` is two-sided; ``None`` if it is not defined, and ``note`` says why."""

    statistic: float | None = None
    degrees: float | None = None
    p: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """Bounds of a confidence interval; ``None`` where it is not defined, and ``note`` says why."""

    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    note: str = ""


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test: of the pairs in which one arm alone is right, are both arms' shares a half?

    Attributes:
        arm_only, baseline_only: pairs in which only that one is right.
        p: two-sided binomial; 1 if there are no such pairs.
    """

    arm_only: int
    baseline_only: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline for one type of prompts, or all. Means of marks right are shares 0..1.

    Attributes:
        measure: ``"right"`` (the judge's mark) or ``"cosine"`` (CLIP's image-text cosine).
        difference: ``mean - baseline_mean``.
        independent: t-test of the paper, pooled variance; ``welch`` without equal variances; ``paired`` over
            equal (prompt, seed).
        by_prompt: paired t-test of prompts' means, a pair a prompt: the test to rely on. All others take the
            pictures of one prompt for independent.
        mcnemar: for right and wrong only.
        over_prompts: of the difference, by bootstrap over prompts: the interval to rely on.
        paired_interval: of the difference, by the t distribution, as if all pictures were independent.
    """

    arm: str
    baseline: str
    type: str
    measure: str
    pictures: int
    prompts: int
    mean: float
    baseline_mean: float
    difference: float
    independent: SignificanceTest
    welch: SignificanceTest
    paired: SignificanceTest
    mcnemar: McNemar | None
    over_prompts: Interval
    paired_interval: Interval
    by_prompt: SignificanceTest = SignificanceTest(note="not made when this was written")

    @property
    def told_apart(self) -> bool:
        """Whether both that know of prompts find a difference: the interval excludes zero, and the paired
        t-test over prompts has p at or below 1 - confidence. Where that test is not defined, as every prompt
        differs by the same, a sign test of the prompts stands in for it.
        """
        low, high = self.over_prompts.low, self.over_prompts.high
        if low is None or low <= 0 <= high:
            return False
        p = self.by_prompt.p
        if p is None and self.by_prompt.note == _ALIKE.format("prompt"):
            p = 2 * 0.5**self.prompts
        return p is not None and p <= 1 - self.over_prompts.confidence + 1e-12


def compare(
    arm: str,
    baseline: str,
    values: Sequence[float],
    baseline_values: Sequence[float],
    prompts: Sequence[str],
    types: Sequence[str],
    *,
    type: str = ALL,
    measure: str = "right",
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """All statistics of an arm against the baseline.

    Args:
        values, baseline_values: a mark a picture [N], in the same order of (prompt, seed).
        prompts, types: each picture's prompt id and type [N].
        type: take only this type; ``"all"`` takes every picture.
        measure: ``"right"``: marks are 0 or 1, and McNemar's test is made; else any real numbers.
        resamples, seed: of the bootstrap.

    Raises:
        ValueError: no pictures of that type, different lengths, or marks that are no finite numbers.
    """
    ours, base, prompts, types = _of_type(type, values, baseline_values, prompts, types)
    means = resample_means([ours, base], prompts, types, resamples, seed)
    return Comparison(
        arm=arm,
        baseline=baseline,
        type=type,
        measure=measure,
        pictures=len(ours),
        prompts=len(np.unique(prompts)),
        mean=float(ours.mean()),
        baseline_mean=float(base.mean()),
        difference=float(ours.mean() - base.mean()),
        independent=independent_t(ours, base),
        welch=independent_t(ours, base, equal_variances=False),
        paired=paired_t(ours, base),
        mcnemar=mcnemar(ours, base) if measure == "right" else None,
        over_prompts=_over_prompts(None if means is None else means[:, 0] - means[:, 1], confidence),
        paired_interval=paired_t_interval(ours, base, confidence),
        by_prompt=by_prompt_t(ours, base, prompts),
    )


def _of_type(type: str, values, baseline_values, prompts, types) -> tuple[np.ndarray, ...]:
    """What :func:`compare` got, as arrays, for one type."""
    arrays = [np.asarray(values, np.float64), np.asarray(baseline_values, np.float64)]
    arrays += [np.asarray(prompts), np.asarray(types)]
    if len({len(array) for array in arrays}) > 1:
        raise ValueError("values, baseline_values, prompts and types must be of one length")
    if type != ALL:
        arrays = [array[arrays[3] == type] for array in arrays]
    if not len(arrays[0]):
        raise ValueError(f"no pictures of type {type!r} to compare")
    if not (np.isfinite(arrays[0]).all() and np.isfinite(arrays[1]).all()):
        raise ValueError("marks hold NaN or infinite numbers, which cannot be compared")
    return tuple(arrays)


# --- tests --------------------------------------------------------------------------------------------------


def independent_t(ours, base, equal_variances: bool = True) -> SignificanceTest:
    """t-test for the means of two independent samples; pooled variance, or Welch's without."""
    ours, base = np.asarray(ours, np.float64), np.asarray(base, np.float64)
    if min(len(ours), len(base)) < 2:
        return SignificanceTest(note="needs two pictures or more in each arm")
    if _constant(ours) and _constant(base):
        return SignificanceTest(note=f"no spread in either arm, {_same_or_not(ours, base)}")
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # for marks all alike in one arm, where nothing is lost
        result = scipy_stats().ttest_ind(ours, base, equal_var=equal_variances)
    return SignificanceTest(float(result.statistic), float(result.df), float(result.pvalue))


def paired_t(ours, base) -> SignificanceTest:
    """t-test of the differences within pairs."""
    return _one_sample_t(np.asarray(ours, np.float64) - np.asarray(base, np.float64), "pair")


def by_prompt_t(ours, base, prompts: Sequence[str]) -> SignificanceTest:
    """Paired t-test of the prompts' means: whatever the pictures of one prompt have in common, it holds where
    prompts are independent of each other.
    """
    differences = np.asarray(ours, np.float64) - np.asarray(base, np.float64)
    _, of = np.unique(np.asarray(prompts), return_inverse=True)
    return _one_sample_t(np.bincount(of, differences) / np.bincount(of), "prompt")


def mcnemar(ours, base) -> McNemar:
    """McNemar's exact test. ValueError unless all marks are 0 or 1."""
    ours, base = np.asarray(ours), np.asarray(base)
    if not np.isin(ours, (0, 1)).all() or not np.isin(base, (0, 1)).all():
        raise ValueError("McNemar's test needs marks of 0 and 1")
    only_ours, only_base = int(((ours == 1) & (base == 0)).sum()), int(((ours == 0) & (base == 1)).sum())
    pairs = only_ours + only_base
    p = float(scipy_stats().binomtest(only_ours, pairs, 0.5).pvalue) if pairs else 1.0
    return McNemar(only_ours, only_base, p)


def paired_t_interval(ours, base, confidence: float = 0.95) -> Interval:
    """Interval of the mean difference by the t distribution; takes every pair for independent."""
    differences = np.asarray(ours, np.float64) - np.asarray(base, np.float64)
    if note := _no_paired_test(differences):
        return Interval(confidence=confidence, note=note)
    half = scipy_stats().t.ppf((1 + confidence) / 2, len(differences) - 1)
    half *= differences.std(ddof=1) / math.sqrt(len(differences))
    return Interval(float(differences.mean() - half), float(differences.mean() + half), confidence)


def _one_sample_t(differences: np.ndarray, what: str) -> SignificanceTest:
    """t-test of a mean of zero. ``what``: each difference is one of."""
    if note := _no_paired_test(differences, what):
        return SignificanceTest(note=note)
    result = scipy_stats().ttest_1samp(differences, 0.0)
    return SignificanceTest(float(result.statistic), float(result.df), float(result.pvalue))


def _no_paired_test(differences: np.ndarray, what: str = "pair") -> str:
    if len(differences) < 2:
        return f"needs two {what}s or more"
    if not differences.any():
        return f"every {what} is equal"
    return _ALIKE.format(what) if _constant(differences) else ""


def _constant(values: np.ndarray) -> bool:
    """No spread beyond rounding, in which a t would be a quotient of rounding errors."""
    return float(np.ptp(values)) <= 1e-12 * float(np.abs(values).max())


def _same_or_not(ours: np.ndarray, base: np.ndarray) -> str:
    return "and both are the same" if _constant(np.concatenate([ours, base])) else "but they differ"


# --- bootstrap over prompts ---------------------------------------------------------------------------------


def resample_means(
    arms: Sequence[Sequence[float]],
    prompts: Sequence[str],
    types: Sequence[str],
    resamples: int = 10_000,
    seed: int = 0,
) -> np.ndarray | None:
    """Means of every arm over bootstrap samples of the prompts.

    Prompts are drawn with replacement within their type, so that every sample has each type as often as the
    set has; a drawn prompt brings all its pictures, in all arms. Equal ``seed`` gives equal draws.

    Args:
        arms: for each arm a mark a picture [N], in the same order.
        prompts, types: each picture's prompt id and type [N].

    Returns:
        float64 [resamples, arms]; ``None`` if a type has one prompt only, which could not vary.
    """
    arms, prompts, types = np.asarray(arms, np.float64), np.asarray(prompts), np.asarray(types)
    draw = np.random.default_rng(seed)
    sums, counts = np.zeros((resamples, len(arms))), np.zeros((resamples, 1))
    for type_name in dict.fromkeys(types.tolist()):
        chosen = types == type_name
        names, place = np.unique(prompts[chosen], return_inverse=True)
        totals = np.stack([np.bincount(place, values, len(names)) for values in arms[:, chosen]], -1)
        pictures = np.bincount(place, minlength=len(names))
        if len(names) < 2:
            return None
        block = max(1, _BLOCK // (len(names) * len(arms)))
        for start in range(0, resamples, block):
            rows = slice(start, min(start + block, resamples))
            picks = draw.integers(len(names), size=(rows.stop - rows.start, len(names)))
            sums[rows] += totals[picks].sum(1)
            counts[rows, 0] += pictures[picks].sum(1)
    return sums / counts


def percentile_interval(samples: np.ndarray, confidence: float = 0.95) -> Interval:
    """The middle ``confidence`` of bootstrap samples."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Interval(float(low), float(high), confidence)


def share_of_gap(
    base: Sequence[float],
    ours: Sequence[float],
    ceiling: Sequence[float],
    prompts: Sequence[str],
    types: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float | None, Interval]:
    """How much of the way from ``base`` to ``ceiling`` an arm goes: (ours - base) / (ceiling - base).

    Args:
        base, ours, ceiling: a mark a picture [N] in the same order, such as the base model on simple prompts,
            SUR on the same, and the base model on complex prompts.

    Returns:
        The share and its interval by bootstrap over prompts. The share is ``None`` where there is no gap; the
        interval is not defined if a bootstrap sample has none.
    """
    gap = float(np.mean(ceiling) - np.mean(base))
    if gap <= 0:
        return None, Interval(confidence=confidence, note="the ceiling is no higher than the base")
    share = float(np.mean(ours) - np.mean(base)) / gap
    means = resample_means([base, ours, ceiling], prompts, types, resamples, seed)
    if means is None:
        return share, _over_prompts(None, confidence)
    gaps = means[:, 2] - means[:, 0]
    if gaps.min() <= 0:
        note = "in some bootstrap samples the ceiling is no higher than the base"
        return share, Interval(confidence=confidence, note=note)
    return share, percentile_interval((means[:, 1] - means[:, 0]) / gaps, confidence)


def _over_prompts(samples: np.ndarray | None, confidence: float) -> Interval:
    if samples is None:
        return Interval(confidence=confidence, note="needs two prompts or more of each type")
    return percentile_interval(samples, confidence)


def scipy_stats():
    """``scipy.stats``; ValueError in words if it is not installed."""
    try:
        from scipy import stats
    except ImportError:
        raise ValueError("scipy is not installed; pip install -r requirements-train.txt") from None
    return stats
