"""Where a training run stands: weights, running mean, optimiser and counters, in one file, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import nn

from .atomic import atomic_write
from .training_config import TrainingConfig, changed_settings

STATE_FILE = "state.safetensors"
_KEY = "sur.training"


class TrainingStateError(ValueError):
    """A state file is damaged, or belongs to a run with other settings or data."""


@dataclass
class Counters:
    """What a run must remember besides tensors.

    Attributes:
        step: optimiser steps taken.
        global_batch: samples of a step, all processes together.
        best: smallest validation loss of the stage so far; ``None`` before the first.
        without_adapter: the noise prediction's error on the validation part without the adapter, once known.
        seconds: time spent training, over all restarts.
        interrupted: the run was stopped after this step, before what is due between steps.
        window: sums since the last row of the log.
        sources: fingerprints of model, data and what else is read.
        scaler: state of fp16's loss scaling.
    """

    step: int = 0
    global_batch: int = 0
    best: float | None = None
    without_adapter: float | None = None
    seconds: float = 0.0
    interrupted: bool = False
    window: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)


def save_state(
    folder: Path,
    config: TrainingConfig,
    counters: Counters,
    adapter: nn.Module,
    ema: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write ``state.safetensors``; a crash leaves the old one or the new one. Raises ``OSError``."""
    tensors = {f"adapter.{name}": value for name, value in adapter.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.items()}
    for name, parameter in adapter.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    described = json.dumps({"counters": asdict(counters), "config": asdict(config)})
    with atomic_write(folder / STATE_FILE) as file:
        file.write(to_safetensors(tensors, metadata={_KEY: described}))


def read_counters(folder: Path) -> tuple[Counters, dict[str, Any]] | None:
    """Counters and settings of the last saved state; ``None`` where there is none. Reads no tensor.

    Raises:
        TrainingStateError: the file is damaged or foreign.
    """
    return _read(folder, lambda file: None)[:2] if (folder / STATE_FILE).exists() else None


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the last saved state, for :func:`restore`. Errors as :func:`read_counters`."""
    return _read(folder, lambda file: {n: file.get_tensor(n).clone() for n in file.keys()})[2]  # noqa: SIM118


def _read(folder: Path, read: Callable) -> tuple[Counters, dict[str, Any], Any]:
    path = folder / STATE_FILE
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {})[_KEY])
            return Counters(**described["counters"]), described["config"], read(file)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise TrainingStateError(
            f"{path}: not a readable training state ({error}). Give --restart to begin anew, or another "
            "output_dir"
        ) from error


def check_same_run(
    folder: Path, config: TrainingConfig, now: Counters, saved: Counters, old_config: dict[str, Any]
) -> str:
    """Refuse to go on with settings or data that would not give the result of one uninterrupted run.

    Returns:
        A note for the user, ``""`` where there is nothing to note.

    Raises:
        TrainingStateError: saying what changed.
    """
    found = changed_settings(old_config, config)
    if saved.global_batch != now.global_batch:
        found.append(
            f"a step had {saved.global_batch} samples, now has {now.global_batch} (train_batch_size x "
            "gradient_accumulation_steps x processes)"
        )
    for name in sorted(saved.sources.keys() & now.sources.keys()):
        if saved.sources[name] != now.sources[name]:
            found.append(f"the {name} changed")
    if config.total_steps < saved.step:
        found.append(f"{saved.step} steps are done, more than the {config.total_steps} asked for")
    if found:
        raise TrainingStateError(
            f"{folder}: holds a run that stopped at step {saved.step}, and these settings would not go on "
            f"with it: {'; '.join(found)}. Put them back, or choose another output_dir (init_from can start "
            "from this run's adapter), or give --restart to throw the old run away"
        )
    if (old_config["train_batch_size"], old_config["gradient_accumulation_steps"]) != (
        config.train_batch_size,
        config.gradient_accumulation_steps,
    ):
        return (
            "the batch is split in another way than before: same samples and noise, but sums are rounded in "
            "another order, so the result is equal only to about 1e-5"
        )
    return ""


def restore(
    tensors: dict[str, torch.Tensor],
    adapter: nn.Module,
    ema: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Put the tensors of :func:`read_tensors` back, in place."""
    device = next(adapter.parameters()).device
    adapter.load_state_dict({name: tensors[f"adapter.{name}"] for name in adapter.state_dict()})
    for name in ema:
        ema[name].copy_(tensors[f"ema.{name}"])
    for name, parameter in adapter.named_parameters():
        prefix = f"optimizer.{name}."
        mine = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if mine:  # AdamW keeps its step count on the CPU
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(device) for key, value in mine.items()
            }
