"""A ComfyUI server with this pack, random checkpoints, and adapters in its models folder; or a skip that says
why.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sur_core import join_towers, load_adapter, save_adapter
from tests.comfyui import server as comfy
from tests.comfyui.llmdiff_files import write_llmdiff_files
from tests.helpers import random_adapter, write_authors_file

PACK = Path(__file__).resolve().parents[2]
CHECKPOINTS = comfy.HOME / "sur-adapter-tests"


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    """Random checkpoints; made once (about a minute, 3.6 GB) and kept beside the test ComfyUI."""
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    maker = Path(__file__).with_name("random_checkpoint.py")
    made = subprocess.run([comfy.PYTHON, maker, comfy.COMFYUI, CHECKPOINTS], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return CHECKPOINTS


@pytest.fixture(scope="session")
def server(checkpoints, tmp_path_factory):
    base = tmp_path_factory.mktemp("comfyui")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    extra = f"""tests:
  checkpoints: {checkpoints}
  loras: {checkpoints}
  controlnet: {checkpoints}
  text_encoders: {checkpoints}
  sur_adapters: {elsewhere}
"""
    folder = base / "models" / "sur_adapters"
    save_adapter(
        random_adapter("sd1", seed=1, passport={"base_model": "random SD 1.5", "eta": 0.3}),
        folder / "ours.safetensors",
    )
    save_adapter(random_adapter("sd1", seed=2), folder / "second.safetensors")
    save_adapter(random_adapter("sd2", seed=3), folder / "sd2.safetensors")
    save_adapter(random_adapter("sdxl", seed=4), elsewhere / "xl" / "sdxl.safetensors")
    write_authors_file(folder / "test_llm13B_adapterw0.1" / "adapter_checkpoint5000.pt")
    parts = tmp_path_factory.mktemp("parts")
    theirs = [write_authors_file(parts / f"{width}.pt", width=width) for width in (768, 1280)]
    joined = join_towers([load_adapter(path, eta=0.1) for path in theirs])
    save_adapter(joined, elsewhere / "xl" / "authors.safetensors")
    (folder / "notes.txt").write_text("not an adapter")
    write_llmdiff_files(base / "models")
    packs = {"sur-adapter": PACK, "probe": Path(__file__).with_name("probe_pack")}
    with comfy.Server(base, packs, extra) as running:
        yield running
