"""What can stop a training run, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .objective import Batch
from .training_config import TrainingConfig
from .training_state import Counters


class TrainingError(ValueError):
    """Training cannot go on: a loss is not a number, or memory ran out. The message says what to do."""


def not_a_number(
    config: TrainingConfig, step: int, batches: list[Batch], losses: list[torch.Tensor], accelerator=None
) -> TrainingError:
    """The error for a step whose losses or gradients are not finite; names the samples it comes from.

    With an ``accelerator`` of several processes, all must call this together.
    """
    broken = [
        name
        for batch, values in zip(batches, losses, strict=True)
        for name, finite in zip(batch.names, values.isfinite().tolist(), strict=True)
        if not finite
    ]
    names = [name for batch in batches for name in batch.names]
    if accelerator is not None and accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        broken, names = gather_object(broken), gather_object(names)
    if broken:
        where = f"of {', '.join(broken[:4])}{' and others' if len(broken) > 4 else ''}"
    else:
        where = f"of a gradient, from the samples {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
    fp16 = config.mixed_precision == "fp16"
    advice = "set mixed_precision to bf16 or no" if fp16 else "lower learning_rate"
    return TrainingError(
        f"step {step + 1}: NaN or infinite loss {where}. The weights were not changed by this step, and the "
        f"last saved state is untouched. Look at these samples (python -m train check), or {advice}"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or this machine has run out of memory, by the words of those that have no type."""
    words = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in words or "can't allocate memory" in words)
    )


@contextmanager
def encoding_advice(config: TrainingConfig) -> Iterator[None]:
    """Running out of memory while caching becomes a :class:`TrainingError` that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ways = [f"lower cache_batch_size, now {config.cache_batch_size}"] * (config.cache_batch_size > 1)
        ways += ["set vae_dtype to bf16"] * (config.vae_dtype == "fp32") + ["lower resolution"]
        raise TrainingError(
            f"out of memory while encoding for the cache. In this order: {'; '.join(ways)}. What was encoded "
            "so far is kept"
        ) from error


@contextmanager
def memory_advice(config: TrainingConfig, counters: Counters) -> Iterator[None]:
    """Running out of memory becomes a :class:`TrainingError` that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        ways = []
        if config.train_batch_size > 1:
            doubled = config.gradient_accumulation_steps * 2
            ways.append(
                f"halve train_batch_size to {config.train_batch_size // 2} and set "
                f"gradient_accumulation_steps to {doubled} (the same result, slower)"
            )
        if config.stage_of(counters.step) == "full" and not config.gradient_checkpointing:
            ways.append("turn on gradient_checkpointing")
        if config.mixed_precision == "no":
            ways.append("set mixed_precision to bf16 or fp16")
        if not (config.cache_latents and config.cache_text):
            ways.append("turn on cache_latents and cache_text, so that the encoders leave memory")
        ways.append("lower resolution")
        raise TrainingError(
            f"step {counters.step + 1}: out of memory with train_batch_size {config.train_batch_size}. In "
            f"this order: {'; '.join(ways)}. The last saved state is untouched"
        ) from error
