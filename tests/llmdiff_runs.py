"""Small LLMDiff training runs for tests: a tiny base model, a tiny language model, pictures and prompts."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import torch

from sur_core.diffusers_backend import open_backend
from sur_core.llmdiff.diffusers_unet import attach
from sur_core.llmdiff.training import LLMDiffSystem
from sur_core.training_config import TrainingConfig
from tests.llmdiff_models import write_llm
from tests.small_data import tiny_backend, tiny_model, write_data

_FOLDER = tempfile.TemporaryDirectory(prefix="tiny-llms-")


@cache
def tiny_llm(family: str = "llama", **changes) -> Path:
    """A language model's folder, made once for all tests; it must not be changed."""
    name = "-".join([family, *map(str, changes.values())]).replace(" ", "")
    return write_llm(Path(_FOLDER.name) / name, family, **changes)


def llmdiff_settings(folder: Path, family: str = "sd1", count: int = 12, **settings) -> dict:
    """Settings of a run whose data are written to ``folder`` where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        write_data(folder / "data", count)
    return {
        "system": "llmdiff",
        "llm": str(tiny_llm()),
        "pretrained_model_name_or_path": str(tiny_model(family)),
        "data": str(folder / "data"),
        "output_dir": str(folder / "run"),
        "cache_dir": str(folder / "cache"),
        "validation_share": 0.0,
        "train_batch_size": 3,
        "learning_rate": 1e-3,
        "dataloader_num_workers": 2,
        "device": "cpu",
        **settings,
    }


def llmdiff_run(folder: Path, family: str = "sd1", count: int = 12, **settings) -> TrainingConfig:
    return TrainingConfig(**llmdiff_settings(folder, family, count, **settings))


def moved_adapter(config: TrainingConfig, data, backend):
    """The run's first adapter, taken away from its zero start, in training."""
    adapter = LLMDiffSystem().first_adapter(config, data, backend).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapter.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(noise / weight.shape[1] ** 0.5 if weight.dim() == 2 else 0.3 * noise)
        adapter.log_noise.add_(5.0)  # else the noise of Eq. 3 is too small to be seen
    return adapter


class InDouble:
    """A backend whose real, tiny UNet computes in float64."""

    def __init__(self, family: str):
        backend = tiny_backend(family)
        for name in ("family", "widths", "prediction_type", "alphas_cumprod"):
            setattr(self, name, getattr(backend, name))
        self.unet, self._session = backend._part("unet")["unet"].double(), None

    def attach(self, adapter):
        self._session = self._session or attach(self.unet, adapter).__enter__()
        return self._session

    def predict_noise(self, noisy, timesteps, hidden, pooled=None, time_ids=None):
        added = {"text_embeds": pooled, "time_ids": time_ids} if pooled is not None else None
        return self.unet(noisy, timesteps, hidden, added_cond_kwargs=added).sample


def open_base(config: TrainingConfig):
    return open_backend(config.pretrained_model_name_or_path)
