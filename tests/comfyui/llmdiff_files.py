"""Language models and LLMDiff adapters for a test server, fitting the random checkpoints."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from sur_core.language_model_files import find_model
from sur_core.llmdiff import LayerShape, LLMDiffConfig, new_llmdiff_adapter, save_llmdiff
from tests.comfyui import server as comfy

TESTS = Path(__file__).resolve().parents[1]
LLM, OTHER_LLM = "Qwen2.5-0.5B", "maker/tiny-gpt2"
ADAPTER = "my_llmdiff_adapter.safetensors"
KEEP, OTHER, XL = "keep.safetensors", "of_other_llm.safetensors", "xl/sdxl.safetensors"
SD15_LAYERS = (LayerShape(320, 8, 40),) * 16
"""Of sur_test_sd15.safetensors: real in number, 320 wide everywhere."""
SDXL_LAYERS = (LayerShape(320, 5, 64),) * 70


def write_llmdiff_files(models: Path) -> None:
    """Into a server's models folder."""
    folders = {name: models / "llm" / name for name in (LLM, OTHER_LLM)}
    script = Path(__file__).with_name("write_llm.py")
    command = [comfy.PYTHON, script, TESTS, "qwen2", folders[LLM], "gpt2", folders[OTHER_LLM]]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for name, llm, context, layers, clip in (
        (ADAPTER, LLM, 768, SD15_LAYERS, "drop"),
        (KEEP, LLM, 768, SD15_LAYERS, "keep"),
        (OTHER, OTHER_LLM, 768, SD15_LAYERS, "drop"),
        (XL, LLM, 2048, SDXL_LAYERS, "drop"),
    ):
        save_llmdiff(random_adapter(folders[llm], context, layers, clip), models / "llmdiff_adapters" / name)


def random_adapter(llm: Path, context: int, layers: tuple[LayerShape, ...], clip: str):
    """An adapter that has left its zero start."""
    info = find_model(llm, local_files_only=True)
    config = LLMDiffConfig(info.width, info.layers, context, layers, clip)
    adapter = new_llmdiff_adapter(config, llm_name=info.name, llm_identity=info.identity)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in adapter.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.add_(noise / weight.shape[1] ** 0.5 if weight.dim() == 2 else 0.3 * noise)
    return adapter.freeze()
