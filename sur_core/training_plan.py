"""What a run will cost, said before it begins: steps, memory, operations and disk, from configurations alone.

Operations and activations are counted on torch's meta device, where tensors have shapes and no storage: no
weight is loaded and nothing is computed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from .backend import Backend
from .objective import Batch
from .training_config import STAGES, TrainingConfig
from .training_data import CacheBuilder, TrainingData
from .training_system import Losses, system_of

_BYTES = {"no": 4, "fp32": 4, "fp16": 2, "bf16": 2}


@dataclass
class StageCost:
    """One stage.

    Attributes:
        stage, steps, samples: its name, its steps, and the samples it has to choose from.
        macs_per_sample: multiply-adds of forward and backward of one sample, without VAE and text encoders,
            which run on every step only where caches are off.
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
    more: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        config = self.config
        found = [
            f"base model: {self.model}",
            *self.more,
            f"data: {self.train:,} samples to train on, {self.validation:,} held out, {self.left_out:,} left "
            "out",
            f"batch: {self.global_batch} samples a step, {config.train_batch_size} at a time, "
            f"{self.resolution} px",
            *(self._stage_line(cost) for cost in self.stages),
        ]
        for what, (count, size) in self.caches.items():
            found.append(f"to cache: {'up to ' if count else ''}{count:,} {what}, {size_words(size)}")
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
    system = system_of(config)
    feed = system.feed(config, data, backend, process=(0, processes))
    plan = Plan(
        config,
        feed.global_batch,
        feed.resolution,
        len(data.train),
        len(data.validation),
        len(data.surd.quarantined),
        model=backend.describe(),
        more=system.plan_lines(config, data, backend),
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


def size_words(size: float) -> str:
    """``"1.2 GB"``, ``"34 MB"``."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _stage_cost(
    config: TrainingConfig, data: TrainingData, backend: Backend, stage: str, steps: int, resolution: int
) -> StageCost:
    macs, activations = step_cost(config, data, backend, stage, resolution)
    adapter = sum(p.numel() for p in system_of(config).meta_adapter(config, data, backend).parameters())
    frozen = {"align": [], "full": ["unet"]}[stage]
    frozen += ["text"] * (not config.cache_text) + ["vae"] * (stage == "full" and not config.cache_latents)
    sizes = dict.fromkeys(("unet", "text"), _BYTES[config.mixed_precision])
    sizes["vae"] = _BYTES[config.vae_dtype]
    return StageCost(
        stage,
        steps,
        len(data.samples(stage)),
        macs,
        activations * config.train_batch_size,
        sum(backend.parameter_count(part) * sizes[part] for part in frozen) + adapter * 4,
        adapter * 4 * (3 + bool(config.ema_decay)),
    )


def step_cost(
    config: TrainingConfig, data: TrainingData, backend: Backend, stage: str, resolution: int
) -> tuple[float, float]:
    """(multiply-adds, bytes of activations) of forward and backward of one sample; the UNet in the backend's
    type, the adapter in 32 bits.
    """
    from torch.utils.flop_counter import FlopCounterMode

    system, model = system_of(config), None
    adapter = system.meta_adapter(config, data, backend).train()
    objective = system.objective(config, data, backend, "meta")
    batch = system.meta_batch(config, data, backend)
    weights = [*adapter.parameters(), *objective.constants]
    if stage == "full":
        model = _ModelWithoutNumbers(config, backend, resolution)
        weights += model.unet.parameters()
        batch.latents = batch.noise = model.inputs["sample"].float()
        batch.timesteps = model.inputs["timestep"]
    saved = _SavedBytes(weights)
    with FlopCounterMode(display=False) as counter, saved, _fused_attention():
        objective(adapter, batch, model).total.sum().backward()
    recomputed = 0
    if model is not None and config.gradient_checkpointing:
        whole = _ModelWithoutNumbers(config.with_values(gradient_checkpointing=False), backend, resolution)
        recomputed = _largest_block(objective, adapter, batch, whole)
    return counter.get_total_flops() / 2, saved.total + recomputed


def _largest_block(objective: Losses, adapter, batch: Batch, model: _ModelWithoutNumbers) -> int:
    """Bytes that the largest block keeps: with gradient checkpointing, one at a time is recomputed."""
    largest, begun = 0, []
    saved = _SavedBytes([*model.unet.parameters(), *adapter.parameters()])

    def end(*_):
        nonlocal largest
        largest = max(largest, saved.total - begun.pop())

    for module in model.unet.modules():
        if type(module).__name__ in ("ResnetBlock2D", "BasicTransformerBlock"):
            module.register_forward_pre_hook(lambda *_: begun.append(saved.total))
            module.register_forward_hook(end)
    with saved, _fused_attention():
        objective(adapter, batch, model)
    return largest


class _ModelWithoutNumbers:
    """What :class:`Objective` asks of a backend, on meta."""

    def __init__(self, config: TrainingConfig, backend: Backend, resolution: int):
        self.unet = backend.unet_on_meta().requires_grad_(False)
        if config.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.unet.train()
        self.inputs = backend.meta_inputs(1, resolution)
        self.prediction_type = backend.prediction_type
        self.alphas_cumprod = torch.empty(len(backend.alphas_cumprod), device="meta")

    def attach(self, adapter):
        from .llmdiff.diffusers_unet import attach

        return attach(self.unet, adapter).__enter__()

    def predict_noise(self, noisy, timesteps, hidden, pooled=None, time_ids=None) -> torch.Tensor:
        hidden = hidden.to(self.inputs["sample"].dtype)
        return self.unet(**{**self.inputs, "encoder_hidden_states": hidden}).sample.float()


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Adds up what autograd keeps for the backward pass, each storage once and ``weights`` not at all."""

    def __init__(self, weights: list[torch.Tensor]):
        # Storages are held, so that no other gets the address of one that is gone.
        self._seen = {w.untyped_storage()._cdata: w.untyped_storage() for w in weights}
        self.total = 0
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.total += storage.nbytes()
        return tensor


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as GPUs compute it. On meta it would be written out and seem to keep maps of T x T numbers,
    more than all other activations together.
    """
    functional = torch.nn.functional
    own = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda q, k, v, *_, **__: _AttentionProducts.apply(q, k, v)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own


class _AttentionProducts(torch.autograd.Function):
    """The matrix products of attention, for shapes and counts alone; keeps what a fused kernel keeps."""

    @staticmethod
    def forward(ctx, query, key, value):
        output = (query @ key.transpose(-1, -2)) @ value
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, _ = ctx.saved_tensors
        of_map = gradient @ value.transpose(-1, -2)
        transposed = of_map.transpose(-1, -2)
        wanted = ctx.needs_input_grad
        return (
            of_map @ key if wanted[0] else None,
            transposed @ query if wanted[1] else None,
            transposed @ gradient if wanted[2] else None,
        )
