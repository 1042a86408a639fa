"""An adapter inside ComfyUI: the weights, and the patcher by which ComfyUI's memory management moves them."""

from __future__ import annotations

import comfy.model_management
from comfy.model_patcher import ModelPatcher

from ..sur_core import SURAdapterBundle


class AdapterPatcher(ModelPatcher):
    """A ModelPatcher that loads and unloads as a whole.

    ComfyUI may load a model in part when memory is short, and then expects its layers to fetch their own
    weights. Adapters and language models are made of plain torch layers, which cannot, so each is either here
    or there.
    """

    def load(
        self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False, **more
    ):
        return super().load(device_to, force_patch_weights=force_patch_weights, full_load=True, **more)

    def partially_unload(self, *_args, **_more):
        return 0  # "nothing freed": the memory manager then unloads the whole


class AdapterHandle:
    """What travels along a SUR_ADAPTER wire.

    Attributes:
        bundle: the adapter itself.
        patcher: its ModelPatcher.
    """

    def __init__(self, bundle: SURAdapterBundle):
        self.bundle = bundle
        self.patcher = AdapterPatcher(
            bundle,
            load_device=comfy.model_management.text_encoder_device(),
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )

    def load(self) -> SURAdapterBundle:
        """Move the weights to where ComfyUI runs text encoders, and return the adapter."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.bundle


class LoadedWith:
    """Put into a CLIP's model options, it makes ComfyUI load the adapter whenever it loads that CLIP."""

    def __init__(self, handle: AdapterHandle):
        self.handle = handle

    def models(self) -> list[ModelPatcher]:
        return [self.handle.patcher]

    def __deepcopy__(self, _memo):
        return self  # ModelPatcher.clone() deep-copies its options; the weights must not be copied along
