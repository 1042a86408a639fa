"""LLMDiff adapters, UNets and encodings of a few thousand random weights."""

from __future__ import annotations

import torch

from sur_core.llmdiff import (
    EncodedPrompt,
    LayerShape,
    LLMDiffAdapter,
    LLMDiffConfig,
    new_llmdiff_adapter,
)

LLM_WIDTH, LLM_BLOCKS = 12, 3
LLM = {"llm_name": "tiny-llm", "llm_identity": "0123"}


def tiny_unet(context: int = 20, seed: int = 0):
    """A diffusers UNet with cross-attention on two levels, whose output reacts to its prompt."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=2,
            cross_attention_dim=context,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
        with torch.no_grad():
            for name, weight in unet.named_parameters():
                if "attn2" in name and weight.dim() == 2:
                    weight.copy_(2 * torch.randn_like(weight) / weight.shape[1] ** 0.5)
    return unet.eval().requires_grad_(False)


def random_llmdiff(
    context: int = 20, layers: tuple[LayerShape, ...] = (), seed: int = 0, **config
) -> LLMDiffAdapter:
    """An adapter that has left its zero start."""
    layers = layers or (LayerShape(16, 2, 8),)
    sizes = {"llm_width": LLM_WIDTH, "llm_blocks": LLM_BLOCKS, "context_width": context, "layers": layers}
    config = LLMDiffConfig(**(sizes | config))
    adapter = new_llmdiff_adapter(config, seed, **LLM)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in adapter.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(noise / weight.shape[1] ** 0.5 if weight.dim() == 2 else 0.3 * noise)
    return adapter.freeze()


def encoded(adapter: LLMDiffAdapter, length: int = 5, seed: int = 0, prompt: str = "a cat") -> EncodedPrompt:
    """A prompt of ``length`` tokens, as if encoded for this adapter."""
    tokens = torch.randn(length, adapter.config.llm_width, generator=torch.Generator().manual_seed(seed))
    return EncodedPrompt(prompt, tokens, adapter.encoding_id, "tiny-llm")
