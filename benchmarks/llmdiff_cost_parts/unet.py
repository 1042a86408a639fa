"""One step of SD 1.5's UNet with an LLMDiff adapter over the same step without."""

from __future__ import annotations

import time

import torch

from sur_core.llmdiff import EncodedPrompt, LLMDiffConfig, new_llmdiff_adapter
from sur_core.llmdiff.diffusers_unet import attach, unet_shape

LLM_WIDTH, LLM_BLOCKS, TOKENS = 2048, 22, 64
"""Of TinyLlama 1.1B, and a prompt of some forty words."""


def measure_step(
    turns: int, device: torch.device, dtype: torch.dtype, edge: int = 64
) -> tuple[list[float], float]:
    """(ratio with / without of every turn, preparing both prompts over one plain step).

    A step is the batch of two that guidance takes, ``edge`` latents wide, at full strength with a dropped
    text encoder. The two take turns, in alternating order, so that a change of the machine's speed meets
    both. The prompts' keys and values are computed before, as they are once for a picture.
    """
    unet = sd15_unet().to(device, dtype)
    adapter = _trained_adapter(unet).to(device, dtype)
    prompts = [
        EncodedPrompt(text, torch.randn(TOKENS, LLM_WIDTH), adapter.encoding_id, "llm") for text in ("a", "")
    ]
    inputs = (
        torch.randn(2, 4, edge, edge, device=device, dtype=dtype),
        torch.tensor(500, device=device),
        torch.randn(2, 77, 768, device=device, dtype=dtype),
    )
    ratios, steps = [], []
    with torch.inference_mode(), attach(unet, adapter) as session:
        session.use(prompts[:1], prompts[1:])
        begun = _now(device)
        session.use(prompts[:1], prompts[1:])
        preparing = _now(device) - begun
        prepared = session.prepared
        for turn in range(-1, turns):
            seconds = {}
            for tokens in (None, prepared) if turn % 2 else (prepared, None):
                session.use_tokens(tokens)
                begun = _now(device)
                unet(*inputs)
                seconds[tokens is not None] = _now(device) - begun
            if turn >= 0:  # the first turn warms up
                ratios.append(seconds[True] / seconds[False])
                steps.append(seconds[False])
    return ratios, preparing / sorted(steps)[len(steps) // 2]


def sd15_unet() -> torch.nn.Module:
    """SD 1.5's UNet with random weights, which take the same time as trained ones."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).eval().requires_grad_(False)


def _trained_adapter(unet: torch.nn.Module):
    """One that has left its zero start, so that no multiplication is by zeros."""
    context, layers = unet_shape(unet)
    adapter = new_llmdiff_adapter(LLMDiffConfig(LLM_WIDTH, LLM_BLOCKS, context, layers), llm_name="llm")
    with torch.no_grad():
        for weight in adapter.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.randn_like(weight) / weight.shape[1] ** 0.5)
    return adapter.freeze()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
