"""ComfyUI in this process, with the pack loaded and a tiny UNet. For scripts run with ComfyUI's Python:

SCRIPT PACK COMFYUI WORK_FOLDER
"""

import asyncio
import copy
import importlib
import os
import sys

pack, comfyui, work = (os.path.abspath(argument) for argument in sys.argv[1:4])
sys.argv[1:] = ["--cpu", "--base-directory", work]
sys.path.insert(0, comfyui)
os.chdir(comfyui)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management as memory  # noqa: E402, F401 for the cases
import comfy.sample  # noqa: E402
import torch  # noqa: E402
from comfy import model_base, samplers, supported_models  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402

import nodes  # noqa: E402

assert asyncio.run(nodes.load_custom_node(pack)), "the pack did not load"
NODES = {
    name: node for name, node in nodes.NODE_CLASS_MAPPINGS.items() if name.startswith(("SUR", "LLMDiff"))
}
_package = NODES["LLMDiffApply"].__module__.rpartition(".nodes.")[0]
core = importlib.import_module(f"{_package}.sur_core.llmdiff")
TINY = {
    "image_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": 20,
    "num_heads": 2,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "legacy": False,
    "use_checkpoint": False,
    "num_classes": None,
    "adm_in_channels": None,
}


def module(name):
    """A module of the pack, such as ``nodes.llmdiff_attach``."""
    return importlib.import_module(f"{_package}.{name}")


def tiny_model(weights=None, config=supported_models.SD15, kind=model_base.BaseModel, dtype=None, **changes):
    """A MODEL of a few thousand weights: those given, or random ones whose output hears the prompt."""
    described = config(copy.deepcopy({**TINY, **changes, "dtype": dtype or torch.float32}))
    if dtype is not None:
        described.manual_cast_dtype = torch.float32
    model = kind(described, device=torch.device("cpu"))
    unet = model.diffusion_model
    if weights is None:
        weights = random_weights(unet.state_dict())
    unet.load_state_dict(weights)
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def random_weights(like, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, value in like.items():
        spread = 2.0 if "attn2" in key else 1.0
        fan_in = value[0].numel() if value.dim() > 1 else 1
        drawn = torch.randn(value.shape, generator=generator) * spread / fan_in**0.5
        norm = value.dim() == 1 and key.endswith("weight")
        made[key] = (1 + 0.1 * drawn) if norm else (0.1 * drawn if value.dim() == 1 else drawn)
    return {key: value.to(like[key].dtype) for key, value in made.items()}


def once(model, x, sigmas, extra_args=None, **_):
    """A sampler that asks the model once and gives back its answer."""
    return model(x, sigmas[0] * x.new_ones(len(x)), **(extra_args or {}))


def noise(rows=1, side=8, seed=0):
    return torch.randn(rows, 4, side, side, generator=torch.Generator().manual_seed(seed))


def draw(model, positive, negative=None, cfg=1.0, x=None, sigmas=None, sampler=None):
    """What ComfyUI samples, [B, 4, H, W]: one answer of the model at timestep 500, unless told otherwise."""
    x = noise() if x is None else x
    if sigmas is None:
        sigmas = torch.stack([model.model.model_sampling.sigmas[500], torch.zeros(())])
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model,
            x,
            cfg,
            sampler or samplers.KSAMPLER(once),
            sigmas,
            positive,
            positive if negative is None else negative,
            torch.zeros_like(x),
            disable_pbar=True,
            seed=0,
        )


def schedule(model, steps=8, name="normal"):
    return samplers.calculate_sigmas(model.model.model_sampling, name, steps)
