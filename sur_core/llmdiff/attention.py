"""The extra cross-attention: what a language model's encoding adds to one cross-attention layer of a UNet.

Framework-neutral: the caller brings the layer's frozen projections, and puts the result in its place. With
hats for the frozen projections, e for the text encoder's tokens and c for the language model's, Eq. 4 of Dong
et al. (2024) and a strength s give, before the layer's output projection,

    f = w attn(q^(x), k^(e), v^(e))
        + s [ a1 exp(b1) attn(q^(x), k^(phi c), v^(phi c)) + a2 exp(b2) attn(tau_q x, tau_k c, tau_v c) ]

with w = 1 - s where the text encoder is dropped (the paper; s = 1 is its equation), and w = 1 where it is
kept. At s = 0 nothing is added to the base model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from .config import LayerShape


class ExtraCrossAttention(nn.Module):
    """tau_q, tau_k, tau_v and the four scales of one layer.

    tau_v starts at zero, so that an untrained layer adds nothing (see :class:`.adapter.LLMDiffAdapter`); the
    scales start at a = 1, b = 0, where both branches are as loud as their values.
    """

    def __init__(self, shape: LayerShape, llm_width: int):
        super().__init__()
        self.shape = shape
        self.tau_q = nn.Linear(shape.query, shape.inner, bias=False)
        self.tau_k = nn.Linear(llm_width, shape.inner, bias=False)
        self.tau_v = nn.Linear(llm_width, shape.inner, bias=False)
        self.a1, self.b1 = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.a2, self.b2 = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.tau_v.weight)

    def forward(
        self, tokens: LayerTokens, x: torch.Tensor, query: torch.Tensor, to_k: Callable, to_v: Callable
    ) -> torch.Tensor:
        """The bracket of the formula above, [B, N, inner].

        Args:
            tokens: c as this layer reads it; B rows.
            x: the picture's tokens as the layer's query projection gets them [B, N, query].
            query: q^(x) [B, N, inner].
            to_k, to_v: the layer's frozen projections k^ and v^.
        """
        heads = self.shape.heads
        frozen = attend(query, to_k(tokens.context), to_v(tokens.context), heads, tokens.mask)
        own = attend(self.tau_q(x), tokens.key, tokens.value, heads, tokens.mask)
        return self.a1 * self.b1.exp() * frozen + self.a2 * self.b2.exp() * own


@dataclass(frozen=True)
class LayerTokens:
    """Encoded prompts as one layer reads them; computed once for a prompt, not at every step.

    k^(phi c) and v^(phi c) are not among them: the frozen weights they depend on may change between steps (a
    scheduled LoRA), and they cost as much as the base model's own keys and values, a few thousandths of a
    step.

    Attributes:
        context: phi(c) [B, n, context width].
        key, value: tau_k(c), tau_v(c) [B, n, inner].
        mask: bool [B, 1, 1, n], false at padding; ``None`` where all prompts are of one length.
    """

    context: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None

    def __len__(self) -> int:
        return self.context.shape[0]

    def repeated(self, rows: int) -> LayerTokens:
        """Each prompt for ``rows / B`` pictures in a row; ``ValueError`` if that is no whole number."""
        if rows == len(self):
            return self
        if rows % len(self):
            raise ValueError(
                f"LLMDiff: {len(self)} encoded prompts for a batch of {rows}. Give one for each picture, and "
                "with guidance also one for each negative prompt"
            )
        times = rows // len(self)
        tensors = (self.context, self.key, self.value, self.mask)
        return LayerTokens(*(t if t is None else t.repeat_interleave(times, 0) for t in tensors))


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Scaled dot-product attention over ``heads``: [B, N, inner], [B, n, inner] twice -> [B, N, inner]."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)


def clip_weight(clip: str, strength: float) -> float:
    """w of the formula above."""
    return 1.0 - strength if clip == "drop" else 1.0


def check_strength(strength: float) -> float:
    """A strength is a number in 0..1. Raises ``ValueError``."""
    strength = float(strength)
    if not (math.isfinite(strength) and 0 <= strength <= 1):
        raise ValueError(f"LLMDiff: strength must be in 0..1, found {strength}")
    return strength
