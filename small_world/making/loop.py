"""One training loop for all models of the small world: counted randomness, checkpoints, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from sur_core.atomic import atomic_write

from .kept import digest
from .processes import average_gradients, rank

SAVE_EVERY = 60.0  # seconds
LOG_EVERY = 50  # steps


@dataclass(frozen=True)
class Plan:
    """How a model is raised.

    Attributes:
        steps, batch_size: as usual.
        learning_rate: the peak of a cosine that starts with ``warmup`` linear steps and ends at zero.
        weight_decay: AdamW's.
        ema: decay of the moving average that is kept as the result; 0 keeps the last weights.
        seed: of everything drawn.
        bf16: compute in bfloat16 where torch's autocast does.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    ema: float = 0.0
    seed: int = 0
    bf16: bool = False

    def rate(self, step: int) -> float:
        """Factor on the learning rate at a step, 0..1."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup))


def generator(seed: int, step: int) -> torch.Generator:
    """Everything random in a step is drawn from this, so that a resumed run repeats it."""
    return torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)


def raise_model(
    name: str,
    model: nn.Module,
    loss_of: Callable[[int, torch.Generator], torch.Tensor],
    plan: Plan,
    state_path: Path,
    report: Callable[[str, int, int], None],
    device: torch.device,
    source: str = "",
) -> None:
    """Train ``model`` in place; what was done before is taken from ``state_path``.

    Args:
        loss_of: the loss of a step, given its number and its generator.
        source: says what the model learns from. With the weights it starts with it ties ``state_path`` to
            this training.

    Raises:
        ValueError: ``state_path`` is from another plan, another source or another start.
    """
    trained = dict(model.named_parameters())
    rate, decay = plan.learning_rate, plan.weight_decay
    optimizer = torch.optim.AdamW(trained.values(), rate, (0.9, 0.99), weight_decay=decay, fused=True)
    averaged = {key: value.detach().clone() for key, value in trained.items()} if plan.ema else {}
    settings = {**asdict(plan), "source": source, "start": digest(model.state_dict())}
    start = _resume(state_path, settings, model, optimizer, averaged)
    state_path.parent.mkdir(parents=True, exist_ok=True)
    model.train()
    saved = time.monotonic()
    for step in range(start, plan.steps):
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.bf16):
            loss = loss_of(step, generator(plan.seed, step))
        _learn(loss, trained, optimizer, rate * plan.rate(step))
        _average(averaged, trained, min(plan.ema, (step + 1) / (step + 10)))
        if rank():
            continue  # the first process speaks and saves for all
        report(name, step + 1, plan.steps)
        if step % LOG_EVERY == 0:
            _log(state_path, step, loss)
        if time.monotonic() - saved > SAVE_EVERY or step + 1 == plan.steps:
            _save(state_path, settings, model, optimizer, averaged, step + 1)
            saved = time.monotonic()
    model.load_state_dict(averaged, strict=False)  # there may be none, and buffers have no average
    model.eval()


def _learn(loss: torch.Tensor, trained: dict, optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss.backward()
    average_gradients(list(trained.values()))
    nn.utils.clip_grad_norm_(trained.values(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _log(state_path: Path, step: int, loss: torch.Tensor) -> None:
    with open(state_path.with_suffix(".log"), "a", encoding="utf-8") as file:
        file.write(f"step {step} loss {loss.item():.5f}\n")


@torch.no_grad()
def _average(averaged: dict, trained: dict, decay: float) -> None:
    if averaged:
        torch._foreach_lerp_(list(averaged.values()), [p.detach() for p in trained.values()], 1 - decay)


def _save(path: Path, settings: dict, model, optimizer, averaged, done: int) -> None:
    state = {
        "settings": settings,
        "done": done,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "averaged": averaged,
    }
    with atomic_write(path) as file:
        torch.save(state, file)


def _resume(path: Path, settings: dict, model, optimizer, averaged) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    found = state.get("settings", {})
    other = [
        f"{key} {found.get(key)!r}, now {value!r}"
        for key, value in settings.items()
        if found.get(key) != value
    ]
    if other:
        raise ValueError(
            f"{path}: from a run with other settings ({'; '.join(other)}). Delete this file to train anew"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for key, value in averaged.items():
        value.copy_(state["averaged"][key])
    return state["done"]
