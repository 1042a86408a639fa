"""The node that puts an LLMDiff adapter on a MODEL."""

from __future__ import annotations

from comfy_api.latest import io

from ..sur_core.llmdiff.attention import check_strength
from .entries import check_range
from .llmdiff_attach import attach
from .llmdiff_common import adapter_input, llmdiff_schema
from .llmdiff_handle import LLMDiffHandle
from .llmdiff_unet import check_unet


class LLMDiffApply(io.ComfyNode):
    """Eq. 4 of Dong et al. (2024), https://arxiv.org/abs/2502.04412, in every cross-attention layer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return llmdiff_schema(
            node_id="LLMDiffApply",
            display_name="Apply LLMDiff",
            description=(
                "Lets the model hear prompts that were encoded by a language model. Goes together with LoRA, "
                "ControlNet, IPAdapter, areas, masks, ranges and further adapters; a prompt without such an "
                "encoding is drawn with CLIP alone."
            ),
            aliases=["LLMDiff adapter", "LLM cross-attention"],
            inputs=[
                io.Model.Input("model", tooltip="The model, from a checkpoint or LoRA loader."),
                adapter_input(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    display_mode=io.NumberDisplay.slider,
                    tooltip=(
                        "0 leaves the model exactly as it is; 1 is the paper's: the language model alone, "
                        "without CLIP (or beside CLIP, if the passport says that it is kept)."
                    ),
                ),
                *(_share_input(name, *words) for name, words in _SHARES.items()),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with the adapter. The one that came in is unchanged.")
            ],
        )

    @classmethod
    def execute(cls, model, adapter: LLMDiffHandle, strength, start_percent, end_percent) -> io.NodeOutput:
        strength = check_strength(strength)
        check_range(start_percent, end_percent)
        check_unet(adapter.adapter, model.get_model_object("diffusion_model"), type(model.model).__name__)
        if strength == 0:
            return io.NodeOutput(model.clone())
        return io.NodeOutput(attach(model, adapter, strength, start_percent, end_percent))


_SHARES = {
    "start_percent": (0.0, "begins to act; before it, CLIP alone is heard."),
    "end_percent": (1.0, "stops acting; after it, CLIP alone is heard."),
}


def _share_input(name: str, default: float, what: str) -> io.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.001,
        tooltip=f"Share of sampling at which the adapter {what}",
    )


NODES = [LLMDiffApply]
