"""Losses on held-out samples, with noise and timesteps that are the same every time."""

from __future__ import annotations

import torch
from torch import nn

from .feed import Feed
from .training_system import Losses


@torch.no_grad()
def validate(
    objective: Losses,
    adapter: nn.Module,
    feed: Feed,
    stage: str,
    accelerator,
    without_adapter: bool = False,
) -> dict[str, float]:
    """Means over the held-out samples, all processes together; {} if there are none.

    Args:
        adapter: in eval mode.
        without_adapter: measure the noise prediction at strength 0 too, which is what the base model does
            alone.
    """
    count = len(feed.data.samples(stage, "validation"))
    if not count:
        return {}
    sums = torch.zeros(5, device=accelerator.device)
    for batch in feed.validation(stage):
        with accelerator.autocast():
            losses = objective(adapter, batch, feed.backend)
            bare = objective(adapter, batch, feed.backend, 0.0) if without_adapter else losses
        sums += torch.stack([values.float().sum() for values in (*losses, bare.simple)])
    llm, cp, simple, total, bare = (accelerator.reduce(sums, "sum") / count).tolist()
    found = {"validation_loss": total, "validation_llm": llm, "validation_cp": cp}
    if stage == "full":
        found["validation_simple"] = simple
    if without_adapter:
        found["validation_simple_without_adapter"] = bare
    return found
