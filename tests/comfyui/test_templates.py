"""The example workflows, as they are shipped, run to a picture in a real ComfyUI."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from pictures.frontend_form import frontend_form
from pictures.llmdiff_templates import LLM, LLMDIFF_ADAPTER
from pictures.pieces import ADAPTER, ADAPTER_XL, SD15, SDXL
from pictures.templates import TEMPLATES
from tests.comfyui import llmdiff_files
from tests.comfyui.conftest import PACK
from tests.comfyui.server import Graph

FOLDER = PACK / "example_workflows"
FILES = {
    SD15: "sur_test_sd15.safetensors",
    SDXL: "sur_test_sdxl.safetensors",
    ADAPTER: "ours.safetensors",
    ADAPTER_XL: "xl/sdxl.safetensors",
    LLM: llmdiff_files.LLM,
    LLMDIFF_ADAPTER: llmdiff_files.ADAPTER,
    "my_style.safetensors": "sur_test_lora.safetensors",
    "control_v11p_sd15_canny_fp16.safetensors": "sur_test_controlnet.safetensors",
}
SMALL = {"width": 128, "height": 128, "steps": 1}  # Self-Attention Guidance fails below

everyone = pytest.mark.parametrize("make", TEMPLATES, ids=lambda make: make.__name__)


def shipped(make) -> dict:
    return json.loads((FOLDER / f"{make().name}.json").read_text("utf-8"))


def info_of(server, flow) -> dict:
    return {node.type: server.node_info(node.type) for node in flow.nodes if not node.is_note}


def test_every_file_of_the_folder_is_a_template():
    assert {path.stem for path in FOLDER.glob("*.json")} == {make().name for make in TEMPLATES}
    assert {path.stem for path in FOLDER.glob("*.jpg")} == {make().name for make in TEMPLATES}


@everyone
def test_the_shipped_file_is_what_its_description_says(server, make):
    """All but the nodes' heights, which the frontend gives."""
    flow, file = make(), shipped(make)
    heights = {node["id"]: node["size"][1] for node in file["nodes"]}
    assert frontend_form(flow, info_of(server, flow), heights) == file


@everyone
def test_it_runs_to_a_picture(server, make):
    """With random checkpoints, one step, 128 x 128."""
    Image.new("RGB", (128, 128), "white").save(server.base / "input/example.png")
    graph = Graph()
    graph.nodes = make().api()
    for node in graph.nodes.values():
        for name, value in node["inputs"].items():
            if isinstance(value, str):
                node["inputs"][name] = FILES.get(value, value)
            elif name in SMALL and isinstance(value, int):
                node["inputs"][name] = SMALL[name]
    outputs = server.run(graph)
    wanted = [
        number for number, node in graph.nodes.items() if node["class_type"] in ("SaveImage", "PreviewImage")
    ]
    assert wanted
    for number in wanted:
        for about in outputs[number]["images"]:
            folder = server.base / ("output" if about["type"] == "output" else "temp")
            with Image.open(folder / about["subfolder"] / about["filename"]) as picture:
                assert min(picture.size) >= 128
                assert picture.convert("L").getextrema()[0] < picture.convert("L").getextrema()[1], (
                    "one color"
                )
