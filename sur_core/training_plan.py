"""What a run will cost, said before it begins: steps, memory, operations and disk, from configurations alone.

Operations and activations are counted on torch's meta device, where tensors have shapes and no storage: no
weight is loaded and nothing is computed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field

import torch

from .backend import Backend
from .bundle import new_adapter
from .feed import Feed
from .objective import Batch, Objective
from .training_config import STAGES, TrainingConfig
from .training_data import CacheBuilder, TrainingData

_BYTES = {"no": 4, "fp32": 4, "fp16": 2, "bf16": 2}


@dataclass
class StageCost:
    """One stage.

    Attributes:
        stage, steps, samples: its name, its steps, and the samples it has to choose from.
        macs_per_sample: multiply-adds of forward and backward of one sample.
        activation_bytes: kept for the backward pass, for one batch of one process.
        weight_bytes: of the frozen parts and the adapter.
        optimizer_bytes: gradients, AdamW's moments, running mean.
    """

    stage: str
    steps: int
    samples: int
    macs_per_sample: float
    activation_bytes: float
    weight_bytes: float
    optimizer_bytes: float


@dataclass
class Plan:
    """What :func:`plan_training` returns; :meth:`lines` says it to people."""

    config: TrainingConfig
    global_batch: int
    resolution: int
    train: int
    validation: int
    left_out: int
    stages: list[StageCost] = field(default_factory=list)
    caches: dict[str, tuple[int, int]] = field(default_factory=dict)
    cache_free: int = 0
    model: str = ""

    def lines(self) -> list[str]:
        config = self.config
        found = [
            f"base model: {self.model}",
            f"data: {self.train:,} samples to train on, {self.validation:,} held out, {self.left_out:,} left "
            "out",
            f"batch: {self.global_batch} samples a step, {config.train_batch_size} at a time, "
            f"{self.resolution} px",
            *(self._stage_line(cost) for cost in self.stages),
        ]
        for what, (count, size) in self.caches.items():
            found.append(f"to cache: {count:,} {what}, {size / 1e9:.2f} GB")
        if self.caches:
            found.append(f"cache folder: {config.cache_folder}, {self.cache_free / 1e9:.1f} GB free")
        return found

    def _stage_line(self, cost: StageCost) -> str:
        epochs = cost.steps * self.global_batch / max(1, cost.samples)
        memory = cost.weight_bytes + cost.optimizer_bytes + cost.activation_bytes
        return (
            f"stage {cost.stage}: {cost.steps:,} steps ({epochs:.2f} epochs), "
            f"{cost.macs_per_sample / 1e9:,.2f} GMAC a sample, about {memory / 1e9:.2f} GB of memory "
            f"(weights {cost.weight_bytes / 1e9:.2f}, gradients and optimiser "
            f"{cost.optimizer_bytes / 1e9:.2f}, activations {cost.activation_bytes / 1e9:.2f})"
        )


def plan_training(config: TrainingConfig, data: TrainingData, backend: Backend, processes: int = 1) -> Plan:
    """Estimate a run. Loads no weights and encodes nothing."""
    feed = Feed(config, data, backend, process=(0, processes))
    plan = Plan(
        config,
        feed.global_batch,
        feed.resolution,
        len(data.train),
        len(data.validation),
        len(data.surd.quarantined),
        model=backend.describe(),
    )
    for stage in STAGES:
        steps = config.align_steps if stage == "align" else config.full_steps
        if steps:
            plan.stages.append(_stage_cost(config, data, backend, stage, steps, feed.resolution))
    plan.caches = CacheBuilder(config, data, backend).missing(latents=bool(config.full_steps))
    existing = config.cache_folder
    while not existing.exists():
        existing = existing.parent
    plan.cache_free = shutil.disk_usage(existing).free
    return plan


def _stage_cost(
    config: TrainingConfig, data: TrainingData, backend: Backend, stage: str, steps: int, resolution: int
) -> StageCost:
    macs, activations = step_cost(config, data, backend, stage, resolution)
    adapter = sum(p.numel() for p in _meta_adapter(config, backend).parameters())
    frozen = {"align": [], "full": ["unet"]}[stage]
    frozen += ["text"] * (not config.cache_text) + ["vae"] * (stage == "full" and not config.cache_latents)
    size = _BYTES[config.mixed_precision]
    return StageCost(
        stage,
        steps,
        len(data.samples(stage)),
        macs,
        activations * config.train_batch_size * (0.5 if config.mixed_precision != "no" else 1),
        sum(backend.parameter_count(part) * size for part in frozen) + adapter * 4,
        adapter * 4 * (3 + bool(config.ema_decay)),
    )


def step_cost(
    config: TrainingConfig, data: TrainingData, backend: Backend, stage: str, resolution: int
) -> tuple[float, float]:
    """(multiply-adds, bytes of activations) of forward and backward of one sample in 32 bit."""
    from torch.utils.flop_counter import FlopCounterMode

    adapter = _meta_adapter(config, backend).train()
    llm_width = data.knowledge.width if data.knowledge else None
    objective = Objective(config, dict(backend.widths), llm_width, "meta")
    width = sum(backend.widths.values())
    hidden = torch.empty(1, 77, width, device="meta")
    batch = Batch([0], [""], hidden, torch.ones(1, 77, device="meta", dtype=torch.bool))
    batch.complex = hidden.clone() if config.lambda_cp else None
    batch.knowledge = torch.empty(1, llm_width, device="meta") if llm_width else None
    saved = _SavedBytes()
    with FlopCounterMode(display=False) as counter, saved:
        objective(adapter, batch, None).total.sum().backward()
        if stage == "full":
            unet = backend.unet_on_meta().requires_grad_(False)
            if config.gradient_checkpointing:
                unet.enable_gradient_checkpointing()
                unet.train()
            inputs = backend.meta_inputs(1, resolution)
            inputs["encoder_hidden_states"] = hidden.clone().requires_grad_(True)
            unet(**inputs).sample.sum().backward()
    return counter.get_total_flops() / 2, saved.total


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Adds up what autograd keeps for the backward pass; weights and what is kept twice count once or not."""

    def __init__(self):
        self.total, self._seen = 0, {}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter) and storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage  # held, so that no other storage gets its address
            self.total += tensor.numel() * tensor.element_size()
        return tensor


def _meta_adapter(config: TrainingConfig, backend: Backend):
    names = ("depth", "heads", "feedforward", "dropout", "token_mixing", "query_projection")
    return new_adapter(dict(backend.widths), **{name: getattr(config, name) for name in names}).to("meta")
