"""Pictures drawn during training: each prompt without and with the adapter, from the same noise."""

from __future__ import annotations

from pathlib import Path

import torch

from ..atomic import atomic_write
from ..backend import Backend
from ..training_config import TrainingConfig
from ..training_samples import contact_sheet, text_embeddings
from .adapter import LLMDiffAdapter
from .cache import EncodingCache
from .objective import encoding


def draw_samples(
    config: TrainingConfig,
    encodings: EncodingCache,
    backend: Backend,
    adapter: LLMDiffAdapter,
    resolution: int,
    path: Path,
) -> None:
    """Write a PNG with a row for each of ``sample_prompts``: left without, right with the adapter.

    Args:
        encodings: opened, with the sample prompts and "" among its further prompts.
        adapter: in eval mode, on the backend's device.
        resolution: edge of each picture in pixels.
    """
    columns = {"without": 0.0, "with the adapter": 1.0}
    hidden, pooled = text_embeddings(backend, [*config.sample_prompts, ""])
    rows, session = [], backend.attach(adapter)
    for number, prompt in enumerate(config.sample_prompts):
        heard = [prompt] if config.sample_guidance_scale <= 1 else ["", prompt]  # as the pipeline's batch
        tokens = _tokens(adapter, encodings, heard, config.learn_block_weights)
        rows.append([])
        for strength in columns.values():
            session.use_tokens(tokens, strength)
            rows[-1] += backend.sample_images(
                hidden[number][None],
                hidden[-1:],
                None if pooled is None else pooled[number][None],
                None if pooled is None else pooled[-1:],
                seeds=[config.sample_seed + number],
                steps=config.sample_inference_steps,
                guidance_scale=config.sample_guidance_scale,
                resolution=resolution,
            )
    session.use_tokens(None)
    with atomic_write(path) as file:
        contact_sheet(rows, list(columns), list(config.sample_prompts)).save(file, format="PNG")


@torch.no_grad()
def _tokens(adapter: LLMDiffAdapter, encodings: EncodingCache, prompts: list[str], learns_g: bool):
    device = adapter.phi.weight.device
    rows = [torch.from_numpy(encodings.read(encodings.more[prompt])).float().to(device) for prompt in prompts]
    return adapter.prepare([encoding(adapter, row, None, learns_g) for row in rows])
