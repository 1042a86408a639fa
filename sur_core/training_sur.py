"""SUR in the trainer: the paper's three losses, its vectors, and adapters that act on text embeddings."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .backend import Backend
from .bundle import SURAdapterBundle, new_adapter
from .checkpoint import save_adapter
from .feed import Feed
from .knowledge import KnowledgeVectors, open_knowledge
from .objective import Batch, Objective
from .randomness import CountedDropout
from .surd import Surd
from .training_config import ARCHITECTURE, TrainingConfig
from .training_data import CacheBuilder, TrainingData
from .training_samples import draw_samples
from .training_setup import content_hash, first_adapter
from .training_system import ExtraCache, refuse_changed

_LLMDIFF = tuple(spec.name for spec in fields(TrainingConfig) if spec.metadata["section"] == "llmdiff")


class SurSystem:
    """:class:`.training_system.System` of SUR."""

    panels = {
        "loss": "total loss (Eq. 10)",
        "llm": "distillation (Eq. 5)",
        "cp": "complex prompt (Eq. 9)",
        "simple": "diffusion (Eq. 8)",
    }

    def check(self, config: TrainingConfig) -> None:
        refuse_changed(config, _LLMDIFF, "Set system to 'llmdiff' to train an LLMDiff-Adapter")

    def open(self, config: TrainingConfig, data: TrainingData) -> None:
        if config.lambda_llm:
            data.knowledge, data.knowledge_rows = _find_knowledge(config, data.surd)

    def columns(self, config: TrainingConfig) -> tuple[str, ...]:
        return "simple", "complex"

    def more_prompts(self, config: TrainingConfig) -> tuple[str, ...]:
        return ()

    def caches(self, builder: CacheBuilder) -> list[ExtraCache]:
        return []

    def first_adapter(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> SURAdapterBundle:
        return first_adapter(config, data, backend).requires_grad_(True)

    def meta_adapter(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> SURAdapterBundle:
        architecture = {name: getattr(config, name) for name in ARCHITECTURE}
        return new_adapter(dict(backend.widths), **architecture).to("meta")

    def decays(self, parameter: torch.Tensor) -> bool:
        return True

    def objective(
        self, config: TrainingConfig, data: TrainingData, backend: Backend, device: torch.device | str
    ) -> Objective:
        llm_width = data.knowledge.width if data.knowledge else None
        return Objective(config, dict(backend.widths), llm_width, device)

    def feed(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        device: torch.device | str = "cpu",
        process: tuple[int, int] = (0, 1),
    ) -> Feed:
        return Feed(config, data, backend, device, process)

    def sources(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> dict[str, str]:
        return {} if data.knowledge is None else {"knowledge vectors": content_hash(data.knowledge.path)}

    def save(self, adapter: nn.Module, path: Path, steps: int) -> None:
        save_adapter(adapter, path, steps=steps)

    def meta_batch(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> Batch:
        hidden = torch.empty(1, 77, sum(backend.widths.values()), device="meta")
        batch = Batch([0], [""], hidden, torch.ones(1, 77, device="meta", dtype=torch.bool))
        batch.complex = hidden.clone() if config.lambda_cp else None
        batch.knowledge = torch.empty(1, data.knowledge.width, device="meta") if data.knowledge else None
        batch.dropout = _MasksWithoutNumbers([], config.dropout) if config.dropout else None
        return batch

    def plan_lines(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> list[str]:
        return []

    def draw_samples(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        adapter: nn.Module,
        resolution: int,
        path: Path,
    ) -> None:
        draw_samples(config, backend, adapter, resolution, path)


class _MasksWithoutNumbers(CountedDropout):
    def masks(self, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
        return [torch.empty(1, *shape, device="meta") for shape in shapes]


def _find_knowledge(config: TrainingConfig, surd: Surd) -> tuple[KnowledgeVectors, np.ndarray]:
    if not config.vectors:
        raise ValueError(
            "vectors is not set: Eq. 5 needs the knowledge vectors of a language model. Make them "
            f"with 'python -m train vectors {config.data} vectors.safetensors --llm <model>', or set "
            "lambda_llm = 0"
        )
    knowledge = open_knowledge(config.vectors)
    rows = knowledge.find(sample.simple for sample in surd)
    lacking = np.flatnonzero(rows < 0)
    if len(lacking):
        first = surd[int(lacking[0])]
        raise ValueError(
            f"{config.vectors}: has no vector for {len(lacking)} of {len(rows)} prompts, the first is "
            f"{first.simple[:80]!r} of {first.name}. Run 'python -m train vectors' again with this data set; "
            "only the missing ones are computed"
        )
    return knowledge, rows
