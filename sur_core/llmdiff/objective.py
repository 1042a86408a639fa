"""Eq. 5 of Dong et al. (2024) for one batch: how far the UNet, with the adapter in it, is from the noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..backend import Backend
from ..conditioning import full_precision
from ..objective import Batch, SampleLosses, noise_error
from .adapter import LLMDiffAdapter


@dataclass
class LLMDiffBatch(Batch):
    """What LLMDiff reads besides: B prompts as the language model understands them, padded to the longest.

    ``simple`` and ``pooled`` are the text encoder's embeddings of the same prompts.

    Attributes:
        updates: c^T and every block's difference of scores, as :meth:`.adapter.LLMDiffAdapter.combine` takes
            them, [B, T + 1, n, D]; with g fixed at 1 their sum alone, [B, 1, n, D].
        heard: bool [B, 1, 1, n], false at padding; ``None`` where all prompts are of one length.
        langevin: standard normal [B, n, D], the noise of Eq. 3; ``None`` in validation.
    """

    updates: torch.Tensor | None = None
    heard: torch.Tensor | None = None
    langevin: torch.Tensor | None = None


class LLMDiffObjective:
    """:class:`..training_system.Losses` of LLMDiff."""

    constants: list[torch.Tensor] = []

    def __init__(self, snr_gamma: float = 0.0, learn_block_weights: bool = True):
        self._gamma, self._learns_g = snr_gamma, learn_block_weights

    def __call__(
        self,
        adapter: LLMDiffAdapter,
        batch: LLMDiffBatch,
        backend: Backend,
        strength: float | None = None,
    ) -> SampleLosses:
        session = backend.attach(adapter)
        # Not under autocast: Eq. 3 adds up blocks whose features may leave float16's range.
        with full_precision(batch.updates.device):
            encoded = encoding(adapter, batch.updates, batch.langevin, self._learns_g)
            tokens = adapter.prepare_padded(encoded, batch.heard)
        session.use_tokens(tokens, 1.0 if strength is None else strength)
        error = noise_error(batch.simple, batch, backend, self._gamma)
        nothing = torch.zeros_like(error)
        return SampleLosses(nothing, nothing, error, error)


def encoding(
    adapter: LLMDiffAdapter, updates: torch.Tensor, noise: torch.Tensor | None, learns_g: bool
) -> torch.Tensor:
    """c of Eq. 3, [..., n, D].

    Args:
        updates: [..., T + 1, n, D]; with g fixed at 1 their sum alone, [..., 1, n, D].
    """
    if learns_g:
        return adapter.combine(updates, noise)
    return adapter.with_noise(updates[..., 0, :, :], noise)
