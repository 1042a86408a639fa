"""What ComfyUI's own text encoders and UNet say. Run with ComfyUI's Python by test_same_model.py:

    encode.py COMFYUI CHECKPOINT PROMPTS.json INPUT.safetensors OUTPUT.safetensors

Writes ``hidden`` [N, 77, D] of each prompt's first chunk, ``pooled`` [N, P], and, where the input file has a
``noisy`` latent, the UNet's output for it with the first prompt.
"""

import json
import os
import sys

comfyui, checkpoint, prompts, source, target = (os.path.abspath(argument) for argument in sys.argv[1:6])
sys.argv[1:] = ["--cpu"]
sys.path.insert(0, comfyui)
os.chdir(comfyui)

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import comfy.model_management  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

with torch.inference_mode(), open(prompts, encoding="utf8") as file:
    given = load_file(source)
    model, clip = comfy.sd.load_checkpoint_guess_config(checkpoint, output_vae=False)[:2]
    encoded = [clip.encode_from_tokens(clip.tokenize(text), return_pooled=True) for text in json.load(file)]
    found = {
        "hidden": torch.cat([hidden[:, :77] for hidden, _ in encoded]).float(),
        "pooled": torch.cat([pooled for _, pooled in encoded]).float(),
    }
    if "noisy" in given:
        comfy.model_management.load_models_gpu([model])
        unet, context = model.model.diffusion_model, found["hidden"][:1]
        found["noise"] = unet(given["noisy"], given["timesteps"], context=context).float()
    save_file({name: tensor.clone().contiguous() for name, tensor in found.items()}, target)
