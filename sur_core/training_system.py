"""What a kind of adapter brings to the trainer, so that one loop and one set of commands train every kind."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from .training_config import TrainingConfig

if TYPE_CHECKING:
    from .backend import Backend
    from .feed import Feed
    from .objective import Batch, SampleLosses
    from .training_data import CacheBuilder, TrainingData


class Losses(Protocol):
    """The losses of an adapter on a frozen model.

    Attributes:
        constants: tensors of its own, which are never trained.
    """

    constants: list[torch.Tensor]

    def __call__(
        self, adapter: nn.Module, batch: Batch, backend: Backend | None, strength: float | None = None, /
    ) -> SampleLosses:
        """Losses of every sample, which depend on that sample alone.

        Args:
            strength: of the adapter, instead of the run's own; 0 is the base model without it.
        """


class ExtraCache(Protocol):
    """Something a system keeps on disk besides latents and text embeddings.

    Attributes:
        what: its name in the plan and in messages.
    """

    what: str

    def build(self, writer: str) -> None:
        """Encode what is missing, as :meth:`.training_data.CacheBuilder.build`."""

    def open(self) -> None:
        """Find the rows of what is cached and note them in the data."""

    def missing(self) -> tuple[int, int]:
        """(rows, bytes) that the cache lacks."""

    def found(self) -> tuple[int, int, Path]:
        """After :meth:`open`: rows of this data set, rows in all, and the folder."""


class System(Protocol):
    """A kind of adapter.

    Attributes:
        panels: column of log.csv -> title of its curves.
    """

    panels: dict[str, str]

    def check(self, config: TrainingConfig) -> None:
        """Refuse settings that mean nothing here, with a ``ValueError`` that says what to do."""

    def open(self, config: TrainingConfig, data: TrainingData) -> None:
        """Open what is read besides samples, and note it in the data. Errors in words."""

    def columns(self, config: TrainingConfig) -> tuple[str, ...]:
        """Which prompts of a sample are read: ``"simple"``, ``"complex"``."""

    def more_prompts(self, config: TrainingConfig) -> tuple[str, ...]:
        """Prompts that are read and belong to no sample."""

    def caches(self, builder: CacheBuilder) -> list[ExtraCache]: ...

    def first_adapter(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> nn.Module:
        """The adapter to begin with, with the run's passport; what is to be trained asks for gradients."""

    def meta_adapter(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> nn.Module:
        """An adapter of the same shape without storage."""

    def decays(self, parameter: torch.Tensor) -> bool:
        """Whether weight decay acts on a parameter."""

    def objective(
        self, config: TrainingConfig, data: TrainingData, backend: Backend, device: torch.device | str
    ) -> Losses: ...

    def feed(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        device: torch.device | str = "cpu",
        process: tuple[int, int] = (0, 1),
    ) -> Feed: ...

    def sources(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> dict[str, str]:
        """Fingerprints of what the result depends on besides settings, samples and the base model."""

    def save(self, adapter: nn.Module, path: Path, steps: int) -> None:
        """Write an adapter's file, atomically."""

    def meta_batch(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> Batch:
        """One sample without storage and without latents, to count what a step costs."""

    def plan_lines(self, config: TrainingConfig, data: TrainingData, backend: Backend) -> list[str]:
        """What the plan of a run says besides what it says for every system."""

    def draw_samples(
        self,
        config: TrainingConfig,
        data: TrainingData,
        backend: Backend,
        adapter: nn.Module,
        resolution: int,
        path: Path,
    ) -> None:
        """Write a PNG with a row for each of ``sample_prompts``: left without, right with the adapter."""


_PLACES = {"sur": (".training_sur", "SurSystem"), "llmdiff": (".llmdiff.training", "LLMDiffSystem")}


def system_of(config: TrainingConfig) -> System:
    """The system that the settings name."""
    module, name = _PLACES[config.system]
    return getattr(importlib.import_module(module, __package__), name)()


def refuse_changed(config: TrainingConfig, names: tuple[str, ...], reason: str) -> None:
    """Refuse settings of another system that were given a value, with a ``ValueError`` that names them."""
    plain = TrainingConfig()
    given = [name for name in names if getattr(config, name) != getattr(plain, name)]
    if given:
        verb = "means" if len(given) == 1 else "mean"
        raise ValueError(f"{', '.join(given)} {verb} nothing with system = {config.system!r}. {reason}")
