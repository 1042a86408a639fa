"""The node that adapts a CLIP, so that every prompt encoded with it later is corrected before token weights
act.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.sd1_clip
import comfy.sdxl_clip
from comfy_api.latest import io

from ..sur_core import adapt
from ..sur_core.conditioning import check_eta, mismatch
from .common import adapter_input, eta_input, schema
from .handle import AdapterHandle, LoadedWith


class SURApplyCLIP(io.ComfyNode):
    """Eq. 7 of Zhong et al. (2023), https://arxiv.org/abs/2305.05189, between the text encoder and the prompt
    weights.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="SURApplyCLIP",
            display_name="Apply SUR to CLIP",
            description=(
                "Every prompt encoded with this CLIP from here on is corrected by the adapter, before its "
                "token weights act. Goes together with LoRA loaders, clip skip, hooks and further adapters."
            ),
            search_aliases=["SUR adapter", "CLIP adapter", "text encoder adapter", "narrative prompt"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from a checkpoint, CLIP or LoRA loader."),
                adapter_input(),
                eta_input(what="every prompt"),
            ],
            outputs=[
                io.Clip.Output(
                    tooltip="A text encoder that corrects what it reads. The one that came in is unchanged."
                )
            ],
        )

    @classmethod
    def execute(cls, clip, adapter: AdapterHandle, eta) -> io.NodeOutput:
        if clip is None:
            raise ValueError(
                "Apply SUR to CLIP: there is no text encoder. The checkpoint may not contain one; load a CLIP"
            )
        return io.NodeOutput(apply_to_clip(clip, adapter, check_eta(eta)))


def apply_to_clip(clip, adapter: AdapterHandle, eta: float):
    """A clone of ``clip`` whose text encoders are followed by the adapter's towers.

    Raises:
        AdapterMismatchError: the adapter was made for other text encoders.
    """
    encoders = encoders_of(clip)
    check_encoders(clip, adapter, encoders)
    clone = clip.clone()
    if eta == 0:
        return clone
    for name in encoders:
        target = f"{name}.encode"
        # get_model_object sees patches made before this one, so adapters stack; a plain function survives
        # clone() and unloading, which a bound method or a module does not.
        clone.patcher.add_object_patch(target, _adapted(clone.patcher.get_model_object(target), adapter, eta))
    clone.patcher.set_model_patch(LoadedWith(adapter), "sur_adapter")
    return clone


def encoders_of(clip) -> list[str]:
    """Names of a CLIP's text encoders, as ComfyUI calls them: ``["clip_l", "clip_g"]`` for SDXL."""
    children = clip.cond_stage_model.named_children()
    return [name for name, module in children if isinstance(module, comfy.sd1_clip.ClipTokenWeightEncoder)]


def check_encoders(clip, adapter: AdapterHandle, encoders: list[str]) -> None:
    """SD3 and Flux have a CLIP-L too, but read it at another layer; so the kind of model counts, not the
    names.
    """
    model = clip.cond_stage_model
    towers = list(adapter.bundle.passport.widths)
    if isinstance(model, comfy.sdxl_clip.SDXLRefinerClipModel):
        fits = "clip_g" in towers
    else:
        # SD 2.x's class is one of SD1ClipModel's.
        known = isinstance(model, (comfy.sd1_clip.SD1ClipModel, comfy.sdxl_clip.SDXLClipModel))
        fits = known and sorted(encoders) == sorted(towers)
    if not fits:
        names = " + ".join(encoders) or "no text encoder"
        raise mismatch(adapter.bundle, f"this CLIP is a {type(model).__name__} with {names}")


def _adapted(encode: Callable, adapter: AdapterHandle, eta: float) -> Callable:
    """``encode`` of one text encoder (lists of 77 tokens -> embeddings [chunks, 77, D], pooled, ...) with Eq.
    7 behind it.
    """

    def adapted_encode(tokens):
        embeddings, *others = encode(tokens)
        return (adapt(adapter.bundle, embeddings, eta), *others)

    return adapted_encode


NODES = [SURApplyCLIP]
