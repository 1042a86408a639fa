"""What ComfyUI's UNet says with LLMDiff adapters on it. Run with ComfyUI's Python:

    llmdiff_unet.py PACK COMFYUI WORK_FOLDER

reads from the folder ``unet.safetensors`` (LDM names), ``given.safetensors`` (``noise`` [B, 4, H, W],
``clip`` [2, 77, D]: positive and negative), ``scenes.json``, and the adapters and encodings it names; writes
``out.safetensors``: the noise predicted in each scene for the positive and for the negative prompt.
"""

import json
from pathlib import Path

from llmdiff_comfy import NODES, draw, tiny_model, work
from safetensors.torch import load_file, save_file

folder = Path(work)
given = load_file(folder / "given.safetensors")
models = folder / "models"


def load(adapter):
    return NODES["LLMDiffLoadAdapter"].execute(adapter).result[0]


def conditioning(clip, files):
    made = [[clip[None], {}]]
    for encoding, adapter in files:
        made = NODES["LLMDiffLoadEncoding"].execute(encoding, load(adapter), made).result[0]
    return made


found = {}
for name, scene in json.loads((folder / "scenes.json").read_text()).items():
    model = tiny_model(load_file(folder / "unet.safetensors"))
    for adapter, strength in scene["adapters"]:
        model = NODES["LLMDiffApply"].execute(model, load(adapter), strength, 0.0, 1.0).result[0]
    sigma = model.model.model_sampling.sigmas[500]
    x = given["noise"] * sigma
    both = [conditioning(clip, files) for clip, files in zip(given["clip"], scene["prompts"], strict=True)]
    for side, cfg in (("positive", 1.0), ("negative", 0.0)):
        latent = draw(model, both[0], both[1], cfg=cfg, x=given["noise"])
        denoised = model.model.process_latent_in(latent)
        found[f"{name}.{side}"] = ((x - denoised) / sigma).contiguous()
save_file(found, folder / "out.safetensors")
