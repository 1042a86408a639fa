"""Write checkpoints of random weights that ComfyUI loads as the real thing. Run with ComfyUI's Python.

    random_checkpoint.py COMFYUI FOLDER

makes ``sur_test_sd15.safetensors``, ``sur_test_sd2_clip.safetensors``, ``sur_test_sdxl.safetensors``,
``sur_test_lora.safetensors`` and ``sur_test_controlnet.safetensors`` in FOLDER, those that are not there yet.
Text encoders and the number of blocks are real; the UNet is only 320 channels wide everywhere. What it draws
is noise.
"""

import os
import sys

comfyui, folder = (os.path.abspath(argument) for argument in sys.argv[1:3])
sys.argv[1:] = ["--cpu"]  # ComfyUI reads the command line when it is imported
sys.path.insert(0, comfyui)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.ops  # noqa: E402
import torch  # noqa: E402
from comfy import sd1_clip, sdxl_clip, supported_models  # noqa: E402
from comfy.cldm.cldm import ControlNet  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.text_encoders import sd2_clip  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
    "legacy": False,
    "use_checkpoint": False,
}
SD15 = COMMON | {
    "channel_mult": [1, 1, 1, 1],
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
    "num_head_channels": -1,
    "use_linear_in_transformer": False,
    "num_classes": None,
    "adm_in_channels": None,
}
SDXL = COMMON | {
    "channel_mult": [1, 1, 1],
    "num_res_blocks": [2, 2, 2],
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10,
    "context_dim": 2048,
    "num_heads": -1,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 2816,
}
OUTPUT_DEPTH = {"sd15": [1] * 9 + [0] * 3, "sdxl": [0] * 3 + [2] * 3 + [10] * 3}
VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
BUILD = {"device": "meta", "dtype": torch.float16}


def random_weights(module, seed):
    """State dict of a module built without memory: norms 1, biases 0, the rest scaled by fan-in."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in ((key, value.shape) for key, value in module.state_dict().items()):
        if key.endswith("position_ids"):
            weights[key] = torch.arange(shape[-1]).reshape(shape)
        elif key.endswith("bias"):
            weights[key] = torch.zeros(shape, dtype=torch.float16)
        elif len(shape) < 2:
            weights[key] = torch.ones(shape, dtype=torch.float16)
        else:
            spread = 0.02 if "embedding" in key else shape[1:].numel() ** -0.5
            weights[key] = (torch.randn(shape, generator=generator) * spread).half()
    return weights


def checkpoint(config_class, unet, text_encoder, depth):
    config = config_class(unet)
    network = UNetModel(
        **unet, out_channels=4, transformer_depth_output=depth, operations=comfy.ops.manual_cast, **BUILD
    )
    return {
        **config.process_unet_state_dict_for_saving(random_weights(network, 1)),
        **config.process_clip_state_dict_for_saving(random_weights(text_encoder(**BUILD), 2)),
        **config.process_vae_state_dict_for_saving(
            random_weights(AutoencoderKL(ddconfig=VAE, embed_dim=4), 3)
        ),
    }


def sd15():
    return checkpoint(supported_models.SD15, SD15, sd1_clip.SD1ClipModel, OUTPUT_DEPTH["sd15"])


def sdxl():
    return checkpoint(supported_models.SDXL, SDXL, sdxl_clip.SDXLClipModel, OUTPUT_DEPTH["sdxl"])


def sd2_clip_alone():
    weights = random_weights(sd2_clip.SD2ClipModel(**BUILD), 4)
    return {key.removeprefix("clip_h.transformer."): value for key, value in weights.items()}


def lora():
    """A kohya LoRA of rank 4 on the text encoder's first attention layers, strong enough to be seen."""
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for layer in range(4):
        name = f"lora_te_text_model_encoder_layers_{layer}_self_attn_v_proj"
        weights[f"{name}.lora_down.weight"] = torch.randn(4, 768, generator=generator) * 0.1
        weights[f"{name}.lora_up.weight"] = torch.randn(768, 4, generator=generator) * 0.1
        weights[f"{name}.alpha"] = torch.tensor(4.0)
    return weights


def controlnet():
    network = ControlNet(**SD15, hint_channels=3, operations=comfy.ops.manual_cast, **BUILD)
    return {f"control_model.{key}": value for key, value in random_weights(network, 6).items()}


MAKERS = {"sd15": sd15, "sdxl": sdxl, "sd2_clip": sd2_clip_alone, "lora": lora, "controlnet": controlnet}

os.makedirs(folder, exist_ok=True)
for name, make in MAKERS.items():
    path = os.path.join(folder, f"sur_test_{name}.safetensors")
    if not os.path.exists(path):
        save_file({key: value.contiguous() for key, value in make().items()}, path + ".part")
        os.replace(path + ".part", path)
        print(f"{path}: {os.path.getsize(path) / 2**20:.0f} MiB")
