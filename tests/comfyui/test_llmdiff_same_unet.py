"""An adapter says the same in diffusers and in ComfyUI: one UNet's weights, two implementations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core.llmdiff import EncodedPrompt, save_encodings, save_llmdiff
from sur_core.llmdiff.diffusers_unet import attach, unet_shape
from tests.comfyui import server as comfy
from tests.comfyui.conftest import PACK
from tests.ldm_layout import _ldm_unet_key
from tests.llmdiff_parts import random_llmdiff

SCRIPT = Path(__file__).with_name("llmdiff_unet.py")
LENGTHS = {"long": 9, "short": 4}
SCENES = {
    "dropped": {"adapters": [("drop", 1.0)]},
    "dropped in part": {"adapters": [("drop", 0.3)]},
    "kept": {"adapters": [("keep", 1.0)]},
    "kept in part": {"adapters": [("keep", 0.4)]},
    "normalised": {"adapters": [("rms", 0.7)]},
    "two": {"adapters": [("drop", 0.6), ("other", 0.5)]},
    "two, one kept": {"adapters": [("keep", 0.8), ("drop", 0.5)]},
}
ADAPTERS = {
    "drop": {"clip": "drop"},
    "keep": {"clip": "keep", "start": "zero"},
    "rms": {"normalize": "rms"},
    "other": {"clip": "drop", "start": "zero"},
}


def real_unet():
    """Tiny, but with the 32 groups of every norm that ComfyUI's UNet has."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            attention_head_dim=8,  # heads, as in SD 1.x
            cross_attention_dim=20,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
        with torch.no_grad():
            for name, weight in unet.named_parameters():
                if "attn2" in name and weight.dim() == 2:
                    weight.copy_(2 * torch.randn_like(weight) / weight.shape[1] ** 0.5)
    return unet.eval().requires_grad_(False)


def prompt(adapter, name: str) -> EncodedPrompt:
    generator = torch.Generator().manual_seed(LENGTHS[name])
    tokens = torch.randn(LENGTHS[name], adapter.config.llm_width, generator=generator)
    return EncodedPrompt(name, tokens, adapter.encoding_id, "tiny-llm")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(what ComfyUI says in each scene, what diffusers says)."""
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    folder, unet = tmp_path_factory.mktemp("same"), real_unet()
    state = unet.state_dict()
    save_file(
        {_ldm_unet_key(k, 1, state): v.contiguous() for k, v in state.items()}, folder / "unet.safetensors"
    )
    context, layers = unet_shape(unet)
    adapters = {
        name: random_llmdiff(context, layers, seed, **config)
        for seed, (name, config) in enumerate(ADAPTERS.items())
    }
    for name, adapter in adapters.items():
        save_llmdiff(adapter, folder / f"models/llmdiff_adapters/{name}.safetensors")
        for text in LENGTHS:
            path = folder / f"models/llmdiff_encodings/{name}/{text}.safetensors"
            save_encodings([prompt(adapter, text)], path)
    generator = torch.Generator().manual_seed(7)
    given = {
        "noise": torch.randn(2, 4, 8, 8, generator=generator),
        "clip": torch.randn(2, 77, context, generator=generator),
    }
    save_file(given, folder / "given.safetensors")
    (folder / "scenes.json").write_text(json.dumps({name: files(scene) for name, scene in SCENES.items()}))
    command = [comfy.PYTHON, SCRIPT, PACK, comfy.COMFYUI, folder]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return load_file(folder / "out.safetensors"), {
        name: in_diffusers(unet, scene, adapters, given) for name, scene in SCENES.items()
    }


def files(scene: dict) -> dict:
    names = [name for name, _ in scene["adapters"]]
    return {
        "adapters": [(f"{name}.safetensors", strength) for name, strength in scene["adapters"]],
        "prompts": [
            [(f"{name}/{text}.safetensors", f"{name}.safetensors") for name in names] for text in LENGTHS
        ],
    }


def in_diffusers(unet, scene: dict, adapters: dict, given: dict) -> torch.Tensor:
    """Noise for [negative, positive] of each of the two pictures."""
    from diffusers import DDPMScheduler

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    cumulative = DDPMScheduler(**betas).alphas_cumprod[500]
    sigma = ((1 - cumulative) / cumulative) ** 0.5
    x = given["noise"] * sigma / (1 + sigma**2) ** 0.5
    sessions = []
    for name, strength in scene["adapters"]:
        session = attach(unet, adapters[name]).__enter__()
        long, short = ([prompt(adapters[name], text)] * len(x) for text in LENGTHS)
        session.use(positive=long, negative=short, strength=strength)
        sessions.append(session)
    clip = given["clip"][[1, 1, 0, 0]]
    try:
        with torch.no_grad():
            return unet(torch.cat([x, x]), 500, clip).sample
    finally:
        for session in reversed(sessions):
            session.__exit__()


@pytest.mark.parametrize("scene", SCENES)
def test_diffusers_and_comfyui_predict_the_same_noise(both, scene):
    theirs, ours = both
    negative, positive = ours[scene].chunk(2)
    for name, expected in (("negative", negative), ("positive", positive)):
        torch.testing.assert_close(theirs[f"{scene}.{name}"], expected, rtol=1e-4, atol=1e-4)


def test_the_scenes_differ(both):
    outputs = [output for _, output in sorted(both[0].items())]
    for number, one in enumerate(outputs):
        for other in outputs[number + 1 :]:
            assert (one - other).abs().max() > 1e-2
