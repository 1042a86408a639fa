"""Shares of two outcomes."""

from __future__ import annotations

from ..statistics import Interval, SignificanceTest, scipy_stats

NOTHING = "nobody has decided anything"


def wilson(hits: int, misses: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of the share of hits; not defined without any outcome.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if not hits + misses:
        return Interval(confidence=confidence, note=NOTHING)
    found = scipy_stats().binomtest(hits, hits + misses).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high), confidence)


def binomial(hits: int, misses: int) -> SignificanceTest:
    """Two-sided exact test of "hits are as likely as misses"; ``statistic`` is the share of hits."""
    if not hits + misses:
        return SignificanceTest(note=NOTHING)
    found = scipy_stats().binomtest(hits, hits + misses, 0.5)
    return SignificanceTest(float(found.statistic), p=float(found.pvalue))
