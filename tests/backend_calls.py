"""Tiny base models of every family, opened, called and refused as the tests of backends do it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sur_core.backend import PARTS
from sur_core.diffusers_backend import open_backend
from tests.tiny_models import make_tiny

FAMILIES = ("sd1", "sd2", "sdxl")
PROMPTS = ["a red cat on a ball", "two blue birds, détaillé " + "near the house " * 40, ""]


def make_families(root: Path) -> dict[str, Path]:
    kinds = {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}
    return {family: make_tiny(root / family, family, prediction_type=kinds[family]) for family in FAMILIES}


def drawn(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def refusal(model, **options) -> str:
    """With which words a model is refused, at the latest when all of it is loaded; they name the model."""
    with pytest.raises((ValueError, OSError)) as caught:
        open_backend(model, **{"local_files_only": True, **options}).load()
    assert str(model) in str(caught.value)
    return str(caught.value)


def call(backend, batch: int = 2, **changes) -> dict:
    """Arguments of predict_noise; hidden asks for a gradient."""
    encoded = backend.encode_text(PROMPTS[:batch])
    arguments = {
        "noisy": drawn(batch, 4, 8, 8),
        "timesteps": torch.tensor([20, 800])[:batch],
        "hidden": torch.cat(list(encoded.hidden.values()), dim=-1).requires_grad_(),
    }
    if backend.family == "sdxl":
        arguments |= {"pooled": encoded.pooled, "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64]] * batch)}
    return arguments | changes


def networks(backend, parts=PARTS) -> list[torch.nn.Module]:
    found = [module for part in parts for module in backend._part(part).values()]
    return [module for module in found if isinstance(module, torch.nn.Module)]
