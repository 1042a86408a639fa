"""Algorithm 1 for one batch: what a frozen model, the prompts and the language model ask of the adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from . import losses
from .backend import Backend
from .bundle import SURAdapterBundle
from .conditioning import full_precision
from .randomness import CountedDropout, counted_generator
from .training_config import TrainingConfig


@dataclass
class Batch:
    """Samples side by side, B of them, on the training device.

    Attributes:
        samples: their numbers in the data set.
        names: what messages call them.
        simple: f_En(p_s), [B, 77, D]; D is the sum of the towers' widths.
        mask: bool [B, 77], the simple prompt's real tokens.
        complex: f_En(p_c), like ``simple``; ``None`` where Eq. 9 is off.
        knowledge: f_LLM(p_s), [B, D_llm]; ``None`` where Eq. 5 is off.
        dropout: masks of these samples; ``None`` where there is no dropout.
        latents, noise: [B, C, h, w], and timesteps int64 [B]: Eq. 1. ``None`` in stage align.
        pooled, time_ids: [B, P] and [B, 6], SDXL only.
    """

    samples: list[int]
    names: list[str]
    simple: torch.Tensor
    mask: torch.Tensor
    complex: torch.Tensor | None = None
    knowledge: torch.Tensor | None = None
    dropout: CountedDropout | None = None
    latents: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    timesteps: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)


class SampleLosses(NamedTuple):
    """Each [B]: Eq. 5, Eq. 9, Eq. 8 (weighted as asked for) and Eq. 10. Zeros where one is off; LLMDiff has
    ``simple`` alone, its own Eq. 5.
    """

    llm: torch.Tensor
    cp: torch.Tensor
    simple: torch.Tensor
    total: torch.Tensor


def knowledge_projection(width: int, llm_width: int, seed: int, tower: str = "clip_l") -> torch.Tensor:
    """W0 of Eq. 5, [D, D_llm]: Kaiming normal (He et al., 2015), no bias, never trained.

    A function of its arguments alone, all of which are in the passport: the matrix itself need not be kept.
    """
    generator = counted_generator(seed, f"w0 {tower}", width, llm_width)
    return nn.init.kaiming_normal_(torch.empty(width, llm_width), generator=generator)


class Objective:
    """The losses of one adapter on one frozen model."""

    def __init__(self, config: TrainingConfig, widths: dict[str, int], llm_width: int | None, device="cpu"):
        """
        Args:
            widths: features of each tower in the order in which embeddings hold them.
            llm_width: features of the knowledge vectors; ``None`` where Eq. 5 is off.
        """
        self.config = config
        self.widths = widths
        self.w0 = {
            name: knowledge_projection(width, llm_width, config.w0_seed, name).to(device)
            for name, width in widths.items()
            if llm_width is not None
        }

    @property
    def constants(self) -> list[torch.Tensor]:
        """Its own tensors, which are never trained."""
        return list(self.w0.values())

    def __call__(
        self, adapter: SURAdapterBundle, batch: Batch, backend: Backend | None, eta: float | None = None
    ) -> SampleLosses:
        """Losses of every sample. Each depends on that sample alone.

        Args:
            backend: predicts the noise where the batch has latents.
            eta: strength to use instead of the config's, such as 0 to see the model without the adapter.
        """
        eta = self.config.eta if eta is None else eta
        zero = batch.simple.new_zeros(len(batch))
        llm, cp, adapted = zero, zero, []
        parts = batch.simple.split(list(self.widths.values()), dim=-1)
        targets = parts if batch.complex is None else batch.complex.split(list(self.widths.values()), dim=-1)
        # Not under autocast: the towers cost next to nothing, and a gradient times a small eta is lost in
        # float16, as a language model's features are that leave its range.
        with full_precision(batch.simple.device):
            for (name, tower), hidden, target in zip(adapter.towers.items(), parts, targets, strict=True):
                output = tower(hidden, dropout=batch.dropout)
                adapted.append(eta * output.c_llm + (1 - eta) * hidden)  # Eq. 7
                llm = llm + self._distillation(name, output.query, batch)
                cp = cp + self._alignment(adapted[-1], target, batch)
        simple = zero if batch.latents is None else self._diffusion(torch.cat(adapted, -1), batch, backend)
        total = losses.total_loss(llm, cp, simple, self.config.lambda_llm, self.config.lambda_cp)
        return SampleLosses(llm, cp, simple, total)

    def _distillation(self, name: str, query: torch.Tensor, batch: Batch) -> torch.Tensor | float:
        if batch.knowledge is None:
            return 0.0
        projected = nn.functional.linear(batch.knowledge, self.w0[name].to(batch.knowledge.dtype))
        settings = self.config.temperature, self.config.kl_direction
        return losses.distillation_loss(projected, query, *settings, self._mask(batch))

    def _alignment(self, adapted: torch.Tensor, target: torch.Tensor, batch: Batch) -> torch.Tensor | float:
        if batch.complex is None:
            return 0.0
        settings = self.config.temperature, self.config.cp_loss
        return losses.alignment_loss(adapted, target, *settings, self._mask(batch))

    def _mask(self, batch: Batch) -> torch.Tensor | None:
        return batch.mask if self.config.mask_padding else None

    def _diffusion(self, adapted: torch.Tensor, batch: Batch, backend: Backend) -> torch.Tensor:
        return noise_error(adapted, batch, backend, self.config.snr_gamma)


def noise_error(hidden: torch.Tensor, batch: Batch, backend: Backend, snr_gamma: float) -> torch.Tensor:
    """[B]: squared error of the UNet's prediction, weighted as asked for.

    Args:
        hidden: what the UNet's cross-attention reads, [B, 77, D].
        snr_gamma: gamma of min-SNR weighting; 0 is off.
    """
    schedule, kind = backend.alphas_cumprod, backend.prediction_type
    noisy = losses.add_noise(batch.latents, batch.noise, schedule, batch.timesteps)
    target = losses.prediction_target(batch.latents, batch.noise, schedule, batch.timesteps, kind)
    prediction = backend.predict_noise(noisy, batch.timesteps, hidden, batch.pooled, batch.time_ids)
    error = losses.diffusion_loss(prediction, target)
    if snr_gamma:
        error = error * losses.min_snr_weights(schedule, batch.timesteps, snr_gamma, kind)
    return error
