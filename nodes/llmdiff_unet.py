"""The cross-attention layers of ComfyUI's UNets, and where ComfyUI says it is while they run."""

from __future__ import annotations

from collections.abc import Iterator

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from torch import nn

from ..sur_core import AdapterMismatchError
from ..sur_core.llmdiff import LayerShape, LLMDiffAdapter
from ..sur_core.llmdiff.diffusers_unet import check_fit

Place = tuple[str, int, int]
"""Kind of block, its number, and the transformer's place in it, as ComfyUI tells its attention patches."""


def cross_attention_layers(unet: nn.Module, name: str) -> dict[Place, nn.Module]:
    """Place -> cross-attention module (``attn2``), in the order of the forward pass.

    Raises:
        AdapterMismatchError: the model is no image UNet with cross-attention.
    """
    unet = getattr(unet, "_orig_mod", unet)  # compiled by torch.compile
    found: dict[Place, nn.Module] = {}
    for kind, number, block in _blocks(unet):
        for transformer in block.modules():
            if isinstance(transformer, SpatialVideoTransformer):
                raise _refused(f"{name}, which makes videos")
            if isinstance(transformer, SpatialTransformer):
                for index, layer in enumerate(transformer.transformer_blocks):
                    found[kind, number, index] = layer.attn2
    if not found:
        raise _refused(f"{name}, which has no cross-attention layers of theirs")
    return found


def check_unet(adapter: LLMDiffAdapter, unet: nn.Module, name: str) -> None:
    """Refuse a model the adapter was not made for, with an ``AdapterMismatchError``."""
    layers = cross_attention_layers(unet, name).values()
    shapes = tuple(LayerShape(layer.to_q.in_features, layer.heads, layer.dim_head) for layer in layers)
    check_fit(adapter, next(iter(layers)).to_k.in_features, shapes, "this model")


def _blocks(unet: nn.Module) -> Iterator[tuple[str, int, nn.Module]]:
    for kind in ("input", "middle", "output"):
        found = getattr(unet, f"{kind}_block" if kind == "middle" else f"{kind}_blocks", None)
        if found is not None:
            blocks = [found] if kind == "middle" else found
            yield from ((kind, number, block) for number, block in enumerate(blocks))


def _refused(what: str) -> AdapterMismatchError:
    return AdapterMismatchError(
        f"Apply LLMDiff: acts on the UNets of SD 1.x, SD 2.x and SDXL; this model is a {what}. Choose a "
        "checkpoint of the family the adapter was trained for"
    )
