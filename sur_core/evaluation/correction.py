"""Many tests in one table: Holm's correction keeps the chance of any false finding at the level asked."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values by Holm's step-down method (1979), in the order given.

    With the m defined p-values sorted, p_1 <= ... <= p_m, the adjusted one is the largest
    of (m - i + 1) p_i up to its place, at most 1. To reject what is adjusted to 0.05 or less keeps the chance
    of one or more false rejections in the table at 5%, whatever the tests have to do with each other.

    Args:
        p_values: of one table; ``None`` where a test is not defined. These are not counted and stay ``None``.

    Raises:
        ValueError: a value that is no probability.
    """
    for value in p_values:
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"Holm's correction needs p-values from 0 to 1, found {value!r}")
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted
