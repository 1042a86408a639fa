"""The example workflows of LLMDiff."""

from __future__ import annotations

from .pieces import (
    ADAPTER,
    BALLOONS,
    DANCER,
    PROMPT_ROOM,
    SD15,
    UNWANTED,
    apply_sur,
    compare,
    empty_latent,
)
from .workflow import Node, Wire, Workflow

LLM, LLMDIFF_ADAPTER = "Qwen2.5-0.5B", "my_llmdiff_adapter.safetensors"


def _models(flow: Workflow) -> tuple[Node, Node, Node]:
    """The checkpoint, the language model and the adapter; below each other in the first column."""
    settings = {"dtype": "auto", "device": "auto", "max_tokens": 256}
    return (
        flow.add("CheckpointLoaderSimple", 0, ckpt_name=SD15),
        flow.add("LLMDiffLoadLLM", 0, llm_name=LLM, **settings),
        flow.add("LLMDiffLoadAdapter", 0, adapter_name=LLMDIFF_ADAPTER),
    )


def _texts(flow: Workflow, column: int, positive: str) -> tuple[Node, Node]:
    """Written once, for CLIP and for the language model."""
    return (
        flow.add("PrimitiveStringMultiline", column, "Positive prompt", PROMPT_ROOM, value=positive),
        flow.add("PrimitiveStringMultiline", column, "Negative prompt", PROMPT_ROOM, value=UNWANTED),
    )


def _clip(flow: Workflow, column: int, text: Wire, clip: Wire, title: str) -> Node:
    return flow.add("CLIPTextEncode", column, title, text=text, clip=clip)


def _encode(
    flow: Workflow, column: int, text: Wire, llm: Wire, adapter: Wire, clip: Wire, title: str
) -> Node:
    return flow.add("LLMDiffEncode", column, title, llm=llm, adapter=adapter, conditioning=clip, text=text)


def _apply(flow: Workflow, column: int, model: Wire, adapter: Wire, strength: float) -> Node:
    window = {"start_percent": 0.0, "end_percent": 1.0}
    return flow.add("LLMDiffApply", column, model=model, adapter=adapter, strength=strength, **window)


def llmdiff_first_steps() -> Workflow:
    flow = Workflow("llmdiff_first_steps", (365, 330, 260, 310, 255, 140, 235))
    models, llm, adapter = _models(flow)
    texts = _texts(flow, 1, BALLOONS)
    titles = ("Positive", "Negative")
    clips = [
        _clip(flow, 2, text[0], models[1], f"CLIP: {title.lower()}")
        for text, title in zip(texts, titles, strict=True)
    ]
    latent = empty_latent(flow, 2)
    heard = [
        _encode(flow, 3, text[0], llm[0], adapter[0], clip[0], f"LLM: {title.lower()}")
        for text, clip, title in zip(texts, clips, titles, strict=True)
    ]
    adapted = _apply(flow, 3, models[0], adapter[0], 1.0)
    flow.note(
        1,
        "1. Put an LLMDiff adapter into models/llmdiff_adapters, and the language model it was trained with "
        "(a folder with config.json, weights and tokenizer) into models/llm. Press R and choose both.\n\n"
        "2. Choose a checkpoint of the adapter's family.\n\n"
        "3. Run. Upper picture: the language model is heard. Lower picture: CLIP alone, same seed.\n\n"
        "4. Move strength and run again: 0 is CLIP alone. The language model is read for new prompts only.",
        255,
    )
    same = {"latent_image": latent[0]}
    both = {
        "With LLMDiff": {"model": adapted[0], "positive": heard[0][0], "negative": heard[1][0], **same},
        "CLIP alone": {"positive": clips[0][0], "negative": clips[1][0], **same},
    }
    compare(flow, 4, models[0], models[2], both)
    return flow


def llmdiff_with_sur() -> Workflow:
    flow = Workflow("llmdiff_with_sur", (365, 330, 260, 292, 310, 255, 140, 235))
    models, llm, adapter = _models(flow)
    sur = flow.add("SURLoadAdapter", 0, adapter_name=ADAPTER)
    positive, negative = _texts(flow, 1, DANCER)
    clip = _clip(flow, 2, positive[0], models[1], "CLIP: positive")
    unwanted = _clip(flow, 2, negative[0], models[1], "CLIP: negative")
    corrected = apply_sur(flow, 3, clip[0], sur[0])
    latent = empty_latent(flow, 2)
    flow.note(
        3,
        "SUR corrects what CLIP says, LLMDiff adds what a language model says. At strength 0.5 half of what "
        "is heard comes from CLIP as SUR corrects it, so both act.\n\n"
        "Upper picture: both. Lower picture: SUR alone, same seed.\n\n"
        "The negative prompt is encoded with the language model too, as the empty prompt was in training.",
        215,
    )
    heard = _encode(flow, 4, positive[0], llm[0], adapter[0], corrected[0], "LLM: positive")
    unheard = _encode(flow, 4, negative[0], llm[0], adapter[0], unwanted[0], "LLM: negative")
    adapted = _apply(flow, 4, models[0], adapter[0], 0.5)
    same = {"latent_image": latent[0]}
    both = {
        "SUR and LLMDiff": {"model": adapted[0], "positive": heard[0], "negative": unheard[0], **same},
        "SUR alone": {"positive": corrected[0], "negative": unwanted[0], **same},
    }
    compare(flow, 5, models[0], models[2], both)
    return flow


LLMDIFF_TEMPLATES = (llmdiff_first_steps, llmdiff_with_sur)
