"""The example workflows: one function each, and all of them as ``TEMPLATES``."""

from __future__ import annotations

from .llmdiff_templates import LLMDIFF_TEMPLATES
from .pieces import (
    ADAPTER_XL,
    BALLOONS,
    DANCER,
    KITTENS,
    PROMPT_ROOM,
    SDXL,
    UNWANTED,
    apply_sur,
    clip_prompts,
    compare,
    decode,
    empty_latent,
    load_models,
    sample,
    save,
)
from .workflow import Workflow


def _with_and_without(
    name: str, prompt: str, instructions: str, room: int, side: int = 512, **files: str
) -> Workflow:
    """One prompt and one seed, with the adapter and without it.

    Args:
        instructions, room: text of the note, and its height.
        files: names of the checkpoint and of the adapter, where not the usual ones.
    """
    flow = Workflow(name, (365, 310, 292, 255, 140, 235))
    models, adapter = load_models(flow, **files)
    positive, negative = clip_prompts(flow, 1, models[1], prompt)
    latent = empty_latent(flow, 1, side)
    adapted = apply_sur(flow, 2, positive[0], adapter[0])
    flow.note(2, instructions, room)
    same = {"negative": negative[0], "latent_image": latent[0]}
    both = {"With SUR": {"positive": adapted[0], **same}, "Without SUR": {"positive": positive[0], **same}}
    compare(flow, 3, models[0], models[2], both)
    return flow


def first_steps() -> Workflow:
    return _with_and_without(
        "sur_first_steps",
        KITTENS,
        "1. Put an SD 1.5 adapter into models/sur_adapters, press R, and choose it in Load SUR Adapter.\n\n"
        "2. Choose the checkpoint the adapter was trained for.\n\n"
        "3. Run. Upper picture: with the adapter. Lower picture: without it, same seed.\n\n"
        "4. Move eta in small steps and run again: 0 is the prompt as it was, 1 the adapter only. Begin with "
        "the eta the adapter was trained with: double-click the slider.",
        250,
    )


def on_clip() -> Workflow:
    flow = Workflow("sur_on_clip", (365, 310, 310, 255, 140, 300))
    models, adapter = load_models(flow)
    lora = flow.add(
        "LoraLoader",
        1,
        model=models[0],
        clip=models[1],
        lora_name="my_style.safetensors",
        strength_model=0.8,
        strength_clip=0.8,
    )
    clip = flow.add("SURApplyCLIP", 1, clip=lora[1], adapter=adapter[0], eta=0.1)
    flow.note(
        1,
        "The adapter sits in CLIP: every prompt encoded behind it is corrected, before token weights such as "
        "(seven:1.3) act.\n\n"
        "A LoRA's trigger words work as ever. The LoRA may also stand behind the adapter.\n\n"
        "The negative prompt is encoded with the LoRA's CLIP, so the adapter leaves it alone.",
        210,
    )
    weighted = BALLOONS.replace("Seven", "(Seven:1.3)").replace("blue juice", "(blue juice:1.2)")
    positive = flow.add("CLIPTextEncode", 2, "Positive prompt", PROMPT_ROOM, text=weighted, clip=clip[0])
    negative = flow.add("CLIPTextEncode", 2, "Negative prompt", PROMPT_ROOM, text=UNWANTED, clip=lora[1])
    latent = empty_latent(flow, 2)
    wires = {"positive": positive[0], "negative": negative[0], "latent_image": latent[0]}
    sampled = sample(flow, 3, model=lora[0], **wires)
    save(flow, 5, decode(flow, 4, sampled[0], models[2])[0], "sur_on_clip")
    return flow


def eta_sweep() -> Workflow:
    flow = Workflow("sur_eta_sweep", (365, 310, 292, 255, 140, 240, 420))
    models, adapter = load_models(flow)
    positive, negative = clip_prompts(flow, 1, models[1], KITTENS)
    latent = empty_latent(flow, 1)
    sweep = flow.add(
        "SUREtaSweep", 2, conditioning=positive[0], adapter=adapter[0], etas="0, 0.1, 0.25, 0.5, 0.75, 1"
    )
    flow.note(
        2,
        "1. Choose a checkpoint and the adapter trained for it.\n\n"
        "2. Write the strengths to try into etas. All that follows runs once for each, with one seed.\n\n"
        "3. Run. SUR Label Grid puts all pictures on one sheet, each with its eta.\n\n"
        "4. Put the eta you like into Apply SUR to CONDITIONING.",
        215,
    )
    wires = {"positive": sweep[0], "negative": negative[0], "latent_image": latent[0]}
    sampled = sample(flow, 3, model=models[0], **wires)
    picture = decode(flow, 4, sampled[0], models[2])
    sheet = flow.add(
        "SURLabelGrid", 5, images=picture[0], labels=sweep[1], columns=3, label_size=28, theme="dark"
    )
    save(flow, 6, sheet[0], "eta_sweep", "One sheet of all strengths", 330)
    return flow


def positive_negative() -> Workflow:
    flow = Workflow("sur_positive_negative", (365, 310, 292, 255, 140, 235))
    models, adapter = load_models(flow)
    positive, negative = clip_prompts(flow, 1, models[1], DANCER)
    latent = empty_latent(flow, 1)
    pair = flow.add(
        "SURApplyPair",
        2,
        positive=positive[0],
        negative=negative[0],
        adapter=adapter[0],
        eta_positive=0.1,
        eta_negative=0.1,
        as_authors_pipeline=False,
    )
    adapted = apply_sur(flow, 2, positive[0], adapter[0], "Apply SUR to positive only")
    flow.note(
        2,
        "Upper picture: both prompts adapted, as the authors' released pipeline does.\n\n"
        "Lower picture: the positive prompt only, as the paper does.\n\n"
        "Which is better depends on the adapter and on the negative prompt: a list of flaws is no narrative.",
        165,
    )
    both = {
        "Both prompts": {"positive": pair[0], "negative": pair[1], "latent_image": latent[0]},
        "Positive only": {"positive": adapted[0], "negative": negative[0], "latent_image": latent[0]},
    }
    compare(flow, 3, models[0], models[2], both)
    return flow


def sdxl() -> Workflow:
    return _with_and_without(
        "sur_sdxl",
        DANCER,
        "SDXL reads a prompt with two text encoders, and an SDXL adapter has a tower for each. An adapter "
        "for SD 1.5 does not fit: the node says so.\n\n"
        "Pooled output, size and crop of the prompt stay as they are. CLIP Text Encode SDXL works as well.",
        165,
        side=1024,
        checkpoint=SDXL,
        adapter=ADAPTER_XL,
    )


def controlnet() -> Workflow:
    flow = Workflow("sur_controlnet", (365, 310, 292, 300, 255, 140, 300))
    models, adapter = load_models(flow)
    positive, negative = clip_prompts(flow, 1, models[1], DANCER)
    image = flow.add("LoadImage", 1, "Picture to follow", 300, image="example.png")
    adapted = apply_sur(flow, 2, positive[0], adapter[0])
    edges = flow.add("Canny", 2, image=image[0], low_threshold=0.4, high_threshold=0.8)
    network = flow.add("ControlNetLoader", 2, control_net_name="control_v11p_sd15_canny_fp16.safetensors")
    guided = flow.add(
        "ControlNetApplyAdvanced",
        3,
        positive=adapted[0],
        negative=negative[0],
        control_net=network[0],
        image=edges[0],
        strength=0.8,
        start_percent=0.0,
        end_percent=1.0,
    )
    latent = empty_latent(flow, 3)
    flow.note(
        3,
        "The adapter corrects what the prompt means; ControlNet gives the shapes. Apply SUR may stand before "
        "or behind the ControlNet node: the picture is the same.\n\n"
        "Choose a canny ControlNet for your checkpoint's family.",
        150,
    )
    wires = {"positive": guided[0], "negative": guided[1], "latent_image": latent[0]}
    sampled = sample(flow, 4, model=models[0], **wires)
    save(flow, 6, decode(flow, 5, sampled[0], models[2])[0], "sur_controlnet")
    return flow


def regional() -> Workflow:
    flow = Workflow("sur_regional", (365, 310, 292, 292, 230, 230, 255, 140, 300))
    models, adapter = load_models(flow)
    texts = {
        "Left half": "A red fox sleeps under a tree",
        "Right half": "Two blue birds sit on a white fence",
    }
    areas = []
    for place, (title, text) in enumerate(texts.items()):
        prompt = flow.add("CLIPTextEncode", 1, title, PROMPT_ROOM, text=text, clip=models[1])
        adapted = apply_sur(flow, 2, prompt[0], adapter[0], f"SUR: {title.lower()}")
        areas.append(
            flow.add(
                "ConditioningSetAreaPercentage",
                3,
                conditioning=adapted[0],
                width=0.55,
                height=1.0,
                x=0.45 * place,
                y=0.0,
                strength=1.0,
            )
        )
    scene = flow.add(
        "CLIPTextEncode", 1, "Whole picture", PROMPT_ROOM, text="A garden in autumn", clip=models[1]
    )
    negative = flow.add("CLIPTextEncode", 1, "Negative prompt", PROMPT_ROOM, text=UNWANTED, clip=models[1])
    flow.note(
        2,
        "Each region has its own prompt, and each prompt its own eta. Areas, masks and strengths of a "
        "conditioning stay as they are, so Apply SUR may also stand behind Set Area or Combine.\n\n"
        "The prompt of the whole picture is left as it is here.",
        165,
    )
    halves = flow.add("ConditioningCombine", 4, conditioning_1=areas[0][0], conditioning_2=areas[1][0])
    everything = flow.add("ConditioningCombine", 5, conditioning_1=halves[0], conditioning_2=scene[0])
    latent = flow.add("EmptyLatentImage", 5, width=768, height=512, batch_size=1)
    wires = {"positive": everything[0], "negative": negative[0], "latent_image": latent[0]}
    sampled = sample(flow, 6, model=models[0], **wires)
    save(flow, 8, decode(flow, 7, sampled[0], models[2])[0], "sur_regional")
    return flow


def self_attention_guidance() -> Workflow:
    flow = Workflow("sur_self_attention_guidance", (365, 310, 292, 255, 140, 300))
    models, adapter = load_models(flow)
    positive, negative = clip_prompts(flow, 1, models[1], BALLOONS)
    latent = empty_latent(flow, 1)
    adapted = apply_sur(flow, 2, positive[0], adapter[0])
    guided = flow.add("SelfAttentionGuidance", 2, model=models[0], scale=0.5, blur_sigma=2.0)
    flow.note(
        2,
        "Self-Attention Guidance changes the model, Apply SUR the prompt, so they go together as they are. "
        "The paper measures both together (its Table 2).",
        110,
    )
    wires = {"positive": adapted[0], "negative": negative[0], "latent_image": latent[0]}
    sampled = sample(flow, 3, model=guided[0], **wires)
    save(flow, 5, decode(flow, 4, sampled[0], models[2])[0], "sur_self_attention_guidance")
    return flow


def inspect() -> Workflow:
    flow = Workflow("sur_inspect", (365, 400, 340, 520))
    models, adapter = load_models(flow)
    prompt = flow.add("CLIPTextEncode", 1, "Prompt", PROMPT_ROOM, text=BALLOONS, clip=models[1])
    flow.note(
        1,
        "Shows what the adapter changes in a prompt, token by token, without drawing a picture: a second or "
        "two.\n\n"
        "Long bar: the token means something else than before. Move eta and run again.\n\n"
        "Write the same text into SUR Inspect as into the prompt, so that it can name the tokens.",
        180,
    )
    look = flow.add(
        "SURInspect",
        2,
        before=prompt[0],
        adapter=adapter[0],
        eta=0.1,
        clip=models[1],
        text=BALLOONS,
        entry=1,
        chunk=0,
        tokens=20,
        theme="dark",
    )
    flow.add("PreviewImage", 3, "What the adapter changed", 1010, images=look[0])
    return flow


TEMPLATES = (
    first_steps,
    on_clip,
    eta_sweep,
    positive_negative,
    sdxl,
    controlnet,
    regional,
    self_attention_guidance,
    inspect,
    *LLMDIFF_TEMPLATES,
)
