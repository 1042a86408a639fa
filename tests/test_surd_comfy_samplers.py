"""Of several samplers in a ComfyUI graph the one that made the picture tells its prompt."""

import pytest

from sur_core.surd_build.metadata import Found
from tests.surd_graphs import NEGATIVE, POSITIVE, SECOND, ComfyGraph, found, plain


def picture(graph: ComfyGraph, positive=None) -> list:
    samples = graph.sample(positive or graph.encode(POSITIVE), graph.encode(NEGATIVE))
    return graph.add("VAEDecode", samples=samples, vae=graph.vae)[0]


def ends(graph: ComfyGraph) -> dict:
    return {"positive": graph.encode(SECOND), "negative": graph.encode("no dogs")}


def later(graph: ComfyGraph, kind: str, image: list) -> list:
    """A node that works over a picture with a prompt of its own."""
    settings = {"seed": 99, "steps": 3, "cfg": 1.5, "sampler_name": "ddim", "scheduler": "karras"}
    pipe = {"model": graph.model, "clip": graph.clip, "vae": graph.vae, **ends(graph)}
    if kind.endswith("Pipe"):
        name = "detailer_pipe" if kind.startswith("Face") else "basic_pipe"
        pipe = {name: graph.add("ToBasicPipe", **pipe)[0]}
    if kind == "IterativeImageUpscale":
        provider = graph.add("PixelKSampleUpscalerProvider", **pipe, **settings)[0]
        return graph.add(kind, pixels=image, upscaler=provider, steps=2, vae=graph.vae)[0]
    return graph.add(kind, image=image, **pipe, **settings)[0]


LATER = [
    "FaceDetailer", "FaceDetailerPipe", "DetailerForEach", "DetailerForEachPipe", "UltimateSDUpscale",
    "IterativeImageUpscale",
]  # fmt: skip


def finished(graph: ComfyGraph, image: list) -> Found:
    graph.add("SaveImage", images=image, filename_prefix="x")
    return found(graph)


@pytest.mark.parametrize("kind", LATER)
def test_a_later_steps_prompt_does_not_replace_the_pictures(kind):
    graph = ComfyGraph()
    result = finished(graph, later(graph, kind, picture(graph)))
    assert (result.prompt, result.negative) == (POSITIVE, NEGATIVE)
    assert (result.parameters["seed"], result.parameters["steps"]) == (7, 12)
    (remark,) = result.remarks
    assert remark.startswith("several prompts: ComfyUI's graph: ")


@pytest.mark.parametrize("kind", LATER)
def test_however_many_there_are(kind):
    graph = ComfyGraph()
    image = picture(graph)
    for _ in range(3):
        image = later(graph, kind, image)
    assert finished(graph, image).prompt == POSITIVE


@pytest.mark.parametrize("kind", [kind for kind in LATER if kind != "IterativeImageUpscale"])
def test_where_nothing_else_has_a_prompt_it_counts_with_a_remark(kind):
    graph = ComfyGraph()
    image = graph.add("LoadImage", image="x.png")[0]
    result = finished(graph, later(graph, kind, image))
    assert result.prompt == SECOND
    (remark,) = result.remarks
    assert remark.startswith("prompt of a later step: ") and kind in remark


@pytest.mark.parametrize("kind", LATER)
def test_it_is_not_taken_for_a_prompt_that_the_graph_does_not_hold(kind):
    graph = ComfyGraph()
    made = graph.encode(graph.add("OllamaGenerate", prompt="Write a prompt")[0])
    result = finished(graph, later(graph, kind, picture(graph, made)))
    assert result.prompt == "" and "OllamaGenerate" in result.remarks[0]


def test_a_second_pass_over_latents_comes_before_a_detailer():
    graph = ComfyGraph()
    first = graph.sample(graph.encode("a sketch"), graph.encode(NEGATIVE))
    second = graph.sample(graph.encode(POSITIVE), graph.encode(NEGATIVE), latent=first)
    image = graph.add("VAEDecode", samples=second, vae=graph.vae)[0]
    result = finished(graph, later(graph, "FaceDetailer", image))
    assert result.prompt == POSITIVE
    assert len(result.remarks) == 2 and all(one.startswith("several prompts: ") for one in result.remarks)


def test_a_detailer_with_the_same_prompt_needs_no_remark():
    graph = ComfyGraph()
    positive, negative = graph.encode(POSITIVE), graph.encode(NEGATIVE)
    image = graph.add("VAEDecode", samples=graph.sample(positive, negative), vae=graph.vae)[0]
    inputs = {"image": image, "model": graph.model, "positive": positive, "negative": negative}
    assert plain(finished(graph, graph.add("FaceDetailer", **inputs)[0]))


def test_a_sampler_that_is_also_given_what_a_picture_looks_like_is_no_later_step():
    graph = ComfyGraph()
    embeds = graph.add("SomebodysImageEncoder", image=graph.add("LoadImage", image="x.png")[0])[0]
    inputs = {"model": graph.model, "image_embeds": embeds, "positive": graph.encode(POSITIVE)}
    sampled = graph.add("SomebodysSampler", negative=graph.encode(NEGATIVE), **inputs)[0]
    assert plain(finished(graph, graph.add("VAEDecode", samples=sampled, vae=graph.vae)[0]))
