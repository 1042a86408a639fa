"""What a step costs here, and how many steps of one kind are worth the default's compute."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sur_core.atomic import atomic_write
from sur_core.training_config import TrainingConfig

_LONG = 1_000_000
_ALIGN_STEPS, _WARM_UP = 5, 2


@dataclass(frozen=True)
class Costs:
    """Seconds of one optimiser step of each stage, and of drawing and judging one picture."""

    align_step: float
    full_step: float
    picture: float

    def seconds(self, config: TrainingConfig) -> float:
        """Of all steps of a run."""
        return config.align_steps * self.align_step + config.full_steps * self.full_step

    def align_steps_worth(self, config: TrainingConfig) -> int:
        """Align steps that cost what the run costs."""
        return max(1, round(self.seconds(config) / self.align_step))

    def full_steps_worth(self, config: TrainingConfig) -> int:
        """Full steps that cost what the run costs."""
        return max(1, round(self.seconds(config) / self.full_step))


def kept(path: Path, measure: Callable[[], Costs]) -> Costs:
    """What was measured before, or is now; kept, since the number of steps of some adapters follows."""
    if path.is_file():
        return Costs(**json.loads(path.read_text("utf-8")))
    costs = measure()
    with atomic_write(path) as file:
        file.write(json.dumps(asdict(costs)).encode())
    return costs


def endless(config: TrainingConfig) -> TrainingConfig:
    """The same training with more steps of both stages than will be taken."""
    return config.with_values(align_steps=_LONG, full_steps=_LONG)


def seconds_of_steps(trainer, turns: int) -> tuple[float, float]:
    """Of an align and a full step, medians. They take turns, so that a change of the machine's speed meets
    both.

    Args:
        trainer: a Trainer of :func:`endless` settings that has not begun.
    """
    trainer.backend.load("unet")
    steps = {
        "align": trainer.feed.steps("align", 0, _LONG),
        "full": trainer.feed.steps("full", _LONG, 2 * _LONG),
    }
    repeats, taken = {"align": _ALIGN_STEPS, "full": 1}, {"align": [], "full": []}
    try:
        for turn in range(turns + _WARM_UP):
            for stage in ("align", "full") if turn % 2 else ("full", "align"):
                began = time.perf_counter()
                for _ in range(repeats[stage]):
                    step, batches = next(steps[stage])
                    trainer._step(step, batches, 0)
                if turn >= _WARM_UP:
                    taken[stage].append((time.perf_counter() - began) / repeats[stage])
    finally:
        for feeding in steps.values():
            feeding.close()
    return statistics.median(taken["align"]), statistics.median(taken["full"])
