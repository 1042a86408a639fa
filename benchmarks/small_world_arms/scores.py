"""From marks to figures: means over training seeds, gains, shares of the gap, and their intervals.

An arm that was trained several times, from different training seeds, has a row of marks for each. Its mark of
a picture is the mean over these rows. An interval has two sources of chance: the test prompts, and what
training happened to give. The bootstrap draws both: prompts with replacement within their type, each with all
its pictures (:func:`sur_core.evaluation.resample_means`), and training seeds with replacement. Arms of equal
training seeds share the draw, since they share the training set. Drawing from n values spreads too little by
(n - 1) / n, so that differences between seeds are drawn larger by the root of its inverse. From three seeds
the second source can still only be told roughly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sur_core.evaluation import ALL, Evaluation, Interval, resample_means
from sur_core.evaluation.statistics import percentile_interval

MEAN = "mean"
"""What all types together are called in the figures."""


@dataclass(frozen=True)
class Marks:
    """1 for right and 0 for wrong, of several arms on the same pictures.

    Attributes:
        prompts, types: each picture's prompt id and type, [N].
        of: by name of the arm, [training seeds, N]; one row for the base model.
    """

    prompts: np.ndarray
    types: np.ndarray
    of: dict[str, np.ndarray]

    @classmethod
    def read(cls, found: Evaluation, names: dict[str, Sequence[str]]) -> Marks:
        """``names``: which of the evaluation's arms are one arm here, by its name."""
        pictures = found.of(found.baseline)
        prompts, types = ([getattr(picture, part) for picture in pictures] for part in ("prompt_id", "type"))
        of = {name: np.stack([found.marks(arm) for arm in arms]) for name, arms in names.items()}
        return cls(np.array(prompts), np.array(types), of)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The types, and ``"mean"``."""
        return (*dict.fromkeys(self.types.tolist()), MEAN)

    def only(self, chosen: np.ndarray) -> Marks:
        """The pictures where ``chosen`` [N] is true."""
        of = {name: rows[:, chosen] for name, rows in self.of.items()}
        return Marks(self.prompts[chosen], self.types[chosen], of)

    def of_kind(self, kind: str) -> Marks:
        return self if kind in (MEAN, ALL) else self.only(self.types == kind)

    def percent(self, name: str) -> dict[str, dict]:
        """By type: {"mean", "per_seed"}, in percent."""
        return {kind: spread(100 * self.of_kind(kind).of[name].mean(axis=1)) for kind in self.kinds}


def spread(values: Sequence[float]) -> dict:
    """{"mean", "per_seed"} of a value for each training seed."""
    values = [float(value) for value in values]
    return {"mean": sum(values) / len(values), "per_seed": values}


def gains(marks: Marks, name: str, base: str, resamples: int) -> dict[str, dict]:
    """By type: points that an arm is right more often than another: {"value", "low", "high", "per_seed"}."""
    found = {}
    for kind in marks.kinds:
        part = marks.of_kind(kind)
        ours, other = part.of[name], part.of[base]
        draws = resampled([ours, other], part, resamples)
        low, high = bounds(None if draws is None else 100 * (draws[0] - draws[1]))
        each = 100 * (ours.mean(axis=1) - other.mean(axis=1))
        found[kind] = {"value": float(each.mean()), "low": low, "high": high, "per_seed": each.tolist()}
    return found


def gaps_closed(marks: Marks, name: str, base: str, ceiling: str, resamples: int) -> dict[str, dict]:
    """By type: how much of the way from ``base`` to ``ceiling`` an arm goes: {"value", "low", "high"}.

    ``value`` is ``None`` where there is no gap; the interval, if a bootstrap sample has none.
    """
    found = {}
    for kind in marks.kinds:
        part = marks.of_kind(kind)
        rows = [part.of[arm] for arm in (base, name, ceiling)]
        low, ours, high = (float(values.mean()) for values in rows)
        value = (ours - low) / (high - low) if high > low else None
        draws = resampled(rows, part, resamples)
        if value is None or draws is None or (draws[2] - draws[0]).min() <= 0:
            found[kind] = {"value": value, "low": None, "high": None}
        else:
            below, above = bounds((draws[1] - draws[0]) / (draws[2] - draws[0]))
            found[kind] = {"value": value, "low": below, "high": above}
    return found


def resampled(rows: Sequence[np.ndarray], marks: Marks, resamples: int) -> list[np.ndarray] | None:
    """Bootstrap means of each arm, [resamples]; ``None`` if a type has one prompt only.

    ``rows``: [training seeds, N] of each arm; those of one row are not drawn from.
    """
    means = resample_means(np.concatenate(rows), marks.prompts, marks.types, resamples)
    if means is None:
        return None
    draws, place, result = {}, 0, []
    for part in rows:
        count = len(part)
        if count not in draws:
            draws[count] = np.random.default_rng(count).integers(count, size=(resamples, count))
        own = _widened(means[:, place : place + count])
        result.append(np.take_along_axis(own, draws[count], axis=1).mean(axis=1))
        place += count
    return result


def _widened(means: np.ndarray) -> np.ndarray:
    """[resamples, n] with the same means over n, and deviations from them larger by sqrt(n / (n - 1))."""
    count = means.shape[1]
    if count == 1:
        return means
    middle = means.mean(axis=1, keepdims=True)
    return middle + (means - middle) * (count / (count - 1)) ** 0.5


def bounds(samples: np.ndarray | None) -> tuple[float | None, float | None]:
    """The middle 95%."""
    interval = Interval() if samples is None else percentile_interval(samples)
    return interval.low, interval.high


def properties(found: Evaluation, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """By type and property: share of pictures that have it, in percent; mean over the arms ``names``.

    A picture whose objects could not be told has none.
    """
    counts: dict[str, dict[str, list[bool]]] = {}
    for name in names:
        for picture in found.of(name):
            for what, right in picture.verdict.details.items():
                counts.setdefault(picture.type, {}).setdefault(what, []).append(bool(right))
    return {
        kind: {what: 100 * sum(marks) / len(marks) for what, marks in each.items()}
        for kind, each in counts.items()
    }
