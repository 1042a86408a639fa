"""An adapter as users know it: one tower per text encoder, and its passport."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from .adapter import SURAdapter, SURAdapterConfig
from .families import FAMILIES, family_words, sort_towers
from .passport import Passport


class SURAdapterBundle(nn.Module):
    """What :func:`sur_core.load_adapter` returns.

    Attributes:
        towers: ``{"clip_l": SURAdapter, ...}``, one per text encoder of the base model.
        passport: what the file says about itself.
        source: the file it came from (or a name), used in messages.
    """

    def __init__(self, passport: Passport, source: str = "new adapter"):
        super().__init__()
        self.passport = passport
        self.source = source
        self.towers = nn.ModuleDict(
            {name: SURAdapter(passport.towers[name]) for name in sort_towers(passport.towers)}
        )

    @property
    def family_words(self) -> str:
        """``"SD 1.x, 768 wide"``."""
        return family_words(self.passport.widths)

    def freeze(self) -> SURAdapterBundle:
        """Eval mode, no gradients: ready for :func:`sur_core.adapt`. Undo with
        ``.train().requires_grad_(True)``.
        """
        return self.eval().requires_grad_(False)


def new_adapter(
    family: str | dict[str, int], seed: int = 0, passport: dict | None = None, **architecture
) -> SURAdapterBundle:
    """A fresh adapter in the paper's initial state: c_LLM is zero for every input.

    Args:
        family: ``"sd1"``, ``"sd2"`` or ``"sdxl"``, or the towers' widths, such as ``{"clip_l": 768}``.
        seed: of the initial weights; the caller's random state is left as it was.
        passport: further :class:`Passport` fields, such as ``{"base_model": ..., "eta": 0.1}``.
        architecture: :class:`SURAdapterConfig` fields other than ``width``.
    """
    if isinstance(family, str) and family not in FAMILIES:
        raise ValueError(f"unknown base model family {family!r}; known are {sorted(FAMILIES)}")
    widths = FAMILIES[family] if isinstance(family, str) else family
    towers = {name: SURAdapterConfig(width=width, **architecture) for name, width in widths.items()}
    described = replace(Passport(towers=towers), **(passport or {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SURAdapterBundle(described)
