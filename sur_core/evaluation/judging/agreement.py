"""How far a judge agrees with people: accuracy and Cohen's kappa, by type, with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from ..statistics import ALL, Interval, percentile_interval, resample_means
from ..tables import NotedTable, bounds_words, percent
from .models import NOT_COMPARABLE


@dataclass(frozen=True)
class Agreement:
    """A judge against people for one type of prompts, or ``"all"``. Numbers of pictures:

    Attributes:
        both, judge_only, people_only, neither: said to be right by ...
        accuracy: share of the pictures of which both say the same.
        kappa: Cohen's; ``None`` where both call all pictures right, or all wrong.
        accuracy_interval, kappa_interval: by bootstrap over prompts, or over pictures if these are not known.
    """

    type: str
    both: int
    judge_only: int
    people_only: int
    neither: int
    accuracy: float
    kappa: float | None
    accuracy_interval: Interval
    kappa_interval: Interval

    @property
    def pictures(self) -> int:
        return self.both + self.judge_only + self.people_only + self.neither


def agreement(
    judge: Mapping[Hashable, bool],
    people: Mapping[Hashable, bool],
    types: Mapping[Hashable, str] | None = None,
    prompts: Mapping[Hashable, str] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[Agreement, ...]:
    """For each type in the order of ``people``, then for all pictures together.

    Args:
        judge, people: whether a picture is right, by the picture's id or path. Pictures that people did not
            mark are left out; the judge must have marked all others.
        types, prompts: each picture's type and prompt id. Without types only "all" is told.
        resamples, seed, confidence: of the intervals; prompts are drawn within their type.

    Raises:
        ValueError: no pictures; or a picture without a mark of the judge, a type or a prompt.
    """
    pictures = list(people)
    if not pictures:
        raise ValueError("no marks by people to compare the judge with")
    for what, given in (("mark of the judge", judge), ("type", types), ("prompt", prompts)):
        if missing := [picture for picture in pictures if given is not None and picture not in given]:
            raise ValueError(
                f"{len(missing)} of the {len(pictures)} pictures that people marked have no {what}, such as "
                f"{missing[0]!r}. Do the marks and the results belong to the same run?"
            )
    ours, theirs = (np.array([bool(marks[picture]) for picture in pictures]) for marks in (judge, people))
    cells = np.stack([ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs])
    kinds = np.array([ALL if types is None else types[picture] for picture in pictures])
    of = np.array([at if prompts is None else prompts[picture] for at, picture in enumerate(pictures)])
    found = []
    for kind in dict.fromkeys([*kinds.tolist(), ALL]):
        chosen = np.full(len(pictures), True) if kind == ALL else kinds == kind
        means = resample_means(cells[:, chosen], of[chosen], kinds[chosen], resamples, seed)
        found.append(_agreement(kind, cells[:, chosen], means, confidence))
    return tuple(found)


def kappa_of_shares(shares: np.ndarray) -> np.ndarray:
    """Cohen's kappa (1960) of two who say right or wrong: (observed - expected) / (1 - expected) agreement.

    Args:
        shares: of pictures that are right for both, for the first only, for the second only, for neither;
            float [..., 4], adding up to 1.

    Returns:
        float64 [...]; NaN where both call all pictures right, or all wrong.
    """
    both, first, second, neither = np.moveaxis(np.asarray(shares, np.float64), -1, 0)
    expected = (both + first) * (both + second) + (second + neither) * (first + neither)
    room = 1 - expected
    return np.where(room > 1e-12, (both + neither - expected) / np.where(room > 1e-12, room, 1), np.nan)


def agreement_table(found: tuple[Agreement, ...]) -> str:
    """In Markdown, with what the numbers mean."""
    return str(agreement_rows(found))


def agreement_rows(found: tuple[Agreement, ...]) -> NotedTable:
    """A row for each type, and what the numbers mean."""
    rows = [
        ["type", "pictures", "both right", "judge only", "people only", "both wrong", "accuracy", "kappa"]
    ]
    for one in found:
        counts = (one.pictures, one.both, one.judge_only, one.people_only, one.neither)
        kappa = "not defined" if one.kappa is None else f"{one.kappa:.2f}"
        rows.append(
            [
                one.type,
                *map(str, counts),
                f"{percent(one.accuracy)}% {_bounds(one.accuracy_interval, '.1f', 100)}",
                f"{kappa} {_bounds(one.kappa_interval, '.2f')}",
            ]
        )
    confidence = f"{100 * found[0].accuracy_interval.confidence:g}%"
    notes = [one.kappa_interval.note or one.accuracy_interval.note for one in found]
    undefined = "".join(f" {note}." for note in dict.fromkeys(filter(None, notes)))
    note = (
        "Judge only: the judge calls the picture right and people do not. Accuracy: the judge says what "
        "people say. Kappa: the same beyond what their shares of right pictures bring about by chance; 1 is "
        f"full agreement, 0 is chance. In brackets: {confidence} interval by bootstrap over prompts."
        f"{undefined} {NOT_COMPARABLE}"
    )
    return NotedTable("Agreement of the judge with people", rows, note)


def _agreement(kind: str, cells: np.ndarray, means: np.ndarray | None, confidence: float) -> Agreement:
    """``cells``: bool [4, N]; ``means``: of each over bootstrap samples [resamples, 4]."""
    kappa = float(kappa_of_shares(cells.mean(1)))
    intervals = [
        Interval(confidence=confidence, note="No interval: needs two prompts or more of each type")
    ] * 2
    if means is not None:
        kappas = kappa_of_shares(means)
        intervals = [percentile_interval(means[:, 0] + means[:, 3], confidence)]
        intervals.append(_kappa_interval(kappas, confidence))
    return Agreement(
        kind,
        *cells.sum(1).tolist(),
        accuracy=float((cells[0] | cells[3]).mean()),
        kappa=None if np.isnan(kappa) else kappa,
        accuracy_interval=intervals[0],
        kappa_interval=intervals[1],
    )


def _kappa_interval(kappas: np.ndarray, confidence: float) -> Interval:
    """Of the bootstrap samples in which kappa is defined, if these are nearly all."""
    defined = kappas[~np.isnan(kappas)]
    if len(defined) < 0.95 * len(kappas):
        note = "No interval of kappa: in many bootstrap samples both call all pictures right, or all wrong"
        return Interval(confidence=confidence, note=note)
    return percentile_interval(defined, confidence)


def _bounds(interval: Interval, places: str, scale: float = 1) -> str:
    return bounds_words(interval.low, interval.high, places, scale)
