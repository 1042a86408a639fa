"""Which of several processes this is, as accelerate or torchrun started them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Processes:
    """Which of several processes this is.

    Attributes:
        rank, count: as accelerate counts them.
        barrier: waits for all of them.
    """

    rank: int = 0
    count: int = 1
    barrier: Callable[[], Any] = lambda: None

    @property
    def is_main(self) -> bool:
        return self.rank == 0


ALONE = Processes()
