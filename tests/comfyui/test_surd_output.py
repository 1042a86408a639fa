"""Pictures that a real ComfyUI saved give back the prompts they were made with."""

import json
import os
import subprocess

import pytest
from PIL import Image

from sur_core.surd_build.metadata import read_metadata
from sur_core.surd_build.metadata.comfy_workflow import from_workflow
from sur_core.surd_build.metadata.comfyui import read_graph
from tests.comfyui import server as comfy
from tests.comfyui.test_images import NEGATIVE, PROMPT, Pictures

UNICODE = 'a fox, "狐": 50° & é\nNegative prompt: no\nSteps: 1, Seed: 2, Size: 3x3 🦊'


def read(path):
    with Image.open(path) as image:
        image.load()
        return read_metadata(image, path)


@pytest.fixture(scope="module")
def pictures(server) -> dict:
    """{name: what is read from the newest file saved under it}"""
    made = Pictures(server, "sur_test_sd15.safetensors")
    graph = made.graph
    plain = made.encode(made.clip)
    made.draw("surd_plain", plain, steps=1)
    made.draw("surd_unicode", made.encode(made.clip, UNICODE), steps=1)
    adapted = made.on_conditioning(plain, made.adapter("ours.safetensors"), 0.5)
    text = graph.add("PrimitiveStringMultiline", value="a green")[0]
    text = graph.add("StringConcatenate", string_a=text, string_b="carpet", delimiter=" ")[0]
    area = graph.add(
        "ConditioningSetArea",
        conditioning=made.encode(made.clip, text),
        width=64,
        height=64,
        x=0,
        y=0,
        strength=1.0,
    )[0]
    made.draw(
        "surd_combined",
        graph.add("ConditioningCombine", conditioning_1=adapted, conditioning_2=area)[0],
        steps=1,
    )
    guider = graph.add("CFGGuider", model=made.model, positive=plain, negative=made.negative, cfg=4.0)[0]
    sampled = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=3)[0],
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="euler")[0],
        sigmas=graph.add("BasicScheduler", model=made.model, scheduler="normal", steps=1, denoise=1.0)[0],
        latent_image=made.latent,
    )[0]
    images = graph.add("VAEDecode", samples=sampled, vae=made.vae)[0]
    graph.add("SaveImage", images=images, filename_prefix="surd_guided")
    graph.add(
        "SaveAnimatedWEBP",
        images=images,
        filename_prefix="surd_webp",
        fps=6.0,
        lossless=False,
        quality=80,
        method="default",
    )
    made.run()
    names = [*made.names, "surd_guided", "surd_webp"]
    return {name: read(max(server.output.glob(f"{name}_0*"))) for name in names}


@pytest.mark.parametrize(
    "name, prompt",
    [
        ("surd_plain", PROMPT),
        ("surd_unicode", UNICODE),
        ("surd_combined", f"{PROMPT}\na green carpet"),
        ("surd_guided", PROMPT),
        ("surd_webp", PROMPT),
    ],
)
def test_a_saved_picture_gives_back_its_prompt(pictures, name, prompt):
    found = pictures[name]
    assert (found.kind, found.prompt, found.negative) == ("comfyui", prompt, NEGATIVE)
    assert found.parameters["steps"] == 1 and found.parameters["ckpt_name"] == "sur_test_sd15.safetensors"
    # Five pictures were saved by one graph: the file's name said which. The WebP has a node of its own too.
    assert found.remarks == ()


def test_comfyuis_own_templates_are_read():
    """Hundreds of real workflows, with subgraphs, bypassed parts and nodes of every kind."""
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    code = "import comfyui_workflow_templates as t, os; print(os.path.dirname(t.__file__))"
    folder = subprocess.run(
        [comfy.PYTHON, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    templates = {}
    for path in sorted(os.scandir(os.path.join(folder, "templates")), key=lambda entry: entry.name):
        if path.name.endswith(".json"):
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
            if isinstance(content, dict) and "nodes" in content:
                templates[path.name] = content
    assert len(templates) > 50
    read_of = {name: read_graph(from_workflow(content)) for name, content in templates.items()}
    for name, found in read_of.items():
        assert found.prompt or found.remarks, name
    written = {name: {str(value) for value in texts(content)} for name, content in templates.items()}
    for name, found in read_of.items():
        assert all(line in "\n".join(written[name]) for line in found.prompt.split("\n")), name
    nodes = {node["id"]: node for node in templates["default.json"]["nodes"]}
    positive, negative = (nodes[number]["widgets_values"][0] for number in (6, 7))
    assert read_of["default.json"].prompt == positive
    assert read_of["default.json"].negative == negative
    assert sum(bool(found.prompt) for found in read_of.values()) > 50


def texts(value):
    """All strings in JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)
