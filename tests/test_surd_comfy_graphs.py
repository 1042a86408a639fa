"""A picture's prompt is found by the links of its ComfyUI graph, whatever stands between text and picture."""

import json

import pytest

from sur_core.surd_build.metadata import Found
from sur_core.surd_build.metadata.comfy_graph import from_api
from sur_core.surd_build.metadata.comfyui import read_graph
from tests.surd_graphs import NEGATIVE, POSITIVE, SECOND, ComfyGraph, ends, found, plain, saved

# Samplers and guiders


def test_ksampler_with_its_settings():
    graph = ComfyGraph()
    result = saved(graph, *ends(graph))
    assert plain(result)
    expected = {
        "seed": 7,
        "steps": 12,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    assert result.parameters == {**expected, "ckpt_name": "base.safetensors"}


def test_a_seed_from_a_primitive():
    graph = ComfyGraph()
    positive, negative = ends(graph)
    graph.save(graph.sample(positive, negative, seed=graph.add("PrimitiveInt", value=123)[0]))
    assert found(graph).parameters["seed"] == 123


@pytest.mark.parametrize("node", ["KSamplerAdvanced", "SamplerCustom"])
def test_other_samplers(node):
    graph = ComfyGraph()
    positive, negative = ends(graph)
    graph.save(
        graph.add(node, model=graph.model, positive=positive, negative=negative, latent_image=graph.empty())[
            0
        ]
    )
    assert plain(found(graph))


def custom_advanced(graph: ComfyGraph, guider: list) -> Found:
    sampler = graph.add(
        "SamplerCustomAdvanced",
        noise=graph.add("RandomNoise", noise_seed=11)[0],
        guider=guider,
        sampler=graph.add("KSamplerSelect", sampler_name="dpmpp_2m")[0],
        sigmas=graph.add("BasicScheduler", model=graph.model, scheduler="karras", steps=30, denoise=1.0)[0],
        latent_image=graph.empty(),
    )
    graph.save(sampler[1])
    return found(graph)


def test_sampler_custom_advanced_with_cfg_guider():
    graph = ComfyGraph()
    positive, negative = ends(graph)
    result = custom_advanced(
        graph, graph.add("CFGGuider", model=graph.model, positive=positive, negative=negative, cfg=4.0)[0]
    )
    assert plain(result)
    expected = {"noise_seed": 11, "steps": 30, "cfg": 4.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
    assert expected.items() <= result.parameters.items()


def test_basic_guider_has_no_negative():
    graph = ComfyGraph()
    guided = graph.add("FluxGuidance", conditioning=graph.encode(POSITIVE), guidance=3.5)[0]
    guider = graph.add("BasicGuider", model=graph.model, conditioning=guided)[0]
    assert plain(custom_advanced(graph, guider), POSITIVE, "")


def test_the_second_conditioning_of_dual_cfg_guider_is_no_positive():
    """As the templates of OmniGen2 and HiDream use it: what the first is guided away from."""
    graph = ComfyGraph()
    conds = {
        "cond1": graph.encode(POSITIVE),
        "cond2": graph.encode(SECOND),
        "negative": graph.encode(NEGATIVE),
    }
    guider = graph.add("DualCFGGuider", model=graph.model, **conds)[0]
    assert plain(custom_advanced(graph, guider))


def test_perp_neg_guiders_empty_conditioning_is_no_prompt():
    graph = ComfyGraph()
    positive, negative = ends(graph)
    guider = graph.add(
        "PerpNegGuider",
        model=graph.model,
        positive=positive,
        negative=negative,
        empty_conditioning=graph.encode("nothing"),
    )[0]
    assert plain(custom_advanced(graph, guider))


# Between encoder and sampler

ONE = {
    "ConditioningSetArea": {"width": 64, "height": 64, "x": 0, "y": 0, "strength": 1.0},
    "ConditioningSetMask": {"mask": ["1", 0], "strength": 1.0, "set_cond_area": "default"},
    "ConditioningSetTimestepRange": {"start": 0.0, "end": 0.5},
    "ControlNetApply": {"control_net": ["1", 0], "image": ["1", 0], "strength": 1.0},
    "unCLIPConditioning": {"clip_vision_output": ["1", 0], "strength": 1.0, "noise_augmentation": 0.0},
    "StyleModelApply": {"style_model": ["1", 0], "clip_vision_output": ["1", 0]},
    "FluxGuidance": {"guidance": 3.5},
    "SURApplyConditioning": {"adapter": ["1", 0], "eta": 0.3, "start_percent": 0.0, "end_percent": 1.0},
    "SUREtaSweep": {"adapter": ["1", 0], "etas": "0, 0.25"},
    "SomebodysUnknownNode": {"amount": 3, "note": "not a prompt"},
}


@pytest.mark.parametrize("node", ONE)
def test_nodes_with_one_conditioning_are_passed_through(node):
    graph = ComfyGraph()
    ends_ = [graph.add(node, conditioning=one, **ONE[node])[0] for one in ends(graph)]
    assert plain(saved(graph, *ends_))


PAIRS = ["ControlNetApplyAdvanced", "ControlNetApplySD3", "InpaintModelConditioning", "SURApplyPair"]


@pytest.mark.parametrize("node", [*PAIRS, "SomebodysPair"])
def test_nodes_with_a_pair_of_conditionings_are_passed_through(node):
    graph = ComfyGraph()
    positive, negative = ends(graph)
    pair = graph.add(node, positive=positive, negative=negative, vae=graph.vae, strength=0.5)
    assert plain(saved(graph, *pair[:2]))


@pytest.mark.parametrize("node", PAIRS)
def test_the_outputs_of_a_pair_may_be_crossed(node):
    graph = ComfyGraph()
    positive, negative = ends(graph)
    pair = graph.add(node, positive=negative, negative=positive)
    assert plain(saved(graph, pair[1], pair[0]))


def test_a_pair_behind_other_outputs():
    graph = ComfyGraph()
    positive, negative = ends(graph)
    pair = graph.add("ApplyInstantID", positive=positive, negative=negative, model=graph.model)
    assert plain(saved(graph, pair[1], pair[2]))


def test_the_latent_image_of_a_pair_is_no_second_sampler():
    graph = ComfyGraph()
    positive, negative = ends(graph)
    pair = graph.add("InpaintModelConditioning", positive=positive, negative=negative, vae=graph.vae)
    more = graph.add("ConditioningCombine", conditioning_1=pair[0], conditioning_2=graph.encode(SECOND))[0]
    graph.save(graph.sample(more, pair[1], latent=pair[2]))
    assert plain(found(graph), f"{POSITIVE}\n{SECOND}")


TWO = {
    "ConditioningCombine": ("conditioning_1", "conditioning_2"),
    "ConditioningConcat": ("conditioning_to", "conditioning_from"),
    "ConditioningAverage": ("conditioning_to", "conditioning_from"),
    "ConditioningSetPropertiesAndCombine": ("cond", "cond_NEW"),
    "ConditioningSetDefaultAndCombine": ("cond", "cond_DEFAULT"),
}


@pytest.mark.parametrize("node", TWO)
def test_two_prompts_in_one_follow_each_other(node):
    graph = ComfyGraph()
    inputs = dict(zip(TWO[node], (graph.encode(POSITIVE), graph.encode(SECOND)), strict=True))
    both = graph.add(node, **inputs, conditioning_to_strength=0.7)[0]
    assert plain(saved(graph, both), f"{POSITIVE}\n{SECOND}")


@pytest.mark.parametrize(
    "strength, expected", [(1.0, POSITIVE), (0.0, SECOND), (0.5, f"{POSITIVE}\n{SECOND}")]
)
@pytest.mark.parametrize("linked", [False, True])
def test_an_average_at_its_ends_is_one_prompt(strength, expected, linked):
    graph = ComfyGraph()
    value = graph.add("PrimitiveFloat", value=strength)[0] if linked else strength
    both = graph.add(
        "ConditioningAverage",
        conditioning_to_strength=value,
        conditioning_to=graph.encode(POSITIVE),
        conditioning_from=graph.encode(SECOND),
    )[0]
    assert plain(saved(graph, both), expected)


@pytest.mark.parametrize("node", ["PairConditioningCombine", "PairConditioningSetPropertiesAndCombine"])
def test_pairs_of_pairs(node):
    graph = ComfyGraph()
    first, second = ("_A", "_B") if node == "PairConditioningCombine" else ("", "_NEW")
    inputs = {f"positive{first}": graph.encode(POSITIVE), f"negative{first}": graph.encode(NEGATIVE)}
    inputs |= {f"positive{second}": graph.encode(SECOND), f"negative{second}": graph.encode("dull")}
    pair = graph.add(node, **inputs)
    assert plain(saved(graph, *pair[:2]), f"{POSITIVE}\n{SECOND}", f"{NEGATIVE}\ndull")


def test_the_same_text_twice_counts_once():
    graph = ComfyGraph()
    one, two = graph.encode(POSITIVE), graph.encode(POSITIVE)
    assert plain(saved(graph, graph.add("ConditioningCombine", conditioning_1=one, conditioning_2=two)[0]))


def test_what_is_zeroed_out_is_no_prompt():
    graph = ComfyGraph()
    positive = graph.encode(POSITIVE)
    assert plain(
        saved(graph, positive, graph.add("ConditioningZeroOut", conditioning=positive)[0]), POSITIVE, ""
    )


def test_a_chain_of_many_nodes():
    graph = ComfyGraph()
    positive = graph.encode(POSITIVE)
    for index in range(60):
        node = list(ONE)[index % len(ONE)]
        positive = graph.add(node, conditioning=positive, **ONE[node])[0]
    assert plain(saved(graph, positive))


def test_a_wide_lattice_of_combinations_is_read_once():
    """Two ways at each of 60 steps are 2^60 ways."""
    graph = ComfyGraph()
    positive = graph.encode(POSITIVE)
    for _ in range(60):
        positive = graph.add("ConditioningCombine", conditioning_1=positive, conditioning_2=positive)[0]
    assert plain(saved(graph, positive))


# Encoders

ENCODERS = {
    "CLIPTextEncode": ["text"],
    "CLIPTextEncodeSDXL": ["text_g", "text_l"],
    "CLIPTextEncodeSDXLRefiner": ["text"],
    "CLIPTextEncodeFlux": ["t5xxl", "clip_l"],
    "CLIPTextEncodeSD3": ["t5xxl", "clip_g", "clip_l"],
    "CLIPTextEncodeHiDream": ["t5xxl", "clip_g", "clip_l", "llama"],
    "CLIPTextEncodeHunyuanDiT": ["mt5xl", "bert"],
    "CLIPTextEncodeLumina2": ["user_prompt"],
    "CLIPTextEncodePixArtAlpha": ["text"],
    "TextEncodeQwenImageEdit": ["prompt"],
    "BNK_CLIPTextEncodeAdvanced": ["text"],
}


@pytest.mark.parametrize("node", ENCODERS)
def test_encoders_that_get_the_same_text_in_all_inputs(node):
    graph = ComfyGraph()
    other = {"clip": graph.clip, "width": 512, "system_prompt": "superior", "token_normalization": "none"}
    ends_ = [
        graph.add(node, **other, **dict.fromkeys(ENCODERS[node], text))[0] for text in (POSITIVE, NEGATIVE)
    ]
    assert plain(saved(graph, *ends_))


@pytest.mark.parametrize("node", [name for name, inputs in ENCODERS.items() if len(inputs) > 1])
def test_encoders_that_get_different_texts_or_only_one(node):
    graph = ComfyGraph()
    first, second, *_ = ENCODERS[node]
    both = graph.add(node, clip=graph.clip, **{second: SECOND, first: POSITIVE})[0]
    assert plain(saved(graph, both), f"{POSITIVE}\n{SECOND}")
    graph = ComfyGraph()
    one = graph.add(node, clip=graph.clip, **{first: "", second: POSITIVE})[0]
    assert plain(saved(graph, one))


def test_a_loader_with_both_prompts():
    graph = ComfyGraph()
    loader = graph.add("Efficient Loader", ckpt_name="x", positive=POSITIVE, negative=NEGATIVE)
    assert plain(saved(graph, loader[1], loader[2]))


# Strings


def test_text_from_string_nodes():
    for node in ("PrimitiveString", "PrimitiveStringMultiline", "String Literal"):
        graph = ComfyGraph()
        name = "string" if node == "String Literal" else "value"
        positive = graph.encode(graph.add(node, **{name: POSITIVE})[0])
        assert plain(saved(graph, positive))


def test_text_is_put_together_as_comfyui_does_it():
    graph = ComfyGraph()
    parts = [graph.add("PrimitiveString", value=value)[0] for value in ("a fox ", " reads")]
    text = graph.add("StringConcatenate", string_a=parts[0], string_b=parts[1], delimiter="| ")[0]
    text = graph.add("StringReplace", string=text, find="fox", replace="FOX")[0]
    text = graph.add("CaseConverter", string=text, mode="lowercase")[0]
    text = graph.add("StringTrim", string=text, mode="Both")[0]
    shown = graph.add("ShowText|pysssss", text=text)[0]
    assert plain(saved(graph, graph.encode(shown)), "a fox |  reads")


def test_small_strings_cannot_grow_without_end():
    graph = ComfyGraph()
    text = graph.add("PrimitiveString", value="abcdefgh")[0]
    for _ in range(38):
        text = graph.add("StringConcatenate", string_a=text, string_b=text, delimiter="")[0]
    graph.save(graph.sample(graph.encode(text), graph.encode(NEGATIVE)))
    with pytest.raises(ValueError, match="a text of more than 200,000 characters"):
        found(graph)


# Several samplers, several pictures


def two_passes(second: str) -> Found:
    graph = ComfyGraph()
    positive, negative = ends(graph)
    first = graph.sample(positive, negative)
    larger = graph.add("LatentUpscale", samples=first, upscale_method="bicubic", width=128, height=128)[0]
    graph.save(graph.sample(graph.encode(second), negative, latent=larger, seed=8))
    return found(graph)


def test_a_second_pass_with_the_same_prompt():
    result = two_passes(POSITIVE)
    assert plain(result) and result.parameters["seed"] == 8


def test_of_different_prompts_the_one_nearest_the_picture_counts_with_a_remark():
    result = two_passes(SECOND)
    assert result.prompt == SECOND and result.remarks[0].startswith("several prompts: ")


def test_a_second_pass_without_a_prompt_does_not_hide_the_first():
    assert two_passes("").prompt == POSITIVE


def test_a_second_pass_over_pixels():
    graph = ComfyGraph()
    positive, negative = ends(graph)
    image = graph.add("VAEDecode", samples=graph.sample(positive, negative), vae=graph.vae)[0]
    image = graph.add("ImageUpscaleWithModel", upscale_model=graph.model, image=image)[0]
    image = graph.add(
        "UltimateSDUpscale", image=image, model=graph.model, positive=positive, negative=negative
    )[0]
    graph.add("SaveImage", images=image, filename_prefix="x")
    assert plain(found(graph))


def test_the_file_name_tells_which_node_saved_it():
    graph = ComfyGraph()
    for prefix, text in (("day", POSITIVE), ("sub/night", SECOND), ("%date:yyyy%", "neither")):
        graph.save(graph.sample(graph.encode(text), graph.encode(NEGATIVE)), prefix)
    assert plain(found(graph, "night_00001_.png"), SECOND)
    assert plain(found(graph, "day_00001_.png"), POSITIVE)
    result = found(graph, "renamed.png")
    assert result.prompt == POSITIVE and result.remarks[0].startswith("several prompts: ")


def test_a_preview_did_not_save_the_picture():
    graph = ComfyGraph()
    preview = graph.sample(graph.encode(SECOND), graph.encode(NEGATIVE))
    graph.add("PreviewImage", images=graph.add("VAEDecode", samples=preview, vae=graph.vae)[0])
    assert plain(saved(graph, *ends(graph)))


def test_nodes_of_a_subgraph_in_the_api_format():
    graph = ComfyGraph()
    graph.save(graph.sample(*ends(graph)))
    text = json.dumps(graph.nodes)
    for number in graph.nodes:
        text = text.replace(f'["{number}", ', f'["12:{number}", ').replace(
            f'"{number}": {{"class', f'"12:{number}": {{"class'
        )
    assert plain(read_graph(from_api(json.loads(text))))
