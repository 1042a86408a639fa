"""How far a stage is, how fast it goes, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

_GUESS_AFTER = 5


class StageProgress:
    """A bar for one stage, since steps of different stages take very different times."""

    def __init__(
        self, stage: str, done: int, total: int, batch: int, say: Callable[[str], None], shown: bool = True
    ):
        """
        Args:
            done, total: steps of the stage.
            batch: samples of a step.
            say: is told a guess of the whole time after the first steps.
            shown: draw the bar, where tqdm is installed.
        """
        self._stage, self._left, self._batch, self._say = stage, total - done, batch, say
        self._steps, self._began = 0, 0.0
        self._bar = _bar(stage, done, total) if shown else None

    def step(self, loss: float) -> None:
        """A step has ended."""
        self._steps += 1
        if self._steps == 1:  # the first one also pays for loading and warming up
            self._began = time.monotonic()
        each = (time.monotonic() - self._began) / (self._steps - 1) if self._steps > 1 else 0.0
        if self._steps == _GUESS_AFTER and self._left > 10 * _GUESS_AFTER:
            guess = duration_words(each * (self._left - self._steps))
            self._say(f"stage {self._stage}: {each:.2g} s a step, about {guess} to go")
        if self._bar is not None:
            speed = f"{self._batch / each:.3g} samples/s, " if each else ""
            self._bar.set_postfix_str(f"{speed}loss {loss:.5g}", refresh=False)
            self._bar.update(1)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def duration_words(seconds: float) -> str:
    """``"3 h 20 min"``, ``"4 min"``, ``"12 s"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _bar(stage: str, done: int, total: int):
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(initial=done, total=total, desc=f"stage {stage}", unit="step", dynamic_ncols=True)
