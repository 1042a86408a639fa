"""How far people agree beyond chance: Cohen's kappa for two, Fleiss' for more.

J. Cohen, "A coefficient of agreement for nominal scales", 1960. Its large-sample error: J. L. Fleiss,
J. Cohen and B. S. Everitt, "Large sample standard errors of kappa and weighted kappa", 1969. Several people:
J. L. Fleiss, "Measuring nominal scale agreement among many raters", 1971.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np

from ..statistics import Interval


@dataclass(frozen=True)
class Kappa:
    """Agreement of some people.

    Attributes:
        people: their names.
        items: how many things all of them have answered.
        agreement: share of equal answers; with more than two people, of equal pairs of answers.
        value: kappa, 1 for full agreement, 0 for what chance gives; ``None`` if not defined, and ``note``
            says why.
        interval: of Cohen's kappa, by its large-sample error, which takes the things for independent.
    """

    people: tuple[str, ...]
    items: int
    agreement: float | None = None
    value: float | None = None
    interval: Interval = Interval()
    note: str = ""


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    people: tuple[str, str] = ("", ""),
    confidence: float = 0.95,
) -> Kappa:
    """Kappa of two people's answers to the same things [N], which may be any values.

    Raises:
        ValueError: different lengths.
    """
    if len(first) != len(second):
        raise ValueError(
            f"two people must have answered the same things, found {len(first)} and {len(second)}"
        )
    if not first:
        return Kappa(people, 0, note="nothing that both have answered")
    shares = _table(first, second) / len(first)
    observed = float(np.trace(shares))
    rows, columns = shares.sum(1), shares.sum(0)
    expected = float(rows @ columns)
    if math.isclose(expected, 1):
        return Kappa(people, len(first), observed, note="both have given one and the same answer throughout")
    value = (observed - expected) / (1 - expected)
    error = _error(shares, observed, expected, len(first))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    interval = Interval(max(-1.0, value - half), min(1.0, value + half), confidence)
    return Kappa(people, len(first), observed, value, interval)


def fleiss_kappa(ratings: Sequence[Sequence[Hashable]], people: tuple[str, ...] = ()) -> Kappa:
    """Kappa of several people.

    Args:
        ratings: each thing's answers, one of each person [N][people].

    Raises:
        ValueError: things have different numbers of answers, or fewer than two.
    """
    if not ratings:
        return Kappa(people, 0, note="nothing that all have answered")
    raters = len(ratings[0])
    if raters < 2 or any(len(row) != raters for row in ratings):
        raise ValueError("Fleiss' kappa needs as many answers to each thing, and two or more")
    values = list(dict.fromkeys(value for row in ratings for value in row))
    counts = np.array([[list(row).count(value) for value in values] for row in ratings], np.float64)
    observed = float(((counts**2).sum(1) - raters).mean() / (raters * (raters - 1)))
    expected = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    if math.isclose(expected, 1):
        return Kappa(people, len(ratings), observed, note="all have given one and the same answer throughout")
    return Kappa(people, len(ratings), observed, (observed - expected) / (1 - expected))


def agreements(answers: Mapping[str, Mapping[str, Hashable]]) -> tuple[tuple[Kappa, ...], Kappa | None]:
    """Every two people's kappa over what both have answered, and that of all, if there are more than two.

    Args:
        answers: {person: {thing: answer}}.
    """
    pairs = []
    for people in combinations(answers, 2):
        one, other = (answers[name] for name in people)
        common = [thing for thing in one if thing in other]
        pairs.append(cohen_kappa([one[t] for t in common], [other[t] for t in common], people))
    if len(answers) < 3:
        return tuple(pairs), None
    first, *others = answers.values()
    common = [thing for thing in first if all(thing in other for other in others)]
    ratings = [[found[thing] for found in answers.values()] for thing in common]
    return tuple(pairs), fleiss_kappa(ratings, tuple(answers))


def _table(first: Sequence[Hashable], second: Sequence[Hashable]) -> np.ndarray:
    """How often each pair of answers was given [K, K]."""
    values = {value: place for place, value in enumerate(dict.fromkeys([*first, *second]))}
    table = np.zeros((len(values), len(values)))
    for one, other in zip(first, second, strict=True):
        table[values[one], values[other]] += 1
    return table


def _error(shares: np.ndarray, observed: float, expected: float, count: int) -> float:
    """Large-sample standard error of kappa. ``shares``: [K, K], adds up to 1."""
    rows, columns = shares.sum(1), shares.sum(0)
    same = np.diag(shares)
    within = (same * ((1 - expected) - (rows + columns) * (1 - observed)) ** 2).sum()
    # Who answers i meets an other who answers j: margins crossed over.
    crossed = (columns[:, None] + rows[None, :]) ** 2 * shares
    beside = (1 - observed) ** 2 * (crossed.sum() - np.trace(crossed))
    rest = (observed * expected - 2 * expected + observed) ** 2
    return math.sqrt(max(0.0, within + beside - rest) / count) / (1 - expected) ** 2
