"""What training sees of a checkpoint is what ComfyUI sees of it: one file, two implementations.

An adapter trained here works on ComfyUI's embeddings only if both are the same.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core.diffusers_backend import open_backend
from tests.comfyui import server as comfy
from tests.tiny_models import make_tiny

PROMPTS = [
    "Three fluffy white kittens playing with a ball of yarn",
    "",
    "masterpiece, best quality, " + "a very detailed picture of everything there is, " * 12,
]
TOKENIZER = {"bos_token_id": 49406, "eos_token_id": 49407, "vocab_size": 49408}


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def both(request, checkpoints, tmp_path_factory):
    """(what ComfyUI says, what our backend says, of what) for one checkpoint."""
    folder, family = tmp_path_factory.mktemp(request.param), request.param
    checkpoint = checkpoints / f"sur_test_{'sd15' if family == 'sd1' else 'sdxl'}.safetensors"
    generator = torch.Generator().manual_seed(0)
    given = {"timesteps": torch.tensor([500.0])}
    if family == "sd1":
        given["noisy"] = torch.randn(1, 4, 16, 16, generator=generator)
    (folder / "prompts.json").write_text(json.dumps(PROMPTS))
    save_file(given, folder / "in.safetensors")
    script = Path(__file__).with_name("encode.py")
    files = [folder / "prompts.json", folder / "in.safetensors", folder / "out.safetensors"]
    command = [comfy.PYTHON, script, comfy.COMFYUI, checkpoint, *files]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    theirs = load_file(folder / "out.safetensors")
    backend = open_backend(checkpoint, single_file_config=str(configs(folder / "configs", family)))
    return theirs, backend, given


def configs(folder: Path, family: str) -> Path:
    """Configuration and tokenizer of the test checkpoints: real text encoders, a smaller UNet."""
    from transformers import CLIPTextConfig

    make_tiny(folder, family, cross_attention_real=True)
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    text = CLIPTextConfig(**sizes, num_attention_heads=12, projection_dim=768, **TOKENIZER)
    text.save_pretrained(folder / "text_encoder")
    if family == "sdxl":
        sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
        heads = {"num_attention_heads": 20, "projection_dim": 1280, "hidden_act": "gelu"}
        CLIPTextConfig(**sizes, **heads, **TOKENIZER).save_pretrained(folder / "text_encoder_2")
    else:
        channels = (320, 320, 320, 320)
        unet = json.loads((folder / "unet" / "config.json").read_text())
        unet |= {"block_out_channels": channels, "layers_per_block": 2, "attention_head_dim": 8}
        unet |= {"norm_num_groups": 32, "sample_size": 64}
        unet["down_block_types"] = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
        unet["up_block_types"] = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
        (folder / "unet" / "config.json").write_text(json.dumps(unet))
    real = comfy.COMFYUI / "comfy" / "sd1_tokenizer"
    for name in ("tokenizer", "tokenizer_2"):
        if (folder / name).exists():
            for file in ("vocab.json", "merges.txt"):
                shutil.copy(real / file, folder / name / file)
    return folder


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_text_is_read_and_noise_is_predicted_alike(both):
    theirs, backend, given = both
    encoded = backend.encode_text(PROMPTS)
    ours = torch.cat(list(encoded.hidden.values()), -1)
    for number, prompt in enumerate(PROMPTS):
        assert difference(ours[number], theirs["hidden"][number]) < 1e-4, prompt
    if encoded.pooled is not None:
        assert difference(encoded.pooled, theirs["pooled"]) < 1e-4
    if "noisy" in given:  # SDXL's UNet takes too long on a CPU
        noise = backend.predict_noise(given["noisy"], given["timesteps"].long(), theirs["hidden"][:1])
        assert difference(noise, theirs["noise"]) < 2e-3
