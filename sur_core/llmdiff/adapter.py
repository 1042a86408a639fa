"""The LLMDiff-Adapter: a language model's block-wise encoding of a prompt, heard by every layer of a UNet."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import nn

from .attention import ExtraCrossAttention, LayerTokens
from .config import LLMDiffConfig
from .passport import LLMDiffPassport

FIRST_NOISE = 1e-4
"""h(t) before training: over thirty blocks a standard deviation of 0.08."""


class LLMDiffAdapter(nn.Module):
    """Everything that learns: phi, tau, a, b of Eq. 4, and g, h of Eq. 2 and 3 (Dong et al., 2024).

    Untrained it adds nothing: phi and tau_v are zero, so both branches of Eq. 4 are. What is drawn then is
    the base model at w of :mod:`.attention`: with ``clip="keep"`` the base model itself at any strength; with
    ``clip="drop"`` and full strength the base model whose cross-attention is silent, the only state without
    CLIP that is defined by the base model alone and leans to no prompt. Gradient reaches phi and tau_v from
    there at the first step.

    Attributes:
        config, passport: its architecture, and what it says about itself.
        source: the file it came from (or a name), used in messages.
        phi: the language model's features -> the UNet's text features.
        layers: one :class:`ExtraCrossAttention` for each cross-attention layer of the UNet.
        block_weights: g(t) [T], from the block nearest the input to the last.
        log_noise: log h(t) [T]; its exponential cannot become negative.
    """

    def __init__(self, passport: LLMDiffPassport, source: str = "new adapter"):
        super().__init__()
        config = passport.config
        self.passport, self.source = passport, source
        self.phi = nn.Linear(config.llm_width, config.context_width)
        self.layers = nn.ModuleList(ExtraCrossAttention(shape, config.llm_width) for shape in config.layers)
        self.block_weights = nn.Parameter(torch.ones(config.llm_blocks))
        self.log_noise = nn.Parameter(torch.full((config.llm_blocks,), FIRST_NOISE).log())
        nn.init.zeros_(self.phi.weight)
        nn.init.zeros_(self.phi.bias)

    def _apply(self, fn, recurse=True):
        """``to``, ``half`` and their like leave g, h, a and b in float32 or more: g in half precision would
        be another g, and give other encodings.
        """
        kept = {name: p.detach().clone() for name, p in self.named_parameters() if _is_scalars(name)}
        super()._apply(fn, recurse)
        for name, parameter in self.named_parameters():
            if name in kept and parameter.dtype in (torch.float16, torch.bfloat16):
                parameter.data = kept[name].to(parameter.device)
        return self

    @property
    def config(self) -> LLMDiffConfig:
        return self.passport.config

    @property
    def encoding_id(self) -> str:
        """Changes with everything an encoding depends on besides the prompt: language model, start and g."""
        passport, config = self.passport, self.config
        digest = blake2b(digest_size=8)
        llm = passport.llm_identity or passport.llm_name
        for part in (llm, config.llm_width, config.llm_blocks, config.start):
            digest.update(f"{part}\n".encode())
        digest.update(self.block_weights.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def combine(self, updates: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """c of Eq. 3: c^T + sum over t of g(t) (S_ctx(t) - S_solo(t)) [+ sqrt(2 h(t)) eps_t].

        Args:
            updates: c^T and each block's difference of scores, from the input on [..., T + 1, n, D].
            noise: standard normal [..., n, D], in training only. The T independent terms of Eq. 3 add up to
                one normal variable of variance 2 sum h(t), so one draw does for all.

        Returns:
            [..., n, D]
        """
        begun = updates[..., 0, :, :] if self.config.start == "embedding" else 0.0
        summed = begun + torch.einsum("t,...tnd->...nd", self.block_weights, updates[..., 1:, :, :])
        return self.with_noise(summed, noise)

    def with_noise(self, summed: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        """The noise of Eq. 3 on a sum that is there already; arguments as :meth:`combine`'s."""
        return summed if noise is None else summed + (2 * self.log_noise.exp().sum()).sqrt() * noise

    def prepare(self, encodings: Sequence[torch.Tensor], length: int = 0) -> list[LayerTokens]:
        """Encoded prompts as each layer reads them.

        Args:
            encodings: c of each prompt [n_i, D], as long as they are.
            length: pad to as many tokens, masked out, where rounding must not depend on what else is
                prepared; 0 is the longest.

        Raises:
            ValueError: a width that is not the language model's.
        """
        width, weight = self.config.llm_width, self.phi.weight
        for encoding in encodings:
            if encoding.dim() != 2 or encoding.shape[1] != width or not len(encoding):
                raise ValueError(
                    f"{self.source}: an encoding is {list(encoding.shape)}, expected [tokens, {width}] of "
                    f"{self.passport.llm_words}"
                )
        lengths = torch.tensor([len(encoding) for encoding in encodings])
        padded = nn.utils.rnn.pad_sequence([e.to(weight.device) for e in encodings], batch_first=True)
        padded = nn.functional.pad(padded, (0, 0, 0, max(0, length - padded.shape[1])))
        mask = None
        if length or (lengths != lengths[0]).any():
            mask = torch.arange(padded.shape[1]) < lengths[:, None]
            mask = mask[:, None, None].to(weight.device)
        return self.prepare_padded(padded, mask)

    def prepare_padded(self, encodings: torch.Tensor, mask: torch.Tensor | None) -> list[LayerTokens]:
        """As :meth:`prepare`, of [B, n, D] with a mask as :class:`LayerTokens` has it."""
        encodings = self._normalized(encodings).to(self.phi.weight.dtype)
        context = self.phi(encodings)
        return [
            LayerTokens(context, layer.tau_k(encodings), layer.tau_v(encodings), mask)
            for layer in self.layers
        ]

    def _normalized(self, encodings: torch.Tensor) -> torch.Tensor:
        if self.config.normalize == "none":
            return encodings
        wide = encodings if encodings.dtype == torch.float64 else encodings.float()
        return wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)

    def freeze(self) -> LLMDiffAdapter:
        """Eval mode, no gradients. Undo with ``.train().requires_grad_(True)``."""
        return self.eval().requires_grad_(False)


def _is_scalars(name: str) -> bool:
    """Whether a parameter is numbers of Eq. 2 to 4 each with a meaning of its own, not a layer's weights."""
    return name.rpartition(".")[2] in ("block_weights", "log_noise", "a1", "b1", "a2", "b2")


def new_llmdiff_adapter(config: LLMDiffConfig, seed: int = 0, **passport) -> LLMDiffAdapter:
    """An untrained adapter; the caller's random state is left as it was.

    Args:
        seed: of tau_q and tau_k.
        passport: further :class:`LLMDiffPassport` fields, such as ``llm_name``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LLMDiffAdapter(LLMDiffPassport(config=config, **passport))
