"""KID: how far an arm's pictures are from reference pictures, as a distance between sets of features.

The unbiased estimate of the squared maximum mean discrepancy with the kernel k(x, y) = (x.y / D + 1)^3
(Binkowski et al., 2018), taken over all pictures at once; 0 for equal distributions, and small negative
values occur. The features here are a CLIP model's, not an Inception network's: compare the values with each
other only.

Intervals come from a bootstrap over pictures, of both sets. A picture drawn twice is never compared with
itself, which would make every bootstrap sample look further away than the pictures are.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    arm: str
    value: float
    interval: Interval
    difference: float | None
    difference_interval: Interval | None
    pictures: int
    references: int


def kid_value(features: torch.Tensor, reference: torch.Tensor) -> float:
    """KID of features [N, D] against features [M, D], N and M at least 2, not necessarily equal."""
    within, across, other = _kernels(features, reference)
    n, m = len(features), len(reference)
    own = within.sum() / (n * (n - 1)) + other.sum() / (m * (m - 1))
    return float(own - 2 * across.mean())


def kid_of_arms(
    features: dict[str, torch.Tensor],
    reference: torch.Tensor,
    *,
    resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[KID]:
    """KID of every arm, the first being the baseline.

    Args:
        features: arm -> [N, D], every arm's rows in the same order of (prompt, seed).
        reference: [M, D].
        resamples, seed: of the bootstrap; one draw of pictures serves all arms.

    Raises:
        ValueError: fewer than two pictures or references, or arms of different lengths.
    """
    sizes = {len(rows) for rows in features.values()}
    if len(sizes) != 1 or min(sizes) < 2 or len(reference) < 2:
        raise ValueError(
            "KID needs at least two pictures of every arm, as many of each, and two reference pictures; "
            f"found {sorted(sizes)} and {len(reference)}"
        )
    n, m = sizes.pop(), len(reference)
    draw = np.random.default_rng(seed)
    picks = torch.from_numpy(draw.multinomial(n, np.full(n, 1 / n), size=resamples)).double()
    others = torch.from_numpy(draw.multinomial(m, np.full(m, 1 / m), size=resamples)).double()
    results, base = [], None
    for arm, rows in features.items():
        value, samples = kid_value(rows, reference), _resampled(rows, reference, picks, others)
        difference, bounds = None, None
        if base is None:
            base = value, samples
        else:
            difference, bounds = value - base[0], _interval(samples - base[1], confidence)
        results.append(KID(arm, value, _interval(samples, confidence), difference, bounds, n, m))
    return results


def _interval(samples: np.ndarray, confidence: float) -> Interval:
    # A sample of one picture only, which tiny sets produce, has no pairs and no value.
    defined = samples[np.isfinite(samples)]
    if len(defined) < len(samples) / 2:
        return Interval(confidence=confidence, note="too few pictures for a bootstrap")
    return percentile_interval(defined, confidence)


def _resampled(rows, reference, picks: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    """KID for every row of counts: how often each picture and each reference is drawn."""
    within, across, other = _kernels(rows, reference)
    values = []
    for start in range(0, len(picks), _BLOCK):
        w, v = picks[start : start + _BLOCK], others[start : start + _BLOCK]
        values.append(_mean_of_pairs(within, w) + _mean_of_pairs(other, v) - 2 * _mean_of_cross(across, w, v))
    return torch.cat(values).numpy()


def _mean_of_pairs(kernel: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    pairs = weights.sum(-1) ** 2 - (weights**2).sum(-1)
    return ((weights @ kernel) * weights).sum(-1) / pairs


def _mean_of_cross(kernel: torch.Tensor, weights: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return ((weights @ kernel) * others).sum(-1) / (weights.sum(-1) * others.sum(-1))


def _kernels(features: torch.Tensor, reference: torch.Tensor) -> Sequence[torch.Tensor]:
    """Kernel matrices (own, own to reference, reference), float64; no picture is compared with itself."""
    x, y = features.double(), reference.double()

    def kernel(left, right):
        return (left @ right.T / left.shape[1] + 1.0) ** 3

    own, across, other = kernel(x, x), kernel(x, y), kernel(y, y)
    return own.fill_diagonal_(0.0), across, other.fill_diagonal_(0.0)
