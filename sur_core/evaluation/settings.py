"""How an evaluation draws and counts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SCHEDULERS = ("keep", "ddim", "dpmpp_2m", "euler")
DTYPES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of :func:`sur_core.evaluation.evaluate`. ValueError for impossible values.

    Attributes:
        output_dir: where pictures, features and tables go; a later run goes on with what is there.
        seeds: of each picture's noise; every arm draws every prompt once from each.
        steps, guidance_scale: of the pipeline.
        scheduler: ``"keep"`` the model's own, or ``"ddim"``, ``"dpmpp_2m"``, ``"euler"``.
        width, height: of the pictures in pixels; 0 takes the model's own size.
        batch_size: pictures drawn at once.
        clip_skip: 1 for the text encoder's last layer, 2 for the one before it; as in training.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...; a pipeline that is given as an object stays where it
            is, and CLIP goes to the same place.
        dtype: of the weights of a model given by path: ``"fp32"``, ``"bf16"``, ``"fp16"``.
        llm_device: where the language models of LLMDiff-Adapters read prompts; ``"auto"``: where is drawn.
        resamples, confidence, bootstrap_seed: of the bootstrap intervals.
    """

    output_dir: str | os.PathLike
    seeds: tuple[int, ...] = tuple(range(10))
    steps: int = 20
    guidance_scale: float = 7.5
    scheduler: str = "keep"
    width: int = 0
    height: int = 0
    batch_size: int = 8
    clip_skip: int = 1
    device: str = "auto"
    dtype: str = "fp32"
    llm_device: str = "auto"
    resamples: int = 10_000
    confidence: float = 0.95
    bootstrap_seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "output_dir", Path(self.output_dir))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        _check(len(self.seeds) > 0, "seeds", "at least one", self.seeds)
        _check(
            all(_whole(seed, 0, 2**63 - 1) for seed in self.seeds), "seeds", "whole, 0 or more", self.seeds
        )
        _check(len(set(self.seeds)) == len(self.seeds), "seeds", "all different", self.seeds)
        for name in ("steps", "batch_size", "clip_skip"):
            _check(_whole(getattr(self, name), 1), name, "a whole number from 1", getattr(self, name))
        for name in ("width", "height"):
            _check(_whole(getattr(self, name), 0), name, "a whole number, 0 or more", getattr(self, name))
        _check(_number(self.guidance_scale), "guidance_scale", "a number", self.guidance_scale)
        _check(self.scheduler in SCHEDULERS, "scheduler", f"one of {', '.join(SCHEDULERS)}", self.scheduler)
        _check(self.dtype in DTYPES, "dtype", f"one of {', '.join(DTYPES)}", self.dtype)
        _check(_whole(self.resamples, 100), "resamples", "a whole number from 100", self.resamples)
        _check(_whole(self.bootstrap_seed, 0), "bootstrap_seed", "whole, 0 or more", self.bootstrap_seed)
        sure = _number(self.confidence) and 0.5 <= self.confidence < 1
        _check(sure, "confidence", "from 0.5 to below 1", self.confidence)


def _check(fine: bool, name: str, expected: str, found) -> None:
    if not fine:
        raise ValueError(f"{name}: expected {expected}, found {found!r}")


def _whole(value, low: int, high: int | None = None) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and value >= low and (high is None or value <= high)


def _number(value) -> bool:
    return isinstance(value, int | float) and abs(value) < float("inf")
