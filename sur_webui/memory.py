"""What the adapter has made of each prompt, so that a prompt is read once and not at every step."""

from __future__ import annotations

from collections.abc import Callable

import torch


class AdaptedPrompts:
    """Adapted prompts, found again by their content.

    The hosts stack a new tensor from the same encoded prompts at every step, so neither its identity nor its
    address says anything. Each row is a prompt of its own: one of a batch, a part of an AND-composition, a
    stage of prompt editing. Rows are adapted one by one; a picture does not depend on what else is in its
    batch.
    """

    def __init__(self, adapt: Callable[[list[torch.Tensor]], list[torch.Tensor]], limit: int = 64 << 20):
        """
        Args:
            adapt: takes new prompts, each [T, D], and returns each adapted.
            limit: bytes to keep; the prompt unused for longest goes first.
        """
        self._adapt = adapt
        self._limit = limit
        self._rows: list[tuple[torch.Tensor, torch.Tensor]] = []  # (before, after), last used first

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """``hidden`` [B, T, D] adapted. A new tensor: what is remembered cannot be changed through it."""
        new: list[torch.Tensor] = []
        for row in hidden:
            if self._find(row) is None and not any(_same(row, other) for other in new):
                new.append(row.clone())  # a view would keep the whole batch alive, and follow its changes
        if new:
            self._rows[:0] = zip(new, self._adapt(new), strict=True)
        result = torch.stack([self._find(row) for row in hidden])
        self._forget()
        return result

    def clear(self) -> None:
        self._rows.clear()

    def _find(self, row: torch.Tensor) -> torch.Tensor | None:
        for index, (before, after) in enumerate(self._rows):
            if _same(before, row):
                self._rows.insert(0, self._rows.pop(index))
                return after
        return None

    def _forget(self) -> None:
        while len(self._rows) > 1 and sum(2 * before.nbytes for before, _ in self._rows) > self._limit:
            self._rows.pop()


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To the bit: a prompt that is NaN must be found again too, for the host to say so in its own words."""
    if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
        return False
    bits = _BITS[one.element_size()]
    return torch.equal(one.view(bits), other.view(bits))
