"""KID: how far an arm's pictures are from reference pictures, as a distance between sets of features.

The unbiased estimate of the squared maximum mean discrepancy with the kernel k(x, y) = (x.y / D + 1)^3
(Binkowski et al., 2018), taken over all pictures at once; 0 for equal distributions, and small negative
values occur. The features here are a CLIP model's, not an Inception network's: compare the values with each
other only.

The estimate is unbiased for independent pictures, which those of one prompt are not: they show the same
thing. Where both sets are drawn from the same prompts, a picture would meet its prompt more often in the
other set than in its own, where it does not meet itself, and a perfect arm would come out below zero. So
prompts are taken for what is drawn independently: no two pictures of one prompt are compared, within a set or
across. A reference picture of no known prompt stands alone.

Intervals come from a bootstrap over prompts. A drawn prompt brings its pictures of all arms and its reference
pictures; references of other prompts, or of none, are drawn by themselves. A prompt that is drawn twice is
still not compared with itself, which would make every bootstrap sample look further away than the pictures
are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .statistics import Interval, percentile_interval

_BLOCK = 256


@dataclass(frozen=True)
class KID:
    """An arm's distance to the reference; less is nearer.

    Attributes:
        value, interval: of the arm itself.
        difference, difference_interval: arm minus baseline, both drawn from the same prompts and seeds, which
            the bootstrap keeps together; ``None`` for the baseline.
        pictures, references: how many of each.
        prompts: how many the pictures are of.
        references_of_prompts: how many of the references are of one of these prompts.
    """

    arm: str
    value: float
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    pictures: int
    references: int
    prompts: int
    references_of_prompts: int


def kid_value(
    features: torch.Tensor,
    reference: torch.Tensor,
    prompts: Sequence[Hashable] | None = None,
    reference_prompts: Sequence[Hashable | None] | None = None,
) -> float:
    """KID of features [N, D] against features [M, D]; arguments and errors as :func:`kid_of_arms`."""
    groups = _groups(len(features), len(reference), prompts, reference_prompts)
    return float(_estimator(features, reference, groups)(torch.ones(1, groups.count).double()))


def kid_of_arms(
    features: dict[str, torch.Tensor],
    reference: torch.Tensor,
    prompts: Sequence[Hashable] | None = None,
    reference_prompts: Sequence[Hashable | None] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[KID]:
    """KID of every arm, the first being the baseline.

    Args:
        features: arm -> [N, D], every arm's rows in the same order of (prompt, seed).
        reference: [M, D].
        prompts: each row's prompt [N]; ``None``: every picture is of a prompt of its own.
        reference_prompts: the same of the references [M], ``None`` for one of no known prompt.
        resamples, seed: of the bootstrap; one draw of prompts serves all arms.

    Raises:
        ValueError: pictures or references of fewer than two prompts, or arms of different lengths.
    """
    sizes = {len(rows) for rows in features.values()}
    if len(sizes) != 1:
        raise ValueError(f"KID needs as many pictures of each arm, found {sorted(sizes)}")
    groups = _groups(sizes.pop(), len(reference), prompts, reference_prompts)
    weights, all_once = groups.draw(resamples, seed), torch.ones(1, groups.count).double()
    results, base = [], None
    for arm, rows in features.items():
        estimate = _estimator(rows, reference, groups)
        value, samples = float(estimate(all_once)), estimate(weights).numpy()
        difference, bounds = None, None
        if base is None:
            base = value, samples
        else:
            difference, bounds = value - base[0], _interval(samples - base[1], confidence)
        results.append(
            KID(arm, value, _interval(samples, confidence), difference, bounds, len(rows), *groups.sizes)
        )
    return results


@dataclass(frozen=True)
class _Groups:
    """Prompts as numbers: from 0 to ``drawn`` - 1 those of pictures, then those that only references have.

    Attributes:
        pictures, references: each one's prompt [N], [M].
        drawn: prompts that have pictures.
        count: all prompts.
    """

    pictures: torch.Tensor
    references: torch.Tensor
    drawn: int
    count: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """References, prompts of pictures, and references of these prompts."""
        return len(self.references), self.drawn, int((self.references < self.drawn).sum())

    def draw(self, resamples: int, seed: int) -> torch.Tensor:
        """How often each prompt is in each bootstrap sample, [resamples, count]."""
        random = np.random.default_rng(seed)
        parts = [
            random.multinomial(size, np.full(size, 1 / size), size=resamples)
            for size in (self.drawn, self.count - self.drawn)
            if size
        ]
        return torch.from_numpy(np.concatenate(parts, axis=1)).double()


def _groups(pictures: int, references: int, prompts, reference_prompts) -> _Groups:
    ours = [("picture", number) for number in range(pictures)] if prompts is None else prompts
    theirs = [None] * references if reference_prompts is None else reference_prompts
    if (len(ours), len(theirs)) != (pictures, references):
        raise ValueError("KID needs a prompt for each picture and for each reference, or none at all")
    place: dict[Hashable, int] = {}
    own = [place.setdefault(prompt, len(place)) for prompt in ours]
    drawn = len(place)
    other = [
        place.setdefault(("reference", number) if prompt is None else prompt, len(place))
        for number, prompt in enumerate(theirs)
    ]
    if min(drawn, len(set(other))) < 2:
        raise ValueError(
            "KID needs pictures of two prompts or more, and references of two or more (one of no known "
            f"prompt counts by itself); found pictures of {drawn} and references of {len(set(other))}"
        )
    return _Groups(torch.tensor(own), torch.tensor(other), drawn, len(place))


def _interval(samples: np.ndarray, confidence: float) -> Interval:
    # A sample of one prompt only, which tiny sets produce, has no pairs and no value.
    defined = samples[np.isfinite(samples)]
    if len(defined) < len(samples) / 2:
        return Interval(confidence=confidence, note="too few prompts for a bootstrap")
    return percentile_interval(defined, confidence)


def _estimator(features, reference, groups: _Groups) -> Callable[[torch.Tensor], torch.Tensor]:
    """KID [K] for rows of weights [K, count]: how often each prompt is taken."""
    own = _mean_kernel(features, groups.pictures, features, groups.pictures)
    across = _mean_kernel(features, groups.pictures, reference, groups.references)
    other = _mean_kernel(reference, groups.references, reference, groups.references)

    def estimate(weights: torch.Tensor) -> torch.Tensor:
        return torch.cat([own(part) + other(part) - 2 * across(part) for part in weights.split(_BLOCK)])

    return estimate


def _mean_kernel(left, left_groups, right, right_groups) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mean of the kernel over all pairs of different prompts, for rows of weights of the prompts."""
    kernel = (left.double() @ right.double().T / left.shape[1] + 1.0) ** 3
    rows, columns = torch.bincount(left_groups).double(), torch.bincount(right_groups).double()
    sums = torch.zeros(len(rows), kernel.shape[1]).double().index_add_(0, left_groups, kernel)
    sums = torch.zeros(len(rows), len(columns)).double().index_add_(1, right_groups, sums)
    sums.fill_diagonal_(0.0)
    both = min(len(rows), len(columns))

    def mean(weights: torch.Tensor) -> torch.Tensor:
        ours, theirs = weights[:, : len(rows)], weights[:, : len(columns)]
        total = ((ours @ sums) * theirs).sum(-1)
        ours, theirs = ours * rows, theirs * columns
        same = (ours[:, :both] * theirs[:, :both]).sum(-1)
        return total / (ours.sum(-1) * theirs.sum(-1) - same)

    return mean
