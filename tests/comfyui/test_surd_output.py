"""Pictures that a real ComfyUI saved give back the prompts they were made with."""

import json
import subprocess
from pathlib import Path

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


# Templates that come with ComfyUI, read by a person: the nodes (of an encoder with several texts, the node
# and the place of the text) that make the picture's prompt and its negative prompt, and the kinds of remarks.
SEVERAL, UNRESOLVED = "several prompts", "unresolved prompt"
READ = {
    "default": ([6], [7], ()),
    "lora": ([6], [7], ()),
    "inpaint_example": ([6], [7], ()),
    "controlnet_example": ([6], [7], ()),
    "mixing_controlnets": ([24], [7], ()),
    "gligen_textbox_example": ([24], [7], ()),
    "hiresfix_latent_workflow": ([6], [7], ()),
    "2_pass_pose_worship": ([56], [57], ()),
    # The refiner is nearer to the picture than the base model, whose prompt is another.
    "sdxl_refiner_prompt_example": ([15], [16], (SEVERAL,)),
    # Both save two pictures; the first is the one before the second pass.
    "area_composition": ([14, 13, 33, 17, 6], [7], (SEVERAL, SEVERAL)),
    "latent_upscale_different_prompt_model": ([6], [7], (SEVERAL, SEVERAL)),
    "sdxl_revision_text_prompts": ([6], [7], ()),
    "sdxl_revision_zero_positive": ([], [], (UNRESOLVED,)),
    "flux_schnell": ([6], [], ()),
    "flux_dev_full_text_to_image": ([(41, 1), (41, 0)], [], ()),
    "flux_redux_model_example": ([6], [], ()),
    "sd3.5_simple_example": ([16], [], ()),
    "hidream_e1_full": ([6], [7], ()),
    "hidream_e1_1": ([6], [6], ()),  # its guider's negative side is linked to the positive text
    "image_omnigen2_t2i": ([6], [7], ()),
    "image_chroma_text_to_image": ([748], [749], ()),
    "image_qwen_image_edit_2509": ([111], [], ()),  # its other half, with 348, is bypassed
    "image_flux.1_fill_dev_OneReward": ([23], [], ()),
    "video_wan2_2_14B_t2v": ([89], [72], ()),
    # A picture made by 17 is made into a video by a sampler without a prompt.
    "txt_to_image_to_video": ([18], [19], (UNRESOLVED,)),
    "api_openai_dall_e_3_t2i": ([], [], (UNRESOLVED,)),
}


@pytest.fixture(scope="module")
def templates() -> dict[str, dict]:
    """{name: workflow} of those that come with ComfyUI."""
    if reason := comfy.missing():
        comfy.skip_or_fail(reason)
    code = "import comfyui_workflow_templates as t, os; print(os.path.dirname(t.__file__))"
    folder = subprocess.run(
        [comfy.PYTHON, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = {}
    for path in sorted(Path(folder, "templates").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "nodes" in content:
            found[path.stem] = content
    assert len(found) > 50
    return found


def texts_of(content: dict, wanted: list) -> str:
    nodes = {node["id"]: node for node in content["nodes"]}
    places = [one if isinstance(one, tuple) else (one, 0) for one in wanted]
    return "\n".join(nodes[number]["widgets_values"][place] for number, place in places)


@pytest.mark.parametrize("name", READ)
def test_comfyuis_templates_are_read_as_a_person_reads_them(templates, name):
    positive, negative, remarks = READ[name]
    found = read_graph(from_workflow(templates[name]))
    assert found.prompt == texts_of(templates[name], positive)
    assert found.negative == texts_of(templates[name], negative)
    assert tuple(remark.partition(":")[0] for remark in found.remarks) == remarks


def titled(content: dict, side: str) -> set[str]:
    """Texts of the encoders that run and that the template's author has called positive or negative."""
    return {
        node["widgets_values"][0]
        for node in content["nodes"]
        if node["type"] == "CLIPTextEncode" and not node.get("mode") and side in node.get("title", "").lower()
    }


def test_comfyuis_templates_give_the_prompts_that_their_titles_name(templates):
    """Hundreds of real workflows, with subgraphs, bypassed parts and nodes of every kind."""
    compared = 0
    for name, content in templates.items():
        found = read_graph(from_workflow(content))
        positive, negative = titled(content, "positive"), titled(content, "negative")
        if len(positive) == 1:
            assert {found.prompt} == positive, name
            compared += 1
        if len(positive) == len(negative) == 1 and name != "hidream_e1_1":
            assert {found.negative} == {text if text.strip() else "" for text in negative}, name
    assert compared > 50


def test_a_template_without_a_prompt_is_one_that_needs_none_or_is_not_drawn_here(templates):
    """They ask a paid service, make sounds or shapes, or go by pictures alone."""
    without = {name for name, content in templates.items() if not read_graph(from_workflow(content)).prompt}
    others = {
        "image_lotus_depth_v1_1",
        "image_to_video",
        "sdxl_revision_zero_positive",
        "stable_zero123_example",
    }
    assert {name for name in without if not name.startswith(("api_", "3d_", "audio_"))} == others
