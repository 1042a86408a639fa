"""LLMDiff-Adapter (Dong, Xiao, Wei and Lin, 2024, https://arxiv.org/abs/2502.04412): a decoder-only language
model, read block by block, drives a Stable Diffusion UNet through one extra cross-attention per layer.

Importing this needs torch, numpy and safetensors; language models need transformers, pipelines diffusers.
"""

from .adapter import LLMDiffAdapter, new_llmdiff_adapter
from .checkpoint import load_llmdiff, read_llmdiff_passport, save_llmdiff
from .config import LayerShape, LLMDiffConfig
from .encodings import EncodedPrompt, encode_prompts, load_encodings, save_encodings
from .passport import LLMDiffPassport

__all__ = [
    "EncodedPrompt",
    "LLMDiffAdapter",
    "LLMDiffConfig",
    "LLMDiffPassport",
    "LayerShape",
    "encode_prompts",
    "load_encodings",
    "load_llmdiff",
    "new_llmdiff_adapter",
    "read_llmdiff_passport",
    "save_encodings",
    "save_llmdiff",
]
